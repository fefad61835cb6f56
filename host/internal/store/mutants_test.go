package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/finalizer"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// A mutant is the engine with one guard removed. The machine or a scenario must
// notice each: a guard whose loss nobody notices is not tested, or not needed.
//
// Guards that cannot be killed, since another one stands behind them, are not
// in the table:
//   - settle's "state = 'in_progress'" for the task it finishes: a task that has
//     ended has no step in progress, so nothing is settled in it.
//   - "for update" of tasker_release_host_steps: tasker_release_steps looks at the
//     state again; what has been settled meanwhile gets a hint too many.
//   - "for update skip locked" of the claim's messages: the steps' state check
//     lets only one win; skipping is for speed.
type mutant struct {
	name, function string
	old, new       string
	hunt           func(t *testing.T, b *bed) (violation string)
}

const (
	settleSteps   = "tasker_settle_steps"
	settleFailure = "tasker_settle_failure"
	claimSteps    = "tasker_claim_steps"
	apply         = "tasker_apply_finalization"
	claimTask     = "claim_task_for_finalization"
)

var mutants = []mutant{
	{"settle without the lease", settleSteps, "and s.state = 'in_progress' and s.lease_id = g.lease_id", "and s.state = 'in_progress'", machineHunt},
	{"settle without the state", settleSteps, "and s.state = 'in_progress' and s.lease_id = g.lease_id", "and s.lease_id = g.lease_id", machineHunt},
	{"count a child down once per batch", settleSteps, "remaining_parents = s.remaining_parents - o.settled,", "remaining_parents = s.remaining_parents - 1,", machineHunt},
	{"count down no child", settleSteps, "remaining_parents = s.remaining_parents - o.settled,", "remaining_parents = s.remaining_parents,", machineHunt},
	{"wake a child with its first parent", settleSteps, "when s.remaining_parents > o.settled or s.state <> 'pending'", "when s.state <> 'pending'", machineHunt},
	{"finish with the first sink", settleSteps, "state = case when t.open_sinks = k.settled and", "state = case when", machineHunt},
	{"ready children without the mark of doom", settleSteps, "doomed = s.doomed or o.doomed,", "doomed = s.doomed,", machineHunt},
	{"no look after a doomed success", settleSteps, "where d.doomed)", "where false)", machineHunt},
	{"ready children without a message", settleSteps, "if o_enqueued > 0 then", "if false then", machineHunt},
	{"more leases than room", settleSteps, "<= p_room as hand", "<= p_room + 1 as hand", machineHunt},
	{"hand children to a dead host", settleSteps, "if p_room > 0 and not tasker_may_lease(p_host) then", "if false then", deadHunt},

	{"failure without the lease", settleFailure, "or v_row.lease_id is distinct from p_lease then", "then", machineHunt},
	{"failure without the state", settleFailure, "v_row.state <> 'in_progress' or", "", machineHunt},
	{"a retry without a message", settleFailure, "perform tasker_enqueue(array[p_task], array[p_step], o_due);", "", machineHunt},
	{"no end to retries", settleFailure, "or v_row.attempts + 1 >= v_row.max_attempts then", "then", machineHunt},
	{"retry what is not retryable", settleFailure, "or not v_row.retryable or", "or", capHunt},
	{"no attempt charged", settleFailure, "attempts = s.attempts + 1,", "", machineHunt},
	{"a longer wait than the policy's", settleFailure, "v_row.attempts + 1) * (1", "v_row.attempts + 2) * (1.5", dueHunt},
	{"failures that lock their own row first", settleFailure, "perform tasker_lock_movable(p_task);", "null;", deadlockHunt},

	{"no mark of doom", "tasker_bury_step", "perform tasker_lock_movable(p_task);", "exit;", machineHunt},
	{"release without a cap on claims", settleFailure, "v_row.claims >= p_claim_factor * v_row.max_attempts", "false", capHunt},
	{"release without a message", "tasker_release_steps", "perform tasker_enqueue(v_row.tasks, v_row.steps, v_row.due);", "null;", machineHunt},

	{"conclude without the task's lock", "tasker_conclude_task", "for update;", ";", doomedHunt},
	{"conclude while something moves", "tasker_conclude_task", "if v_step.moving then", "if false then", machineHunt},
	{"conclude what has ended", "tasker_conclude_task", "if v_state is distinct from 'in_progress' then", "if false then", concludeHunt},

	{"claim what runs", claimSteps, "s.state in ('enqueued', 'pending') and", "", machineHunt},
	{"claim before the parents are done", claimSteps, "and s.remaining_parents = 0 and", "and", hintHunt},
	{"claim before it is due", claimSteps, "and coalesce(s.due_at, v_now) <= v_now", "", hintHunt},
	{"claim for a dead host", claimSteps, "if not tasker_may_lease(p_host) then", "if false then", deadHunt},
	{"claim what the host does not serve", claimSteps, "from named n where n.served order by", "from named n order by", hintHunt},
	{"claim by the clock of before", claimSteps, "v_now := clock_timestamp();", "v_now := clock_timestamp() - interval '1 s';", dueHunt},
	{"adopt what runs", "tasker_adopt_steps", "and s.state = 'enqueued' and", "and", machineHunt},
	{"adopt for a dead host", "tasker_adopt_steps", "if not tasker_may_lease(p_host) then", "if false then", deadHunt},
	{"a used key makes a task", "tasker_create_tasks", "v_plan[v_row.ord] := null;", "", machineHunt},

	{"declare the living dead", "tasker_sweep_hosts", "x.alive_until < clock_timestamp()", "true", machineHunt},
	{"give back without waiting for claims under way", "tasker_release_host_steps", "perform pg_advisory_xact_lock(hashtext('tasker_hosts'), p_host);", "", zombieHunt},
	{"sweep what has a message", "tasker_sweep_messages", "where not exists (select from pgmq.%I q", "where true or not exists (select from pgmq.%I q", machineHunt},
	{"sweep no lost message", "tasker_sweep_messages", "if v_lost.found > 0 then", "if false then", machineHunt},
	{"see no stalled task", "tasker_sweep_messages", "where not exists (select from tasker_workflow_steps s", "where false and not exists (select from tasker_workflow_steps s", machineHunt},

	{"apply any lease", apply, "v_lease is distinct from p_lease or", "", machineHunt},
	{"apply without a lease", apply, "p_lease is null or", "", machineHunt},
	{"apply after the claim ran out", apply, "or v_until <= clock_timestamp()", "", claimsHunt},
	{"two claims of one task", claimTask, "if v_task.finalize_until > v_now then", "if false then", claimsHunt},
	{"a claim for ever", claimTask, "if v_task.finalize_until > v_now then", "if v_task.finalize_until is not null then", machineHunt},
	{"claim a task that has ended", claimTask, "elsif v_task.state <> 'in_progress' then", "elsif false then", machineHunt},
	{"release another's claim", "release_finalization_claim", "and (p_lease_id is null or t.finalize_lease = p_lease_id)", "", claimsHunt},
	{"cancel leaves steps", "tasker_cancel_task", "and s.state in ('pending', 'enqueued', 'in_progress', 'error');\n  update tasker_tasks", "and s.state in ('pending', 'enqueued');\n  update tasker_tasks", machineHunt},
}

