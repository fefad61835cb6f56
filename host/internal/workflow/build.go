package workflow

import (
	"cmp"
	"encoding/json"

	"github.com/tasker-systems/tasker-host/host/internal/payload"
)

// maxEdges bounds the total number of dependencies of a template.
const maxEdges = 1_000_000

// builder reads a template and compiles it.
type builder struct {
	*reader
	src source

	edges   int       // dependencies read so far
	configs int       // bytes of configurations written so far
	order   []int     // the steps' indices in src.steps, in topological order
	parents [][]int32 // of the ordered steps, by number
}

// build compiles what was read. The plans are valid only if there are no problems.
func (b *builder) build() []Plan {
	if len(b.src.steps) == 0 {
		return nil
	}
	byName := b.names()
	b.checkOverrides(byName)
	b.link(byName)
	b.checkRetries()
	if len(b.list) > 0 {
		return nil
	}
	plans := make([]Plan, 0, 1+len(b.src.environments))
	plans = append(plans, b.plan(nil))
	for i := range b.src.environments {
		plans = append(plans, b.plan(&b.src.environments[i]))
	}
	return plans
}

// names maps the steps' names to their indices.
func (b *builder) names() map[string]int {
	byName := make(map[string]int, len(b.src.steps))
	for i := range b.src.steps {
		s := &b.src.steps[i]
		if s.name == "" {
			continue
		}
		if first, there := byName[s.name]; there {
			b.add(s.position, s.path, "duplicate step %q, first in line %d: rename one", s.name, b.src.steps[first].line)
			continue
		}
		byName[s.name] = i
	}
	return byName
}

func (b *builder) stepNames() []string {
	names := make([]string, len(b.src.steps))
	for i := range b.src.steps {
		names[i] = b.src.steps[i].name
	}
	return names
}

// checkOverrides reports overrides of steps that do not exist.
func (b *builder) checkOverrides(byName map[string]int) {
	for _, e := range b.src.environments {
		for _, p := range e.patches {
			if _, there := byName[p.name]; !there && p.name != allSteps && len(b.list) < maxProblems {
				b.add(p.position, p.path, "there is no step %q%s", shown(p.name), suggest(p.name, append(b.stepNames(), allSteps)))
			}
		}
	}
}

// link resolves the dependencies and determines the order of the steps.
func (b *builder) link(byName map[string]int) {
	parents := make([][]int, len(b.src.steps))
	for i := range b.src.steps {
		s := &b.src.steps[i]
		seen := make(map[string]bool, len(s.parents))
		for _, p := range s.parents {
			parent, there := byName[p.name]
			switch {
			case p.name == s.name:
				b.add(p.position, s.parentPath(p), "step %q depends on itself: remove it", p.name)
			case seen[p.name]:
				b.add(p.position, s.parentPath(p), "step %q is listed twice: remove one", shown(p.name))
			case there:
				parents[i] = append(parents[i], parent)
			case len(b.list) < maxProblems:
				b.add(p.position, s.parentPath(p), "there is no step %q%s", shown(p.name), suggest(p.name, b.stepNames()))
			}
			seen[p.name] = true
		}
	}
	order, rest := topological(parents)
	for _, cycle := range cycles(parents, rest) {
		b.addCycle(cycle)
	}
	b.order, b.parents = order, renumber(order, parents)
}

// addCycle reports a cycle where its first step in the source names the last one of the
// cycle as its parent.
func (b *builder) addCycle(cycle []int) {
	first, last := &b.src.steps[cycle[0]], &b.src.steps[cycle[len(cycle)-1]]
	at, path := first.position, first.path
	for _, p := range first.parents {
		if p.name == last.name {
			at, path = p.position, first.parentPath(p)
			break
		}
	}
	text := ""
	for i, n := range cycle {
		if i == maxCycleShown {
			text += "… → "
			break
		}
		text += b.src.steps[n].name + " → "
	}
	b.add(at, path, "the steps depend on each other in a cycle: %s%s", text, first.name)
}

// maxCycleShown bounds how many steps of a cycle are named.
const maxCycleShown = 50

// plan compiles the plan of an environment; nil means the base plan.
func (b *builder) plan(e *environmentSource) Plan {
	p := Plan{
		Namespace: b.src.namespace, Name: b.src.name, Version: b.src.version, Description: b.src.description,
		InputSchema: b.src.schema, Priority: b.src.priority, Identity: cmp.Or(b.src.identity, IdentityAllow),
		Steps: make([]Step, len(b.order)),
	}
	if e != nil {
		p.Environment = e.name
		set(&p.Priority, e.priority)
	}
	overrides := e.overrides()
	for n, i := range b.order {
		s := &b.src.steps[i]
		p.Steps[n] = b.compile(s, overrides(s.name))
		p.Steps[n].Parents = b.parents[n]
	}
	addChildren(p.Steps)
	return p
}

