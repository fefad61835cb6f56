// Package pipeline moves work through the host: requests become tasks, leased steps go to
// plugins, outcomes are recorded, and the steps that become ready go through the same
// cycle.
//
//	submit ──► create ──────────────┐ leases          ┌── outcomes
//	queue  ──► claim  ──────────────┤                 ▼
//	                                ├──► dispatch ─► plugin
//	                                │ leases          │
//	           settle ◄─────────────┴─────────────────┘
//
// Create, claim and settle are each one SQL call for a whole batch, see package store.
// Whatever arrives while a call is in progress goes with the next one, so batches are
// small when there is little to do and large under load, and nothing ever waits for a
// timer. A step's children come back from settle already leased, as far as the host has
// room; the rest go through the namespace's queue, to whichever host or worker takes
// them.
//
// # What holds what
//
// The database is the only source of truth. This package keeps in memory the leases that
// the host works under (held), how many more it may take (capacity), and a cache of
// inputs that never change. Losing any of it loses no work: the steps of a host whose
// heartbeat stops are given to others. Leases granted in a reply that was lost are found
// by comparing held with the database (reconcile), and given back once no call is in
// progress that could still bring them (grants).
//
// # Rules
//
// No plugin is called inside a transaction. No outcome is dropped: a settle that cannot
// reach the database is repeated until it is recorded, refused as stale, or the host
// gives up. An outcome that the database refuses to store fails only its own step.
//
// The composition root starts and stops the Engine. Stopping takes two calls: Drain stops
// taking work and waits for running steps; Stop ends the rest and hands its leases back.
package pipeline
