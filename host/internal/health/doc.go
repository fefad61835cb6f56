// Package health looks at a host at intervals, and when its operational state
// changes, and tells what it found.
//
//	checks ─► Monitor ─► report (probes, API, metrics)
//	             │
//	             └─► events ─► Sink (log, health-reporter plugins)
//
// A [Check] is a function with a deadline; core makes them of the parts it
// built. One that does not answer in time is unknown, never healthy, and is not
// asked again until it has returned. [Monitor.Report] answers from what the last
// look found, so a probe costs nothing and waits for nobody; a report that has
// grown old, because the monitor itself is stuck, is unknown too.
//
// A check that goes bad raises an event after it was bad in [Config.RaiseAfter]
// looks in a row, and another when it is well again. The operational state says
// what an event means: while the host starts or shuts down the checks of its own
// work are expected to be bad, so their events are told but raise no alarm; those
// of what the host depends on raise one in every state but emergency and
// stopped. So a planned shutdown is quiet, and a database that fails during it is
// not.
//
// The package knows no database and no plugin. Core starts the monitor when the
// parts it looks at exist, and stops it before they are stopped.
package health
