package workflow

import (
	"math"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestDelay(t *testing.T) {
	t.Parallel()
	const s, ms = time.Second, time.Millisecond
	for _, c := range []struct {
		kind              BackoffKind
		base, limit       time.Duration
		jitter            float64
		attempt           int
		shortest, longest time.Duration
	}{
		{BackoffExponential, s, 30 * s, 0, 1, s, s},
		{BackoffExponential, s, 30 * s, 0, 2, 2 * s, 2 * s},
		{BackoffExponential, s, 30 * s, 0, 5, 16 * s, 16 * s},
		{BackoffExponential, s, 30 * s, 0, 6, 30 * s, 30 * s},
		{BackoffExponential, s, 30 * s, 0, math.MaxInt, 30 * s, 30 * s},
		{BackoffExponential, ms, MaxBackoff, 0, 100, MaxBackoff, MaxBackoff},
		{BackoffExponential, 0, 30 * s, 0.5, 100, 0, 0},
		{BackoffLinear, s, 30 * s, 0, 1, s, s},
		{BackoffLinear, s, 30 * s, 0, 7, 7 * s, 7 * s},
		{BackoffLinear, s, 30 * s, 0, math.MaxInt, 30 * s, 30 * s},
		{BackoffFixed, s, 30 * s, 0, 9, s, s},
		{BackoffNone, s, 30 * s, 0.1, 9, 0, 0},
		{BackoffExponential, s, 30 * s, 0, 0, s, s},
		{BackoffExponential, s, 30 * s, 0, -5, s, s},
		{BackoffExponential, s, 30 * s, 0.1, 1, 900 * ms, s},
		{BackoffExponential, s, 30 * s, 1, 3, 0, 4 * s},
		{BackoffFixed, 7 * ms, 30 * s, 0.5, 1, 3 * ms, 7 * ms},
	} {
		r := Retry{Backoff: c.kind, Base: c.base, Cap: c.limit, Jitter: c.jitter}
		shortest, longest := r.Delay(c.attempt)
		require.Equal(t, c.longest, longest, "%+v", c)
		require.Equal(t, c.shortest, shortest, "%+v", c)
	}
}

// The wait before jitter in exact arithmetic, as SQL computes it.
func TestDelayAgreesWithArithmetic(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		base := rapid.Int64Range(0, MaxBackoff.Milliseconds()).Draw(t, "base")
		limit := rapid.Int64Range(base, MaxBackoff.Milliseconds()).Draw(t, "cap")
		attempt := rapid.IntRange(1, 200).Draw(t, "attempt")
		r := Retry{
			Backoff: rapid.SampledFrom(Backoffs).Draw(t, "kind"), Jitter: rapid.Float64Range(0, 1).Draw(t, "jitter"),
			Base: time.Duration(base) * time.Millisecond, Cap: time.Duration(limit) * time.Millisecond,
		}
		want := big.NewInt(0)
		switch r.Backoff {
		case BackoffExponential:
			want.Lsh(big.NewInt(base), uint(min(attempt-1, maxDoublings)))
		case BackoffLinear:
			want.Mul(big.NewInt(base), big.NewInt(int64(attempt)))
		case BackoffFixed:
			want.SetInt64(base)
		case BackoffNone:
		}
		if want.Cmp(big.NewInt(limit)) > 0 {
			want.SetInt64(limit)
		}
		shortest, longest := r.Delay(attempt)
		require.Equal(t, want.Int64(), longest.Milliseconds())
		require.Zero(t, longest%time.Millisecond)
		require.LessOrEqual(t, shortest, longest)
		require.GreaterOrEqual(t, shortest, time.Duration(0))
		require.InDelta(t, float64(longest)*(1-r.Jitter), float64(shortest), float64(time.Millisecond))
		_, next := r.Delay(attempt + 1)
		require.GreaterOrEqual(t, next, longest, "waits do not shrink")
	})
}

func TestNextDelay(t *testing.T) {
	t.Parallel()
	r := DefaultRetry()
	limit := Limits{}.withDefaults().MaxRetryAfter
	require.Equal(t, 300*time.Second, limit)
	for _, c := range []struct {
		after             time.Duration
		shortest, longest time.Duration
	}{
		{0, 3600 * time.Millisecond, 4 * time.Second},
		{-time.Second, 3600 * time.Millisecond, 4 * time.Second},
		{time.Millisecond, time.Millisecond, time.Millisecond}, // shorter than the back-off
		{time.Minute, time.Minute, time.Minute},                // longer than the policy's cap
		{time.Hour, limit, limit},
	} {
		shortest, longest := r.NextDelay(3, c.after, limit)
		require.Equal(t, c.shortest, shortest, c.after)
		require.Equal(t, c.longest, longest, c.after)
	}
}

func TestRetryAllows(t *testing.T) {
	t.Parallel()
	r := Retry{Retryable: true, MaxAttempts: 2}
	require.True(t, r.Allows(0))
	require.True(t, r.Allows(1))
	require.False(t, r.Allows(2))
	r.Retryable = false
	require.True(t, r.Allows(0), "the first attempt is not a retry")
	require.False(t, r.Allows(1))
}
