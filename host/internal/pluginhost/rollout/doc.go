// Package rollout judges a new generation of a plugin by its calls: is it worse
// than the one before?
//
// A [Record] keeps what came of the calls, by the names that were called: those of
// the last minute, which show at once what goes wrong now, and all of them, for
// where there are few in a minute. [Judge] looks at the records of two
// generations. It tells apart what the host has to put up with (a call that hangs, a process that breaks) from handlers that say no, and calls
// the new one worse only if chance does not explain the difference.
//
// The package does not act, has no goroutine and reads no clock.
package rollout
