package core

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/finalizer"
	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/backend"
	"github.com/tasker-systems/tasker-host/host/internal/breaker"
	"github.com/tasker-systems/tasker-host/host/internal/cache"
	"github.com/tasker-systems/tasker-host/host/internal/coordinator"
	"github.com/tasker-systems/tasker-host/host/internal/events"
	"github.com/tasker-systems/tasker-host/host/internal/health"
	"github.com/tasker-systems/tasker-host/host/internal/lifecycle"
	"github.com/tasker-systems/tasker-host/host/internal/opstate"
	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/pluginwatch"
	"github.com/tasker-systems/tasker-host/host/internal/reporters"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/host/internal/telemetry"
	"github.com/tasker-systems/tasker-host/host/internal/tracing"
)

// Options configure a host.
type Options struct {
	Config  *config.Config
	Plugins []config.PluginSpec
	Log     hclog.Logger
	NoAPI   bool // for measuring: opens no socket
	// InProcess, for measuring, runs steps instead of plugins.
	InProcess pipeline.Runner

	// Load reads the configuration again; if nil, it never changes.
	Load func() (*config.Config, error)
	// Reload triggers a reload, as do changes of the files.
	Reload <-chan os.Signal

	health health.Config // how often to run the checks; zero: the default
}

// Core is a host. Start it once; Stop it once.
type Core struct {
	opts     Options
	cfg      *config.Config // as of the start; inForce includes what was reloaded
	log      hclog.Logger
	build    telemetry.Build
	registry *prometheus.Registry
	state    *opstate.Machine
	breakers *breaker.Set

	traces    *tracing.Traces // nil: tracing is off
	database  *database
	pool      *pgxpool.Pool
	Store     *store.Store
	plugins   *pluginhost.Host
	watch     *pluginwatch.Watcher // nil: the plugins' files are not watched
	Engine    *pipeline.Engine
	pools     *coordinator.Coordinator
	sizing    *lifecycle.Runner
	health    *health.Monitor
	looking   *lifecycle.Group
	reporters *reporters.Plugins
	caches    *cache.Metrics
	events    *events.Hub
	telling   *lifecycle.Runner
	api       *api.Server
	answers   *backend.Backend
	reloader  *reloader

	group   *lifecycle.Group // what the working parts depend on
	working *lifecycle.Group // the parts that do the work
	halt    *halt
	backlog prometheus.Gauge
	aside   prometheus.Gauge
	manager *tellManager
	built   atomic.Bool     // the engine and the reporters exist, for goroutines that did not build them
	drain   context.Context // while stopping: ends when the drain must be cut short
}

// New returns a host that is not yet started.
func New(opts Options) *Core {
	build := telemetry.ThisBuild()
	c := &Core{
		opts: opts, cfg: opts.Config, log: opts.Log, build: build,
		registry: telemetry.NewRegistry(build), state: opstate.New(time.Now), drain: context.Background(),
		halt: newHalt(),
	}
	c.caches = cache.NewMetrics(c.registry, store.PlanCache, store.PlanNameCache)
	c.breakers = breaker.New(breakerLimits(&c.cfg.CircuitBreakers), c.breakerMoved, c.registry, time.Now)
	c.manager = &tellManager{core: c}
	c.backlog = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "tasker_backlog_messages",
		Help: "Messages in all queues of the database, estimated from the server's statistics; up to half a minute old, ten minutes on a resting host. Every host reports the same.",
	})
	c.aside = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "tasker_dead_letter_messages",
		Help: "Open dead letters that hold messages, of all queues, at most a thousand; as old as the backlog. Every host reports the same.",
	})
	c.registry.MustRegister(c.backlog, c.aside)
	c.reloader = newReloader(c)
	c.group, c.working = c.parts()
	return c
}

// Pool returns the host's connections, once it has started.
func (c *Core) Pool() *pgxpool.Pool { return c.pool }

