package handler

import "context"

type progressKey struct{}

// Progress tells the people who watch a task how far the step is: percent of
// the way, 0 to 100, and a note in a few words, which may be empty. Call it as
// often as you like: the latest is shown, a few times a second at most. Nothing
// depends on it and nothing of it is kept. With a context that is not a step's,
// or whose step is over, timed out or cancelled, it does nothing.
func Progress(ctx context.Context, percent int, note string) {
	if report, ok := ctx.Value(progressKey{}).(func(int, string)); ok && ctx.Err() == nil {
		report(percent, note)
	}
}

// WithProgress returns a context whose [Progress] calls report. The SDK makes
// one for every step; a test may make one to see what a handler tells.
func WithProgress(ctx context.Context, report func(percent int, note string)) context.Context {
	return context.WithValue(ctx, progressKey{}, report)
}
