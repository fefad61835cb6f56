package pluginhost

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/journal"
)

// promotion makes a generation the one that serves its slot.
type promotion struct {
	slot *slot
	to   *generation
	keep bool // the one that served is kept warm
	hung bool // the one that served has calls that hang
	// needed reports at the moment of the change, with the slot's lock held, whether it
	// is still wanted; nil: it is. What the host does on its own initiative takes time to
	// prepare, and an operator may have been quicker.
	needed func() bool
}

var (
	errVanished  = errors.New("the generation ended before it took over")
	errNotNeeded = errors.New("another generation was faster")
)

// promote records the promotions and then makes them: all at the same moment, or none.
func (h *Host) promote(ctx context.Context, all []promotion, actor journal.Actor, reason string) error {
	h.switching.Lock()
	defer h.switching.Unlock()
	inOrder(all)
	var events, undo []journal.Event
	edits := make([]edit, len(all))
	for i, p := range all {
		p.slot.mu.Lock()
		edits[i] = edit{slot: p.slot.label, to: p.slot.beside(p.to)}
		if from := p.to.phase; from != journal.Active {
			if from == journal.Draining {
				events = append(events, p.slot.event(p.to, journal.Standby, actor, wantedAgain))
				from = journal.Standby
			}
			e := p.slot.event(p.to, journal.Active, actor, reason)
			e.From = from
			events = append(events, e)
			e = p.slot.event(p.to, journal.Draining, journal.ByHost, errVanished.Error())
			e.From = journal.Active
			undo = append(undo, e)
		}
		if old := p.slot.primary; old != nil && old != p.to {
			events = append(events, p.slot.event(old, journal.Draining, actor, fmt.Sprintf("generation %d takes over", p.to.number)))
			for _, edge := range [][2]journal.Phase{{journal.Draining, journal.Standby}, {journal.Standby, journal.Active}} {
				e := p.slot.event(old, edge[1], journal.ByHost, errVanished.Error())
				e.From = edge[0]
				undo = append(undo, e)
			}
		}
		p.slot.mu.Unlock()
	}
	ready, err := h.router.prepare(edits...)
	if err != nil {
		return err
	}
	if err := h.journal.Must(ctx, events...); err != nil {
		return err
	}
	known := make(map[written]bool, len(events))
	for _, e := range events {
		known[writtenAs(e)] = true
	}
	err = h.commit(all, ready, actor, reason, func(made ...journal.Event) {
		for _, e := range made {
			if !known[writtenAs(e)] { // something else served by then
				h.journal.Later(e)
			}
		}
	})
	if err != nil {
		for i := range undo {
			undo[i].At = time.Now()
		}
		h.journal.Later(undo...)
	}
	return err
}

// written identifies a transition that was recorded before it was made.
type written struct {
	generation uint64
	to         journal.Phase
}

func writtenAs(e journal.Event) written { return written{e.Generation, e.To} }

// inOrder sorts promotions into the order in which their slots are locked.
func inOrder(all []promotion) {
	slices.SortFunc(all, func(a, b promotion) int { return cmp.Compare(a.slot.label, b.slot.label) })
}

// commit makes promotions: the route table, which may have been prepared, is replaced
// once for all of them. What served before drains.
func (h *Host) commit(all []promotion, ready *prepared, actor journal.Actor, reason string, record func(...journal.Event)) error {
	inOrder(all)
	edits := make([]edit, len(all))
	for i, p := range all {
		p.slot.mu.Lock()
		defer p.slot.mu.Unlock()
		edits[i] = edit{slot: p.slot.label, to: p.slot.beside(p.to)}
		if p.to.lost || p.to.cleanup {
			return fmt.Errorf("plugin %s, generation %d: %w", p.slot.label, p.to.number, errVanished)
		}
		if p.slot.ctx.Err() != nil {
			return ErrStopping
		}
		if p.needed != nil && !p.needed() {
			return fmt.Errorf("plugin %s, generation %d: %w", p.slot.label, p.to.number, errNotNeeded)
		}
	}
	if err := h.router.change(ready, edits...); err != nil {
		return err
	}
	for _, p := range all {
		p.slot.promoted(p, actor, reason, record)
	}
	return nil
}

// beside returns what is routed when a generation serves: the generation itself, and a
// candidate that continues its rollout. The caller holds mu.
func (s *slot) beside(g *generation) served {
	to := served{primary: g}
	if c := s.candidate; c != nil && c != g {
		switch c.phase {
		case journal.Canary:
			to.canary, to.weight = c, uint32(c.weight) // a percentage
		case journal.Shadow:
			to.shadow = c
		}
	}
	return to
}

