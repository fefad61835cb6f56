package pluginhost

import (
	"context"
	"errors"
	"fmt"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/journal"
)

// SlotID names a configured plugin: its kind and its name.
type SlotID = journal.SlotID

// Actor says who asked for a change.
type Actor = journal.Actor

// Event is one thing that happened to a generation.
type Event = journal.Event

// Phase is what a generation is doing.
type Phase = journal.Phase

// Quarantine is an executable that a slot does not run any more.
type Quarantine = journal.Quarantine

// What the errors of changes are.
var (
	// ErrNoSlot: no plugin of this name is configured.
	ErrNoSlot = errors.New("no such plugin")
	// ErrStopping: the host stops or has not started, or the plugin was removed.
	ErrStopping = errors.New("the plugin host does not run")
	// ErrQuarantined: the slot does not run this executable any more.
	ErrQuarantined = errors.New("it is in quarantine")
	// ErrNothingToDo: there is nothing to roll back, to promote or to release.
	ErrNothingToDo = errors.New("nothing to do")
	// ErrNotRecorded: the change could not be written down, so it was not made.
	ErrNotRecorded = journal.ErrNotRecorded
)

// Source is where an executable comes from: a file, or the plugin store.
type Source struct {
	Path   string // absolute; empty: it is in the store
	SHA256 string // what it must hash to; may be empty if there is a path
}

// Swap gives a slot another executable with the settings it has. It returns when
// the new generation serves, or is on its way there by steps if the slot's
// rollout says so. Until then, and if anything fails, the old one serves.
func (h *Host) Swap(ctx context.Context, id SlotID, from Source, actor Actor, reason string) error {
	s, err := h.slot(id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	spec := s.spec
	s.mu.Unlock()
	spec.Path, spec.SHA256 = from.Path, from.SHA256
	if err := spec.check(); err != nil {
		return fmt.Errorf("swap %s: %w", id, err)
	}
	err = s.operate(ctx, func(ctx context.Context) error { return s.swap(ctx, spec, actor, reason) })
	if err != nil {
		return fmt.Errorf("swap %s: %w", id, err)
	}
	return nil
}

// Rollback takes the last change of a slot back: a rollout that is under way is
// given up; else what served before takes over, at once if it is still warm. What
// is rolled back goes to quarantine.
func (h *Host) Rollback(ctx context.Context, id SlotID, actor Actor, reason string) error {
	s, err := h.slot(id)
	if err != nil {
		return err
	}
	if err := s.operate(ctx, func(ctx context.Context) error { return s.rollback(ctx, actor, reason) }); err != nil {
		return fmt.Errorf("roll back %s: %w", id, err)
	}
	return nil
}

// Promote ends a rollout that is under way: the new generation serves.
func (h *Host) Promote(ctx context.Context, id SlotID, actor Actor, reason string) error {
	s, err := h.slot(id)
	if err != nil {
		return err
	}
	err = s.operate(ctx, func(ctx context.Context) error {
		s.mu.Lock()
		g := s.candidate
		s.mu.Unlock()
		if g == nil {
			return fmt.Errorf("%w: no rollout is under way", ErrNothingToDo)
		}
		return s.takeOver(ctx, g, actor, reason)
	})
	if err != nil {
		return fmt.Errorf("promote %s: %w", id, err)
	}
	return nil
}

// Release lets an executable out of a slot's quarantine; an empty sha256 lets
// all out. It starts nothing.
func (h *Host) Release(ctx context.Context, id SlotID, sha256 string, actor Actor, reason string) error {
	if _, err := h.slot(id); err != nil {
		return err
	}
	if err := h.quarantine.release(ctx, id, sha256, actor, reason); err != nil {
		return fmt.Errorf("release %s: %w", id, err)
	}
	return nil
}

// slot finds a configured slot.
func (h *Host) slot(id SlotID) (*slot, error) {
	h.slotsMu.Lock()
	defer h.slotsMu.Unlock()
	others := ""
	for _, s := range h.slots {
		if s.id == id {
			return s, nil
		}
		if s.id.Name == id.Name {
			others += fmt.Sprintf("; there is %s", s.id)
		}
	}
	return nil, fmt.Errorf("%s: %w%s", id, ErrNoSlot, others)
}

// labelOf returns how a slot is called in logs, metrics and messages: a handler
// plugin by its name, any other by kind and name.
func labelOf(id SlotID) string {
	if id.Kind == KindHandler {
		return id.Name
	}
	return id.String()
}
