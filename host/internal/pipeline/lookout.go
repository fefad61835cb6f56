package pipeline

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/pgmq"
	"github.com/tasker-systems/tasker-host/host/internal/pool"
)

// lookout knows which queues may contain work, so that executors look only there, and an
// idle host asks for all queues in one statement. There are three sources of such a sign:
// this host, when it has just sent work; the repeated look at the queues, whose interval
// doubles from the PollMin of a pool to its PollMax while it finds nothing; and a retry
// of this host's own that has become due. Whoever finds the queue empty takes the sign
// down.
type lookout struct {
	claim   chan struct{}            // level-triggered: some namespace's queue has a sign
	inboxes map[string]chan struct{} // likewise, for each inbox
	hurry   chan struct{}            // level-triggered: look again soon, the times have changed

	mu     sync.Mutex
	served []string // the namespaces' queues at which claimers look
	last   uint64   // number of the last sign
	signs  map[string]sign
}

// sign says that work may be waiting in a queue.
type sign struct {
	number uint64 // 0: there is no sign
	since  time.Time
}

func newLookout(inboxes ...string) *lookout {
	l := &lookout{
		claim: make(chan struct{}, 1), hurry: make(chan struct{}, 1),
		inboxes: map[string]chan struct{}{}, signs: map[string]sign{},
	}
	for _, queue := range inboxes {
		l.inboxes[queue] = make(chan struct{}, 1)
	}
	return l
}

// put puts signs up for queues, and wakes those who look at them. Queues that nobody
// looks at get none.
func (l *lookout) put(queues ...string) {
	l.mu.Lock()
	now := time.Now()
	for _, queue := range queues {
		if l.inboxes[queue] == nil && !slices.Contains(l.served, queue) {
			continue
		}
		l.last++
		s, there := l.signs[queue]
		if !there {
			s.since = now
		}
		s.number = l.last
		l.signs[queue] = s
	}
	l.mu.Unlock()
	for _, queue := range queues {
		ready, isInbox := l.inboxes[queue]
		if !isInbox {
			ready = l.claim
		}
		signal(ready)
	}
}

// remind wakes those who look at queues that have a sign.
func (l *lookout) remind() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for queue := range l.signs {
		if ready, isInbox := l.inboxes[queue]; isInbox {
			signal(ready)
		} else {
			signal(l.claim)
		}
	}
}

// of returns the sign of a queue.
func (l *lookout) of(queue string) sign {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.signs[queue]
}

// takeDown notes that the queue was empty. A sign newer than the one the caller saw
// before looking stays up.
func (l *lookout) takeDown(queue string, seen sign) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.signs[queue].number == seen.number {
		delete(l.signs, queue)
	}
}

// serve sets the namespaces' queues that claimers look at from now on.
func (l *lookout) serve(queues []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.served = queues
	maps.DeleteFunc(l.signs, func(queue string, _ sign) bool {
		return l.inboxes[queue] == nil && !slices.Contains(queues, queue)
	})
}

// standing returns how many signs have been put up so far, and whether any are up.
func (l *lookout) standing() (n uint64, some bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last, len(l.signs) > 0
}

// unseen returns when the oldest of the concerned signs was put up and should have been
// acted on; the zero time if there is none.
func (l *lookout) unseen(concerns func(queue string) bool) (since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for queue, s := range l.signs {
		if concerns(queue) && (since.IsZero() || s.since.Before(since)) {
			since = s.since
		}
	}
	return since
}

