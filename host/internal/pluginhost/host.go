package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tasker-systems/tasker-host/host/internal/lifecycle"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/artifact"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/journal"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/process"
)

// pruneAfter is how long an unused executable is kept in the store.
const pruneAfter = 7 * 24 * time.Hour

// Host manages the plugins of one host. Its methods are safe for concurrent use.
type Host struct {
	cfg     Config
	log     hclog.Logger
	metrics *metrics
	router  *router
	journal *journal.Log                // of the current life; set before its slots run
	account atomic.Pointer[journal.Log] // the same, for those that do not know the life

	quarantine *quarantine

	slotsMu sync.Mutex // guards slots, which are in the order of the configuration
	slots   []*slot
	applies sync.Mutex // one Apply at a time

	switching sync.Mutex // one recorded promotion at a time

	mirrors  sync.WaitGroup // copies of calls to shadows
	stopping atomic.Bool
	live     liveSet

	abort     atomic.Pointer[context.CancelCauseFunc] // cancels a Start in progress
	lifecycle sync.Mutex                              // one Start or Stop at a time; guards the fields below
	now       *life                                   // nil: stopped
}

var _ lifecycle.Service = (*Host)(nil)

// life is what exists between Start and Stop. It is immutable except for bound and errors.
type life struct {
	store    *artifact.Store
	runDir   *process.RunDir
	launcher *process.Launcher
	groups   func() *process.Groups // created when the first plugin has a limit
	starts   chan struct{}          // semaphore: processes that may be starting at once

	ctx      context.Context // ends when Stop is called
	end      context.CancelFunc
	bound    context.Context // of Stop; set before ctx ends
	removals sync.WaitGroup  // slots that were removed and still end

	mu     sync.Mutex // guards errors
	errors []error    // from the ends of slots
}

// errOvertaken is the cause that ends a Start when Stop is called.
var errOvertaken = errors.New("the plugin host was stopped while it was starting")

// New returns a host, to be started with Start. The error names everything that is wrong
// with the configuration.
func New(cfg Config, reg prometheus.Registerer, log hclog.Logger) (*Host, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("configure plugins: %w", err)
	}
	h := &Host{cfg: cfg, log: log, metrics: newMetrics(), router: newRouter()}
	h.quarantine = &quarantine{journal: cfg.Journal, log: log, write: h.account.Load}
	for _, spec := range cfg.Plugins {
		h.slots = append(h.slots, newSlot(h, spec))
	}
	if err := reg.Register(collector{h}); err != nil {
		return nil, fmt.Errorf("register metrics of plugins: %w", err)
	}
	return h, nil
}

// Start starts all plugins, a few at a time. It returns when each has been tried once; if
// a required one did not start, it returns an error and leaves nothing running. Others
// are retried for as long as the host runs.
func (h *Host) Start(ctx context.Context) error {
	h.lifecycle.Lock()
	defer h.lifecycle.Unlock()
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("start plugins: %w", err)
	}
	if h.now != nil {
		return nil
	}
	ctx, abort := context.WithCancelCause(ctx)
	defer abort(nil)
	h.abort.Store(&abort)
	defer h.abort.Store(nil)

	l, err := h.begin(ctx)
	if err != nil {
		return fmt.Errorf("start plugins: %w", err)
	}
	h.now = l
	if err := h.await(ctx); err != nil {
		give, cancel := context.WithCancel(context.WithoutCancel(ctx))
		cancel() // there is nothing to wait for
		return errors.Join(err, h.finish(give))
	}
	if err := l.store.Prune(pruneAfter); err != nil {
		h.log.Warn("plugin store not pruned", "error", err)
	}
	return nil
}

// begin creates what the plugins need and starts the slots.
func (h *Host) begin(ctx context.Context) (*life, error) {
	store, err := artifact.Open(h.cfg.StoreDir)
	if err != nil {
		return nil, err
	}
	runDir, err := process.NewRunDir(h.cfg.RunDir)
	if err != nil {
		return nil, err
	}
	l := &life{
		store: store, runDir: runDir, launcher: process.NewLauncher(),
		groups: sync.OnceValue(func() *process.Groups { return process.FindGroups("/sys/fs/cgroup", "/proc/self/cgroup") }),
		starts: make(chan struct{}, h.cfg.StartParallel),
	}
	l.ctx, l.end = context.WithCancel(context.WithoutCancel(ctx))
	h.stopping.Store(false)
	h.journal = journal.NewLog(h.cfg.Journal, h.log)
	for _, s := range h.list() {
		s.reset(l)
		go s.run() // finish waits for it
	}
	h.account.Store(h.journal)
	return l, nil
}

// lost returns how many events could not be recorded in this life.
func (h *Host) lost() int {
	if l := h.account.Load(); l != nil {
		return l.Lost()
	}
	return 0
}

