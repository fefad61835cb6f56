package pipeline

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/store"
)

// claimLoop takes steps from the queues whenever the host has room. It looks at
// once when it is woken or a retry of its own is due, and else at intervals that
// double from PollMin to PollMax while the queues are empty.
func (e *Engine) claimLoop() {
	wait := e.cfg.PollMin
	marks := map[string]int64{}
	for turn := 0; ; turn++ {
		found, err := e.claimTurn(turn, marks)
		switch {
		case err != nil:
			e.log.Warn("claim failed", "error", err)
			wait = e.cfg.PollMax
		case found:
			wait = e.cfg.PollMin
			if e.accept.Err() == nil {
				continue
			}
		default:
			wait = min(2*wait, e.cfg.PollMax)
		}
		select {
		case <-e.claimNow:
		case <-time.After(e.due.within(wait, time.Now())):
		case <-e.accept.Done():
			return
		}
	}
}

// claimTurn looks at every queue once, starting with another one each turn. It
// reports whether there may be more to take at once.
//
// marks holds, for each queue from which the last look took all it could, the
// last message taken: the next look starts there and does not walk over the
// remains of the messages before it. A look that finds less starts anew, so
// messages that became visible behind the mark are found by the second look.
func (e *Engine) claimTurn(turn int, marks map[string]int64) (found bool, err error) {
	queues := *e.queues.Load()
	for i := range queues {
		queue := queues[(turn+i)%len(queues)]
		g := e.capacity.reserve(e.cfg.ClaimBatch, 0)
		if g.room == 0 || e.accept.Err() != nil {
			e.capacity.taken(g, nil)
			return e.waitForRoom(), nil
		}
		ctx, cancel := context.WithTimeout(e.work, callTimeout)
		out, err := e.store.Claim(ctx, g.forStore(e.HostID()), queue, g.names, marks[queue])
		cancel()
		if err != nil {
			e.capacity.taken(g, nil)
			e.noteLost(err)
			return found, err
		}
		e.start(e.work, g, out.Leases)
		switch {
		case out.Taken == g.room:
			marks[queue] = out.Last
			found = true
		case marks[queue] != 0:
			delete(marks, queue)
			found = true
		case out.Taken > 0:
			found = true
		}
	}
	return found, nil
}

// waitForRoom waits until a lease ends, and reports whether one did before a
// while had passed.
func (e *Engine) waitForRoom() bool {
	select {
	case <-e.capacity.freed:
		return true
	case <-time.After(e.cfg.PollMax):
		return false
	case <-e.accept.Done():
		return false
	}
}

// serveLoop follows what the runner serves, and templates that other hosts
// bring.
func (e *Engine) serveLoop() {
	for {
		select {
		case <-e.runner.Changed():
		case <-time.After(serveInterval):
		case <-e.accept.Done():
			return
		}
		ctx, cancel := context.WithTimeout(e.work, callTimeout)
		if err := e.refreshServed(ctx); err != nil {
			e.log.Warn("what is served could not be renewed", "error", err)
		}
		cancel()
	}
}

// serveInterval bounds how long a template that another host brought, with
// handlers new to the database, waits for this host's claims.
const serveInterval = 10 * time.Second

// TemplatesChanged says that templates were added: their handlers may be new to
// the database.
func (e *Engine) TemplatesChanged(ctx context.Context) error { return e.refreshServed(ctx) }

// refreshServed reads what the runner serves, and which queues hold steps for it.
// One call at a time, so that the last to look is the last to write.
func (e *Engine) refreshServed(ctx context.Context) error {
	e.serving.Lock()
	defer e.serving.Unlock()
	services := e.runner.Services()
	var names []string
	for _, s := range services {
		names = append(names, s.Handlers...)
	}
	slices.Sort(names)
	ids, err := e.store.HandlerIDs(ctx, names)
	if err != nil {
		return err
	}
	queues, err := e.store.QueuesOf(ctx, slices.Sorted(maps.Values(ids)))
	if err != nil {
		return err
	}
	e.capacity.serve(services, ids)
	if before := e.queues.Swap(&queues); !slices.Equal(*before, queues) {
		e.wake()
	}
	if before := e.servedNames.Swap(&names); before == nil || !slices.Equal(*before, names) {
		e.beatAtOnce() // others see by the heartbeat what this host serves
	}
	return nil
}

var _ Store = (*store.Store)(nil)
