package rollout

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Bounds of classes grow, and are at most a quarter too high.
func TestClasses(t *testing.T) {
	t.Parallel()
	for i := 1; i < classes; i++ {
		require.Greater(t, bound(i), bound(i-1), i)
	}
	rapid.Check(t, func(t *rapid.T) {
		us := rapid.Int64Range(0, 1<<34).Draw(t, "us")
		d := time.Duration(us) * time.Microsecond
		b := bound(class(d))
		require.GreaterOrEqual(t, b, d)
		require.LessOrEqual(t, float64(b), 1.26*float64(d)+float64(2*time.Microsecond))
	})
	require.Equal(t, classes-1, class(1000*time.Hour))
	require.Equal(t, 0, class(-time.Second))
}

func sample(calls, failed, broken int, took time.Duration) Sample {
	var s Sample
	for i := range calls - broken {
		s.Add(i < failed, took)
	}
	for range broken {
		s.AddBroken()
	}
	return s
}

func TestCompare(t *testing.T) {
	t.Parallel()
	limits := Limits{MinSamples: 50, ErrorFloor: .05, LatencyFloor: 50 * time.Millisecond}
	ms := time.Millisecond
	for _, tc := range []struct {
		name     string
		now, old Sample
		want     Cause
	}{
		{"both are good", sample(100, 0, 0, ms), sample(1000, 0, 0, ms), NotWorse},
		{"too few to say", sample(49, 49, 0, ms), sample(1000, 0, 0, ms), NotWorse},
		{"all fail", sample(50, 50, 0, ms), sample(1000, 0, 0, ms), Errors},
		{"thirty percent more fail", sample(100, 40, 0, ms), sample(1000, 100, 0, ms), Errors},
		{"both fail much", sample(100, 52, 0, ms), sample(1000, 500, 0, ms), NotWorse},
		{"below the floor", sample(1000, 45, 0, ms), sample(1000, 0, 0, ms), NotWorse},
		{"chance explains it", sample(60, 6, 0, ms), sample(1000, 40, 0, ms), NotWorse},
		{"calls break", sample(100, 0, 30, ms), sample(1000, 0, 0, ms), Errors},
		{"three times as slow", sample(100, 0, 0, 300*ms), sample(1000, 0, 0, 100*ms), Latency},
		{"slower by less than the floor", sample(100, 0, 0, 40*ms), sample(1000, 0, 0, ms), NotWorse},
		{"slow, but nobody knows better", sample(100, 0, 0, time.Minute), sample(10, 0, 0, ms), NotWorse},
		{"nothing at all", Sample{}, Sample{}, NotWorse},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cause, why := compare(&tc.now, &tc.old, limits)
			require.Equal(t, tc.want, cause, why)
			require.Equal(t, cause == NotWorse, why == "")
		})
	}
}

// Equal generations are seldom distinguished: one in forty at the limit, which is
// half as high again.
func TestEqualsAreNotWorse(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		calls := rapid.IntRange(50, 5000).Draw(t, "calls")
		failed := rapid.IntRange(0, calls).Draw(t, "failed")
		s := sample(calls, failed, 0, time.Millisecond)
		cause, why := compare(&s, &s, Limits{MinSamples: 50})
		require.Equal(t, NotWorse, cause, why)
	})
}

// The operator decides what counts as slower: 40 ms more are nothing for calls
// that take a second, but much for those that take a millisecond.
func TestTheFloorOfLatencies(t *testing.T) {
	t.Parallel()
	old, now := sample(1000, 0, 0, time.Millisecond), sample(100, 0, 0, 40*time.Millisecond)
	for floor, want := range map[time.Duration]Cause{time.Millisecond: Latency, 30 * time.Millisecond: Latency, 50 * time.Millisecond: NotWorse, time.Hour: NotWorse} {
		cause, why := compare(&now, &old, Limits{MinSamples: 50, LatencyFloor: floor})
		require.Equal(t, want, cause, "%s: %s", floor, why)
	}
	cause, why := compare(&old, &old, Limits{MinSamples: 50, LatencyFloor: time.Millisecond})
	require.Equal(t, NotWorse, cause, why)
}

// A call that is slow by chance is not a regression.
func TestChanceIsNotSlowness(t *testing.T) {
	t.Parallel()
	limits := Limits{MinSamples: 50, LatencyFloor: 50 * time.Millisecond}
	old := sample(1000, 0, 0, time.Millisecond)
	for slow, want := range map[int]Cause{0: NotWorse, 1: NotWorse, 2: NotWorse, 6: Latency} {
		now := sample(100-slow, 0, 0, time.Millisecond)
		for range slow {
			now.Add(false, time.Second)
		}
		cause, why := compare(&now, &old, limits)
		require.Equal(t, want, cause, "%d of 100 are slow: %s", slow, why)
	}
}

