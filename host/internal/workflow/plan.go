package workflow

import (
	"encoding/json"
	"slices"
	"time"
)

// Plan is a template version as it runs in one environment: its steps in topological
// order, with inheritance and overrides resolved. A plan never changes once created; it
// is shared between goroutines and must not be modified.
type Plan struct {
	Namespace, Name, Version, Description string

	Environment string          // "" is the base plan, else the environment whose overrides are applied
	InputSchema json.RawMessage // JSON Schema of the task's context; nil if the template has none
	Priority    int             // default priority of the tasks; 0 if the template has none
	Identity    IdentityPolicy  // the same in all environments; "" is IdentityAllow
	Steps       []Step          // topological order; a step's index is its number
}

// Step is one step of a plan.
type Step struct {
	Name, Handler, Description string

	Parents, Children []int32 // numbers of the direct parents and children, ascending, each once

	Config   json.RawMessage // the handler's configuration: a JSON object, never nil
	Retry    Retry
	Timeout  time.Duration // of one attempt, whole milliseconds; 0 means none
	Priority *int          // nil means the task's

	Skippable bool // an operator may skip it: its children run, and see null as its result
}

// IdentityPolicy determines what happens to a submission if a task of the same template
// version with the same context exists, in whatever state.
type IdentityPolicy string

// The policies.
const (
	IdentityAllow          IdentityPolicy = "allow"           // another task is created
	IdentityReject         IdentityPolicy = "reject"          // the submission is refused
	IdentityReturnExisting IdentityPolicy = "return_existing" // the answer is the existing task
)

// IdentityPolicies lists the policies.
var IdentityPolicies = [...]IdentityPolicy{IdentityAllow, IdentityReject, IdentityReturnExisting}

// Clone returns a copy of the plan that shares no memory with it.
func (p *Plan) Clone() Plan {
	c := *p
	c.InputSchema = slices.Clone(p.InputSchema)
	c.Steps = make([]Step, len(p.Steps))
	for i := range p.Steps {
		c.Steps[i] = p.Steps[i].clone()
	}
	return c
}

func (s *Step) clone() Step {
	c := *s
	c.Parents, c.Children = slices.Clone(s.Parents), slices.Clone(s.Children)
	c.Config = slices.Clone(s.Config)
	if s.Priority != nil {
		c.Priority = new(*s.Priority)
	}
	return c
}
