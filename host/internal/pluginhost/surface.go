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

// Quarantine is an executable that a slot no longer runs.
type Quarantine = journal.Quarantine

// Errors of changes.
var (
	// ErrNoSlot means that no plugin of this name is configured.
	ErrNoSlot = errors.New("no such plugin")
	// ErrStopping means that the host stops or has not started, or the plugin was
	// removed.
	ErrStopping = errors.New("the plugin host is not running")
	// ErrQuarantined means that the slot no longer runs this executable.
	ErrQuarantined = errors.New("it is in quarantine")
	// ErrNothingToDo means that there is nothing to roll back, to promote or to release.
	ErrNothingToDo = errors.New("nothing to do")
	// ErrNotRecorded means that the change could not be recorded, so it was not made.
	ErrNotRecorded = journal.ErrNotRecorded
)

// Source is where an executable comes from: a file, or the plugin store.
type Source struct {
	Path   string // absolute; empty: it is in the store
	SHA256 string // the expected hash; may be empty if there is a path
}

// Swap gives a slot another executable, keeping its settings. It returns when the new
// generation serves or, if the slot's rollout has steps, has begun them. Until then, and
// if anything fails, the old one serves.
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

// Rollback reverts the last change of a slot: a rollout in progress is given up;
// otherwise what served before takes over, at once if it is still warm. The reverted
// release is quarantined.
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

// Promote ends a rollout in progress: the new generation serves.
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
			return fmt.Errorf("%w: no rollout is in progress", ErrNothingToDo)
		}
		return s.takeOver(ctx, g, actor, reason)
	})
	if err != nil {
		return fmt.Errorf("promote %s: %w", id, err)
	}
	return nil
}

// Release releases an executable from a slot's quarantine; an empty sha256 releases all.
// It starts nothing.
func (h *Host) Release(ctx context.Context, id SlotID, sha256 string, actor Actor, reason string) error {
	if _, err := h.slot(id); err != nil {
		return err
	}
	if err := h.quarantine.release(ctx, id, sha256, actor, reason); err != nil {
		return fmt.Errorf("release %s: %w", id, err)
	}
	return nil
}

// slot returns a configured slot.
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

// labelOf returns the name of a slot in logs, metrics and messages: the name of a handler
// plugin, kind and name for any other.
func labelOf(id SlotID) string {
	if id.Kind == KindHandler {
		return id.Name
	}
	return id.String()
}
