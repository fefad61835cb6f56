package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/tasker-systems/tasker-host/host/internal/payload"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/pool"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Config holds the engine's settings. All must be set; see the configuration reference
// for their meaning and defaults. Those marked live may change while the engine runs, see
// [Engine.Reload].
type Config struct {
	Host        store.HostInfo
	Environment string
	State       func() string // the host's operational state, shown to the others

	// Plugins returns the running plugins, shown to the others; nil: there are none.
	Plugins func() []readmodel.HostPlugin

	MaxInFlight   int // live: maximum of leases held at once
	InputCache    int // bytes
	Memory        int // bytes of inputs and results in progress, approximately
	MemoryShare   int // bytes of it that a namespace may use regardless of the others
	MaxDependency int // maximum of ancestors' results handed to a step; parents always are

	// Hands holds the initial settings of the pools of executors that take turns.
	Hands map[PoolKind]HandsConfig

	// StepExecutors returns how many steps of a namespace run at once, until its pool is
	// resized.
	StepExecutors func(namespace string) int

	Lease         time.Duration // a host that gave no sign of life for this long is dead
	Heartbeat     time.Duration
	SelfStop      time.Duration // this long before the lease ends, a host that cannot reach the database stops its steps
	SweepInterval time.Duration // live: between looks for dead hosts
	RestAfter     time.Duration // live: a host that had nothing to do for this long rests; 0: never
	RestBeat      time.Duration // between two signs of life of a resting host
	LostAfter     time.Duration // live: a step without a message for this long is enqueued again; also the interval of that look
	InboxVT       time.Duration // live: an inbox message that was read but not answered comes back after this, whole seconds
	InboxMaxReads int           // live: after this many reads without an answer a message is set aside

	RequestQueue string
	ResultQueue  string
	Policy       store.Policy    // live
	Retention    store.Retention // live
	Payload      payload.Limits  // of contexts
	Results      payload.Limits  // live: of results and metadata

	Tracer trace.Tracer // nil: no tracing
}

// HandsConfig configures a pool of executors that take turns.
type HandsConfig struct {
	Size int // number of executors
	Pace pool.Pace
}

// Store is what the engine needs from the database.
type Store interface {
	reader
	hostStore
	inboxStore
	retainer
	listener
	CreateTasks(ctx context.Context, g store.Grant, batch []store.NewTask, requestQueue string) ([]store.Created, error)
	Waiting(ctx context.Context, queues, handlers, inboxes []string) ([]string, error)
	Claim(ctx context.Context, g store.Grant, queue string, names []string, after int64) (store.Claimed, error)
	Settle(ctx context.Context, g store.Grant, p store.Policy, batch []store.Settlement) (store.Settled, error)
	CancelTask(ctx context.Context, task vocab.UUID, o store.Operator, host int32) (vocab.TaskState, bool, error)
	Plan(ctx context.Context, id int32) (*store.Plan, error)
	FindPlan(ctx context.Context, namespace, name, version, environment string) (*store.Plan, error)
	HandlerIDs(ctx context.Context, names []string) (map[string]int32, error)
	QueuesOf(ctx context.Context, handlers []int32) ([]string, error)
}

// Runner runs steps: the plugin host, or handlers in process.
type Runner interface {
	// Services returns what is served now.
	Services() []pluginhost.Service
	// Changed is signalled when the answer of Services may have changed.
	Changed() <-chan struct{}
	// Dispatch runs a step and never blocks. The call's Done is called exactly once, from
	// any goroutine.
	Dispatch(call pluginhost.Call)
	// Cancel ends a running step: its context is cancelled, and its outcome arrives soon.
	Cancel(stepUUID, reason string)
}

// Finalizer finishes tasks in which nothing moves and which no settle finished.
type Finalizer interface {
	Finalize(ctx context.Context, task vocab.UUID) (vocab.TaskState, error)
}

// ErrDraining is returned for work that arrives while the host is shutting down.
var ErrDraining = errors.New("the host is shutting down")

