package process

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The next host removes what a killed host has left: its directory, and what
// its plugins left running. It leaves live hosts alone.
func TestLeftoversAreSwept(t *testing.T) {
	t.Parallel()
	parent, err := os.MkdirTemp("", "sweep") // a short path
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(parent)) })
	living, err := NewRunDir(parent)
	require.NoError(t, err)
	dead := filepath.Join(parent, runDirPrefix+"dead")
	require.NoError(t, os.Mkdir(dead, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dead, lockName), nil, 0o600))
	past := time.Now().Add(-time.Hour)
	for _, dir := range []string{dead, living.Path()} {
		require.NoError(t, os.Chtimes(dir, past, past))
	}
	sleeper := func(tmpdir string) <-chan error {
		cmd := exec.Command("sleep", "1000")
		cmd.Env = []string{"PATH=" + defaultPath, "TMPDIR=" + tmpdir}
		require.NoError(t, cmd.Start())
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		return ended
	}
	orphan, plugin, other := sleeper(dead+"/plugin-dir1"), sleeper(living.Path()+"/plugin-dir2"), sleeper(dead+"ly/x")

	next, err := NewRunDir(parent)
	require.NoError(t, err)
	select {
	case err := <-orphan:
		require.ErrorContains(t, err, "killed")
	case <-time.After(2 * time.Minute):
		require.Fail(t, "the orphan lives")
	}
	require.NoDirExists(t, dead)
	require.DirExists(t, living.Path())
	require.Empty(t, plugin)
	require.Empty(t, other)
	require.NoError(t, living.Remove())
	require.NoError(t, next.Remove())
}
