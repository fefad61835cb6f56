// Package latency sizes a pool so that work does not wait longer than wanted,
// by Little's law (L = λW: what is inside equals what arrives in a second times
// how long it stays).
//
// Busy executors are what is inside them: λ·S, with S the seconds of work in one
// piece. A queue in which nobody waits longer than W holds at most λ·W; what
// waits beyond that must be worked off, within W again:
//
//	n = λ·S/headroom + max(0, depth - λ·W) · S/W
//
// J. D. C. Little, A Proof for the Queuing Formula: L = λW, Operations Research
// 9 (1961).
package latency
