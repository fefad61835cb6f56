package migrations_test

import (
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/migrations"
	"github.com/tasker-systems/tasker-host/migrations/pgmqcompat"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
)

func pgmqOf(t *testing.T, db migrations.Querier) migrations.PGMQInfo {
	t.Helper()
	info, err := migrations.PGMQ(t.Context(), db)
	require.NoError(t, err)
	return info
}

func TestCompatibleQueuesAreUpgraded(t *testing.T) {
	t.Parallel()
	cfg, pool := empty(t)
	_, err := pool.Exec(t.Context(), "create schema pgmq; "+pgmqcompat.SQL)
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), `
		comment on schema pgmq is 'pgmq-compatible queues of Tasker Host, interface 1.4.0, revision 0';
		select pgmq.create('orders'); select pgmq.send('orders', '1'::jsonb);
		drop function pgmq.set_vt`)
	require.NoError(t, err)
	require.Equal(t, []string{"pgmq.set_vt(text,bigint,integer)"}, pgmqOf(t, pool).Missing)
	require.NoError(t, migrations.Up(t.Context(), cfg, logger(t)))
	info := pgmqOf(t, pool)
	require.Equal(t, migrations.PGMQCompat, info.Kind)
	require.Equal(t, "1.5.1-compat.2", info.Version)
	require.Empty(t, info.Missing)
	require.Equal(t, "1", text(t, pool, "select count(*)::text from pgmq.read('orders', 0, 1)"))
}

func TestForeignQueuesAreUsedAsTheyAre(t *testing.T) {
	t.Parallel()
	cfg, pool := empty(t)
	_, err := pool.Exec(t.Context(), "create schema pgmq; "+pgmqcompat.SQL)
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), "create or replace function pgmq.purge_queue(queue_name text) returns bigint language sql as 'select 42::bigint'")
	require.NoError(t, err)
	require.NoError(t, migrations.Up(t.Context(), cfg, logger(t)))
	require.Equal(t, migrations.PGMQForeign, pgmqOf(t, pool).Kind)
	require.Equal(t, "42", text(t, pool, "select pgmq.purge_queue('any')::text"))
}

func TestForeignQueuesThatLackFunctions(t *testing.T) {
	t.Parallel()
	cfg, pool := empty(t)
	_, err := pool.Exec(t.Context(), "create schema pgmq; create table pgmq.meta (queue_name text)")
	require.NoError(t, err)
	err = migrations.Up(t.Context(), cfg, logger(t))
	require.ErrorContains(t, err, "pgmq.send_batch(text,jsonb[],jsonb[],integer)")
	require.ErrorContains(t, err, pgmqcompat.Interface)
}

// members describes everything that belongs to the extension pgmq.
func members(t *testing.T, db migrations.Querier) []string {
	t.Helper()
	rows, err := db.Query(t.Context(), `
		select pg_describe_object(d.classid, d.objid, d.objsubid) || ' '
		       || coalesce((select md5(p.prosrc) || coalesce(p.proacl::text, '') from pg_proc p where p.oid = d.objid), '')
		       || coalesce((select string_agg(a.attname || a.atttypid, ',' order by a.attnum) || coalesce(max(c.relacl::text), '')
		                      from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 where c.oid = d.objid), '')
		       || (select count(*) from pg_trigger g where g.tgrelid = d.objid)
		  from pg_depend d join pg_extension e on e.oid = d.refobjid and e.extname = 'pgmq'
		 where d.deptype = 'e' order by 1`)
	require.NoError(t, err)
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return all
}

// The extension's objects are its own: we neither change nor add to them.
func TestExtension(t *testing.T) {
	t.Parallel()
	server := pgtest.ExtensionServer(t)

	t.Run("is created and left alone", func(t *testing.T) {
		dsn := server.Empty(t)
		cfg, err := pgx.ParseConfig(dsn)
		require.NoError(t, err)
		pool := pgtest.Pool(t, dsn)
		_, err = pool.Exec(t.Context(), "create extension pgmq")
		require.NoError(t, err)
		before := members(t, pool)
		require.NotEmpty(t, before)
		require.NoError(t, migrations.Up(t.Context(), cfg, logger(t)))
		require.Equal(t, migrations.PGMQExtension, pgmqOf(t, pool).Kind)
		require.Equal(t, pgmqcompat.Interface, pgmqOf(t, pool).Version)
		require.Equal(t, before, members(t, pool))
		require.Equal(t, "", text(t, pool, "select coalesce(obj_description('pgmq'::regnamespace), '')"))
	})

	t.Run("is created if it is offered", func(t *testing.T) {
		require.Equal(t, migrations.PGMQExtension, pgmqOf(t, server.New(t)).Kind)
	})

	t.Run("may not be created by this role", func(t *testing.T) {
		dsn := server.Empty(t)
		admin := pgtest.Pool(t, dsn)
		// Not a superuser, but the owner of the database.
		_, err := admin.Exec(t.Context(), `
			do $$ begin execute format('alter database %I owner to pg_monitor', current_database()); end $$;
			alter schema public owner to pg_monitor`)
		require.NoError(t, err)
		cfg, err := pgx.ParseConfig(dsn)
		require.NoError(t, err)
		cfg.RuntimeParams["role"] = "pg_monitor"
		said := make(lines, 100)
		require.NoError(t, migrations.Up(t.Context(), cfg, hclog.New(&hclog.LoggerOptions{Output: said})))
		require.Contains(t, <-said, "may not create it")
		require.Equal(t, migrations.PGMQCompat, pgmqOf(t, admin).Kind)
	})
}
