// Package scaling decides how large a pool of executors should be: it holds what is measured of
// a pool (Meter, Window), what an algorithm's advice may do to it (Policy, Governor), and the
// record of why it has its size (Decision, Journal).
//
//	what happens ─► Meter ─► Window ─► algorithm ─► Governor ─► Decision ─► resize
//	                samples            advice        policy        │
//	                                                               ▼
//	                                                            Journal
//
// Algorithms implement sdk/scaler and live in their own packages below this one;
// scaling/builtin knows them all by name. An algorithm is never trusted: a wrong, late or
// missing answer leaves the pool as it is, and its advice goes through the policy's rules one
// after another:
//
//	stabilization  shrink no further than the largest advice of the window
//	dead band      ignore small differences
//	reversal       change direction at most once per window
//	cooldown       wait after a change
//	step           limit how much one change may do
//	bounds         stay between min and max, whatever the rules before say
//	budget         never exceed the host's resources, whatever min says
//
// Each rule that changes something is recorded, with the size before and after it and the
// reason.
//
// The package has no clock and does no I/O: the time comes with the observation. Each value
// belongs to one goroutine, except Journal, which many may read. The owner of a pool drives
// them: the host's coordinator, or the simulator in scaling/sim.
package scaling
