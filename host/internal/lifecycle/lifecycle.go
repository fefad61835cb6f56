// Package lifecycle defines how the long-lived parts of the host start and stop: the
// contract of one part, an ordered group of parts, and a goroutine that somebody waits
// for. It knows no part by name; only core builds, starts and stops the groups.
package lifecycle

import "context"

// Service is a part that runs for a while.
//
// Start returns when the part is ready or, having left nothing running, with the reason
// why it is not. Its context bounds only the start: the part lives on until Stop. Stop
// asks the part to end, waits for it and returns what went wrong. If its context ends
// first, the part gives up what it is still doing in the shortest possible way, and Stop
// returns the context's cause.
//
// Both may be called at any time, repeatedly, and from several goroutines. Starting a
// running part or stopping a stopped one is not an error, and a stopped part may be
// started again.
type Service interface {
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
}
