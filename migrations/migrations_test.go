package migrations_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/internal/leaks"
	"github.com/tasker-systems/tasker-host/migrations"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// files returns a series of migrations.
func files(t *testing.T, pairs ...string) migrations.Series {
	t.Helper()
	fsys := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		fsys[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	s, err := migrations.ReadSeries(fsys)
	require.NoError(t, err)
	return s
}

const (
	one = "-- +goose Up\ncreate table one (x integer);\n-- +goose Down\ndrop table one;\n"
	two = `-- +goose Up
-- +goose StatementBegin
create function two() returns integer language plpgsql as $$
begin
  perform 1; perform 2;
  return 2;
end
$$;
-- +goose StatementEnd
create table two (x integer default two());
-- +goose Down
drop table two;
drop function two();
`
)

func empty(t *testing.T) (*pgx.ConnConfig, *pgxpool.Pool) {
	t.Helper()
	dsn := pgtest.Empty(t)
	cfg, err := pgx.ParseConfig(dsn)
	require.NoError(t, err)
	return cfg, pgtest.Pool(t, dsn)
}

func logger(t *testing.T) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Output: t.Output(), Level: hclog.Debug})
}

func text(t *testing.T, db migrations.Querier, sql string, args ...any) (value string) {
	t.Helper()
	require.NoError(t, db.QueryRow(t.Context(), sql, args...).Scan(&value))
	return value
}

func TestUpFromNothing(t *testing.T) {
	t.Parallel()
	cfg, pool := empty(t)
	latest, err := migrations.Latest()
	require.NoError(t, err)
	pending, ok := errors.AsType[*migrations.PendingError](migrations.Check(t.Context(), pool))
	require.True(t, ok)
	require.Equal(t, migrations.PendingError{Database: 0, Binary: latest}, *pending)
	require.ErrorContains(t, pending, "run `tasker migrate`")

	for range 2 { // the second time there is nothing to do
		require.NoError(t, migrations.Up(t.Context(), cfg, logger(t)))
		require.NoError(t, migrations.Check(t.Context(), pool))
	}
	all, err := migrations.Status(t.Context(), pool)
	require.NoError(t, err)
	require.NotEmpty(t, all)
	for _, m := range all {
		require.True(t, m.Applied() && m.Known && !m.Changed, "%+v", m)
	}
	require.Equal(t, latest, all[len(all)-1].Version)
}

// catalog describes everything in the schema public, line by line.
func catalog(t *testing.T, pool *pgxpool.Pool) []string {
	t.Helper()
	rows, err := pool.Query(t.Context(), `
		select 'column ' || c.oid::regclass || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || a.attnotnull
		       || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
		  from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
		  left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
		 where c.relnamespace = 'public'::regnamespace and c.relname not like 'tasker\_schema\_migrations%'
		union all select 'index ' || indexdef from pg_indexes where schemaname = 'public' and tablename <> 'tasker_schema_migrations'
		union all select 'constraint ' || conrelid::regclass || ' ' || pg_get_constraintdef(oid) from pg_constraint
		           where connamespace = 'public'::regnamespace and conrelid::regclass::text <> 'tasker_schema_migrations'
		union all select 'function ' || pg_get_functiondef(oid) from pg_proc where pronamespace = 'public'::regnamespace and prokind in ('f', 'p')
		union all select 'trigger ' || pg_get_triggerdef(oid) from pg_trigger where not tgisinternal
		union all select 'type ' || t.typname || coalesce((select string_agg(e.enumlabel, ',' order by e.enumsortorder) from pg_enum e where e.enumtypid = t.oid), '')
		            from pg_type t where t.typnamespace = 'public'::regnamespace and t.typname not like '%tasker\_schema\_migrations'
		order by 1`)
	require.NoError(t, err)
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return lines
}

// Every migration can be reverted and applied again, and leaves nothing behind. A server
// that cannot store our JSON is left unchanged.
func TestEncodingIsCheckedFirst(t *testing.T) {
	t.Parallel()
	cfg, admin := empty(t)
	latin := cfg.Copy()
	latin.Database = cfg.Database + "_latin1"
	_, err := admin.Exec(t.Context(), "create database "+latin.Database+" encoding 'LATIN1' locale 'C' template template0")
	require.NoError(t, err)
	defer func() {
		_, err := admin.Exec(context.Background(), "drop database "+latin.Database+" with (force)")
		require.NoError(t, err)
	}()

	const why = "the database's encoding is LATIN1: JSON needs UTF8; create the database with encoding 'UTF8'"
	require.EqualError(t, migrations.Up(t.Context(), latin, hclog.NewNullLogger()), "migrate: "+why)
	conn, err := pgx.ConnectConfig(t.Context(), latin)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	require.EqualError(t, migrations.Check(t.Context(), conn), why)
	var made int
	require.NoError(t, conn.QueryRow(t.Context(), `select count(*) from pg_namespace where nspname = 'pgmq'`).Scan(&made))
	require.Zero(t, made)
}

func TestBackwardAndForward(t *testing.T) {
	t.Parallel()
	cfg, pool := empty(t)
	require.NoError(t, migrations.Up(t.Context(), cfg, logger(t)))
	full := catalog(t, pool)
	all, err := migrations.Status(t.Context(), pool)
	require.NoError(t, err)

	for i := len(all) - 1; i >= 0; i-- {
		var to int64
		if i > 0 {
			to = all[i-1].Version
		}
		require.NoError(t, migrations.Down(t.Context(), cfg, to, logger(t)), "down from %s", all[i].Name)
		pending, ok := errors.AsType[*migrations.PendingError](migrations.Check(t.Context(), pool))
		require.True(t, ok)
		require.Equal(t, to, pending.Database)
	}
	require.Empty(t, catalog(t, pool), "nothing is left")
	require.NoError(t, migrations.Up(t.Context(), cfg, logger(t)))
	require.Equal(t, full, catalog(t, pool))
	require.ErrorContains(t, migrations.Down(t.Context(), cfg, 7, logger(t)), "no schema version 7")
}

