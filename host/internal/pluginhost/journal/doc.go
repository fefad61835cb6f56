// Package journal defines what can become of a plugin process, and records it: who did
// what to which slot, when and why.
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
// Anything that has a process may crash. An executable that crashes too often, or was
// rolled back, goes from verified to quarantined, and only a person can release it. The
// table in phase.go is complete.
//
// Every transition is an [Event]. A [Log] passes events to a [Journal], which is the
// database: a requested change waits until it is recorded, and is not made if it cannot
// be; what the host had to do at once, because a process ended, is recorded later with
// its true time. [Replay] reconstructs from the events which process served what at any
// moment.
//
// The package starts no processes and knows nothing about the database. The plugin host
// starts a Log, which ends with it.
package journal