// list returns the slots that are configured now.
func (h *Host) list() []*slot {
	h.slotsMu.Lock()
	defer h.slotsMu.Unlock()
	return slices.Clone(h.slots)
}

// await waits for the first attempt of every slot.
func (h *Host) await(ctx context.Context) error {
	var errs []error
	for _, s := range h.list() {
		select {
		case err := <-s.first:
			if err != nil && s.spec.Required {
				errs = append(errs, err)
			}
		case <-ctx.Done():
			return fmt.Errorf("start plugins: %w", context.Cause(ctx))
		}
	}
	return errors.Join(errs...)
}

// Stop takes no more calls, waits for those in progress until ctx ends, releases what is
// left, and ends all plugin processes. Its error contains ctx's cause if calls were cut
// short, and what could not be cleaned up.
func (h *Host) Stop(ctx context.Context) error {
	if abort := h.abort.Load(); abort != nil {
		(*abort)(errOvertaken)
	}
	h.lifecycle.Lock()
	defer h.lifecycle.Unlock()
	if h.now == nil {
		return nil
	}
	return h.finish(ctx)
}

// finish ends the current life. The caller holds lifecycle.
func (h *Host) finish(ctx context.Context) error {
	l := h.now
	h.now = nil
	h.stopping.Store(true)
	slots := h.list()
	for _, s := range slots {
		s.stop(ctx)
	}
	l.bound = ctx
	l.end()
	for _, s := range slots {
		<-s.ended
	}
	l.removals.Wait()
	h.mirrors.Wait()
	if lost := h.journal.Close(context.WithoutCancel(ctx)); lost > 0 {
		h.log.Error("plugin events are lost: the database could not be reached", "events", lost)
	}
	h.router.clear()
	l.launcher.Close()
	l.errors = append(l.errors, l.runDir.Remove())
	return errors.Join(l.errors...)
}

// failed records errors from the end of a slot.
func (l *life) failed(errs ...error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errors = append(l.errors, errs...)
}

// acquire waits until another process may be started.
func (l *life) acquire(ctx context.Context) error {
	select {
	case l.starts <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l *life) release() { <-l.starts }

// Dispatch runs a step. It never blocks: steps for which the plugin has no room wait
// here, so the caller must bound how many it dispatches. See [Call.Done] for how the
// outcome is delivered.
func (h *Host) Dispatch(call Call) {
	g, ok := h.router.acquire(call.Handler, call.Step.GetTaskUuid())
	if !ok {
		reason, message := ReasonNoPlugin, fmt.Sprintf("no plugin currently serves handler %q", call.Handler)
		if h.stopping.Load() {
			reason, message = ReasonStopping, "the host shuts down"
		}
		call.Done(released(reason, message, 0))
		return
	}
	g.work.dispatch(call)
}

// Cancel ends the calls of a step. A waiting call is released at once. A running one is
// cancelled in the plugin; if it still succeeds, that counts, otherwise it is released,
// after two seconds at the latest. Cancel does nothing if there is no such call.
func (h *Host) Cancel(stepUUID, reason string) {
	for _, g := range h.live.all() {
		if g.work != nil {
			g.work.cancelStep(stepUUID, reason)
		}
	}
}

// Services returns the plugins that serve now, ordered by name. The caller must not
// modify the result.
func (h *Host) Services() []Service { return h.router.table.Load().services }

// Handlers returns the handlers that are served now, in order.
func (h *Host) Handlers() []string {
	var names []string
	for _, s := range h.Services() {
		names = append(names, s.Handlers...)
	}
	slices.Sort(names)
	return names
}

// Changed returns a channel that is ready when the answer of Services may have changed.
// It supports a single receiver.
func (h *Host) Changed() <-chan struct{} { return h.router.changed }

// Room returns how many more steps of a handler could run at once now. The
// handlers of one plugin share its room.
func (h *Host) Room(handler string) int {
	g := h.router.table.Load().handlers[handler].primary
	if g == nil {
		return 0
	}
	return g.work.room()
}

// Status returns the status of the plugins, in the order of the configuration.
func (h *Host) Status() []Status {
	slots := h.list()
	all := make([]Status, len(slots))
	for i, s := range slots {
		all[i] = s.status()
	}
	return all
}

// liveSet holds the generations whose calls may not have ended, including retired ones.
type liveSet struct {
	mu  sync.Mutex
	set map[*generation]struct{}
}

func (l *liveSet) add(g *generation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.set == nil {
		l.set = make(map[*generation]struct{})
	}
	l.set[g] = struct{}{}
}

func (l *liveSet) remove(g *generation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.set, g)
}

func (l *liveSet) all() []*generation {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*generation, 0, len(l.set))
	for g := range l.set {
		all = append(all, g)
	}
	return all
}