func TestManyHostsAtOnce(t *testing.T) {
	t.Parallel()
	cfg, pool := empty(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := migrations.Up(t.Context(), cfg, hclog.NewNullLogger()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.NoError(t, migrations.Check(t.Context(), pool))
}

func TestNewerSchema(t *testing.T) {
	t.Parallel()
	cfg, pool := empty(t)
	require.NoError(t, files(t, "10_one.sql", one, "20_two.sql", two).Up(t.Context(), cfg, logger(t)))
	old := files(t, "10_one.sql", one)
	for _, err := range []error{
		old.Check(t.Context(), pool), old.Up(t.Context(), cfg, logger(t)), old.Down(t.Context(), cfg, 0, logger(t)),
	} {
		newer, ok := errors.AsType[*migrations.NewerError](err)
		require.True(t, ok, "%v", err)
		require.Equal(t, migrations.NewerError{Database: 20, Binary: 10}, *newer)
		require.ErrorContains(t, err, "version 20")
		require.ErrorContains(t, err, "up to 10")
	}
	require.Equal(t, "2", text(t, pool, "select two()::text"), "untouched")
}

func TestChangedFile(t *testing.T) {
	t.Parallel()
	cfg, pool := empty(t)
	require.NoError(t, files(t, "10_one.sql", one).Up(t.Context(), cfg, logger(t)))
	edited := files(t, "10_one.sql", strings.Replace(one, "integer", "bigint", 1), "20_two.sql", two)
	for _, err := range []error{edited.Check(t.Context(), pool), edited.Up(t.Context(), cfg, logger(t))} {
		changed, ok := errors.AsType[*migrations.ChangedError](err)
		require.True(t, ok, "%v", err)
		require.Equal(t, []string{"10_one.sql"}, changed.Names)
	}
	all, err := edited.Status(t.Context(), pool)
	require.NoError(t, err)
	require.True(t, all[0].Changed)
	require.False(t, all[1].Applied())

	gone := files(t, "15_other.sql", one)
	_, ok := errors.AsType[*migrations.ChangedError](gone.Check(t.Context(), pool))
	require.True(t, ok, "a removed file")
}

func TestFailureInAFile(t *testing.T) {
	t.Parallel()
	cfg, pool := empty(t)
	broken := files(t, "10_one.sql", one, "20_broken.sql", "-- +goose Up\ncreate table half (x integer);\nselect 1/0;\n")
	err := broken.Up(t.Context(), cfg, logger(t))
	require.ErrorContains(t, err, "20_broken.sql")
	require.ErrorContains(t, err, "division by zero")
	require.Equal(t, "one", text(t, pool, "select coalesce(to_regclass('half')::text, to_regclass('one')::text)"), "the file is undone, the one before stays")
	require.NoError(t, files(t, "10_one.sql", one, "20_two.sql", two).Up(t.Context(), cfg, logger(t)), "and can be repaired")
}

// lines counts log lines and signals each one.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	select {
	case l <- string(p):
	default:
	}
	return len(p), nil
}

// A migration that cannot get its lock gives way to the others that wait behind it, and
// tries again.
func TestLockTimeout(t *testing.T) {
	t.Parallel()
	cfg, pool := empty(t)
	require.NoError(t, files(t, "10_one.sql", one).Up(t.Context(), cfg, logger(t)))
	next := files(t, "10_one.sql", one, "20_alter.sql", "-- +goose Up\nalter table one add column y integer;\n")
	next.SetLockTimeout("100ms")
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "select count(*) from one")
	require.NoError(t, err)

	said := make(lines, 100)
	done := make(chan error, 1)
	go func() { done <- next.Up(t.Context(), cfg, hclog.New(&hclog.LoggerOptions{Output: said})) }()
	for line := range said {
		if strings.Contains(line, "trying again") {
			break
		}
	}
	require.NoError(t, tx.Rollback(t.Context()))
	require.NoError(t, <-done)
	require.Equal(t, "0", text(t, pool, "select count(y)::text from one"))
}

func TestWaitForAnotherMigration(t *testing.T) {
	t.Parallel()
	cfg, pool := empty(t)
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	_, err = conn.Exec(t.Context(), fmt.Sprintf("select pg_advisory_lock(%d)", migrations.LockKey))
	require.NoError(t, err)

	said := make(lines, 100)
	cause := errors.New("shutting down")
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- migrations.Up(ctx, cfg, hclog.New(&hclog.LoggerOptions{Output: said})) }()
	require.Contains(t, <-said, "another process is migrating")
	cancel(cause)
	err = <-done
	require.True(t, errors.Is(err, cause) || errors.Is(err, context.Canceled), "%v", err)
	require.Equal(t, "false", text(t, conn, "select (to_regclass('tasker_schema_migrations') is not null)::text"))
}

func TestBadNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"first.sql", "0_zero.sql", "-1_x.sql"} {
		_, err := migrations.ReadSeries(fstest.MapFS{name: &fstest.MapFile{}})
		require.ErrorContains(t, err, name)
	}
}
