package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// The hunts of this file each find at once what the random histories of machineHunt
// find too, but only after hundreds of steps.

// fenceHunt: steps are given back and leased again, and their first holder answers: for
// two of them together, and for one alone.
func fenceHunt(t *testing.T, b *bed) string {
	t.Helper()
	g := b.grant(b.host(t), 3)
	_, old := b.create(t, g, b.mustPlan(t, manyTries(fan(3))...))
	b.settle(t, g, vocab.OutcomeReleased, old...)
	require.Len(t, b.claim(t, g), 3)
	for _, batch := range [][]store.Lease{old[:2], old[2:]} {
		for _, verdict := range b.settle(t, g, vocab.OutcomeSuccess, batch...).Verdicts {
			if verdict != store.StaleLease {
				return fmt.Sprintf("an answer under an old lease is %s", verdict)
			}
		}
	}
	return oracleSays(t, b)
}

// joinHunt: the first of two branches ends, in one task and then in two together; the
// first of two sinks ends.
func joinHunt(t *testing.T, b *bed) string {
	t.Helper()
	g := b.grant(b.host(t), 10)
	merging := b.mustPlan(t, diamond()...)
	for n := 1; n <= 2; n++ {
		var tasks []vocab.UUID
		var roots, lefts []store.Lease
		for range n {
			task, leases := b.create(t, g, merging)
			tasks, roots = append(tasks, task), append(roots, leases...)
		}
		for _, l := range b.settle(t, g, vocab.OutcomeSuccess, roots...).Leases {
			if l.Number == 1 {
				lefts = append(lefts, l)
			}
		}
		b.settle(t, g, vocab.OutcomeSuccess, lefts...)
		for _, task := range tasks {
			if state := b.stepState(t, task, 3); state != vocab.StepPending {
				return fmt.Sprintf("the join is %s after its first parent", state)
			}
		}
	}
	task, sinks := b.create(t, g, b.mustPlan(t, fan(2)...))
	if _, err := b.store.Settle(t.Context(), g, policy, []store.Settlement{settlement(sinks[0].StepKey, sinks[0].ID, vocab.OutcomeSuccess)}); err != nil {
		return refusedOr(t, b, err)
	}
	if state := b.taskState(t, task); state != vocab.TaskInProgress {
		return fmt.Sprintf("the task is %s after its first sink", state)
	}
	return oracleSays(t, b)
}

// triesHunt: a step with two attempts fails twice.
func triesHunt(t *testing.T, b *bed) string {
	t.Helper()
	steps := fan(1)
	steps[0].Retry.MaxAttempts = 2
	g := b.grant(b.host(t), 1)
	task, leases := b.create(t, g, b.mustPlan(t, steps...))
	b.settle(t, g, vocab.OutcomeRetryable, leases...)
	again := b.claim(t, g)
	if len(again) != 1 {
		return "there is no message for the retry"
	}
	b.settle(t, g, vocab.OutcomeRetryable, again...)
	if state := b.stepState(t, task, 0); state != vocab.StepError {
		return fmt.Sprintf("the step is %s after its last attempt", state)
	}
	return oracleSays(t, b)
}

// excuseHunt: workers give a step back, each time because they shut down, more often than
// it may be claimed.
func excuseHunt(t *testing.T, b *bed) string {
	t.Helper()
	b.exec(t, "update tasker_worker_policy set claim_factor = 1")
	task, j := b.workersStep(t)
	for range 3 {
		verdict, err := outsider{b.pool}.release(t.Context(), j.StepKey, j.ID, 0)
		require.NoError(t, err)
		require.Equal(t, "recorded", verdict)
		state, claims := b.stepState(t, task, 0), one[int](t, b, "select claims from tasker_workflow_steps")
		if state != vocab.StepEnqueued || claims != 0 {
			return fmt.Sprintf("the step is %s, with %d claims counted", state, claims)
		}
		jobs, err := outsider{b.pool}.claim(t.Context(), handlers, 1, time.Hour)
		require.NoError(t, err)
		require.Len(t, jobs, 1)
		j = jobs[0]
	}
	return oracleSays(t, b)
}

// seenHunt: a worker claims two steps together.
func seenHunt(t *testing.T, b *bed) string {
	t.Helper()
	b.create(t, b.grant(b.host(t), 0), b.mustPlan(t, fan(2)...))
	jobs, err := outsider{b.pool}.claim(t.Context(), handlers, 2, time.Hour)
	require.NoError(t, err)
	require.Len(t, jobs, 2)
	if rows := one[int](t, b, "select count(*) from tasker_worker_leases"); rows != 2 {
		return fmt.Sprintf("the sweep sees %d of 2 leases", rows)
	}
	return oracleSays(t, b)
}

// goneHunt: a message brings the result of a step that nobody has claimed, and another
// host has already removed the message.
func goneHunt(t *testing.T, b *bed) string {
	t.Helper()
	host := b.host(t)
	task, _ := b.create(t, b.grant(host, 0), b.mustPlan(t, fan(1)...))
	result := b.post(t, settlement(store.StepKey{Task: task}, none, vocab.OutcomeSuccess))
	b.exec(t, "delete from pgmq.q_"+posted)
	got, err := b.store.SettlePosted(t.Context(), host, posted, policy, []store.Posted{result})
	require.NoError(t, err)
	if state := b.stepState(t, task, 0); got.Verdicts[0] != store.AlreadyRecorded || state != vocab.StepEnqueued {
		return fmt.Sprintf("the result is %s, the step is %s", got.Verdicts[0], state)
	}
	return oracleSays(t, b)
}

