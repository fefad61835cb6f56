// Package reporters connects the host's health monitoring with the plugins of kind
// health: it asks the checkers among them, and delivers events to the reporters.
//
// [Plugins.Look] is a check for the health monitor. The checks of a checker that is down,
// late or broken are unknown.
//
// [Plugins.Report] takes events and returns at once. Each reporter has its own queue and
// goroutine, so that one that hangs does not delay the others. Events are sent in order,
// at least once, until the reporter takes them, rejects them, or [maxWaiting] newer ones
// are waiting. A reporter that joins later receives only what happens from then on.
package reporters
