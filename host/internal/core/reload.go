package core

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/cli"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// reloader applies changes of the configuration to the running host: on a signal, on a
// request, and when the files have changed. Everything that can fail is done first, on
// the values alone; applying them cannot fail, so a change takes effect as a whole or not
// at all.
type reloader struct {
	core    *Core
	log     hclog.Logger
	reloads *prometheus.CounterVec

	turn sync.Mutex // one reload at a time

	mu         sync.Mutex
	current    *config.Config
	generation int
	appliedAt  time.Time
	restart    []string
	refused    string

	stop context.CancelFunc
	done sync.WaitGroup
}

func newReloader(c *Core) *reloader {
	r := &reloader{
		core: c, log: c.log.Named("config"), current: c.cfg, generation: 1, appliedAt: time.Now(),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tasker_config_reloads_total", Help: "Configuration reloads, by outcome.",
		}, []string{"outcome"}),
	}
	for _, outcome := range []string{"applied", "unchanged", "refused"} {
		r.reloads.WithLabelValues(outcome)
	}
	c.registry.MustRegister(r.reloads, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tasker_config_generation", Help: "Configurations put in force since the host started.",
	}, func() float64 { return float64(r.snapshot().Generation) }))
	return r
}

// inForce returns the configuration including what was reloaded since the start.
func (c *Core) inForce() *config.Config {
	c.reloader.mu.Lock()
	defer c.reloader.mu.Unlock()
	return c.reloader.current
}

// Start starts waiting for reasons to reload.
func (r *reloader) Start(context.Context) error {
	if r.core.opts.Load == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	changed := make(chan struct{}, 1)
	if dir := r.core.cfg.Dir; dir != "" {
		r.done.Go(func() { r.watch(ctx, dir, changed) })
	}
	r.done.Go(func() {
		for {
			reason := "signal"
			select {
			case <-r.core.opts.Reload:
			case <-changed:
				reason = "files"
			case <-ctx.Done():
				return
			}
			r.core.manager.reloaded(func() { _, _ = r.reload(reason) }) // reload logs the result
		}
	})
	return nil
}

func (r *reloader) watch(ctx context.Context, dir string, changed chan<- struct{}) {
	err := config.Watch(ctx, dir, r.core.cfg.Environment, func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	if err != nil {
		r.log.Warn("changes to the files are not noticed; SIGHUP and 'tasker config reload' still work", "error", err)
	}
}

// Stop stops waiting for reasons to reload.
func (r *reloader) Stop(context.Context) error {
	if r.stop != nil {
		r.stop()
		r.done.Wait()
	}
	return nil
}

// reload reads the configuration again and applies the settings that can be reloaded.
func (r *reloader) reload(reason string) (config.Change, error) {
	r.turn.Lock()
	defer r.turn.Unlock()
	next, err := r.core.opts.Load()
	var change config.Change
	if err == nil {
		change, err = r.core.inForce().Adopt(next)
	}
	if err != nil {
		r.reloads.WithLabelValues("refused").Inc()
		r.log.Error("the changed configuration is refused; the previous one stays in force", "reason", reason, "error", err)
		r.note(func() { r.refused = err.Error() })
		return config.Change{}, err
	}
	for _, w := range change.Config.Warnings {
		r.log.Warn("configuration", "warning", w)
	}
	r.commit(change)
	if len(change.Restart) > 0 {
		r.log.Warn("changed keys wait for a restart", "keys", strings.Join(change.Restart, ", "))
	}
	if len(change.Applied) == 0 {
		r.reloads.WithLabelValues("unchanged").Inc()
		if len(change.Restart) == 0 {
			r.log.Info("the configuration has not changed", "reason", reason, "generation", r.snapshot().Generation)
		}
		return change, nil
	}
	r.reloads.WithLabelValues("applied").Inc()
	r.log.Info("the changed configuration is in force", "reason", reason, "generation", r.snapshot().Generation,
		"keys", strings.Join(change.Applied, ", "))
	return change, nil
}

// commit hands the values to the parts, none of which can refuse.
func (r *reloader) commit(change config.Change) {
	cfg := change.Config
	if len(change.Applied) > 0 {
		r.core.log.SetLevel(hclog.LevelFromString(cfg.System.LogLevel))
		if r.core.traces != nil {
			r.core.traces.Sample(cfg.Telemetry.Traces.SampleRatio)
		}
		r.core.breakers.Reload(breakerLimits(&cfg.CircuitBreakers))
		r.core.Engine.Reload(r.core.pipelineConfig(cfg))
		r.core.pools.Reload(r.core.coordinatorConfig(cfg))
		if r.core.answers != nil {
			r.core.answers.Reload(r.core.backendConfig(cfg))
		}
	}
	r.note(func() {
		r.restart, r.refused = change.Restart, ""
		if len(change.Applied) > 0 {
			r.current, r.appliedAt = cfg, time.Now()
			r.generation++
		}
	})
}

func (r *reloader) note(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

func (r *reloader) snapshot() readmodel.Configuration {
	r.mu.Lock()
	defer r.mu.Unlock()
	view := cli.ConfigView(r.current)
	view.Generation, view.AppliedAt = r.generation, new(r.appliedAt.UTC())
	view.Restart, view.Refused = r.restart, r.refused
	return view
}

// Configuration implements [api.Configuration].
func (r *reloader) Configuration(context.Context) readmodel.Configuration { return r.snapshot() }

// ReloadConfiguration implements [api.Configuration].
func (r *reloader) ReloadConfiguration(context.Context) (readmodel.Reload, error) {
	if r.core.opts.Load == nil {
		return readmodel.Reload{}, api.Conflict(api.CodeConfigurationRefused, "this host's configuration does not come from files")
	}
	change, err := r.reload("request")
	if err != nil {
		return readmodel.Reload{}, api.Conflict(api.CodeConfigurationRefused, "the previous configuration stays in force: %v", err)
	}
	applied := change.Applied
	if applied == nil {
		applied = []string{}
	}
	return readmodel.Reload{Generation: r.snapshot().Generation, Applied: applied, Restart: change.Restart}, nil
}

var _ api.Configuration = (*reloader)(nil)