// part is a part of the host, given by how it starts and stops.
type part struct{ start, stop func(context.Context) error }

// Start starts the part.
func (p part) Start(ctx context.Context) error { return p.start(ctx) }

// Stop stops the part.
func (p part) Stop(ctx context.Context) error { return p.stop(ctx) }

var _ lifecycle.Service = part{}

// parts returns the parts in the order in which they start; they stop in reverse. The API
// opens before the engine runs and closes after it has stopped, so that probes are
// answered throughout.
func (c *Core) parts() (base, working *lifecycle.Group) {
	base = lifecycle.NewGroup(
		lifecycle.Member{Name: "traces", Service: part{c.startTraces, c.stopTraces}},
		lifecycle.Member{Name: "database", Service: part{c.startDatabase, c.stopDatabase}},
		lifecycle.Member{Name: "store", Service: part{c.startStore, c.stopStore}},
		lifecycle.Member{Name: "health", Service: part{c.startHealth, c.stopHealth}},
		lifecycle.Member{Name: "events", Service: part{c.startEvents, c.stopEvents}},
		lifecycle.Member{Name: "api", Service: part{c.startAPI, c.stopAPI}},
	)
	working = lifecycle.NewGroup(
		lifecycle.Member{Name: "engine", Service: part{c.startEngine, c.stopEngine}},
		lifecycle.Member{Name: "coordinator", Service: part{c.startCoordinator, c.stopCoordinator}},
		lifecycle.Member{Name: "reload", Service: c.reloader},
		lifecycle.Member{Name: "plugin watch", Service: part{c.startWatch, c.stopWatch}},
	)
	return base, working
}

// Start starts every part, in order. If one fails to start, Start stops those before it
// and returns its error.
func (c *Core) Start(ctx context.Context) error {
	if err := makeStateDir(c.cfg.System.StateDir); err != nil {
		return err
	}
	if err := c.group.Start(ctx); err != nil {
		c.enter(opstate.Stopped, "it did not start: "+firstLine(err.Error()))
		return err
	}
	if err := c.working.Start(ctx); err != nil {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopSlack)
		defer cancel()
		err = errors.Join(err, c.group.Stop(stop))
		c.enter(opstate.Stopped, "it did not start: "+firstLine(err.Error()))
		return err
	}
	c.enter(opstate.Normal, "every part has started") // unless it was told to stop in the meantime
	c.log.Info("the host is up", "environment", c.cfg.Environment, "version", c.build.Version)
	return nil
}

// Run starts the host, serves until ctx ends, the host is told to stop or a part fails,
// and then stops it. Closing abort cuts the drain short. Run returns [ErrForced] if steps
// were cut off and nothing else is wrong.
func (c *Core) Run(ctx context.Context, abort <-chan struct{}) error {
	over := make(chan struct{})
	var watching sync.WaitGroup
	defer watching.Wait()
	defer close(over)
	watching.Go(func() { c.watchSignals(ctx, abort, over) })
	starting, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watching.Go(func() {
		select {
		case <-c.halt.asked:
			cancel(errTold)
		case <-over:
		}
	})
	if err := c.Start(starting); err != nil {
		if starting.Err() != nil {
			return context.Cause(starting) // told to stop before it was up
		}
		return err
	}
	c.manager.up()
	defer c.manager.stopped()
	debug.FreeOSMemory() // starting used a third of the process's memory, which is no longer needed
	var failure error
	select {
	case <-c.halt.asked:
	case failure = <-c.apiFailed():
		c.log.Error("the API has failed", "error", failure)
	case <-c.database.exited():
		failure = errors.New("the private PostgreSQL has exited: " + c.database.lastWords())
	}
	c.halt.ask(nil)
	c.manager.stopping()
	failure = errors.Join(failure, c.Stop(context.WithoutCancel(ctx)))
	if failure == nil && c.halt.wasForced() {
		return ErrForced
	}
	return failure
}

