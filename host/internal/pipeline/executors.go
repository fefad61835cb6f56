package pipeline

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/pool"
	"github.com/tasker-systems/tasker-host/host/internal/store"
)

// The kinds of the engine's pools. Their names are those of the reference, but the work
// of their executors is specific to this engine, which works on sets: one executor
// processes a batch in one transaction, so few are needed.
const (
	TaskRequestProcessor PoolKind = "task_request_processor" // reads task requests and passes them on to be created
	StepEnqueuer         PoolKind = "step_enqueuer"          // creates tasks: their first steps go out
	TaskClaimer          PoolKind = "task_claimer"           // claims steps from the namespaces' queues
	StepResultProcessor  PoolKind = "step_result_processor"  // reads what outside workers post
	TaskFinalizer        PoolKind = "task_finalizer"         // records outcomes: the next steps go out, tasks are finalized
	StepExecution        PoolKind = "step_execution"         // runs the steps of a namespace
)

// handPool is a pool of executors that take turns.
type handPool struct {
	*pool.Hands
	kind   PoolKind
	loop   string   // the name of its executors in Loops
	queues []string // whose messages they answer; nil: none
}

// allHands returns the pools of executors that take turns, none of them running yet.
func (e *Engine) allHands() []handPool {
	requests, results := e.newInbox(e.cfg.RequestQueue), e.newInbox(e.cfg.ResultQueue)
	requests.handle, results.handle = requests.handleRequests, results.handleResults
	hands := func(kind PoolKind, w pool.Work) *pool.Hands {
		c := e.cfg.Hands[kind]
		w.Sign = e.lastAsked
		return pool.NewHands(c.Size, c.Pace, w, time.Now)
	}
	reads := func(kind PoolKind, loop string, b *inbox) handPool {
		return handPool{hands(kind, pool.Work{
			New:    func(p *pool.Hands) pool.Executor { return &inboxExecutor{pool: p, inbox: b} },
			Called: func() time.Time { return e.lookout.unseen(func(queue string) bool { return queue == b.queue }) },
			Tuned:  e.lookSoon,
		}), kind, loop, []string{b.queue}}
	}
	var turns atomic.Int64 // of all claimers: each turn begins with another queue
	claims := hands(TaskClaimer, pool.Work{
		New: func(p *pool.Hands) pool.Executor {
			return &claimer{engine: e, pool: p, turns: &turns, looks: map[string]*look{}}
		},
		Called: func() time.Time {
			return e.lookout.unseen(func(queue string) bool { return e.lookout.inboxes[queue] == nil })
		},
		Tuned: e.lookSoon,
	})
	e.creators = hands(StepEnqueuer, pool.Work{New: func(p *pool.Hands) pool.Executor { return creator{e, p} }, Waiting: e.requests.len})
	settlers := hands(TaskFinalizer, pool.Work{New: func(p *pool.Hands) pool.Executor { return settler{e, p} }, Waiting: e.outcomes.len})
	return []handPool{
		reads(TaskRequestProcessor, "requests", requests),
		{claims, TaskClaimer, "claim", nil},
		{e.creators, StepEnqueuer, "create", nil},
		reads(StepResultProcessor, "results", results),
		{settlers, TaskFinalizer, "settle", nil},
	}
}

// lastAsked returns when a call to the database was last retried: a turn is not stuck
// while it keeps retrying because the database does not answer.
func (e *Engine) lastAsked() time.Time { return e.base.Add(time.Duration(e.asked.Load())) }

// settler records outcomes, one batch at a time, until the engine is stopped.
type settler struct {
	engine *Engine
	pool   *pool.Hands
}

// Wait implements [pool.Executor].
func (s settler) Wait(ctx context.Context) bool {
	return wait(ctx, s.engine.work, s.engine.outcomes.ready)
}

// Turn implements [pool.Executor].
func (s settler) Turn() pool.Turned {
	e := s.engine
	all := e.outcomes.take(s.pool.Pace().Batch)
	n := len(all)
	if n == 0 {
		return pool.Turned{}
	}
	defer e.outcomes.done()
	successes, others := split(all)
	for _, batch := range [][]settlement{successes, others} {
		if len(batch) > 0 {
			e.record(batch)
		}
	}
	return pool.Turned{Items: n}
}

// Leave implements [pool.Executor].
func (settler) Leave() {}

// creator creates tasks, one batch at a time, until the engine is stopped.
type creator struct {
	engine *Engine
	pool   *pool.Hands
}

// Wait implements [pool.Executor].
func (c creator) Wait(ctx context.Context) bool {
	return wait(ctx, c.engine.work, c.engine.requests.ready)
}

