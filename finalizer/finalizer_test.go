package finalizer_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/tasker-systems/tasker-host/finalizer"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// The decision depends only on a task's state and execution status.
func TestDecide(t *testing.T) {
	t.Parallel()
	for status, want := range map[finalizer.Status]finalizer.Decision{
		finalizer.HasReadySteps: finalizer.Wait, finalizer.Processing: finalizer.Wait, finalizer.WaitingForDependencies: finalizer.Wait,
		finalizer.AllComplete: finalizer.Complete, finalizer.BlockedByFailures: finalizer.Fail, "unheard of": finalizer.Wait,
	} {
		for _, state := range vocab.TaskStates {
			if state != vocab.TaskInProgress {
				require.Equal(t, finalizer.Wait, finalizer.Decide(state, finalizer.Context{Status: status}), state)
			}
		}
		require.Equal(t, want, finalizer.Decide(vocab.TaskInProgress, finalizer.Context{Status: status}), status)
	}
}

// newTasks makes tasks of two independent steps, which are put into these states
// directly in SQL: nothing has counted or finished them.
func newTasks(t *testing.T, pool *pgxpool.Pool, n int, states ...string) (tasks []vocab.UUID) {
	t.Helper()
	var plan int32
	err := pool.QueryRow(t.Context(), `
with ns as (insert into tasker_task_namespaces (name) values ('lab_' || (select count(*) from tasker_task_namespaces)) returning namespace_id, name),
     made as (insert into tasker_named_tasks (namespace_id, name, version, source, digest)
              select namespace_id, 'pair', '1.0.0', '', '' from ns returning named_task_uuid, namespace_id)
insert into tasker_task_plans (named_task_uuid, step_count, sink_count, namespace_id)
select named_task_uuid, 2, 2, namespace_id from made returning plan_id`).Scan(&plan)
	require.NoError(t, err)
	exec(t, pool, "insert into tasker_handlers (name) values ('lab.h') on conflict do nothing")
	exec(t, pool, `
insert into tasker_named_steps (plan_id, step_no, handler_id, name, parents, children, ancestors, retryable, max_attempts, backoff, base_ms, cap_ms, jitter)
select $1, s, (select handler_id from tasker_handlers), 'step_' || s, '{}', '{}', '{}', true, 1, 'none', 0, 0, 0 from generate_series(0, 1) s`, plan)
	exec(t, pool, "select pgmq.create(name || '_queue') from tasker_task_namespaces")
	for range n {
		var task vocab.UUID
		require.NoError(t, pool.QueryRow(t.Context(), `
select o_task from tasker_create_tasks(null, 0, '{}', array[tasker_new_task_uuid()], array[$1::integer], '{"{}"}', '{null}', array[''::bytea], '{null}')`,
			plan).Scan(&task))
		for step, state := range states {
			exec(t, pool, "alter table tasker_workflow_steps disable trigger all")
			exec(t, pool, "update tasker_workflow_steps set state = $3::text::tasker_step_state where task_uuid = $1 and step_no = $2", task, step, state)
			exec(t, pool, "alter table tasker_workflow_steps enable trigger all")
		}
		tasks = append(tasks, task)
	}
	return tasks
}

