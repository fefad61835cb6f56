// Package store is the SQL of tasks, steps, templates and hosts: every statement
// the trusted core sends about them, behind methods that take and return batches.
//
// The engine's moves are SQL functions (migrations/sql), one call and one
// transaction each: a state change, the message it causes and the removal of the
// message it consumes commit together. This package passes arrays in and reads
// arrays out; it decides nothing. What a move means is written beside its
// function.
//
// # Errors
//
// A method returns the error of the driver, wrapped with the operation. [Classify]
// says what may be done about it. In particular the outcome of a call whose
// connection broke is unknown: it may have committed. Every call can be repeated
// with the same keys (leases, task UUIDs, idempotency keys) and then says what
// had happened; the leases that a lost reply granted are found with HostLeases.
//
// The store holds no state but the pool and a cache of plans, which never
// change. It starts no goroutine; whoever opened the pool closes it.
package store
