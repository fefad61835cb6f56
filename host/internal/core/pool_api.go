package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/coordinator"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/scaling"
	"github.com/tasker-systems/tasker-host/scaling/builtin"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// poolAPI serves the API's requests about pools.
type poolAPI struct{ core *Core }

var (
	_ api.Pools       = poolAPI{}
	_ api.PoolRecords = poolAPI{}
)

// Pools implements [api.Pools].
func (p poolAPI) Pools(context.Context) ([]readmodel.Pool, error) {
	all := p.core.pools.Pools()
	out := make([]readmodel.Pool, len(all))
	for i := range all {
		out[i] = poolView(&all[i])
	}
	return out, nil
}

// Pool implements [api.Pools].
func (p poolAPI) Pool(_ context.Context, name string) (readmodel.Pool, error) {
	s, err := p.core.pools.Pool(name)
	return poolView(&s), poolFault(err)
}

// SetPool implements [api.Pools].
func (p poolAPI) SetPool(ctx context.Context, name string, change api.PoolChange) (readmodel.Pool, error) {
	if err := p.served(change); err != nil {
		return readmodel.Pool{}, poolFault(err)
	}
	s, warnings, err := p.core.pools.Set(ctx, name, coordinator.Change(change))
	if err != nil {
		return readmodel.Pool{}, poolFault(err)
	}
	view := poolView(&s)
	view.Warnings = warnings
	return view, nil
}

// served rejects algorithms that nobody provides: the pool would never be resized again.
// The configuration may name them, since its plugins start later; a request must name one
// that exists. A plugin that is down counts, since it comes back.
func (p poolAPI) served(change api.PoolChange) error {
	var problems []string
	for _, c := range [...]struct {
		what string
		spec *string
	}{{"algorithm", change.Algorithm}, {"shadow", change.Shadow}} {
		if c.spec == nil || strings.TrimSpace(*c.spec) == "" {
			continue
		}
		name, _, _ := strings.Cut(*c.spec, "=")
		name = strings.TrimSpace(name)
		if _, _, known := p.core.plugins.Algorithm(name); known || isBuiltin(name) {
			continue
		}
		problems = append(problems, fmt.Sprintf("%s: no plugin serves %q and no built-in algorithm has that name; available: %s",
			c.what, name, strings.Join(p.algorithms(), ", ")))
	}
	if problems != nil {
		return &coordinator.RefusedError{Problems: problems}
	}
	return nil
}

// algorithms returns the names of the algorithms that can be set now.
func (p poolAPI) algorithms() (names []string) {
	for _, a := range builtin.All() {
		names = append(names, a.Name)
	}
	for _, s := range p.core.plugins.Status() {
		for _, other := range s.Others {
			if name, ok := strings.CutPrefix(other, string(pluginhost.KindScaling)+"/"); ok {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// PausePool implements [api.Pools].
func (p poolAPI) PausePool(_ context.Context, name string, pause bool, o api.Operator) (readmodel.Pool, error) {
	s, err := p.core.pools.Pause(name, pause, o.By, o.Reason)
	return poolView(&s), poolFault(err)
}

// PoolHistory implements [api.PoolRecords].
func (p poolAPI) PoolHistory(_ context.Context, name string, limit int, changes bool) ([]readmodel.PoolDecision, error) {
	all, err := p.core.pools.History(name, limit, changes)
	if err != nil {
		return nil, poolFault(err)
	}
	out := make([]readmodel.PoolDecision, len(all))
	for i := range all {
		out[i] = *decisionView(&all[i])
	}
	return out, nil
}

// PoolSamples implements [api.PoolRecords].
func (p poolAPI) PoolSamples(_ context.Context, name string, after time.Time, limit int) ([]readmodel.PoolSample, error) {
	all, err := p.core.pools.Samples(name, after, limit)
	if err != nil {
		return nil, poolFault(err)
	}
	out := make([]readmodel.PoolSample, len(all))
	for i := range all {
		out[i] = *sampleView(&all[i])
	}
	return out, nil
}

func poolFault(err error) error {
	if errors.Is(err, coordinator.ErrNoPool) {
		return api.NotFound(api.CodePoolNotFound, "%v", err)
	}
	if e, ok := errors.AsType[*coordinator.RefusedError](err); ok {
		return api.Conflict(api.CodePoolRefused, "%s", strings.Join(e.Problems, "; "))
	}
	return err
}

func poolView(s *coordinator.Status) readmodel.Pool {
	p := readmodel.Pool{
		Name: s.Name, Kind: s.Kind, Namespace: s.Namespace, Size: s.Current(), Target: s.Target, Busy: s.Running, Min: s.Min, Max: s.Max,
		Useful: s.Useful, Waiting: s.Waiting, Lost: s.Lost, Restarts: s.Restarts, Algorithm: s.Algorithm, Shadow: s.Shadow,
		Overrides: s.Overrides, Problem: s.Problem, Measured: sampleView(s.Sample), Decision: decisionView(s.Last),
	}
	if pace := s.Pace; pace.Batch > 0 {
		p.Pace = &readmodel.PoolPace{Batch: pace.Batch, TurnTimeout: pace.TurnTimeout.String(), StopTimeout: pace.StopTimeout.String()}
		if pace.PollMax > 0 {
			p.Pace.PollMin, p.Pace.PollMax = pace.PollMin.String(), pace.PollMax.String()
		}
	}
	if !s.ChangedAt.IsZero() {
		p.ChangedAt = new(s.ChangedAt.UTC())
	}
	if s.Pause != nil {
		p.Paused = &readmodel.Pause{Since: s.Pause.Since.UTC(), By: s.Pause.By, Reason: s.Pause.Reason}
	}
	return p
}

func sampleView(s *scaler.Sample) *readmodel.PoolSample {
	if s == nil {
		return nil
	}
	return &readmodel.PoolSample{
		At: s.At.UTC(), Seconds: s.Span.Seconds(), Size: s.Size, Arrivals: s.Arrivals, Completions: s.Completions, Errors: s.Errors,
		Depth: s.QueueDepth, Oldest: s.OldestAge.Seconds(),
		P50: s.LatencyP50.Seconds(), P95: s.LatencyP95.Seconds(), P99: s.LatencyP99.Seconds(), Utilization: s.Utilization,
	}
}

func decisionView(d *scaling.Decision) *readmodel.PoolDecision {
	if d == nil {
		return nil
	}
	v := &readmodel.PoolDecision{
		At: d.At.UTC(), Algorithm: d.Algorithm, By: d.By, From: d.From, To: d.To, Reason: d.Reason, Advice: adviceView(d.Advice),
		Current: d.Current, Min: d.Min, Max: d.Max, Samples: d.Samples, Measured: sampleView(d.Last),
	}
	if d.BudgetLeft >= 0 {
		v.BudgetLeft = &d.BudgetLeft
	}
	for _, c := range d.Clamps {
		v.Clamps = append(v.Clamps, readmodel.PoolClamp{Rule: string(c.Rule), From: c.From, To: c.To, Reason: c.Reason})
	}
	if s := d.Shadow; s != nil {
		v.Shadow = &readmodel.PoolShadow{Algorithm: s.Algorithm, By: s.By, Advice: adviceView(s.Advice), To: s.To, Reason: s.Reason}
	}
	return v
}

func adviceView(a *scaling.Advice) *readmodel.PoolAdvice {
	if a == nil {
		return nil
	}
	return &readmodel.PoolAdvice{Target: a.Target, Confidence: a.Confidence}
}
