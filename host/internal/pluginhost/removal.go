package pluginhost

import (
	"context"
	"slices"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/journal"
)

// remove ends a slot; its calls in progress may end. Once nothing is routed to the slot
// there is no way back: if ctx ends, remove returns, and the slot ends without it.
func (a *application) remove(ctx context.Context, id SlotID) error {
	h := a.host
	s, err := h.slot(id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	var events []Event
	if g := s.primary; g != nil {
		events = append(events, s.event(g, journal.Draining, a.actor, "removed: "+a.reason))
	}
	limit := s.spec.DrainTimeout
	s.mu.Unlock()
	if err := h.journal.Must(ctx, events...); err != nil {
		return err
	}
	if err := h.router.change(nil, edit{slot: s.label, drop: true}); err != nil {
		return err
	}
	gone := make(chan struct{})
	s.mu.Lock()
	if g := s.primary; g != nil && !g.lost {
		s.move(g, journal.Draining, a.actor, "removed: "+a.reason) // already recorded
	}
	s.removed = gone
	s.mu.Unlock()
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	a.life.removals.Go(func() {
		defer close(gone)
		defer cancel()
		a.life.seeOff(s, cancel)
		h.forget(s)
	})
	a.letGo(s) // the end of a slot waits for the operations on it
	s.stop(bound)
	select {
	case <-gone:
	case <-ctx.Done():
	}
	return nil
}

// seeOff waits until a removed slot has ended. When the host stops, the calls in it have
// no more time than the others, whatever the slot's own limit is.
func (l *life) seeOff(s *slot, cut context.CancelFunc) {
	select {
	case <-s.ended:
	case <-l.ctx.Done():
		defer context.AfterFunc(l.bound, cut)()
		<-s.ended
	}
}

// leaving returns a channel that is closed when nothing is left of a slot that was
// removed; nil: it was not.
func (s *slot) leaving() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.removed
}

// settle waits for the ends of slots that were removed, so that they can be added again.
func (h *Host) settle(ctx context.Context) error {
	for _, s := range h.list() {
		gone := s.leaving()
		if gone == nil {
			continue
		}
		select {
		case <-gone:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// drop removes a slot that was added and never served.
func (h *Host) drop(s *slot) {
	s.windUp()
	h.forget(s)
}

func (h *Host) forget(s *slot) {
	h.slotsMu.Lock()
	h.slots = slices.DeleteFunc(h.slots, func(other *slot) bool { return other == s })
	h.slotsMu.Unlock()
	h.metrics.forget(s.label)
}
