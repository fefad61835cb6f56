// Package store is the SQL of tasks, steps, templates and hosts: every statement
// the trusted core sends about them, behind methods that take and return batches.
//
// The engine's moves are SQL functions (migrations/sql), one call and one
// transaction each: a state change, the message that it causes and the removal of
// the message that it consumes commit together. This package passes arrays in and
// reads arrays out; it decides nothing. What a move means is documented with its
// function.
//
// # Errors
//
// A method returns the error of the driver, wrapped with the operation. [Classify]
// tells what may be done about it. In particular, the outcome of a call whose
// connection broke is unknown: it may have committed. Every call can be repeated
// with the same keys (leases, task UUIDs, idempotency keys) and then reports what
// had happened; the leases that a lost reply granted are found with HostLeases.
//
// The store holds no state except the pool and a cache of plans, which never
// change. It starts no goroutine; whoever opened the pool closes it.
//
// # Why a result counts once
//
// 1. A claim writes a fresh random lease id into the step's row, whether the claim
// comes from the queue, with a finished parent, with a new task or by adoption. It
// requires a step that waits (enqueued, or pending and due, all parents satisfied)
// and leaves it in_progress. If two claim it at once, the second waits for the
// row's lock and looks at the row again: it finds in_progress and gets nothing.
//
// 2. An outcome is written by a single update that requires in_progress and the
// lease id that the attempt ran under, and that leaves in_progress. After that no
// update with this lease id finds the row: the id is never issued again, and a step
// that runs again has another. So at most one outcome is recorded for a lease. A
// count of attempts could not serve as the fence: an operator may reset it.
//
// 3. Everything that the outcome causes is in the same transaction: the history, the
// count of each child, the end of the task, the messages. It happens once because
// the outcome does. A child becomes ready in the one transaction that takes its
// count to zero, since counting holds the child's row until it commits.
//
// 4. By 2, a repeated call whose first reply was lost gets the verdict
// already_recorded as long as the lease is the step's latest, and stale_lease after.
//
// # Why a step is never lost
//
// Every step of an active task that is not settled is in one of four places, and
// in each of them something wakes it. Steps move from one place to another in one
// transaction, so a crash leaves a step in one of them.
//
//	waits for parents            its count is the number of unsatisfied ones (3);
//	                             each of them is in one of these places, or has
//	                             failed: then the task fails when nothing moves
//	enqueued                     its message, or, if that was lost, SweepMessages
//	pending until its due time   its message, invisible until then, or SweepMessages
//	in_progress                  its host's row: when alive_until has passed,
//	                             SweepHosts declares the host dead and ReleaseHost
//	                             gives back what it held
//
// A claim deletes the messages that it takes, but never one that a step which it does
// not lease still needs. A message for a step that is not due is superfluous, since
// the step's own is invisible until then. A message for a step that is not enqueued
// has nothing to wake.
//
// A host that was declared dead is given nothing (tasker_may_lease). Giving leases
// to a host and taking them back exclude each other through a lock on its number, so
// a claim that was in progress is either seen by ReleaseHost or finds the host dead.
// ReleaseHost looks again under each row's lock: steps that were settled meanwhile
// are left alone, and a host that lives on reports outcomes under void leases (2).
//
// A task in which nothing moves any more is finished by whoever removed the last
// thing that did (migrations/sql, 00040_settle.sql). If somebody did so bypassing
// the functions, SweepMessages reports the task to the finalizer. The tests prove as
// much as tests can: TestProtocol plays random histories against a model and an
// oracle of these invariants, and TestMutants shows that no guard can be removed
// unnoticed.
package store
