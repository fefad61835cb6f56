package scaler

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// Scaler decides how large one pool should be. Each pool has its own, made by
// [New], and its calls come one after another: it may keep what it learns in
// fields, without locks.
//
// A decision is a thought and no deed: it reads the observation, asks nobody
// and waits for nothing. With the same observations it comes to the same
// decisions, so time is [Observation.Now] and never the clock. An error, a
// panic or a late answer makes the host keep the pool as it is.
type Scaler interface {
	Decide(ctx context.Context, o Observation) (Decision, error)
}

// New makes the scaler of one pool.
type New func() Scaler

// Snapshotter is implemented by scalers that learn. What it has learned then
// outlives the process: the host takes a snapshot now and then and before it
// replaces the plugin, and gives it to the new one before its first decision.
type Snapshotter interface {
	// Snapshot returns what has been learned, in a form of the scaler's own, at
	// most [MaxSnapshotBytes]. Nothing learned yet may be an empty snapshot.
	Snapshot(ctx context.Context) ([]byte, error)
	// Restore takes over what another version may have written: it must refuse
	// what it cannot read, with an error, and is then used as it was made.
	Restore(ctx context.Context, snapshot []byte) error
}

// Func makes a function that learns nothing a [Scaler].
type Func func(ctx context.Context, o Observation) (Decision, error)

var _ Scaler = Func(nil)

// Decide calls f.
func (f Func) Decide(ctx context.Context, o Observation) (Decision, error) { return f(ctx, o) }

// Limits of what a scaler may answer.
const (
	MaxSnapshotBytes = 1 << 20
	MaxReasonBytes   = 1 << 10
)

// Observation is what is known of one pool at one moment.
type Observation struct {
	Pool      string // the pool's name, unique in its host
	Kind      string // what its executors do, such as handler or finalizer
	Namespace string // whose steps they run; empty: everybody's

	// Now is the time of the observation. It never goes back.
	Now time.Time
	// State is the operational state of the host, such as normal.
	State string

	Current  int // executors there are
	Target   int // executors there should be, as decided last; differs while the pool changes
	Min, Max int // the bounds of the pool, both inclusive
	// BudgetLeft is how many executors more than Current the resources of the
	// host bear, whatever Max says; negative if that is not known.
	BudgetLeft int
	// ChangedAt is when Target changed last; zero if it never did.
	ChangedAt time.Time

	// Samples are what was measured lately, the oldest first, each beginning
	// where the one before ended or later: what could not be measured is missing
	// and never zero. There may be none. The scaler must not change them, nor
	// keep the slice after it has answered.
	Samples []Sample
}

// Sample is what was measured of a pool over a span of time.
type Sample struct {
	At   time.Time     // the end of the span
	Span time.Duration // its length, more than zero
	Size int           // executors at its end

	Arrivals    int64 // pieces of work that became ready within the span
	Completions int64 // pieces of work that ended within the span, errors included
	Errors      int64 // those that ended in an error

	QueueDepth int64         // ready work that nobody had taken, at the end of the span
	OldestAge  time.Duration // how long the oldest of it had waited; zero if there was none

	// The time from ready to ended of the work that ended within the span: the
	// half, 95 and 99 of a hundred took no longer. Zero without completions.
	LatencyP50, LatencyP95, LatencyP99 time.Duration

	// Utilization is the share of the executors' time that was spent at work
	// within the span, from 0 to 1.
	Utilization float64
}

// Rate returns a count of the sample as pieces a second.
func (s Sample) Rate(count int64) float64 { return float64(count) / s.Span.Seconds() }

// Last returns the latest sample; ok is false if there is none.
func (o Observation) Last() (s Sample, ok bool) {
	if len(o.Samples) == 0 {
		return Sample{}, false
	}
	return o.Samples[len(o.Samples)-1], true
}

// Within returns the samples that ended no longer ago than the time given. They
// share the memory of all.
func (o Observation) Within(age time.Duration) []Sample {
	oldest := o.Now.Add(-age)
	i := len(o.Samples)
	for i > 0 && !o.Samples[i-1].At.Before(oldest) {
		i--
	}
	return o.Samples[i:]
}

// Decision is how large a pool should be, and why.
type Decision struct {
	// Target is the number of executors, 0 or more. The host keeps it between
	// the pool's Min and Max and within the budget.
	Target int
	// Reason says why in a short sentence with the numbers that led to it:
	// people read it when they wonder. It must not be empty.
	Reason string
	// Confidence is how sure the scaler is, from 0, a guess, to 1. Where several
	// algorithms are combined, a guess yields to any other decision; an operator
	// may have decisions below some value ignored.
	Confidence float64
}

// Hold is the decision to leave the pool as it is, taken for lack of knowledge:
// its confidence is 0.
func Hold(o Observation, reason string) Decision { return Decision{Target: o.Target, Reason: reason} }

// Check returns what is wrong with a decision; nil if a host can use it.
func (d Decision) Check() error {
	var problems []error
	if d.Target < 0 {
		problems = append(problems, fmt.Errorf("the target is %d: want 0 or more", d.Target))
	}
	if !(d.Confidence >= 0 && d.Confidence <= 1) { // written so that NaN is refused
		problems = append(problems, fmt.Errorf("the confidence is %g: want 0 to 1", d.Confidence))
	}
	switch {
	case d.Reason == "":
		problems = append(problems, errors.New("there is no reason: say why, for the people who wonder"))
	case len(d.Reason) > MaxReasonBytes:
		problems = append(problems, fmt.Errorf("the reason has %d bytes: want at most %d", len(d.Reason), MaxReasonBytes))
	case !utf8.ValidString(d.Reason):
		problems = append(problems, errors.New("the reason is not valid UTF-8"))
	}
	return errors.Join(problems...)
}