// promoted notes that a generation serves. The caller holds mu.
func (s *slot) promoted(p promotion, actor journal.Actor, reason string, record func(...journal.Event)) {
	g, old := p.to, s.primary
	older := s.standby
	s.forget(g)
	s.primary = g
	if !g.runs.same(s.want) {
		s.good, s.want = s.want, g.current()
		s.spec = s.want.spec
	}
	s.state, s.since = Serving, time.Now()
	if g.phase == journal.Draining {
		record(s.move(g, journal.Standby, actor, wantedAgain))
	}
	if g.phase != journal.Active {
		record(s.move(g, journal.Active, actor, reason))
	}
	g.weight = 0
	s.log.Info("plugin serves", "generation", g.number, "version", g.version, "pid", g.proc.Pid(),
		"sha256", g.runs.stored.SHA256, "serves", g.offers(), "max_in_flight", g.window,
		"started_in", g.own.Round(time.Millisecond).String(), "actor", string(actor), "reason", reason)
	if old != nil && old != g {
		record(s.move(old, journal.Draining, actor, fmt.Sprintf("generation %d takes over", g.number)))
		if p.keep {
			s.standby = old
		}
		s.beginTrial(g, old)
		since := old.moved
		s.tasks.Go(func() { s.drain(old, p, g.number, since) })
	}
	if older != nil && older != g && older != s.standby && older.phase == journal.Standby { // otherwise it is still draining, and ends after that
		s.tasks.Go(func() { _ = s.finish(older, ReasonReplaced, "a newer generation is kept warm") }) // finish reports errors
	}
	signal(s.lacking)
}

const wantedAgain = "it is needed again"

// warm moves a generation that is still draining, and is to serve again, through the
// phase in between. The caller holds mu.
func (s *slot) warm(g *generation) {
	if g.phase == journal.Draining {
		s.host.journal.Later(s.move(g, journal.Standby, journal.ByHost, wantedAgain))
	}
}

// passOn passes the calls that a generation has not been sent yet to the one that serves
// now.
func (s *slot) passOn(g *generation) {
	if g.work == nil {
		return
	}
	waiting := g.work.reclaim()
	for _, call := range waiting {
		s.host.Dispatch(call)
	}
	if len(waiting) > 0 {
		g.release(len(waiting))
	}
}

// hungDrain is the time that healthy calls get in a process in which others hang.
const hungDrain = 5 * time.Second

// drain retires a generation that no longer serves: calls it was not sent go to its
// successor, and those it has may end. Calls that have not ended when the time is over
// are cancelled, and then released.
func (s *slot) drain(g *generation, p promotion, successor uint64, since time.Time) {
	drains := func() bool { // it may serve again, or be gone, or drain once more
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.ctx.Err() == nil && g.phase == journal.Draining && g.moved.Equal(since) && !g.lost
	}
	s.passOn(g)
	settings := s.settings()
	limit := settings.DrainTimeout
	message := fmt.Sprintf("the process was replaced by generation %d", successor)
	if p.hung {
		limit, message = min(limit, hungDrain), message+" because calls hang in it"
	}
	ctx, cancel := context.WithTimeout(s.ctx, limit)
	err := g.wait(ctx)
	cancel()
	if err != nil && g.work != nil && drains() {
		s.log.Warn("the drain timeout is over; steps that the generation still runs are cancelled and handed back", "generation", g.number, "steps", g.leases.Load())
		g.work.cancelAll(ReasonReplaced, message)
		last, cancel := context.WithTimeout(s.ctx, callGrace+2*deadlineTick)
		_ = g.wait(last) // finish releases what ignores that
		cancel()
	}
	if !drains() {
		return
	}
	s.metrics.drains.Observe(time.Since(since).Seconds())
	s.host.switching.Lock() // a promotion that is being recorded relies on the phase
	defer s.host.switching.Unlock()
	s.mu.Lock()
	if g.phase != journal.Draining || !g.moved.Equal(since) {
		s.mu.Unlock()
		return
	}
	if err != nil || s.standby != g || settings.RollbackWindow <= 0 {
		s.mu.Unlock()
		s.tasks.Go(func() { _ = s.finish(g, ReasonReplaced, message) }) // finish reports errors
		return
	}
	s.host.journal.Later(s.move(g, journal.Standby, journal.ByHost, "its calls have ended; it is kept warm"))
	moved := g.moved
	s.mu.Unlock()
	s.tasks.Go(func() { s.expire(g, moved) })
}

// expire ends a generation that has been kept warm for long enough.
func (s *slot) expire(g *generation, since time.Time) {
	timer := time.NewTimer(time.Until(since.Add(s.settings().RollbackWindow)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-g.stop:
		return
	case <-s.ctx.Done():
		return
	}
	s.mu.Lock()
	over := g.phase == journal.Standby && g.moved.Equal(since)
	s.mu.Unlock()
	if over {
		_ = s.finish(g, ReasonReplaced, "the rollback window is over") // finish reports errors
	}
}
