package pgmqcompat_test

import (
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/internal/leaks"
	"github.com/tasker-systems/tasker-host/migrations/pgmqcompat"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
)

// What every installation of pgmq must do is tested in host/internal/pgmq; these tests
// are about what ours does beyond that.

func TestMain(m *testing.M) { leaks.Main(m) }

func install(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool := pgtest.Pool(t, pgtest.Empty(t))
	_, err := pool.Exec(t.Context(), "create schema pgmq; "+pgmqcompat.SQL)
	require.NoError(t, err)
	return pool
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	pool := install(t)
	_, err := pool.Exec(t.Context(), `select pgmq.create('orders')`)
	require.NoError(t, err)
	for call, reason := range map[string]string{
		`pgmq.create('Orders')`:        "differ only in case",
		`pgmq.create('')`:              "must not be empty",
		`pgmq.create(null)`:            "must not be empty",
		`pgmq.create(E'a\nb')`:         "control characters",
		`pgmq.create(E'a\tb')`:         "control characters",
		`pgmq.create(repeat('é', 40))`: "47 bytes",
		`pgmq.send_batch('orders', array['1']::jsonb[], array['{}','{}']::jsonb[])`: "2 headers for 1 messages",
		`pgmq.create_partitioned('orders2')`:                                        "partitioned queues are not supported",
		`pgmq.create_partitioned('orders2', '10', '100')`:                           "partitioned queues are not supported",
		`pgmq.convert_archive_partitioned('orders')`:                                "partitioned archives are not supported",
	} {
		_, err := pool.Exec(t.Context(), `select `+call)
		require.ErrorContains(t, err, reason, call)
	}
	var dropped bool
	require.NoError(t, pool.QueryRow(t.Context(), `select pgmq.drop_queue('Orders')`).Scan(&dropped))
	require.False(t, dropped)
	_, err = pool.Exec(t.Context(), `select pgmq.send('orders', '1'::jsonb)`)
	require.NoError(t, err, "the queue of the other name is untouched")
}

func TestQuotedNames(t *testing.T) {
	t.Parallel()
	pool := install(t)
	for _, name := range []string{`with "quotes"`, `with space`, `ünïcode`, `a%I%s`, `select`, `a\b`} {
		_, err := pool.Exec(t.Context(), `select pgmq.create($1::text)`, name)
		require.NoError(t, err, name)
		var id, read int64
		require.NoError(t, pool.QueryRow(t.Context(), `select pgmq.send($1::text, '{"a":1}'::jsonb)`, name).Scan(&id), name)
		require.NoError(t, pool.QueryRow(t.Context(), `select msg_id from pgmq.read($1::text, 0, 1, '{"a":1}')`, name).Scan(&read), name)
		require.Equal(t, id, read, name)
		var sent int64
		require.NoError(t, pool.QueryRow(t.Context(), `select total_messages from pgmq.metrics($1::text)`, name).Scan(&sent), name)
		require.EqualValues(t, 1, sent, name)
	}
}

func TestInstalledOverItself(t *testing.T) {
	t.Parallel()
	pool := install(t)
	_, err := pool.Exec(t.Context(), `select pgmq.create('orders'); select pgmq.send('orders', '1'::jsonb)`)
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), pgmqcompat.SQL)
	require.NoError(t, err)
	var n int
	require.NoError(t, pool.QueryRow(t.Context(), `select count(*) from pgmq.read('orders', 0, 10)`).Scan(&n))
	require.Equal(t, 1, n)
}

// A reader of a deep queue, most of which is hidden, must not walk through all of it: the
// time is a parameter, so that the index on vt can be used.
func TestReadUsesAnIndexOnADeepQueue(t *testing.T) {
	t.Parallel()
	pool := install(t)
	_, err := pool.Exec(t.Context(), `
		select pgmq.create('deep');
		insert into pgmq.q_deep (vt, message) select clock_timestamp() + interval '1 hour', '1' from generate_series(1, 20000);
		insert into pgmq.q_deep (vt, message) select clock_timestamp(), '2' from generate_series(1, 5);
		analyze pgmq.q_deep`)
	require.NoError(t, err)
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	fetched := func() (rows int64) {
		_, err := conn.Exec(t.Context(), `select pg_stat_force_next_flush()`)
		require.NoError(t, err)
		require.NoError(t, conn.QueryRow(t.Context(),
			`select seq_tup_read + coalesce(idx_tup_fetch, 0) from pg_stat_user_tables where relname = 'q_deep'`).Scan(&rows))
		return rows
	}
	before := fetched()
	var n int
	require.NoError(t, conn.QueryRow(t.Context(), `select count(*) from pgmq.read('deep', 60, 5)`).Scan(&n))
	require.Equal(t, 5, n)
	require.Less(t, fetched()-before, int64(1000), "rows visited")
}

func TestMark(t *testing.T) {
	t.Parallel()
	revision, ours := pgmqcompat.ParseMark(pgmqcompat.Mark())
	require.True(t, ours)
	require.Equal(t, pgmqcompat.Revision, revision)
	for _, other := range []string{"", "standard public schema", "pgmq-compatible queues of somebody", pgmqcompat.Mark() + "x"} {
		_, ours := pgmqcompat.ParseMark(other)
		require.False(t, ours, other)
	}
}
