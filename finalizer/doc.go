// Package finalizer finishes tasks beside the transaction that settles their
// last step: tasks found with nothing moving in them, repaired tasks, and
// callers from outside. It claims a task, inspects it, decides, applies the
// decision and releases the claim. Its SQL is claim_task_for_finalization,
// tasker_apply_finalization and release_finalization_claim, which any caller may
// use as well.
//
// It does not know how steps run; it sees a task only through its execution
// context. It holds no state and starts nothing.
//
// # The ordinary way, and why this one exists
//
// Nearly every task is finished by tasker_settle_steps, in the transaction that
// records its last outcome (the argument for that is in migrations/sql). The
// sweep finds what does not fit there and brings it here. It inspects a task
// again until it is finished, so refusing a claim loses nothing.
//
// # Exactly once
//
//	in_progress ──claim (lease L, until T)──► in_progress, claimed
//	     ▲                                        │
//	     ├───────── release (L), or T passes ─────┤
//	     │                                        ▼
//	     └── not the current lease: refused ── apply (L) ──► complete | error
//
// 1. Every write that finishes a task goes through its row's lock and moves it
// out of in_progress; no edge leads back into in_progress except an operator's
// reset. So at most one write finishes it, whether it comes from settle or from
// here.
//
// 2. A claim's lease is random and new each time. Apply locks the row, and does
// nothing unless the lease is the row's current one and has not run out by the
// database's clock. So a finalizer that outlived its claim changes nothing, not
// even in the same process: there is no "claim extended".
//
// 3. Never early: apply does not trust the decision it was sent for. Under the
// lock, and with a snapshot taken after it, it checks whether anything can still
// move. Steps are only ever moved by transactions that lock the step's row first
// and, if the task is doomed, its task row after: either we see what they did,
// or they wait for us and then see what we did.
//
// 4. Never lost: nothing that a finalization removes is deleted before the
// finalization has happened. A crash at any point leaves the task in_progress
// with a claim that runs out, and the sweep's query finds it again.
//
// The models in models/finalize.pml check 1 to 4 with crashes and expiries, and
// the variants without each guard fail there.
package finalizer
