package pipeline

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/pgmq"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/host/internal/store"
)

// look is what a claimer remembers about a queue.
type look struct {
	// after is the last message taken, if the last look took all it could: the next one
	// starts there, so that it need not skip the remains of the messages before it. A
	// look that finds less starts over, so messages that became visible behind the mark
	// are found by the second look.
	after int64
	// halved is how often the batch was halved because a statement took too long. It is
	// doubled again after every growAfter claims that did not.
	halved, fitted int
	doubts         int // calls that must succeed before the queue is left alone, see maxDoubts
}

// growAfter is large enough that a queue which is always slow spends little time on
// batches that are too large.
const growAfter = 16

// timedOut halves the batch.
func (l *look) timedOut() { l.halved, l.fitted = l.halved+1, 0 }

// succeeded lets the batch grow again, slowly.
func (l *look) succeeded() {
	if l.fitted++; l.fitted >= growAfter {
		l.halved, l.fitted = max(l.halved-1, 0), 0
	}
}

// claimed is the result of a claimer's turn.
type claimed struct {
	taken int
	found bool // more may be available at once
	full  bool // more may be available, but there is no room
	later bool // more may be available, but a breaker refuses the calls, or did: only calls close it again
}

// claimTurn looks once at every queue that has a sign, starting with a different one each
// turn, and takes up to most steps from each in one transaction.
func (e *Engine) claimTurn(turn, most int, looks map[string]*look) (t claimed, err error) {
	queues := *e.queues.Load()
	for i := range queues {
		queue := queues[(turn+i)%len(queues)]
		seen := e.lookout.of(queue)
		if seen.number == 0 {
			continue
		}
		l := looks[queue]
		if l == nil {
			l = &look{}
			looks[queue] = l
		}
		namespace := e.steps.of(pgmq.NamespaceOf(queue)).namespace
		batch := max(most>>l.halved, 1)
		g := e.reserve(want{namespace: namespace, take: batch})
		if g.room == 0 || e.accept.Err() != nil {
			e.capacity.taken(g, nil)
			t.full = true
			continue
		}
		ctx, cancel := context.WithTimeout(e.work, callTimeout)
		call := e.grants.begin()
		out, err := e.store.Claim(ctx, g.forStore(e.HostID()), queue, g.names, l.after)
		cancel()
		if err != nil {
			e.grants.end(call)
			e.capacity.taken(g, nil)
			e.noteLost(err)
			l.doubts = maxDoubts
			if store.IsTimeout(err) && batch > 1 {
				l.timedOut()
			}
			return t, err
		}
		e.start(e.work, g, call, out.Leases)
		t.taken += len(out.Leases)
		l.succeeded()
		switch {
		case out.Refused:
			l.doubts, t.later = maxDoubts, true
		case out.Taken == g.room:
			l.after = out.Last
			t.found = true
		case l.after != 0:
			l.after = 0
			t.found = true
		case out.Taken > 0:
			t.found = true
		case l.doubts > 0:
			l.doubts, t.later = l.doubts-1, true
		default:
			e.lookout.takeDown(queue, seen)
		}
	}
	return t, nil
}

// serveLoop keeps track of what the runner serves, and of templates that other hosts add.
func (e *Engine) serveLoop(t *turns) {
	for {
		select {
		case <-e.runner.Changed():
		case <-time.After(serveInterval):
			if e.Resting() {
				continue // another host's template wakes this one
			}
		case <-e.rest.risen:
		case <-e.accept.Done():
			return
		}
		e.turn(t, e.renewServed)
	}
}

func (e *Engine) renewServed() {
	ctx, cancel := context.WithTimeout(e.work, callTimeout)
	defer cancel()
	if err := e.refreshServed(ctx); err != nil {
		e.log.Warn("the list of served handlers could not be refreshed", "error", err)
	}
}

// serveInterval bounds how long a template that another host added, with handlers new to
// the database, waits until this host claims its steps.
const serveInterval = 10 * time.Second

// TemplatesChanged reports that templates were added: their handlers may be new to the
// database.
func (e *Engine) TemplatesChanged(ctx context.Context) error { return e.refreshServed(ctx) }

// refreshServed reads what the runner serves, and which queues hold steps for it. Calls
// run one at a time, so that the last one to read is the last to write.
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
		e.lookout.serve(queues)
		e.wake()
	}
	if before := e.servedNames.Swap(&names); before == nil || !slices.Equal(*before, names) {
		e.beatAtOnce() // other hosts learn from the heartbeat what this host serves
		e.wake()
	}
	return e.tellPlugins(ctx)
}

// toldPlugins are the plugins that a host was last reported to run.
type toldPlugins struct {
	host    int32 // 0: nothing was reported
	plugins []readmodel.HostPlugin
}

// tellPlugins tells the other hosts which plugins this host runs, if that has changed. It
// is not part of the heartbeat, since plugins rarely change.
func (e *Engine) tellPlugins(ctx context.Context) error {
	if e.cfg.Plugins == nil {
		return nil
	}
	now := toldPlugins{host: e.HostID(), plugins: e.cfg.Plugins()}
	if now.host == e.plugins.host && slices.Equal(now.plugins, e.plugins.plugins) {
		return nil
	}
	if err := e.store.SetHostPlugins(ctx, now.host, now.plugins); err != nil {
		return err
	}
	e.plugins = now
	return nil
}

var _ Store = (*store.Store)(nil)
