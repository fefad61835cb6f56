package pgcluster_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/internal/leaks"
	"github.com/tasker-systems/tasker-host/migrations/pgcluster"
)

// hostDir, if set, makes the test binary act as a host that starts a cluster in that
// directory, reports it and waits to be killed.
const hostDir = "PGCLUSTER_TEST_HOST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(hostDir); dir != "" {
		os.Exit(actAsHost(dir))
	}
	leaks.Main(m)
}

func actAsHost(dir string) int {
	c, err := pgcluster.Start(context.Background(), pgcluster.Config{Dir: dir, Ephemeral: os.Getenv("EPHEMERAL") != "", Settings: quick()})
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	fmt.Println("pid", c.PID())
	select {}
}

// quick are settings for durable clusters in tests.
func quick() map[string]string { return map[string]string{"fsync": "off", "max_connections": "20"} }

// stateDir returns the path of a directory that does not exist, where the
// server's account can reach it (which t.TempDir of root is not).
func stateDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "tasker-pgc-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return filepath.Join(dir, "pg")
}

func start(t *testing.T, cfg pgcluster.Config) *pgcluster.Cluster {
	t.Helper()
	cfg.Log = hclog.New(&hclog.LoggerOptions{Output: t.Output(), Level: hclog.Debug})
	c, err := pgcluster.Start(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Stop(context.Background())) })
	return c
}

func query(t *testing.T, dsn, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	require.NoError(t, err)
	defer conn.Close(context.Background())
	results, err := conn.PgConn().Exec(t.Context(), sql).ReadAll()
	require.NoError(t, err)
	return string(results[len(results)-1].Rows[0][0])
}

func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func TestFirstAndSecondRun(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	c := start(t, pgcluster.Config{Dir: dir, Database: "mine", Settings: quick()})
	require.Equal(t, "20", query(t, c.DSN(), "show max_connections"))
	require.Equal(t, "UTF8", query(t, c.DSN(), "show server_encoding"))
	require.Equal(t, "", query(t, c.DSN(), "show listen_addresses"))
	require.Equal(t, "on", query(t, c.DSN(), "show data_checksums"))
	require.Equal(t, "1", query(t, c.DSN(), "create table kept as select 1; select 1::text"))
	pid := c.PID()
	require.NoError(t, c.Stop(t.Context()))
	require.True(t, gone(pid))
	require.NoError(t, c.Stop(t.Context()), "a second stop does nothing")

	c = start(t, pgcluster.Config{Dir: dir, Database: "mine", Settings: quick()})
	require.False(t, c.Adopted())
	require.Equal(t, "1", query(t, c.DSN(), "select count(*)::text from kept"))
	running, err := pgcluster.Running(dir, "mine")
	require.NoError(t, err)
	require.Equal(t, c.DSN(), running)
}

func TestDirectoryIsPrivate(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	c := start(t, pgcluster.Config{Dir: dir, Settings: quick()})
	for _, p := range []string{dir, filepath.Join(dir, "data"), filepath.Join(dir, "run")} {
		info, err := os.Stat(p)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o700), info.Mode().Perm(), p)
	}
	_, err := pgcluster.Start(t.Context(), pgcluster.Config{Dir: dir})
	require.ErrorIs(t, err, pgcluster.ErrLocked)
	require.ErrorContains(t, err, fmt.Sprint(os.Getpid()))
	require.Equal(t, "1", query(t, c.DSN(), "select 1::text"), "the refused start disturbs nothing")
}

func TestLongPathHasShortSocket(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(stateDir(t), strings.Repeat("d", 120))
	c := start(t, pgcluster.Config{Dir: dir, Ephemeral: true})
	require.Equal(t, "1", query(t, c.DSN(), "select 1::text"))
	require.NoError(t, c.Stop(t.Context()))
	require.NoDirExists(t, dir)
}

func TestForeignDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	require.NoError(t, os.Mkdir(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "thesis.tex"), nil, 0o644))
	_, err := pgcluster.Start(t.Context(), pgcluster.Config{Dir: dir})
	require.ErrorContains(t, err, "holds other files")
}

func TestServerThatCannotStartSaysWhy(t *testing.T) {
	t.Parallel()
	_, err := pgcluster.Start(t.Context(), pgcluster.Config{Dir: stateDir(t), Settings: map[string]string{"shared_buffers": "much"}})
	require.ErrorContains(t, err, `invalid value for parameter "shared_buffers"`)
	_, err = pgcluster.Start(t.Context(), pgcluster.Config{Dir: stateDir(t), BinDir: "/nonexistent"})
	require.ErrorContains(t, err, "configured directory")
}

