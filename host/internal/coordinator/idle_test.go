package coordinator_test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/coordinator"
)

// A pool that is larger than its minimum and never had anything to do shrinks to the minimum, though
// nothing tells how long work takes.
func TestAnIdlePoolShrinksToItsMinimum(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []string{"rate", "latency", "cost", "predictive"} {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := setup(nil)
				least := 12
				_, _, err := b.Set(t.Context(), name, coordinator.Change{Algorithm: &algorithm, Min: &least})
				require.NoError(t, err)
				require.Equal(t, 12, b.tick(t).To, "prewarmed")
				least = 2
				_, _, err = b.Set(t.Context(), name, coordinator.Change{Min: &least})
				require.NoError(t, err)
				for range 180 {
					b.tick(t)
				}
				require.Equal(t, 2, b.executors.size)
			})
		})
	}
}
