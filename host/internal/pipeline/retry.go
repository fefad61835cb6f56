package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/store"
)

// callTimeout bounds one call to the database, including the wait for a connection. A
// statement has a shorter limit of its own in its session.
const callTimeout = 15 * time.Second

const (
	retryMin = 20 * time.Millisecond
	retryMax = 2 * time.Second
)

// insist makes a call until it gets an answer. An error is returned if the database
// refuses the call; after a rollback, a broken connection or an unreachable database the
// call is repeated, with growing waits, until ctx ends. Its keys must make the call
// repeatable, since it may have committed before its connection broke.
func (e *Engine) insist(ctx context.Context, what string, call func(ctx context.Context) error) error {
	limit := callTimeout
	return e.insistWithin(ctx, what, &limit, call)
}

// insistWithin is insist with a limit for each try, which a call may change for the next
// one.
func (e *Engine) insistWithin(ctx context.Context, what string, limit *time.Duration, call func(ctx context.Context) error) error {
	wait := retryMin
	for try := 1; ; try++ {
		bounded, cancel := context.WithTimeout(ctx, *limit)
		err := call(bounded)
		cancel()
		if err == nil {
			return nil
		}
		class := store.Classify(err)
		e.noteLost(err)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("%s: gave up: %w", what, context.Cause(ctx))
		case class == store.BadInput || class == store.Permanent:
			return err
		case class != store.Retry && try == 1:
			e.log.Warn("the database is not responding; trying again", "call", what, "error", err)
		}
		e.metrics.retries.Inc()
		e.asked.Store(int64(time.Since(e.base)))
		if class != store.Retry {
			wait = min(2*wait, retryMax)
		}
		select {
		case <-time.After(wait/2 + rand.N(wait/2+1)):
		case <-ctx.Done():
		}
	}
}

// errBatchTooLong is returned for a batch that one statement could not process in its
// time limit. Nothing of it was done: its halves may fit.
var errBatchTooLong = errors.New("the batch takes longer than the statement timeout")

// insistBatch is insist for a call about n things. What takes too long and cannot be made
// smaller is repeated with patience.
func (e *Engine) insistBatch(ctx context.Context, what string, n int, call func(ctx context.Context) error) error {
	tooLong, patient := false, false
	limit := callTimeout
	err := e.insistWithin(ctx, what, &limit, func(ctx context.Context) error {
		if patient {
			ctx = store.Patiently(ctx)
		}
		err := call(ctx)
		if tooLong = n > 1 && store.IsTimeout(err); tooLong {
			return nil
		}
		if store.IsTimeout(err) {
			patient, limit = true, callTimeout+store.Patience
		}
		return err
	})
	if err == nil && tooLong {
		e.log.Warn("a batch takes longer than the statement timeout; it is halved", "call", what, "batch", n)
		return errBatchTooLong
	}
	return err
}

// noteLost remembers that a call may have committed and granted leases although its reply
// was lost.
func (e *Engine) noteLost(err error) {
	if c := store.Classify(err); c == store.Unknown || c == store.Cancelled {
		e.lost.Store(true)
	}
}
