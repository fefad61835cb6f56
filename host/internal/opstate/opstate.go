// Package opstate contains the operational state of a host, which determines what it may
// do. Core owns the single Machine and moves it. The parts read it before they claim,
// swap or scale, and watch it for changes. The package does not know the parts and does
// nothing by itself.
//
//	startup ──► normal ──► graceful_shutdown ──► stopped
//	   │           │               │
//	   │           └───► emergency ◄┘        any but stopped ──► stopped
//	   ├───► graceful_shutdown               emergency ──► stopped
//	   └───► emergency                       stopped ──► startup
package opstate

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// State is an operational state.
type State string

// The operational states.
const (
	Startup          State = "startup"           // loads plugins, accepts nothing from outside yet
	Normal           State = "normal"            // does everything
	GracefulShutdown State = "graceful_shutdown" // finishes what it has, takes nothing new
	Emergency        State = "emergency"         // cancels steps and hands its leases back
	Stopped          State = "stopped"           // does nothing
)

// States lists all states in the order of a host's life.
var States = []State{Startup, Normal, GracefulShutdown, Emergency, Stopped}

// Edges is the table of legal transitions. A state may also be set again, which changes
// nothing. SIGTERM may arrive while the host is still starting, hence startup →
// graceful_shutdown.
var Edges = map[State][]State{
	Startup:          {Normal, GracefulShutdown, Emergency, Stopped},
	Normal:           {GracefulShutdown, Emergency, Stopped},
	GracefulShutdown: {Emergency, Stopped},
	Emergency:        {Stopped},
	Stopped:          {Startup},
}

// duties is what a state allows a host to do.
type duties struct {
	claims, finishes, finalizes, swaps, scales, handsBack, ready, live bool
}

var table = map[State]duties{
	Startup:          {live: true},
	Normal:           {claims: true, finishes: true, finalizes: true, swaps: true, scales: true, ready: true, live: true},
	GracefulShutdown: {finishes: true, finalizes: true, live: true},
	Emergency:        {handsBack: true, live: true},
	Stopped:          {},
}

// ClaimsWork reports whether the host takes new work: requests and steps.
func (s State) ClaimsWork() bool { return table[s].claims }

// FinishesWork reports whether running steps continue and are settled.
func (s State) FinishesWork() bool { return table[s].finishes }

// Finalizes reports whether the host finalizes tasks.
func (s State) Finalizes() bool { return table[s].finalizes }

// SwapsPlugins reports whether plugins may be replaced.
func (s State) SwapsPlugins() bool { return table[s].swaps }

// Scales reports whether scaling decisions are applied.
func (s State) Scales() bool { return table[s].scales }

// HandsLeasesBack reports whether running steps are cancelled and their leases given
// back.
func (s State) HandsLeasesBack() bool { return table[s].handsBack }

// Ready is the answer to a readiness probe.
func (s State) Ready() bool { return table[s].ready }

// Live is the answer to a liveness probe.
func (s State) Live() bool { return table[s].live }

// Change is one transition of the machine.
type Change struct {
	From, To State
	Reason   string // why, for people: "SIGTERM", "plugin arithmetic does not start"
	At       time.Time
}

// TransitionError is returned if there is no transition between two states.
type TransitionError struct{ From, To State }

// Error names both states.
func (e *TransitionError) Error() string {
	return fmt.Sprintf("operational state cannot go from %s to %s", e.From, e.To)
}

// Machine holds the operational state. It is safe for concurrent use.
type Machine struct {
	now func() time.Time

	mu      sync.RWMutex // guards the fields below
	last    Change
	changed chan struct{} // closed and replaced at every change
}

// New returns a machine in Startup. now provides the times of changes.
func New(now func() time.Time) *Machine {
	return &Machine{
		now:     now,
		last:    Change{From: Stopped, To: Startup, Reason: "created", At: now()},
		changed: make(chan struct{}),
	}
}

// State returns the current state.
func (m *Machine) State() State {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.last.To
}

// To moves to a state for the given reason. Setting the current state again changes
// nothing. If the transition is illegal, To returns a *TransitionError and the change
// that led to the current state, which stays.
func (m *Machine) To(state State, reason string) (Change, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	from := m.last.To
	if state == from {
		return m.last, nil
	}
	if !slices.Contains(Edges[from], state) {
		return m.last, &TransitionError{From: from, To: state}
	}
	m.last = Change{From: from, To: state, Reason: reason, At: m.now()}
	close(m.changed)
	m.changed = make(chan struct{})
	return m.last, nil
}

// Watch returns the change that led to the current state and a channel that is closed at
// the next one. A watcher that loops over it always sees the latest state, but may skip
// states that it was too slow for.
func (m *Machine) Watch() (Change, <-chan struct{}) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.last, m.changed
}

// Wait returns once ok holds for the current state, or with ctx's cause.
func (m *Machine) Wait(ctx context.Context, ok func(State) bool) (State, error) {
	for {
		change, changed := m.Watch()
		if ok(change.To) {
			return change.To, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return change.To, context.Cause(ctx)
		}
	}
}
