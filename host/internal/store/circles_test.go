package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Batches that share tasks do not deadlock, because nobody holds a later lock while
// waiting for an earlier one.

// row is a row that can be locked.
type row struct {
	sql  string
	args []any
}

func stepRow(k store.StepKey) row {
	return row{"select from tasker_workflow_steps where task_uuid = $1 and step_no = $2 for update", []any{k.Task, k.Number}}
}

func taskRow(task vocab.UUID) row {
	return row{"select from tasker_tasks where task_uuid = $1 for update", []any{task}}
}

// waitsWithout holds a row while the settling of a batch waits for it, and then takes a
// later one, which the batch needs too and must not hold yet.
func (b *bed) waitsWithout(t *testing.T, host int32, held, later row, batch ...store.Settlement) string {
	t.Helper()
	tx := b.begin(t)
	_, err := tx.Exec(t.Context(), held.sql, held.args...)
	require.NoError(t, err)
	var taken error
	err = onceBlocked(t, b, func() error {
		_, taken = tx.Exec(t.Context(), later.sql+" nowait", later.args...)
		return tx.Rollback(t.Context())
	}, func(ctx context.Context) error {
		_, err := b.store.Settle(ctx, store.Grant{Host: host}, policy, batch)
		return err
	})
	if taken != nil {
		return "a later lock was taken before an earlier one: " + taken.Error()
	}
	require.NoError(t, err)
	return oracleSays(t, b)
}

// twice gives steps two attempts.
func twice(steps []workflow.Step) []workflow.Step {
	for i := range steps {
		steps[i].Retry.MaxAttempts = 2
	}
	return steps
}

// retriesHunt settles failures of one task: a step that is tried again comes before one
// that has failed for good, which locks everything that can move.
func retriesHunt(t *testing.T, b *bed) string {
	t.Helper()
	g := b.grant(b.host(t), 3)
	_, l := b.create(t, g, b.mustPlan(t, twice(fan(3))...))
	return b.waitsWithout(t, g.Host, stepRow(l[0].StepKey), stepRow(l[1].StepKey),
		settlement(l[1].StepKey, l[1].ID, vocab.OutcomeRetryable), settlement(l[2].StepKey, l[2].ID, vocab.OutcomePermanent))
}

// crosswiseHunt settles failures of two tasks; that of the second is final.
func crosswiseHunt(t *testing.T, b *bed) string {
	t.Helper()
	g, p := b.grant(b.host(t), 1), b.mustPlan(t, twice(fan(1))...)
	_, one := b.create(t, g, p)
	_, two := b.create(t, g, p)
	return b.waitsWithout(t, g.Host, stepRow(one[0].StepKey), stepRow(two[0].StepKey),
		settlement(one[0].StepKey, one[0].ID, vocab.OutcomeRetryable), settlement(two[0].StepKey, two[0].ID, vocab.OutcomePermanent))
}

// sinksHunt settles successes of two failing tasks: a step of the first that is not one
// of its last, and the last step of the second. Both tasks are inspected.
func sinksHunt(t *testing.T, b *bed) string {
	t.Helper()
	p := b.mustPlan(t, step("fails", nil, []int32{3}), step("above", nil, []int32{3}), step("sink", nil, nil), step("below", []int32{0, 1}, nil))
	g := b.grant(b.host(t), 3)
	first, one := b.create(t, g, p)
	second, two := b.create(t, g, p)
	b.settle(t, store.Grant{Host: g.Host}, vocab.OutcomePermanent, one[0], two[0])
	return b.waitsWithout(t, g.Host, taskRow(first), taskRow(second),
		settlement(one[1].StepKey, one[1].ID, vocab.OutcomeSuccess), settlement(two[2].StepKey, two[2].ID, vocab.OutcomeSuccess))
}

