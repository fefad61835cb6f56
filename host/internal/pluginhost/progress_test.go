package pluginhost

import (
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// progressOf runs a step and returns its first progress report.
func progressOf(t *testing.T, b *bench, handler, step string) (Progress, <-chan Outcome) {
	t.Helper()
	told, done := make(chan Progress, 64), make(chan Outcome, 1)
	b.Dispatch(Call{
		Handler: handler, Step: &pluginv1.Step{StepUuid: step, Context: []byte(`{}`)},
		Done:     func(o Outcome) { done <- o },
		Progress: func(p Progress) { told <- p },
	})
	select {
	case p := <-told:
		return p, done
	case <-time.After(wait):
		require.FailNow(t, "there was no report")
		return Progress{}, nil
	}
}

func TestProgressOfARunningStep(t *testing.T) {
	t.Parallel()
	b := started(t, nil, spec("chaos", script(t, "sdk")))
	p, done := progressOf(t, b, "chaos.progress", "step-1")
	require.Equal(t, Progress{Percent: 40, Note: "nearly half"}, p)
	b.Cancel("step-1", "enough")
	require.Equal(t, ReasonCancelled, outcome(t, done).Failure.Code)

	// A caller that does not want progress gets none.
	quiet := b.call("chaos.progress", &pluginv1.Step{StepUuid: "step-2", Context: []byte(`{}`)})
	b.run(t, "chaos.echo", `{}`)
	b.Cancel("step-2", "enough")
	require.Equal(t, ReasonCancelled, outcome(t, quiet).Failure.Code)
}

// A plugin without the SDK may report more than the contract allows.
func TestProgressIsBounded(t *testing.T) {
	t.Parallel()
	b := started(t, nil, spec("raw", script(t, "raw")))
	p, done := progressOf(t, b, "raw.progress", "step-1")
	require.Equal(t, 100, p.Percent)
	require.Len(t, p.Note, 256)
	require.True(t, utf8.ValidString(p.Note))
	require.Equal(t, vocab.OutcomeSuccess, outcome(t, done).Kind)
}
