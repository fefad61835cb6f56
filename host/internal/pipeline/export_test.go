package pipeline

import (
	"context"
	"maps"
	"time"
)

// MemoryInUse returns how many bytes of the budget are in use.
func (e *Engine) MemoryInUse() int64 { return e.budget.used.Load() }

// RetentionTurn does what the loop does once a minute.
func (e *Engine) RetentionTurn(ctx context.Context) error {
	return newRetention(e).turn(ctx, time.Minute)
}

// Hurry makes the look loop notice that times have changed.
func (e *Engine) Hurry() { e.lookSoon() }

// Signs returns how many signs have been put up.
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

// RestEnded returns when the last rest ended.
func (e *Engine) RestEnded() time.Duration { return time.Duration(e.rest.ended.Load()) }

// Left returns what a stopped engine still counts as held, taken or in progress. It must
// be nothing: in a running engine, it would be room that nobody can use.
func (e *Engine) Left() map[string]int64 {
	left := map[string]int64{"attempts": int64(e.held.len()), "memory": e.budget.used.Load(), "outcomes": int64(e.outcomes.len())}
	for _, p := range e.steps.all() {
		left["executors of "+p.namespace] = int64(p.slots.State().Running)
		left["memory of "+p.namespace] = p.memory.bytes.Load()
	}
	c := e.capacity
	c.mu.Lock()
	left["leases"], left["room"], left["calls"] = int64(c.held), int64(c.reserved), int64(c.calls)
	for name, s := range c.spaces {
		left["leases of "+name], left["room of "+name] = int64(s.held), int64(s.reserved)
	}
	for name, s := range c.groups {
		left["leases for "+name] = int64(s.held)
	}
	c.mu.Unlock()
	e.held.mu.Lock()
	left["leases without attempts"], left["reports"] = int64(len(e.held.bare)), int64(len(e.held.reports))
	e.held.mu.Unlock()
	e.grants.mu.Lock()
	left["grants"] = int64(len(e.grants.open))
	e.grants.mu.Unlock()
	for _, b := range e.inboxes {
		b.mu.Lock()
		left["messages of "+b.queue] = int64(len(b.busy))
		b.mu.Unlock()
	}
	maps.DeleteFunc(left, func(_ string, n int64) bool { return n == 0 })
	return left
}
