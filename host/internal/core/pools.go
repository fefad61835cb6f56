package core

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/coordinator"
	"github.com/tasker-systems/tasker-host/host/internal/lifecycle"
	"github.com/tasker-systems/tasker-host/host/internal/opstate"
	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/pool"
	"github.com/tasker-systems/tasker-host/scaling"
	"github.com/tasker-systems/tasker-host/scaling/builtin"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// buildCoordinator creates the coordinator, which sizes the engine's pools.
func (c *Core) buildCoordinator() {
	log := c.log.Named("pools")
	c.pools = coordinator.New(c.coordinatorConfig(c.cfg), &poolWorld{core: c}, c.registry, log)
	c.sizing = lifecycle.NewRunner("coordinator", c.pools.Run, func(err error) {
		log.Error("the sizing of pools has stopped", "error", err)
	})
}

// startCoordinator checks that the resources suffice for the pools before they are sized.
func (c *Core) startCoordinator(ctx context.Context) error {
	warnings, err := c.pools.CheckResources(ctx)
	for _, w := range warnings {
		c.log.Warn("resources", "finding", w)
	}
	if err != nil {
		return fmt.Errorf("the resources do not suffice for the pools: %w; lower executor_pools, raise database.max_connections, "+
			"or set executor_pools.coordinator.resources to warn", err)
	}
	return c.sizing.Start(ctx)
}

func (c *Core) stopCoordinator(ctx context.Context) error { return c.sizing.Stop(ctx) }

// coordinatorConfig returns the part of a configuration that concerns the coordinator.
func (c *Core) coordinatorConfig(cfg *config.Config) coordinator.Config {
	p := cfg.ExecutorPools.Coordinator
	return coordinator.Config{
		Enabled: p.AutoScaling, Interval: p.Interval, Timeout: p.Timeout,
		Policy: scaling.Policy{
			StepUp: p.StepUp, StepDown: p.StepDown,
			CooldownUp: scaling.Duration(p.CooldownUp), CooldownDown: scaling.Duration(p.CooldownDown),
			DeadBand: p.DeadBand, Stabilization: scaling.Duration(p.Stabilization), Reversal: scaling.Duration(p.Reversal),
			Stale: scaling.Duration(p.Stale), MinConfidence: p.MinConfidence,
		},
		Resting:     c.rests,
		LongestPoll: cfg.Orchestration.Lease / 3,
		Settings:    poolSettings(cfg), Enforce: p.Resources == "enforce", MemoryShare: p.MemoryShare,
	}
}

func poolSettings(cfg *config.Config) func(kind, namespace string) coordinator.Settings {
	p := &cfg.ExecutorPools
	woken := func(e *config.Executors) coordinator.Settings {
		return coordinator.Settings{
			Min: e.Min, Max: e.Max, Algorithm: e.Algorithm, Shadow: e.Shadow,
			Pace: pool.Pace{Batch: e.Batch, TurnTimeout: e.TurnTimeout, StopTimeout: e.StopTimeout},
		}
	}
	reading := func(r *config.Readers) coordinator.Settings {
		return coordinator.Settings{
			Min: r.Min, Max: r.Max, Algorithm: r.Algorithm, Shadow: r.Shadow,
			Pace: pool.Pace{Batch: r.Batch, PollMin: r.PollMin, PollMax: r.PollMax, TurnTimeout: r.TurnTimeout, StopTimeout: r.StopTimeout},
		}
	}
	return func(kind, namespace string) coordinator.Settings {
		switch pipeline.PoolKind(kind) {
		case pipeline.TaskRequestProcessor:
			return reading(&p.TaskRequestProcessor)
		case pipeline.TaskClaimer:
			return reading(&p.TaskClaimer)
		case pipeline.StepEnqueuer:
			return woken(&p.StepEnqueuer)
		case pipeline.StepResultProcessor:
			return reading(&p.StepResultProcessor)
		case pipeline.TaskFinalizer:
			return woken(&p.TaskFinalizer)
		default:
			s := &p.StepExecution
			b := s.Bounds(namespace)
			return coordinator.Settings{Min: b.Min, Max: b.Max, Algorithm: s.Algorithm, Shadow: s.Shadow}
		}
	}
}

// poolWorld is the coordinator's view of the rest of the host.
type poolWorld struct {
	core *Core

	mu     sync.Mutex // guards the fields below
	facts  coordinator.Facts
	readAt time.Time
}

var _ coordinator.World = (*poolWorld)(nil)

// Pools implements [coordinator.World].
func (w *poolWorld) Pools() []coordinator.Pool {
	windows := 0
	for _, s := range w.core.plugins.Services() {
		windows += s.Window
	}
	memory := int64(w.core.inForce().ExecutorPools.StepExecution.Memory)
	var all []coordinator.Pool
	for _, p := range w.core.Engine.Pools() {
		one := coordinator.Pool{Kind: string(p.Kind), Namespace: p.Namespace, Queues: p.Queues, Executors: p.Executors}
		if p.Kind == pipeline.StepExecution {
			one.Useful, one.Memory = windows, memory
		} else {
			one.Connections = 1
		}
		all = append(all, one)
	}
	return all
}

