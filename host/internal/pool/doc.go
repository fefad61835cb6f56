// Package pool has the two kinds of resizable sets of executors that the host
// works with, and measures them.
//
//	Hands  goroutines that take turns at one kind of work, such as recording
//	       results. Each is busy while it has a turn and at rest while it waits.
//	Slots  permissions to run one step each. A step that finds no slot free waits
//	       here, in order, and runs as soon as one is.
//
// Both grow at once and shrink by drain: what runs ends as it would, and its
// executor goes then. Both can be paused. Both cut what happened since the last
// cut into a sample for scaling: arrivals, completions, errors, latencies, and
// how much of the executors' time was spent at work, which is measured and not
// guessed from how full batches were.
//
// The package knows neither what is run nor how large a pool should be. Whoever
// makes a pool stops it.
package pool
