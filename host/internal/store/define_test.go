package store_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/store"
)

// A host starts even if another one, or a long report, holds the locks it needs for
// longer than an ordinary statement would wait.
func TestDefinitionsWaitForOthers(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	cfg, err := store.PoolConfig{
		URL: b.pool.Config().ConnString(), ConnectTimeout: time.Minute, StatementTimeout: 400 * time.Millisecond, LockTimeout: 20 * time.Millisecond,
	}.PoolConfiguration()
	require.NoError(t, err)
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)

	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "lock table tasker_tasks, tasker_inboxes in access share mode")
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "lock table tasker_inboxes in share mode")
	require.NoError(t, err)
	done := make(chan error, 2)
	s := store.New(pool)
	go func() { done <- s.EnsurePartitions(t.Context(), 9, day) }()
	go func() { done <- s.CreateQueue(t.Context(), "another_inbox") }()
	select {
	case err := <-done:
		t.Fatalf("it did not wait for the locks: %v", err)
	case <-time.After(time.Second):
	}
	require.NoError(t, tx.Commit(t.Context()))
	require.NoError(t, <-done)
	require.NoError(t, <-done)
}

// TestPartitionsAreMadeTableByTable: a transaction that works on steps and then on tasks
// does not deadlock with a host that creates partitions of both.
func TestPartitionsAreMadeTableByTable(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "lock table tasker_workflow_steps in row exclusive mode")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- b.store.EnsurePartitions(t.Context(), 9, day) }()
	require.Eventually(t, func() bool {
		return one[int](t, b, `select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%tasker_ensure_partitions%' and datname = current_database()`) == 1
	}, time.Minute, 5*time.Millisecond, "it waits for the steps")
	_, err = tx.Exec(t.Context(), "lock table tasker_tasks in row exclusive mode nowait")
	require.NoError(t, err, "it does not hold the tasks meanwhile")
	require.NoError(t, tx.Commit(t.Context()))
	require.NoError(t, <-done)
	require.Equal(t, 4*8, one[int](t, b, `
select count(*) from pg_inherits i join pg_class c on c.oid = i.inhparent
 where c.relname in ('tasker_tasks', 'tasker_workflow_steps', 'tasker_task_transitions', 'tasker_workflow_step_transitions') and c.relkind = 'p'`), "three days together, six by themselves, and the default")
}
