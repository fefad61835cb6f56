package e2e_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	"github.com/tasker-systems/tasker-host/plugins/test/ledger/book"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// hostStates are the states of the hosts in the database, the oldest first.
func hostStates(t *testing.T, db *pgxpool.Pool) string {
	t.Helper()
	return strings.Join(column[string](t, db, "select state from tasker_hosts order by host_id"), " ")
}

func sleepers(t *testing.T, more ...string) (*host, *pgxpool.Pool) {
	t.Helper()
	dsn := pgtest.DSN(t)
	s := newSite(t, dsn, more...)
	s.plugins(t, pluginTable("chaos", filepath.Join(built, "chaos"), ""))
	h := s.up(t)
	applyTemplate(t, h, oneStep("sleep", "chaos.sleep", ""))
	return h, pgtest.Pool(t, dsn)
}

// TestShutdownByCommand: what runs finishes within the grace, and the host says
// to everybody what it does.
func TestShutdownByCommand(t *testing.T) {
	t.Parallel()
	dsn := pgtest.DSN(t)
	s := newSite(t, dsn, "TASKER__ORCHESTRATION__SUPERVISOR_TIMEOUT=20m")
	pages := filepath.Join(s.dir, "book")
	s.plugins(t, pluginTable("ledger", filepath.Join(built, "ledger"), fmt.Sprintf("options = { dir = %q }", pages)))
	h, db := s.up(t), pgtest.Pool(t, dsn)
	applyTemplate(t, h, oneStep("write", "ledger.step", ""))
	eventually(t, patience, "the others see that it works", func() bool { return hostStates(t, db) == "normal" })
	open, err := book.Shut(pages) // it runs while all is asked, however long that takes
	require.NoError(t, err)
	id := submit(t, h, "e2e", "write", `{}`)
	awaitStep(t, h, id, vocab.StepInProgress)
	r := h.site.tasker(t, "shutdown", "--grace", "10m", "--reason", "kernel update")
	require.Zero(t, r.code, r.err)
	require.Contains(t, r.out, "graceful_shutdown")
	require.Contains(t, r.out, "kernel update")
	eventually(t, patience, "the others see that it drains", func() bool { return hostStates(t, db) == "graceful_shutdown" })
	r = h.site.tasker(t, "state", "show", "--json")
	require.Zero(t, r.code, r.err)
	require.Contains(t, r.out, `"drain_until"`)
	r = h.site.tasker(t, "task", "submit", "e2e/write")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "shutting down")
	require.NoError(t, open())
	require.Zero(t, h.await(t), "drained")
	require.Equal(t, "stopped", hostStates(t, db))
	require.Equal(t, []string{"complete"}, column[string](t, db, "select state::text from tasker_tasks"))
	require.Equal(t, []string{"POST /v1/system/state done"}, column[string](t, db, "select action || ' ' || outcome from tasker_audit where action like '%state'"))
	require.Equal(t, 5, h.site.tasker(t, "state", "show").code, "no host answers")
	requireClean(t, h.log.String())
}

// TestShutdownForced: the grace ends before the step does, which runs anew on
// another host at once, long before any lease ends.
func TestShutdownForced(t *testing.T) {
	t.Parallel()
	// Handlers that listen end at once, whatever time others would have had.
	h, db := sleepers(t, "TASKER__ORCHESTRATION__LEASE=20m", "TASKER__ORCHESTRATION__HEARTBEAT=5m", "TASKER__ORCHESTRATION__EMERGENCY_TIMEOUT=10m", "TASKER__ORCHESTRATION__SUPERVISOR_TIMEOUT=20m")
	id := submit(t, h, "e2e", "sleep", `{"MS": 600000}`)
	awaitStep(t, h, id, vocab.StepInProgress)
	require.Zero(t, h.site.tasker(t, "shutdown", "--grace", "10m").code)
	r := h.site.tasker(t, "shutdown", "--grace", "100ms")
	require.Zero(t, r.code, r.err)
	require.Equal(t, 9, h.await(t), "forced")
	require.Equal(t, "stopped", hostStates(t, db))
	require.Equal(t, []string{"enqueued 0"}, column[string](t, db, "select state || ' ' || attempts from tasker_workflow_steps"))

	other := newSite(t, databaseOf(t, h.site))
	other.plugins(t, pluginTable("chaos", filepath.Join(built, "chaos"), ""))
	o := other.up(t)
	awaitStep(t, o, id, vocab.StepInProgress)
	require.Contains(t, other.tasker(t, "host", "list").out, "stopped")
	r = other.tasker(t, "shutdown", "--now", "--grace", "1s")
	require.Equal(t, 2, r.code)
	require.Zero(t, other.tasker(t, "shutdown", "--now").code)
	require.Equal(t, 9, o.await(t))
	requireClean(t, h.log.String()+o.log.String())
}

