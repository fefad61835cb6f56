// Package breaker keeps the host from asking what does not answer. A [Set] holds
// one [Breaker] for each dependency, and for each queue and class of operation,
// so that one bad queue stops neither the others nor what settles its work.
//
//	          failures in a row                timeout, or proof of life
//	closed ──────────────────────► open ──────────────────────────────► half_open
//	   ▲                             ▲                                      │
//	   │   as many probes succeed    │             a probe fails            │
//	   └─────────────────────────────┴──────────────────────────────────────┘
//	any ──► forced_open, by an operator, until an operator ends it
//
// gobreaker counts, and bounds the probes of the half-open state: no more are let
// through than successes are needed. How long it stays open is decided here,
// because a dependency that is proved to be back (see [Breaker.Recovered]) need
// not wait for the end of the timeout.
//
// Which errors are failures is the caller's to say: what a dependency answers,
// be it a refusal, is no failure of the dependency.
//
// The package knows neither databases nor queues, starts nothing and keeps no
// state over a restart. Refusals wrap [ErrOpen].
package breaker
