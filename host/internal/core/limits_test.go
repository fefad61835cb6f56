package core

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// The doctor says how the limits of plugins are enforced on this machine, if any plugin
// has one.
func TestDoctorTellsOfLimits(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "plugins.toml")
	write := func(more string) {
		require.NoError(t, os.WriteFile(path, []byte("[plugin.handler.a]\npath = \"a\"\n"+more), 0o600))
	}
	cfg := &config.Config{Environment: "test"}
	cfg.System.Plugins = path
	write("")
	_, asked := limitsCheck(cfg)
	require.False(t, asked)

	write("max_memory = \"256MiB\"\nmax_cpus = 0.5\n")
	c, asked := limitsCheck(cfg)
	require.True(t, asked)
	if c.Status == readmodel.DoctorOK {
		require.Equal(t, "handler/a: cgroup v2: memory 256 MiB, 0.5 CPUs", c.Message)
		return
	}
	require.Equal(t, readmodel.DoctorWarn, c.Status)
	require.Contains(t, c.Message, "handler/a: ")
	require.Regexp(t, "rlimits only|not enforced", c.Message)
	require.Contains(t, c.Fix, "Delegate=yes")
}
