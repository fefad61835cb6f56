package pipeline

import (
	"sync/atomic"
	"time"
)

// turns tracks one of the engine's loops. A loop that waits for work may rest
// indefinitely; but a turn that has begun must end, and a loop that turns by the clock
// must begin the next turn in time.
type turns struct {
	name  string
	every func() time.Duration // the longest rest between two turns at present; nil: it waits for work
	began atomic.Int64         // nanoseconds since the engine's base; 0: at rest
	ended atomic.Int64
	over  atomic.Bool // the loop has not started, or has been stopped
}

// Loop is the status of one of the engine's loops.
type Loop struct {
	Name string
	// Stuck is how long the end of a turn, or the beginning of the next one, has been
	// overdue; zero: it is not.
	Stuck time.Duration
}

// turnLimit is how long a turn may take: a few calls to the database.
const turnLimit = 4 * callTimeout

// started notes that the loop begins: from now on it must turn.
func (t *turns) started(e *Engine) {
	t.ended.Store(int64(time.Since(e.base)))
	t.over.Store(false)
}

// turn runs one turn of a loop.
func (e *Engine) turn(t *turns, run func()) {
	t.again(e)
	run()
	t.ended.Store(int64(time.Since(e.base)))
	t.began.Store(0)
}

// again notes, in a turn that makes any number of calls, that one of them has ended: the
// next one has as much time as a turn.
func (t *turns) again(e *Engine) { t.began.Store(max(int64(time.Since(e.base)), 1)) }

// Loops returns the status of the engine's loops. A loop is not stuck while it keeps
// retrying in a turn because the database does not answer.
func (e *Engine) Loops() []Loop {
	now := time.Since(e.base)
	asked := now - time.Duration(e.asked.Load())
	all := make([]Loop, len(e.watched))
	for i, t := range e.watched {
		all[i] = Loop{Name: t.name}
		began := time.Duration(t.began.Load())
		switch {
		case t.over.Load():
		case began > 0:
			all[i].Stuck = max(min(now-began, asked)-turnLimit, 0)
		case t.every != nil && !e.Resting():
			since := max(t.ended.Load(), e.rest.ended.Load()) // while the host rests the loops do
			all[i].Stuck = max(now-time.Duration(since)-t.every()-turnLimit, 0)
		}
	}
	for _, p := range e.hands {
		for _, overdue := range p.Overdue() {
			all = append(all, Loop{Name: p.loop, Stuck: overdue})
		}
	}
	return all
}
