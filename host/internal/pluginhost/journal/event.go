package journal

import (
	"strings"
	"time"
)

// SlotID names a configured plugin.
type SlotID struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

// String returns kind/name, as people write it.
func (s SlotID) String() string { return s.Kind + "/" + s.Name }

// Actor is who did something: the host itself, its configuration, or a person or program
// by name.
type Actor string

// The actors that have no name.
const (
	ByHost   Actor = "host"
	ByConfig Actor = "config"
)

// Operator returns the actor for someone who requested something.
func Operator(name string) Actor { return Actor("operator:" + name) }

// IsOperator reports whether the actor is someone who requested something.
func (a Actor) IsOperator() bool { return strings.HasPrefix(string(a), "operator:") }

// Event is one transition of a generation, or of an executable, in which case it has no
// generation.
type Event struct {
	ID         int64     // set when it is read
	At         time.Time // when it happened
	Host       string    // set when it is read
	Slot       SlotID
	Generation uint64
	From, To   Phase
	Actor      Actor
	Reason     string
	SHA256     string // of the executable; empty: not known yet
	Config     string // digest of the settings it was started with
	Weight     int    // percent of the calls that it gets from now on; for a canary, below 100
	Version    string // as it describes itself; empty: not known
	SDKVersion string
	End        *End // set when the process has ended
}

// End is how a process ended.
type End struct {
	ExitCode int           // -1: by a signal
	Signal   int           // 0: by itself
	MaxRSS   int64         // bytes
	CPU      time.Duration // used
}

// Quarantine is an executable that a slot no longer runs.
type Quarantine struct {
	Slot   SlotID
	SHA256 string
	Config string // only with settings of this digest; empty: with any
	Since  time.Time
	Actor  Actor
	Reason string
}

// Covers reports whether the quarantine covers an executable with the given settings.
func (q *Quarantine) Covers(slot SlotID, sha256, config string) bool {
	return q.Slot == slot && q.SHA256 == sha256 && (q.Config == "" || q.Config == config)
}
