package core

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/finalizer"
	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/lifecycle"
	"github.com/tasker-systems/tasker-host/host/internal/opstate"
	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/host/internal/telemetry"
)

// Options are what a host is made of.
type Options struct {
	Config  *config.Config
	Plugins []config.PluginSpec
	Log     hclog.Logger
	NoAPI   bool // for measuring: no socket is opened
}

// Core is a host. Start it once; Stop it once.
type Core struct {
	opts     Options
	cfg      *config.Config
	log      hclog.Logger
	build    telemetry.Build
	registry *prometheus.Registry
	state    *opstate.Machine

	database *database
	pool     *pgxpool.Pool
	Store    *store.Store
	plugins  *pluginhost.Host
	Engine   *pipeline.Engine
	api      *api.Server

	group *lifecycle.Group
	drain context.Context // while stopping: ends when the drain shall be cut short
}

// New makes a host that is not yet started.
func New(opts Options) *Core {
	build := telemetry.ThisBuild()
	c := &Core{
		opts: opts, cfg: opts.Config, log: opts.Log, build: build,
		registry: telemetry.NewRegistry(build), state: opstate.New(time.Now), drain: context.Background(),
	}
	c.group = c.parts()
	return c
}

// Pool returns the host's connections, once started.
func (c *Core) Pool() *pgxpool.Pool { return c.pool }

// part is a part of the host: how it starts and stops.
type part struct{ start, stop func(context.Context) error }

// Start starts the part.
func (p part) Start(ctx context.Context) error { return p.start(ctx) }

// Stop stops the part.
func (p part) Stop(ctx context.Context) error { return p.stop(ctx) }

var _ lifecycle.Service = part{}

// parts names the parts in the order in which they start; they stop in reverse.
// The API opens before the engine runs and closes after it has stopped, so that
// probes are answered throughout.
func (c *Core) parts() *lifecycle.Group {
	return lifecycle.NewGroup(
		lifecycle.Member{Name: "database", Service: part{c.startDatabase, c.stopDatabase}},
		lifecycle.Member{Name: "store", Service: part{c.startStore, c.stopStore}},
		lifecycle.Member{Name: "api", Service: part{c.startAPI, c.stopAPI}},
		lifecycle.Member{Name: "engine", Service: part{c.startEngine, c.stopEngine}},
	)
}

// Start brings up every part, in order. If one cannot start, those before it are
// stopped again and its error is returned.
func (c *Core) Start(ctx context.Context) error {
	if err := makeStateDir(c.cfg.System.StateDir); err != nil {
		return err
	}
	if err := c.group.Start(ctx); err != nil {
		return err
	}
	if _, err := c.state.To(opstate.Normal, "every part has started"); err != nil {
		return err
	}
	c.log.Info("the host is up", "environment", c.cfg.Environment, "version", c.build.Version)
	return nil
}

// Run starts the host, serves until ctx ends or a part fails, and stops it. abort
// cuts the drain short.
func (c *Core) Run(ctx context.Context, abort <-chan struct{}) error {
	if err := c.Start(ctx); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx) // told to stop before it was up
		}
		return err
	}
	var failure error
	select {
	case <-ctx.Done():
	case failure = <-c.apiFailed():
		c.log.Error("the API has failed", "error", failure)
	case <-c.database.exited():
		failure = errors.New("the private PostgreSQL has exited: " + c.database.lastWords())
	}
	drain, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	go func() {
		select {
		case <-abort:
			c.log.Warn("second signal: what runs is cancelled")
			cancel()
		case <-drain.Done():
		}
	}()
	return errors.Join(failure, c.Stop(drain))
}

// Stop ends every part in reverse order. When ctx ends, or the drain time is
// over, what still runs is cancelled and its leases are handed back.
func (c *Core) Stop(ctx context.Context) error {
	c.enter(opstate.GracefulShutdown, "the host was told to stop")
	c.drain = ctx
	o := c.cfg.Orchestration
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.DrainTimeout+o.EmergencyTimeout+stopSlack)
	defer cancel()
	err := c.group.Stop(stop)
	c.enter(opstate.Stopped, "every part has stopped")
	return err
}

// stopSlack is what the parts beside the engine get to stop.
const stopSlack = 10 * time.Second

func (c *Core) enter(state opstate.State, reason string) {
	if _, err := c.state.To(state, reason); err != nil {
		c.log.Debug("operational state", "error", err)
		return
	}
	c.log.Info("operational state", "state", state, "reason", reason)
}