// Backlogs implements [coordinator.World]. Waiting work is shared by all hosts: this one
// counts its share of what it is able to do.
func (w *poolWorld) Backlogs(ctx context.Context, queues []string) (map[string]coordinator.Backlog, error) {
	if len(queues) == 0 {
		return nil, nil
	}
	found, err := w.core.Store.Backlogs(ctx, queues, w.core.Engine.Served())
	if err != nil {
		return nil, err
	}
	shares := make(map[string]coordinator.Backlog, len(found))
	for queue, b := range found {
		hosts := max(b.Hosts, 1)
		shares[queue] = coordinator.Backlog{Waiting: int64((b.Waiting + hosts - 1) / hosts), Oldest: b.Oldest}
	}
	return shares, nil
}

// factsEvery is the interval at which the resources are measured.
const factsEvery = 2 * time.Second

// Facts implements [coordinator.World].
func (w *poolWorld) Facts(ctx context.Context) (coordinator.Facts, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.readAt) < factsEvery {
		return w.facts, nil
	}
	own := w.core.cfg.Database.MaxConnections
	c, err := w.core.Store.Connections(ctx, w.core.Engine.HostID(), own)
	if err != nil {
		return coordinator.Facts{}, err
	}
	w.facts = coordinator.Facts{
		Connections: own, ServerMax: c.Server, OtherHosts: c.OtherHosts, OthersTake: c.OthersTake, MemoryFree: memoryFree(),
	}
	w.readAt = time.Now()
	return w.facts, nil
}

// State implements [coordinator.World].
func (w *poolWorld) State() opstate.State { return w.core.state.State() }

// Algorithm implements [coordinator.World].
func (w *poolWorld) Algorithm(spec string) (scaler.Scaler, error) {
	name, options, _ := strings.Cut(spec, "=")
	name = strings.TrimSpace(name)
	a := &algorithm{name: name, plugins: w.core.plugins}
	made, err := builtin.New(name, []byte(options))
	switch {
	case err == nil:
		a.builtin = made()
	case isBuiltin(name):
		return nil, err
	case options != "":
		return nil, fmt.Errorf("%s is not a built-in algorithm: the options of a plugin's algorithm belong in plugins.toml", name)
	}
	return a, nil
}

func isBuiltin(name string) bool {
	for _, a := range builtin.All() {
		if a.Name == name {
			return true
		}
	}
	return false
}

// algorithm calls the plugin that serves a name, or the built-in of that name if there is
// no such plugin. If the plugin exists but does not answer, nothing takes its place: the
// pool keeps its size.
type algorithm struct {
	name    string
	plugins *pluginhost.Host
	builtin scaler.Scaler // nil: none

	by string // who gave the last answer
}

var (
	_ scaler.Scaler     = (*algorithm)(nil)
	_ coordinator.Named = (*algorithm)(nil)
)

// By implements [coordinator.Named].
func (a *algorithm) By() string { return a.by }

// Decide implements [scaler.Scaler].
func (a *algorithm) Decide(ctx context.Context, o scaler.Observation) (scaler.Decision, error) {
	plugin, generation, known := a.plugins.Algorithm(a.name)
	switch {
	case known && generation != 0:
		a.by = fmt.Sprintf("plugin %s, generation %d", plugin, generation)
	case known:
		a.by = "nobody"
	case a.builtin != nil:
		a.by = "built-in"
		return a.builtin.Decide(ctx, o)
	default:
		a.by = "nobody"
		return scaler.Decision{}, fmt.Errorf("no plugin serves %q and no built-in algorithm has that name", a.name)
	}
	answer, err := a.plugins.Scale(ctx, &pluginv1.DecideRequest{
		Algorithm: a.name, Observations: []*pluginv1.Observation{wire.EncodeObservation(o)},
	})
	if err != nil {
		return scaler.Decision{}, err
	}
	d := answer.GetDecisions()[0] // one per observation
	if d.GetError() != "" {
		return scaler.Decision{}, errors.New(d.GetError())
	}
	return wire.DecodeDecision(d), nil
}

// memoryFree returns how many more bytes this process may use: what the machine has
// available, or what is left within the limit of its control group; 0 if unknown.
func memoryFree() int64 {
	free := int64(0)
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
				kib, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
				free = kib << 10
			}
		}
	}
	limit, used := readNumber("/sys/fs/cgroup/memory.max"), readNumber("/sys/fs/cgroup/memory.current")
	if limit > 0 && used > 0 {
		if left := max(limit-used, 1); free == 0 || left < free {
			free = left
		}
	}
	return free
}

func readNumber(path string) int64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0 // "max": no limit
	}
	return n
}
