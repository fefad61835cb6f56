package store_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/store"
)

// A host starts although another, or a long report, holds what it needs for longer
// than a statement of work would wait.
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
	go func() { done <- s.EnsurePartitions(t.Context(), 9) }()
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
