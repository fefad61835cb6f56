package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// failed creates a task of the plan whose root has failed for good.
func (b *bed) failed(t testing.TB, p *store.Plan) (task vocab.UUID, g store.Grant, leases []store.Lease) {
	t.Helper()
	g = b.grant(b.host(t), 20)
	task, leases = b.create(t, g, p)
	b.settle(t, g, vocab.OutcomePermanent, leases[0])
	return task, g, leases
}

func (b *bed) taskState(t testing.TB, task vocab.UUID) vocab.TaskState {
	t.Helper()
	return one[vocab.TaskState](t, b, "select state::text from tasker_tasks where task_uuid = $1", task)
}

func TestRetryRunsAFailedTaskToItsEnd(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	task, g, old := b.failed(t, b.mustPlan(t, diamond()...))
	require.Equal(t, vocab.TaskError, b.taskState(t, task))

	again, err := b.store.RetryTask(t.Context(), task, operator, g.Host)
	require.NoError(t, err)
	require.Equal(t, store.Retried{Task: vocab.TaskInProgress, Steps: []int32{0}}, again)
	require.Equal(t, []store.Verdict{store.StaleLease}, b.settle(t, g, vocab.OutcomeSuccess, old...).Verdicts, "the old lease is void")

	leases := b.claim(t, g)
	require.Len(t, leases, 1)
	require.EqualValues(t, 1, leases[0].Generation, "another idempotency key")
	require.EqualValues(t, 1, leases[0].Attempt, "attempts start again")
	for len(leases) > 0 {
		leases = b.settle(t, g, vocab.OutcomeSuccess, leases...).Leases
	}
	require.Equal(t, vocab.TaskComplete, b.taskState(t, task))
	b.requireSound(t)

	note := one[string](t, b, `
select metadata::text from tasker_workflow_step_transitions where task_uuid = $1 and step_no = 0 and from_state = 'error'`, task)
	require.JSONEq(t, `{"reason": "retried", "note": "the night shift", "by": "ops", "generation": 1}`, note)
	require.Equal(t, "replayed by ops", one[string](t, b, "select closed_as || ' by ' || closed_by from tasker_dead_letters"))

	nothing, err := b.store.RetryTask(t.Context(), task, operator, g.Host)
	require.NoError(t, err)
	require.Equal(t, store.Retried{Task: vocab.TaskComplete, Steps: []int32{}}, nothing)
	_, err = b.store.RetryTask(t.Context(), taskUUID(), operator, g.Host)
	require.ErrorIs(t, err, store.ErrNotFound)
	_, err = b.store.RetryStep(t.Context(), store.StepKey{Task: task, Number: 9}, operator, g.Host)
	require.ErrorIs(t, err, store.ErrNotFound)
}

func TestResolvedStepsSatisfyTheirChildren(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	steps := diamond()
	steps[1].Skippable = true
	task, g, _ := b.failed(t, b.mustPlan(t, steps...))
	key := func(n int32) store.StepKey { return store.StepKey{Task: task, Number: n} }

	waits, err := b.store.ResolveStep(t.Context(), key(3), json.RawMessage("1"), operator, g.Host)
	require.NoError(t, err)
	require.Equal(t, store.Resolution{Verdict: store.StepWaiting, Task: vocab.TaskError, Step: vocab.StepPending}, waits)

	done, err := b.store.ResolveStep(t.Context(), key(0), json.RawMessage(`{"n": 12345678901234567890.10}`), operator, g.Host)
	require.NoError(t, err)
	require.Equal(t, store.Resolution{Verdict: store.Resolved, Task: vocab.TaskInProgress, Step: vocab.StepResolvedManually}, done)
	inputs, err := b.store.StepInputs(t.Context(), nil, []store.StepKey{key(0)})
	require.NoError(t, err)
	require.Equal(t, `{"n": 12345678901234567890.10}`, string(inputs[key(0)]), "children see the result, every digit of it")

	refused, err := b.store.SkipStep(t.Context(), key(2), operator, g.Host)
	require.NoError(t, err)
	require.Equal(t, store.StepUnskippable, refused.Verdict)
	skipped, err := b.store.SkipStep(t.Context(), key(1), operator, g.Host)
	require.NoError(t, err)
	require.Equal(t, store.Resolved, skipped.Verdict)
	inputs, err = b.store.StepInputs(t.Context(), nil, []store.StepKey{key(1)})
	require.NoError(t, err)
	require.Equal(t, "null", string(inputs[key(1)]))

	leases := b.claim(t, g)
	require.Len(t, leases, 1, "the skipped step's message wakes nobody")
	running, err := b.store.ResolveStep(t.Context(), key(2), nil, operator, g.Host)
	require.NoError(t, err)
	require.Equal(t, store.StepRunning, running.Verdict)
	merge := b.settle(t, g, vocab.OutcomeSuccess, leases...).Leases
	require.Len(t, merge, 1)
	b.settle(t, g, vocab.OutcomePermanent, merge...)
	require.Equal(t, vocab.TaskError, b.taskState(t, task))
	last, err := b.store.ResolveStep(t.Context(), key(3), json.RawMessage("null"), operator, g.Host)
	require.NoError(t, err)
	require.Equal(t, vocab.TaskComplete, last.Task, "the last step's resolution ends the task")
	b.requireSound(t)

	again, err := b.store.ResolveStep(t.Context(), key(3), json.RawMessage("null"), operator, g.Host)
	require.NoError(t, err)
	require.Equal(t, store.TaskEnded, again.Verdict)
}

