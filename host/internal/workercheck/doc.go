// Package workercheck judges an outside worker, in whatever language: it starts
// the worker's command against a host of its own, gives it work whose outcome is
// known, and interferes as the world does: it cancels, takes a lease away, stops
// the worker. What it asks of the worker is written in docs/write-a-worker.md.
//
// It knows the worker by the database and the host's API only. The caller has
// brought up a host on a database that is worth nothing, and made a role for the
// worker; the package starts and ends the worker's process.
package workercheck
