package pgtest_test

import (
	"context"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/internal/leaks"
	"github.com/tasker-systems/tasker-host/migrations"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
)

func TestMain(m *testing.M) { leaks.Main(m) }

func TestDatabasesAreMigratedAndSeparate(t *testing.T) {
	t.Parallel()
	a, b := pgtest.New(t), pgtest.New(t)
	require.NoError(t, migrations.Check(t.Context(), a))
	_, err := a.Exec(t.Context(), "create table only_here (x integer)")
	require.NoError(t, err)
	var there bool
	require.NoError(t, b.QueryRow(t.Context(), "select to_regclass('only_here') is not null").Scan(&there))
	require.False(t, there)
	var zone, timeout string
	require.NoError(t, b.QueryRow(t.Context(), "select current_setting('TimeZone'), current_setting('statement_timeout')").Scan(&zone, &timeout))
	require.Equal(t, "UTC", zone)
	require.Equal(t, "30s", timeout)
}

func TestDatabaseGoesAwayWithItsTest(t *testing.T) {
	t.Parallel()
	var name string
	t.Run("inner", func(t *testing.T) {
		pool := pgtest.New(t)
		require.NoError(t, pool.QueryRow(t.Context(), "select current_database()").Scan(&name))
	})
	var exists bool
	require.NoError(t, pgtest.New(t).QueryRow(t.Context(), "select exists (select from pg_database where datname = $1)", name).Scan(&exists))
	require.False(t, exists)
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	began := time.Now()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			conn, err := pgx.Connect(t.Context(), pgtest.DSN(t))
			if err != nil {
				t.Error(err)
				return
			}
			if err := conn.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	t.Logf("20 databases in %v", time.Since(began))
}

func TestEmptyHasNoSchema(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t, pgtest.Empty(t))
	require.Error(t, migrations.Check(t.Context(), pool))
	info, err := migrations.PGMQ(t.Context(), pool)
	require.NoError(t, err)
	require.Equal(t, migrations.PGMQNone, info.Kind)
}

func TestClusterSurvivesCrash(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t, map[string]string{"max_connections": "300"})
	pool := pgtest.Pool(t, c.DSN())
	require.NoError(t, migrations.Check(t.Context(), pool))
	_, err := pool.Exec(t.Context(), "create table kept as select 1")
	require.NoError(t, err)
	require.NoError(t, c.StopImmediate(t.Context()))
	require.Error(t, pool.Ping(t.Context()))
	require.NoError(t, c.Restart(t.Context()))
	require.NoError(t, migrations.Check(t.Context(), pool))
	require.NoError(t, c.Stop(t.Context()))
	require.NoDirExists(t, c.Dir())
}

func TestExtensionServer(t *testing.T) {
	t.Parallel()
	pool := pgtest.ExtensionServer(t).New(t)
	info, err := migrations.PGMQ(t.Context(), pool)
	require.NoError(t, err)
	require.Equal(t, migrations.PGMQExtension, info.Kind)
	require.Empty(t, info.Missing)
	var owned int
	require.NoError(t, pool.QueryRow(t.Context(),
		`select count(*) from pg_depend d join pg_extension e on e.oid = d.refobjid and e.extname = 'pgmq' where d.deptype = 'e'`).Scan(&owned))
	require.Greater(t, owned, 20)
}

// TestGivenServer runs another test of this file on a server of ours that
// TEST_DATABASE_URL names.
func TestGivenServer(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t, nil)
	cmd := exec.Command(os.Args[0], "-test.run=^TestDatabasesAreMigratedAndSeparate$", "-test.v")
	cmd.Env = append(os.Environ(), "TEST_DATABASE_URL="+c.DSN())
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: TestDatabasesAreMigratedAndSeparate")
	pool := pgtest.Pool(t, c.DSN())
	var templates, left int
	require.NoError(t, pool.QueryRow(t.Context(),
		`select count(*) filter (where datname like 'tmpl\_%'), count(*) filter (where datname like 'test\_%') from pg_database`).Scan(&templates, &left))
	require.Equal(t, 1, templates, "it ran there")
	require.Zero(t, left, "and left only the template")

	cmd = exec.Command(os.Args[0], cmd.Args[1:]...)
	cmd.Env = append(os.Environ(), "TEST_DATABASE_URL=host=/nowhere user=nobody")
	out, err = cmd.CombinedOutput()
	require.Error(t, err, "a server that is not there fails the tests")
	require.Contains(t, string(out), "TEST_DATABASE_URL")
}
