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

	"github.com/tasker-systems/tasker-host/host/internal/payload"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Config are the engine's settings. All must be set; see the configuration
// reference for meaning and defaults.
type Config struct {
	Host        store.HostInfo
	Environment string

	MaxInFlight   int // leases held at once at most
	SettleBatch   int // outcomes recorded in one transaction at most
	Committers    int // transactions that record outcomes at once
	SubmitBatch   int // tasks created in one transaction at most
	ClaimBatch    int // steps claimed in one transaction at most
	InputCache    int // bytes
	MaxDependency int // results of ancestors handed to a step at most; parents always are

	Lease         time.Duration // a host that gave no sign of life for so long is dead
	Heartbeat     time.Duration
	SelfStop      time.Duration // before the lease ends, a host that cannot reach the database stops its steps
	SweepInterval time.Duration // between looks for dead hosts
	LostAfter     time.Duration // a step without a message for so long is enqueued again; also the interval of that look
	PollMin       time.Duration // wait after an empty look at the queues, at first
	PollMax       time.Duration // and at most
	InboxVT       time.Duration // a message of an inbox that was read and not answered for comes back after this, whole seconds
	InboxBatch    int           // messages read from an inbox at once
	InboxMaxReads int           // after so many reads without an answer a message is set aside

	RequestQueue string
	ResultQueue  string
	Policy       store.Policy
	Payload      payload.Limits // of contexts
	Results      payload.Limits // of results and metadata
}

// Store is what the engine asks of the database.
type Store interface {
	reader
	hostStore
	inboxStore
	CreateTasks(ctx context.Context, g store.Grant, batch []store.NewTask, requestQueue string) ([]store.Created, error)
	Claim(ctx context.Context, g store.Grant, queue string, names []string, after int64) (store.Claimed, error)
	Settle(ctx context.Context, g store.Grant, p store.Policy, batch []store.Settlement) (store.Settled, error)
	CancelTask(ctx context.Context, task vocab.UUID, reason string, host int32) (vocab.TaskState, bool, error)
	Plan(ctx context.Context, id int32) (*store.Plan, error)
	FindPlan(ctx context.Context, namespace, name, version, environment string) (*store.Plan, error)
	HandlerIDs(ctx context.Context, names []string) (map[string]int32, error)
	QueuesOf(ctx context.Context, handlers []int32) ([]string, error)
}

// Runner runs steps: the plugin host, or handlers in process.
type Runner interface {
	// Services returns what is served now.
	Services() []pluginhost.Service
	// Changed is signalled when Services may answer otherwise.
	Changed() <-chan struct{}
	// Dispatch runs a step and never blocks. The call's Done is called exactly
	// once, from any goroutine.
	Dispatch(call pluginhost.Call)
	// Cancel ends a running step: its context is cancelled, and its outcome
	// comes soon.
	Cancel(stepUUID, reason string)
}

// Finalizer finishes tasks in which nothing moves and which no settle finished.
type Finalizer interface {
	Finalize(ctx context.Context, task vocab.UUID) (vocab.TaskState, error)
}

// ErrDraining is returned for work that comes while the host shuts down.
var ErrDraining = errors.New("the host is shutting down")

// Engine is the pipeline of one host.
type Engine struct {
	cfg       Config
	store     Store
	runner    Runner
	finalizer Finalizer
	log       hclog.Logger
	metrics   *metrics

	host        atomic.Int32
	capacity    *capacity
	held        *held
	inputs      *inputs
	outcomes    *batcher[settlement]
	requests    *batcher[*request]
	ancestors   ancestorCache
	servedNames atomic.Pointer[[]string]
	schemas     schemaCache
	hub         *hub
	claimNow    chan struct{} // level-triggered: look at the queues at once
	due         dueTimes      // of the retries that this host has caused
	lost        atomic.Bool   // a reply was lost: compare leases with the database
	beatNow     chan struct{}
	serving     sync.Mutex               // held while what is served is read anew
	queues      atomic.Pointer[[]string] // that hold steps of the handlers served
	lastBeat    atomic.Int64             // of the last heartbeat that worked, nanoseconds of the monotonic base
	base        time.Time

	work   context.Context // ended by Stop: everything is given up
	abort  context.CancelCauseFunc
	accept context.Context // ended by Drain: no new work
	refuse context.CancelCauseFunc
	loops  sync.WaitGroup
}