func exec(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	_, err := pool.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

func TestFinalize(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	f := finalizer.New(pool, "p", time.Minute)
	for _, c := range []struct {
		states []string
		want   vocab.TaskState
	}{
		{[]string{"complete", "complete"}, vocab.TaskComplete},
		{[]string{"complete", "resolved_manually"}, vocab.TaskComplete},
		{[]string{"error", "complete"}, vocab.TaskError},
		{[]string{"cancelled", "complete"}, vocab.TaskError},
		{[]string{"error", "in_progress"}, vocab.TaskInProgress},
		{[]string{"complete", "enqueued"}, vocab.TaskInProgress},
		{[]string{"enqueued", "enqueued"}, vocab.TaskInProgress},
	} {
		task := newTasks(t, pool, 1, c.states...)[0]
		for range 2 { // the second time it finds what the first time did
			state, err := f.Finalize(t.Context(), task)
			require.NoError(t, err)
			require.Equal(t, c.want, state, c.states)
		}
		var free bool
		require.NoError(t, pool.QueryRow(t.Context(), "select finalize_lease is null from tasker_tasks where task_uuid = $1", task).Scan(&free))
		require.True(t, free, "the claim was given up: %v", c.states)
	}
}

// A decision based on outdated facts cannot finish a task early, because apply
// checks again.
func TestApplyLooksAgain(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	f := finalizer.New(pool, "p", time.Minute)
	task := newTasks(t, pool, 1, "complete", "error")[0]
	claim, err := f.Claim(t.Context(), task)
	require.NoError(t, err)
	found, err := f.Context(t.Context(), task)
	require.NoError(t, err)
	require.Equal(t, finalizer.Fail, finalizer.Decide(vocab.TaskInProgress, found))
	exec(t, pool, "update tasker_workflow_steps set state = 'pending' where task_uuid = $1 and step_no = 1", task) // an operator retries
	state, err := f.Apply(t.Context(), task, claim.Lease)
	require.NoError(t, err)
	require.Equal(t, vocab.TaskInProgress, state)
}

func TestApplyOfALostClaim(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	f := finalizer.New(pool, "p", time.Minute)
	task := newTasks(t, pool, 1, "complete", "complete")[0]
	old, err := f.Claim(t.Context(), task)
	require.NoError(t, err)
	exec(t, pool, "update tasker_tasks set finalize_until = clock_timestamp()")
	_, err = f.Apply(t.Context(), task, old.Lease)
	require.ErrorIs(t, err, finalizer.ErrClaimLost, "it ran out")
	_, err = f.Apply(t.Context(), task, vocab.UUID{1})
	require.ErrorIs(t, err, finalizer.ErrClaimLost, "it never was")
	current, err := f.Claim(t.Context(), task)
	require.NoError(t, err)
	require.True(t, current.Claimed)
	_, err = f.Apply(t.Context(), task, old.Lease)
	require.ErrorIs(t, err, finalizer.ErrClaimLost, "there is another")
	state, err := f.Apply(t.Context(), task, current.Lease)
	require.NoError(t, err)
	require.Equal(t, vocab.TaskComplete, state)
}

// Many processors, some with the same name, find the same tasks: each task is
// finished once, each claim has its own record.
func TestManyProcessors(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	tasks := newTasks(t, pool, 60, "complete", "resolved_manually")
	var group errgroup.Group
	for _, name := range []string{"a", "a", "b", "b", "c", "d"} {
		f := finalizer.New(pool, name, time.Minute)
		group.Go(func() error {
			for _, task := range tasks {
				if _, err := f.Finalize(t.Context(), task); err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(t, group.Wait())
	var finished, ends, claims, tries int
	require.NoError(t, pool.QueryRow(t.Context(), `
select (select count(*) from tasker_tasks where state = 'complete'),
       (select count(*) from tasker_task_transitions where to_state = 'complete'),
       (select count(*) from tasker_finalization_attempts where claimed),
       (select count(*) from tasker_finalization_attempts)`).Scan(&finished, &ends, &claims, &tries))
	require.Equal(t, []int{60, 60, 60, 6 * 60}, []int{finished, ends, claims, tries})
}

func TestErrorsNameTheTask(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	f := finalizer.New(pool, "", time.Minute)
	_, err := f.Finalize(t.Context(), vocab.UUID{1})
	require.ErrorContains(t, err, "claim task 01000000-0000-0000-0000-000000000000 for finalization")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = finalizer.New(pool, "p", 0).Finalize(ended, vocab.UUID{1})
	require.ErrorIs(t, err, context.Canceled)
	claim, err := finalizer.New(pool, "p", 0).Claim(t.Context(), vocab.UUID{1})
	require.NoError(t, err)
	require.Equal(t, finalizer.Claim{State: "not_found", Message: "Task not found"}, claim)
}
