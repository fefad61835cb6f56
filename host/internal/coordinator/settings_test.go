package coordinator_test

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/coordinator"
	"github.com/tasker-systems/tasker-host/host/internal/pool"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// The pace of a pool changes at once; settings that make no sense, or that the pool does
// not have, are refused and change nothing.
func TestSetChangesThePace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pace := pool.Pace{Batch: 100, PollMin: 50 * time.Millisecond, PollMax: time.Second, TurnTimeout: time.Minute, StopTimeout: 3 * time.Second}
		with := func(p pool.Pace) *bundle {
			return setup(says(9), func(b *bundle) {
				b.cfg.LongestPoll = 10 * time.Second
				b.cfg.Settings = func(string, string) coordinator.Settings {
					return coordinator.Settings{Min: 2, Max: 20, Algorithm: "mine", Pace: p}
				}
			})
		}
		refused := func(b *bundle, want string, change coordinator.Change) {
			t.Helper()
			_, _, err := b.Set(t.Context(), name, change)
			require.ErrorContains(t, err, want)
		}
		b := with(pace)
		for want, change := range map[string]coordinator.Change{
			"batch is 0: want 1 to 10000":                           {Batch: new(0)},
			"poll_min is 2s: want 1ms to 1s":                        {PollMin: new(2 * time.Second)},
			"poll_max is 11s: want 1ms to 10s":                      {PollMax: new(11 * time.Second)},
			"turn_timeout is 0s: want 1s to 1h0m0s":                 {TurnTimeout: new(time.Duration(0))},
			"stop_timeout is 2m0s: want 100ms to 1m0s":              {StopTimeout: new(2 * time.Minute)},
			"poll_max is -1s: want 1ms to 10s (and 1 more)":         {PollMax: new(-time.Second)},
			"batch is -1: want 1 to 10000 (and 1 more)":             {Batch: new(-1), StopTimeout: new(time.Hour)},
			"turn_timeout is 2562047h47m16.854775807s: want 1s to ": {TurnTimeout: new(time.Duration(math.MaxInt64))},
		} {
			refused(b, want, change)
		}
		require.Equal(t, pace, b.executors.pace)
		_, _, err := b.Set(t.Context(), name, coordinator.Change{
			Batch: new(7), PollMin: new(time.Millisecond), PollMax: new(2 * time.Millisecond), TurnTimeout: new(2 * time.Second), StopTimeout: new(time.Second),
		})
		require.NoError(t, err)
		require.Equal(t, pool.Pace{Batch: 7, PollMin: time.Millisecond, PollMax: 2 * time.Millisecond, TurnTimeout: 2 * time.Second, StopTimeout: time.Second},
			b.executors.pace, "at once")
		pace.Batch = 9
		b.cfg.Settings = func(string, string) coordinator.Settings {
			return coordinator.Settings{Min: 2, Max: 20, Algorithm: "mine", Pace: pace}
		}
		b.Reload(b.cfg)
		require.Equal(t, pace, b.executors.pace, "another configuration counts")

		refused(with(pool.Pace{}), "run one step at a time", coordinator.Change{Batch: new(5)})
		pace.PollMin, pace.PollMax = 0, 0
		refused(with(pace), "do not poll", coordinator.Change{PollMax: new(time.Second)})
	})
}

// A pool at its maximum whose backlog keeps growing is strained; one that keeps up, or
// that may still grow, is not.
func TestAPoolIsStrainedWhileWhatWaitsGrowsBeyondIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(says(20))
		utilization := 1.0
		b.executors.load = func() scaler.Sample { return scaler.Sample{Utilization: utilization} }
		tick := func(waiting int64) coordinator.Status {
			b.world.mu.Lock()
			b.world.backlog.Waiting = waiting
			b.world.mu.Unlock()
			b.tick(t)
			s, err := b.Pool(name)
			require.NoError(t, err)
			return s
		}
		require.Zero(t, tick(100).StrainedSince, "it grows")
		tick(200)
		began := time.Now()
		require.Zero(t, tick(150).StrainedSince, "it keeps up")
		s := tick(160)
		require.Equal(t, 20, s.Target)
		require.False(t, s.StrainedSince.IsZero())
		require.WithinDuration(t, began, s.StrainedSince, 2*time.Second)
		require.Equal(t, int64(160), s.Backlog)
		since := s.StrainedSince
		require.Equal(t, since, tick(155).StrainedSince, "up and down")
		require.Zero(t, tick(150).StrainedSince, "no more than then")
		require.Equal(t, since, tick(900).StrainedSince)
		require.Zero(t, tick(149).StrainedSince)
		require.False(t, tick(500).StrainedSince.IsZero())
		utilization = 0.1
		require.Zero(t, tick(600).StrainedSince, "executors are free: the backlog is not for them")
		utilization = 1
		tick(600)
		_, err := b.Pause(name, true, "ops", "")
		require.NoError(t, err)
		<-time.After(time.Second)
		b.Tick(t.Context())
		s, err = b.Pool(name)
		require.NoError(t, err)
		require.Zero(t, s.StrainedSince, "a paused pool is not strained")
	})
}
