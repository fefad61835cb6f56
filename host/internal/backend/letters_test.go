package backend_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// A failed step is replayed from its dead letter; an unreadable message goes back to its
// queue.
func TestDeadLetters(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	task := b.submitBroken(t)
	_, err := b.pool.Exec(ctx, `select pgmq.send('task_requests_queue', '{"namespace": "linear", "task_name": 7}'::jsonb)`)
	require.NoError(t, err)
	var letters []readmodel.DeadLetter
	require.Eventually(t, func() bool {
		letters, err = b.ListLetters(ctx, api.LetterQuery{Limit: 10})
		return err == nil && len(letters) == 2
	}, time.Minute, 10*time.Millisecond)
	message, step := letters[0], letters[1]
	if message.Kind == "step" {
		message, step = step, message
	}
	require.Equal(t, "first", step.Step)
	require.Equal(t, "linear", step.Namespace)
	require.Equal(t, "permanent_failure", step.Reason)
	require.Equal(t, vocab.StepID(task, 0).String(), step.StepUUID)

	for _, q := range []api.LetterQuery{
		{Kind: "step"}, {Reason: "permanent_failure"}, {Namespace: "linear", Kind: "step"},
	} {
		q.Limit = 10
		got, err := b.ListLetters(ctx, q)
		require.NoError(t, err)
		require.Len(t, got, 1, q)
		require.Equal(t, step.ID, got[0].ID, q)
	}
	for _, q := range []api.LetterQuery{{Queue: "task_requests_queue"}, {Reason: message.Reason}} {
		q.Limit = 10
		got, err := b.ListLetters(ctx, q)
		require.NoError(t, err)
		require.Len(t, got, 1, q)
		require.Equal(t, message.ID, got[0].ID, q)
	}
	for _, q := range []api.LetterQuery{{OlderThan: time.Hour}, {Namespace: "other"}, {Before: 1}} {
		q.Limit = 10
		got, err := b.ListLetters(ctx, q)
		require.NoError(t, err)
		require.Empty(t, got, q)
	}

	full, err := b.Letter(ctx, message.ID)
	require.NoError(t, err)
	require.JSONEq(t, `{"namespace": "linear", "task_name": 7}`, string(full.Body))
	replayed, err := b.Replay(ctx, message.ID, operator)
	require.NoError(t, err)
	require.Equal(t, "replayed", replayed.Closed.As)
	require.Equal(t, "ops", replayed.Closed.By)
	_, err = b.Replay(ctx, message.ID, operator)
	faultOf(t, err, api.ErrConflict, api.CodeLetterClosed)
	require.Eventually(t, func() bool { // it is still unreadable
		letters, err = b.ListLetters(ctx, api.LetterQuery{Kind: "message", Limit: 10})
		return err == nil && len(letters) == 1 && letters[0].ID > message.ID
	}, time.Minute, 10*time.Millisecond)
	discarded, err := b.Discard(ctx, letters[0].ID, operator)
	require.NoError(t, err)
	require.Equal(t, "discarded", discarded.Closed.As)

	replayed, err = b.Replay(ctx, step.ID, operator)
	require.NoError(t, err)
	require.Equal(t, "replayed", replayed.Closed.As)
	b.watchUntil(t, task, failed(1)) // it fails again, with a new letter
	letters, err = b.ListLetters(ctx, api.LetterQuery{Limit: 10})
	require.NoError(t, err)
	require.Len(t, letters, 1)
	require.Equal(t, 1, letters[0].Generation)
	all, err := b.ListLetters(ctx, api.LetterQuery{Closed: true, Limit: 10})
	require.NoError(t, err)
	require.Len(t, all, 4, "nothing is forgotten")

	_, err = b.Replay(ctx, 999, operator)
	faultOf(t, err, api.ErrNotFound, api.CodeLetterNotFound)
	_, err = b.pool.Exec(ctx, `insert into tasker_dead_letters (kind, queue_name, msg_id, reason, body) values ('message', 'gone_queue', 1, 'malformed', '{}')`)
	require.NoError(t, err)
	letters, err = b.ListLetters(ctx, api.LetterQuery{Queue: "gone_queue", Limit: 1})
	require.NoError(t, err)
	_, err = b.Replay(ctx, letters[0].ID, operator)
	faultOf(t, err, api.ErrConflict, api.CodeLetterNotReplayable)
}

func TestQueuesAndHosts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	b.apply(t, pairYAML)
	q, err := b.PauseQueue(ctx, "linear", true, operator)
	require.NoError(t, err)
	require.Equal(t, "it is mended", q.Paused.Reason)
	task := b.submit(t)
	require.Eventually(t, func() bool {
		q, err = b.Queue(ctx, "linear")
		return err == nil && q.Waiting == 1
	}, time.Minute, 10*time.Millisecond, "the new task waits")
	require.NotNil(t, q.OldestAt)
	queues, err := b.Queues(ctx)
	require.NoError(t, err)
	require.Len(t, queues, 1)

	close(b.handlers.hold)
	q, err = b.PauseQueue(ctx, "linear", false, operator)
	require.NoError(t, err)
	require.Nil(t, q.Paused)
	require.Equal(t, vocab.TaskComplete, b.watchUntil(t, task, settled).State)
	_, err = b.PauseQueue(ctx, "nobody", true, operator)
	faultOf(t, err, api.ErrNotFound, api.CodeQueueNotFound)

	require.Eventually(t, func() bool {
		hosts, err := b.Hosts(ctx)
		return err == nil && len(hosts) == 1 && hosts[0].Alive && hosts[0].State == "normal" && len(hosts[0].Served) == 3
	}, time.Minute, 10*time.Millisecond)
	hosts, err := b.Hosts(ctx)
	require.NoError(t, err)
	require.Equal(t, *b.handlers.plugins.Load(), hosts[0].Plugins)

	swapped := []readmodel.HostPlugin{{Kind: "handler", Name: "x", Version: "1.1.0", Generation: 4}}
	b.handlers.plugins.Store(&swapped)
	require.NoError(t, b.engine.TemplatesChanged(ctx)) // makes the host look at what is served
	hosts, err = b.Hosts(ctx)
	require.NoError(t, err)
	require.Equal(t, swapped, hosts[0].Plugins)
	_, err = b.pool.Exec(ctx, "update tasker_hosts set plugins = '[]'")
	require.NoError(t, err)
	require.NoError(t, b.engine.TemplatesChanged(ctx))
	hosts, err = b.Hosts(ctx)
	require.NoError(t, err)
	require.Empty(t, hosts[0].Plugins, "nothing has changed, nothing is written")
}
