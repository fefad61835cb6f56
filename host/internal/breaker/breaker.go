package breaker

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
)

// State is the state of a breaker.
type State string

// The states of a breaker.
const (
	Closed     State = "closed"      // calls pass
	HalfOpen   State = "half_open"   // a few calls pass, as probes
	Open       State = "open"        // calls are refused for a while
	ForcedOpen State = "forced_open" // calls are refused until an operator ends it
)

// States lists all states.
var States = []State{Closed, HalfOpen, Open, ForcedOpen}

// Outcome is the result of a call that was let through.
type Outcome int

// The outcomes of calls.
const (
	Success Outcome = iota // the dependency answered
	Failure                // it did not, or could not do its job
	Ignored                // the call says nothing about it
)

// Config defines when a breaker opens and closes.
type Config struct {
	Failures int           // consecutive failures that open it; at least 1
	Timeout  time.Duration // longest time it stays open
	Probes   int           // successes needed to close it, and calls let through at once; at least 1
}

// ErrOpen is wrapped by the refusals of all breakers.
var ErrOpen = errors.New("circuit breaker is open")

// OpenError is returned for a refused call.
type OpenError struct {
	Name  string
	State State
	Retry time.Duration // earliest time after which trying again is worthwhile; 0: unknown
}

// Error names the breaker.
func (e *OpenError) Error() string {
	if e.State == ForcedOpen {
		return fmt.Sprintf("circuit breaker %s was opened by an operator", e.Name)
	}
	return fmt.Sprintf("circuit breaker %s is %s", e.Name, e.State)
}

// Unwrap returns [ErrOpen].
func (e *OpenError) Unwrap() error { return ErrOpen }

var (
	errFailed  = errors.New("failed")
	errIgnored = errors.New("ignored")
)

// Change is one transition of a breaker.
type Change struct {
	Name     string
	From, To State
	Reason   string // by whom and why, if an operator moved it
}

// Breaker guards one dependency, or one class of its operations. It is safe for
// concurrent use.
type Breaker struct {
	name, kind string
	class      string
	set        *Set

	mu       sync.Mutex // guards the fields below
	inner    *gobreaker.TwoStepCircuitBreaker[struct{}]
	tripped  bool  // it opened, and look has not run yet
	state    State // as last reported
	until    time.Time
	forced   string // why an operator holds it open
	since    time.Time
	reason   string
	lastErr  string
	failures int    // consecutive ones, while it was closed
	refused  uint64 // calls, since the host started
	pending  []Change
}

func newBreaker(s *Set, id ID) *Breaker {
	b := &Breaker{name: id.String(), kind: id.kind(), class: id.class(), set: s, state: Closed, since: s.now()}
	b.renew()
	return b
}

// renew installs a closed gobreaker. It is called with mu held, or before others know the
// breaker.
func (b *Breaker) renew() {
	b.failures, b.tripped = 0, false
	b.inner = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name:        b.name,
		MaxRequests: uint32(max(b.set.config(b.kind).Probes, 1)),
		// We time the wait ourselves; gobreaker is half-open as soon as we ask it again.
		Timeout: time.Nanosecond,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			b.failures = int(c.ConsecutiveFailures) // gobreaker forgets them when it opens
			return b.failures >= b.set.config(b.kind).Failures
		},
		IsSuccessful: func(err error) bool { return err == nil },
		IsExcluded:   func(err error) bool { return errors.Is(err, errIgnored) },
		OnStateChange: func(_ string, _, to gobreaker.State) { // called with mu held, like all of gobreaker
			b.tripped = b.tripped || to == gobreaker.StateOpen
		},
	})
}

// Name returns the breaker's name.
func (b *Breaker) Name() string { return b.name }

// Allow lets a call through, or refuses it with an *[OpenError]. done must be called
// once, when the call has ended; err is its error, to be shown to people.
func (b *Breaker) Allow() (done func(o Outcome, err error), err error) {
	if !b.set.Enabled() {
		return func(Outcome, error) {}, nil
	}
	b.mu.Lock()
	defer b.tell()
	defer b.mu.Unlock()
	now := b.set.now()
	done, ok := b.enter(now)
	if !ok {
		return nil, b.refuse(now)
	}
	return done, nil
}

// Report reports the outcome of a call that bypassed the breaker. It has the effect of a
// call that Allow let through, and none if Allow would refuse one.
func (b *Breaker) Report(o Outcome, err error) {
	if !b.set.Enabled() {
		return
	}
	b.mu.Lock()
	done, ok := b.enter(b.set.now())
	b.mu.Unlock()
	b.tell()
	if ok {
		done(o, err)
	}
}

// enter lets a call through if it may pass now. It is called with mu held.
func (b *Breaker) enter(now time.Time) (done func(o Outcome, err error), ok bool) {
	if b.forced != "" || now.Before(b.until) {
		return nil, false
	}
	inner := b.inner
	report, err := inner.Allow()
	if err != nil {
		return nil, false
	}
	b.look(now)
	return func(o Outcome, err error) { b.end(inner, report, o, err) }, true
}

// refuse is called with mu held.
func (b *Breaker) refuse(now time.Time) error {
	b.refused++
	b.set.metrics.refused.WithLabelValues(b.kind, b.class).Inc()
	e := &OpenError{Name: b.name, State: b.now(now)}
	if e.State == Open {
		e.Retry = b.until.Sub(now)
	}
	return e
}

