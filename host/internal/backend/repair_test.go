package backend_test

import (
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

const brokenYAML = `namespace: linear
name: broken
version: 1.0.0
steps:
  - {name: first, handler: math.broken, skippable: true}
  - {name: other, handler: math.hold}
  - {name: second, handler: math.square, depends_on: [first]}
`

var operator = api.Operator{By: "ops", Reason: "it is mended"}

func settled(s readmodel.Snapshot) bool { return s.Settled() }

func failed(n int) func(readmodel.Snapshot) bool {
	return func(s readmodel.Snapshot) bool { return s.Progress.Failed == n && s.Progress.InProgress == 1 }
}

// submitBroken submits a task whose first step fails while the second is held.
func (b *bundle) submitBroken(t *testing.T) vocab.UUID {
	t.Helper()
	b.apply(t, brokenYAML)
	task, _, err := b.Submit(t.Context(), api.Submission{Namespace: "linear", Name: "broken", Context: json.RawMessage("{}")})
	require.NoError(t, err)
	id := parse(t, task.UUID)
	b.watchUntil(t, id, failed(1))
	return id
}

func TestRepair(t *testing.T) {
	t.Parallel()
	b := setup(t)
	task := b.submitBroken(t)
	first, other := api.StepID{Task: task}, api.StepID{Task: task, Number: 1}
	ctx := t.Context()

	_, err := b.RetryStep(ctx, other, operator)
	faultOf(t, err, api.ErrConflict, api.CodeStepNotRetryable)
	_, err = b.ResolveStep(ctx, other, json.RawMessage("1"), operator)
	require.Contains(t, faultOf(t, err, api.ErrConflict, api.CodeStepNotResolvable).Detail, "is running")
	_, err = b.ResolveStep(ctx, api.StepID{Task: task, Number: 2}, json.RawMessage("1"), operator)
	require.Contains(t, faultOf(t, err, api.ErrConflict, api.CodeStepNotResolvable).Detail, "waits for its parents")
	_, err = b.SkipStep(ctx, api.StepID{Task: task, Number: 9}, operator)
	faultOf(t, err, api.ErrNotFound, api.CodeStepNotFound)

	step, err := b.RetryStep(ctx, first, operator)
	require.NoError(t, err)
	require.Equal(t, 1, step.Generation)
	b.watchUntil(t, task, failed(1)) // it fails again
	_, err = b.RetryTask(ctx, task, operator)
	require.NoError(t, err)
	b.watchUntil(t, task, failed(1))
	step, err = b.Step(ctx, first)
	require.NoError(t, err)
	require.Equal(t, 2, step.Generation)

	step, err = b.SkipStep(ctx, first, operator)
	require.NoError(t, err)
	require.Equal(t, vocab.StepResolvedManually, step.State)
	require.Equal(t, "null", string(step.Result))
	close(b.handlers.hold)
	require.Equal(t, vocab.TaskComplete, b.watchUntil(t, task, settled).State)
	_, err = b.RetryTask(ctx, task, operator)
	faultOf(t, err, api.ErrConflict, api.CodeTaskNotRetryable)
	_, err = b.ResolveTask(ctx, task, operator)
	faultOf(t, err, api.ErrConflict, api.CodeTaskNotResolvable)
	_, err = b.RetryTask(ctx, parse(t, "019ca9d2-7c00-7000-8000-000100000000"), operator)
	faultOf(t, err, api.ErrNotFound, api.CodeTaskNotFound)
}

// A resolved task is over: a handler that is still running for it is cancelled.
func TestResolveTaskEndsItsHandlers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	task := b.submitBroken(t)
	shown, err := b.ResolveTask(t.Context(), task, operator)
	require.NoError(t, err)
	require.Equal(t, vocab.TaskResolvedManually, shown.State)
	require.Equal(t, "1 failed, 2 cancelled", strconv.Itoa(shown.Progress.Failed)+" failed, "+strconv.Itoa(shown.Progress.Cancelled)+" cancelled")
	b.handlers.calls.Wait() // math.hold was cancelled
	require.Eventually(t, func() bool { return b.engine.InFlight() == 0 }, time.Minute, 5*time.Millisecond)
}