// errTold is the cause that ends the start of a host that was told to stop.
var errTold = errors.New("the host was told to stop")

// watchSignals acts on signals until the host has stopped. Whatever the host is doing,
// its state changes at once.
func (c *Core) watchSignals(ctx context.Context, abort, over <-chan struct{}) {
	select {
	case <-ctx.Done():
	case <-over:
		return
	}
	c.enter(opstate.GracefulShutdown, "stopped by a signal")
	c.halt.ask(nil)
	select {
	case <-abort:
		c.log.Warn("second signal: running steps are cancelled")
		c.enter(opstate.Emergency, "stopped by a second signal")
		c.halt.cutShort()
	case <-over:
	}
}

// Stop stops every part in reverse order. When ctx ends, or the drain time is over, it
// cancels the steps that are still running and hands their leases back.
func (c *Core) Stop(ctx context.Context) error {
	c.enter(opstate.GracefulShutdown, "the host was told to stop")
	c.halt.ask(nil)
	c.drain = ctx
	if c.Engine != nil { // take no new work from now on, however long the parts before it take to stop
		now, cancel := context.WithCancel(ctx)
		cancel()
		c.Engine.Drain(now)
	}
	bounded := func(d time.Duration, stop func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d)
		defer cancel()
		return stop(ctx)
	}
	// The engine has its own time limit, see stopEngine.
	err := errors.Join(bounded(stopSlack, c.working.Stop), bounded(stopSlack, c.group.Stop))
	c.enter(opstate.Stopped, "every part has stopped")
	return err
}

// stopSlack is the time that the parts other than the engine get to stop.
const stopSlack = 10 * time.Second

// enter moves the host to a state and reports it to the log, to the reporters and, by a
// heartbeat, to the other hosts. It does nothing if the transition is not allowed.
func (c *Core) enter(state opstate.State, reason string) {
	before := c.state.State()
	change, err := c.state.To(state, reason)
	if err != nil {
		c.log.Debug("operational state", "error", err)
		return
	}
	if before == state {
		return
	}
	if c.built.Load() {
		c.tellState(change)
		c.Engine.Announce()
	}
	c.log.Info("operational state", "state", state, "reason", reason)
}

// startEngine starts the plugins, and then what sends work to them.
func (c *Core) startEngine(ctx context.Context) error {
	if err := c.plugins.Start(ctx); err != nil {
		return err
	}
	if err := c.Engine.Start(ctx); err != nil {
		return errors.Join(err, c.plugins.Stop(ctx))
	}
	return nil
}

// stopEngine drains, then stops the plugins, then gives back what is left. It has its own
// time limit: the configured drain time, cut short by the end of c.drain, and the
// emergency time after it.
func (c *Core) stopEngine(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	o := c.inForce().Orchestration
	drain, cancel := c.drainTime(c.drain)
	left := c.Engine.Drain(drain)
	cancel()
	if left > 0 {
		c.halt.mu.Lock()
		c.halt.forced = true
		c.halt.mu.Unlock()
		c.log.Warn("the drain time is over; running steps are cancelled and given back", "steps", left)
		c.enter(opstate.Emergency, "the drain is over")
		c.Engine.Cut() // handlers that listen need not wait for the time limit below
	}
	ctx, cancel = context.WithTimeout(ctx, o.EmergencyTimeout)
	defer cancel()
	// Plugins that do not end on their own must leave time to hand leases back.
	cut := fmt.Errorf("not done within %s, half of orchestration.emergency_timeout", o.EmergencyTimeout/2)
	calls, cancel := context.WithTimeoutCause(ctx, o.EmergencyTimeout/2, cut)
	defer cancel()
	err := c.plugins.Stop(calls)
	if errors.Is(err, cut) {
		c.log.Warn("calls of plugins were cut short", "error", err)
		err = nil
	}
	return errors.Join(err, c.Engine.Stop(ctx))
}

