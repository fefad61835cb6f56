package store_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/finalizer"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// The reference's known weaknesses of high impact, by number: a test for each that can be
// demonstrated at this level. The others are demonstrated elsewhere:
//
//	15  schemas, environments, timeouts  workflow TestInputSchema, TestTemplatePlans; pipeline TestSubmitRefusesWhatCannotRun
//	16  identity of a request            payload TestIdentity, TestCanonical (the key: here)
//	18  asynchronous submission          pipeline TestTaskRequestInTheUsersOwnTransaction
//	19  statuses of results              pipeline TestOutsideWorkerPostsResults, TestResultsThatDoNotCountAreSetAside
//	22  one table of edges               TestEdges, and migrations TestVocabulary

func TestDefect01RetriesWork(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p, g := b.mustPlan(t, withAttempts(fan(1), 3)...), b.grant(b.host(t), 1)
	task, leases := b.create(t, g, p)
	for attempt := int32(1); attempt < 3; attempt++ {
		require.Equal(t, attempt, leases[0].Attempt)
		b.settle(t, g, vocab.OutcomeRetryable, leases...)
		require.Equal(t, int(attempt), one[int](t, b, "select attempts from tasker_workflow_steps where task_uuid = $1", task))
		leases = b.claim(t, g)
		require.Len(t, leases, 1)
	}
	done := b.settle(t, g, vocab.OutcomeSuccess, leases...)
	require.Equal(t, []store.Finished{{UUID: task, State: vocab.TaskComplete}}, done.Finished)
	b.requireSound(t)
}

func TestDefect02FailedTasksFail(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p, g := b.mustPlan(t, diamond()...), b.grant(b.host(t), 2)
	task, leases := b.create(t, g, p)
	leases = b.settle(t, g, vocab.OutcomeSuccess, leases...).Leases
	require.Len(t, leases, 2)
	require.Empty(t, b.settle(t, g, vocab.OutcomePermanent, leases[0]).Finished, "the other branch runs")
	done := b.settle(t, g, vocab.OutcomeSuccess, leases[1])
	require.Equal(t, []store.Finished{{UUID: task, State: vocab.TaskError}}, done.Finished)
	require.Equal(t, "left", one[string](t, b, "select error ->> 'step' from tasker_tasks where task_uuid = $1", task))
	b.requireSound(t)
}

// stalled creates a task whose only step was settled with psql.
func (b *bed) stalled(t *testing.T, state string) vocab.UUID {
	t.Helper()
	task, _ := b.create(t, b.grant(b.host(t), 0), b.mustPlan(t, fan(1)...))
	b.exec(t, "update tasker_workflow_steps set state = $2::text::tasker_step_state where task_uuid = $1", task, state)
	return task
}

func TestDefect03NoFinalizationIsLost(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	task := b.stalled(t, "resolved_manually")
	crashed, err := finalizer.New(b.pool, "crashed", time.Hour).Claim(t.Context(), task)
	require.NoError(t, err)
	require.True(t, crashed.Claimed)
	f := finalizer.New(b.pool, "other", time.Minute)
	look := func() vocab.TaskState {
		_, stalled, err := b.store.SweepMessages(t.Context(), 0)
		require.NoError(t, err)
		require.Equal(t, []vocab.UUID{task}, stalled)
		state, err := f.Finalize(t.Context(), task)
		require.NoError(t, err)
		return state
	}
	require.Equal(t, vocab.TaskInProgress, look(), "refused, and found again")
	b.exec(t, "update tasker_tasks set finalize_until = clock_timestamp()")
	require.Equal(t, vocab.TaskComplete, look())
}

func TestDefect04OneProcessorFinalizesOnce(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	task := b.stalled(t, "resolved_manually")
	f := finalizer.New(b.pool, "p", time.Minute)
	first, err := f.Claim(t.Context(), task)
	require.NoError(t, err)
	second, err := f.Claim(t.Context(), task)
	require.NoError(t, err)
	require.True(t, first.Claimed)
	require.False(t, second.Claimed)
}

