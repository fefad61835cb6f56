package apitest

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

var (
	_ api.PluginViews   = (*Backend)(nil)
	_ api.PluginChanges = (*Backend)(nil)
)

const (
	oldBinary = "11111111111100000000000000000000000000000000000000000000000000ff"
	newBinary = "22222222222200000000000000000000000000000000000000000000000000ff"
)

// PluginPlan implements api.PluginViews.
func (b *Backend) PluginPlan(context.Context) (readmodel.PluginPlan, error) {
	if err := b.failing(); err != nil {
		return readmodel.PluginPlan{}, err
	}
	return readmodel.PluginPlan{Path: "/etc/tasker/plugins.toml", Changes: []readmodel.PluginChange{
		{Kind: "handler", Name: "math", Action: "swap", From: oldBinary, To: newBinary, Reason: "another executable"},
		{Kind: "handler", Name: "mail", Action: "refuse", To: newBinary, Reason: "it was rolled back: too many errors"},
		{Kind: "scaling", Name: "pid", Action: "keep", From: oldBinary, To: oldBinary},
	}}, nil
}

// PluginPlanOf implements api.PluginViews.
func (b *Backend) PluginPlanOf(ctx context.Context, _ string) (readmodel.PluginPlan, error) {
	return b.PluginPlan(ctx)
}

// PluginHistory implements api.PluginViews.
func (b *Backend) PluginHistory(_ context.Context, id api.PluginID, before int64, limit int) ([]readmodel.PluginEvent, error) {
	if err := b.failing(); err != nil {
		return nil, err
	}
	if id.Name != "math" {
		return nil, nil
	}
	events := []readmodel.PluginEvent{
		{ID: 2, At: Epoch.Add(time.Second), Kind: id.Kind, Name: id.Name, Generation: 6, From: "active", To: "standby", Actor: "operator:local", Reason: "rolled back", Artifact: oldBinary, Version: "0.9.0"},
		{ID: 1, At: Epoch, Kind: id.Kind, Name: id.Name, Generation: 6, From: "probing", To: "active", Actor: "config", Reason: "the files have changed", Artifact: oldBinary, Version: "0.9.0"},
	}
	if before != 0 {
		events = slices.DeleteFunc(events, func(e readmodel.PluginEvent) bool { return e.ID >= before })
	}
	return events[:min(limit, len(events))], nil
}

// PluginFault implements api.PluginViews.
func (b *Backend) PluginFault(context.Context) string { return "" }

// ApplyPlugins implements api.PluginChanges.
func (b *Backend) ApplyPlugins(ctx context.Context, _ string) (readmodel.PluginPlan, error) {
	return b.PluginPlan(ctx)
}

// Plugin implements api.PluginViews: there is one, math.
func (b *Backend) Plugin(ctx context.Context, id api.PluginID) (readmodel.PluginDetail, error) {
	if id.Name != "math" {
		return readmodel.PluginDetail{}, &api.Fault{Kind: api.ErrNotFound, Code: api.CodePluginNotFound, Detail: id.Kind + "." + id.Name + ": no such plugin"}
	}
	plugins, err := b.Plugins(ctx)
	if err != nil {
		return readmodel.PluginDetail{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	d := readmodel.PluginDetail{
		Plugin: plugins[0], Required: true, Rollout: readmodel.PluginRollout{Strategy: "canary", Steps: []int{1, 10, 50}, Hold: "1m0s"},
		Selected: &readmodel.PluginSelected{Path: "/srv/math", Origin: "/etc/tasker/plugins.toml:4"},
		Generations: []readmodel.PluginGeneration{
			{Generation: 6, Phase: "standby", Since: Epoch, Reason: "generation 7 took over", Artifact: oldBinary, Path: "/srv/math", Version: "0.9.0", PID: 4100, StartedAt: &Epoch},
			{Generation: 7, Phase: "active", Since: Epoch, Reason: b.pluginReason(), Artifact: newBinary, Path: cmp.Or(b.swappedTo, "/srv/math"), Version: "1.0.0", PID: 4242, StartedAt: &Epoch, InFlight: 3},
		},
		Quarantined: []readmodel.PluginQuarantine{{Artifact: oldBinary, Since: Epoch, Actor: "host", Reason: "it failed 12 of 50 calls"}},
	}
	until := Epoch.Add(10 * time.Minute)
	d.StandbyUntil, d.Artifact, d.InFlight, d.Since = &until, newBinary, 3, &Epoch
	return d, nil
}

func (b *Backend) pluginReason() string {
	if b.lastChange == "" {
		return "it is ready"
	}
	return b.lastChange
}

// change notes what was requested: from then on it is the reason why the plugin runs.
func (b *Backend) change(what, reason string) error {
	if err := b.failing(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lastChange = what + ": " + reason
	return nil
}

func (b *Backend) failing() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fail
}

// SwapPlugin implements api.PluginChanges.
func (b *Backend) SwapPlugin(_ context.Context, _ api.PluginID, artifact, reason string) error {
	if err := b.change("swap to "+artifact, reason); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.swappedTo = artifact
	return nil
}

// RollBackPlugin implements api.PluginChanges.
func (b *Backend) RollBackPlugin(_ context.Context, _ api.PluginID, reason string) error {
	return b.change("rollback", reason)
}

// PromotePlugin implements api.PluginChanges.
func (b *Backend) PromotePlugin(_ context.Context, _ api.PluginID, reason string) error {
	return b.change("promote", reason)
}

// ReleasePlugin implements api.PluginChanges.
func (b *Backend) ReleasePlugin(_ context.Context, _ api.PluginID, sha256, reason string) error {
	return b.change("release "+sha256, reason)
}