func TestMutants(t *testing.T) {
	t.Parallel()
	for _, m := range mutants {
		t.Run(strings.ReplaceAll(m.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			m.apply(t, b)
			found := m.hunt(t, b)
			require.NotEmpty(t, found, "nobody noticed the loss of the guard")
			first, _, _ := strings.Cut(found, "\n")
			t.Logf("killed: %.200s", first)
		})
	}
}

// apply replaces the guard in the function's source.
func (m mutant) apply(t *testing.T, b *bed) {
	t.Helper()
	source := one[string](t, b, "select pg_get_functiondef(p.oid) from pg_proc p where p.proname = $1", m.function)
	require.Contains(t, source, m.old, "the guard is no longer written so")
	b.exec(t, strings.ReplaceAll(source, m.old, m.new))
}

// machineHunt plays histories until one goes wrong.
func machineHunt(t *testing.T, b *bed) (found string) {
	t.Helper()
	rapid.Check(t, func(rt *rapid.T) {
		if found != "" {
			return
		}
		m := newMachine(rt, b)
		m.hunts = true
		m.play()
		found = m.found
	})
	return found
}

// doomedHunt settles the last steps of failing tasks together.
func doomedHunt(t *testing.T, b *bed) string {
	t.Helper()
	_, err := lastTogether(t.Context(), b, 300, true, vocab.OutcomeSuccess, vocab.OutcomeSuccess)
	return refusedOrWrong(t, err)
}

