package workflow

import (
	"time"

	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// StepStatus is the current state of one step of a task.
type StepStatus struct {
	State    vocab.StepState
	Attempts int       // failed attempts that were the handler's fault
	DueAt    time.Time // when the next attempt may start; zero: immediately
}

// StepReadiness is what may happen to one step.
type StepReadiness struct {
	DependenciesSatisfied bool `json:"dependencies_satisfied"` // every parent is complete or resolved
	RetryEligible         bool `json:"retry_eligible"`         // not settled, and its policy allows an attempt
	ReadyForExecution     bool `json:"ready_for_execution"`    // pending, both of the above, and due
}

// ExecutionStatus says what a task as a whole is doing.
type ExecutionStatus string

// The execution statuses; the package comment says when each holds.
const (
	HasReadySteps          ExecutionStatus = "has_ready_steps"
	Processing             ExecutionStatus = "processing"
	AllComplete            ExecutionStatus = "all_complete"
	WaitingForDependencies ExecutionStatus = "waiting_for_dependencies"
	BlockedByFailures      ExecutionStatus = "blocked_by_failures"
)

// RecommendedAction says what to do with a task.
type RecommendedAction string

// The recommended actions, one per execution status.
const (
	ExecuteReadySteps   RecommendedAction = "execute_ready_steps"
	WaitForCompletion   RecommendedAction = "wait_for_completion"
	FinalizeTask        RecommendedAction = "finalize_task"
	WaitForDependencies RecommendedAction = "wait_for_dependencies"
	HandleFailures      RecommendedAction = "handle_failures"
)

// HealthStatus says how well a task is doing.
type HealthStatus string

// The health statuses; the package comment says when each holds.
const (
	Healthy       HealthStatus = "healthy"
	Recovering    HealthStatus = "recovering"
	Blocked       HealthStatus = "blocked"
	UnknownHealth HealthStatus = "unknown"
)

// ExecutionContext summarizes all steps of a task.
type ExecutionContext struct {
	TotalSteps      int `json:"total_steps"`
	PendingSteps    int `json:"pending_steps"`
	EnqueuedSteps   int `json:"enqueued_steps"`
	InProgressSteps int `json:"in_progress_steps"`
	CompletedSteps  int `json:"completed_steps"` // complete or resolved manually
	FailedSteps     int `json:"failed_steps"`
	ReadySteps      int `json:"ready_steps"`

	ExecutionStatus      ExecutionStatus   `json:"execution_status"`
	RecommendedAction    RecommendedAction `json:"recommended_action"`
	CompletionPercentage float64           `json:"completion_percentage"` // 0–100, two decimals
	HealthStatus         HealthStatus      `json:"health_status"`
}

// Readiness returns for every step of a task what may happen to it. steps[n] is the
// status of the plan's step n, and there must be one for each.
func Readiness(plan *Plan, steps []StepStatus, now time.Time) []StepReadiness {
	ready := make([]StepReadiness, len(plan.Steps))
	for n := range plan.Steps {
		ready[n] = readiness(plan, steps, n, now)
	}
	return ready
}

// Context summarizes a task. steps[n] is the status of the plan's step n, and there must
// be one for each.
func Context(plan *Plan, steps []StepStatus, now time.Time) ExecutionContext {
	c := ExecutionContext{TotalSteps: len(plan.Steps)}
	var due, doomed, retried bool // a step waits for its due time; one can never be satisfied; one has failed and may yet succeed
	for n := range plan.Steps {
		r := readiness(plan, steps, n, now)
		c.count(steps[n].State, r)
		due = due || r.DependenciesSatisfied && r.RetryEligible
		doomed = doomed || steps[n].State == vocab.StepError || steps[n].State == vocab.StepCancelled
		retried = retried || !steps[n].State.Settled() && steps[n].Attempts > 0
	}
	c.CompletionPercentage = percentage(c.CompletedSteps, c.TotalSteps)
	c.ExecutionStatus, c.RecommendedAction = c.decide(due)
	switch {
	case c.TotalSteps == 0:
		c.HealthStatus = UnknownHealth
	case doomed || c.ExecutionStatus == BlockedByFailures:
		c.HealthStatus = Blocked
	case retried:
		c.HealthStatus = Recovering
	default:
		c.HealthStatus = Healthy
	}
	return c
}

func readiness(plan *Plan, steps []StepStatus, n int, now time.Time) StepReadiness {
	s := &steps[n]
	r := StepReadiness{
		DependenciesSatisfied: true,
		RetryEligible:         !s.State.Settled() && plan.Steps[n].Retry.Allows(s.Attempts),
	}
	for _, parent := range plan.Steps[n].Parents {
		if !steps[parent].State.Satisfies() {
			r.DependenciesSatisfied = false
			break
		}
	}
	r.ReadyForExecution = s.State == vocab.StepPending && r.DependenciesSatisfied && r.RetryEligible && !s.DueAt.After(now)
	return r
}

// count adds one step.
func (c *ExecutionContext) count(state vocab.StepState, r StepReadiness) {
	switch state {
	case vocab.StepPending:
		c.PendingSteps++
	case vocab.StepEnqueued:
		c.EnqueuedSteps++
	case vocab.StepInProgress:
		c.InProgressSteps++
	case vocab.StepComplete, vocab.StepResolvedManually:
		c.CompletedSteps++
	case vocab.StepError:
		c.FailedSteps++
	case vocab.StepCancelled: // counts only in the total
	}
	if r.ReadyForExecution {
		c.ReadySteps++
	}
}

// decide implements the precedence given in the package comment. due: a step waits only
// for its due time.
func (c *ExecutionContext) decide(due bool) (ExecutionStatus, RecommendedAction) {
	switch {
	case c.ReadySteps > 0:
		return HasReadySteps, ExecuteReadySteps
	case c.InProgressSteps+c.EnqueuedSteps > 0:
		return Processing, WaitForCompletion
	case c.TotalSteps == 0, due:
		return WaitingForDependencies, WaitForDependencies
	case c.CompletedSteps == c.TotalSteps:
		return AllComplete, FinalizeTask
	default:
		return BlockedByFailures, HandleFailures
	}
}

// percentage returns 100·part/whole with two decimals, half rounded up as numeric does in
// SQL; 0 if whole is 0.
func percentage(part, whole int) float64 {
	if whole == 0 {
		return 0
	}
	hundredths := (2*10_000*int64(part) + int64(whole)) / (2 * int64(whole))
	return float64(hundredths) / 100
}
