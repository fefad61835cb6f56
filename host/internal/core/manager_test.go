package core

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/systemd"
)

// TestTheServiceManagerIsToldOfALongerDrain: otherwise it kills the host at the end of the
// time that the drain had first.
func TestTheServiceManagerIsToldOfALongerDrain(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "sd") // a socket's path is short
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	socket := filepath.Join(dir, "n")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	cfg, err := config.Load(config.Options{Environ: []string{"HOME=/home/you"}})
	require.NoError(t, err)
	c := New(Options{Config: cfg, Log: hclog.NewNullLogger()})
	c.manager.manager, err = systemd.FromEnvironment(func(name string) string { return map[string]string{"NOTIFY_SOCKET": socket}[name] })
	require.NoError(t, err)
	told := func() time.Duration {
		buf := make([]byte, 4096)
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
		n, err := conn.Read(buf)
		require.NoError(t, err)
		_, limit, ok := strings.Cut(string(buf[:n]), "EXTEND_TIMEOUT_USEC=")
		require.True(t, ok, string(buf[:n]))
		var usec int64
		_, err = fmt.Sscanf(limit, "%d\n", &usec)
		require.NoError(t, err)
		return time.Duration(usec) * time.Microsecond
	}

	c.halt.ask(nil)
	c.manager.stopping()
	rest := cfg.Orchestration.EmergencyTimeout + 2*stopSlack
	first := told()
	require.LessOrEqual(t, first, cfg.Orchestration.DrainTimeout+rest)
	drain, end := c.drainTime(t.Context())
	defer end()
	c.halt.ask(new(time.Hour))
	longer := told()
	require.Greater(t, longer, 50*time.Minute)
	require.LessOrEqual(t, longer, time.Hour+rest)
	c.halt.ask(new(time.Duration(0)))
	require.LessOrEqual(t, told(), rest)
	<-drain.Done()
}
