package core

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/auth"
	"github.com/tasker-systems/tasker-host/host/internal/backend"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/pluginwatch"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// pluginAPI serves the API's requests about plugins: the engine knows what runs, the
// watcher what should run.
type pluginAPI struct{ core *Core }

var (
	_ api.PluginViews   = pluginAPI{}
	_ api.PluginChanges = pluginAPI{}
)

// mayChange returns an error while the operational state forbids changes of plugins: a
// host that is starting loads what the files name, and one that is stopping keeps what it
// has.
func (p pluginAPI) mayChange() error {
	if state := p.core.state.State(); !state.SwapsPlugins() {
		return api.Conflict(api.CodeStateForbidden, "the host is in state %s and does not change plugins", state)
	}
	return nil
}

var errNoPluginFiles = api.Conflict(api.CodePluginRefused, "this host was started without a plugins.toml")

// PluginPlan implements [api.PluginViews].
func (p pluginAPI) PluginPlan(context.Context) (readmodel.PluginPlan, error) {
	if p.core.watch == nil {
		return readmodel.PluginPlan{}, errNoPluginFiles
	}
	changes, err := p.core.watch.Plan()
	if err != nil {
		return readmodel.PluginPlan{}, filesFault(err)
	}
	return p.plan(changes), nil
}

// PluginPlanOf implements [api.PluginViews].
func (p pluginAPI) PluginPlanOf(_ context.Context, text string) (readmodel.PluginPlan, error) {
	if p.core.watch == nil {
		return readmodel.PluginPlan{}, errNoPluginFiles
	}
	changes, err := p.core.watch.PlanText([]byte(text))
	if err != nil {
		return readmodel.PluginPlan{}, filesFault(inText(err, p.core.cfg.System.Plugins))
	}
	return p.plan(changes), nil
}

// ApplyPlugins implements [api.PluginChanges].
func (p pluginAPI) ApplyPlugins(ctx context.Context, reason string) (readmodel.PluginPlan, error) {
	if err := p.mayChange(); err != nil {
		return readmodel.PluginPlan{}, err
	}
	if p.core.watch == nil {
		return readmodel.PluginPlan{}, errNoPluginFiles
	}
	changes, err := p.core.watch.Apply(ctx, string(actor(ctx)), orElse(reason, "requested by an operator"))
	if err != nil {
		return readmodel.PluginPlan{}, filesFault(err)
	}
	return p.plan(changes), nil
}

func (p pluginAPI) plan(changes []pluginwatch.Change) readmodel.PluginPlan {
	plan := readmodel.PluginPlan{Path: p.core.cfg.System.Plugins, Changes: []readmodel.PluginChange{}}
	for _, c := range changes {
		shown := readmodel.PluginChange{Kind: c.Kind, Name: c.Name, Action: c.Action, From: c.From, To: c.To, Reason: c.Reason}
		if c.Err != nil && c.Err.Error() != c.Reason {
			shown.Error = c.Err.Error()
		}
		plan.Changes = append(plan.Changes, shown)
	}
	return plan
}

// inText rewrites an error about plugins.toml so that it refers to the text that was sent
// instead of the file.
func inText(err error, file string) error {
	e, ok := errors.AsType[*config.Error](err)
	if !ok {
		return err
	}
	moved := &config.Error{Problems: slices.Clone(e.Problems)}
	for i := range moved.Problems {
		if moved.Problems[i].Source == file {
			moved.Problems[i].Source = api.PlanTextPlace
		}
	}
	return moved
}

// filesFault returns what is wrong with the files, problem by problem, or why the host did
// not look at them.
func filesFault(err error) error {
	switch {
	case errors.Is(err, errNotInState):
		return api.Conflict(api.CodeStateForbidden, "%s", err.Error())
	case errors.Is(err, pluginhost.ErrStopping), errors.Is(err, pluginhost.ErrNotRecorded):
		return api.Unavailable(err.Error(), 0, nil)
	}
	f := &api.Fault{Kind: api.ErrInvalid, Code: api.CodePluginsInvalid, Detail: "the plugin files are invalid; what ran before keeps running"}
	if e, ok := errors.AsType[*config.Error](err); ok {
		for _, problem := range e.Problems {
			f.Issues = append(f.Issues, api.Issue{Location: problem.Place(), Detail: problem.Text()})
		}
		return f
	}
	f.Issues = []api.Issue{{Detail: err.Error()}}
	return f
}

// PluginHistory implements [api.PluginViews].
func (p pluginAPI) PluginHistory(ctx context.Context, id api.PluginID, before int64, limit int) ([]readmodel.PluginEvent, error) {
	events, err := p.core.Store.PluginEvents(ctx, p.core.cfg.Environment, pluginhost.SlotID(id), before, limit)
	if err != nil {
		return nil, err
	}
	out := make([]readmodel.PluginEvent, len(events))
	for i := range events {
		e := &events[i]
		out[i] = readmodel.PluginEvent{
			ID: e.ID, At: e.At.UTC(), Host: e.Host, Kind: e.Slot.Kind, Name: e.Slot.Name,
			Generation: int64(e.Generation),
			From:       string(e.From), To: string(e.To), Actor: string(e.Actor), Reason: e.Reason, Artifact: e.SHA256, Version: e.Version,
		}
	}
	return out, nil
}

// PluginFault implements [api.PluginViews].
func (p pluginAPI) PluginFault(context.Context) string {
	if p.core.watch == nil {
		return ""
	}
	if err := p.core.watch.Status().Err; err != nil {
		return err.Error()
	}
	return ""
}