func TestDefect05And06NothingIsStranded(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.mustPlan(t, fan(2)...)
	dead := b.grant(b.host(t), 2)
	_, leases := b.create(t, store.Grant{Host: dead.Host}, p)
	require.Empty(t, leases)
	require.Len(t, b.claim(t, dead), 2)
	require.Zero(t, one[int](t, b, "select count(*) from pgmq.q_"+queue), "the messages went with the claim")
	b.exec(t, "update tasker_hosts set alive_until = clock_timestamp() - interval '1 s' where host_id = $1", dead.Host)
	gone, err := b.store.SweepHosts(t.Context())
	require.NoError(t, err)
	require.Len(t, gone, 1)
	n, err := b.store.ReleaseHost(t.Context(), dead.Host, "died", policy.ClaimFactor)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	b.exec(t, "select pgmq.purge_queue($1)", queue) // enqueued, but the messages are lost
	n, _, err = b.store.SweepMessages(t.Context(), 0)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.Len(t, b.claim(t, b.grant(b.host(t), 2)), 2)
	b.requireSound(t)
}

func TestDefect07StateAndMessageAreOneTransaction(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p, g := b.mustPlan(t, chain(2)...), b.grant(b.host(t), 1)
	task, leases := b.create(t, g, p)
	const sql = `
select tasker_settle_steps($1, 0, '{}', array[$2::uuid], '{0}', array[$3::uuid], '{success}', '{1}', '{null}', '{null}', '{null}', '{0}')`
	facts := func() [3]string {
		return [3]string{
			string(b.stepState(t, task, 0)), string(b.stepState(t, task, 1)),
			one[string](t, b, "select count(*)::text from pgmq.q_"+queue),
		}
	}
	errLost := errors.New("the connection is lost")
	for _, commits := range []bool{false, true} {
		err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), sql, g.Host, task, leases[0].ID)
			if err == nil && !commits {
				err = errLost
			}
			return err
		})
		if commits {
			require.NoError(t, err)
			require.Equal(t, [3]string{"complete", "enqueued", "1"}, facts())
		} else {
			require.ErrorIs(t, err, errLost)
			require.Equal(t, [3]string{"in_progress", "pending", "0"}, facts())
		}
	}
}

func TestDefect08AMalformedMessageBlocksNothing(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p, g := b.mustPlan(t, fan(1)...), b.grant(b.host(t), 50)
	other := taskUUID()
	want := map[string]int{}
	for body, reason := range map[string]string{
		`"text"`: "not_an_object", `[]`: "not_an_object", `{}`: "no_step_uuid",
		`{"step_uuid": "x"}`: "no_task_uuid", `{"step_uuid": "x", "task_uuid": "y"}`: "not_a_uuid",
		`{"step_uuid": "` + vocab.StepID(other, 0).String() + `", "task_uuid": "` + taskUUID().String() + `"}`: "foreign_step",
		`{"step_uuid": "` + vocab.StepID(other, 0).String() + `", "task_uuid": "` + other.String() + `"}`:      "unknown_step",
	} {
		b.exec(t, "select pgmq.send($1, $2::text::jsonb)", queue, body)
		want[reason]++
	}
	b.exec(t, "insert into pgmq.q_"+queue+" (vt, message) values (clock_timestamp(), null)")
	want["not_an_object"]++
	task, _ := b.create(t, store.Grant{Host: g.Host}, p)
	leases := b.claim(t, g)
	require.Len(t, leases, 1)
	require.Equal(t, task, leases[0].Task)
	require.Zero(t, one[int](t, b, "select count(*) from pgmq.q_"+queue))
	for reason, n := range want {
		require.Equal(t, n, one[int](t, b, "select count(*) from tasker_dead_letters where kind = 'message' and reason = $1", reason), reason)
	}
}

func TestDefect09EndedTasksAreNotClaimable(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p, g := b.mustPlan(t, fan(2)...), b.grant(b.host(t), 5)
	cancelled, _ := b.create(t, store.Grant{Host: g.Host}, p)
	_, took, err := b.store.CancelTask(t.Context(), cancelled, store.Operator{Reason: "test"}, g.Host)
	require.NoError(t, err)
	require.True(t, took)
	failed, leases := b.create(t, g, p)
	b.settle(t, g, vocab.OutcomePermanent, leases...)
	b.exec(t, "select tasker_enqueue(array[$1::uuid, $1], '{0, 1}')", failed)
	require.Empty(t, b.claim(t, g))
	require.Zero(t, one[int](t, b, "select count(*) from pgmq.q_"+queue), "the hints are gone")
	b.requireSound(t)
}

