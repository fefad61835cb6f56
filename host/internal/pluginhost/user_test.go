package pluginhost

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// A plugin of another user has only that user's rights: it cannot read root's
// files, nor enter the store or another plugin's directory. Everything else is
// unchanged. A host that may not become the user refuses the plugin.
func TestAnotherUser(t *testing.T) {
	t.Parallel()
	one, two := spec("chaos", script(t, "sdk")), spec("raw", script(t, "raw"))
	one.User = "nobody"
	if !mayBecomeOthers(t) {
		err := newBench(t, nil, one).Start(t.Context())
		require.ErrorContains(t, err, "the host may not run it as nobody: it lacks CAP_")
		require.ErrorContains(t, err, "start the host as root")
		return
	}
	b := started(t, func(c *Config) { c.RunDir = open(t) }, one, two)
	first := b.Status()[0]
	require.Regexp(t, `^user nobody( \(not enforced: open files\))?$`, first.Limits)
	require.Regexp(t, `^runs as nobody \(user \d+, group \d+, no other groups\)`, b.explain(t).Generations[0].Limits)

	about := result[string](t, b.run(t, "chaos.proc", `"status"`))
	require.NotContains(t, about, "Uid:\t0")
	require.Regexp(t, `(?m)^Groups:\s*$`, about)
	if !strings.Contains(first.Limits, "open files") {
		require.Regexp(t, `Max open files +512 +512 `, result[string](t, b.run(t, "chaos.proc", `"limits"`)))
	}
	require.Equal(t, "/dev/null", result[map[string]string](t, b.run(t, "chaos.fds", ""))["0"])
	reach := func(path string) string {
		return result[string](t, b.run(t, "chaos.reach", fmt.Sprintf("%q", path)))
	}
	secret := filepath.Join(b.cfg.RunDir, "secret")
	require.NoError(t, os.WriteFile(secret, nil, 0o600))
	require.Contains(t, reach(secret), "permission denied")
	require.Contains(t, reach(b.cfg.StoreDir), "permission denied")
	for _, s := range b.Status() {
		dir := box(t, s.PID)
		sockets, err := filepath.Glob(filepath.Join(dir, "plugin*"))
		require.NoError(t, err)
		require.Len(t, sockets, 1, dir)
		info, err := os.Stat(dir)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
		if s.Name == one.Name {
			require.Equal(t, "reached", reach(sockets[0]))
			require.Equal(t, "reached", reach("/proc/self/fd/2"), "its outputs can be opened again")
		} else {
			require.Contains(t, reach(sockets[0]), "permission denied")
		}
	}

	child := result[int](t, b.run(t, "chaos.child", ""))
	require.Equal(t, ReasonCrashed, b.run(t, "chaos.crash", "").Failure.Code)
	s := b.serves(t, first.Generation)
	eventually(t, "the grandchild is gone", func() bool { return dead(child) })
	require.Equal(t, vocab.OutcomeSuccess, b.run(t, "chaos.echo", "1").Kind)
	dir := box(t, s.PID)
	require.NoError(t, b.Stop(t.Context()))
	require.True(t, dead(s.PID))
	require.NoDirExists(t, dir)
}

// A change of the user is a change of a setting: the plugin is restarted; a user
// that does not exist changes nothing.
func TestAnotherUserIsAnotherSetting(t *testing.T) {
	t.Parallel()
	before := spec("chaos", script(t, "sdk"))
	b := started(t, func(c *Config) { c.RunDir = open(t) }, before)
	first := b.Status()[0]
	after := before
	after.User = "nobody"
	changes, err := b.Plan([]Spec{after})
	require.NoError(t, err)
	require.Equal(t, Reconfigure, changes[0].Action)
	require.Equal(t, "other settings: user", changes[0].Reason)

	after.User = "no-such-user"
	_, err = b.Apply(t.Context(), []Spec{after}, ann, "test")
	require.ErrorContains(t, err, `there is no user "no-such-user" on this machine`)
	require.Equal(t, first.PID, b.Status()[0].PID)

	closed := filepath.Join(b.cfg.RunDir, "closed")
	require.NoError(t, os.Mkdir(closed, 0o700))
	after.User = "nobody"
	c := newBench(t, func(c *Config) { c.RunDir = closed }, after)
	err = c.Start(t.Context())
	if mayBecomeOthers(t) {
		require.ErrorContains(t, err, "run it as nobody: it has no access to "+closed)
	} else {
		require.ErrorContains(t, err, "the host may not run it as nobody")
	}
}

// open makes a directory that all users may enter.
func open(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ph") // t.TempDir is closed to others
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o711))
	return dir
}

// box returns the private directory of a process.
func box(t *testing.T, pid int) string {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	require.NoError(t, err)
	for pair := range strings.SplitSeq(string(raw), "\x00") {
		if dir, ok := strings.CutPrefix(pair, "PLUGIN_UNIX_SOCKET_DIR="); ok {
			return dir
		}
	}
	require.FailNow(t, "the process has no directory")
	return ""
}

// mayBecomeOthers reports whether these tests may start processes of other users:
// root may, unless it lacks the capabilities.
func mayBecomeOthers(t *testing.T) bool {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	var held uint64
	_, after, _ := strings.Cut(string(raw), "CapEff:")
	_, err = fmt.Sscanf(after, "%x", &held)
	require.NoError(t, err)
	const needed = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_KILL
	return held&needed == needed
}
