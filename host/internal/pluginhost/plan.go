package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/artifact"
)

// Action is what a change does to a slot.
type Action string

// The actions, in the order in which they are shown.
const (
	Add         Action = "add"         // a plugin that was not configured before
	SwapTo      Action = "swap"        // another executable
	Reconfigure Action = "reconfigure" // the same executable, started with other settings
	Retune      Action = "retune"      // settings that need no new process
	Withdraw    Action = "withdraw"    // the rollout in progress ends: what serves is wanted again
	Remove      Action = "remove"      // a plugin that is no longer configured
	Refuse      Action = "refuse"      // not possible, Reason says why; what serves stays
	Keep        Action = "keep"        // nothing
)

// Change is what is to be done to one slot, or was done.
type Change struct {
	Slot     SlotID
	Action   Action
	From, To string // SHA-256 of the executables; empty: none
	Reason   string // what differs, or why it is refused
	Err      error  // from Apply: why it was not done
}

// Plan returns what Apply would do, without doing it. The error names everything that is
// wrong with the specifications; a problem with a file is reported as a refused change.
func (h *Host) Plan(specs []Spec) ([]Change, error) {
	specs, err := completed(specs)
	if err != nil {
		return nil, fmt.Errorf("plan plugins: %w", err)
	}
	return h.plan(specs, found), nil
}

// found returns the checksum of the file that a specification names now.
func found(spec Spec) (string, error) {
	if spec.Path == "" {
		return spec.SHA256, nil
	}
	sum, err := artifact.Digest(spec.Path)
	if err == nil && spec.SHA256 != "" && !strings.EqualFold(sum, spec.SHA256) {
		err = fmt.Errorf("%s: checksum mismatch: sha256 is %s, but the configured one is %s", spec.Path, sum, spec.SHA256)
	}
	return sum, err
}

// expected is like found, but trusts a checksum that is given: the intake verifies it,
// and only for what changes.
func expected(spec Spec) (string, error) {
	if spec.SHA256 != "" {
		return strings.ToLower(spec.SHA256), nil
	}
	return found(spec)
}

// plan is Plan for complete specifications. sum returns the hash of their executables.
func (h *Host) plan(specs []Spec, sum func(Spec) (string, error)) []Change {
	wanted := make(map[SlotID]bool, len(specs))
	var changes []Change
	for _, spec := range specs {
		wanted[spec.ID()] = true
		changes = append(changes, h.planOne(spec, sum))
	}
	for _, s := range h.list() {
		if !wanted[s.id] && s.leaving() == nil {
			changes = append(changes, Change{Slot: s.id, Action: Remove, From: s.status().SHA256, Reason: "it is no longer configured"})
		}
	}
	return changes
}