// Engine is the pipeline of one host.
type Engine struct {
	cfg       Config
	now       atomic.Pointer[Config] // the settings in force
	store     Store
	runner    Runner
	finalizer Finalizer
	log       hclog.Logger
	metrics   *metrics

	host        atomic.Int32
	capacity    *capacity
	steps       *stepPools
	held        *held
	grants      grants // the calls that may lease steps
	inputs      *inputs
	budget      *budget
	outcomes    *batcher[settlement]
	requests    *intake
	ancestors   ancestorCache
	heard       []vocab.UUID // the revoked leases of the last heartbeat; used only by the heartbeat
	servedNames atomic.Pointer[[]string]
	hub         *hub
	lookout     *lookout                           // where there may be work
	due         dueTimes                           // of the retries that this host has caused
	lost        atomic.Bool                        // a reply was lost: compare leases with the database
	told        atomic.Pointer[store.WorkerPolicy] // what outside workers were last told
	plugins     toldPlugins                        // what other hosts were last told; guarded by serving
	beatNow     chan struct{}
	serving     sync.Mutex               // held while reading what is served
	queues      atomic.Pointer[[]string] // that hold steps of the handlers served
	rest        resting
	lastBeat    atomic.Int64 // when the last successful heartbeat was sent, nanoseconds since base (monotonic)
	base        time.Time
	paced       chan struct{} // level-triggered: intervals have changed
	runs        []func()      // the loops
	hands       []handPool
	inboxes     []*inbox
	creators    *pool.Hands  // the pool that creates tasks
	watched     []*turns     // one for each loop
	asked       atomic.Int64 // when a call to the database was last retried, as lastBeat

	work   context.Context // ended by Stop: everything is given up
	abort  context.CancelCauseFunc
	accept context.Context // ended by Drain: no new work
	refuse context.CancelCauseFunc
	loops  sync.WaitGroup
}

// New returns an engine, to be started with Start. Submissions made before then wait for
// it.
func New(cfg Config, st Store, runner Runner, fin Finalizer, reg prometheus.Registerer, log hclog.Logger) *Engine {
	e := &Engine{
		cfg: cfg, store: st, runner: runner, finalizer: fin, log: log, metrics: newMetrics(reg),
		capacity: newCapacity(cfg.MaxInFlight, time.Now), held: newHeld(), inputs: newInputs(st, cfg.InputCache), budget: newBudget(cfg.Memory, cfg.MemoryShare),
		hub: newHub(), lookout: newLookout(cfg.RequestQueue, cfg.ResultQueue), beatNow: make(chan struct{}, 1), base: time.Now(),
		paced: make(chan struct{}, 1), rest: newResting(),
	}
	calls := &lanes{}
	e.outcomes, e.requests = newBatcher(calls.line(), settlement.size), newIntake(calls.line())
	e.steps = newStepPools(e.capacity, cfg.StepExecutors)
	e.now.Store(&cfg)
	e.work, e.abort = context.WithCancelCause(context.Background())
	e.accept, e.refuse = context.WithCancelCause(e.work)
	e.queues.Store(&[]string{})
	e.metrics.observe(reg, e)
	e.runs, e.hands = e.allLoops(), e.allHands()
	return e
}

// Start registers the host and starts the loops. Work begins at once.
func (e *Engine) Start(ctx context.Context) error {
	if err := e.register(ctx); err != nil {
		return err
	}
	if err := e.refreshServed(ctx); err != nil {
		return fmt.Errorf("start pipeline: %w", err)
	}
	if err := e.tellWorkers(ctx); err != nil {
		return fmt.Errorf("start pipeline: %w", err)
	}
	for i, loop := range e.runs {
		e.watched[i].started(e)
		e.loops.Go(loop)
	}
	for _, p := range e.hands {
		p.Start()
	}
	e.loops.Go(e.progressLoop)
	e.loops.Go(e.retentionLoop) // its turns may take long, and nothing waits for them
	return nil
}

// Reload puts new values into force for the settings that Config marks as live, and
// ignores the rest. Work in progress is not disturbed: a batch, a wait or a read that has
// begun ends under the old values.
func (e *Engine) Reload(cfg Config) {
	e.now.Store(&cfg)
	e.rest.mu.Lock()
	if e.endRest() {
		e.beatAtOnce()
	}
	e.rest.mu.Unlock()
	e.capacity.resize(cfg.MaxInFlight)
	signal(e.paced)
	e.lookSoon()
	e.lookout.put(e.cfg.RequestQueue, e.cfg.ResultQueue)
	e.wake()
}

// live returns the settings now in force.
func (e *Engine) live() *Config { return e.now.Load() }

