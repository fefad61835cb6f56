package pipeline

import (
	"context"
	"time"
)

// MemoryInUse is how many bytes of the budget are taken.
func (e *Engine) MemoryInUse() int64 { return e.budget.used.Load() }

// RetentionTurn does what the loop does once a minute.
func (e *Engine) RetentionTurn(ctx context.Context) error {
	return newRetention(e).turn(ctx, time.Minute)
}

// Hurry has the look loop see that times have changed.
func (e *Engine) Hurry() { e.lookSoon() }

// Signs is how many signs have been put up.
func (e *Engine) Signs() uint64 {
	e.lookout.mu.Lock()
	defer e.lookout.mu.Unlock()
	return e.lookout.last
}

// Rouse ends the rest, as a notification does.
func (e *Engine) Rouse() {
	e.rest.mu.Lock()
	defer e.rest.mu.Unlock()
	e.endRest()
}

// RestEnded is when the last rest ended.
func (e *Engine) RestEnded() time.Duration { return time.Duration(e.rest.ended.Load()) }
