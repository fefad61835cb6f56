// Package journal says what can become of a plugin process, and keeps account
// of it: who did what to which slot, when and why.
//
//	discovered ─► verified ─► starting ─► handshaken ─► configured ─► probing
//	     │           │            └────────────┴────────────┴───────────┤
//	     └─────┬─────┘                                                  ▼
//	           ▼                                                      failed
//	       rejected
//
//	probing ──┬────────────► active ◄────┬───────────┐
//	          ├─► shadow ─┐    │ ▲       │           │
//	          ├─► canary ◄┘    │ └──► unhealthy      │
//	          │     │          ▼         │           │
//	          │     └───────► draining ◄─┘           │
//	          │                │   │                 │
//	          │                │   └──► standby ─────┘
//	          │                ▼            │
//	          └───────────► stopping ◄──────┘──► stopped
//
// Whatever has a process may crash. An executable that crashes too often, or was
// rolled back, goes from verified to quarantined, and only a person lets it out.
// The table in phase.go is all of it.
//
// Every edge is an [Event]. A [Log] hands events to a [Journal], which is the
// database: a change that somebody asked for waits until it is written, and is
// not made if it cannot be; what the host had to do at once, because a process
// ended, is written later with its true time. [Replay] rebuilds from the events
// which process served what at any moment.
//
// The package starts no processes and knows no database. A Log is started by
// the plugin host and ends with it.
package journal
