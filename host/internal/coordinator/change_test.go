package coordinator_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/coordinator"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// What operators change while an algorithm is being asked counts, not what it was asked
// about.
func TestWhatChangesWhileAnAlgorithmIsAsked(t *testing.T) {
	t.Parallel()
	set := func(change coordinator.Change) func(*testing.T, *bundle) {
		return func(t *testing.T, b *bundle) {
			_, _, err := b.Set(t.Context(), name, change)
			require.NoError(t, err)
		}
	}
	pause := func(t *testing.T, b *bundle) {
		_, err := b.Pause(name, true, "ops", "")
		require.NoError(t, err)
	}
	for what, c := range map[string]struct {
		change func(*testing.T, *bundle)
		to     int   // is decided
		sizes  []int // as they were set, the first when the pool was added
	}{
		"less is allowed":           {set(coordinator.Change{Max: new(6)}), 6, []int{4, 4, 6}},
		"more is needed":            {set(coordinator.Change{Min: new(12)}), 12, []int{4, 12}},
		"it is as large meanwhile":  {set(coordinator.Change{Min: new(9)}), 9, []int{4, 9}},
		"the pool is paused":        {pause, 9, []int{4}},
		"nothing":                   {func(*testing.T, *bundle) {}, 9, []int{4, 9}},
		"the bounds, to no purpose": {set(coordinator.Change{Max: new(9)}), 9, []int{4, 4, 9}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var b *bundle
				b = setup(scaler.Func(func(context.Context, scaler.Observation) (scaler.Decision, error) {
					c.change(t, b)
					return scaler.Decision{Target: 9, Reason: "nine", Confidence: 1}, nil
				}))
				d := b.tick(t)
				require.Equal(t, []int{4, c.to}, []int{d.From, d.To})
				require.Equal(t, c.sizes, b.executors.sizes)
				s, err := b.Pool(name)
				require.NoError(t, err)
				require.Equal(t, c.sizes[len(c.sizes)-1], s.Target)
			})
		})
	}
}

// The resources per executor are what the host says now, whenever the pool was added.
func TestAPoolWhoseExecutorsTakeOtherMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(says(20), func(b *bundle) {
			b.world.pool.Memory, b.world.facts = 100, coordinator.Facts{Connections: 10, MemoryFree: 1000}
		})
		require.Equal(t, 8, b.tick(t).BudgetLeft)
		b.world.pool.Memory = 200
		require.Equal(t, 4, b.tick(t).BudgetLeft)
	})
}

// Measurements are kept for as long as they can be requested, and no longer.
func TestSamplesAreKeptForAnHour(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(says(9), func(b *bundle) { b.cfg.Enabled = false })
		const kept = 7200
		for range 3 * kept {
			<-time.After(time.Second)
			b.Tick(t.Context())
		}
		all, err := b.Samples(name, time.Time{}, 3*kept)
		require.NoError(t, err)
		most := len(all)
		require.GreaterOrEqual(t, most, kept)
		require.LessOrEqual(t, most, 2*kept)
		require.Equal(t, time.Now(), all[most-1].At, "the latest")
		require.Equal(t, time.Duration(most-1)*time.Second, all[most-1].At.Sub(all[0].At), "none is missing")
	})
}
