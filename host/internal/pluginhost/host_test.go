package pluginhost

import (
	"testing"

	"github.com/stretchr/testify/require"

	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

func TestStepsRunInAPluginProcess(t *testing.T) {
	t.Parallel()
	b := started(t, nil, spec("chaos", script(t, "sdk")))

	require.Contains(t, b.Handlers(), "chaos.echo")
	require.Equal(t, 64, b.Room("chaos.echo"))
	require.Zero(t, b.Room("nobody"))
	require.Equal(t, "chaos", b.Services()[0].Name)
	require.Equal(t, 64, b.Services()[0].Window)

	o := b.run(t, "chaos.echo", `{"n":123456789012345678901234567890.10}`)
	require.Equal(t, vocab.OutcomeSuccess, o.Kind, "%+v", o.Failure)
	require.Equal(t, `{"n":123456789012345678901234567890.10}`, string(o.Result))
	require.Equal(t, b.Status()[0].Generation, o.Generation)

	o = b.run(t, "chaos.fail", `"retryable"`)
	require.Equal(t, vocab.OutcomeRetryable, o.Kind)
	require.Equal(t, "BUSY", o.Failure.Code)
	require.Equal(t, "3s", o.Failure.RetryAfter.String())

	o = b.run(t, "chaos.fail", `""`)
	require.Equal(t, vocab.OutcomePermanent, o.Kind)
	require.Equal(t, vocab.PermanentError, o.Failure.Type)

	o = b.run(t, "chaos.unknown", `{}`)
	require.Equal(t, vocab.OutcomeReleased, o.Kind)
	require.Equal(t, ReasonNoPlugin, o.Failure.Code)

	s := b.Status()[0]
	require.Equal(t, "1.2.3", s.Version)
	require.Equal(t, Serving, s.State)
	require.Len(t, s.SHA256, 64)
	require.NotZero(t, s.PID)
	require.NotZero(t, s.StartedAt)
	require.Empty(t, s.LastError)
}

// Steps beyond the window wait in the host and run when there is room.
func TestMoreThanTheWindowWaits(t *testing.T) {
	t.Parallel()
	chaos := spec("chaos", script(t, "sdk"))
	chaos.MaxInFlight = 3
	b := started(t, nil, chaos)

	var outcomes []<-chan Outcome
	for range 500 {
		outcomes = append(outcomes, b.call("chaos.echo", &pluginv1.Step{Context: []byte(`{}`)}))
	}
	for _, done := range outcomes {
		require.Equal(t, vocab.OutcomeSuccess, outcome(t, done).Kind)
	}
	eventually(t, "all room is free again", func() bool { return b.Room("chaos.echo") == 3 && b.Status()[0].InFlight == 0 })
}
