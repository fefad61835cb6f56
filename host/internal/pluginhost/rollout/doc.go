// Package rollout judges a new generation of a plugin by its calls: is it worse than the
// previous one?
//
// A [Record] keeps the results of the calls, by the names that were called: those of the
// last minute, which show at once what goes wrong now, and all of them, for when there
// are few in a minute. [Judge] compares the records of two generations. It distinguishes
// failures of the process (a call that hangs, a process that breaks) from handlers that
// report failure, and calls the new generation worse only if chance does not explain the
// difference.
//
// The package does not act, has no goroutine and reads no clock.
package rollout
