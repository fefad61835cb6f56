package pipeline

import (
	"context"
	"encoding/json"
	"strconv"
	"sync"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// start takes over leases that a call has brought, ends the grant they came of,
// and sends the steps on their way. It does not wait for them.
func (e *Engine) start(ctx context.Context, g grant, leases []store.Lease) {
	attempts := make([]*attempt, 0, len(leases))
	handlers := make([]int32, 0, len(leases))
	for _, l := range leases {
		plan, err := e.store.Plan(ctx, l.Plan)
		if err != nil {
			// The lease is ours and nobody knows: reconcile gives it back.
			e.log.Error("plan of a leased step cannot be read; the step is given back", "step", l.UUID(), "error", err)
			e.lost.Store(true)
			continue
		}
		a := &attempt{Lease: l, plan: plan}
		attempts = append(attempts, a)
		handlers = append(handlers, a.handlerID())
	}
	e.held.add(attempts)
	e.capacity.taken(g, handlers)
	if len(attempts) == 0 {
		return
	}
	e.metrics.leased.Add(float64(len(attempts)))

	var cold []*attempt
	for _, a := range attempts {
		if v, ok := e.inputs.cached(a, e.ancestorsOf(a)); ok {
			e.run(a, v)
		} else {
			cold = append(cold, a)
		}
	}
	if len(cold) > 0 {
		e.loops.Go(func() { e.loadAndRun(cold) })
	}
}

// loadAndRun reads the inputs of attempts and runs them. If the database cannot
// be reached it tries again: the leases are ours as long as the host lives.
func (e *Engine) loadAndRun(attempts []*attempt) {
	var all []values
	err := e.insist(e.work, "load inputs", func(ctx context.Context) (err error) {
		all, err = e.inputs.load(ctx, attempts, e.ancestorsOf)
		return err
	})
	if err != nil {
		for _, a := range attempts {
			e.settle(a, release("inputs_unreadable", err.Error()))
		}
		return
	}
	for i, a := range attempts {
		e.run(a, all[i])
	}
}

// run hands one attempt to the runner.
func (e *Engine) run(a *attempt, v values) {
	s := &a.plan.Steps[a.Number]
	id := a.UUID().String()
	step := &pluginv1.Step{
		Handler: s.Handler, TaskUuid: a.Task.String(), StepUuid: id,
		Namespace: a.plan.Namespace, TaskName: a.plan.Name, TaskVersion: a.plan.Version, StepName: s.Name,
		Attempt: uint32(a.Attempt), MaxAttempts: uint32(s.Retry.MaxAttempts), //nolint:gosec // small and positive
		IdempotencyKey: idempotencyKey(id, a.Generation), LeaseId: a.ID.String(),
		Context: v.context, Config: s.Config,
		TimeoutMs: uint32(s.Timeout / time.Millisecond), //nolint:gosec // at most a day
	}
	ancestors := e.ancestorsOf(a)
	if len(ancestors) > 0 {
		step.Dependencies = make([]*pluginv1.Dependency, 0, len(ancestors))
		for i, n := range ancestors {
			if v.results[i] != nil {
				step.Dependencies = append(step.Dependencies, &pluginv1.Dependency{StepName: a.plan.Steps[n].Name, Result: v.results[i]})
			}
		}
	}
	e.runner.Dispatch(pluginhost.Call{
		Handler: s.Handler, Step: step,
		Done: func(o pluginhost.Outcome) { e.settle(a, o) },
	})
}

// idempotencyKey is the step's UUID, with the generation behind it once an
// operator has had the step run anew.
func idempotencyKey(step string, generation int32) string {
	if generation == 0 {
		return step
	}
	return step + "." + strconv.Itoa(int(generation))
}

// release is the outcome of an attempt that came to nothing through no fault of
// its handler.
func release(code, why string) pluginhost.Outcome {
	return pluginhost.Outcome{Kind: vocab.OutcomeReleased, Failure: &pluginhost.Failure{Code: code, Message: why}}
}

// ancestorCache keeps, for the steps of plans, the numbers of the steps whose
// results they receive.
type ancestorCache struct{ byPlan sync.Map }

// ancestorsOf returns the steps whose results the attempt receives: all its
// parents, then the nearer ancestors up to the configured number.
func (e *Engine) ancestorsOf(a *attempt) []int32 {
	type key struct{ plan, step int32 }
	k := key{a.Plan, a.Number}
	if found, ok := e.ancestors.byPlan.Load(k); ok {
		return found.([]int32)
	}
	found := nearestAncestors(a.plan, a.Number, e.cfg.MaxDependency)
	e.ancestors.byPlan.Store(k, found)
	return found
}

// nearestAncestors walks up from a step, nearest first, and stops after the
// level in which it has found most of them; parents are never left out.
func nearestAncestors(plan *store.Plan, step int32, most int) []int32 {
	var found []int32
	seen := map[int32]bool{step: true}
	level := plan.Steps[step].Parents
	for len(level) > 0 {
		var above []int32
		for _, n := range level {
			if !seen[n] {
				seen[n] = true
				found = append(found, n)
				above = append(above, plan.Steps[n].Parents...)
			}
		}
		if len(found) >= most {
			break
		}
		level = above
	}
	return found
}

// failureJSON is how a failure is kept in the database.
type failureJSON struct {
	Type       vocab.ErrorType `json:"type"`
	Code       string          `json:"code,omitempty"`
	Message    string          `json:"message"`
	Retryable  bool            `json:"retryable"`
	RetryAfter float64         `json:"retry_after_seconds,omitempty"`
	Context    json.RawMessage `json:"context,omitempty"`
}
