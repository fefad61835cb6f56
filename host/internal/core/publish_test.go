package core

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/journal"
)

// BenchmarkPublish measures the time from renaming a new binary into place until it
// serves: notice, checks, intake, start, probes, the rows in the database and the switch.
// The plugin's own start is included: see BenchmarkSwap of package pluginhost.
func BenchmarkPublish(b *testing.B) {
	dir := b.TempDir()
	paths := ledgers(b)
	var binaries [2][]byte
	for i, path := range paths {
		var err error
		binaries[i], err = os.ReadFile(path)
		require.NoError(b, err)
	}
	options, err := json.Marshal(filepath.Join(dir, "book"))
	require.NoError(b, err)
	plugin := filepath.Join(dir, "ledger")
	put := func(binary []byte) {
		require.NoError(b, os.WriteFile(plugin+".new", binary, 0o700))
	}
	put(binaries[0])
	require.NoError(b, os.Rename(plugin+".new", plugin))
	toml := filepath.Join(dir, "plugins.toml")
	require.NoError(b, os.WriteFile(toml, fmt.Appendf(nil, "[plugin.handler.ledger]\npath = \"ledger\"\noptions = { dir = %s }\nrollback_window = \"0s\"\n", options), 0o600))
	host := startWith(b, nil, fmt.Sprintf("[system]\nplugins = %q\n", toml))
	require.NoError(b, host.selectPlugins())
	_, err = host.plugins.Apply(b.Context(), pluginSpecs(host.opts.Plugins), journal.ByConfig, "bench")
	require.NoError(b, err)
	require.NoError(b, host.startWatch(b.Context()))
	status := func() (generation uint64) { return host.plugins.Status()[0].Generation }
	require.NotZero(b, status())
	b.ResetTimer()
	for n := range b.N {
		b.StopTimer()
		put(binaries[(n+1)%2])
		before := status()
		b.StartTimer()
		require.NoError(b, os.Rename(plugin+".new", plugin))
		for deadline := time.Now().Add(time.Minute); status() == before; <-time.After(time.Millisecond) {
			require.True(b, time.Now().Before(deadline), "%s", host.log)
		}
	}
}
