package pgtest

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// sharedDir names a directory for a shared server of this test.
func sharedDir(t *testing.T) string {
	t.Helper()
	return filepath.Join(newBase(t), "shared")
}

func TestSharedServerGoesAwayAfterItsUsers(t *testing.T) {
	t.Parallel()
	dir := sharedDir(t)
	first, err := join(t.Context(), dir, 1)
	require.NoError(t, err)
	second, err := join(t.Context(), dir, 1)
	require.NoError(t, err)
	require.Equal(t, first.url, second.url)
	require.NoError(t, first.users.Close())
	require.Never(t, func() bool { return answering(t.Context(), dir) == "" }, 2500*time.Millisecond, 500*time.Millisecond, "one user is left")
	require.NoError(t, second.users.Close())
	require.Eventually(t, func() bool {
		_, err := os.Stat(dir)
		return os.IsNotExist(err)
	}, time.Minute, 50*time.Millisecond)

	third, err := join(t.Context(), dir, 1)
	require.NoError(t, err, "and comes back")
	require.NoError(t, third.users.Close())
	require.Eventually(t, func() bool {
		_, err := os.Stat(dir)
		return os.IsNotExist(err)
	}, time.Minute, 50*time.Millisecond)
}

func TestManyUsersStartOneServer(t *testing.T) {
	t.Parallel()
	dir := sharedDir(t)
	var mu sync.Mutex
	var servers []testServer
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			s, err := join(t.Context(), dir, 1)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			servers = append(servers, s)
		})
	}
	wg.Wait()
	require.Len(t, servers, 6)
	for _, s := range servers {
		require.Equal(t, servers[0].url, s.url)
		require.NoError(t, s.users.Close())
	}
	require.Eventually(t, func() bool {
		_, err := os.Stat(dir)
		return os.IsNotExist(err)
	}, time.Minute, 50*time.Millisecond)
}

// Databases of test processes that were killed are dropped by later ones.
func TestSweep(t *testing.T) {
	t.Parallel()
	dsn := Empty(t)
	server := usual(t)
	gone := fmt.Sprintf("%s%d_x_1", databasePrefix, 1<<22+1) // above the largest process number
	require.NoError(t, execute(t.Context(), server.admin, "create database "+gone))
	require.NoError(t, sweep(t.Context(), server.admin))
	orphan, err := withDatabase(server.admin, gone)
	require.NoError(t, err)
	require.Error(t, execute(t.Context(), orphan, "select 1"))
	require.NoError(t, execute(t.Context(), dsn, "select 1"), "those of the living stay")
}

func TestOldTemplatesAreDropped(t *testing.T) {
	t.Parallel()
	server := Server{admin: startPrivate(t, newBase(t), "", nil).DSN()}
	for i := range keptTemplates + 2 {
		require.NoError(t, execute(t.Context(), server.admin, fmt.Sprintf("create database %sold_%d", templatePrefix, i)))
	}
	dsn := server.DSN(t) // has no template yet
	require.NoError(t, execute(t.Context(), dsn, "select 1 from tasker_schema_migrations"))
	pool := Pool(t, server.admin)
	var n int
	require.NoError(t, pool.QueryRow(t.Context(), `select count(*) from pg_database where datname like 'tmpl\_%'`).Scan(&n))
	require.Equal(t, keptTemplates, n)
}
