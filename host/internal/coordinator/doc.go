// Package coordinator decides how large the host's pools of executors are.
//
//	pools ─► samples ─► window ─► algorithm ─► governor ─► decision ─► resize
//	  ▲                            (plugin or      (policy)      │
//	  │                             built-in)                    ▼
//	  └───────────────────────────────────────────────────── history
//
// At every interval it cuts a sample of each pool, adds what waits for it in the
// database, and asks the pool's algorithm, each pool beside the others: one that
// is slow holds its own pool only. The algorithm is never trusted, see package
// scaling. What it advises, which rules changed it and why is kept as the pool's
// history. A pool's algorithm may have a shadow, whose advice is recorded beside.
//
// Bounds, algorithm and pause of a pool can be changed while it runs; what the
// resources of the host and the database's server do not bear is refused or
// warned of.
//
// The package knows neither what executors do nor where algorithms come from nor
// the database: core gives it the pools, the algorithms and the facts. Core runs
// and stops it. Errors: [ErrNoPool], [*RefusedError].
package coordinator