// overrides returns a function that returns what the environment says about a step,
// starting with the entry for all steps.
func (e *environmentSource) overrides() func(step string) []*patchOf {
	if e == nil {
		return func(string) []*patchOf { return nil }
	}
	byName := make(map[string]*patchOf, len(e.patches))
	for i := range e.patches {
		byName[e.patches[i].name] = &e.patches[i]
	}
	return func(step string) []*patchOf {
		var out []*patchOf
		for _, name := range []string{allSteps, step} {
			if p := byName[name]; p != nil {
				out = append(out, p)
			}
		}
		return out
	}
}

// compile resolves one step, applying in order the built-in defaults, the template's
// defaults, the step's own values and the environment's.
func (b *builder) compile(s *stepSource, overrides []*patchOf) Step {
	step := Step{Name: s.name, Config: json.RawMessage("{}"), Retry: DefaultRetry()}
	b.src.defaults.apply(&step)
	s.patch.apply(&step)
	config := s.patch.config
	if config != nil {
		step.Config = s.patch.configJSON
	}
	for _, o := range overrides {
		o.patch.apply(&step)
		switch {
		case o.patch.config == nil:
		case config == nil:
			config, step.Config = o.patch.config, o.patch.configJSON
		default:
			config = merge(config, o.patch.config)
			step.Config = b.merged(config, o, s.name)
		}
	}
	b.configs += len(step.Config)
	if b.configs > b.lim.MaxTotalConfig && len(b.list) == 0 {
		b.add(s.position, s.path, "the configurations of all steps and environments exceed %d bytes together: store large data elsewhere", b.lim.MaxTotalConfig)
	}
	return step
}

// merged writes a configuration with the changes of an environment applied.
func (b *builder) merged(config *node, by *patchOf, step string) json.RawMessage {
	if len(b.list) > 0 {
		return nil // the template is already known to be invalid
	}
	w := jsonWriter{limit: b.lim.MaxConfig}
	w.value(config, by.path, 0)
	err := payload.CheckObject(w.out, payload.Limits{MaxBytes: b.lim.MaxConfig})
	if len(w.faults) > 0 || err != nil {
		b.add(by.position, join(by.path, "config"), "merged with the configuration of step %q, it exceeds %d bytes as JSON", step, b.lim.MaxConfig)
		return nil
	}
	return w.out
}

// checkRetries checks the rules of a retry policy that involve several keys, wherever one
// of those keys is written.
func (b *builder) checkRetries() {
	var defaults Step
	defaults.Retry = DefaultRetry()
	b.src.defaults.apply(&defaults)
	b.checkRetry(&defaults, &b.src.defaults.retry)
	for i := range b.src.steps {
		s := &b.src.steps[i]
		step := Step{Name: s.name, Retry: defaults.Retry}
		s.patch.apply(&step)
		b.checkRetry(&step, &s.patch.retry)
	}
	for i := range b.src.environments {
		overrides := b.src.environments[i].overrides()
		for j := range b.src.steps {
			s := &b.src.steps[j]
			step := Step{Name: s.name, Retry: defaults.Retry}
			s.patch.apply(&step)
			for _, o := range overrides(s.name) {
				o.patch.apply(&step)
				b.checkRetry(&step, &o.patch.retry)
			}
		}
	}
}

func (b *builder) checkRetry(s *Step, p *retryPatch) {
	if s.Retry.Cap >= s.Retry.Base || p.base == nil && p.limit == nil {
		return
	}
	of := ""
	if s.Name != "" {
		of = " of step " + s.Name
	}
	b.add(p.position, p.path, "the cap%s (%s) is less than the base (%s): raise cap or lower base", of, brief(s.Retry.Cap), brief(s.Retry.Base))
}

// apply applies a patch to a step, except for its configuration.
func (p *patch) apply(s *Step) {
	set(&s.Description, p.description)
	set(&s.Handler, p.handler)
	set(&s.Timeout, p.timeout)
	set(&s.Retry.Retryable, p.retry.retryable)
	set(&s.Retry.MaxAttempts, p.retry.maxAttempts)
	set(&s.Retry.Backoff, p.retry.backoff)
	set(&s.Retry.Base, p.retry.base)
	set(&s.Retry.Cap, p.retry.limit)
	set(&s.Retry.Jitter, p.retry.jitter)
	set(&s.Skippable, p.skippable)
	if p.priority != nil {
		s.Priority = p.priority
	}
}

func set[T any](target *T, value *T) {
	if value != nil {
		*target = *value
	}
}