// Repairs at the same moment as other changes of a task: settling, failing, cancelling,
// another repair. Then everything runs to its end.
func TestRepairTogetherWithTheRest(t *testing.T) {
	t.Parallel()
	type contest struct {
		b      *bed
		g      store.Grant
		task   vocab.UUID
		leases []store.Lease
	}
	ctx := t.Context()
	settle := func(n int, o vocab.Outcome) func(*contest) error {
		return func(c *contest) error {
			_, err := c.b.store.Settle(ctx, c.g, policy, []store.Settlement{settlement(c.leases[n].StepKey, c.leases[n].ID, o)})
			return err
		}
	}
	retry := func(c *contest) error {
		_, err := c.b.store.RetryTask(ctx, c.task, operator, c.g.Host)
		return err
	}
	resolve := func(c *contest) error {
		_, err := c.b.store.ResolveStep(ctx, c.leases[0].StepKey, json.RawMessage("1"), operator, c.g.Host)
		return err
	}
	cancel := func(c *contest) error {
		_, _, err := c.b.store.CancelTask(ctx, c.task, store.Operator{Reason: ""}, c.g.Host)
		return err
	}
	for name, moves := range map[string][]func(*contest) error{
		"retry and success":          {retry, settle(1, vocab.OutcomeSuccess), settle(2, vocab.OutcomeSuccess)},
		"retry and failures":         {retry, settle(1, vocab.OutcomePermanent), settle(2, vocab.OutcomePermanent)},
		"two retries and a failure":  {retry, retry, settle(1, vocab.OutcomePermanent), settle(2, vocab.OutcomeSuccess)},
		"resolve and success":        {resolve, settle(1, vocab.OutcomeSuccess), settle(2, vocab.OutcomeSuccess)},
		"resolve, retry and failure": {resolve, retry, settle(1, vocab.OutcomePermanent), settle(2, vocab.OutcomePermanent)},
		"retry, resolve and cancel":  {retry, resolve, cancel, settle(1, vocab.OutcomeSuccess)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			p := b.mustPlan(t, doomedFan(2)...)
			var deadlocks atomic.Int64
			for range 60 {
				c := &contest{b: b}
				c.task, c.g, c.leases = b.failed(t, p)
				var calls []func() error
				for _, move := range moves {
					calls = append(calls, func() error { return insist(&deadlocks, func() error { return move(c) }) })
				}
				require.NoError(t, together(calls...))
				b.requireSound(t)
				b.finish(t, c.g, c.task)
			}
			b.requireSound(t)
			t.Logf("%d transactions were repeated after a deadlock", deadlocks.Load())
		})
	}
}