// queuesOf returns the queues of the namespaces of items.
func queuesOf[T any](items []T, namespace func(T) string) []string {
	var queues []string
	last := ""
	for _, item := range items {
		n := namespace(item)
		if n == last {
			continue // most have the same one as their neighbour
		}
		last = n
		if queue := pgmq.QueueOf(n); !slices.Contains(queues, queue) {
			queues = append(queues, queue)
		}
	}
	return queues
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// watcher is the state of the looks for the executors of one pool.
type watcher struct {
	pool   *pool.Hands
	queues func() []string
	steps  bool // the queues hold steps, whose retries have their own times
	rest   time.Duration
	next   time.Time
}

// rests schedules the next look after d, bounded by the pool's pace.
func (w *watcher) rests(d time.Duration, now time.Time) {
	pace := w.pool.Pace()
	w.rest = min(max(d, pace.PollMin), pace.PollMax)
	w.next = now.Add(w.rest)
}

// watchers returns one watcher for each pool that has work in queues.
func (e *Engine) watchers() []*watcher {
	var all []*watcher
	for _, p := range e.hands {
		switch {
		case p.kind == TaskClaimer:
			all = append(all, &watcher{pool: p.Hands, steps: true, queues: func() []string { return *e.queues.Load() }})
		case p.queues != nil:
			all = append(all, &watcher{pool: p.Hands, queues: func() []string { return p.queues }})
		}
	}
	return all
}

// longestRest returns the longest rest of the look loop.
func (e *Engine) longestRest() (longest time.Duration) {
	for _, p := range e.hands {
		longest = max(longest, p.Pace().PollMax)
	}
	return longest
}

// lookSoon makes the look loop notice that times have changed.
func (e *Engine) lookSoon() { signal(e.lookout.hurry) }

// lookLoop looks at the queues for all executors, in one statement for all pools whose
// time has come. Pools whose time comes soon are included, so that those with the same
// pace share all looks.
func (e *Engine) lookLoop(t *turns) {
	all := e.watchers()
	for _, w := range all {
		w.rests(0, time.Now())
	}
	for {
		if e.Resting() {
			select {
			case <-e.lookout.hurry:
			case <-e.accept.Done():
				return
			}
			continue
		}
		now := time.Now()
		if e.rest.look.Swap(false) {
			for _, w := range all {
				w.rest, w.next = w.pool.Pace().PollMin, now
			}
		}
		first := now.Add(e.longestRest())
		for _, w := range all {
			if limit := now.Add(w.pool.Pace().PollMax); w.next.After(limit) {
				w.rests(w.rest, now) // the pace has changed
			}
			if w.next.Before(first) {
				first = w.next
			}
		}
		due := e.due.reached(now)
		if rest := first.Sub(now); !due && rest > 0 {
			select {
			case <-time.After(e.due.within(rest, now)):
			case <-e.lookout.hurry:
			case <-e.accept.Done():
				return
			}
			continue // the times now determine what to do
		}
		if e.accept.Err() != nil {
			return
		}
		e.turn(t, func() { e.lookTurn(all, due) })
	}
}

// lookTurn takes one look for the pools whose time has come. Queues that already have a
// sign are left out, unless a retry is due: the look in progress may have begun too early
// to find it.
func (e *Engine) lookTurn(all []*watcher, due bool) {
	now := time.Now()
	var looking []*watcher
	var queues, inboxes []string
	for _, w := range all {
		if w.next.After(now.Add(w.rest/2)) && !(due && w.steps) {
			continue
		}
		looking = append(looking, w)
		for _, queue := range w.queues() {
			switch known := e.lookout.of(queue).number != 0; {
			case w.steps && (due || !known):
				queues = append(queues, queue)
			case !w.steps && !known:
				inboxes = append(inboxes, queue)
			}
		}
	}
	found, err := e.lookAt(queues, inboxes)
	if err != nil && e.accept.Err() == nil {
		e.log.Warn("checking the queues failed", "error", err)
	}
	now = time.Now()
	for _, w := range looking {
		switch {
		case err != nil:
			w.rests(w.pool.Pace().PollMax, now)
		case slices.ContainsFunc(w.queues(), func(queue string) bool { return slices.Contains(found, queue) }):
			w.rests(0, now)
		default:
			w.rests(2*w.rest, now)
		}
	}
	e.lookout.put(found...)
}

// lookAt returns those of the queues in which work is waiting. A missing queue counts as
// one of them: its sign stays up, since nobody finds it empty.
func (e *Engine) lookAt(queues, inboxes []string) ([]string, error) {
	if len(queues)+len(inboxes) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(e.accept, callTimeout)
	defer cancel()
	return e.store.Waiting(ctx, queues, e.Served(), inboxes)
}
