package pipeline

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/pool"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// start takes over leases that a call has brought, ends the call and its grant, and sends
// the steps on their way. It does not wait for them.
func (e *Engine) start(ctx context.Context, g grant, call ticket, leases []store.Lease) {
	attempts := make([]*attempt, 0, len(leases))
	for _, l := range leases {
		plan, err := e.store.Plan(ctx, l.Plan)
		if err != nil {
			// Nothing in this host knows about the lease: reconcile gives it back.
			e.log.Error("plan of a leased step cannot be read; the step is given back", "step", l.UUID(), "error", err)
			e.lost.Store(true)
			continue
		}
		attempts = append(attempts, &attempt{Lease: l, plan: plan, steps: e.steps.of(plan.Namespace)})
	}
	e.held.add(attempts)
	e.grants.end(call) // no earlier, or reconcile would take them for lost
	e.capacity.taken(g, attempts)
	if len(attempts) == 0 {
		return
	}
	e.metrics.leased.Add(float64(len(attempts)))

	var cold []*attempt
	for _, a := range attempts {
		if e.budget.spent(&a.steps.memory) {
			cold = append(cold, a)
		} else if v, ok := e.inputs.cached(a, e.ancestorsOf(a)); ok {
			e.enter(a, v)
		} else {
			cold = append(cold, a)
		}
	}
	for len(cold) > 0 { // those of one namespace wait for memory together
		n := 1
		for n < len(cold) && cold[n].steps == cold[0].steps {
			n++
		}
		of := cold[:n]
		e.loops.Go(func() { e.loadAndRunAll(of) })
		cold = cold[n:]
	}
}

// loadAndRunAll reads the inputs of attempts of one namespace and runs them, as memory
// becomes available.
func (e *Engine) loadAndRunAll(attempts []*attempt) {
	for len(attempts) > 0 {
		memory := &attempts[0].steps.memory
		n, taken := e.budget.await(e.work, memory, len(attempts))
		if n == 0 {
			break
		}
		e.loadAndRun(attempts[:n])
		e.budget.give(memory, taken)
		attempts = attempts[n:]
	}
	for _, a := range attempts {
		e.settle(a, release(pluginhost.ReasonStopping, "the host stopped before it ran"))
	}
}

// loadAndRun reads the inputs of attempts and runs them. If the database cannot be
// reached it tries again: the leases are ours as long as the host lives.
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
	bytes := 0
	for i, a := range attempts {
		bytes += all[i].size()
		e.enter(a, all[i])
	}
	e.budget.note(len(attempts), bytes)
}

// enter runs an attempt as soon as the pool of its namespace has an executor for it.
func (e *Engine) enter(a *attempt, v values) {
	a.bytes = v.size()
	e.budget.take(&a.steps.memory, a.bytes)
	a.job.Store(pool.NewJob(&entered{e, a, v}))
	a.steps.slots.Enter(a.job.Load())
}

// entered is an attempt that waits for an executor.
type entered struct {
	engine  *Engine
	attempt *attempt
	inputs  values
}

// Run implements [pool.Task].
func (w *entered) Run() { w.engine.run(w.attempt, w.inputs) }

// Back implements [pool.Task].
func (w *entered) Back(why string) {
	w.engine.budget.give(&w.attempt.steps.memory, w.attempt.bytes)
	w.engine.settle(w.attempt, release(neverRan, "it was given back before it ran: "+why))
}

// cancel ends an attempt, whose outcome then arrives soon. An attempt that waits for its
// inputs, or is on its way to the runner, finds the reason when it gets there.
func (e *Engine) cancel(a *attempt, reason string) {
	a.over.CompareAndSwap(nil, &reason)
	if j := a.job.Load(); j == nil || !a.steps.slots.Drop(j, reason) {
		e.runner.Cancel(a.UUID().String(), reason)
	}
}

