// Package sim replays a load on a simulated pool of executors, so that scaling
// algorithms and policies can be compared before anybody relies on them.
//
// The pool is a queue, served in order, and executors that take one piece of
// work at a time. A new executor needs a while to start; one that is removed
// finishes what it has in hand. Every interval the pool is measured by the same
// scaling.Meter as a real one, the algorithm is asked through the same
// scaling.Governor, and the pool follows. Time jumps from event to event, so
// that days pass in a second.
//
// A load is a Trace: for each row of time, how many pieces of work arrive and
// how many seconds of work each is. Within a row they arrive at random moments,
// and take exponentially distributed times unless they are to be all equal. All
// chance comes from a seed: the same run gives the same result, bit for bit, and
// all algorithms of a comparison see the same work.
//
// The traces that come with the package were made by its own generator and say
// so in their first lines; a test makes them again and compares.
package sim
