package journal

import (
	"maps"
	"slices"
)

// Phase is what a generation is doing.
type Phase string

// The phases of a generation.
const (
	Discovered  Phase = "discovered"  // a file was named
	Verified    Phase = "verified"    // it is in the store and has the expected hash
	Starting    Phase = "starting"    // executed, no handshake yet
	Handshaken  Phase = "handshaken"  // it described itself
	Configured  Phase = "configured"  // it accepted its options
	Probing     Phase = "probing"     // it tests itself
	Shadow      Phase = "shadow"      // it gets copies; its answers are discarded
	Canary      Phase = "canary"      // it gets a share of the calls
	Active      Phase = "active"      // it gets the calls
	Unhealthy   Phase = "unhealthy"   // it has lost the calls, and may get them back
	Draining    Phase = "draining"    // it gets no more calls and finishes those it has
	Standby     Phase = "standby"     // it is kept warm, to take the calls back
	Stopping    Phase = "stopping"    // it is told to end
	Stopped     Phase = "stopped"     // it has ended, as it was told to
	Crashed     Phase = "crashed"     // it has ended on its own
	Failed      Phase = "failed"      // it did not become ready
	Rejected    Phase = "rejected"    // for an executable: it was not accepted
	Quarantined Phase = "quarantined" // for an executable: the slot does not run it again
)

// edges is the state machine: the phases that may follow each phase.
var edges = map[Phase][]Phase{
	Discovered:  {Verified, Rejected},
	Verified:    {Starting, Rejected, Quarantined},
	Starting:    {Handshaken, Failed},
	Handshaken:  {Configured, Failed},
	Configured:  {Probing, Failed},
	Probing:     {Standby, Shadow, Canary, Active, Stopping, Failed},
	Shadow:      {Canary, Active, Stopping, Crashed},
	Canary:      {Canary, Active, Draining, Crashed}, // itself: another weight
	Active:      {Unhealthy, Draining, Crashed},
	Unhealthy:   {Active, Draining, Crashed},
	Draining:    {Standby, Stopping, Crashed},
	Standby:     {Active, Stopping, Crashed},
	Stopping:    {Stopped},
	Quarantined: {Verified}, // by a person
	Stopped:     nil,
	Crashed:     nil,
	Rejected:    nil,
	Failed:      nil,
}

// Phases returns all phases, sorted by name.
func Phases() []Phase { return slices.Sorted(maps.Keys(edges)) }

// Can reports whether a generation may go from one phase to another. The empty phase
// precedes the first.
func Can(from, to Phase) bool {
	if from == "" {
		return to == Discovered
	}
	return slices.Contains(edges[from], to)
}

// Running reports whether a generation in the phase has a process that may get calls, or
// has had some.
func (p Phase) Running() bool {
	switch p {
	case Shadow, Canary, Active, Unhealthy, Draining, Standby:
		return true
	default:
		return false
	}
}

// Routed reports whether calls, or copies of them, go to a generation in the
// phase.
func (p Phase) Routed() bool { return p == Active || p == Canary || p == Shadow }

// Over reports whether the phase is final: the process is gone or never existed.
func (p Phase) Over() bool {
	switch p {
	case Stopped, Crashed, Rejected, Failed:
		return true
	default:
		return false
	}
}
