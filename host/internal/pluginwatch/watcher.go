package pluginwatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/lifecycle"
	"github.com/tasker-systems/tasker-host/host/internal/pluginset"
)

// Wanted is a slot that should run.
type Wanted struct {
	config.PluginSpec // with the checksum of the binary that was checked
	// Changed is set if the binary or the settings have changed since the last time.
	// What runs in a slot that has not changed stays, even if an operator put it
	// there.
	Changed bool
}

// Change is what the engine does, or would do, to a slot.
type Change struct {
	Kind, Name string
	Action     string
	From, To   string // checksums
	Reason     string
	Err        error
	// Again is set if Err is not the plugin's fault, and the change should be tried
	// again.
	Again bool
}

// Engine runs plugins. Slots that are not wanted are removed.
type Engine interface {
	// Plan returns what Apply would do.
	Plan(slots []Wanted) ([]Change, error)
	// Apply makes the slots what they should be.
	Apply(ctx context.Context, slots []Wanted, actor, reason string) ([]Change, error)
}

// Config holds a watcher's settings.
type Config struct {
	// Rest is how long files must not change before they are read, if it is not
	// certain that they are complete; default 300ms.
	Rest time.Duration
	// Look is the time between two looks that no event causes; default 15s.
	Look time.Duration
}

// ByFiles is the actor of changes that come from the files.
const ByFiles = "config"

// Watcher watches the files of a host's plugins. It is safe for concurrent use.
type Watcher struct {
	cfg      Config
	selector *pluginset.Selector
	engine   Engine
	log      hclog.Logger

	cancel context.CancelFunc
	done   sync.WaitGroup

	turn sync.Mutex // one look at a time; guards the fields below
	runs map[[2]string]want
	seen string // the files at the last look

	mu     sync.Mutex // guards status
	status Status
}

var _ lifecycle.Service = (*Watcher)(nil)

// want is what a slot was last asked to be.
type want struct {
	spec   config.PluginSpec
	digest string // of binary and settings
	again  bool   // it failed, for a reason that may go away
}

// Status is the visible state of the selection.
type Status struct {
	Path, Environment string
	SelectedAt        time.Time // when the files were last valid; zero: never
	// Err is what is wrong with the files now; nil: nothing.
	Err     error
	Refused []pluginset.Slot // slots whose binary may not run
	Failed  []Change         // slots that could not be changed although their binary may run

	// The paths of all slots, whether they may run or not.
	paths []string
	specs map[[2]string]config.PluginSpec
}

// New returns a watcher that does nothing yet.
func New(cfg Config, selector *pluginset.Selector, engine Engine, log hclog.Logger) *Watcher {
	if cfg.Rest == 0 {
		cfg.Rest = 300 * time.Millisecond
	}
	if cfg.Look == 0 {
		cfg.Look = 15 * time.Second
	}
	return &Watcher{cfg: cfg, selector: selector, engine: engine, log: log, runs: map[[2]string]want{}}
}

// First selects for the first time and returns what should be started. It fails if a
// file is wrong, or if a required plugin may not run. A host without a plugins.toml
// has no plugins.
func (w *Watcher) First() ([]config.PluginSpec, error) {
	w.turn.Lock()
	defer w.turn.Unlock()
	w.seen = all(w.identities())
	sel, err := w.selector.Select()
	if errors.Is(err, os.ErrNotExist) {
		w.log.Warn("there is no plugins.toml: this host runs no steps itself", "path", w.selector.Path())
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var specs []config.PluginSpec
	var errs []error
	for _, slot := range w.merge(sel, true) {
		specs = append(specs, slot.PluginSpec)
		w.keep(slot.PluginSpec, false)
	}
	for _, slot := range w.Status().Refused {
		if slot.Required {
			errs = append(errs, fmt.Errorf("start plugin %s: %w", slot.Name, slot.Err))
		}
	}
	return specs, errors.Join(errs...)
}

// Start starts watching.
func (w *Watcher) Start(context.Context) error {
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	w.done.Go(func() { w.watch(ctx) })
	return nil
}

// Stop stops watching, and ends a change in progress.
func (w *Watcher) Stop(context.Context) error {
	if w.cancel != nil {
		w.cancel()
		w.done.Wait()
	}
	return nil
}

// Status returns the visible state.
func (w *Watcher) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.status
	s.Failed = slices.DeleteFunc(slices.Clone(s.Failed), func(c Change) bool {
		return slices.ContainsFunc(s.Refused, func(r pluginset.Slot) bool { return r.Kind == c.Kind && r.Name == c.Name })
	})
	return s
}

