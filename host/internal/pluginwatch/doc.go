// Package pluginwatch keeps what runs in step with plugins.toml while the host
// runs. It reacts to a binary that is renamed into place, an edit of plugins.toml
// or plugins.lock, or a command from an operator.
//
//	events of the directories ─► rest ─► look ─► select ─► plan of changes ─► Engine
//	     a look now and then ──────────────┘        │
//	                              wrong: the last good selection stays
//
// The system's events are only hints: what counts is whether the files have changed
// since the last look and are no longer changing. What was selected is compared
// with what was selected before, not with what runs, so a swap or a rollback by an
// operator stays in effect until somebody changes the plugin's file or settings.
//
// If plugins.toml or plugins.lock as a whole is invalid, nothing changes; if one
// plugin's binary is, nothing changes for that plugin. [Watcher.Status] shows both
// for as long as they last.
//
// The package knows the engine that runs plugins only as an interface. Core creates
// the Watcher, lets it select before the plugins start, starts it after them and
// stops it before them.
package pluginwatch
