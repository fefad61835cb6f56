// Package pluginwatch keeps what runs in step with what plugins.toml names,
// while the host runs: a binary put in place by renaming, an edit of plugins.toml
// or plugins.lock, or a call of an operator.
//
//	events of the directories ─► rest ─► look ─► select ─► plan of changes ─► Engine
//	     a look now and then ──────────────┘        │
//	                              wrong: the last good selection stays
//
// The system's events are hints: what counts is whether the files are others
// than at the last look and have come to rest. What was selected is compared with
// what was selected before, not with what runs, so a swap or a rollback by an
// operator holds until somebody changes the plugin's file or settings.
//
// A fault of plugins.toml or plugins.lock as a whole changes nothing; a fault of
// one plugin's binary changes nothing for that plugin. [Watcher.Status] tells
// both for as long as they last.
//
// The package knows the engine that runs plugins by an interface. Core makes the
// Watcher, has it select before the plugins start, starts it after them and stops
// it before them.
package pluginwatch