// Plugin implements [api.PluginViews].
func (p pluginAPI) Plugin(_ context.Context, id api.PluginID) (readmodel.PluginDetail, error) {
	x, err := p.core.plugins.Explain(pluginhost.SlotID(id))
	if err != nil {
		return readmodel.PluginDetail{}, pluginFault(err)
	}
	d := readmodel.PluginDetail{
		Plugin: backend.PluginOf(&x.Status), Required: x.Required, Selected: p.selected(id),
		Rollout:      readmodel.PluginRollout{Strategy: string(x.Rollout.Strategy)},
		OnTrialUntil: unlessZero(x.OnTrialUntil), StandbyUntil: unlessZero(x.StandbyUntil),
		Generations: []readmodel.PluginGeneration{}, Quarantined: []readmodel.PluginQuarantine{},
	}
	if x.Rollout.Strategy != pluginhost.Immediate {
		d.Rollout.Steps, d.Rollout.Hold = x.Rollout.Steps, x.Rollout.Hold.String()
	}
	for i := range x.Generations {
		d.Generations = append(d.Generations, generationOf(&x.Generations[i]))
	}
	for i := range x.Quarantined {
		q := &x.Quarantined[i]
		d.Quarantined = append(d.Quarantined, readmodel.PluginQuarantine{
			Artifact: q.SHA256, Since: q.Since.UTC(), Actor: string(q.Actor), Reason: q.Reason,
		})
	}
	return d, nil
}

func generationOf(g *pluginhost.GenerationStatus) readmodel.PluginGeneration {
	return readmodel.PluginGeneration{
		Generation: int64(g.Number),
		Phase:      string(g.Phase), Since: g.Since.UTC(), Reason: g.Reason, Artifact: g.SHA256, Path: g.Path, Version: g.Version,
		PID: g.PID, StartedAt: unlessZero(g.Started), InFlight: g.InFlight, Weight: g.Weight, Limits: g.Limits,
		Compared: g.Compared, Needed: g.Needed, Differed: g.Differed,
	}
}

// selected returns what the files name for a plugin, and why that is not what runs.
func (p pluginAPI) selected(id api.PluginID) *readmodel.PluginSelected {
	if p.core.watch == nil {
		return nil
	}
	spec, ok := p.core.watch.Spec(id.Kind, id.Name)
	if !ok {
		return nil
	}
	s := &readmodel.PluginSelected{Path: spec.Path, Origin: spec.Origin.String()}
	status := p.core.watch.Status()
	for _, slot := range status.Refused {
		if slot.Kind == id.Kind && slot.Name == id.Name {
			s.Error = slot.Err.Error()
		}
	}
	for _, f := range status.Failed {
		if f.Kind == id.Kind && f.Name == id.Name {
			s.Error = f.Err.Error()
		}
	}
	if status.Err != nil {
		s.Error = status.Err.Error()
	}
	return s
}

func unlessZero(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(t.UTC())
}

// SwapPlugin implements [api.PluginChanges].
func (p pluginAPI) SwapPlugin(ctx context.Context, id api.PluginID, artifact, reason string) error {
	if err := p.mayChange(); err != nil {
		return err
	}
	source := pluginhost.Source{Path: artifact}
	if p.core.watch != nil {
		spec, err := p.core.watch.Check(id.Kind, id.Name, artifact)
		if err != nil {
			return pluginFault(err)
		}
		source.SHA256 = spec.SHA256
	}
	err := p.core.plugins.Swap(ctx, pluginhost.SlotID(id), source, actor(ctx), orElse(reason, "swapped by an operator"))
	return p.settled(id, err)
}

// RollBackPlugin implements [api.PluginChanges].
func (p pluginAPI) RollBackPlugin(ctx context.Context, id api.PluginID, reason string) error {
	if err := p.mayChange(); err != nil {
		return err
	}
	return p.settled(id, p.core.plugins.Rollback(ctx, pluginhost.SlotID(id), actor(ctx), orElse(reason, "rolled back by an operator")))
}

// PromotePlugin implements [api.PluginChanges].
func (p pluginAPI) PromotePlugin(ctx context.Context, id api.PluginID, reason string) error {
	if err := p.mayChange(); err != nil {
		return err
	}
	return p.settled(id, p.core.plugins.Promote(ctx, pluginhost.SlotID(id), actor(ctx), orElse(reason, "promoted by an operator")))
}

// ReleasePlugin implements [api.PluginChanges].
func (p pluginAPI) ReleasePlugin(ctx context.Context, id api.PluginID, sha256, reason string) error {
	return p.settled(id, p.core.plugins.Release(ctx, pluginhost.SlotID(id), sha256, actor(ctx), orElse(reason, "released by an operator")))
}

// settled translates an engine's error. If there is none, the operator's change replaces
// whatever change by the files had failed.
func (p pluginAPI) settled(id api.PluginID, err error) error {
	if err != nil {
		return pluginFault(err)
	}
	if p.core.watch != nil {
		p.core.watch.Settled(id.Kind, id.Name)
	}
	return nil
}

func pluginFault(err error) error {
	switch {
	case errors.Is(err, pluginhost.ErrNoSlot), errors.Is(err, pluginwatch.ErrNotNamed):
		return &api.Fault{Kind: api.ErrNotFound, Code: api.CodePluginNotFound, Detail: err.Error()}
	case errors.Is(err, pluginhost.ErrNotRecorded), errors.Is(err, pluginhost.ErrStopping):
		return api.Unavailable(err.Error(), 0, nil)
	default:
		return api.Conflict(api.CodePluginRefused, "%s", err.Error())
	}
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

// actor returns the operator who made the request over the API.
func actor(ctx context.Context) pluginhost.Actor { return operator(auth.From(ctx).String()) }
