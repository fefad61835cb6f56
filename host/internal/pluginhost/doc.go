// Package pluginhost keeps plugins alive, carries steps and queries to them, and changes
// what they run while work continues.
//
//	Dispatch ─► route table ─► generation ─► stream ══► plugin process
//	                 ▲             ▲                        │
//	                 └──── slot ───┘ ◄── exits, hangs ──────┘
//
// A [Host] has a slot for each configured plugin. A slot takes in the executable (package
// artifact), starts it as a sandboxed process (package process), asks it to describe,
// configure and test itself, and routes to it what it serves. A started process is a
// generation: its number is unique across hosts and never reused, and every outcome and
// log line carries it.
//
// The route table is immutable and is replaced as a whole; a call holds a lease on its
// generation. So a slot can have several at once:
//
//	          ready                    does no worse          replaced
//	new ───┬──────────────────────────┬────────────► active ──────────► draining
//	       │   ┌────────┐   ┌────────┐│                ▲                   │ calls have ended
//	       └──►│ shadow ├──►│ canary ├┘                │ rollback,         ▼
//	           └────────┘   └────────┘                 │ crash         standby ──► stopped
//	           gets copies   gets a part               └───────────────────┘ after the
//	                                                                        rollback window
//
// Package journal defines all phases and transitions, and records them.
//
// A swap ([Host.Swap], [Host.Apply]) starts the new generation beside the old one, and
// lets it take over with a single store; if anything fails before that, the old one keeps
// serving. The calls of the old one end there; what it had not been sent yet goes to the
// new one. While on trial, the new one is compared with the old (package rollout). If it
// crashes or does worse, the old one, which is still warm, takes the calls back with a
// single store, and the rejected release is quarantined: the slot does not run it again
// until a person releases it. A release that later crashes in a loop ends the same way,
// if another one has served before.
//
// What the caller can rely on: a call never blocks and has exactly one outcome. If its
// process dies, its stream breaks, or the host stops, the call is released: the handler
// gave no verdict, and no attempt should be charged. If the handler ignores the step's
// timeout, the host ends the call two seconds later. While a plugin is down its handlers
// are not served, [Host.Services] says so, and nothing should be claimed for them.
// Queries ([Host.Scale], [Host.Check], [Host.Report]) have deadlines, and their errors
// tell whether nobody serves the name, the answer was late or the plugin is broken; the
// caller decides what to do without an answer.
//
// Requested changes are recorded before they are made, and are not made if they cannot be
// recorded. What the host does because a process has ended or does badly is done at once
// and recorded later.
//
// The package reads no configuration files, knows nothing about the database, and does
// not look into steps or results. Core creates the Host, starts it before work is claimed
// and stops it after claiming has ended.
package pluginhost