// sums combines samples.
func sums(each map[string]Sample) Sums {
	s := Sums{Each: map[string]*Sample{}}
	for name, one := range each {
		s.Each[name] = &one
		s.All.merge(&one)
	}
	return s
}

// Each name is compared with itself: a changed share of slow names neither looks
// like a regression nor hides one.
func TestJudgeByName(t *testing.T) {
	t.Parallel()
	limits := Limits{MinSamples: 50, ErrorFloor: .05, LatencyFloor: 50 * time.Millisecond}
	ms, s := time.Millisecond, time.Second
	for _, tc := range []struct {
		name     string
		now, old map[string]Sample
		cause    Cause
		why      string
	}{
		{
			"more slow calls than before, none slower",
			map[string]Sample{"fast": sample(100, 0, 0, ms), "slow": sample(100, 0, 0, 2*s)},
			map[string]Sample{"fast": sample(10_000, 0, 0, ms), "slow": sample(60, 0, 0, 2*s)},
			NotWorse, "",
		},
		{
			"slow calls hide that the fast ones are slower",
			map[string]Sample{"fast": sample(100, 0, 0, 500*ms), "slow": sample(100, 0, 0, 2*s)},
			map[string]Sample{"fast": sample(100, 0, 0, ms), "slow": sample(100, 0, 0, 2*s)},
			Latency, "fast: 99 % of its calls",
		},
		{
			"good calls hide that one name fails",
			map[string]Sample{"good": sample(10_000, 0, 0, ms), "bad": sample(100, 100, 0, ms)},
			map[string]Sample{"good": sample(10_000, 0, 0, ms), "bad": sample(100, 0, 0, ms)},
			Errors, "bad: 100.0 % of its 100 calls fail",
		},
		{
			"many names that fail a little",
			map[string]Sample{"a": sample(40, 20, 0, ms), "b": sample(40, 20, 0, ms)},
			map[string]Sample{"a": sample(40, 0, 0, ms), "b": sample(40, 0, 0, ms)},
			Errors, "50.0 % of its 80 calls fail",
		},
		{"a new name, slow from the start", map[string]Sample{"new": sample(100, 0, 0, s)}, map[string]Sample{"old": sample(100, 0, 0, ms)}, NotWorse, ""},
		{"nothing at all", nil, nil, NotWorse, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cause, why := Judge(sums(tc.now), sums(tc.old), limits)
			require.Equal(t, tc.cause, cause, why)
			require.Contains(t, why, tc.why)
			require.Equal(t, cause == NotWorse, why == "")
		})
	}
}

func TestRecord(t *testing.T) {
	t.Parallel()
	r := NewRecord([]string{"a", "b"})
	start := time.Unix(1_000_000, 0)
	for i := range 20 {
		r.Add("a", start.Add(time.Duration(i)*span), true, time.Millisecond)
	}
	r.Add("nobody", start, true, time.Millisecond)
	now := start.Add(19 * span)
	r.AddBroken("b", now)
	sum := r.Sum(now, start)
	require.Equal(t, buckets, sum.Each["a"].Calls)
	require.Equal(t, 1, sum.Each["b"].Broken)
	require.Equal(t, buckets+1, sum.All.Calls)
	require.InDelta(t, float64(time.Millisecond), float64(sum.All.Quantile(.5)), float64(250*time.Microsecond))
	require.Equal(t, 3, r.Sum(now, now.Add(-2*span)).Each["a"].Failed)
	later := now.Add(time.Hour)
	require.Zero(t, r.Sum(later, start).All.Calls)
	require.Empty(t, r.Sum(later, start).Each)
}

// Calls that are too rare for one minute are still counted, from a certain moment
// on.
func TestTotalForgetsNothing(t *testing.T) {
	t.Parallel()
	r := NewRecord([]string{"a", "b"})
	at := time.Now()
	add := func(name string, failed bool) {
		at = at.Add(2 * time.Minute)
		r.Add(name, at, failed, time.Millisecond)
	}
	for range 10 {
		add("a", true)
	}
	before := r.Total()
	require.Empty(t, r.Total().Without(before).Each)
	for range 60 {
		add("a", false)
	}
	add("b", false)
	r.AddBroken("b", at)
	recent, since := r.Sum(at, time.Time{}), r.Total().Without(before)
	require.Equal(t, 2, recent.All.Calls, "of the last minute")
	require.Equal(t, 62, since.All.Calls)
	require.Equal(t, 1, since.All.Broken)
	require.Zero(t, since.All.Failed)
	require.Equal(t, 60, since.Each["a"].Calls)
	require.Equal(t, 2, since.Each["b"].Calls)
	require.Equal(t, since.Each["a"].Quantile(.99), since.Each["b"].Quantile(.99))
	require.Equal(t, 10, r.Total().All.Failed)
}