// leftHunt: a worker claims a step and posts its result.
func leftHunt(t *testing.T, b *bed) string {
	t.Helper()
	_, j := b.workersStep(t)
	result := b.post(t, settlement(j.StepKey, j.ID, vocab.OutcomeSuccess))
	got, err := b.store.SettlePosted(t.Context(), b.host(t), posted, policy, []store.Posted{result})
	require.NoError(t, err)
	require.Equal(t, store.Recorded, got.Verdicts[0])
	if rows := one[int](t, b, "select count(*) from tasker_worker_leases"); rows != 0 {
		return "the lease outlives its step"
	}
	return oracleSays(t, b)
}

// lostHunt: the message of a step is lost.
func lostHunt(t *testing.T, b *bed) string {
	t.Helper()
	g := b.grant(b.host(t), 1)
	b.create(t, b.grant(g.Host, 0), b.mustPlan(t, fan(1)...))
	b.exec(t, "delete from pgmq.q_"+queue)
	if sent, _, err := b.store.SweepMessages(t.Context(), 0); err != nil || sent != 1 || len(b.claim(t, g)) != 1 {
		return fmt.Sprintf("%d lost messages were sent again, want 1: %v", sent, err)
	}
	return oracleSays(t, b)
}

// againHunt: a step of a task that has failed runs again, and so does one whose task has
// another step that still runs.
func againHunt(t *testing.T, b *bed) string {
	t.Helper()
	for _, width := range []int{1, 2} {
		task, g, leases := b.failed(t, b.mustPlan(t, fan(width)...))
		if _, err := b.store.RetryStep(t.Context(), leases[0].StepKey, operator, g.Host); err != nil {
			return refusedOr(t, b, err)
		}
		if wrong := oracleSays(t, b); wrong != "" {
			return wrong
		}
		if doomed := one[int](t, b, "select count(*) from tasker_workflow_steps where doomed and task_uuid = $1", task); doomed > 0 {
			return fmt.Sprintf("%d steps of a task in which nothing has failed are doomed", doomed)
		}
		b.settle(t, g, vocab.OutcomeSuccess, append(leases[1:], b.claim(t, g)...)...)
		if state := b.taskState(t, task); state != vocab.TaskComplete {
			return fmt.Sprintf("all steps are done in a task that is %s", state)
		}
	}
	return oracleSays(t, b)
}

// resolveHunt: an operator resolves steps that may not be resolved, and some that may.
func resolveHunt(t *testing.T, b *bed) string {
	t.Helper()
	steps := append(chain(2), step("aside", nil, nil))
	task, g, leases := b.failed(t, b.mustPlan(t, steps...)) // step 0 has failed, 1 waits for it, 2 runs
	key := func(n int32) store.StepKey { return store.StepKey{Task: task, Number: n} }
	resolve := func(n int32) (store.Resolution, error) {
		return b.store.ResolveStep(t.Context(), key(n), nil, operator, g.Host)
	}
	skip := func(n int32) (store.Resolution, error) {
		return b.store.SkipStep(t.Context(), key(n), operator, g.Host)
	}
	hand := func() {
		b.settle(t, g, vocab.OutcomeSuccess, leases[1])
	}
	for _, c := range []struct {
		before func()
		act    func(int32) (store.Resolution, error)
		step   int32
		want   store.ResolveVerdict
	}{
		{nil, resolve, 1, store.StepWaiting},
		{nil, resolve, 2, store.StepRunning},
		{nil, skip, 0, store.StepUnskippable},
		{hand, resolve, 2, store.StepSettled}, // the task has failed with it
		{nil, resolve, 0, store.Resolved},     // and is open again
		{nil, resolve, 0, store.StepSettled},
	} {
		if c.before != nil {
			c.before()
		}
		got, err := c.act(c.step)
		if err != nil {
			return refusedOr(t, b, err)
		}
		if got.Verdict != c.want {
			return fmt.Sprintf("step %d: %s, want %s", c.step, got.Verdict, c.want)
		}
		if wrong := oracleSays(t, b); wrong != "" {
			return wrong
		}
	}
	child := b.claim(t, g)
	if len(child) != 1 || child[0].Number != 1 {
		return fmt.Sprintf("resolving its parent made %v ready", child)
	}
	b.settle(t, g, vocab.OutcomePermanent, child...)
	if got, err := resolve(1); err != nil || got.Task != vocab.TaskComplete {
		return fmt.Sprintf("the last step is resolved, and its task is %s: %v", got.Task, err)
	}
	last, g, leases := b.failed(t, b.mustPlan(t, fan(2)...))
	if _, err := b.store.ResolveStep(t.Context(), store.StepKey{Task: last}, nil, operator, g.Host); err != nil {
		return refusedOr(t, b, err)
	}
	b.settle(t, g, vocab.OutcomeSuccess, leases[1])
	if state := b.taskState(t, last); state != vocab.TaskComplete {
		return fmt.Sprintf("its last step is done, and the task is %s", state)
	}
	other, _, _ := b.failed(t, b.mustPlan(t, fan(2)...))
	_, _, err := b.store.CancelTask(t.Context(), other, store.Operator{}, g.Host)
	require.NoError(t, err)
	got, err := b.store.ResolveStep(t.Context(), store.StepKey{Task: other}, nil, operator, g.Host)
	if err != nil || got.Verdict != store.TaskEnded {
		return fmt.Sprintf("a step of a task that has ended: %s: %v", got.Verdict, err)
	}
	return ""
}

// manyTries gives steps retries without a wait.
func manyTries(steps []workflow.Step) []workflow.Step {
	for i := range steps {
		steps[i].Retry.MaxAttempts = 9
	}
	return steps
}
