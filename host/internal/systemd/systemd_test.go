package systemd_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/systemd"
	"github.com/tasker-systems/tasker-host/internal/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// listen is a service manager: its socket, and what it receives.
func listen(t *testing.T) (string, func() string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd") // the path of a socket must be short
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	path := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	require.NoError(t, err)
	said := make(chan string, 10_000) // the socket itself buffers ten, and blocks the sender of more
	go func() {
		defer close(said)
		for buf := make([]byte, 4096); ; {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			said <- string(buf[:n])
		}
	}()
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return path, func() string {
		select {
		case text := <-said:
			return text
		case <-time.After(time.Minute):
			require.Fail(t, "nothing is sent")
			return ""
		}
	}
}

func manager(t *testing.T, env map[string]string) *systemd.Manager {
	t.Helper()
	m, err := systemd.FromEnvironment(func(k string) string { return env[k] })
	require.NoError(t, err)
	return m
}

func TestMessages(t *testing.T) {
	t.Parallel()
	socket, read := listen(t)
	m := manager(t, map[string]string{"NOTIFY_SOCKET": socket})
	require.NoError(t, m.Ready("two\nlines"))
	require.Equal(t, "READY=1\nSTATUS=two lines", read())
	require.NoError(t, m.Reloading())
	require.Regexp(t, `^RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]+$`, read())
	require.NoError(t, m.Stopping("drains", 31*time.Second))
	require.Equal(t, "STOPPING=1\nEXTEND_TIMEOUT_USEC=31000000\nSTATUS=drains", read())
	m.Watch(t.Context(), nil, nil) // no watchdog is configured: returns
}

// The watchdog is fed depending on alive, not just by a timer.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	socket, read := listen(t)
	m := manager(t, map[string]string{"NOTIFY_SOCKET": socket, "WATCHDOG_USEC": "30000", "WATCHDOG_PID": strconv.Itoa(os.Getpid())})
	ctx, cancel := context.WithCancel(t.Context())
	var hangs atomic.Bool
	var asked atomic.Int64
	problems := make(chan error, 10)
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.Watch(ctx, func() error {
			asked.Add(1)
			if hangs.Load() {
				return errors.New("the claim loop hangs")
			}
			return nil
		}, func(err error) { problems <- err })
	}()
	for range 3 {
		require.Equal(t, "WATCHDOG=1", read())
	}
	hangs.Store(true)
	require.EqualError(t, <-problems, "the claim loop hangs")
	before := asked.Load()
	require.Eventually(t, func() bool { return asked.Load() > before+5 }, time.Minute, time.Millisecond)
	require.NoError(t, m.Ready("mark"))
	for said := read(); said != "READY=1\nSTATUS=mark"; said = read() {
		require.Equal(t, "WATCHDOG=1", said, "what was sent before it hung")
	}
	require.Empty(t, problems, "told once")
	hangs.Store(false)
	require.Equal(t, "WATCHDOG=1", read())
	cancel()
	<-done
}

func TestNoManager(t *testing.T) {
	t.Parallel()
	m := manager(t, nil)
	require.Nil(t, m)
	require.NoError(t, m.Ready("x"))
	require.NoError(t, m.Reloading())
	require.NoError(t, m.Stopping("x", time.Second))
	m.Watch(t.Context(), nil, nil)
}

func TestBadEnvironment(t *testing.T) {
	t.Parallel()
	for _, env := range []map[string]string{
		{"NOTIFY_SOCKET": "relative"},
		{"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "soon"},
		{"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "-1"},
		{"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "99999999999999"},
	} {
		_, err := systemd.FromEnvironment(func(k string) string { return env[k] })
		require.Error(t, err, env)
	}
	m := manager(t, map[string]string{"NOTIFY_SOCKET": filepath.Join(t.TempDir(), "nobody")})
	require.ErrorContains(t, m.Ready("x"), "notify the service manager")
	other := manager(t, map[string]string{"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "30000", "WATCHDOG_PID": "1"})
	other.Watch(t.Context(), nil, nil) // meant for another process: returns
}