// deadlockHunt lets steps of one task fail together.
func deadlockHunt(t *testing.T, b *bed) string {
	t.Helper()
	deadlocks, err := lastTogether(t.Context(), b, 20, false, vocab.OutcomePermanent, vocab.OutcomePermanent, vocab.OutcomePermanent)
	if deadlocks > 0 {
		return fmt.Sprintf("%d deadlocks", deadlocks)
	}
	return refusedOrWrong(t, err)
}

// refusedOrWrong fails the test if the server was not there.
func refusedOrWrong(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	if class := store.Classify(err); class == store.Unavailable || class == store.Cancelled {
		require.NoError(t, err)
	}
	return err.Error()
}

// blocked runs do until it waits for a lock of the open transaction, then
// commits that, and returns what do came to.
func blocked(t *testing.T, b *bed, tx pgx.Tx, do func(ctx context.Context) error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- do(t.Context()) }()
	for waiting := false; !waiting; {
		select {
		case err := <-done:
			require.NoError(t, tx.Commit(t.Context()))
			return err // it did not wait
		default:
		}
		waiting = one[bool](t, b, `select exists (select from pg_stat_activity a
		                            where a.datname = current_database() and a.wait_event_type = 'Lock')`)
	}
	require.NoError(t, tx.Commit(t.Context()))
	return <-done
}

// zombieHunt: a host claims, and before it commits it is declared dead and its
// steps are given back.
func zombieHunt(t *testing.T, b *bed) string {
	t.Helper()
	p := b.mustPlan(t, fan(1)...)
	host := b.host(t)
	b.create(t, b.grant(host, 0), p)
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "select tasker_claim_steps($1, $2, $3, $4, 5)", host, queue, handlers, b.all)
	require.NoError(t, err)
	b.exec(t, "update tasker_hosts set alive_until = clock_timestamp() - interval '1 s'")
	gone, err := b.store.SweepHosts(t.Context())
	require.NoError(t, err)
	require.Len(t, gone, 1)
	err = blocked(t, b, tx, func(ctx context.Context) error {
		_, err := b.store.ReleaseHost(ctx, host, "dead", policy.ClaimFactor)
		return err
	})
	require.NoError(t, err)
	return oracleSays(t, b)
}

// sweepHunt: a host settles, and before it commits it is declared dead and its
// steps are given back.
func sweepHunt(t *testing.T, b *bed) string {
	t.Helper()
	p := b.mustPlan(t, fan(1)...)
	host := b.host(t)
	_, leases := b.create(t, b.grant(host, 1), p)
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `
select tasker_settle_steps($1, 0, '{}', array[$2::uuid], '{0}', array[$3::uuid], '{success}', '{1}', '{null}', '{null}', '{null}', '{0}')`,
		host, leases[0].Task, leases[0].ID)
	require.NoError(t, err)
	b.exec(t, "update tasker_hosts set alive_until = clock_timestamp() - interval '1 s'")
	_, err = b.store.SweepHosts(t.Context())
	require.NoError(t, err)
	err = blocked(t, b, tx, func(ctx context.Context) error {
		_, err := b.store.ReleaseHost(ctx, host, "dead", policy.ClaimFactor)
		return err
	})
	if _, refused := errors.AsType[*pgconn.PgError](err); refused {
		return err.Error()
	}
	require.NoError(t, err)
	return oracleSays(t, b)
}

