// Package pipeline moves work through the host: requests become tasks, leased
// steps go to plugins, outcomes are recorded, and what that makes ready goes
// round again.
//
//	submit ──► create ──────────────┐ leases          ┌── outcomes
//	queue  ──► claim  ──────────────┤                 ▼
//	                                ├──► dispatch ─► plugin
//	                                │ leases          │
//	           settle ◄─────────────┴─────────────────┘
//
// Create, claim and settle are each one SQL call for a whole batch, see package
// store; whatever arrives while one call is under way goes with the next, so
// batches are small when there is little to do and large under load, and nothing
// ever waits for a timer. A step's children come back from settle already
// leased, as far as the host has room; the rest go through the namespace's
// queue, to whichever host or worker takes them.
//
// # What holds what
//
// The database holds all truth. This package holds, in memory, the leases the
// host works under (held), how many more it may take (capacity), and a cache of
// inputs that never change. Losing any of it loses no work: the steps of a host
// whose heartbeat stops are given to others. What a lost reply granted is found
// again by comparing held with the database (reconcile), and given back once no
// call is under way that could still bring it (grants).
//
// # Rules
//
// No plugin call inside a transaction. No outcome is dropped: a settle that
// cannot reach the database is repeated until it is recorded, refused as stale,
// or the host gives up. An outcome that the database refuses to store fails its
// own step only.
//
// The Engine is started and stopped by the composition root. It is stopped in
// two moves: Drain stops taking work and waits for what runs; Stop ends the
// rest and hands its leases back.
package pipeline
