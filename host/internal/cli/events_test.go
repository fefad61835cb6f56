package cli_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

func TestEventsCommand(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, e := range []readmodel.Event{
		{Kind: readmodel.EventTask, Namespace: "shop", TaskUUID: first, From: "pending", To: "in_progress", Host: "box/1"},
		{Kind: readmodel.EventStep, Namespace: "shop", TaskUUID: first, Step: "pay", From: "in_progress", To: "error", Reason: "Refused", Message: "no \x1b[31mmoney\nleft"},
		{Kind: readmodel.EventPlugin, Subject: "handler/pay", From: "probing", To: "active", Actor: "local:ops", Reason: "swap", PluginGeneration: 7, Host: "box/1"},
		{Kind: readmodel.EventAudit, Subject: "task x", Actor: "token:deploy", Action: "POST /v1/tasks/{task_uuid}/cancel", To: "done"},
		{Kind: readmodel.EventHost, Subject: "3", To: "startup", Host: "box/1"},
		{Kind: readmodel.EventHealth, Subject: "database", From: "healthy", To: "unhealthy", Host: "box/1", Reason: "it does not answer"},
	} {
		b.Happened(e)
	}
	b.golden(t, "events", b.run(t, "events", "--after", "e0", "--count", "6"))
	b.golden(t, "events_some", b.run(t, "events", "--after", "e0", "--count", "2", "--kind", "health,step"))
	lines := b.run(t, "events", "--after", "e4", "--count", "2", "--json")
	require.Zero(t, lines.code, lines.err)
	for line := range strings.SplitSeq(strings.TrimSpace(lines.out), "\n") {
		var e readmodel.Event
		require.NoError(t, json.Unmarshal([]byte(line), &e))
		require.NotEmpty(t, e.ID)
	}
	require.Equal(t, 1, b.run(t, "events", "--kind", "letters").code)
	require.Equal(t, 2, b.run(t, "events", "--count", "-1").code)
	require.Equal(t, 1, b.run(t, "events", "--after", "old").code)
}