func makeStateDir(dir string) error {
	// Others may pass through it to what belongs to them (the private server's account,
	// if we are root), but not list it; our own files are closed to them. What exists has
	// the permissions that somebody chose; what we create does not depend on the umask.
	if err := makeOpenDirs(dir); err != nil {
		return fmt.Errorf("make the state directory: %w; let this user write there, or set system.state_dir", err)
	}
	return nil
}

// makeOpenDirs creates a directory, and those that lead to it, so that others can
// traverse them.
func makeOpenDirs(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := makeOpenDirs(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o711); errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	return os.Chmod(dir, 0o711)
}

// startStore opens the pool, prepares what the engine needs in the database, and builds
// the parts that depend on it.
func (c *Core) startStore(ctx context.Context) error {
	pool, err := store.OpenPool(ctx, store.PoolConfig{
		URL: c.database.url, MaxConns: int32(c.cfg.Database.MaxConnections),
		ConnectTimeout: c.cfg.Database.ConnectTimeout, StatementTimeout: c.cfg.Database.StatementTimeout,
		LockTimeout: c.cfg.Database.LockTimeout, ApplicationName: "tasker/" + hostName(),
	})
	if err != nil {
		return err
	}
	c.pool, c.Store = pool, store.Guarded(pool, gate{c.breakers, c.state})
	c.Store.CachePlans(c.cfg.QueryCache.MaxPlans, c.caches)
	if err := c.prepareStore(ctx); err != nil {
		pool.Close()
		return withFix(pool.Config().ConnConfig, err)
	}
	return nil
}

func (c *Core) prepareStore(ctx context.Context) error {
	if err := c.checkServer(ctx); err != nil {
		return err
	}
	for _, queue := range []string{c.cfg.Orchestration.TaskRequestsQueue, c.cfg.Orchestration.StepResultsQueue} {
		if err := c.Store.CreateQueue(ctx, queue); err != nil {
			return err
		}
	}
	if err := c.Store.EnsurePartitions(ctx, store.PartitionDays, c.cfg.Orchestration.Retention.Tasks); err != nil {
		return err
	}
	if err := c.buildEngine(); err != nil {
		return err
	}
	c.buildEvents()
	if err := c.buildHealth(); err != nil {
		return err
	}
	c.built.Store(true)
	return nil
}

func (c *Core) stopStore(context.Context) error {
	c.pool.Close()
	return nil
}

// buildEngine creates the plugin host and the pipeline, but starts neither.
func (c *Core) buildEngine() error {
	breaker := c.cfg.CircuitBreakers.PluginCrashLoop
	plugins, err := pluginhost.New(pluginhost.Config{
		Plugins: pluginSpecs(c.opts.Plugins), Environment: c.cfg.Environment,
		StoreDir:       filepath.Join(c.cfg.System.StateDir, "plugins"),
		NextGeneration: c.Store.NextGeneration,
		Journal:        c.Store.PluginJournal(hostName(), c.cfg.Environment),
		Options:        pluginOptions{c},
		Restart:        pluginhost.Restart{Exits: breaker.Failures, Window: breaker.Window, Open: breaker.Timeout},
	}, c.registry, c.log.Named("plugins"))
	if err != nil {
		return err
	}
	c.plugins = plugins
	var runner pipeline.Runner = plugins
	if c.opts.InProcess != nil {
		runner = c.opts.InProcess
	}
	finish := c.newFinalizer().Observed(newFinalizationMetrics(c.registry))
	c.Engine = pipeline.New(c.pipelineConfig(c.cfg), c.Store, runner, stateFinalizer{finish, c.state}, c.registry, c.log.Named("pipeline"))
	c.buildCoordinator()
	return nil
}

func (c *Core) newFinalizer() *finalizer.Finalizer {
	return finalizer.New(c.Store.DB(), "host "+hostName(), c.cfg.Orchestration.FinalizationClaim)
}

func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		name = "unknown"
	}
	return fmt.Sprintf("%s/%d", name, os.Getpid())
}
