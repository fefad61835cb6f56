package coordinator_test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/coordinator"
	"github.com/tasker-systems/tasker-host/scaling"
)

// A pool grows by as many executors as both memory and connections allow.
func TestMemoryBoundsAPool(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		connections int // per executor
		facts       coordinator.Facts
		to          int
	}{
		"memory":                {0, coordinator.Facts{Connections: 10, MemoryFree: 500}, 8},
		"memory, connections":   {1, coordinator.Facts{Connections: 100, MemoryFree: 500}, 8},
		"connections, memory":   {1, coordinator.Facts{Connections: 9, MemoryFree: 5000}, 7},
		"no connection is left": {1, coordinator.Facts{Connections: 5, MemoryFree: 5000}, 4},
		"memory is not known":   {0, coordinator.Facts{Connections: 10}, 20},
		"there is no more left": {0, coordinator.Facts{Connections: 10, MemoryFree: 50}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := setup(says(20), func(b *bundle) {
					b.world.pool.Memory, b.world.pool.Connections, b.world.facts = 100, c.connections, c.facts
				})
				d := b.tick(t)
				require.Equal(t, c.to, d.To)
				if c.to < 20 {
					require.Equal(t, scaling.RuleBudget, d.Clamps[len(d.Clamps)-1].Rule)
				}
			})
		})
	}
}
