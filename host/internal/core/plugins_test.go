package core

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/pluginwatch"
)

// A change of a plugin's binary and settings that was rolled back is not undone by a
// change of another plugin, nor by half.
func TestRollbackIsNotUndoneByOtherChanges(t *testing.T) {
	t.Parallel()
	specs := unrulyReporters(t, "/nowhere", "fine", "crash")
	specs[0].MaxInFlight, specs[0].RollbackWindow = 7, time.Hour
	b := startWith(t, specs, "")
	id := pluginhost.SlotID{Kind: "health", Name: "fine"}
	first, err := b.plugins.Explain(id)
	require.NoError(t, err)
	script, err := os.ReadFile(specs[0].Path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(specs[0].Path, append(script, "# another\n"...), 0o700))
	specs[0].MaxInFlight = 9
	apply := func(changed ...bool) (actions []string) {
		wanted := make([]pluginwatch.Wanted, len(specs))
		for i := range specs {
			wanted[i] = pluginwatch.Wanted{PluginSpec: specs[i], Changed: changed[i]}
		}
		changes, err := pluginEngine{b.Core}.Apply(t.Context(), wanted, pluginwatch.ByFiles, "the files have changed")
		require.NoError(t, err)
		for _, c := range changes {
			actions = append(actions, c.Action)
		}
		return actions
	}
	require.Equal(t, []string{"swap", "keep"}, apply(true, false))
	require.NoError(t, b.plugins.Rollback(t.Context(), id, operator("ann"), "test"))
	specs[1].DrainTimeout = time.Second
	require.Equal(t, []string{"keep", "retune"}, apply(false, true))
	now, err := b.plugins.Explain(id)
	require.NoError(t, err)
	require.Equal(t, first.SHA256, now.SHA256)
	require.Equal(t, first.PID, now.PID)
	require.Equal(t, 7, now.Window)
	require.Equal(t, []string{"refuse", "keep"}, apply(true, true), "asked for, and in quarantine")
}