// startEngine starts the plugins, and then what moves work to them.
func (c *Core) startEngine(ctx context.Context) error {
	if err := c.plugins.Start(ctx); err != nil {
		return err
	}
	if err := c.Engine.Start(ctx); err != nil {
		return errors.Join(err, c.plugins.Stop(ctx))
	}
	return nil
}

// stopEngine drains, then stops plugins, then hands back what is left. Its time
// is its own: the configured drain time, cut short by the end of c.drain, and
// the emergency time after it.
func (c *Core) stopEngine(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	drain, cancel := context.WithTimeout(c.drain, c.cfg.Orchestration.DrainTimeout)
	left := c.Engine.Drain(drain)
	cancel()
	if left > 0 {
		c.log.Warn("the drain is over; what runs is cancelled and handed back", "steps", left)
		c.enter(opstate.Emergency, "the drain is over")
	}
	ctx, cancel = context.WithTimeout(ctx, c.cfg.Orchestration.EmergencyTimeout)
	defer cancel()
	// Plugins that do not end by themselves must leave time to hand leases back.
	calls, cancel := context.WithTimeout(ctx, c.cfg.Orchestration.EmergencyTimeout/2)
	defer cancel()
	err := c.plugins.Stop(calls)
	if errors.Is(err, context.DeadlineExceeded) { // that is what cutting short means
		c.log.Warn("plugins did not end in time and were killed", "error", err)
		err = nil
	}
	return errors.Join(err, c.Engine.Stop(ctx))
}

func makeStateDir(dir string) error {
	// Others may pass through, to what is theirs in it (the private server's
	// account, if we are root), but not list it; what is ours is closed.
	if err := os.MkdirAll(dir, 0o711); err != nil { //nolint:gosec // see above
		return fmt.Errorf("make the state directory: %w", err)
	}
	return nil
}

// startStore opens the pool, sees to what the engine needs in the database, and
// builds the parts that work on it.
func (c *Core) startStore(ctx context.Context) error {
	pool, err := store.OpenPool(ctx, store.PoolConfig{
		URL: c.database.url, MaxConns: int32(c.cfg.Database.MaxConnections), //nolint:gosec // validated
		ConnectTimeout: c.cfg.Database.ConnectTimeout, StatementTimeout: c.cfg.Database.StatementTimeout,
		LockTimeout: c.cfg.Database.LockTimeout, ApplicationName: "tasker/" + hostName(),
	})
	if err != nil {
		return err
	}
	c.pool, c.Store = pool, store.New(pool)
	if err := c.prepareStore(ctx); err != nil {
		pool.Close()
		return noConnection(pool.Config().ConnConfig, err)
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
	if err := c.Store.EnsurePartitions(ctx, partitionDays); err != nil {
		return err
	}
	return c.buildEngine()
}

func (c *Core) stopStore(context.Context) error {
	c.pool.Close()
	return nil
}

// partitionDays is how many days of partitions a starting host makes sure of.
const partitionDays = 3

// buildEngine makes the plugin host and the pipeline, neither of which runs yet.
func (c *Core) buildEngine() error {
	breaker := c.cfg.CircuitBreakers.PluginCrashLoop
	plugins, err := pluginhost.New(pluginhost.Config{
		Plugins: pluginSpecs(c.opts.Plugins), Environment: c.cfg.Environment,
		StoreDir:       filepath.Join(c.cfg.System.StateDir, "plugins"),
		NextGeneration: c.Store.NextGeneration,
		Restart:        pluginhost.Restart{Exits: breaker.Failures, Window: breaker.Window, Open: breaker.Timeout},
	}, c.registry, c.log.Named("plugins"))
	if err != nil {
		return err
	}
	c.plugins = plugins
	fin := finalizer.New(c.pool, "host "+hostName(), c.cfg.Orchestration.FinalizationClaim)
	c.Engine = pipeline.New(c.pipelineConfig(), c.Store, plugins, fin, c.registry, c.log.Named("pipeline"))
	return nil
}

func pluginSpecs(specs []config.PluginSpec) []pluginhost.Spec {
	out := make([]pluginhost.Spec, len(specs))
	for i, s := range specs {
		out[i] = pluginhost.Spec{
			Kind: s.Kind, Name: s.Name, Path: s.Path, SHA256: s.SHA256, Required: s.Required,
			MaxInFlight: s.MaxInFlight, StartTimeout: s.StartTimeout, Env: s.Env, Options: s.Options,
		}
	}
	return out
}

func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		name = "unknown"
	}
	return fmt.Sprintf("%s/%d", name, os.Getpid())
}