// New makes an engine; Start starts it. What is submitted before waits for that.
func New(cfg Config, st Store, runner Runner, fin Finalizer, reg prometheus.Registerer, log hclog.Logger) *Engine {
	e := &Engine{
		cfg: cfg, store: st, runner: runner, finalizer: fin, log: log, metrics: newMetrics(reg),
		capacity: newCapacity(cfg.MaxInFlight, time.Now), held: newHeld(), inputs: newInputs(st, cfg.InputCache),
		outcomes: newBatcher[settlement](), requests: newBatcher[*request](),
		hub: newHub(), claimNow: make(chan struct{}, 1), beatNow: make(chan struct{}, 1), base: time.Now(),
	}
	e.work, e.abort = context.WithCancelCause(context.Background())
	e.accept, e.refuse = context.WithCancelCause(e.work)
	e.queues.Store(&[]string{})
	e.metrics.observe(reg, e)
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
	for range e.cfg.Committers {
		e.loops.Go(e.settleLoop)
		e.loops.Go(e.createLoop)
	}
	e.loops.Go(e.claimLoop)
	e.loops.Go(e.serveLoop)
	e.loops.Go(e.heartbeatLoop)
	e.loops.Go(e.sweepLoop)
	requests := e.newInbox(e.cfg.RequestQueue)
	requests.handle = requests.handleRequests
	e.loops.Go(requests.loop)
	results := e.newInbox(e.cfg.ResultQueue)
	results.handle = results.handleResults
	e.loops.Go(results.loop)
	return nil
}

// HostID returns the number the host is registered under.
func (e *Engine) HostID() int32 { return e.host.Load() }

// InFlight returns the number of leases the host works under.
func (e *Engine) InFlight() int { return e.held.len() }

// Drain stops taking work and waits until what is held has been settled, or ctx
// ends. It returns how many leases are still held.
func (e *Engine) Drain(ctx context.Context) int {
	e.refuse(ErrDraining)
	e.capacity.close()
	select {
	case <-e.held.empty():
	case <-ctx.Done():
	}
	return e.held.len()
}

// Stop ends the engine. What the host still holds is given back: the caller has
// stopped the runner, which has answered every call. Call Drain first.
func (e *Engine) Stop(ctx context.Context) error {
	e.refuse(ErrDraining)
	e.capacity.close()
	select {
	case <-e.held.empty():
	case <-ctx.Done():
	}
	e.abort(ErrDraining)
	// What is left now is short, and is done even if ctx has ended meanwhile.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	done := make(chan struct{})
	go func() { e.loops.Wait(); close(done) }()
	select {
	case <-done:
	case <-last.Done():
		return fmt.Errorf("stop pipeline: %w", last.Err())
	}
	if e.HostID() == 0 {
		return nil // never started
	}
	return e.leave(last)
}

// leave tells the others that this host is gone, and gives back what it holds
// without waiting for its lease to end.
func (e *Engine) leave(ctx context.Context) error {
	if _, _, err := e.store.Heartbeat(ctx, e.HostID(), "stopped", nil, 0); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	n, err := e.store.ReleaseHost(ctx, e.HostID(), "host_stopped", e.cfg.Policy.ClaimFactor)
	if err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	if n > 0 {
		e.log.Info("gave leases back", "steps", n)
	}
	return nil
}

// leaveTimeout bounds what a stopping engine does at the very end.
const leaveTimeout = 5 * time.Second

// wake makes the claimer look at the queues at once.
func (e *Engine) wake() {
	select {
	case e.claimNow <- struct{}{}:
	default:
	}
}
