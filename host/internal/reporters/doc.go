// Package reporters stands between the host's health and the plugins of kind
// health: it asks the checkers among them, and carries events to the reporters.
//
// [Plugins.Look] is a check for the health monitor. A checker that is down, late
// or broken is unknown.
//
// [Plugins.Report] takes events and returns at once. Each reporter has a queue
// and a goroutine of its own, so that one that hangs holds up nobody else. Events
// are sent in their order, at least once, until the reporter takes them, rejects
// them, or [maxWaiting] newer ones have come. A reporter that joins later hears
// of what happens from then on.
package reporters