func TestDefect10ARetryIsAudited(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p, g := b.mustPlan(t, withAttempts(fan(1), 2)...), b.grant(b.host(t), 1)
	task, leases := b.create(t, g, p)
	b.settle(t, g, vocab.OutcomeRetryable, leases...)
	require.Len(t, b.claim(t, g), 1)
	require.Equal(t, []string{"in_progress", "error", "pending", "in_progress"}, one[[]string](t, b, `
select array_agg(to_state::text order by sort_key) from tasker_workflow_step_transitions where task_uuid = $1`, task))
	require.Equal(t, "no luck", one[string](t, b, `
select metadata -> 'error' ->> 'message' from tasker_workflow_step_transitions where task_uuid = $1 and to_state = 'error'`, task))
}

func TestDefect11NotRetryableRunsOnce(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	steps := withAttempts(fan(1), 3)
	steps[0].Retry.Retryable = false
	p, g := b.mustPlan(t, steps...), b.grant(b.host(t), 1)
	task, leases := b.create(t, g, p)
	require.Len(t, leases, 1, "it may run")
	done := b.settle(t, g, vocab.OutcomeRetryable, leases...)
	require.Equal(t, []store.Finished{{UUID: task, State: vocab.TaskError}}, done.Finished)
	require.Equal(t, "not_retryable", one[string](t, b, "select reason from tasker_dead_letters where task_uuid = $1", task))
}

func TestDefect12ACancelledStepBlocksNoTask(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	task := b.stalled(t, "cancelled")
	state, err := finalizer.New(b.pool, "p", time.Minute).Finalize(t.Context(), task)
	require.NoError(t, err)
	require.Equal(t, vocab.TaskError, state)
	require.Equal(t, "Cancelled", one[string](t, b, "select error -> 'error' ->> 'type' from tasker_tasks where task_uuid = $1", task))
}

func TestDefect13BrokenGraphsAreRefused(t *testing.T) {
	t.Parallel()
	const head = "namespace: lab\nname: broken\nversion: 1.0.0\nsteps:\n"
	for name, steps := range map[string]string{
		"unknown":   "  - {name: a, handler: h, depends_on: [b]}\n",
		"cycle":     "  - {name: a, handler: h, depends_on: [b]}\n  - {name: b, handler: h, depends_on: [a]}\n",
		"duplicate": "  - {name: a, handler: h}\n  - {name: a, handler: h}\n",
	} {
		_, err := workflow.ParseTemplate(name+".yaml", []byte(head+steps), workflow.Limits{})
		require.Error(t, err, name)
	}
}

func TestDefect14VersionsLiveSideBySide(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for version, n := range map[string]int32{"1.0.0": 1, "1.1.0": 2} {
		_, err := b.store.ApplyTemplate(t.Context(), []byte(version), []workflow.Plan{
			{Namespace: namespace, Name: "versions", Version: version, Steps: chain(n)},
		})
		require.NoError(t, err)
	}
	for version, n := range map[string]int{"1.0.0": 1, "1.1.0": 2} {
		p, err := b.store.FindPlan(t.Context(), namespace, "versions", version, "")
		require.NoError(t, err)
		require.Len(t, p.Steps, n)
	}
	_, err := b.store.FindPlan(t.Context(), namespace, "versions", "2.0.0", "")
	require.ErrorIs(t, err, store.ErrNotFound)
	_, err = b.store.ApplyTemplate(t.Context(), []byte("changed"), []workflow.Plan{
		{Namespace: namespace, Name: "versions", Version: "1.0.0", Steps: chain(3)},
	})
	require.ErrorIs(t, err, store.ErrTemplateDiffers)
}