// run hands an attempt to the runner.
func (e *Engine) run(a *attempt, v values) {
	if why := a.over.Load(); why != nil {
		a.steps.slots.Leave(a.job.Load(), false)
		e.budget.give(&a.steps.memory, a.bytes)
		e.settle(a, release(neverRan, "it was cancelled before it ran: "+*why))
		return
	}
	s := &a.plan.Steps[a.Number]
	step := e.stepFor(a, v)
	id := step.GetStepUuid()
	e.runner.Dispatch(pluginhost.Call{
		Handler: s.Handler, Step: step,
		Done: func(o pluginhost.Outcome) {
			a.steps.slots.Leave(a.job.Load(), o.Kind == vocab.OutcomeRetryable || o.Kind == vocab.OutcomePermanent)
			e.settle(a, o)
			e.budget.give(&a.steps.memory, a.bytes)
		},
		Progress: func(p pluginhost.Progress) { e.held.report(a, p) },
	})
	if why := a.over.Load(); why != nil { // cancelled before the runner knew the step
		e.runner.Cancel(id, *why)
	}
}

// stepFor returns an attempt in the form its plugin receives.
func (e *Engine) stepFor(a *attempt, v values) *pluginv1.Step {
	s := &a.plan.Steps[a.Number]
	var room [3 * 36]byte // one text holds all three
	ids := string(a.ID.Append(a.UUID().Append(a.Task.Append(room[:0]))))
	task, id, lease := ids[:36], ids[36:72], ids[72:]
	ancestors := e.ancestorsOf(a)
	step, dependencies := newStep(len(ancestors))
	step.Handler, step.TaskUuid, step.StepUuid, step.LeaseId = s.Handler, task, id, lease
	step.Namespace, step.TaskName, step.TaskVersion, step.StepName = a.plan.Namespace, a.plan.Name, a.plan.Version, s.Name
	step.Attempt, step.MaxAttempts = uint32(a.Attempt), uint32(s.Retry.MaxAttempts)
	step.IdempotencyKey = idempotencyKey(id, a.Generation)
	step.Context, step.Config = v.context, s.Config
	step.TimeoutMs = uint32(s.Timeout / time.Millisecond) // at most a day
	step.Trace = e.traceStep(a, v.trace)
	for i, n := range ancestors {
		if v.results[i] != nil {
			d := &dependencies[i]
			d.StepName, d.Result = a.plan.Steps[n].Name, v.results[i]
			step.Dependencies = append(step.Dependencies, d)
		}
	}
	return step
}

// newStep returns a step and the given number of dependencies for it, in one allocation
// if they are few.
func newStep(dependencies int) (*pluginv1.Step, []pluginv1.Dependency) {
	switch {
	case dependencies == 0:
		return &pluginv1.Step{}, nil
	case dependencies <= 3:
		s := &struct {
			step pluginv1.Step
			all  [3]pluginv1.Dependency
			list [3]*pluginv1.Dependency
		}{}
		s.step.Dependencies = s.list[:0]
		return &s.step, s.all[:]
	default:
		return &pluginv1.Step{Dependencies: make([]*pluginv1.Dependency, 0, dependencies)}, make([]pluginv1.Dependency, dependencies)
	}
}

// idempotencyKey returns the step's UUID, followed by the generation if an operator has
// made the step run again.
func idempotencyKey(step string, generation int32) string {
	if generation == 0 {
		return step
	}
	return step + "." + strconv.Itoa(int(generation))
}

// neverRan is the code of an attempt that this host has given back before any plugin
// heard of it.
const neverRan = "never_ran"

// release returns the outcome of an attempt that did not run to its end through no fault
// of its handler.
func release(code, why string) pluginhost.Outcome {
	return pluginhost.Outcome{Kind: vocab.OutcomeReleased, Failure: &pluginhost.Failure{Code: code, Message: why}}
}

// ancestorCache stores, for the steps of plans, the numbers of the steps whose results
// they receive.
type ancestorCache struct{ byPlan sync.Map }

// ancestorsOf returns the steps whose results the attempt receives: all its parents, then
// the nearest ancestors up to the configured number.
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

// nearestAncestors walks up from a step, nearest first, and stops after the level at
// which it has found at least most steps; parents are never left out.
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
