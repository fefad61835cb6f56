package e2e_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/migrations/pgtest"
)

// pooler puts PgBouncer before a server of its own and returns a URL that leads through it.
func pooler(t *testing.T, mode string) string {
	t.Helper()
	c := pgtest.Cluster(t, nil)
	db := pgtest.Pool(t, c.DSN())
	hba := column[string](t, db, "show hba_file")[0]
	require.NoError(t, os.WriteFile(hba, []byte("local all all trust\n"), 0o600))
	_, err := db.Exec(t.Context(), "select pg_reload_conf()")
	require.NoError(t, err)
	server, err := pgx.ParseConfig(c.DSN())
	require.NoError(t, err)

	// A socket's path must be short, and the pooler may be somebody else.
	dir, err := os.MkdirTemp("/tmp", "pooler-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o777))
	ini := filepath.Join(dir, "pgbouncer.ini")
	require.NoError(t, os.WriteFile(ini, fmt.Appendf(nil, `[databases]
* = host=%s port=%d user=%s
[pgbouncer]
listen_addr =
listen_port = 6432
unix_socket_dir = %s
auth_type = any
log_connections = 0
log_disconnections = 0
pool_mode = %s
`, server.Host, server.Port, server.User, dir, mode), 0o644))
	var args []string
	if os.Geteuid() == 0 { // it becomes who the server is, to whom the server's socket is open
		info, err := os.Stat(hba)
		require.NoError(t, err)
		owner, err := user.LookupId(fmt.Sprint(info.Sys().(*syscall.Stat_t).Uid))
		require.NoError(t, err)
		args = []string{"-u", owner.Username}
	}
	bouncer := exec.CommandContext(context.WithoutCancel(t.Context()), "/usr/sbin/pgbouncer", append(args, ini)...)
	bouncer.Stderr = t.Output()
	require.NoError(t, bouncer.Start())
	t.Cleanup(func() {
		_ = bouncer.Process.Kill() // it may have ended
		_ = bouncer.Wait()
	})
	through := url.URL{
		Scheme: "postgres", User: url.UserPassword(server.User, canary), Path: server.Database,
		RawQuery: url.Values{"host": {dir}, "port": {"6432"}, "sslmode": {"disable"}}.Encode(),
	}
	eventually(t, patience, "the pooler answers", func() bool {
		conn, err := pgx.Connect(t.Context(), through.String())
		if err == nil {
			require.NoError(t, conn.Close(t.Context()))
		}
		return err == nil
	})
	return through.String()
}

// A pooler that gives each client a session is as good as the server: what the host wants
// of its sessions is set by a statement, which no pooler refuses.
func TestPoolerInSessionMode(t *testing.T) {
	t.Parallel()
	s := newSite(t, pooler(t, "session"))
	s.plugins(t, pluginTable("arithmetic", filepath.Join(built, "arithmetic"), ""))
	h := s.up(t)
	applyExample(t, h, "arithmetic/templates/linear.yaml")
	r := s.tasker(t, "task", "submit", "linear_workflow/mathematical_sequence", "--context", `{"even_number": 6}`, "--watch")
	require.Equal(t, 0, r.code, r.err)
	require.Contains(t, r.out, "2821109907456")
	h.stop(t)
}

// One in transaction mode loses settings, statements and locks of sessions. Nothing would
// fail at once, so it is found out at start.
func TestPoolerInTransactionMode(t *testing.T) {
	t.Parallel()
	s := newSite(t, pooler(t, "transaction"))
	requireRefusal(t, s, "a pooler in transaction mode", "at the server itself")
	for _, command := range []string{"migrate", "doctor"} {
		r := s.tasker(t, command)
		require.Equal(t, 1, r.code)
		require.Contains(t, r.out+r.err, "a pooler in transaction mode")
		require.Contains(t, r.out+r.err, "at the server itself")
	}
}
