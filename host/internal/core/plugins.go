package core

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/opstate"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/journal"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/process"
	"github.com/tasker-systems/tasker-host/host/internal/pluginset"
	"github.com/tasker-systems/tasker-host/host/internal/pluginwatch"
)

// selectPlugins determines which plugins to start, and arranges for the files to be
// watched from then on.
func (c *Core) selectPlugins() error {
	selector := pluginset.NewSelector(c.cfg.System.Plugins, c.cfg.Environment)
	c.watch = pluginwatch.New(pluginwatch.Config{}, selector, pluginEngine{c}, c.log.Named("plugins"))
	specs, err := c.watch.First()
	c.opts.Plugins = specs
	return err
}

func (c *Core) startWatch(ctx context.Context) error {
	if c.watch == nil {
		return nil
	}
	return c.watch.Start(ctx)
}

func (c *Core) stopWatch(ctx context.Context) error {
	if c.watch == nil {
		return nil
	}
	return c.watch.Stop(ctx)
}

// pluginEngine lets the watcher change what the plugin host runs.
type pluginEngine struct{ core *Core }

var _ pluginwatch.Engine = pluginEngine{}

// Plan implements [pluginwatch.Engine].
func (e pluginEngine) Plan(slots []pluginwatch.Wanted) ([]pluginwatch.Change, error) {
	changes, err := e.core.plugins.Plan(wantedSpecs(slots))
	return watched(slots, changes), err
}

// Apply implements [pluginwatch.Engine]. An error with one slot is reported in its
// change.
func (e pluginEngine) Apply(ctx context.Context, slots []pluginwatch.Wanted, actor, reason string) ([]pluginwatch.Change, error) {
	if state := e.core.state.State(); !state.SwapsPlugins() && state != opstate.Startup {
		return nil, fmt.Errorf("change plugins: %w: %s", errNotInState, state)
	}
	changes, err := e.core.plugins.Apply(ctx, wantedSpecs(slots), pluginhost.Actor(actor), reason)
	if changes != nil {
		err = nil
	}
	return watched(slots, changes), err
}

func wantedSpecs(slots []pluginwatch.Wanted) []pluginhost.Spec {
	specs := make([]pluginhost.Spec, len(slots))
	for i := range slots {
		specs[i] = pluginSpec(&slots[i].PluginSpec)
		specs[i].Unchanged = !slots[i].Changed
	}
	return specs
}

func watched(slots []pluginwatch.Wanted, changes []pluginhost.Change) []pluginwatch.Change {
	var out []pluginwatch.Change
	for _, c := range changes {
		unchanged := slices.ContainsFunc(slots, func(s pluginwatch.Wanted) bool {
			return s.Kind == c.Slot.Kind && s.Name == c.Slot.Name && !s.Changed
		})
		if unchanged && c.Action == pluginhost.Refuse {
			c.Action, c.Err = pluginhost.Keep, nil // it does not run, and nobody asks for it now
		}
		again := errors.Is(c.Err, pluginhost.ErrNotRecorded) || errors.Is(c.Err, context.Canceled)
		out = append(out, pluginwatch.Change{
			Kind: c.Slot.Kind, Name: c.Slot.Name, Action: string(c.Action), From: c.From, To: c.To,
			Reason: c.Reason, Err: c.Err, Again: again,
		})
	}
	return out
}

func pluginSpecs(specs []config.PluginSpec) []pluginhost.Spec {
	out := make([]pluginhost.Spec, len(specs))
	for i := range specs {
		out[i] = pluginSpec(&specs[i])
	}
	return out
}

func pluginSpec(s *config.PluginSpec) pluginhost.Spec {
	return pluginhost.Spec{
		Kind: s.Kind, Name: s.Name, Path: s.Path, SHA256: s.SHA256, Required: s.Required,
		MaxInFlight: s.MaxInFlight, StartTimeout: s.StartTimeout, User: s.User, Env: s.Env, Options: s.Options,
		MemoryLimit: int64(s.MemoryLimit), LogLimits: process.LogLimits{LinesPerSecond: s.MaxLogLines, BytesPerSecond: int(s.MaxLogBytes)},
		Limits:       limitsOf(s),
		DrainTimeout: orNone(s.DrainTimeout), RollbackWindow: orNone(s.RollbackWindow),
		Rollout: pluginhost.Rollout{
			Strategy: pluginhost.Strategy(s.Rollout.Strategy), Steps: s.Rollout.Steps, Hold: s.Rollout.Hold, LatencyFloor: s.Rollout.LatencyFloor,
		},
	}
}

func limitsOf(s *config.PluginSpec) process.Limits {
	return process.Limits{Memory: int64(s.MaxMemory), Processes: s.MaxProcesses, CPUs: s.MaxCPUs}
}

// orNone turns a zero duration into a negative one, which means none; the plugin host
// would take zero as its default.
func orNone(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

// pluginOptions reads the secrets that options refer to, and finds where in plugins.toml
// an option is set.
type pluginOptions struct{ core *Core }

var _ pluginhost.Options = pluginOptions{}

func (o pluginOptions) spec(id pluginhost.SlotID, options json.RawMessage) config.PluginSpec {
	spec := config.PluginSpec{Kind: id.Kind, Name: id.Name}
	if o.core.watch != nil {
		if known, ok := o.core.watch.Spec(id.Kind, id.Name); ok {
			spec = known
		}
	}
	spec.Options = options
	return spec
}

// Resolve implements [pluginhost.Options].
func (o pluginOptions) Resolve(id pluginhost.SlotID, options json.RawMessage) (json.RawMessage, []string, error) {
	spec := o.spec(id, options)
	return spec.ResolveOptions(os.LookupEnv)
}

// Place implements [pluginhost.Options].
func (o pluginOptions) Place(id pluginhost.SlotID, pointer, message string) string {
	spec := o.spec(id, nil)
	if spec.Origin.Source == "" {
		return fmt.Sprintf("%s: %s", pointer, message)
	}
	return spec.OptionProblem(pointer, message).String()
}

// operator returns the actor for someone who made a request over the API.
func operator(name string) pluginhost.Actor { return journal.Operator(name) }