// Plan returns what Apply would do now.
func (w *Watcher) Plan() ([]Change, error) {
	w.turn.Lock()
	defer w.turn.Unlock()
	sel, err := w.selector.Select()
	if err != nil {
		return nil, err
	}
	return w.plan(sel)
}

// PlanText returns what Apply would do if plugins.toml had this text.
func (w *Watcher) PlanText(text []byte) ([]Change, error) {
	w.turn.Lock()
	defer w.turn.Unlock()
	sel, err := w.selector.SelectText(text)
	if err != nil {
		return nil, err
	}
	return w.plan(sel)
}

func (w *Watcher) plan(sel *pluginset.Selection) ([]Change, error) {
	wanted, bad := w.join(sel, true)
	changes, err := w.engine.Plan(wanted)
	for i, c := range changes {
		for _, f := range w.Status().Failed {
			if f.Kind == c.Kind && f.Name == c.Name && f.To == c.To {
				changes[i].Reason += "; it was tried and failed: " + f.Err.Error()
			}
		}
	}
	return refused(changes, bad), err
}

// Apply reads the files and makes what runs match them, without waiting for events,
// even where an operator has changed it or where it failed before.
func (w *Watcher) Apply(ctx context.Context, actor, reason string) ([]Change, error) {
	w.turn.Lock()
	defer w.turn.Unlock()
	w.seen = all(w.identities())
	return w.apply(ctx, true, actor, reason)
}

// apply selects and passes what has changed, or everything, to the engine. The caller
// holds turn.
func (w *Watcher) apply(ctx context.Context, all bool, actor, reason string) ([]Change, error) {
	sel, err := w.selector.Select()
	if err != nil {
		w.note(func(s *Status) { s.Err = err })
		w.log.Error("the changed plugins are refused; the previous ones keep running", "error", err)
		return nil, err
	}
	wanted := w.merge(sel, all)
	for _, slot := range w.Status().Refused {
		w.log.Error("plugin refused; the previous one keeps running", "plugin", label(slot.Kind, slot.Name), "error", slot.Err)
	}
	if !w.differs(wanted) {
		return refused(nil, w.Status().Refused), nil
	}
	changes, err := w.engine.Apply(ctx, wanted, actor, reason)
	w.record(wanted, changes)
	for _, c := range changes {
		switch {
		case c.Err != nil:
			w.log.Error("plugin not changed", "plugin", label(c.Kind, c.Name), "action", c.Action, "error", c.Err)
		case c.Action != "keep":
			w.log.Info("plugin changed", "plugin", label(c.Kind, c.Name), "action", c.Action, "from", c.From, "to", c.To, "actor", actor, "reason", c.Reason)
		}
	}
	return refused(changes, w.Status().Refused), err
}

// merge joins a selection with what runs, and records it.
func (w *Watcher) merge(sel *pluginset.Selection, all bool) []Wanted {
	var paths []string
	specs := map[[2]string]config.PluginSpec{}
	for _, slot := range sel.Slots {
		paths = append(paths, slot.Path)
		specs[[2]string{slot.Kind, slot.Name}] = slot.PluginSpec
	}
	wanted, bad := w.join(sel, all)
	w.note(func(s *Status) {
		s.Path, s.Environment = sel.Plugins.Path, sel.Plugins.Environment
		s.SelectedAt, s.Err, s.Refused, s.paths, s.specs = time.Now(), nil, bad, paths, specs
	})
	return wanted
}

// join joins a selection with what runs: a slot whose file may not run keeps what
// it had, if it had something. With all, every other slot counts as changed.
func (w *Watcher) join(sel *pluginset.Selection, all bool) (wanted []Wanted, refused []pluginset.Slot) {
	for _, slot := range sel.Slots {
		before, known := w.runs[[2]string{slot.Kind, slot.Name}]
		if slot.Err != nil {
			refused = append(refused, slot)
			if known {
				wanted = append(wanted, Wanted{PluginSpec: before.spec})
			}
			continue
		}
		spec := slot.PluginSpec
		spec.SHA256 = slot.File.SHA256 // what was checked is what runs
		wanted = append(wanted, Wanted{PluginSpec: spec, Changed: all || before.again || before.digest != digest(spec)})
	}
	return wanted, refused
}

