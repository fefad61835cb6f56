package pluginhost

import "time"

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

// Status is what people see of a plugin.
type Status struct {
	Kind, Name string
	State      State
	Since      time.Time // in this state
	Version    string    // as the plugin describes itself
	SHA256     string    // of what runs, or ran last
	Generation uint64    // the process that serves; 0: none
	PID        int
	StartedAt  time.Time // of that process; zero: none
	Handlers   []string
	InFlight   int // calls that have not ended
	Window     int
	Restarts   int    // since the host started
	LastError  string // why it last failed; empty: it never has
}
