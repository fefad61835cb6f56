package pipeline

import (
	"context"
	"errors"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/store"
)

// resting is the rest of a host that has nothing to do; 00190_rest.sql describes how
// hosts are roused. Rest has two depths. A host that is asleep has told the database that
// it holds no step, and is given none until it says otherwise, see [Engine.rise]; but it
// looks as often as ever, because there is something it must notice soon: a working host,
// or an outside worker. A host that rests knows that there is nothing: its loops stand
// still, and it exchanges just one statement with the database each RestBeat, on a
// connection on which it can be roused.
type resting struct {
	mu    sync.Mutex // held while the host reports its state to the others
	rises int64      // how often it has risen; guarded by mu
	end   func()     // ends the rest, if it rests; guarded by mu

	now      atomic.Bool   // it rests
	ended    atomic.Int64  // when it last stopped resting, nanoseconds since the engine's base
	risen    chan struct{} // level-triggered: the host no longer rests
	look     atomic.Bool   // likewise: the queues must be looked at, at once
	active   atomic.Bool   // there were unfinished tasks
	suspects atomic.Bool   // the database shows leases that this host does not know of

	// Used by restLoop alone.
	ctx  context.Context // ends with the rest
	next time.Duration   // from the last beat until a message is due; 0: there is none
	told string          // why it cannot rest, as last logged
}

func newResting() resting { return resting{risen: make(chan struct{}, 1)} }

// Resting reports whether the host rests: it makes almost no calls to the database until
// it is roused.
func (e *Engine) Resting() bool { return e.rest.now.Load() }

// BeatEvery returns the longest time between two heartbeats now.
func (e *Engine) BeatEvery() time.Duration {
	every := e.cfg.Heartbeat
	if e.Resting() || time.Since(e.base)-time.Duration(e.rest.ended.Load()) < every {
		return max(every, e.cfg.RestBeat)
	}
	return every
}

// restLease returns how long a resting host is considered alive. It holds no steps, so
// nothing waits for this lease to expire.
func (e *Engine) restLease() time.Duration { return max(e.cfg.Lease, 4*e.cfg.RestBeat) }

// reserve is [capacity.reserve] for a host that may be asleep: it wakes the host first.
// If the others cannot be told, nothing is granted.
func (e *Engine) reserve(wants ...want) grant {
	g := e.capacity.reserve(wants...)
	if !g.sleep {
		return g
	}
	if err := e.rise(); err != nil {
		e.log.Warn("the host cannot end its rest now", "error", err)
		return g
	}
	e.capacity.taken(g, nil)
	return e.capacity.reserve(wants...)
}

// rise ends the sleep: from now on this host's lease is the usual one, the others know
// that it may hold steps, and it may be given some.
func (e *Engine) rise() error {
	e.rest.mu.Lock()
	defer e.rest.mu.Unlock()
	if !e.capacity.sleeps() {
		return nil
	}
	if err := e.beatAs(e.rest.rises + 1); err != nil {
		return err
	}
	e.capacity.wake()
	e.endRest()
	return nil
}

// endRest makes the loops continue, if they stand still. The caller holds the lock of
// rest.
func (e *Engine) endRest() (ended bool) {
	if e.rest.end == nil {
		return false
	}
	e.rest.end()
	e.rest.end = nil
	e.rest.ended.Store(int64(time.Since(e.base)))
	e.rest.look.Store(true)
	e.rest.now.Store(false)
	signal(e.rest.risen)
	e.lookSoon()
	return true
}

const (
	restLook    = time.Second      // how often a working host checks whether it could rest
	longestWake = 30 * time.Second // longest wait until a host that could not rest tries again
)

// restLoop makes the host rest whenever nothing has happened for RestAfter.
func (e *Engine) restLoop(t *turns) {
	var seen uint64
	since, again := time.Now(), time.Time{}
	for wait := restLook; ; {
		every := e.live().RestAfter
		look := restLook
		if every > 0 {
			look = min(look, every)
		}
		select {
		case <-time.After(look):
		case <-e.accept.Done():
			return
		}
		now := time.Now()
		activity, idle := e.activity(every)
		if activity != seen || !idle {
			seen, since, again, wait = activity, now, time.Time{}, look
		}
		if every == 0 || now.Sub(since) < every || now.Before(again) {
			continue
		}
		var bed *store.Bed
		e.turn(t, func() { bed = e.lieDown(every) })
		if bed == nil {
			wait = min(2*wait, longestWake)
			again = time.Now().Add(wait)
			continue
		}
		e.lie(t, bed)
		e.turn(t, func() { bed.GetUp(e.work) })
		seen, _ = e.activity(every)
		since = time.Now()
	}
}

// activity returns a number that changes with everything this host does for steps, and
// whether it has nothing to do now or within the given time.
func (e *Engine) activity(within time.Duration) (n uint64, idle bool) {
	asked, none := e.capacity.asked()
	put, signs := e.lookout.standing()
	idle = none && !signs && e.outcomes.idle() && e.requests.idle() && !e.lost.Load() && !e.rest.suspects.Load() &&
		e.cfg.State() == stateNormal && e.due.within(within+1, time.Now()) > within &&
		!slices.ContainsFunc(e.inboxes, func(b *inbox) bool { return !b.idle() })
	return asked + put, idle
}

// stateNormal is the operational state in which a host may rest.
const stateNormal = "normal"