// finish runs a task to a final state, with successes and retries.
func (b *bed) finish(t testing.TB, g store.Grant, task vocab.UUID) {
	t.Helper()
	for range 20 {
		switch b.taskState(t, task) {
		case vocab.TaskComplete, vocab.TaskCancelled:
			return
		case vocab.TaskError:
			_, err := b.store.RetryTask(t.Context(), task, operator, g.Host)
			require.NoError(t, err)
		default:
		}
		held, err := b.store.HostLeases(t.Context(), g.Host)
		require.NoError(t, err)
		for _, h := range held {
			b.settle(t, g, vocab.OutcomeSuccess, store.Lease{StepKey: h.StepKey, ID: h.Lease})
		}
		for leases := b.claim(t, g); len(leases) > 0; {
			leases = b.settle(t, g, vocab.OutcomeSuccess, leases...).Leases
		}
	}
	t.Fatalf("task %s is %s", task, b.taskState(t, task))
}

// claimedHunt: a host claims a step, and before that commits the step is resolved.
func claimedHunt(t *testing.T, b *bed) string {
	t.Helper()
	g := b.grant(b.host(t), 5)
	task, _ := b.create(t, b.grant(g.Host, 0), b.mustPlan(t, fan(1)...))
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "select tasker_claim_steps($1, $2, $3, $4, 5)", g.Host, queue, handlers, b.all)
	require.NoError(t, err)
	err = blocked(t, b, tx, func(ctx context.Context) error {
		_, err := b.store.ResolveStep(ctx, store.StepKey{Task: task}, nil, operator, g.Host)
		return err
	})
	return refusedOr(t, b, err)
}

// concludedHunt: the last step of a failing task was removed bypassing the engine; the
// task is concluded, and before that commits its failed step is retried.
func concludedHunt(t *testing.T, b *bed) string {
	t.Helper()
	task, _, _ := b.failed(t, b.mustPlan(t, fan(2)...))
	b.exec(t, `
with done as (
  update tasker_workflow_steps set state = 'resolved_manually', sort_key = sort_key + 1 where step_no = 1 returning sort_key)
insert into tasker_workflow_step_transitions (task_uuid, step_no, sort_key, from_state, to_state, created_at)
select $1, 1, d.sort_key, 'in_progress', 'resolved_manually', clock_timestamp() from done d`, task)
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "select tasker_conclude_task($1, null)", task)
	require.NoError(t, err)
	err = blocked(t, b, tx, func(ctx context.Context) error {
		_, err := b.store.RetryStep(ctx, store.StepKey{Task: task}, operator, 0)
		return err
	})
	return refusedOr(t, b, err)
}

// othersHunt: one of two failed steps of a task is retried while a third runs.
func othersHunt(t *testing.T, b *bed) string {
	t.Helper()
	task, g, leases := b.failed(t, b.mustPlan(t, fan(3)...))
	b.settle(t, g, vocab.OutcomePermanent, leases[1])
	_, err := b.store.RetryStep(t.Context(), store.StepKey{Task: task}, operator, g.Host)
	return refusedOr(t, b, err)
}

// refusedOr returns the database's refusal, or what the oracle says.
func refusedOr(t *testing.T, b *bed, err error) string {
	t.Helper()
	if _, refused := errors.AsType[*pgconn.PgError](err); refused {
		return err.Error()
	}
	require.NoError(t, err)
	return oracleSays(t, b)
}

// pausedHunt: a queue is paused while a host that has begun to create, claim or settle
// has not committed; once the pause returns, nothing starts any more.
func pausedHunt(t *testing.T, b *bed) string {
	t.Helper()
	p, g := b.mustPlan(t, chain(3)...), b.grant(b.host(t), 5)
	_, leases := b.create(t, g, p)
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `
select tasker_settle_steps($1, 5, $4, array[$2::uuid], '{0}', array[$3::uuid], '{success}', '{1}', '{null}', '{null}', '{null}', '{0}')`,
		g.Host, leases[0].Task, leases[0].ID, b.all)
	require.NoError(t, err)
	var before, after int
	started := "select count(*) from tasker_workflow_step_transitions where to_state = 'in_progress'"
	err = blocked(t, b, tx, func(ctx context.Context) error {
		_, err := b.store.PauseQueue(ctx, namespace, true, operator)
		return errors.Join(err, b.pool.QueryRow(ctx, started).Scan(&before))
	})
	require.NoError(t, err)
	held, err := b.store.HostLeases(t.Context(), g.Host)
	require.NoError(t, err)
	require.Len(t, held, 1, "steps leased before the pause continue")
	_, created := b.create(t, g, p)
	claimed := b.claim(t, g)
	b.settle(t, g, vocab.OutcomeSuccess, store.Lease{StepKey: held[0].StepKey, ID: held[0].Lease})
	if after = one[int](t, b, started); len(created)+len(claimed) > 0 || after != before {
		return fmt.Sprintf("%d steps were started while the queue was paused", after-before)
	}
	return oracleSays(t, b)
}

