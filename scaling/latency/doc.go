// Package latency sizes a pool so that work does not wait longer than wanted, by Little's law
// (L = λW: the work inside equals the arrivals per second times how long each stays).
//
// Busy executors are the work inside them: λ·S, with S the seconds of work in one piece. A
// queue in which nobody waits longer than W holds at most λ·W; a backlog beyond that must be
// worked off, again within W:
//
//	n = λ·S/headroom + max(0, depth - λ·W) · S/W
//
// J. D. C. Little, A Proof for the Queuing Formula: L = λW, Operations Research 9 (1961).
package latency
