// Package breaker keeps the host from calling what does not answer. A [Set] holds one
// [Breaker] for each dependency, and for each queue and class of operation, so that one
// bad queue stops neither the others nor what settles its work.
//
//	          failures in a row                timeout, or proof of life
//	closed ──────────────────────► open ──────────────────────────────► half_open
//	   ▲                             ▲                                      │
//	   │   as many probes succeed    │             a probe fails            │
//	   └─────────────────────────────┴──────────────────────────────────────┘
//	any ──► forced_open, by an operator, until an operator ends it
//
// gobreaker counts, and bounds the probes of the half-open state: no more are let through
// than successes are needed. How long a breaker stays open is decided here, because a
// dependency that has proved to be back (see [Breaker.Recovered]) need not wait for the
// end of the timeout.
//
// The caller decides which errors are failures: an answer from a dependency, even a
// refusal, is not a failure of the dependency.
//
// The package knows nothing about databases or queues, starts nothing and keeps no state
// over a restart. Refusals wrap [ErrOpen].
package breaker