// TestStateThatCannotBeSet: what an operator may not do, and why.
func TestStateThatCannotBeSet(t *testing.T) {
	t.Parallel()
	h, _ := sleepers(t)
	for _, state := range []string{"normal", "startup", "stopped", "asleep"} {
		r := h.site.tasker(t, "state", "set", state)
		require.Equal(t, 1, r.code, state)
		require.Contains(t, r.err, "graceful_shutdown")
	}
	require.Contains(t, h.site.tasker(t, "state", "show").out, "normal")
	require.Zero(t, h.site.tasker(t, "state", "set", "emergency", "--reason", "smoke").code)
	require.Zero(t, h.await(t), "nothing ran")
	requireClean(t, h.log.String())
}

// TestSignalsWhileStarting: SIGTERM at any moment of the start, once or twice,
// ends the host in good order and leaves nothing behind.
func TestSignalsWhileStarting(t *testing.T) {
	t.Parallel()
	dsn := pgtest.DSN(t)
	for i, after := range []time.Duration{0, 30, 80, 150, 300, 600, 1200} {
		s := newSite(t, dsn)
		s.plugins(t, pluginTable("chaos", filepath.Join(built, "chaos"), ""))
		h := s.start(t)
		moment := time.NewTimer(after * time.Millisecond)
		<-moment.C
		h.signal(t, syscall.SIGTERM)
		if i%2 == 1 {
			_ = h.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		}
		code := h.await(t)
		// Before its first instruction a process dies of the signal.
		require.True(t, code == 0 || code == -1 || code == 130, "after %s: %d\n%s", after*time.Millisecond, code, tail(h.log.String(), 2000))
		require.Empty(t, processesOf(t, s.dir))
		requireClean(t, h.log.String())
	}
	db := pgtest.Pool(t, dsn)
	require.NotContains(t, hostStates(t, db), "normal")
	require.NotContains(t, hostStates(t, db), "startup")
}

// TestSignalDuringASwap: the host stops, and no process of either generation is
// left.
func TestSignalDuringASwap(t *testing.T) {
	t.Parallel()
	s := newSite(t, pgtest.DSN(t))
	s.plugins(t, pluginTable("arithmetic", filepath.Join(built, "arithmetic"), ""))
	h := s.up(t)
	s.plugins(t, pluginTable("arithmetic", filepath.Join(built, "next", "arithmetic"), ""))
	eventually(t, patience, "the swap begins", func() bool { return len(processesOf(t, s.dir)) > 1 || strings.Contains(h.log.String(), "1.1.0") })
	h.signal(t, syscall.SIGTERM)
	require.Zero(t, h.await(t), tail(h.log.String(), 4000))
	require.Empty(t, processesOf(t, s.dir))
	requireClean(t, h.log.String())
}

// TestServiceManager: what systemd is told by a real process.
func TestServiceManager(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "sd") // a socket's path is short
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "n"), Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	await := func(prefix string) {
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
		for {
			buf := make([]byte, 4096)
			n, err := conn.Read(buf)
			require.NoError(t, err, "waiting for %s", prefix)
			if strings.HasPrefix(string(buf[:n]), prefix) {
				return
			}
		}
	}
	h, _ := sleepers(t, "NOTIFY_SOCKET="+filepath.Join(dir, "n"), "WATCHDOG_USEC=600000")
	await("READY=1")
	await("WATCHDOG=1")
	h.signal(t, syscall.SIGHUP)
	await("RELOADING=1\nMONOTONIC_USEC=")
	await("READY=1")
	h.signal(t, syscall.SIGTERM)
	await("STOPPING=1\nEXTEND_TIMEOUT_USEC=")
	require.Zero(t, h.await(t))
	requireClean(t, h.log.String())
}
