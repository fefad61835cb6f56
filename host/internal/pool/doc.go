// Package pool provides the two kinds of resizable sets of executors that the host uses,
// and measures them.
//
//	Hands  goroutines that take turns at one kind of work, such as recording
//	       results. Each is busy during a turn and at rest while it waits.
//	Slots  permissions to run one step each. A step that finds no free slot waits
//	       here, in order, and runs as soon as one is free.
//
// Both grow at once and shrink by draining: running work ends as usual, and its executor
// goes then. Both can be paused. Both cut what happened since the last cut into a sample
// for scaling: arrivals, completions, errors, latencies, and the fraction of the
// executors' time spent working, which is measured rather than guessed from how full
// batches were.
//
// The package knows neither what is run nor how large a pool should be. Whoever creates a
// pool stops it.
package pool