// dueHunt: a step fails with a short wait, and hosts look at the queue all the
// time: the wait is the policy's, and the first to see the message has the step.
func dueHunt(t *testing.T, b *bed) string {
	t.Helper()
	steps := fan(1)
	steps[0].Retry = workflow.Retry{
		Retryable: true, MaxAttempts: 40, Backoff: workflow.BackoffFixed, Base: 2 * time.Millisecond, Cap: time.Second,
	}
	p, g := b.mustPlan(t, steps...), b.grant(b.host(t), 1)
	_, leases := b.create(t, g, p)
	for range 39 {
		b.settle(t, g, vocab.OutcomeRetryable, leases...)
		wait := one[float64](t, b, "select extract(epoch from due_at - updated_at)::float8 * 1000 from tasker_workflow_steps")
		if wait != 2 {
			return fmt.Sprintf("the wait is %v ms", wait)
		}
		for leases = nil; len(leases) == 0; leases = b.claim(t, g) {
			if one[int](t, b, "select count(*) from pgmq.q_"+queue) == 0 {
				return "the message of a due step was dropped"
			}
		}
	}
	return ""
}

// deadHunt: a host that was declared dead and swept goes on.
func deadHunt(t *testing.T, b *bed) string {
	t.Helper()
	p, zombie := b.mustPlan(t, chain(2)...), b.host(t)
	_, leases := b.create(t, b.grant(zombie, 1), p)
	waiting, _ := b.create(t, b.grant(zombie, 0), p)
	b.create(t, b.grant(zombie, 0), p)
	b.exec(t, "update tasker_hosts set alive_until = clock_timestamp() - interval '1 s'")
	_, err := b.store.SweepHosts(t.Context())
	require.NoError(t, err)
	// Swept before its step could be given back: settling it is still its right.
	b.exec(t, "update tasker_hosts set swept_at = clock_timestamp()")
	b.settle(t, b.grant(zombie, 1), vocab.OutcomeSuccess, leases...)
	adopted, err := b.store.Adopt(t.Context(), zombie, []store.StepKey{{Task: waiting}})
	require.NoError(t, err)
	claimed := b.claim(t, b.grant(zombie, 5))
	_, created := b.create(t, b.grant(zombie, 5), p)
	if len(adopted)+len(claimed)+len(created) > 0 {
		return "a dead host was given steps"
	}
	return oracleSays(t, b)
}

// capHunt: steps that are given back again and again, and one that may not be
// tried again.
func capHunt(t *testing.T, b *bed) string {
	t.Helper()
	steps := fan(2)
	steps[1].Retry = workflow.Retry{MaxAttempts: 9, Backoff: workflow.BackoffNone}
	p, g := b.mustPlan(t, steps...), b.grant(b.host(t), 2)
	task, leases := b.create(t, g, p)
	b.settle(t, g, vocab.OutcomeRetryable, leases[1])
	b.settle(t, g, vocab.OutcomeReleased, leases[0])
	b.settle(t, g, vocab.OutcomeReleased, b.claim(t, g)...)
	for n := range steps {
		if state := b.stepState(t, task, n); state != vocab.StepError {
			return fmt.Sprintf("step %d is %s", n, state)
		}
	}
	return oracleSays(t, b)
}

