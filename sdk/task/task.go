package task

import (
	"encoding/json"
	"math"
	"time"

	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Task is one task as its owner sees it.
type Task struct {
	UUID      string          `json:"uuid" format:"uuid" doc:"The task's identifier."`
	Namespace string          `json:"namespace"`
	Name      string          `json:"name"`
	Version   string          `json:"version" doc:"The template version that the task started with and keeps."`
	State     vocab.TaskState `json:"state" enum:"pending,in_progress,complete,error,cancelled,resolved_manually"`
	Priority  int             `json:"priority" doc:"0 is unset; a larger number is more urgent."`
	Progress  Progress        `json:"progress"`

	CreatedAt   time.Time  `json:"created_at"`
	StartedAt   *time.Time `json:"started_at,omitempty" doc:"When the task's first step was claimed."`
	CompletedAt *time.Time `json:"completed_at,omitempty" doc:"When the task ended: complete, error, cancelled or resolved."`

	StateReason string     `json:"state_reason,omitempty" doc:"Why the task is in its state, in one sentence."`
	Error       *TaskError `json:"error,omitempty" doc:"Which step failed the task and why."`

	Tags         []string `json:"tags,omitempty"`
	Initiator    string   `json:"initiator,omitempty"`
	SourceSystem string   `json:"source_system,omitempty"`
	Reason       string   `json:"reason,omitempty" doc:"Why the task was submitted, in the submitter's words."`
	SubmittedBy  string   `json:"submitted_by,omitempty" doc:"The principal that submitted the task over the API."`
	IdentityHash string   `json:"identity_hash,omitempty"`

	// Context is the task's input, byte for byte in value; lists leave it out.
	Context json.RawMessage `json:"context,omitempty" doc:"The task's input. Omitted from lists."`
}

// Progress counts a task's steps by their state.
type Progress struct {
	Total      int     `json:"total"`
	Completed  int     `json:"completed" doc:"Complete or resolved by hand."`
	Failed     int     `json:"failed"`
	InProgress int     `json:"in_progress"`
	Enqueued   int     `json:"enqueued"`
	Pending    int     `json:"pending" doc:"Waiting for parents or for a due time."`
	Cancelled  int     `json:"cancelled"`
	Percentage float64 `json:"percentage" minimum:"0" maximum:"100" doc:"Completed of total, two decimals."`
}

// NewProgress sums up the number of steps in each state.
func NewProgress(steps map[vocab.StepState]int) Progress {
	p := Progress{
		Completed:  steps[vocab.StepComplete] + steps[vocab.StepResolvedManually],
		Failed:     steps[vocab.StepError],
		InProgress: steps[vocab.StepInProgress],
		Enqueued:   steps[vocab.StepEnqueued],
		Pending:    steps[vocab.StepPending],
		Cancelled:  steps[vocab.StepCancelled],
	}
	p.Total = p.Completed + p.Failed + p.InProgress + p.Enqueued + p.Pending + p.Cancelled
	if p.Total > 0 {
		p.Percentage = math.Floor(float64(p.Completed)*10000/float64(p.Total)) / 100
	}
	return p
}

// TaskError names the step that failed a task.
type TaskError struct {
	StepUUID string `json:"step_uuid,omitempty" format:"uuid"`
	Step     string `json:"step,omitempty" doc:"The step's name."`
	Attempts int    `json:"attempts,omitempty"`
	StepError
}

// StepError says why an attempt of a step failed.
type StepError struct {
	Type    vocab.ErrorType `json:"type" doc:"The class of the failure, such as PermanentError or TimeoutError."`
	Code    string          `json:"code,omitempty" doc:"The handler's own code, such as INSUFFICIENT_INVENTORY."`
	Message string          `json:"message"`
}

// Settled reports whether the task no longer moves by itself.
func (t *Task) Settled() bool { return Settled(t.State) }

// Settled reports whether a task in this state no longer moves by itself.
func Settled(s vocab.TaskState) bool { return !s.Active() }

// Step is one step of a task.
type Step struct {
	UUID     string          `json:"uuid" format:"uuid"`
	TaskUUID string          `json:"task_uuid" format:"uuid"`
	Number   int             `json:"number" doc:"Position in topological order, from 0."`
	Name     string          `json:"name"`
	Handler  string          `json:"handler"`
	State    vocab.StepState `json:"state" enum:"pending,enqueued,in_progress,complete,error,cancelled,resolved_manually"`
	Parents  []string        `json:"parents,omitempty" doc:"Names of the steps it depends on."`
	Attempts int             `json:"attempts" doc:"Attempts charged to the handler."`
	// MaxAttempts is the retry policy's bound, at least 1.
	MaxAttempts int `json:"max_attempts"`
	Claims      int `json:"claims" doc:"How often it was claimed, including after deploys and crashes."`
	// Generation counts how often an operator had it run again.
	Generation int  `json:"generation,omitempty" doc:"How often an operator had it retried; attempts and claims count from then on."`
	Skippable  bool `json:"skippable,omitempty" doc:"Whether its template lets an operator skip it."`
	// PluginGeneration is the plugin process that ended the last attempt.
	PluginGeneration int64 `json:"plugin_generation,omitempty" doc:"The generation of the plugin process that ended the last attempt."`

	DueAt      *time.Time `json:"due_at,omitempty" doc:"When a step that waits for its next attempt is due."`
	StartedAt  *time.Time `json:"started_at,omitempty"`
	FinishedAt *time.Time `json:"finished_at,omitempty"`

	Lease    *Lease          `json:"lease,omitempty" doc:"Who runs the step now."`
	Progress *StepProgress   `json:"progress,omitempty" doc:"The progress that a running step reports. For steps on other hosts it may be a second late."`
	Result   json.RawMessage `json:"result,omitempty" doc:"The handler's result, every digit kept."`
	Metadata json.RawMessage `json:"metadata,omitempty"`
	Error    *StepError      `json:"error,omitempty" doc:"Why the last attempt failed."`
}

// Lease says who holds a step.
type Lease struct {
	Holder     string     `json:"holder" doc:"Host or outside worker."`
	Plugin     string     `json:"plugin,omitempty"`
	Generation int64      `json:"generation,omitempty" doc:"The plugin generation that runs it."`
	ExpiresAt  *time.Time `json:"expires_at,omitempty"`
}

// Transition is one entry of a task's history. It concerns the task itself or, if Step is set,
// one of its steps.
type Transition struct {
	SortKey  int64           `json:"sort_key" doc:"Order within the task's history; increases."`
	StepUUID string          `json:"step_uuid,omitempty" format:"uuid"`
	Step     string          `json:"step,omitempty" doc:"The step's name; empty for the task's own transitions."`
	From     string          `json:"from,omitempty" doc:"Empty for the first."`
	To       string          `json:"to"`
	At       time.Time       `json:"at"`
	Metadata json.RawMessage `json:"metadata,omitempty"`
	// PluginGeneration is the plugin process that ended an attempt.
	PluginGeneration int64 `json:"plugin_generation,omitempty" doc:"The generation of the plugin process that ended the attempt."`
}
