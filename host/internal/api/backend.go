package api

import (
	"context"
	"encoding/json"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Tasks creates, shows and cancels tasks.
type Tasks interface {
	// Submit creates a task. created is false if the idempotency key was used
	// before with the same request: the task is the earlier one. Faults:
	// CodeTemplateNotFound (invalid, pointer /name or /version),
	// CodeContextInvalid with one issue per schema violation,
	// CodeIdempotencyKeyReused (conflict) if the key came with another request.
	Submit(ctx context.Context, s Submission) (task readmodel.Task, created bool, err error)
	// Task returns one task with its context.
	Task(ctx context.Context, task vocab.UUID) (readmodel.Task, error)
	// ListTasks returns up to q.Limit tasks, newest first, without contexts.
	ListTasks(ctx context.Context, q TaskQuery) ([]readmodel.Task, error)
	// CancelTask cancels a task; one that is already cancelled is returned as
	// it is. A task that is complete or resolved is a conflict
	// (CodeTaskNotCancellable).
	CancelTask(ctx context.Context, task vocab.UUID, reason string) (readmodel.Task, error)
}

// TaskDetails shows what is inside a task.
type TaskDetails interface {
	// Steps returns up to q.Limit steps with numbers greater than q.After, in
	// the order of their numbers.
	Steps(ctx context.Context, task vocab.UUID, q PageQuery) ([]readmodel.Step, error)
	// History returns up to q.Limit transitions of the task and its steps with
	// sort keys greater than q.After, in that order.
	History(ctx context.Context, task vocab.UUID, q PageQuery) ([]readmodel.Transition, error)
	// Watch returns the task's snapshot as soon as its Revision differs from
	// after. It may wait for that or return the unchanged snapshot early, at
	// once even: the caller paces itself. It returns when ctx ends.
	Watch(ctx context.Context, task vocab.UUID, after string) (readmodel.Snapshot, error)
}

// Templates keeps task templates.
type Templates interface {
	// ApplyTemplate stores the template that src describes. source names src
	// in messages (a file name). created is false if the very same template is
	// there already. Faults: CodeTemplateInvalid with one issue per problem,
	// CodeTemplateExists (conflict) if the version exists with other content.
	ApplyTemplate(ctx context.Context, source string, src []byte) (t readmodel.Template, created bool, err error)
	// ValidateTemplate checks as ApplyTemplate does and stores nothing.
	ValidateTemplate(ctx context.Context, source string, src []byte) (readmodel.Template, error)
	// ListTemplates returns up to q.Limit templates after q.After, ordered by
	// namespace, name and version.
	ListTemplates(ctx context.Context, q TemplateQuery) ([]readmodel.TemplateSummary, error)
	// Template returns one version; the version "latest" means the highest.
	Template(ctx context.Context, id TemplateID) (readmodel.Template, error)
}

// System shows the host itself.
type System interface {
	// Plugins lists the plugin slots of this host.
	Plugins(ctx context.Context) ([]readmodel.Plugin, error)
	// Doctor runs the checks that need a running host.
	Doctor(ctx context.Context) (readmodel.DoctorReport, error)
	// Live says whether the process works; it must not ask the database.
	Live(ctx context.Context) readmodel.Health
	// Ready says whether the host takes work now.
	Ready(ctx context.Context) readmodel.Health
}

// Submission is a checked request for a task. Context is a JSON object, byte
// for byte as received.
type Submission struct {
	Namespace, Name string
	Version         string // empty: the highest version there is
	Context         json.RawMessage
	Priority        *int // nil: the template's
	Tags            []string
	Initiator       string
	SourceSystem    string
	Reason          string
	IdempotencyKey  string // empty: none
}

// TaskQuery selects tasks. Zero values select everything.
type TaskQuery struct {
	States          []vocab.TaskState
	Namespace, Name string
	Before          vocab.UUID // only tasks with a smaller UUID; zero: from the newest
	Limit           int        // at least 1
}

// PageQuery selects a page of something numbered.
type PageQuery struct {
	After int64 // -1: from the beginning
	Limit int   // at least 1
}

// TemplateQuery selects templates.
type TemplateQuery struct {
	Namespace, Name string     // empty: all
	After           TemplateID // zero: from the beginning
	Limit           int        // at least 1
}

// TemplateID names one version of a template.
type TemplateID struct {
	Namespace, Name, Version string
}
