package health_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/sdk/health"
)

func TestVerify(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 1025)
	for want, c := range map[string]health.Check{
		"has no name":            {Status: health.Healthy},
		"at most 128 bytes":      {Name: long, Status: health.Healthy},
		"the name \"\\xff\"":     {Name: "\xff", Status: health.Healthy},
		"the status is \"fine\"": {Name: "c", Status: "fine", Message: "m"},
		"the status is \"\"":     {Name: "c", Message: "m"},
		"at most 1024 bytes":     {Name: "c", Status: health.Healthy, Message: long},
		"no message says why":    {Name: "c", Status: health.Unknown},
	} {
		require.ErrorContains(t, c.Verify(), want)
	}
	require.NoError(t, health.Check{Name: "c", Status: health.Healthy}.Verify())
	for _, s := range health.Statuses {
		require.NoError(t, health.Check{Name: "c", Status: s, Message: "m"}.Verify())
	}
}
