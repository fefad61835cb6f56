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
}

// New makes a host that is not yet started.
func New(opts Options) *Core {
	build := telemetry.ThisBuild()
	return &Core{
		opts: opts, cfg: opts.Config, log: opts.Log, build: build,
		registry: telemetry.NewRegistry(build), state: opstate.New(time.Now),
	}
}

// Pool returns the host's connections, once started.
func (c *Core) Pool() *pgxpool.Pool { return c.pool }

// Start brings up every part, in order. If one cannot start, those before it are
// stopped again and its error is returned.
func (c *Core) Start(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.Orchestration.EmergencyTimeout)
			defer cancel()
			err = errors.Join(err, c.Stop(stop))
		}
	}()
	for _, step := range []struct {
		name  string
		start func(context.Context) error
	}{
		{"state directory", c.makeStateDir},
		{"database", c.startDatabase},
		{"store", c.startStore},
		{"plugins", c.startPlugins},
		{"pipeline", c.startPipeline},
		{"api", c.startAPI},
	} {
		if err := step.start(ctx); err != nil {
			return fmt.Errorf("start %s: %w", step.name, err)
		}
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
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.Orchestration.DrainTimeout+c.cfg.Orchestration.EmergencyTimeout)
	defer cancel()
	go func() {
		select {
		case <-abort:
			c.log.Warn("second signal: what runs is cancelled")
			cancel()
		case <-stop.Done():
		}
	}()
	return errors.Join(failure, c.Stop(stop))
}

// Stop ends every part in reverse order. When ctx ends, or the drain time is
// over, what still runs is cancelled and its leases are handed back.
func (c *Core) Stop(ctx context.Context) error {
	var errs []error
	note := func(name string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", name, err))
		}
	}
	if _, err := c.state.To(opstate.GracefulShutdown, "the host was told to stop"); err != nil {
		c.log.Debug("operational state", "error", err)
	}
	note("pipeline", c.stopEngine(ctx))
	if c.api != nil {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.Orchestration.EmergencyTimeout)
		note("api", c.api.Stop(stop))
		cancel()
	}
	if c.pool != nil {
		c.pool.Close()
	}
	if c.database != nil {
		note("database", c.database.stop(context.WithoutCancel(ctx)))
	}
	if _, err := c.state.To(opstate.Stopped, "every part has stopped"); err != nil {
		c.log.Debug("operational state", "error", err)
	}
	return errors.Join(errs...)
}

// stopEngine drains, then stops plugins, then hands back what is left.
func (c *Core) stopEngine(ctx context.Context) error {
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.Orchestration.EmergencyTimeout+c.cfg.Orchestration.DrainTimeout)
	defer cancel()
	if c.Engine != nil {
		drain, cancel := context.WithTimeout(ctx, c.cfg.Orchestration.DrainTimeout)
		left := c.Engine.Drain(drain)
		cancel()
		if left > 0 {
			c.log.Warn("the drain time is over; what runs is cancelled and handed back", "steps", left)
			if _, err := c.state.To(opstate.Emergency, "the drain time is over"); err != nil {
				c.log.Debug("operational state", "error", err)
			}
		}
	}
	var errs []error
	if c.plugins != nil {
		stop, cancel := context.WithTimeout(last, c.cfg.Orchestration.EmergencyTimeout)
		errs = append(errs, c.plugins.Stop(stop))
		cancel()
	}
	if c.Engine != nil {
		stop, cancel := context.WithTimeout(last, c.cfg.Orchestration.EmergencyTimeout)
		errs = append(errs, c.Engine.Stop(stop))
		cancel()
	}
	return errors.Join(errs...)
}

func (c *Core) makeStateDir(context.Context) error {
	// Others may pass through, to what is theirs in it (the private server's
	// account, if we are root), but not list it; what is ours is closed.
	if err := os.MkdirAll(c.cfg.System.StateDir, 0o711); err != nil { //nolint:gosec // see above
		return fmt.Errorf("make the state directory: %w", err)
	}
	return nil
}

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
	for _, queue := range []string{c.cfg.Orchestration.TaskRequestsQueue, c.cfg.Orchestration.StepResultsQueue} {
		if err := c.Store.CreateQueue(ctx, queue); err != nil {
			return err
		}
	}
	return c.Store.EnsurePartitions(ctx, partitionDays)
}

// partitionDays is how many days of partitions a starting host makes sure of.
const partitionDays = 3

func (c *Core) startPlugins(ctx context.Context) error {
	host, err := pluginhost.New(pluginhost.Config{
		Plugins: pluginSpecs(c.opts.Plugins), Environment: c.cfg.Environment,
		StoreDir:       filepath.Join(c.cfg.System.StateDir, "plugins"),
		NextGeneration: c.Store.NextGeneration,
		Restart: pluginhost.Restart{
			Exits:  c.cfg.CircuitBreakers.PluginCrashLoop.Failures,
			Window: c.cfg.CircuitBreakers.PluginCrashLoop.Window,
			Open:   c.cfg.CircuitBreakers.PluginCrashLoop.Timeout,
		},
	}, c.registry, c.log.Named("plugins"))
	if err != nil {
		return err
	}
	c.plugins = host
	return host.Start(ctx)
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

func (c *Core) startPipeline(ctx context.Context) error {
	fin := finalizer.New(c.pool, "host "+hostName(), c.cfg.Orchestration.FinalizationClaim)
	c.Engine = pipeline.New(c.pipelineConfig(), c.Store, c.plugins, fin, c.registry, c.log.Named("pipeline"))
	return c.Engine.Start(ctx)
}

func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		name = "unknown"
	}
	return fmt.Sprintf("%s/%d", name, os.Getpid())
}
