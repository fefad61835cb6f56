package store_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// failOrderHunt: a step fails for good while another one runs.
func failOrderHunt(t *testing.T, b *bed) string {
	t.Helper()
	g := b.grant(b.host(t), 2)
	task, leases := b.create(t, g, b.mustPlan(t, fan(2)...))
	last := leases[slices.IndexFunc(leases, func(l store.Lease) bool { return l.Number == 1 })]
	return locksInOrder(t, b, task, func(ctx context.Context) error {
		_, err := b.store.Settle(ctx, g, policy, []store.Settlement{settlement(last.StepKey, last.ID, vocab.OutcomePermanent)})
		return err
	})
}

// locksInOrder holds the lock of a task's first step while do waits for it, and then
// takes that of the second: do must not hold it yet.
func locksInOrder(t *testing.T, b *bed, task vocab.UUID, do func(ctx context.Context) error) string {
	t.Helper()
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	const lock = "select from tasker_workflow_steps where task_uuid = $1 and step_no = $2 for update"
	_, err = tx.Exec(t.Context(), lock, task, 0)
	require.NoError(t, err)
	var taken error
	err = onceBlocked(t, b, func() error {
		_, taken = tx.Exec(t.Context(), lock+" nowait", task, 1)
		return tx.Rollback(t.Context())
	}, do)
	if taken != nil {
		return "a later lock was taken before an earlier one: " + taken.Error()
	}
	require.NoError(t, err)
	return oracleSays(t, b)
}

// mixedOrderHunt: a step fails for good while another one runs, and a step of another
// task is tried again.
func mixedOrderHunt(t *testing.T, b *bed) string {
	t.Helper()
	g := b.grant(b.host(t), 3)
	task, leases := b.create(t, g, b.mustPlan(t, fan(2)...))
	last := leases[slices.IndexFunc(leases, func(l store.Lease) bool { return l.Number == 1 })]
	_, others := b.create(t, g, b.mustPlan(t, tried(fan(1), 3)...))
	return locksInOrder(t, b, task, func(ctx context.Context) error {
		_, err := b.store.Settle(ctx, g, policy, []store.Settlement{
			settlement(last.StepKey, last.ID, vocab.OutcomePermanent), settlement(others[0].StepKey, others[0].ID, vocab.OutcomeRetryable),
		})
		return err
	})
}

// retryRaceHunt: a step fails and is to be tried again while its task is cancelled.
func retryRaceHunt(t *testing.T, b *bed) string {
	t.Helper()
	g := b.grant(b.host(t), 1)
	task, leases := b.create(t, g, b.mustPlan(t, tried(fan(1), 3)...))
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "select tasker_cancel_task($1, 'no use', 'somebody')", task)
	require.NoError(t, err)
	var done store.Settled
	err = blocked(t, b, tx, func(ctx context.Context) (err error) {
		done, err = b.store.Settle(ctx, g, policy, []store.Settlement{settlement(leases[0].StepKey, leases[0].ID, vocab.OutcomeRetryable)})
		return err
	})
	if err == nil && !slices.Equal(done.Verdicts, []store.Verdict{store.StaleLease}) {
		return fmt.Sprintf("the failure of a step that was cancelled is %v", done.Verdicts)
	}
	return refusedOr(t, b, err)
}

// repeatedHunt: a batch contains the same failure twice.
func repeatedHunt(t *testing.T, b *bed) string {
	t.Helper()
	g := b.grant(b.host(t), 1)
	_, leases := b.create(t, g, b.mustPlan(t, tried(fan(1), 3)...))
	for _, outcome := range []vocab.Outcome{vocab.OutcomeRetryable, vocab.OutcomeReleased, vocab.OutcomePermanent} {
		done := b.settle(t, g, outcome, leases[0], leases[0])
		if !slices.Equal(done.Verdicts, []store.Verdict{store.Recorded, store.AlreadyRecorded}) {
			return fmt.Sprintf("%s twice: %v", outcome, done.Verdicts)
		}
		if outcome != vocab.OutcomePermanent {
			leases = b.claim(t, g)
			require.Len(t, leases, 1)
		}
	}
	if n := one[int](t, b, "select count(*) from tasker_dead_letters"); n != 1 {
		return fmt.Sprintf("%d dead letters", n)
	}
	return oracleSays(t, b)
}

