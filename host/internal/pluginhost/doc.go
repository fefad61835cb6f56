// Package pluginhost keeps plugins alive, carries steps and questions to them,
// and changes what they run while work goes on.
//
//	Dispatch ─► route table ─► generation ─► stream ══► plugin process
//	                 ▲             ▲                        │
//	                 └──── slot ───┘ ◄── exits, hangs ──────┘
//
// A [Host] has a slot for each configured plugin. A slot takes the executable in
// (package artifact), starts it as a process in a box (package process), asks it
// to describe, configure and test itself, and routes to it what it serves. A
// started process is a generation: its number is unique over hosts and for ever,
// and every outcome and log line carries it.
//
// The route table is immutable and is exchanged as a whole; a call holds a lease
// on its generation. So a slot can have several at once:
//
//	          ready                    does no worse          replaced
//	new ───┬──────────────────────────┬────────────► active ──────────► draining
//	       │   ┌────────┐   ┌────────┐│                ▲                   │ calls have ended
//	       └──►│ shadow ├──►│ canary ├┘                │ rollback,         ▼
//	           └────────┘   └────────┘                 │ crash         standby ──► stopped
//	           gets copies   gets a part               └───────────────────┘ after the
//	                                                                        rollback window
//
// All phases and edges are in package journal, which keeps the account of them.
//
// A swap ([Host.Swap], [Host.Apply]) starts the new generation beside the old,
// and lets it take over by one store; what fails before leaves the old one
// serving. The calls of the old one end there; what it was not sent yet goes to
// the new one. On trial the new one is compared with the old (package rollout):
// if it crashes or does worse, the old one, which is warm, takes the calls back
// by one store, and what was taken back is in quarantine: the slot does not run
// it again until a person says so. A release that crashes in a loop later ends
// the same way, if another has served before.
//
// What the caller can rely on: a call never blocks and has exactly one outcome.
// If its process dies, its stream breaks, or the host stops, it is released: the
// handler gave no verdict, and no attempt should be charged. If the handler
// ignores the step's timeout the host ends the call two seconds later. While a
// plugin is down its handlers are not served, [Host.Services] says so, and
// nothing should be claimed for them. Questions ([Host.Scale], [Host.Check],
// [Host.Report]) have deadlines, and errors that say whether nobody serves, the
// answer was late or the plugin is broken: what to do without an answer is the
// caller's to decide.
//
// Changes that somebody asks for are written down before they are made, and are
// not made if they cannot be. What the host does because a process has ended or
// does badly is done at once and written down later.
//
// The package reads no configuration files, knows no database, and does not look
// into steps or results. Core makes the Host, starts it before work is claimed
// and stops it after claiming has ended.
package pluginhost
