package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/journal"
)

// quarantine holds what slots no longer run. The journal is the permanent record for all
// hosts; this is what the host knows of it.
type quarantine struct {
	journal journal.Journal
	log     hclog.Logger
	write   func() *journal.Log

	mu    sync.Mutex   // guards the fields below
	known []Quarantine // entries the journal has
	own   []Quarantine // entries of this host that were not yet seen in the journal
}

// readTimeout bounds a read of the quarantine from the journal.
const readTimeout = 2 * time.Second

// refresh reads what other hosts may have added. If that fails, the host relies on what
// it knows.
func (q *quarantine) refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	known, err := q.journal.Quarantines(ctx)
	if err != nil {
		q.log.Warn("the quarantine list cannot be read; using the last known one", "error", err)
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.known = known
	q.own = slices.DeleteFunc(q.own, func(o Quarantine) bool {
		return slices.ContainsFunc(known, func(k Quarantine) bool { return k.Covers(o.Slot, o.SHA256, o.Config) })
	})
}

// all returns what is in quarantine. The caller holds mu.
func (q *quarantine) all() []Quarantine { return slices.Concat(q.known, q.own) }

// check returns an error if a slot must not run a release.
func (q *quarantine) check(id SlotID, r *release) error {
	if k, found := q.covering(id, r); found {
		return refusal(k)
	}
	return nil
}

// covering returns an entry because of which a slot must not run a release: one for its
// settings, if there is one.
func (q *quarantine) covering(id SlotID, r *release) (entry Quarantine, found bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, k := range q.all() {
		if k.Covers(id, r.stored.SHA256, r.config) && (!found || k.Config != "") {
			entry, found = k, true
		}
	}
	return entry, found
}

// refusal returns the error about an entry.
func refusal(k Quarantine) error {
	what, remedy := "sha256", "release it first"
	if k.Config != "" {
		what, remedy = "these settings with sha256", "put the previous settings back, or release these first"
	}
	return fmt.Errorf("%w since %s: %s %s, by %s: %s (%s: tasker plugin release %s --digest %.12s)", ErrQuarantined,
		k.Since.UTC().Format(time.RFC3339), what, k.SHA256, k.Actor, k.Reason, remedy, k.Slot, k.SHA256)
}

// of returns what a slot does not run.
func (q *quarantine) of(id SlotID) []Quarantine {
	q.mu.Lock()
	defer q.mu.Unlock()
	var found []Quarantine
	for _, k := range q.all() {
		if k.Slot == id {
			found = append(found, k)
		}
	}
	return found
}

// add prevents a slot from running a release again, and returns the event to record. If
// instead is the same executable with other settings, the settings are at fault.
func (q *quarantine) add(id SlotID, bad, instead *release, actor Actor, reason string) Event {
	k := Quarantine{Slot: id, SHA256: bad.stored.SHA256, Since: time.Now(), Actor: actor, Reason: reason}
	if instead != nil && instead.stored.SHA256 == k.SHA256 {
		k.Config = bad.config
	}
	q.mu.Lock()
	q.own = append(q.own, k)
	q.mu.Unlock()
	return Event{
		At: k.Since, Slot: id, From: journal.Verified, To: journal.Quarantined, Actor: actor, Reason: reason,
		SHA256: k.SHA256, Config: k.Config,
	}
}

// forget reverts an addition that could not be recorded.
func (q *quarantine) forget(id SlotID, r *release) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.own = slices.DeleteFunc(q.own, func(k Quarantine) bool { return k.Covers(id, r.stored.SHA256, r.config) })
}

// release releases executables from quarantine.
func (q *quarantine) release(ctx context.Context, id SlotID, sum string, actor Actor, reason string) error {
	q.refresh(ctx)
	matches := func(k Quarantine) bool {
		return k.Slot == id && (sum == "" || strings.HasPrefix(k.SHA256, strings.ToLower(sum)))
	}
	q.mu.Lock()
	var events []Event
	for _, k := range q.all() {
		if matches(k) {
			events = append(events, Event{
				At: time.Now(), Slot: id, From: journal.Quarantined, To: journal.Verified, Actor: actor, Reason: reason,
				SHA256: k.SHA256, Config: k.Config,
			})
		}
	}
	q.mu.Unlock()
	if len(events) == 0 {
		return fmt.Errorf("%w: nothing that matches is in quarantine", ErrNothingToDo)
	}
	account := q.write()
	if account == nil {
		return ErrStopping // it has not started
	}
	if err := account.Must(ctx, events...); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.known, q.own = slices.DeleteFunc(q.known, matches), slices.DeleteFunc(q.own, matches)
	return nil
}

// allowed returns what a starting slot runs: what is configured or, if that is in
// quarantine, the executable that last served well. It has no replacement for settings in
// quarantine: no other executable is to run with them.
func (s *slot) allowed(ctx context.Context, r *release) (*release, error) {
	s.host.quarantine.refresh(ctx)
	entry, found := s.host.quarantine.covering(s.id, r)
	switch {
	case !found:
		return r, nil
	case entry.Config != "":
		return nil, refusal(entry)
	}
	refused := refusal(entry)
	good, err := s.lastGood(ctx, r.spec)
	if err != nil {
		return nil, errors.Join(refused, err)
	}
	s.log.Error("the configured executable is in quarantine; starting the previous one", "error", refused, "sha256", good.stored.SHA256)
	return good, nil
}

// lastGood returns the executable that last served well, with the given settings.
func (s *slot) lastGood(ctx context.Context, settings Spec) (*release, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	sum, err := s.host.cfg.Journal.LastGood(ctx, s.id, settings.SHA256)
	if err != nil {
		return nil, fmt.Errorf("find the previous executable: %w", err)
	}
	if sum == "" {
		return nil, errors.New("no other executable has served before")
	}
	settings.Path, settings.SHA256 = "", sum
	good, err := s.take(settings)
	if err != nil {
		return nil, fmt.Errorf("the previous executable: %w", err)
	}
	return good, s.host.quarantine.check(s.id, good)
}

// nowhere is the journal of a host that has none.
type nowhere struct{}

var _ journal.Journal = nowhere{}

// Record discards events.
func (nowhere) Record(context.Context, []journal.Event) error { return nil }

// Quarantines returns none.
func (nowhere) Quarantines(context.Context) ([]journal.Quarantine, error) { return nil, nil }

// LastGood returns none.
func (nowhere) LastGood(context.Context, SlotID, string) (string, error) { return "", nil }