// hintHunt: hints for a step that is not due, for one whose parents are not done,
// and for one the host does not serve, without the headers that would keep it
// from looking.
func hintHunt(t *testing.T, b *bed) string {
	t.Helper()
	steps := fan(3)
	steps[0].Handler = handlers[1]
	steps[0].Children, steps[2].Parents = []int32{2}, []int32{0}
	for i := range steps {
		steps[i].Retry = workflow.Retry{Retryable: true, MaxAttempts: 3, Backoff: workflow.BackoffFixed, Base: time.Hour, Cap: time.Hour}
	}
	p, host := b.mustPlan(t, steps...), b.host(t)
	alpha := store.Grant{Host: host, Room: 5, Served: b.all[:1]}
	task, leases := b.create(t, alpha, p) // step 0 is beta's: enqueued
	b.settle(t, alpha, vocab.OutcomeRetryable, leases...)
	b.exec(t, "select tasker_enqueue(array[$1::uuid, $1, $1], '{0, 1, 2}')", task)
	b.exec(t, "update pgmq.q_"+queue+" set headers = null")
	c, err := b.store.Claim(t.Context(), alpha, queue, handlers[:1], 0)
	require.NoError(t, err)
	if len(c.Leases) > 0 {
		return fmt.Sprintf("leased step %d", c.Leases[0].Number)
	}
	if got := b.claim(t, b.grant(host, 5)); len(got) != 1 || got[0].Number != 0 {
		return fmt.Sprintf("the message for another host is gone: %v", got)
	}
	return oracleSays(t, b)
}

// concludeHunt: a task that has ended is concluded once more.
func concludeHunt(t *testing.T, b *bed) string {
	t.Helper()
	p, g := b.mustPlan(t, fan(1)...), b.grant(b.host(t), 1)
	task, leases := b.create(t, g, p)
	b.settle(t, g, vocab.OutcomePermanent, leases...)
	b.exec(t, "select tasker_conclude_task($1, null)", task)
	return oracleSays(t, b)
}

// claimsHunt: a processor whose claim has run out goes on, while it has claimed
// the task again in another goroutine, and before.
func claimsHunt(t *testing.T, b *bed) string {
	t.Helper()
	p := b.mustPlan(t, fan(1)...)
	task, _ := b.create(t, b.grant(b.host(t), 0), p)
	b.exec(t, "update tasker_workflow_steps set state = 'resolved_manually'")
	f := finalizer.New(b.pool, "p", time.Hour)
	first, err := f.Claim(t.Context(), task)
	require.NoError(t, err)
	require.True(t, first.Claimed)
	b.exec(t, "update tasker_tasks set finalize_until = clock_timestamp()")
	if _, err := f.Apply(t.Context(), task, first.Lease); !errors.Is(err, finalizer.ErrClaimLost) {
		return fmt.Sprintf("applied a claim that had run out: %v", err)
	}
	second, err := f.Claim(t.Context(), task)
	require.NoError(t, err)
	require.True(t, second.Claimed)
	if third, err := f.Claim(t.Context(), task); err != nil || third.Claimed {
		return fmt.Sprintf("claimed what is claimed: %v", err)
	}
	if released, err := f.Release(t.Context(), task, first.Lease); err != nil || released {
		return fmt.Sprintf("released another claim: %v", err)
	}
	state, err := f.Apply(t.Context(), task, second.Lease)
	require.NoError(t, err)
	require.Equal(t, vocab.TaskComplete, state)
	return ""
}

func oracleSays(t *testing.T, b *bed) string {
	t.Helper()
	wrong, err := violations(t.Context(), b.pool)
	require.NoError(t, err)
	return strings.Join(wrong, "\n")
}

// The scenarios find nothing in the engine as it is.
func TestScenariosOfTheMutants(t *testing.T) {
	t.Parallel()
	for name, hunt := range map[string]func(*testing.T, *bed) string{
		"zombie": zombieHunt, "sweep": sweepHunt, "due": dueHunt, "conclude": concludeHunt, "claims": claimsHunt, "hint": hintHunt, "dead": deadHunt, "cap": capHunt,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Empty(t, hunt(t, newBed(t)))
		})
	}
}
