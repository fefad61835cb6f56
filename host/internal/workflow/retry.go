package workflow

import (
	"math"
	"time"
)

// BackoffKind determines how the wait grows from one failed attempt to the next.
type BackoffKind string

// The kinds of back-off; n counts the failed attempts from 1. Each is capped by
// [Retry].Cap.
const (
	BackoffExponential BackoffKind = "exponential" // base·2^(n-1)
	BackoffLinear      BackoffKind = "linear"      // base·n
	BackoffFixed       BackoffKind = "fixed"       // base
	BackoffNone        BackoffKind = "none"        // no wait
)

// Backoffs lists every kind of back-off.
var Backoffs = []BackoffKind{BackoffExponential, BackoffLinear, BackoffFixed, BackoffNone}

// maxDoublings bounds the exponent of exponential back-off, here and in the SQL function
// tasker_backoff_ms; a millisecond doubled this often exceeds any cap.
const maxDoublings = 62

// Retry is a step's policy for failed attempts. Durations are whole milliseconds, the
// unit they are stored in.
type Retry struct {
	Retryable   bool          // false: the first failure is final
	MaxAttempts int           // attempts in all, 1–100
	Backoff     BackoffKind   // how the wait grows
	Base        time.Duration // the wait the back-off starts from, ≥ 0
	Cap         time.Duration // the longest wait, ≥ Base
	Jitter      float64       // 0–1: a wait is multiplied by a random factor in [1-Jitter, 1]
}

// DefaultRetry returns the policy of a step whose template specifies none.
func DefaultRetry() Retry {
	return Retry{
		Retryable: true, MaxAttempts: 3, Backoff: BackoffExponential,
		Base: time.Second, Cap: 30 * time.Second, Jitter: 0.1,
	}
}

// Allows reports whether a step may be attempted (again) after the given number of failed
// attempts. Even a step that is not retryable gets its first attempt.
func (r Retry) Allows(failed int) bool {
	return failed < r.MaxAttempts && (r.Retryable || failed == 0)
}

// Delay returns the bounds of the wait after failed attempt n ≥ 1. The longest is the
// back-off's, in whole milliseconds and at most Cap; jitter shortens it by a random
// amount, at most to the shortest. n < 1 counts as 1.
func (r Retry) Delay(attempt int) (shortest, longest time.Duration) {
	n := max(attempt, 1)
	switch r.Backoff {
	case BackoffExponential:
		longest = times(r.Base, math.Ldexp(1, min(n-1, maxDoublings)))
	case BackoffLinear:
		longest = times(r.Base, float64(n))
	case BackoffFixed:
		longest = r.Base
	case BackoffNone:
	}
	longest = min(longest, r.Cap).Truncate(time.Millisecond)
	shortest = time.Duration(math.Floor(float64(longest) * (1 - r.Jitter)))
	return max(shortest.Truncate(time.Millisecond), 0), longest
}

// NextDelay returns the bounds of the wait after failed attempt n ≥ 1 if the handler
// asked for retryAfter. A request overrides the back-off, whether it is shorter or
// longer, is not jittered, and is capped by limit, not by the policy's Cap; retryAfter ≤
// 0 means that the handler asked for nothing.
func (r Retry) NextDelay(attempt int, retryAfter, limit time.Duration) (shortest, longest time.Duration) {
	if retryAfter <= 0 {
		return r.Delay(attempt)
	}
	wait := min(retryAfter, limit)
	return wait, wait
}

// times multiplies a duration, saturating.
func times(d time.Duration, factor float64) time.Duration {
	if product := float64(d) * factor; product < math.MaxInt64/2 {
		return d * time.Duration(factor)
	}
	return math.MaxInt64
}
