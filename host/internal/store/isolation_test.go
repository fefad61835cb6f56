package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/store"
)

// A database may have a different default isolation level: a host that was declared dead
// while waiting to claim still gets nothing. Nobody would give back what it got.
func TestIsolationThatTheDatabaseHasAsDefault(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.mustPlan(t, fan(1)...)
	host := b.host(t)
	b.create(t, b.grant(host, 0), p)
	b.exec(t, `do $$ begin execute format('alter database %I set default_transaction_isolation = %L', current_database(), 'repeatable read'); end $$`)
	pool, err := store.OpenPool(t.Context(), store.PoolConfig{URL: b.pool.Config().ConnString(), StatementTimeout: time.Minute, LockTimeout: time.Minute})
	require.NoError(t, err)
	defer pool.Close()
	st := store.New(pool)

	tx := b.begin(t)
	for _, sql := range []string{
		"select pg_advisory_xact_lock(hashtext('tasker_hosts'), $1)",
		"update tasker_hosts set state = 'dead' where host_id = $1",
		"select tasker_release_host_steps($1, 'host_lost', '00000000-0000-0000-0000-000000000000', 100, 3)",
		"update tasker_hosts set swept_at = clock_timestamp() where host_id = $1",
	} {
		_, err := tx.Exec(t.Context(), sql, host)
		require.NoError(t, err)
	}
	var got store.Claimed
	require.NoError(t, blocked(t, b, tx, func(ctx context.Context) (err error) {
		got, err = st.Claim(ctx, b.grant(host, 1), queue, handlers, 0)
		return err
	}))
	require.Empty(t, got.Leases)
	b.requireSound(t)
}
