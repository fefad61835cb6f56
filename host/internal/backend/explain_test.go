package backend_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

const unservedYAML = `namespace: linear
name: unserved
version: 1.0.0
steps:
  - {name: first, handler: nobody.serves, depends_on: []}
`

// What a task waits for, according to the database and the engine.
func TestExplain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	task := b.submitBroken(t)
	e, err := b.ExplainTask(ctx, task)
	require.NoError(t, err)
	require.Equal(t, readmodel.CauseRunning, e.Cause)
	require.Contains(t, e.Text, "step other: it is running on test (since ")
	require.Len(t, e.Steps, 2)
	require.Equal(t, readmodel.CauseFailed, e.Steps[0].Cause)
	step, err := b.ExplainStep(ctx, api.StepID{Task: task, Number: 2})
	require.NoError(t, err)
	require.Equal(t, readmodel.CauseBlocked, step.Cause)
	require.Equal(t, "step first, on which it depends, failed for good: it is broken", step.Text)

	close(b.handlers.hold)
	require.Equal(t, vocab.TaskError, b.watchUntil(t, task, settled).State)
	e, err = b.ExplainTask(ctx, task)
	require.NoError(t, err)
	require.Equal(t, readmodel.CauseFailed, e.Cause)
	require.Contains(t, e.Text, "task retry "+task.String())

	b.apply(t, unservedYAML)
	waiting, _, err := b.Submit(ctx, api.Submission{Namespace: "linear", Name: "unserved", Context: json.RawMessage("{}")})
	require.NoError(t, err)
	id := parse(t, waiting.UUID)
	require.Eventually(t, func() bool {
		e, err = b.ExplainTask(ctx, id)
		return err == nil && e.Cause == readmodel.CauseUnserved
	}, time.Minute, 10*time.Millisecond)

	_, err = b.PauseQueue(ctx, "linear", true, operator)
	require.NoError(t, err)
	e, err = b.ExplainTask(ctx, id)
	require.NoError(t, err)
	require.Equal(t, readmodel.CausePaused, e.Cause)
	_, err = b.PauseQueue(ctx, "linear", false, operator)
	require.NoError(t, err)

	_, err = b.pool.Exec(ctx, "update tasker_hosts set served = served || '{nobody.serves}'::text[]") // as if another host served it
	require.NoError(t, err)
	e, err = b.ExplainTask(ctx, id)
	require.NoError(t, err)
	require.Contains(t, []readmodel.Cause{readmodel.CauseQueued, readmodel.CauseUnserved}, e.Cause, "until the next heartbeat")

	_, err = b.ExplainStep(ctx, api.StepID{Task: task, Number: 9})
	faultOf(t, err, api.ErrNotFound, api.CodeStepNotFound)
	_, err = b.ExplainTask(ctx, parse(t, "019ca9d2-7c00-7000-8000-000100000000"))
	faultOf(t, err, api.ErrNotFound, api.CodeTaskNotFound)
}

// The place of a step among the messages of its queue.
func TestQueuePlace(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	b.apply(t, pairYAML)
	_, err := b.PauseQueue(ctx, "linear", true, operator)
	require.NoError(t, err)
	first, second := b.submit(t), b.submit(t)
	for i, task := range []vocab.UUID{first, second} {
		ahead, found, err := b.parts.Store.QueuePlace(ctx, "linear_queue", vocab.StepID(task, 0).String(), 10)
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, i, ahead)
	}
	_, found, err := b.parts.Store.QueuePlace(ctx, "linear_queue", vocab.StepID(second, 0).String(), 1)
	require.NoError(t, err)
	require.False(t, found)
}
