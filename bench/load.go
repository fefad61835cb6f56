package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// shape is the work of all contenders.
type shape struct {
	name  string
	title string
	unit  string
	steps int // per job or chain
}

var (
	chain  = shape{"chain", "A chain of four steps, each durable before the next begins", "step", 4}
	single = shape{"single", "Single jobs, submitted in bulk", "job", 1}
)

// order is the input of every job, which the steps pass on: the same as in
// `tasker bench`.
type order struct {
	OrderID string `json:"order_id"`
	Amount  string `json:"amount"`
}

var input = order{"7b1f0a52-4f6e-4f43-9d6b-2f7c9b1d5e10", "209.97"}

// engine is a started peer.
type engine interface {
	// submit makes n jobs durable. The tracker is told about each when it is known to be
	// complete.
	submit(ctx context.Context, n int) error
	// settle returns when they are complete in the database, too.
	settle(ctx context.Context) error
	stop(ctx context.Context) error
}

// tracker counts the jobs in progress.
type tracker struct {
	window chan struct{} // one element for each of them
	under  atomic.Int64  // how many are submitted but not complete
	total  atomic.Int64  // how many are complete
	idle   chan struct{} // receives when none is in progress any more
	fail   context.CancelCauseFunc
}

func newTracker(window int, fail context.CancelCauseFunc) *tracker {
	return &tracker{window: make(chan struct{}, window), idle: make(chan struct{}, 1), fail: fail}
}

// complete reports the end of a job.
func (t *tracker) complete() {
	t.total.Add(1)
	<-t.window
	if t.under.Add(-1) == 0 {
		select {
		case t.idle <- struct{}{}:
		default: // already signalled, but not received yet
		}
	}
}

// enter waits for room for n jobs.
func (t *tracker) enter(ctx context.Context, n int) error {
	for range n {
		select {
		case t.window <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	t.under.Add(int64(n))
	return nil
}

// awaitIdle returns when no job is in progress.
func (t *tracker) awaitIdle(ctx context.Context) error {
	for t.under.Load() > 0 {
		select {
		case <-t.idle:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// intensity describes how the load is generated.
type intensity struct {
	steps   int // of the jobs in progress at once
	chunk   int // submitted with one call
	feeders int // calls at once
}

// window is how many jobs of a shape may be in progress.
func (in intensity) window(sh shape) int { return max(in.steps/sh.steps, in.chunk*in.feeders) }

// loaded is the result of a load.
type loaded struct {
	works   int
	seconds float64
}

// load keeps the window full of jobs until the span is over, lets them end, and counts
// them all: at least one chunk per feeder.
func load(ctx context.Context, e engine, t *tracker, in intensity, span time.Duration) (loaded, error) {
	before, began := t.total.Load(), time.Now()
	errs := make([]error, in.feeders)
	var all sync.WaitGroup
	for i := range in.feeders {
		all.Go(func() {
			for more := true; more; more = errs[i] == nil && time.Since(began) < span {
				if errs[i] = t.enter(ctx, in.chunk); errs[i] == nil {
					errs[i] = e.submit(ctx, in.chunk)
				}
			}
		})
	}
	all.Wait()
	err := errors.Join(errs...)
	if err == nil {
		err = t.awaitIdle(ctx)
	}
	if err == nil {
		err = e.settle(ctx)
	}
	if err != nil {
		return loaded{}, fmt.Errorf("load: %w", err)
	}
	return loaded{int(t.total.Load() - before), time.Since(began).Seconds()}, nil
}

const (
	pause         = 10 * time.Millisecond // between two jobs on the idle system, as in `tasker bench`
	longestPhase  = time.Second
	fewestSamples = 4
)

// latency runs jobs one by one, until there are enough or the span is over. The pauses
// between them have random lengths, or peers that poll would always be caught at the
// same point of their period.
func latency(ctx context.Context, e engine, t *tracker, samples int, span time.Duration) ([]time.Duration, error) {
	var all []time.Duration
	for began := time.Now(); len(all) < samples && (len(all) < fewestSamples || time.Since(began) < span); {
		if err := t.enter(ctx, 1); err != nil {
			return nil, fmt.Errorf("latency: %w", err)
		}
		submitted := time.Now()
		err := e.submit(ctx, 1)
		if err == nil {
			err = t.awaitIdle(ctx)
		}
		if err != nil {
			return nil, fmt.Errorf("latency: %w", err)
		}
		took := time.Since(submitted)
		all = append(all, took)
		select {
		case <-time.After(pause + rand.N(min(took, longestPhase))):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return all, nil
}

// quantile returns one of durations, in milliseconds.
func quantile(all []time.Duration, q float64) float64 {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return float64(sorted[min(int(q*float64(len(sorted))), len(sorted)-1)].Microseconds()) / 1000
}