func (h *Host) planOne(spec Spec, sum func(Spec) (string, error)) Change {
	c := Change{Slot: spec.ID()}
	var err error
	if c.To, err = sum(spec); err != nil {
		c.Action, c.Reason = Refuse, err.Error()
	}
	s, err := h.slot(spec.ID())
	if err != nil || s.leaving() != nil {
		if c.Action == "" {
			c.Action, c.Reason = Add, "it is newly configured"
		}
		return c
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.want
	if s.candidate != nil {
		now = s.candidate.current()
	}
	if now != nil {
		c.From = now.stored.SHA256
	}
	if now != nil && spec.Unchanged {
		c.Action, c.To, c.Reason = Keep, c.From, ""
	}
	if c.Action == "" {
		c.Action, c.Reason = s.compare(spec, c.To, now)
	}
	return c
}

// compare returns what must be done for a specification. The caller holds mu.
func (s *slot) compare(spec Spec, sum string, now *release) (Action, string) {
	next := &release{spec: spec, config: spec.digest(s.host.cfg.Environment), stored: artifact.Artifact{SHA256: sum}}
	if now == nil { // it has not been taken in yet
		return SwapTo, "it is not serving yet"
	}
	if s.candidate != nil && next.same(s.want) {
		return Withdraw, "what serves is configured again, so the rollout of the other executable ends"
	}
	same := next.same(now)
	if err := s.host.quarantine.check(s.id, next); err != nil && !same {
		return Refuse, err.Error()
	}
	switch {
	case next.stored.SHA256 != now.stored.SHA256:
		return SwapTo, "another executable"
	case !same:
		return Reconfigure, "other settings: " + differences(now.spec, spec)
	}
	if d := differences(now.spec, now.with(spec, sum).spec); d != "" {
		return Retune, d
	}
	return Keep, ""
}

// differences names the settings that differ, but never their values.
func differences(a, b Spec) string {
	list := ""
	va, vb := reflect.ValueOf(a), reflect.ValueOf(b)
	for i := range va.NumField() {
		name := va.Type().Field(i).Name
		if name == "SHA256" || name == "Unchanged" || name == "MaxFiles" && a.MaxInFlight != b.MaxInFlight || // MaxFiles follows from MaxInFlight
			reflect.DeepEqual(va.Field(i).Interface(), vb.Field(i).Interface()) {
			continue
		}
		if list != "" {
			list += ", "
		}
		list += settingNames[name]
	}
	return list
}

// settingNames are the names of the settings in plugins.toml.
var settingNames = map[string]string{
	"Path": "path", "Required": "required", "MaxInFlight": "max_in_flight", "StartTimeout": "start_timeout",
	"User": "user", "Env": "env", "Options": "options", "MaxFiles": "max_files", "MemoryLimit": "memory_limit", "MaxProcs": "max_procs",
	"Limits":    "max_memory, max_processes, max_cpus",
	"LogLimits": "log limits", "DrainTimeout": "drain_timeout", "RollbackWindow": "rollback_window", "Rollout": "rollout",
}

// Apply changes the running plugins to match the specifications: it adds, removes, swaps
// and reconfigures slots. All immediate takeovers happen in the same moment. If the
// specifications are invalid, nothing is done. A failure of one slot is reported in its
// change and in the error; it does not hold up the others.
func (h *Host) Apply(ctx context.Context, specs []Spec, actor Actor, reason string) ([]Change, error) {
	h.applies.Lock()
	defer h.applies.Unlock()
	specs, err := completed(specs)
	if err != nil {
		return nil, fmt.Errorf("apply plugins: %w", err)
	}
	h.lifecycle.Lock()
	l := h.now
	h.lifecycle.Unlock()
	if l == nil {
		return nil, fmt.Errorf("apply plugins: %w", ErrStopping)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(l.ctx, func() { cancel(ErrStopping) })()
	if err := h.settle(ctx); err != nil {
		return nil, fmt.Errorf("apply plugins: a plugin is still being removed: %w", err)
	}
	changes := h.plan(specs, expected)
	a := application{host: h, life: l, actor: actor, reason: reason, changes: changes, specs: make(map[SlotID]Spec)}
	for _, spec := range specs {
		a.specs[spec.ID()] = spec
	}
	a.run(ctx)
	h.reorder(specs)
	var errs []error
	for _, c := range a.changes {
		if c.Err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.Slot, c.Err))
		}
	}
	return a.changes, errors.Join(errs...)
}

// application is one Apply in progress.
type application struct {
	host    *Host
	life    *life
	actor   Actor
	reason  string
	specs   map[SlotID]Spec
	changes []Change

	held  []*slot    // no other operation runs on them
	mu    sync.Mutex // guards ready
	ready []readied
}

// readied is a new generation that is to take over in its slot.
type readied struct {
	change *Change
	p      promotion
}

// run makes all new generations ready concurrently, lets those that are ready take over
// together, and then removes what is no longer wanted. Other operations on the slots wait
// for it.
func (a *application) run(ctx context.Context) {
	var preparing sync.WaitGroup
	a.hold(ctx)
	defer a.letGo()
	for i := range a.changes {
		c := &a.changes[i]
		switch c.Action {
		case Add, SwapTo, Reconfigure:
			preparing.Go(func() { c.Err = a.prepare(ctx, c) })
		case Retune:
			c.Err = a.retune(c)
		case Withdraw:
			c.Err = a.withdraw(c)
		case Refuse:
			c.Err = errors.New(c.Reason)
		}
	}
	preparing.Wait()
	a.switchOver(ctx)
	for i := range a.changes {
		if c := &a.changes[i]; c.Action == Remove && c.Err == nil {
			c.Err = a.remove(ctx, c.Slot)
		}
	}
}

