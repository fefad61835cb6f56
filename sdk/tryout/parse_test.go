package tryout_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/sdk/health"
	"github.com/tasker-systems/tasker-host/sdk/tryout"
)

func TestParseObservation(t *testing.T) {
	t.Parallel()
	o, err := tryout.ParseObservation([]byte(`{
		"now": "2026-05-01T12:00:00Z", "current": 3, "max": 8,
		"samples": [{"span": "1m", "queue_depth": 4, "size": 2}, {"queue_depth": 9, "oldest_age": "3s", "utilization": 0.5}]
	}`))
	require.NoError(t, err)
	require.Equal(t, 3, o.Target)
	require.Equal(t, -1, o.BudgetLeft)
	require.Equal(t, time.Date(2026, 5, 1, 11, 59, 50, 0, time.UTC), o.Samples[0].At)
	require.Equal(t, time.Minute, o.Samples[0].Span)
	require.Equal(t, 2, o.Samples[0].Size)
	require.Equal(t, o.Now, o.Samples[1].At)
	require.Equal(t, 3, o.Samples[1].Size)
	require.Equal(t, 3*time.Second, o.Samples[1].OldestAge)
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		`{"samples": [{"span": "0s"}]}`: "samples[0]: span must be more than zero",
		`{"queue": 3}`:                  `unknown field "queue"`,
		`{} {}`:                         "something after",
		`[`:                             "read the observation",
	} {
		_, err := tryout.ParseObservation([]byte(raw))
		require.ErrorContains(t, err, want)
	}
	_, err := tryout.ParseStep([]byte(`{"context": [1]}`))
	require.ErrorContains(t, err, "context must be a JSON object")
	_, err = tryout.ParseStep([]byte(`{"contxt": {}}`))
	require.ErrorContains(t, err, `unknown field "contxt"`)
	_, err = tryout.ParseEvent([]byte(`{"sevrity": ""}`))
	require.ErrorContains(t, err, `unknown field "sevrity"`)
}

func TestParseEvent(t *testing.T) {
	t.Parallel()
	e, err := tryout.ParseEvent([]byte(`{"severity": "critical", "labels": {"a": "b"}}`))
	require.NoError(t, err)
	require.Equal(t, health.Critical, e.Severity)
	require.Equal(t, "tryout-1", e.ID)
	require.Equal(t, "b", e.Labels["a"])
}
