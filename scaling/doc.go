// Package scaling is the thinking about how large a pool of executors should
// be: what is measured of it (Meter, Window), what a scaling algorithm's advice
// may do to it (Policy, Governor), and the record of why it has its size
// (Decision, Journal).
//
//	what happens ─► Meter ─► Window ─► algorithm ─► Governor ─► Decision ─► resize
//	                samples            advice        policy        │
//	                                                               ▼
//	                                                            Journal
//
// Algorithms implement sdk/scaler and live in packages of their own below this
// one; scaling/builtin knows them all by name. An algorithm is never trusted: a
// wrong, late or missing answer leaves the pool as it is, and what it asks goes
// through the policy's rules one after another:
//
//	stabilization  shrink no further than the largest advice of the window
//	dead band      small differences are none
//	reversal       turn round at most once a window
//	cooldown       after a change, wait
//	step           change by so many at once at most
//	bounds         between min and max, whatever the rules before say
//	budget         never more than the host's resources bear, whatever min says
//
// Each rule that changes something is recorded with what it made of what, and
// why.
//
// The package has no clock, no input and no output: time comes with the
// observation. The values belong to one goroutine each, but Journal, which many
// may read. Whoever owns a pool drives them: the host's coordinator, or the
// simulator in scaling/sim.
package scaling
