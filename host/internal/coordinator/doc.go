// Package coordinator decides how large the host's pools of executors are.
//
//	pools ─► samples ─► window ─► algorithm ─► governor ─► decision ─► resize
//	  ▲                            (plugin or      (policy)      │
//	  │                             built-in)                    ▼
//	  └───────────────────────────────────────────────────── history
//
// At every interval it cuts a sample of each pool, adds what waits for it in the
// database, and asks the pool's algorithm, concurrently for all pools: a slow one delays
// only its own pool. The algorithm is never trusted, see package scaling. Its advice, the
// rules that changed it and the reasons are kept as the pool's history. A pool's
// algorithm may have a shadow, whose advice is recorded as well.
//
// Bounds, algorithm and pause of a pool can be changed while it runs. Settings that
// exceed the resources of the host or the database server are refused, or cause a
// warning.
//
// The package does not know what executors do, where algorithms come from, or the
// database: core provides the pools, the algorithms and the facts, and runs and stops it.
// Errors: [ErrNoPool], [*RefusedError].
package coordinator
