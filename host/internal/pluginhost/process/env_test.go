package process

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Variables passed by name do not replace those that the host sets, and none appears
// twice.
func TestEnvironment(t *testing.T) {
	for _, name := range []string{"PLUGIN_KEY", "TMPDIR", "GOMEMLIMIT", "GOMAXPROCS", "PASSED"} {
		t.Setenv(name, "of the host")
	}
	t.Setenv("PATH", "/bin")
	t.Setenv("LANG", "")
	got := environment(
		Config{MemoryLimit: 1 << 20, PassEnv: []string{"PLUGIN_KEY", "TMPDIR", "GOMEMLIMIT", "GOMAXPROCS", "PATH", "PASSED", "PASSED", "ABSENT"}},
		[]string{"PLUGIN_KEY=of the handshake"}, "/run/x")
	require.Equal(t, []string{
		"PLUGIN_KEY=of the handshake", "PATH=/bin", "LANG=C.UTF-8", "TMPDIR=/run/x", "GOMEMLIMIT=1048576",
		"GOMAXPROCS=of the host", "PASSED=of the host",
	}, got)
}