func TestPause(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p, g := b.mustPlan(t, chain(3)...), b.grant(b.host(t), 5)
	task, leases := b.create(t, g, p)
	pause, err := b.store.PauseQueue(t.Context(), namespace, true, operator)
	require.NoError(t, err)
	require.Equal(t, "ops", pause.By)
	again, err := b.store.PauseQueue(t.Context(), namespace, true, operator)
	require.NoError(t, err)
	require.Equal(t, pause.Since, again.Since, "it is paused since it was paused first")

	done := b.settle(t, g, vocab.OutcomeSuccess, leases...)
	require.Equal(t, []store.Verdict{store.Recorded}, done.Verdicts, "running steps finish")
	require.Empty(t, done.Leases, "its child is not handed back")
	require.Empty(t, b.claim(t, g))
	require.Equal(t, vocab.StepEnqueued, b.stepState(t, task, 1))
	b.requireSound(t)

	resumed, err := b.store.PauseQueue(t.Context(), namespace, false, operator)
	require.NoError(t, err)
	require.Nil(t, resumed)
	b.finish(t, g, task)
	b.requireSound(t)
	_, err = b.store.PauseQueue(t.Context(), "nobody", true, operator)
	require.ErrorIs(t, err, store.ErrNotFound)
}

// A claim that waited for a pause takes nothing afterwards.
func TestClaimThatWaitedSeesThePause(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p, g := b.mustPlan(t, chain(1)...), b.grant(b.host(t), 5)
	b.create(t, b.grant(g.Host, 0), p)
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "select pg_advisory_xact_lock(hashtext('tasker_hosts'), $1)", g.Host)
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "update tasker_task_namespaces set paused_at = now()")
	require.NoError(t, err)
	var claimed store.Claimed
	err = blocked(t, b, tx, func(ctx context.Context) (err error) {
		claimed, err = b.store.Claim(ctx, g, queue, handlers, 0)
		return err
	})
	require.NoError(t, err)
	require.Empty(t, claimed.Leases)
	b.requireSound(t)
}

// While a pause waits for a host that is about to be given steps, workers and other hosts
// that are given steps do not wait for the pause.
func TestOthersDoNotWaitForAPause(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p, first, second := b.mustPlan(t, fan(2)...), b.host(t), b.host(t)
	b.create(t, b.grant(first, 0), p)
	b.exec(t, "insert into tasker_task_namespaces (name) values ('elsewhere')")
	tx := b.begin(t)
	_, err := tx.Exec(t.Context(), "select tasker_may_lease($1)", second)
	require.NoError(t, err)
	taken := 0
	require.NoError(t, onceBlocked(t, b, func() error {
		others := b.begin(t)
		for _, sql := range []string{
			"set local lock_timeout = '1s'",
			"select count(*) from tasker_worker_claim('lab', 'ruby-1', '{lab.alpha}', 1)",
			fmt.Sprintf("select cardinality(o_task) from tasker_claim_steps(%d, 'lab_queue', '{lab.alpha}', array(select handler_id from tasker_handlers), 1)", first),
		} {
			tag, err := others.Exec(t.Context(), sql)
			require.NoError(t, err, sql)
			taken += int(tag.RowsAffected())
		}
		require.NoError(t, others.Commit(t.Context()))
		return tx.Commit(t.Context())
	}, func(ctx context.Context) error {
		_, err := b.store.PauseQueue(ctx, "elsewhere", true, operator)
		return err
	}))
	require.Equal(t, 2, taken)
	b.requireSound(t)
}

// The stored plan says whether a step is skippable.
func TestSkippableIsStored(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.mustPlan(t, []workflow.Step{
		{Name: "a", Handler: handlers[0], Config: json.RawMessage("{}"), Skippable: true, Retry: step("", nil, nil).Retry},
		step("b", nil, nil),
	}...)
	fresh, err := store.New(b.pool).Plan(t.Context(), p.ID)
	require.NoError(t, err)
	require.True(t, fresh.Steps[0].Skippable)
	require.False(t, fresh.Steps[1].Skippable)
}
