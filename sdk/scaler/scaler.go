package scaler

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// Scaler decides how large one pool should be. Each pool has its own scaler, made by [New].
// Calls never overlap, so a scaler may keep what it learns in fields, without locks.
//
// Decide has no side effects outside the scaler: it reads the observation, does no I/O and
// never waits. The same observations lead to the same decisions, so take the time from
// [Observation.Now], never from the clock. After an error, a panic or a late answer the host
// keeps the pool as it is.
type Scaler interface {
	Decide(ctx context.Context, o Observation) (Decision, error)
}

// New makes the scaler of one pool.
type New func() Scaler

// Snapshotter is implemented by scalers that learn, so that what they have learned outlives the
// process. The host takes a snapshot now and then and before it replaces the plugin, and gives
// it to the new scaler before that one's first decision.
type Snapshotter interface {
	// Snapshot returns what the scaler has learned, in its own format, in at most
	// [MaxSnapshotBytes]. It may be empty if nothing has been learned yet.
	Snapshot(ctx context.Context) ([]byte, error)
	// Restore loads a snapshot, which another version may have written. It must return an
	// error if it cannot read the snapshot; a new scaler then takes its place.
	Restore(ctx context.Context, snapshot []byte) error
}

// Func adapts a function that learns nothing to a [Scaler].
type Func func(ctx context.Context, o Observation) (Decision, error)

var _ Scaler = Func(nil)

// Decide calls f.
func (f Func) Decide(ctx context.Context, o Observation) (Decision, error) { return f(ctx, o) }

// Limits on the answers of a scaler.
const (
	MaxSnapshotBytes = 1 << 20
	MaxReasonBytes   = 1 << 10
)

// Observation is what the host knows about one pool at one moment.
type Observation struct {
	Pool      string // the pool's name, unique in its host
	Kind      string // what its executors do, such as handler or finalizer
	Namespace string // the namespace whose steps they run; empty means all

	// Now is the time of the observation. It never goes back.
	Now time.Time
	// State is the operational state of the host, such as normal.
	State string

	Current  int // number of executors
	Target   int // number last decided on; differs from Current while the pool changes
	Min, Max int // bounds of the pool, both inclusive
	// BudgetLeft is the number of executors beyond Current that the host's resources allow,
	// regardless of Max. It is negative if unknown.
	BudgetLeft int
	// ChangedAt is the time at which Target last changed; zero if it never did.
	ChangedAt time.Time

	// Samples holds recent measurements, oldest first. Each begins where the previous one ended
	// or later: a span that could not be measured is missing, never zero. Samples may be empty.
	// The scaler must not change the samples or keep the slice after it has answered.
	Samples []Sample
}

// Sample holds the measurements of a pool over a span of time.
type Sample struct {
	At   time.Time     // the end of the span
	Span time.Duration // its length, more than zero
	Size int           // executors at the end of the span

	Arrivals    int64 // pieces of work that became ready within the span
	Completions int64 // pieces of work that ended within the span, errors included
	Errors      int64 // those that ended in an error

	QueueDepth int64         // ready work that no executor had taken, at the end of the span
	OldestAge  time.Duration // how long the oldest of it had waited; zero if there was none

	// LatencyP50, LatencyP95 and LatencyP99 are percentiles of the time from ready to ended,
	// for the work that ended within the span. They are zero without completions.
	LatencyP50, LatencyP95, LatencyP99 time.Duration

	// Utilization is the share of the executors' time within the span that was spent working,
	// from 0 to 1.
	Utilization float64
}

// Rate converts a count of the sample to a rate per second.
func (s Sample) Rate(count int64) float64 { return float64(count) / s.Span.Seconds() }

// Last returns the latest sample; ok is false if there is none.
func (o Observation) Last() (s Sample, ok bool) {
	if len(o.Samples) == 0 {
		return Sample{}, false
	}
	return o.Samples[len(o.Samples)-1], true
}

// Within returns the samples that ended at most age ago. The result shares memory with Samples.
func (o Observation) Within(age time.Duration) []Sample {
	oldest := o.Now.Add(-age)
	i := len(o.Samples)
	for i > 0 && !o.Samples[i-1].At.Before(oldest) {
		i--
	}
	return o.Samples[i:]
}

// Decision says how large a pool should be, and why.
type Decision struct {
	// Target is the number of executors, 0 or more. The host keeps it between the pool's Min
	// and Max and within the budget.
	Target int
	// Reason explains the decision to people, in a short sentence with the numbers that led to
	// it. It must not be empty.
	Reason string
	// Confidence says how sure the scaler is, from 0 (a guess) to 1. Where several algorithms
	// are combined, a guess yields to any other decision. An operator may have decisions below
	// a certain confidence ignored.
	Confidence float64
}

// Hold returns a decision to leave the pool as it is for lack of knowledge, with confidence 0.
func Hold(o Observation, reason string) Decision { return Decision{Target: o.Target, Reason: reason} }

// Check returns an error if a host cannot use the decision.
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
		problems = append(problems, errors.New("there is no reason: say why the target was chosen"))
	case len(d.Reason) > MaxReasonBytes:
		problems = append(problems, fmt.Errorf("the reason has %d bytes: want at most %d", len(d.Reason), MaxReasonBytes))
	case !utf8.ValidString(d.Reason):
		problems = append(problems, errors.New("the reason is not valid UTF-8"))
	}
	return errors.Join(problems...)
}