func TestDefect16AKeyMakesOneTask(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p, g := b.mustPlan(t, fan(1)...), b.grant(b.host(t), 0)
	var first vocab.UUID
	for i, want := range []store.CreateOutcome{store.CreateDone, store.CreateDuplicate, store.CreateConflict} {
		task := newTask(p)
		task.Key, task.KeyHash = "key", []byte("hash")
		if want == store.CreateConflict {
			task.KeyHash = []byte("another")
		}
		created, err := b.store.CreateTasks(t.Context(), g, []store.NewTask{task}, "")
		require.NoError(t, err)
		if i == 0 {
			first = task.UUID
		}
		require.Equal(t, store.Created{Outcome: want, UUID: first}, created[0])
	}
}

func TestDefect17AndDigitsDataIsNotTouched(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	const context = `{"html": "<script>alert('1')</script> ; drop table --", "n": 12345678901234567890.1234567890, "small": 1e-30, "zero": 0.10}`
	task := newTask(b.mustPlan(t, fan(1)...))
	task.Context = json.RawMessage(context)
	_, err := b.store.CreateTasks(t.Context(), b.grant(b.host(t), 0), []store.NewTask{task}, "")
	require.NoError(t, err)
	inputs, err := b.store.StepInputs(t.Context(), []vocab.UUID{task.UUID}, nil)
	require.NoError(t, err)
	got := string(inputs[store.ContextOf(task.UUID)])
	require.JSONEq(t, context, got)
	for _, exact := range []string{`<script>alert('1')</script> ; drop table --`, `12345678901234567890.1234567890`, `0.10`, `0.000000000000000000000000000001`} {
		require.Contains(t, got, exact)
	}
}

func TestDefect20TheHintWinsAndIsCleared(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	steps := withAttempts(fan(1), 9)
	steps[0].Retry.Backoff, steps[0].Retry.Base, steps[0].Retry.Cap = workflow.BackoffFixed, time.Hour, time.Hour
	p, g := b.mustPlan(t, steps...), b.grant(b.host(t), 1)
	task, leases := b.create(t, g, p)
	wait := func(hint time.Duration) time.Duration {
		s := settlement(leases[0].StepKey, leases[0].ID, vocab.OutcomeRetryable)
		s.RetryAfter = hint
		done, err := b.store.Settle(t.Context(), g, policy, []store.Settlement{s})
		require.NoError(t, err)
		require.Equal(t, store.Recorded, done.Verdicts[0])
		ms := one[int64](t, b, "select (extract(epoch from due_at - updated_at) * 1000)::bigint from tasker_workflow_steps")
		b.exec(t, "update tasker_workflow_steps set due_at = clock_timestamp()")
		b.exec(t, "update pgmq.q_"+queue+" set vt = clock_timestamp()")
		leases = b.claim(t, g)
		require.Len(t, leases, 1)
		return time.Duration(ms) * time.Millisecond
	}
	require.Equal(t, 700*time.Millisecond, wait(700*time.Millisecond))
	require.Equal(t, policy.RetryAfterCap, wait(24*time.Hour), "capped")
	require.Equal(t, time.Hour, wait(0), "no hint: the policy, and no trace of the hints")
	b.settle(t, g, vocab.OutcomeSuccess, leases...)
	require.True(t, one[bool](t, b, "select due_at is null and error is null from tasker_workflow_steps where task_uuid = $1", task))
}

func TestDefect21TheEndHasATime(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p, g := b.mustPlan(t, fan(1)...), b.grant(b.host(t), 1)
	for _, outcome := range []vocab.Outcome{vocab.OutcomeSuccess, vocab.OutcomePermanent} {
		task, leases := b.create(t, g, p)
		b.settle(t, g, outcome, leases...)
		require.True(t, one[bool](t, b, "select completed_at >= created_at from tasker_tasks where task_uuid = $1", task))
	}
	task, _ := b.create(t, g, p)
	_, _, err := b.store.CancelTask(t.Context(), task, store.Operator{Reason: "test"}, g.Host)
	require.NoError(t, err)
	require.True(t, one[bool](t, b, "select completed_at is not null from tasker_tasks where task_uuid = $1", task))
	_, err = b.pool.Exec(t.Context(), "update tasker_tasks set completed_at = null where task_uuid = $1", task)
	require.Error(t, err)
}
