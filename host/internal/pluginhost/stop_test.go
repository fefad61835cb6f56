package pluginhost

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/journal"
)

// silent makes an executable that never performs the handshake, and returns
// where it writes its process id.
func silent(t testing.TB, unless string) (path, pid string) {
	t.Helper()
	pid = filepath.Join(t.TempDir(), "pid")
	return shell(t, unless+"echo $$ > "+pid+".new && mv "+pid+".new "+pid+"\nexec sleep 1000"), pid
}

// launching waits for a launch whose process has been executed, and returns its
// process id.
func (b *bench) launching(t testing.TB, pidFile string) (pid int) {
	t.Helper()
	eventually(t, "a launch is in progress", func() bool {
		all := b.explain(t).Generations
		raw, err := os.ReadFile(pidFile)
		pid, _ = strconv.Atoi(strings.TrimSpace(string(raw)))
		return err == nil && pid != 0 && all[len(all)-1].Phase == journal.Starting
	})
	return pid
}

// A stop during a launch ends the process even if it cannot be called yet:
// nothing is called that does not exist, and nothing is left when the stop
// returns.
func TestStopMeetsALaunch(t *testing.T) {
	t.Parallel()
	whole := func(t *testing.T, b *bench, a *account, pid int) {
		require.True(t, dead(pid), "process %d is still running", pid)
		require.Equal(t, Stopped, b.Status()[0].State)
		for _, g := range b.explain(t).Generations {
			require.True(t, g.Phase.Over(), "%+v", g)
		}
		phases := map[uint64]Phase{}
		for _, e := range a.all() {
			require.True(t, e.Generation == 0 || journal.Can(e.From, e.To), "%+v", e)
			phases[e.Generation] = e.To
		}
		for g, p := range phases {
			require.True(t, p.Over(), "the account leaves generation %d %s", g, p)
		}
		left, err := os.ReadDir(b.cfg.RunDir)
		require.NoError(t, err)
		require.Empty(t, left)
		require.NotContains(t, b.log.String(), "illegal change")
	}
	with := func(t *testing.T, a *account) func(*Config) {
		dir, err := os.MkdirTemp("/tmp", "ph") // short, for the sockets
		require.NoError(t, err)
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		return func(c *Config) { c.Journal, c.RunDir = a, dir }
	}

	t.Run("of a swap", func(t *testing.T) {
		t.Parallel()
		a := &account{}
		b := started(t, with(t, a), spec("chaos", script(t, "sdk")))
		path, file := silent(t, "")
		swapped := make(chan error, 1)
		go func() { swapped <- b.Swap(t.Context(), chaosSlot, Source{Path: path}, ann, "test") }()
		pid := b.launching(t, file)
		require.NoError(t, b.Stop(t.Context()))
		whole(t, b, a, pid)
		require.ErrorIs(t, <-swapped, ErrStopping)
	})
	t.Run("of an added plugin", func(t *testing.T) {
		t.Parallel()
		a := &account{}
		b := started(t, with(t, a), spec("raw", script(t, "raw")))
		path, file := silent(t, "")
		applied := make(chan error, 1)
		go func() {
			_, err := b.Apply(t.Context(), []Spec{spec("raw", script(t, "raw")), spec("chaos", path)}, ann, "test")
			applied <- err
		}()
		eventually(t, "it is added", func() bool { return len(b.Status()) == 2 })
		pid := b.launching(t, file)
		require.NoError(t, b.Stop(t.Context()))
		require.ErrorIs(t, <-applied, ErrStopping)
		require.True(t, dead(pid))
	})
	t.Run("of a process that replaces a hanging one", func(t *testing.T) {
		t.Parallel()
		a := &account{}
		ran := filepath.Join(t.TempDir(), "ran")
		path, file := silent(t, "test -e "+ran+" || { touch "+ran+"; "+plugin(t, "sdk")+"; }\n")
		b := started(t, with(t, a), spec("chaos", path))
		signal(b.serving(chaosSlot).work.hanging) // as when its calls hang
		pid := b.launching(t, file)
		require.NoError(t, b.Stop(t.Context()))
		whole(t, b, a, pid)
	})
}
