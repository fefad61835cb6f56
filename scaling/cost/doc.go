// Package cost takes the size with the lowest cost: what executors cost, plus what late work
// costs.
//
//	cost(n) = price · n · 3600 + penalty · late(n) · λ · 3600      an hour
//
// The share of late work at a size is estimated by Erlang's formula for a queue with n servers
// (M/M/n): of the work that arrives, the share
//
//	C(n, a) · exp(-(n - a) · t / S)      with a = λ·S, C Erlang's second formula
//
// waits longer than t, which is the latency target less the seconds of work S. A backlog counts
// as work that arrives within the drain time. Sizes that could not keep up are never taken,
// unless there is no other.
//
// The formula assumes exponentially distributed arrivals and work; see A. K. Erlang (1917), and
// Gross and Harris, Fundamentals of Queueing Theory, chapter 2.3. With heavier tails, work
// waits longer than it says.
package cost
