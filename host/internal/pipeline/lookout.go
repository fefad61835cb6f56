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

// lookout knows in which queues there may be work, so that executors look only
// there, and at rest one statement asks for all queues together. A sign that
// work may wait comes from this host, which has just sent some, or from the look
// at the queues that is taken again and again, at intervals that double from the
// PollMin of a pool to its PollMax while it finds nothing; and when a retry of this host's own
// is due. The sign is taken down by whoever has found the queue empty.
type lookout struct {
	claim   chan struct{}            // level-triggered: some namespace's queue has a sign
	inboxes map[string]chan struct{} // likewise, for each inbox
	hurry   chan struct{}            // level-triggered: look again soon, the times have changed

	mu     sync.Mutex
	served []string // the namespaces' queues at which claimers look
	last   uint64   // number of the last sign
	signs  map[string]sign
}

// sign says that work may wait in a queue.
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

// put puts signs up for queues, and wakes those who look at them. Queues at which
// nobody looks get none.
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

// takeDown says that the queue was empty. A sign newer than the one its finder
// saw before the look stays up.
func (l *lookout) takeDown(queue string, seen sign) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.signs[queue].number == seen.number {
		delete(l.signs, queue)
	}
}

// serve says at which namespaces' queues claimers look from now on.
func (l *lookout) serve(queues []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.served = queues
	maps.DeleteFunc(l.signs, func(queue string, _ sign) bool {
		return l.inboxes[queue] == nil && !slices.Contains(queues, queue)
	})
}

// standing returns how many signs have been put up, and whether some are.
func (l *lookout) standing() (n uint64, some bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last, len(l.signs) > 0
}

// unseen returns since when the oldest sign at which somebody should have
// looked has been up; the zero time if there is none.
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
			continue // most have that of their neighbour
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

// watcher is what is known of the looks for the executors of one pool.
type watcher struct {
	pool   *pool.Hands
	queues func() []string
	steps  bool // the queues are of steps, whose retries have their times
	rest   time.Duration
	next   time.Time
}

// rests lets the next look be after a time, bounded by the pool's pace.
func (w *watcher) rests(d time.Duration, now time.Time) {
	pace := w.pool.Pace()
	w.rest = min(max(d, pace.PollMin), pace.PollMax)
	w.next = now.Add(w.rest)
}

// watchers returns one for each pool that has work in queues.
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

// longestRest is how long the look loop rests at most.
func (e *Engine) longestRest() (longest time.Duration) {
	for _, p := range e.hands {
		longest = max(longest, p.Pace().PollMax)
	}
	return longest
}

// lookSoon has the look loop see that times have changed.
func (e *Engine) lookSoon() { signal(e.lookout.hurry) }

// lookLoop looks at the queues for all executors, one statement for all pools
// whose time has come. Pools whose time comes soon are taken along: those with the
// same pace share all looks.
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
			continue // what to do now is what the times say now
		}
		if e.accept.Err() != nil {
			return
		}
		e.turn(t, func() { e.lookTurn(all, due) })
	}
}

// lookTurn takes one look for the pools whose time has come. Queues that have a
// sign already are left out, unless a retry is due: their look may have begun too
// early to find it.
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
		e.log.Warn("look at the queues failed", "error", err)
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

// lookAt returns those of some queues in which work waits. One that is missing is
// among them: its sign stays up, since nobody finds it empty.
func (e *Engine) lookAt(queues, inboxes []string) ([]string, error) {
	if len(queues)+len(inboxes) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(e.accept, callTimeout)
	defer cancel()
	return e.store.Waiting(ctx, queues, e.Served(), inboxes)
}