// tried gives steps the given number of attempts, without waiting in between.
func tried(steps []workflow.Step, attempts int) []workflow.Step {
	for i := range steps {
		steps[i].Retry = workflow.Retry{Retryable: true, MaxAttempts: attempts, Backoff: workflow.BackoffNone, Cap: time.Second}
	}
	return steps
}

// TestFailuresOfOneBatch: what happens to each one does not depend on the others.
func TestFailuresOfOneBatch(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	g := b.grant(b.host(t), 100)
	again := b.mustPlan(t, tried(fan(1), 3)...)
	slow := tried(fan(1), 3)
	slow[0].Retry.Backoff, slow[0].Retry.Base, slow[0].Retry.Cap = workflow.BackoffFixed, time.Minute, time.Minute
	later, never := b.mustPlan(t, slow...), b.mustPlan(t, fan(1)...)
	var batch []store.Settlement
	want := map[vocab.UUID]struct {
		state   vocab.StepState
		verdict store.Verdict
	}{}
	fails := func(plan *store.Plan, outcome vocab.Outcome, state vocab.StepState, verdict store.Verdict) *store.Settlement {
		task, leases := b.create(t, g, plan)
		batch = append(batch, settlement(leases[0].StepKey, leases[0].ID, outcome))
		want[task] = struct {
			state   vocab.StepState
			verdict store.Verdict
		}{state, verdict}
		return &batch[len(batch)-1]
	}
	for range 3 {
		fails(again, vocab.OutcomeRetryable, vocab.StepPending, store.Recorded)
		fails(later, vocab.OutcomeRetryable, vocab.StepPending, store.Recorded)
		fails(never, vocab.OutcomeRetryable, vocab.StepError, store.Recorded)
		fails(again, vocab.OutcomePermanent, vocab.StepError, store.Recorded)
		fails(again, vocab.OutcomeReleased, vocab.StepEnqueued, store.Recorded)
		fails(later, vocab.OutcomeReleased, vocab.StepEnqueued, store.Recorded).RetryAfter = time.Minute
		fails(again, vocab.OutcomeRetryable, vocab.StepInProgress, store.StaleLease).Lease = randomUUID()
	}
	batch = append(batch, settlement(store.StepKey{Task: taskUUID()}, randomUUID(), vocab.OutcomePermanent))
	done, err := b.store.Settle(t.Context(), g, policy, batch)
	require.NoError(t, err)
	for i, s := range batch {
		w, known := want[s.Task]
		if !known {
			require.Equal(t, store.UnknownStep, done.Verdicts[i])
			continue
		}
		require.Equal(t, w.verdict, done.Verdicts[i])
		require.Equal(t, w.state, b.stepState(t, s.Task, 0))
	}
	require.Len(t, done.Finished, 6)
	require.Len(t, done.Due, 9, "three at once, three in a minute, and three that were given back")
	require.Equal(t, 3, done.Enqueued)
	require.Equal(t, 12, one[int](t, b, "select count(*) from pgmq.q_"+queue))
	require.Equal(t, 6, one[int](t, b, "select count(*) from pgmq.q_"+queue+" where vt > clock_timestamp() + interval '50 s'"))
	b.requireSound(t)
}

func TestFailuresTogether(t *testing.T) {
	t.Parallel()
	for name, hunt := range map[string]func(*testing.T, *bed) string{
		"order": failOrderHunt, "mixed order": mixedOrderHunt, "cancelled": retryRaceHunt, "repeated": repeatedHunt,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Empty(t, hunt(t, newBed(t)))
		})
	}
}
