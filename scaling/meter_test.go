package scaling_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/scaling"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

func TestMeterCutsSamples(t *testing.T) {
	t.Parallel()
	m := scaling.NewMeter(epoch)
	m.Arrived(7)
	for i := 1; i <= 100; i++ {
		m.Ended(time.Duration(i)*time.Millisecond, i%50 == 0)
	}
	m.Worked(3*time.Second, 8*time.Second)
	_, ok := m.Cut(epoch, 4, 0, 0)
	require.False(t, ok, "no time has passed")
	s, ok := m.Cut(epoch.Add(2*time.Second), 4, 5, time.Second)
	require.True(t, ok)
	for want, got := range map[time.Duration]*time.Duration{50 * time.Millisecond: &s.LatencyP50, 95 * time.Millisecond: &s.LatencyP95, 99 * time.Millisecond: &s.LatencyP99} {
		requireNear(t, want, *got)
		*got = 0
	}
	require.Equal(t, scaler.Sample{
		At: epoch.Add(2 * time.Second), Span: 2 * time.Second, Size: 4,
		Arrivals: 7, Completions: 100, Errors: 2, QueueDepth: 5, OldestAge: time.Second,
		Utilization: 0.375,
	}, s)
	s, _ = m.Cut(epoch.Add(3*time.Second), 4, 0, 0)
	require.Equal(t, scaler.Sample{At: epoch.Add(3 * time.Second), Span: time.Second, Size: 4}, s, "what was cut no longer counts")
}

// requireNear fails if a percentile is off by more than a meter allows.
func requireNear(t require.TestingT, want, got time.Duration) {
	require.InEpsilon(t, float64(want), float64(got), 1.0/64, "want %v, got %v", want, got)
}

// However much work ends and in whatever order, percentiles stay near their
// true values.
func TestPercentilesOfMany(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		durations := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(rapid.Int64Min(1).Draw(t, "ns") >> rapid.IntRange(0, 62).Draw(t, "shift"))
		}), 1, 5000).Draw(t, "durations")
		m := scaling.NewMeter(epoch)
		for _, d := range durations {
			m.Ended(d, false)
		}
		s, _ := m.Cut(epoch.Add(time.Second), 1, 0, 0)
		slices.Sort(durations)
		for percent, got := range map[int]time.Duration{50: s.LatencyP50, 95: s.LatencyP95, 99: s.LatencyP99} {
			rank := (percent*len(durations) + 99) / 100
			if want := durations[rank-1]; want == 0 {
				require.Zero(t, got)
			} else {
				requireNear(t, want, got)
			}
		}
	})
}

func TestWindow(t *testing.T) {
	t.Parallel()
	w := scaling.NewWindow(time.Minute)
	add := func(at, span int) bool {
		return w.Add(scaler.Sample{At: epoch.Add(time.Duration(at) * time.Second), Span: time.Duration(span) * time.Second})
	}
	require.True(t, add(10, 10))
	require.False(t, add(15, 10), "it overlaps")
	require.False(t, add(20, 0), "it has no length")
	require.True(t, add(30, 10), "a gap is not an overlap")
	require.True(t, add(70, 10))
	require.Len(t, w.Samples(), 3)
	require.True(t, add(80, 10))
	require.Len(t, w.Samples(), 3)
	require.True(t, add(9999, 10))
	require.Len(t, w.Samples(), 1, "the latest stays, however old the others are")
}
