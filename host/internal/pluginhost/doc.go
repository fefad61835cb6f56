// Package pluginhost keeps the plugins that run steps alive and carries steps
// to them.
//
//	Dispatch ─► route table ─► generation ─► stream ══► plugin process
//	                 ▲             ▲                        │
//	                 └──── slot ───┘ ◄── exits, hangs ──────┘
//
// A [Host] has a slot for each configured plugin. The slot's goroutine takes
// the executable in (package artifact), starts it as a process in a box (package
// process), asks it to describe, configure and test itself, and routes its
// handlers to it. A started process is a generation: its number is unique over
// hosts and for ever, and every outcome and log line carries it.
//
// The route table is immutable and is exchanged as a whole; a call holds a lease
// on its generation, so a generation can be taken out of the table and retired
// when its last call has ended. That is how a process with hanging calls is
// replaced, and how plugins will be swapped while work runs.
//
// What the caller can rely on: a call never blocks and has exactly one outcome.
// If its process dies, its stream breaks, or the host stops, it is released: the
// handler gave no verdict, and no attempt should be charged. If the handler
// ignores the step's timeout the host ends the call two seconds later. While a
// plugin is down its handlers are not served, [Host.Services] says so, and
// nothing should be claimed for them. A plugin that crashes in a loop rests.
//
// The package reads no configuration files, knows nothing of the database, and
// does not look into steps or results. Core makes the Host, starts it before
// work is claimed and stops it after claiming has ended.
package pluginhost