// hold blocks other operations on the slots that will change.
func (a *application) hold(ctx context.Context) {
	for i := range a.changes {
		c := &a.changes[i]
		s, err := a.host.slot(c.Slot)
		if err != nil || c.Action == Keep || c.Action == Refuse {
			continue
		}
		select {
		case s.op <- struct{}{}:
			a.held = append(a.held, s)
		case <-ctx.Done():
			c.Err = context.Cause(ctx)
			c.Action = Refuse
			c.Reason = "another change of it is in progress"
		}
	}
}

// letGo unblocks the given slots, or all that are held.
func (a *application) letGo(slots ...*slot) {
	a.held = slices.DeleteFunc(a.held, func(s *slot) bool {
		gone := len(slots) == 0 || slices.Contains(slots, s)
		if gone {
			<-s.op
		}
		return gone
	})
}

// prepare makes a slot's new generation ready.
func (a *application) prepare(ctx context.Context, c *Change) error {
	spec := a.specs[c.Slot]
	s, err := a.host.slot(c.Slot)
	if err != nil {
		s = a.host.add(a.life, spec)
	}
	g, err := s.ready(ctx, spec, a.actor, a.reason)
	if err != nil {
		if c.Action == Add {
			a.host.drop(s)
		}
		return s.swapped(nil, err)
	}
	if c.Action != Add && spec.Rollout.Strategy != Immediate {
		return s.swapped(g, s.roll(ctx, g, a.actor, a.reason))
	}
	s.mu.Lock()
	serves := s.primary
	s.mu.Unlock()
	if serves != nil {
		s.carryOver(ctx, serves, g)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ready = append(a.ready, readied{c, promotion{slot: s, to: g, keep: true}})
	return nil
}

// switchOver lets all that is ready take over in one moment. If one of them makes that
// impossible, the others take over without it.
func (a *application) switchOver(ctx context.Context) {
	all := make([]promotion, len(a.ready))
	for i, r := range a.ready {
		all[i] = r.p
	}
	if len(all) == 0 {
		return
	}
	err := a.host.promote(ctx, all, a.actor, a.reason)
	for _, r := range a.ready {
		if err != nil && len(all) > 1 {
			r.change.Err = a.host.promote(ctx, []promotion{r.p}, a.actor, a.reason)
		} else {
			r.change.Err = err
		}
		r.change.Err = r.p.slot.swapped(r.p.to, r.change.Err)
		if r.change.Action == Add && r.change.Err != nil {
			a.host.drop(r.p.slot)
		}
		if r.change.Action == Add && r.change.Err == nil {
			go r.p.slot.run() // finish and drop wait for its end
		}
	}
}

// retune applies settings that need no new process.
func (a *application) retune(c *Change) error {
	s, err := a.host.slot(c.Slot)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	spec := a.specs[c.Slot]
	s.want = s.want.with(spec, c.To)
	s.spec = s.want.spec
	if s.good != nil {
		s.good = s.good.with(spec, c.To)
	}
	for _, g := range []*generation{s.primary, s.candidate, s.standby} {
		if g != nil { // whichever one serves next
			g.tuned = g.runs.with(spec, c.To)
		}
	}
	return nil
}

// withdraw ends a rollout that is no longer wanted.
func (a *application) withdraw(c *Change) error {
	s, err := a.host.slot(c.Slot)
	if err != nil {
		return err
	}
	s.giveUpRollout(a.actor, a.reason)
	return a.retune(c)
}

// add creates a slot that does not run yet.
func (h *Host) add(l *life, spec Spec) *slot {
	s := newSlot(h, spec)
	s.reset(l)
	s.enter(Starting)
	h.slotsMu.Lock()
	defer h.slotsMu.Unlock()
	h.slots = append(h.slots, s)
	return s
}

// reorder sorts the slots into the order of the configuration.
func (h *Host) reorder(specs []Spec) {
	at := func(s *slot) int {
		return slices.IndexFunc(specs, func(spec Spec) bool { return spec.ID() == s.id })
	}
	h.slotsMu.Lock()
	defer h.slotsMu.Unlock()
	slices.SortStableFunc(h.slots, func(a, b *slot) int { return at(a) - at(b) })
}
