package apitest

import (
	"context"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// The fake's only pool.
const (
	poolName = "step_execution.linear_workflow"
	poolMost = 500 // the most that its resources allow
)

func poolSample(second int) readmodel.PoolSample {
	return readmodel.PoolSample{
		At: Epoch.Add(time.Duration(second) * time.Second), Seconds: 1, Size: 64, Arrivals: 120, Completions: 90, Errors: 1, Depth: 30, Oldest: 0.4,
		P50: 0.02, P95: 0.05, P99: 0.09, Utilization: 0.72,
	}
}

func poolDecision() readmodel.PoolDecision {
	s := poolSample(0)
	return readmodel.PoolDecision{
		At: Epoch, Algorithm: "backlog", By: "plugin scaling/backlog, generation 7", From: 64, To: 96, Reason: "30 wait and 120.0 arrive a second",
		Advice: &readmodel.PoolAdvice{Target: 120, Confidence: 0.9}, Current: 64, Min: 64, Max: 2000, Samples: 240, Measured: &s,
		Clamps: []readmodel.PoolClamp{{Rule: "step", From: 120, To: 96, Reason: "at most 32 are added at once"}},
		Shadow: &readmodel.PoolShadow{Algorithm: "rate", By: "built-in", Advice: &readmodel.PoolAdvice{Target: 80, Confidence: 1}, To: 80, Reason: "as many as the work keeps busy"},
	}
}

// Pools implements api.Pools.
func (b *Backend) Pools(context.Context) ([]readmodel.Pool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at, s, d := Epoch, poolSample(0), poolDecision()
	p := readmodel.Pool{
		Name: poolName, Kind: "step_execution", Namespace: "linear_workflow", Size: 96, Target: 96, Busy: 70, Min: 64, Max: 2000,
		Waiting: 3, Algorithm: "backlog", Shadow: "rate", ChangedAt: &at, Measured: &s, Decision: &d, Paused: b.poolPause,
	}
	if c := b.poolChange; c != nil {
		p.Overrides = true
		set(&p.Min, c.Min)
		set(&p.Max, c.Max)
		if c.Batch != nil {
			p.Pace = &readmodel.PoolPace{Batch: *c.Batch, PollMin: shown(c.PollMin), PollMax: shown(c.PollMax), TurnTimeout: shown(c.TurnTimeout), StopTimeout: shown(c.StopTimeout)}
		}
		set(&p.Algorithm, c.Algorithm)
		set(&p.Shadow, c.Shadow)
	}
	return []readmodel.Pool{p}, b.fail
}

func shown(d *time.Duration) string {
	if d == nil {
		return "1m0s"
	}
	return d.String()
}

func set[T any](field *T, value *T) {
	if value != nil {
		*field = *value
	}
}

// Pool implements api.Pools.
func (b *Backend) Pool(ctx context.Context, name string) (readmodel.Pool, error) {
	if name != poolName {
		return readmodel.Pool{}, api.NotFound(api.CodePoolNotFound, "there is no pool %q", name)
	}
	pools, err := b.Pools(ctx)
	return pools[0], err
}

// SetPool implements api.Pools.
func (b *Backend) SetPool(ctx context.Context, name string, change api.PoolChange) (readmodel.Pool, error) {
	p, err := b.Pool(ctx, name)
	if err != nil {
		return p, err
	}
	if change.Max != nil && *change.Max > poolMost {
		return readmodel.Pool{}, api.Conflict(api.CodePoolRefused, "the resources allow %d executors", poolMost)
	}
	b.mu.Lock()
	b.poolChange = &change
	b.mu.Unlock()
	return b.Pool(ctx, name)
}

// PausePool implements api.Pools.
func (b *Backend) PausePool(ctx context.Context, name string, pause bool, o api.Operator) (readmodel.Pool, error) {
	if p, err := b.Pool(ctx, name); err != nil {
		return p, err
	}
	b.mu.Lock()
	b.poolPause = nil
	if pause {
		b.poolPause = &readmodel.Pause{Since: *b.now(), By: o.By, Reason: o.Reason}
	}
	b.mu.Unlock()
	return b.Pool(ctx, name)
}

// PoolHistory implements api.Pools.
func (b *Backend) PoolHistory(ctx context.Context, name string, limit int, _ bool) ([]readmodel.PoolDecision, error) {
	if _, err := b.Pool(ctx, name); err != nil {
		return nil, err
	}
	held := readmodel.PoolDecision{
		At: Epoch.Add(-time.Second), Algorithm: "backlog", By: "nobody", From: 64, To: 64, Current: 64, Min: 64, Max: 2000, Samples: 239,
		Reason: "held: the algorithm failed: no plugin currently serves it",
	}
	all := []readmodel.PoolDecision{poolDecision(), held}
	return all[:min(limit, len(all))], nil
}

// PoolSamples implements api.Pools: three minutes, one sample a second.
func (b *Backend) PoolSamples(ctx context.Context, name string, after time.Time, limit int) ([]readmodel.PoolSample, error) {
	if _, err := b.Pool(ctx, name); err != nil {
		return nil, err
	}
	var all []readmodel.PoolSample
	for i := range 180 {
		if s := poolSample(i); s.At.After(after) && len(all) < limit {
			all = append(all, s)
		}
	}
	return all, nil
}
