package scaling

import (
	"math"
	"time"

	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// Load summarizes samples.
type Load struct {
	Span                          time.Duration
	Arrivals, Completions, Errors int64
	Available, Busy               float64 // executor seconds: how many there were, and spent at work
	Depth                         int64   // at the end
}

// Sum adds samples up.
func Sum(samples []scaler.Sample) Load {
	var l Load
	for _, s := range samples {
		l.Span += s.Span
		l.Arrivals += s.Arrivals
		l.Completions += s.Completions
		l.Errors += s.Errors
		available := float64(s.Size) * s.Span.Seconds()
		l.Available += available
		l.Busy += available * s.Utilization
		l.Depth = s.QueueDepth
	}
	return l
}

// ArrivalRate returns the number of pieces of work that arrive per second.
func (l Load) ArrivalRate() float64 { return ratio(float64(l.Arrivals), l.Span.Seconds()) }

// ErrorRate returns the share of the work that failed.
func (l Load) ErrorRate() float64 { return ratio(float64(l.Errors), float64(l.Completions)) }

// Utilization returns the share of the executors' time that was spent at work.
func (l Load) Utilization() float64 { return ratio(l.Busy, l.Available) }

// Service returns how many seconds an executor spends on a piece of work; ok is
// false if none was completed.
func (l Load) Service() (seconds float64, ok bool) {
	return ratio(l.Busy, float64(l.Completions)), l.Completions > 0 && l.Busy > 0
}

// Demand sums up the samples of the window and returns how many seconds an executor spends on a
// piece of work. If no work was completed in the window, older samples provide that time; ok is
// false if the pool has completed no work at all.
func Demand(o scaler.Observation, window Duration) (l Load, service float64, ok bool) {
	l = Sum(o.Within(window.D()))
	if service, ok = l.Service(); !ok {
		service, ok = Sum(o.Samples).Service()
	}
	return l, service, ok
}

// NoWork returns the decision to take if Demand does not know how long a piece of work takes. A
// pool that was measured and had nothing to do needs no executors, however long work takes; any
// other pool keeps its size, as does one of which nothing was measured.
func NoWork(o scaler.Observation, l Load) scaler.Decision {
	measured := l.Span > 0
	if measured && l.Arrivals == 0 && l.Completions == 0 && l.Depth == 0 && l.Busy == 0 {
		return scaler.Decision{Target: 0, Confidence: 1, Reason: "nothing arrives, waits or runs"}
	}
	return scaler.Hold(o, "no work was completed, so how long it takes is unknown")
}

func ratio(a, b float64) float64 {
	if b <= 0 {
		return 0
	}
	return a / b
}

// Ceil rounds a computed number of executors up. A value that exceeds a whole number only by a
// rounding error counts as that number; impossible sizes become the largest possible number of
// executors.
func Ceil(n float64) int {
	const most = math.MaxInt32
	switch {
	case !(n > 0): // NaN too
		return 0
	case n > most:
		return most
	}
	return int(math.Ceil(n - 1e-9))
}
