package finalizer

import "github.com/tasker-systems/tasker-host/sdk/vocab"

// Context is the basis of a decision: the counts from get_task_execution_context.
type Context struct {
	Total, Pending, Enqueued, InProgress, Completed, Failed, Ready int
	Status                                                         Status
}

// Status is a task's execution status.
type Status string

// The execution statuses.
const (
	HasReadySteps          Status = "has_ready_steps"
	Processing             Status = "processing"
	BlockedByFailures      Status = "blocked_by_failures"
	AllComplete            Status = "all_complete"
	WaitingForDependencies Status = "waiting_for_dependencies"
)

// Decision says what should happen to a task.
type Decision string

// The decisions.
const (
	Complete Decision = "complete" // every step is complete or resolved
	Fail     Decision = "fail"     // a step has failed for good and nothing moves any more
	Wait     Decision = "wait"     // something still moves, or will
)

// Decide returns the decision for a task in the given state.
func Decide(state vocab.TaskState, c Context) Decision {
	if state != vocab.TaskInProgress {
		return Wait
	}
	switch c.Status {
	case AllComplete:
		return Complete
	case BlockedByFailures:
		return Fail
	default:
		return Wait
	}
}
