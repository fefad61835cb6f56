package store_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Giving back the steps of a dead host locks those it sets aside in the usual order: it
// does not hold rows of a later task while it waits for rows of an earlier one.
func TestReleaseOfADeadHostLocksInOrder(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.mustPlan(t, fan(2)...)
	dead, other := b.host(t), b.host(t)
	made, err := b.store.CreateTasks(t.Context(), b.grant(dead, 0), []store.NewTask{newTask(p), newTask(p)}, "")
	require.NoError(t, err)
	tasks := []vocab.UUID{made[0].UUID, made[1].UUID}
	slices.SortFunc(tasks, func(a, b vocab.UUID) int { return slices.Compare(a[:], b[:]) })
	for no, host := range []int32{dead, other} {
		b.exec(t, `update tasker_workflow_steps set state = 'in_progress', lease_id = gen_random_uuid(), lease_host = $1, claims = 100, sort_key = sort_key + 1
		            where step_no = $2`, host, no)
	}

	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	const lock = "select step_no from tasker_workflow_steps where task_uuid = $1 and step_no = $2 for update"
	_, err = tx.Exec(t.Context(), lock, tasks[0], 1)
	require.NoError(t, err)
	released := make(chan error, 1)
	go func() {
		var n int
		released <- b.pool.QueryRow(t.Context(), "select o_released from tasker_release_host_steps($1, 'host_lost', '00000000-0000-0000-0000-000000000000', 100, 3)", dead).Scan(&n)
	}()
	require.Eventually(t, func() bool {
		return one[int](t, b, `select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%tasker_release_host_steps%' and datname = current_database()`) == 1
	}, time.Minute, 5*time.Millisecond, "it waits for the row of the first task")
	for _, no := range []int{0, 1} {
		_, err = tx.Exec(t.Context(), lock, tasks[1], no)
		require.NoError(t, err, "nobody holds a row of the second task yet")
	}
	require.NoError(t, tx.Commit(t.Context()))
	require.NoError(t, <-released)
	require.Equal(t, 2, one[int](t, b, "select count(*) from tasker_workflow_steps where state = 'error'"))
}

// TestReleaseHostOnce: while one host gives back the steps of a dead one, another that
// tries the same neither waits for it nor reports that everything is done.
func TestReleaseHostOnce(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.mustPlan(t, fan(1)...)
	dead := b.host(t)
	_, err := b.store.CreateTasks(t.Context(), b.grant(dead, 1), []store.NewTask{newTask(p)}, "")
	require.NoError(t, err)
	b.exec(t, "update tasker_hosts set alive_until = clock_timestamp() - interval '1 s'")
	sweep := func() []store.GoneHost {
		gone, err := b.store.SweepHosts(t.Context())
		require.NoError(t, err)
		return gone
	}
	require.Len(t, sweep(), 1)

	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	var n int
	require.NoError(t, tx.QueryRow(t.Context(), "select o_released from tasker_release_host_steps($1, 'host_lost', '00000000-0000-0000-0000-000000000000', 100, 3)", dead).Scan(&n))
	require.Equal(t, 1, n)
	n, err = b.store.ReleaseHost(t.Context(), dead, "host_lost", policy.ClaimFactor)
	require.ErrorIs(t, err, store.ErrOthers)
	require.Zero(t, n)
	require.NoError(t, tx.Rollback(t.Context()), "the other dies")
	require.Len(t, sweep(), 1, "it is still to be done")
	n, err = b.store.ReleaseHost(t.Context(), dead, "host_lost", policy.ClaimFactor)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Empty(t, sweep())
}

// TestAHostThatStoppedIsExcused: a stopping host reports this and then gives back its
// steps. If it is killed in between, or another host is faster, the claims do not count
// either.
func TestAHostThatStoppedIsExcused(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.mustPlan(t, fan(1)...)
	host := b.host(t)
	task, leases := b.create(t, b.grant(host, 1), p)
	require.Len(t, leases, 1)
	b.exec(t, "update tasker_workflow_steps set claims = 3") // as many as allowed
	_, _, err := b.store.Heartbeat(t.Context(), host, "stopped", nil, 0, nil)
	require.NoError(t, err)
	gone, err := b.store.SweepHosts(t.Context())
	require.NoError(t, err)
	require.Len(t, gone, 1)
	n, err := b.store.ReleaseHost(t.Context(), host, "host_lost", policy.ClaimFactor)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Equal(t, vocab.StepEnqueued, b.stepState(t, task, 0))
	require.Equal(t, 2, one[int](t, b, "select claims from tasker_workflow_steps"))
}