func TestDataOfAnotherVersion(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	c := start(t, pgcluster.Config{Dir: dir, Settings: quick()})
	require.NoError(t, c.Stop(t.Context()))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "data", "PG_VERSION"), []byte("9\n"), 0o600))
	_, err := pgcluster.Start(t.Context(), pgcluster.Config{Dir: dir})
	version, ok := errors.AsType[*pgcluster.VersionError](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, 9, version.Data)
	require.ErrorContains(t, err, "install postgresql-9")
}

func TestCrashAndRestart(t *testing.T) {
	t.Parallel()
	c := start(t, pgcluster.Config{Dir: stateDir(t), Ephemeral: true})
	query(t, c.DSN(), "create table kept as select 1; select 1::text")
	exited := c.Exited()
	require.NoError(t, c.StopImmediate(t.Context()))
	<-exited
	_, err := pgx.Connect(t.Context(), c.DSN())
	require.Error(t, err)
	require.NoError(t, c.Restart(t.Context()))
	require.Equal(t, "1", query(t, c.DSN(), "select count(*)::text from kept"))

	exited = c.Exited()
	require.NoError(t, syscall.Kill(c.PID(), syscall.SIGKILL))
	<-exited
	require.NoError(t, c.Restart(t.Context()), "after the postmaster was killed")
	require.Equal(t, "1", query(t, c.DSN(), "select count(*)::text from kept"))
}

// runHost starts a process that manages a cluster, and kills it.
func runHost(t *testing.T, dir string, env ...string) (serverPID int) {
	t.Helper()
	host := exec.Command(os.Args[0])
	host.Env = append(append(os.Environ(), hostDir+"="+dir), env...)
	out, err := host.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, host.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	_, err = fmt.Sscanf(line, "pid %d", &serverPID)
	require.NoError(t, err, line)
	require.NoError(t, host.Process.Kill())
	require.Error(t, host.Wait())
	return serverPID
}

func TestServerOfKilledHostIsTakenOver(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	pid := runHost(t, dir)
	require.False(t, gone(pid))
	c := start(t, pgcluster.Config{Dir: dir, Settings: quick()})
	require.True(t, c.Adopted())
	require.Equal(t, pid, c.PID())
	require.Equal(t, "1", query(t, c.DSN(), "select 1::text"))
	require.NoError(t, c.Stop(t.Context()))
	require.True(t, gone(pid))
}

func TestServerWithOtherSettingsIsRestarted(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	pid := runHost(t, dir)
	c := start(t, pgcluster.Config{Dir: dir, Settings: map[string]string{"fsync": "off", "max_connections": "30"}})
	require.False(t, c.Adopted())
	require.True(t, gone(pid))
	require.Equal(t, "30", query(t, c.DSN(), "show max_connections"))
}

func TestStalePIDFile(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	pid := runHost(t, dir)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	require.Eventually(t, func() bool { return gone(pid) }, time.Minute, 5*time.Millisecond)
	// As after a reboot: the number in the file is that of an unrelated process.
	path := filepath.Join(dir, "data", "postmaster.pid")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(text), "\n")
	require.NoError(t, os.WriteFile(path, []byte(fmt.Sprintf("%d\n%s", os.Getpid(), rest)), 0o600))
	c := start(t, pgcluster.Config{Dir: dir, Settings: quick()})
	require.False(t, c.Adopted())
	require.Equal(t, "1", query(t, c.DSN(), "select 1::text"))
}

func TestEphemeralServerDiesWithItsHost(t *testing.T) {
	t.Parallel()
	pid := runHost(t, stateDir(t), "EPHEMERAL=1")
	require.Eventually(t, func() bool { return gone(pid) }, time.Minute, 5*time.Millisecond)
}

func TestReleasedServerLivesOn(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	first := start(t, pgcluster.Config{Dir: dir, Detached: true, Settings: quick()})
	pid := first.PID()
	require.NoError(t, first.Release())
	require.NoError(t, first.Stop(t.Context()), "no longer ours to stop")
	second := start(t, pgcluster.Config{Dir: dir, Settings: quick()})
	require.True(t, second.Adopted())
	require.Equal(t, pid, second.PID())
}

func TestCancelledStart(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("changed my mind")
	cancel(cause)
	_, err := pgcluster.Start(ctx, pgcluster.Config{Dir: dir})
	require.Error(t, err)
	c := start(t, pgcluster.Config{Dir: dir, Settings: quick()})
	require.Equal(t, "1", query(t, c.DSN(), "select 1::text"))
}