// Turn implements [pool.Executor].
func (c creator) Turn() pool.Turned {
	batch := c.engine.requests.take(c.pool.Pace().Batch)
	if len(batch) == 0 {
		return pool.Turned{}
	}
	defer c.engine.requests.done()
	c.engine.createBatch(batch, false)
	return pool.Turned{Items: len(batch)}
}

// Leave implements [pool.Executor].
func (creator) Leave() {}

// wait waits for a sign that there is work. It returns false if the engine or the
// executor is stopped; remaining work is ignored then.
func wait(ctx, work context.Context, ready <-chan struct{}) bool {
	select {
	case <-ready:
		return true
	case <-work.Done():
	case <-ctx.Done():
	}
	return false
}

// claimer takes steps from the queues that have a sign, whenever the host has room.
type claimer struct {
	engine *Engine
	pool   *pool.Hands
	turns  *atomic.Int64
	looks  map[string]*look
	began  bool
	rest   time.Duration // until the next turn even without a new sign; 0: forever
	full   bool          // there may be work that waits for room
	again  bool          // more may be available at once
}

// Wait implements [pool.Executor].
func (c *claimer) Wait(ctx context.Context) bool {
	e := c.engine
	if ctx.Err() != nil || e.accept.Err() != nil {
		return false
	}
	if !c.began || c.again {
		c.began = true
		return true
	}
	var room chan struct{}
	if c.full {
		room = e.capacity.freed
	}
	select {
	case <-e.lookout.claim:
	case <-room:
	case <-after(c.rest):
	case <-e.accept.Done():
		return false
	case <-ctx.Done():
		return false
	}
	return true
}

// Turn implements [pool.Executor].
func (c *claimer) Turn() pool.Turned {
	e := c.engine
	pace := c.pool.Pace()
	t, err := e.claimTurn(int(c.turns.Add(1)), pace.Batch, c.looks)
	c.again, c.full, c.rest = t.found && err == nil, t.full, 0
	if err != nil {
		e.log.Warn("claim failed", "error", err)
	}
	if err != nil || t.full || t.later {
		c.rest = pace.PollMax
	}
	return pool.Turned{Items: t.taken}
}

// Leave implements [pool.Executor]. Signs that are up when it leaves may be those it
// meant to return to.
func (c *claimer) Leave() { c.engine.lookout.remind() }

// after is [time.After], but never for 0.
func after(d time.Duration) <-chan time.Time {
	if d == 0 {
		return nil
	}
	return time.After(d)
}

// inboxExecutor reads an inbox that has a sign.
type inboxExecutor struct {
	pool  *pool.Hands
	inbox *inbox
	began bool
	rest  time.Duration // as in claimer
	again bool          // more may be readable at once

	doubts int // calls that must succeed before the queue is left alone, see maxDoubts
}

// maxDoubts is how many calls must find a queue empty after one that failed, or was
// refused by a breaker, before its sign is taken down: a breaker closes only after some
// calls have succeeded.
const maxDoubts = 5

// Wait implements [pool.Executor].
func (x *inboxExecutor) Wait(ctx context.Context) bool {
	e := x.inbox.engine
	if ctx.Err() != nil || e.accept.Err() != nil {
		return false
	}
	if !x.began || x.again {
		x.began = true
		return true
	}
	select {
	case <-e.lookout.inboxes[x.inbox.queue]:
		return true
	case <-after(x.rest):
		return true
	case <-e.accept.Done():
	case <-ctx.Done():
	}
	return false
}

// Turn implements [pool.Executor].
func (x *inboxExecutor) Turn() pool.Turned {
	e := x.inbox.engine
	seen := e.lookout.of(x.inbox.queue)
	pace := x.pool.Pace()
	n, err := x.inbox.turn(pace.Batch)
	x.again, x.rest = err == nil && n == pace.Batch, 0
	switch {
	case errors.Is(err, store.ErrRefused):
		x.rest, x.doubts = pace.PollMax, maxDoubts
	case err != nil:
		e.log.Warn("inbox could not be read", "queue", x.inbox.queue, "error", err)
		x.rest, x.doubts = pace.PollMax, maxDoubts
	case !x.again && x.doubts > 0:
		x.rest, x.doubts = pace.PollMax, x.doubts-1
	case !x.again:
		e.lookout.takeDown(x.inbox.queue, seen)
	}
	return pool.Turned{Items: n}
}

// Leave implements [pool.Executor], like claimer's.
func (x *inboxExecutor) Leave() { x.inbox.engine.lookout.remind() }
