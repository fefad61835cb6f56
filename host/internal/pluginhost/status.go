package pluginhost

import (
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/journal"
)

// State is what a plugin is doing.
type State string

// The states of a plugin.
//
//	stopped ──► starting ──► serving ──► draining ──► stopped
//	               ▲  │         │
//	               │  └────┬────┘ did not start, or ended
//	               │       ▼
//	               ├── backing_off ◄──
//	               └── failed            too many exits: rests longer
const (
	Stopped    State = "stopped"
	Starting   State = "starting"
	Serving    State = "serving"
	BackingOff State = "backing_off"
	Failed     State = "failed"
	Draining   State = "draining"
)

var states = []State{Stopped, Starting, Serving, BackingOff, Failed, Draining}

// Status is the visible state of a plugin.
type Status struct {
	Kind, Name string
	State      State
	Since      time.Time // in this state
	Version    string    // as the plugin describes itself
	SHA256     string    // of what runs, or last ran
	Generation uint64    // the process that serves; 0: none
	PID        int
	StartedAt  time.Time // of that process; zero: none
	Handlers   []string
	Others     []string // algorithms and health services, as kind/name
	InFlight   int      // calls that have not ended
	Window     int
	Restarts   int    // since the host started
	LastError  string // why it last failed; empty: it never did
	Required   bool
	Next       uint64 // the generation being rolled out; 0: none
	Limits     string // of what serves, in brief: its user if it has one, and what is not enforced; empty: there are none
}

// GenerationStatus is the visible state of one generation.
type GenerationStatus struct {
	Number   uint64
	Phase    Phase
	Since    time.Time // in this phase
	Reason   string    // for the last phase change
	SHA256   string
	Path     string // where the executable was taken in from; empty: it was in the store
	Version  string
	PID      int
	Started  time.Time
	InFlight int
	Weight   int // percent of the tasks, for a canary
	// For a canary or a shadow: the calls, or copies of calls, in this step of its
	// rollout, how many are needed, and how many copies it answered differently.
	Compared, Needed, Differed int
	Limits                     string // its user, if it has one, and how the limits of the process are enforced
}

// Explanation is everything the host knows about a slot.
type Explanation struct {
	Status
	Rollout     Rollout
	Generations []GenerationStatus // running ones, and some that ended recently; oldest first
	Quarantined []Quarantine
	// OnTrialUntil is when the comparison of the serving generation with the previous one
	// ends; zero: it is not on trial.
	OnTrialUntil time.Time
	// StandbyUntil is how long the generation that served before is kept warm; zero: none
	// is.
	StandbyUntil time.Time
}

// Explain returns everything the host knows about a slot.
func (h *Host) Explain(id SlotID) (Explanation, error) {
	s, err := h.slot(id)
	if err != nil {
		return Explanation{}, err
	}
	return s.explain(), nil
}

func (s *slot) explain() Explanation {
	e := Explanation{Status: s.status(), Quarantined: s.host.quarantine.of(s.id)}
	s.mu.Lock()
	defer s.mu.Unlock()
	e.Rollout = s.spec.Rollout
	for _, g := range s.shown {
		e.Generations = append(e.Generations, g.status())
	}
	if s.trial.of != nil && s.trial.of == s.primary {
		e.OnTrialUntil = s.trial.until
	}
	if s.standby != nil {
		e.StandbyUntil = s.standby.moved.Add(s.spec.RollbackWindow)
	}
	return e
}

// status returns the visible state. The caller holds the slot's lock.
func (g *generation) status() GenerationStatus {
	st := GenerationStatus{
		Number: g.number, Phase: g.phase, Since: g.moved, Reason: g.reason, SHA256: g.runs.stored.SHA256,
		Path: g.runs.spec.Path, Version: g.version, Started: g.since, InFlight: int(g.leases.Load()), Weight: g.weight,
	}
	if g.proc != nil {
		st.PID, st.Limits = g.proc.Pid(), g.limits
	}
	if g.phase == journal.Canary || g.phase == journal.Shadow {
		st.Compared, st.Needed, st.Differed = int(g.compared.Load()), g.runs.spec.Rollout.MinSamples, int(g.differed.Load())
	}
	return st
}

func (s *slot) status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{
		Kind: s.id.Kind, Name: s.id.Name, State: s.state, Since: s.since, Restarts: s.restarts, LastError: s.lastErr,
		Required: s.spec.Required,
	}
	if s.want != nil {
		st.SHA256 = s.want.stored.SHA256
	}
	if g := s.primary; g != nil {
		st.Version, st.Generation, st.PID, st.StartedAt, st.SHA256 = g.version, g.number, g.proc.Pid(), g.since, g.runs.stored.SHA256
		st.Handlers, st.InFlight, st.Window, st.Limits = g.handlers, int(g.leases.Load()), g.window, g.limited
		for _, t := range g.others {
			st.Others = append(st.Others, t.kind+"/"+t.name)
		}
	}
	if g := s.candidate; g != nil {
		st.Next = g.number
	}
	return st
}
