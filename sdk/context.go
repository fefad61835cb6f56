package sdk

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tasker-systems/tasker-host/sdk/handler"
)

// stepContext is the context of a step. Most handlers are quick and never use
// theirs, so the full context, with its timer, is created only when somebody
// needs it: until then it knows only its deadline and why it has ended.
type stepContext struct {
	call     *call
	parent   context.Context // never ends; carries the logger
	deadline time.Time       // zero: none

	mu    sync.Mutex // guards the fields below
	cause error      // why it has ended; nil: it has not, or the cause is in full
	full  context.Context
	end   context.CancelCauseFunc // of full
	stop  context.CancelFunc      // of full's timer; nil without a deadline
}

var _ context.Context = (*stepContext)(nil)

// Deadline implements [context.Context].
func (c *stepContext) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

// Done implements [context.Context].
func (c *stepContext) Done() <-chan struct{} { return c.whole().Done() }

// Value implements [context.Context].
func (c *stepContext) Value(key any) any {
	if v := c.parent.Value(key); v != nil {
		return v // the logger, mostly
	}
	return c.whole().Value(key)
}

// Err implements [context.Context].
func (c *stepContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.full != nil {
		return c.full.Err()
	}
	c.expire()
	switch {
	case c.cause == nil:
		return nil
	case errors.Is(c.cause, errTimeout):
		return context.DeadlineExceeded
	default:
		return context.Canceled
	}
}

// cancel ends the context, unless it has ended. A nil cause means
// [context.Canceled].
func (c *stepContext) cancel(cause error) {
	if cause == nil {
		cause = context.Canceled
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.full != nil {
		c.end(cause)
		if c.stop != nil {
			c.stop()
		}
		return
	}
	if c.expire(); c.cause == nil {
		c.cause = cause
	}
}

// expire ends the context if its deadline has passed. The caller holds the lock;
// full is nil.
func (c *stepContext) expire() {
	if c.cause == nil && !c.deadline.IsZero() && !time.Now().Before(c.deadline) {
		c.cause = errTimeout
	}
}

// whole returns the full context.
func (c *stepContext) whole() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.full != nil {
		return c.full
	}
	c.expire()
	full := c.parent
	if !c.deadline.IsZero() && (c.cause == nil || errors.Is(c.cause, errTimeout)) {
		full, c.stop = context.WithDeadlineCause(full, c.deadline, errTimeout)
	}
	full, c.end = context.WithCancelCause(full)
	if c.cause != nil {
		c.end(c.cause)
	}
	of := c.call
	c.full = handler.WithProgress(full, func(percent int, note string) { of.stream.report(of, percent, note) })
	return c.full
}
