package vocab

import "slices"

// TaskState is the state of a task.
type TaskState string

// The states of a task. Error is not final: an operator may reset, cancel or resolve the task.
const (
	TaskPending          TaskState = "pending"
	TaskInProgress       TaskState = "in_progress"
	TaskComplete         TaskState = "complete"
	TaskError            TaskState = "error"
	TaskCancelled        TaskState = "cancelled"
	TaskResolvedManually TaskState = "resolved_manually"
)

// TaskStates lists every task state in the order of a task's life.
var TaskStates = []TaskState{
	TaskPending, TaskInProgress, TaskComplete, TaskError, TaskCancelled, TaskResolvedManually,
}

// Active reports whether a task in this state can still move without an operator.
func (s TaskState) Active() bool { return s == TaskPending || s == TaskInProgress }

// Final reports whether no transition leaves the state.
func (s TaskState) Final() bool { return len(TaskEdges[s]) == 0 }

// StepState is the state of a workflow step.
type StepState string

// The states of a step. A step that waits for its next attempt is pending, with a due time.
const (
	StepPending          StepState = "pending"
	StepEnqueued         StepState = "enqueued"
	StepInProgress       StepState = "in_progress"
	StepComplete         StepState = "complete"
	StepError            StepState = "error"
	StepCancelled        StepState = "cancelled"
	StepResolvedManually StepState = "resolved_manually"
)

// StepStates lists every step state in the order of a step's life.
var StepStates = []StepState{
	StepPending, StepEnqueued, StepInProgress, StepComplete, StepError, StepCancelled, StepResolvedManually,
}

// Satisfies reports whether a parent in this state lets its children run.
func (s StepState) Satisfies() bool { return s == StepComplete || s == StepResolvedManually }

// Settled reports whether a step in this state no longer moves by itself. Error is settled,
// because only a permanent or exhausted failure stays there.
func (s StepState) Settled() bool {
	return s == StepComplete || s == StepError || s == StepCancelled || s == StepResolvedManually
}

// Final reports whether no transition leaves the state.
func (s StepState) Final() bool { return len(StepEdges[s]) == 0 }

// TaskEdges is the table of legal task transitions.
//
//	pending ──► in_progress ──► complete
//	   │  │        │     │
//	   │  └────────┴──► error ──► pending        (reset by an operator)
//	   └───────────┴─────┴──► cancelled
//	any non-final state ──► resolved_manually
var TaskEdges = map[TaskState][]TaskState{
	TaskPending:    {TaskInProgress, TaskError, TaskCancelled, TaskResolvedManually},
	TaskInProgress: {TaskComplete, TaskError, TaskCancelled, TaskResolvedManually},
	TaskError:      {TaskPending, TaskCancelled, TaskResolvedManually},
}

// StepEdges is the table of legal step transitions. It adds one edge to those of the reference
// system: in_progress → enqueued, for a lease that was handed back or expired.
//
//	pending ──► enqueued ──► in_progress ──► complete
//	   │            ▲             │  │
//	   │            └─ released ──┘  └──► error ──► pending   (retry)
//	   └──────────── handed over ──► in_progress
//	any non-final state ──► cancelled, resolved_manually
var StepEdges = map[StepState][]StepState{
	StepPending:    {StepEnqueued, StepInProgress, StepError, StepCancelled, StepResolvedManually},
	StepEnqueued:   {StepInProgress, StepError, StepCancelled, StepResolvedManually},
	StepInProgress: {StepEnqueued, StepComplete, StepError, StepCancelled, StepResolvedManually},
	StepError:      {StepPending, StepCancelled, StepResolvedManually},
}

// CanTask reports whether a task may go from one state to another.
func CanTask(from, to TaskState) bool { return slices.Contains(TaskEdges[from], to) }

// CanStep reports whether a step may go from one state to another.
func CanStep(from, to StepState) bool { return slices.Contains(StepEdges[from], to) }
