package handler

import "context"

type progressKey struct{}

// Progress shows the people who watch a task how far the step is: the percentage done, from 0
// to 100, and a short note, which may be empty. Call it as often as you like: only the latest
// report is shown, a few times a second at most. Nothing depends on the reports, and they are
// not stored. Progress does nothing if ctx is not the context of a step, or if the step has
// ended, timed out or been cancelled.
func Progress(ctx context.Context, percent int, note string) {
	if report, ok := ctx.Value(progressKey{}).(func(int, string)); ok && ctx.Err() == nil {
		report(percent, note)
	}
}

// WithProgress returns a context in which [Progress] calls report. The SDK makes one for every
// step; a test can make one to see what a handler reports.
func WithProgress(ctx context.Context, report func(percent int, note string)) context.Context {
	return context.WithValue(ctx, progressKey{}, report)
}