// lieDown falls asleep and takes a bed, unless there is something that this host must
// notice soon: then it returns nil.
func (e *Engine) lieDown(every time.Duration) *store.Bed {
	if !e.capacity.sleep() {
		return nil
	}
	// Only now is it certain that nothing in this host becomes a lease.
	if _, idle := e.activity(every); !idle {
		return nil
	}
	found, err := e.askAsleep(e.store.Rest)
	if err == nil && len(found.Blind) > 0 {
		ctx, cancel := context.WithTimeout(e.work, callTimeout)
		defer cancel()
		if may, err := e.store.WatchQueues(ctx, found.Blind); err != nil || !may {
			e.tellAwake(found.Why, err)
		}
		return nil
	}
	if err != nil || !found.quiet(every) {
		e.tellAwake(found.Why, err)
		return nil
	}
	ctx, cancel := context.WithTimeout(e.accept, e.beatTimeout())
	defer cancel()
	bed, err := e.store.LieDown(ctx)
	if err != nil {
		if !errors.Is(err, store.ErrAwake) {
			e.tellAwake("", err)
		}
		return nil
	}
	if !e.beginRest(bed, every) {
		bed.GetUp(e.work)
		return nil
	}
	return bed
}

// asleep is what a sleeping host was told.
type asleep struct{ store.Rest }

// quiet reports whether nothing must be noticed soon.
func (a asleep) quiet(every time.Duration) bool {
	return a.Known && a.Why == "" && (a.Next == 0 || a.Next > every)
}

// askAsleep tells the others that this host is asleep, and returns what there is to do
// nevertheless.
func (e *Engine) askAsleep(ask func(context.Context, store.Resting) (store.Rest, error)) (asleep, error) {
	e.rest.mu.Lock()
	defer e.rest.mu.Unlock()
	return e.askLocked(ask)
}

// askLocked is askAsleep for a caller that holds the lock of rest.
func (e *Engine) askLocked(ask func(context.Context, store.Resting) (store.Rest, error)) (asleep, error) {
	if !e.capacity.sleeps() {
		return asleep{}, nil // it has risen meanwhile
	}
	ctx, cancel := context.WithTimeout(e.work, e.beatTimeout())
	defer cancel()
	began := time.Now()
	found, err := ask(ctx, store.Resting{
		Host: e.HostID(), Rises: e.rest.rises, State: e.cfg.State(), Served: e.Served(),
		Lease: e.cfg.Lease, RestLease: e.restLease(), Queues: *e.queues.Load(), Inboxes: []string{e.cfg.RequestQueue, e.cfg.ResultQueue},
	})
	if err != nil {
		return asleep{}, err
	}
	if !found.Known { // it was declared dead, or an answer was lost: start over
		if err := e.beatAs(e.rest.rises + 1); err != nil {
			return asleep{}, err
		}
		e.capacity.wake()
		return asleep{}, nil
	}
	e.lastBeat.Store(int64(began.Sub(e.base)))
	e.rest.active.Store(found.Active)
	return asleep{found}, nil
}

// tellAwake logs, once, why this host does not rest, unless that is expected.
func (e *Engine) tellAwake(why string, err error) {
	if err != nil {
		why = err.Error()
	}
	if why != "" && why != e.rest.told && e.accept.Err() == nil {
		e.rest.told = why
		e.log.Debug("this host does not rest", "reason", why)
	}
}

// beginRest takes the last look, and makes the loops stand still if there is nothing to
// do. It keeps the lock in between: a heartbeat there would announce again that the next
// sign of life of this host is due soon.
func (e *Engine) beginRest(bed *store.Bed, every time.Duration) bool {
	e.rest.mu.Lock()
	defer e.rest.mu.Unlock()
	found, err := e.askLocked(bed.Rest)
	if err != nil || !found.quiet(every) || e.accept.Err() != nil || e.live().RestAfter == 0 {
		return false
	}
	ctx, cancel := context.WithCancel(e.accept)
	e.rest.ctx, e.rest.end = ctx, cancel
	e.rest.next = found.Next
	e.rest.told = ""
	e.rest.now.Store(true)
	e.log.Debug("this host rests")
	return true
}

// lie rests until the host is roused, it rises, something is due or must be noticed soon,
// or the connection is lost. The host stays asleep unless it has risen.
func (e *Engine) lie(t *turns, bed *store.Bed) {
	defer func() {
		e.rest.mu.Lock()
		defer e.rest.mu.Unlock()
		if e.endRest() {
			e.beatAtOnce()
		}
	}()
	go debug.FreeOSMemory() // free what the work took; nobody who rouses this host waits for it
	for began := time.Now(); ; {
		beat := began.Add(e.cfg.RestBeat)
		until := beat
		if due := began.Add(e.rest.next); e.rest.next > 0 && due.Before(until) {
			until = due
		}
		if due := time.Now().Add(e.due.within(e.cfg.RestBeat, time.Now())); due.Before(until) {
			until = due
		}
		ctx, cancel := context.WithDeadline(e.rest.ctx, until)
		roused, err := bed.Wait(ctx)
		cancel()
		if err != nil && e.accept.Err() == nil {
			e.log.Info("the rest is over: the connection is lost", "error", err)
		}
		if roused || err != nil || e.rest.ctx.Err() != nil || until.Before(beat) {
			return
		}
		began = time.Now()
		var found asleep
		e.turn(t, func() { found, err = e.askAsleep(bed.Rest) })
		if err != nil {
			e.log.Warn("the rest is over: the database is not responding", "error", err)
			return
		}
		if !found.quiet(0) || e.live().RestAfter == 0 {
			return
		}
		e.rest.next = found.Next
	}
}
