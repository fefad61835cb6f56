// Package lifecycle says how the long-lived parts of the host start and stop:
// the contract of one part, a group of parts with an order, and a goroutine
// that somebody waits for. It knows no part by name; core builds the groups and
// is the only one that starts and stops them.
package lifecycle

import "context"

// Service is a part that runs for a while.
//
// Start returns when the part is ready, or with the reason why it is not; then
// it has left nothing running. Its context bounds the start alone: the part
// lives on until Stop. Stop asks the part to end, waits for it and returns what
// went wrong. When its context ends first, the part gives up what it still does,
// in the shortest way it has, and Stop returns the context's cause.
//
// Both may be called at any time, repeatedly, and from several goroutines:
// starting what runs and stopping what does not are no errors, and a part that
// was stopped may be started again.
type Service interface {
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
}