// differs reports whether there is something to do.
func (w *Watcher) differs(wanted []Wanted) bool {
	for _, s := range wanted {
		if s.Changed {
			return true
		}
	}
	return len(wanted) != len(w.runs) // none is new, so one is gone
}

// record records what the slots were asked to be.
func (w *Watcher) record(wanted []Wanted, changes []Change) {
	again, failed := map[[2]string]bool{}, []Change(nil)
	gone := map[[2]string]bool{}
	for _, c := range changes {
		if c.Err != nil {
			failed = append(failed, c)
			again[[2]string{c.Kind, c.Name}] = c.Again
		}
	}
	for id := range w.runs {
		gone[id] = true
	}
	for _, s := range wanted {
		id := [2]string{s.Kind, s.Name}
		delete(gone, id)
		if s.Changed {
			w.keep(s.PluginSpec, again[id])
		}
	}
	for id := range gone {
		if !again[id] {
			delete(w.runs, id)
		}
	}
	w.note(func(s *Status) {
		for _, old := range s.Failed { // of slots that this change did not touch
			touched := false
			for _, c := range wanted {
				touched = touched || c.Kind == old.Kind && c.Name == old.Name && c.Changed
			}
			if !touched && !gone[[2]string{old.Kind, old.Name}] && w.runs[[2]string{old.Kind, old.Name}].digest != "" {
				failed = append(failed, old)
			}
		}
		s.Failed = failed
	})
}

func (w *Watcher) keep(spec config.PluginSpec, again bool) {
	w.runs[[2]string{spec.Kind, spec.Name}] = want{spec: spec, digest: digest(spec), again: again}
}

// Settled forgets that a slot could not be changed, because an operator has dealt with
// it.
func (w *Watcher) Settled(kind, name string) {
	w.note(func(s *Status) {
		var left []Change
		for _, c := range s.Failed {
			if c.Kind != kind || c.Name != name {
				left = append(left, c)
			}
		}
		s.Failed = left
	})
}

// Spec returns what plugins.toml says about a plugin, and where.
func (w *Watcher) Spec(kind, name string) (config.PluginSpec, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	spec, ok := w.status.specs[[2]string{kind, name}]
	return spec, ok
}

// ErrNotNamed is returned by [Watcher.Check] for a plugin that is not in plugins.toml.
var ErrNotNamed = errors.New("names no such plugin")

// Check returns a plugin as it would be with another binary, if this binary may run in
// this environment.
func (w *Watcher) Check(kind, name, path string) (config.PluginSpec, error) {
	sel, err := w.selector.Select()
	if err != nil {
		return config.PluginSpec{}, err
	}
	slot, ok := sel.Slot(kind, name)
	if !ok {
		return config.PluginSpec{}, fmt.Errorf("%s/%s: %s %w", kind, name, w.selector.Path(), ErrNotNamed)
	}
	slot, err = w.selector.At(sel, slot, path)
	if err == nil {
		err = slot.Err
	}
	slot.SHA256 = slot.File.SHA256
	return slot.PluginSpec, err
}

func (w *Watcher) note(change func(*Status)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.status)
}

// label is the name of a plugin in logs: handlers, the most common, without their
// kind.
func label(kind, name string) string {
	if kind == config.KindHandler {
		return name
	}
	return kind + "/" + name
}

// refused adds to changes the slots whose files may not run, in place of what the
// engine says about them, which is that they are kept.
func refused(changes []Change, slots []pluginset.Slot) []Change {
	for _, s := range slots {
		c := Change{Kind: s.Kind, Name: s.Name, Action: "refuse", To: s.File.SHA256, Reason: s.Err.Error(), Err: s.Err}
		changes = slices.DeleteFunc(changes, func(kept Change) bool {
			same := kept.Kind == s.Kind && kept.Name == s.Name && kept.Action == "keep"
			if same {
				c.From = kept.From
			}
			return same
		})
		changes = append(changes, c)
	}
	return changes
}

// digest identifies the binary and settings of a plugin. References to secrets are not
// resolved, so it reveals nothing about the secrets.
func digest(s config.PluginSpec) string {
	s.Origin = config.Origin{}
	text, err := json.Marshal(s)
	if err != nil {
		return "" // it came from a file, so it can be written
	}
	return string(text)
}
