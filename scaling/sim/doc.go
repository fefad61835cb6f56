// Package sim replays a load on a simulated pool of executors, so that scaling algorithms and
// policies can be compared before anybody relies on them.
//
// The pool consists of a queue, served in order, and executors that take one piece of work at a
// time. A new executor needs a while to start; a removed one finishes the work it has. Every
// interval the pool is measured by the same scaling.Meter as a real one, the algorithm is asked
// through the same scaling.Governor, and the pool follows. Time jumps from event to event, so
// that days pass in a second.
//
// A load is a Trace. Each row says how many pieces of work arrive in an interval and how many
// seconds of work each takes. Within a row they arrive at random moments and take exponentially
// distributed times, unless all are to be equal. All randomness comes from a seed: the same run
// gives the same result, bit for bit, and all algorithms of a comparison see the same work.
//
// The package's generator made the traces that come with it, as their first lines say; a test
// generates them again and compares.
package sim
