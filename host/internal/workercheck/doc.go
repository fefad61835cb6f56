// Package workercheck checks an outside worker, in any language: it runs the
// worker's command against a separate host, gives it work with a known outcome,
// and interferes as happens in practice: it cancels, revokes a lease, stops the
// worker. docs/write-a-worker.md says what it expects of the worker.
//
// It sees the worker only through the database and the host's API. The caller
// starts a host on a throw-away database and creates a role for the worker; the
// package starts and ends the worker's process.
package workercheck