// allLoops returns the engine's loops, each of them watched.
func (e *Engine) allLoops() []func() {
	var all []func()
	add := func(name string, every func() time.Duration, loop func(*turns)) {
		t := &turns{name: name, every: every}
		t.over.Store(true)
		e.watched = append(e.watched, t)
		all = append(all, func() {
			defer t.over.Store(true)
			loop(t)
		})
	}
	add("serve", func() time.Duration { return serveInterval }, e.serveLoop)
	add("heartbeat", func() time.Duration { return e.live().Heartbeat }, e.heartbeatLoop)
	add("look", e.longestRest, e.lookLoop)
	add("sweep", func() time.Duration { return e.live().SweepInterval }, e.sweepLoop)
	add("rest", nil, e.restLoop)
	return all
}

// HostID returns the number under which the host is registered.
func (e *Engine) HostID() int32 { return e.host.Load() }

// InFlight returns the number of leases the host works under.
func (e *Engine) InFlight() int { return e.held.len() }

// Drain stops taking work and waits until everything held has been settled, or ctx ends.
// It returns how many leases are still held.
func (e *Engine) Drain(ctx context.Context) int {
	e.refuse(ErrDraining)
	e.capacity.close()
	select {
	case <-e.held.empty():
	case <-ctx.Done():
	}
	return e.held.len()
}

// Cut tells the handlers of all running steps to end. Steps that do not succeed
// nevertheless are given back. Call it after Drain, if there is no more time.
func (e *Engine) Cut() { e.cancelAll(pluginhost.ReasonStopping) }

// Stop stops the engine and gives back what the host still holds: the caller must already
// have stopped the runner, which has answered every call. Call Drain first.
func (e *Engine) Stop(ctx context.Context) error {
	e.refuse(ErrDraining)
	e.capacity.close()
	// Answer the messages that have been read while there is time: otherwise the others
	// would not see them for a while.
	late := e.stopHands(ctx, func(p handPool) bool { return p.queues != nil })
	select {
	case <-e.held.empty():
	case <-ctx.Done():
	}
	e.abort(ErrDraining)
	if late != nil {
		e.log.Warn("messages that were read are still in progress; they will be read again", "error", late)
	}
	// What remains is short, and is done even if ctx has ended meanwhile.
	stuck := e.stopHands(context.WithoutCancel(ctx), func(handPool) bool { return true })
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	done := make(chan struct{})
	go func() { e.loops.Wait(); close(done) }()
	select {
	case <-done:
	case <-last.Done():
		return errors.Join(stuck, fmt.Errorf("stop pipeline: %w", last.Err()))
	}
	if e.HostID() == 0 {
		return stuck // never started
	}
	return errors.Join(stuck, e.leave(last))
}

// stopHands stops pools concurrently: a slow one does not delay the others.
func (e *Engine) stopHands(ctx context.Context, which func(p handPool) bool) error {
	failed := make([]error, len(e.hands))
	var stopping sync.WaitGroup
	for i, p := range e.hands {
		if !which(p) {
			continue
		}
		stopping.Go(func() {
			if err := p.Stop(ctx); err != nil {
				failed[i] = fmt.Errorf("stop pipeline: %s: %w", p.kind, err)
			}
		})
	}
	stopping.Wait()
	return errors.Join(failed...)
}

// leave tells the others that this host is gone, and gives back what it holds instead of
// waiting for its lease to expire. If there are too many tasks to do that in time, the
// sweeps of the others do the rest.
func (e *Engine) leave(ctx context.Context) error {
	if _, _, err := e.store.Heartbeat(ctx, e.HostID(), "stopped", nil, 0, nil); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	n, err := e.store.ReleaseHost(ctx, e.HostID(), "host_stopped", 0)
	switch {
	case err == nil, errors.Is(err, store.ErrOthers):
	case ctx.Err() != nil:
		e.log.Warn("there was no time to give all leases back; the next sweep of any host gives back the rest", "error", err)
	default:
		return fmt.Errorf("leave: %w", err)
	}
	if n > 0 {
		e.log.Info("gave leases back", "steps", n)
	}
	return nil
}

// leaveTimeout bounds the last work of a stopping engine.
const leaveTimeout = 10 * time.Second

// wake makes the claimers look at all queues at once.
func (e *Engine) wake() { e.lookout.put(*e.queues.Load()...) }