// readyHunt ends a task, waiting for its rows one after another. A step that becomes
// ready meanwhile comes before rows that are already locked, and another transaction that
// has locked that step needs these rows.
func readyHunt(state vocab.TaskState, end func(ctx context.Context, b *bed, host int32, last store.Lease) error) func(*testing.T, *bed) string {
	return func(t *testing.T, b *bed) string {
		t.Helper()
		p := b.mustPlan(t, step("parent", nil, []int32{1}), step("child", []int32{0}, nil), step("aside", nil, nil), step("last", nil, nil))
		g := b.grant(b.host(t), 3)
		task, l := b.create(t, g, p)

		parent := b.begin(t)
		_, err := parent.Exec(t.Context(), "select tasker_settle_steps($1, 1, $2, array[$3::uuid], '{0}', array[$4::uuid], '{success}', '{1}', '{null}', '{null}', '{null}', '{0}')",
			g.Host, b.all, task, l[0].ID)
		require.NoError(t, err)
		last := b.begin(t)
		_, err = last.Exec(t.Context(), "select from tasker_workflow_steps where task_uuid = $1 and step_no = 3 for update", task)
		require.NoError(t, err)

		ended, settled := make(chan error, 1), make(chan error, 1)
		go func() { ended <- end(t.Context(), b, g.Host, l[2]) }()
		b.awaitWaiting(t, 1) // for the parent
		require.NoError(t, parent.Commit(t.Context()))
		b.awaitLocked(t, task, 2)
		child := one[vocab.UUID](t, b, "select lease_id from tasker_workflow_steps where task_uuid = $1 and step_no = 1", task)
		go func() {
			_, err := b.store.Settle(t.Context(), store.Grant{Host: g.Host}, policy, []store.Settlement{
				settlement(store.StepKey{Task: task, Number: 1}, child, vocab.OutcomeSuccess), settlement(l[1].StepKey, l[1].ID, vocab.OutcomeSuccess),
			})
			settled <- err
		}()
		b.awaitWaiting(t, 2) // one for the last step, the other for the one aside
		require.NoError(t, last.Commit(t.Context()))
		if wrong := refusedOrWrong(t, errors.Join(<-ended, <-settled)); wrong != "" {
			return wrong
		}
		require.Equal(t, state, b.taskState(t, task))
		return oracleSays(t, b)
	}
}

var readyCancelHunt = readyHunt(vocab.TaskCancelled, func(ctx context.Context, b *bed, host int32, last store.Lease) error {
	_, _, err := b.store.CancelTask(ctx, last.Task, store.Operator{}, host)
	return err
})

var readyFailureHunt = readyHunt(vocab.TaskError, func(ctx context.Context, b *bed, host int32, last store.Lease) error {
	_, err := b.store.Settle(ctx, store.Grant{Host: host}, policy, []store.Settlement{settlement(last.StepKey, last.ID, vocab.OutcomePermanent)})
	return err
})

func TestNobodyWaitsInACircle(t *testing.T) {
	t.Parallel()
	for name, hunt := range map[string]func(*testing.T, *bed) string{
		"retries before failures for good": retriesHunt, "failures of two tasks crosswise": crosswiseHunt, "sinks of failing tasks": sinksHunt,
		"ready while a cancel waits": readyCancelHunt, "ready while a failure waits": readyFailureHunt,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Empty(t, hunt(t, newBed(t)))
		})
	}
}

// awaitWaiting waits until the given number of sessions wait for locks.
func (b *bed) awaitWaiting(t *testing.T, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		return one[int](t, b, "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'") == n
	}, 10*time.Second, time.Millisecond)
}

// awaitLocked waits until someone has locked a step.
func (b *bed) awaitLocked(t *testing.T, task vocab.UUID, step int) {
	t.Helper()
	require.Eventually(t, func() bool {
		return one[int](t, b, `select count(*) from (select from tasker_workflow_steps where task_uuid = $1 and step_no = $2 for update skip locked) s`, task, step) == 0
	}, 10*time.Second, time.Millisecond)
}

// A transaction that needs everything that can move in a task waits while that grows,
// however often: in the end it has locked everything, in order, and nothing is missing.
func TestAllThatMovesIsLockedHoweverLongItTakes(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	const steps = 15
	p := b.mustPlan(t, chain(steps)...)
	task, _ := b.create(t, b.grant(b.host(t), 0), p)
	key := func(n int32) store.StepKey { return store.StepKey{Task: task, Number: n} }
	hold := func(n int32) pgx.Tx {
		tx := b.begin(t)
		r := stepRow(key(n))
		_, err := tx.Exec(t.Context(), r.sql, r.args...)
		require.NoError(t, err)
		return tx
	}
	holder, locker := hold(0), b.begin(t)
	done := make(chan error, 1)
	go func() {
		_, err := locker.Exec(t.Context(), "select tasker_lock_movable(array[$1::uuid])", task)
		done <- err
	}()
	for n := int32(1); n < steps; n++ {
		require.Eventually(t, func() bool {
			return one[bool](t, b, "select $1 = any(pg_blocking_pids($2))", holder.Conn().PgConn().PID(), locker.Conn().PgConn().PID())
		}, time.Minute, time.Millisecond, "it waits for step %d", n-1)
		b.exec(t, "update tasker_workflow_steps set remaining_parents = 0 where step_no = $1", n)
		next := hold(n)
		require.NoError(t, holder.Rollback(t.Context()))
		holder = next
	}
	require.NoError(t, holder.Rollback(t.Context()))
	require.NoError(t, <-done)
	require.Zero(t, one[int](t, b, "select count(*) from (select from tasker_workflow_steps for update skip locked) s"))
}
