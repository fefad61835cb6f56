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
//
// # Why a result counts once
//
// 1. A claim writes a fresh random lease id into the step's row, whether it comes
// from the queue, with a finished parent, with a new task or by adoption. It needs
// a step that waits (enqueued, or pending and due, all parents satisfied) and
// leaves it in_progress. Of two at once the second waits for the row's lock and
// looks at the row again: it finds in_progress and gets nothing.
//
// 2. An outcome is written by one update that asks for in_progress and for the
// lease id it ran under, and that leaves in_progress. After it no update with
// this lease id finds the row: nobody is given the id again, and a step that runs
// anew has another. So at most one outcome is recorded for a lease. A number of
// attempts would not do: an operator may set it back.
//
// 3. What the outcome causes is in the same transaction: the history, the count
// of each child, the end of the task, the messages. It happens once because the
// outcome does; and a child becomes ready in the one transaction that takes its
// count to zero, since counting holds the child's row until it commits.
//
// 4. Whoever repeats a call whose reply was lost finds 2: the verdict is
// already_recorded as long as the lease is the step's latest, stale_lease after.
//
// # Why a step is never lost
//
// Every step of an active task that is not settled is in one of four places, and
// each has something that wakes it. Moves go from one place to another in one
// transaction, so a crash leaves it in one of them.
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
// A claim deletes the message it takes, but it drops no other's: a message for a
// step that is not due is one too many, since the step's own is invisible until
// then; one for a step that is not enqueued has nothing to wake.
//
// A host that was declared dead is given nothing (tasker_may_lease). Giving leases
// to a host and giving them back exclude each other by a lock on its number, so a
// claim that was under way is either seen by ReleaseHost or finds the host dead.
// ReleaseHost looks again under each row's lock: what was settled meanwhile is
// left alone, and a host that lives on answers with a lease that is void (2).
//
// A task that has nothing that moves is finished by whoever took the last of it
// away (migrations/sql, 00040_settle.sql); if somebody did so past the functions,
// SweepMessages reports it to the finalizer. The tests prove as much as tests can:
// TestProtocol plays random histories against a model and an oracle of these
// invariants, and TestMutants shows that no guard can be taken out unnoticed.
package store
