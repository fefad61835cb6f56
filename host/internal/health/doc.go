// Package health checks a host at intervals, and when its operational state changes, and
// reports what it found.
//
//	checks ─► Monitor ─► report (probes, API, metrics)
//	             │
//	             └─► events ─► Sink (log, health-reporter plugins)
//
// A [Check] is a function with a deadline; core builds them from the host's parts. A
// check that does not answer in time is unknown, never healthy, and is not asked again
// until it has returned. [Monitor.Report] returns what the last look found, so a probe
// costs nothing and never waits; a report that is too old, because the monitor itself is
// stuck, is unknown as well.
//
// A check that goes bad raises an event after it was bad in [Config.RaiseAfter] looks in
// a row, and another when it is healthy again. The operational state determines what an
// event means: while the host starts or shuts down, the checks of its own work are
// expected to be bad, so their events are reported but raise no alarm; checks of what the
// host depends on raise one in every state except emergency and stopped. So a planned
// shutdown is quiet, but a database failure during it is not.
//
// The package does not know the database or plugins. Core starts the monitor when the
// parts that it checks exist, and stops it before them.
package health