// end reports the result of a call to the gobreaker that let it through. If an operator
// has closed or reset the breaker since, the result no longer counts.
func (b *Breaker) end(inner *gobreaker.TwoStepCircuitBreaker[struct{}], report func(error), o Outcome, err error) {
	b.mu.Lock()
	defer b.tell()
	defer b.mu.Unlock()
	b.set.metrics.calls.WithLabelValues(b.kind, b.class, outcomes[o]).Inc()
	if inner != b.inner {
		return
	}
	switch o {
	case Success:
		report(nil)
	case Failure:
		if err != nil {
			b.lastErr = err.Error()
		}
		report(errFailed)
	case Ignored:
		report(errIgnored)
	}
	if inner.State() == gobreaker.StateClosed {
		b.failures = int(inner.Counts().ConsecutiveFailures)
	}
	b.look(b.set.now())
}

// look adopts what gobreaker has decided. It is called with mu held, after each call to
// gobreaker, whose own open state lasts a nanosecond.
func (b *Breaker) look(now time.Time) {
	if b.forced != "" {
		return
	}
	if b.tripped {
		b.tripped = false
		b.until = now.Add(b.set.config(b.kind).Timeout)
		b.move(Open, b.lastErr)
		return
	}
	b.follow(now)
}

// follow updates the state for the current time and for what gobreaker has decided. The
// reason for which a breaker opened is dropped when it closes. It is called with mu held.
func (b *Breaker) follow(now time.Time) {
	if to := b.now(now); to == Closed {
		b.move(to, "")
	} else {
		b.move(to, b.reason)
	}
}

// now returns the state to report. It is called with mu held.
func (b *Breaker) now(at time.Time) State {
	switch {
	case b.forced != "":
		return ForcedOpen
	case at.Before(b.until):
		return Open
	case b.inner.State() == gobreaker.StateClosed:
		return Closed
	default:
		return HalfOpen
	}
}

// move records a change, to be reported once mu is released. It is called with mu held.
func (b *Breaker) move(to State, reason string) {
	if b.state == to {
		return
	}
	b.pending = append(b.pending, Change{Name: b.name, From: b.state, To: to, Reason: reason})
	b.set.metrics.transitions.WithLabelValues(b.kind, b.class, string(to)).Inc()
	b.state, b.since, b.reason = to, b.set.now(), reason
}

// tell reports changes. It is called without mu.
func (b *Breaker) tell() {
	b.mu.Lock()
	pending := b.pending
	b.pending = nil
	b.mu.Unlock()
	for _, c := range pending {
		b.set.changed(c)
	}
}

// Recovered reports that the dependency was found to work, by a call that bypasses the
// breakers. An open breaker becomes half-open; one that an operator holds open stays so.
func (b *Breaker) Recovered() {
	b.mu.Lock()
	defer b.tell()
	defer b.mu.Unlock()
	if b.forced == "" && b.set.now().Before(b.until) {
		b.until = time.Time{}
		b.move(HalfOpen, "the dependency was found to work")
	}
}

// ForceOpen refuses all calls until Close or Reset.
func (b *Breaker) ForceOpen(reason string) {
	b.mu.Lock()
	defer b.tell()
	defer b.mu.Unlock()
	if reason == "" {
		reason = "by an operator"
	}
	b.forced = reason
	b.move(ForcedOpen, reason)
	b.reason = reason
}

// Close lets all calls through at once, and restarts the count.
func (b *Breaker) Close(reason string) {
	b.mu.Lock()
	defer b.tell()
	defer b.mu.Unlock()
	b.forced, b.until = "", time.Time{}
	b.renew()
	b.move(Closed, reason)
}

// Reset ends what an operator has forced and returns control to the breaker: if it is not
// closed it becomes half-open, and probes decide.
func (b *Breaker) Reset(reason string) {
	b.mu.Lock()
	defer b.tell()
	defer b.mu.Unlock()
	held := b.state != Closed
	b.forced, b.until = "", time.Time{}
	b.renew()
	if held {
		b.trip()
		b.move(HalfOpen, reason)
	}
}

// trip opens a new gobreaker, which is half-open a nanosecond later.
func (b *Breaker) trip() {
	for range b.set.config(b.kind).Failures {
		if report, err := b.inner.Allow(); err == nil {
			report(errFailed)
		}
	}
	b.tripped = false
}

// Status is the visible state of a breaker.
type Status struct {
	Name     string
	State    State
	Since    time.Time
	Reason   string // of the state; empty: it is closed and nothing has happened
	Failures int    // consecutive ones, while it was closed
	Refused  uint64 // calls, since the host started
	Retry    time.Duration
	Config   Config
}

// Status returns the visible state.
func (b *Breaker) Status() Status {
	b.mu.Lock()
	defer b.tell()
	defer b.mu.Unlock()
	now := b.set.now()
	b.follow(now)
	s := Status{
		Name: b.name, State: b.state, Since: b.since, Reason: b.reason, Failures: b.failures, Refused: b.refused,
		Config: b.set.config(b.kind),
	}
	if b.state == Open {
		s.Retry = b.until.Sub(now)
	}
	return s
}
