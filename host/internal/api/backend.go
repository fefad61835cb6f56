package api

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Tasks creates, shows and cancels tasks.
type Tasks interface {
	// Submit creates a task. created is false if the idempotency key was used before
	// with the same request; then task is the earlier one. Faults:
	// CodeTemplateNotFound (invalid, pointer /name or /version),
	// CodeContextInvalid with one issue per schema violation,
	// CodeIdempotencyKeyReused (conflict) if the key came with another request.
	Submit(ctx context.Context, s Submission) (task readmodel.Task, created bool, err error)
	// SubmitMany is Submit for many at once, with an answer for each, in order. A
	// fault of the kind ErrUnavailable means that the submission may be retried.
	SubmitMany(ctx context.Context, all []Submission) []SubmitAnswer
	// Task returns one task with its context.
	Task(ctx context.Context, task vocab.UUID) (readmodel.Task, error)
	// ListTasks returns up to q.Limit tasks, newest first, without contexts.
	ListTasks(ctx context.Context, q TaskQuery) ([]readmodel.Task, error)
	// CancelTask cancels a task; a task that is already cancelled is returned as it
	// is. A task that is complete or resolved is a conflict
	// (CodeTaskNotCancellable).
	CancelTask(ctx context.Context, task vocab.UUID, o Operator) (readmodel.Task, error)
}

// TaskDetails shows what is inside a task.
type TaskDetails interface {
	// Steps returns up to q.Limit steps with numbers greater than q.After, in
	// the order of their numbers.
	Steps(ctx context.Context, task vocab.UUID, q PageQuery) ([]readmodel.Step, error)
	// History returns up to q.Limit transitions of the task and its steps with
	// sort keys greater than q.After, in that order.
	History(ctx context.Context, task vocab.UUID, q PageQuery) ([]readmodel.Transition, error)
	// Step returns one step.
	Step(ctx context.Context, step StepID) (readmodel.Step, error)
	// Watch returns the task's snapshot as soon as its Revision differs from
	// after. It may wait for that, or return the unchanged snapshot early, even at
	// once: the caller paces itself. It returns when ctx ends.
	Watch(ctx context.Context, task vocab.UUID, after string) (readmodel.Snapshot, error)
}

// Repair is what operators do with steps and tasks that have failed. Each method
// returns the resulting state of its subject. Faults: CodeTaskNotFound and
// CodeStepNotFound; else conflicts, which say what state forbids the change.
type Repair interface {
	// RetryTask runs all failed steps of a task again (CodeTaskNotRetryable).
	RetryTask(ctx context.Context, task vocab.UUID, o Operator) (readmodel.Task, error)
	// ResolveTask declares a task done and cancels what is left of it
	// (CodeTaskNotResolvable).
	ResolveTask(ctx context.Context, task vocab.UUID, o Operator) (readmodel.Task, error)
	// RetryStep runs a failed step again (CodeStepNotRetryable).
	RetryStep(ctx context.Context, step StepID, o Operator) (readmodel.Step, error)
	// ResolveStep declares a step done with a JSON value as its result
	// (CodeStepNotResolvable).
	ResolveStep(ctx context.Context, step StepID, result json.RawMessage, o Operator) (readmodel.Step, error)
	// SkipStep declares a step done without a result, if its template allows it
	// (CodeStepNotSkippable).
	SkipStep(ctx context.Context, step StepID, o Operator) (readmodel.Step, error)
}

// Explain says why something does not run.
type Explain interface {
	ExplainTask(ctx context.Context, task vocab.UUID) (readmodel.TaskExplanation, error)
	ExplainStep(ctx context.Context, step StepID) (readmodel.Explanation, error)
}

// Letters manages what was set aside. Faults: CodeLetterNotFound, CodeLetterClosed
// (conflict), CodeLetterNotReplayable (conflict).
type Letters interface {
	// ListLetters returns up to q.Limit dead letters, newest first.
	ListLetters(ctx context.Context, q LetterQuery) ([]readmodel.DeadLetter, error)
	// Letter returns one dead letter with its body.
	Letter(ctx context.Context, id int64) (readmodel.DeadLetter, error)
	// Replay sends a message again, or runs a step again.
	Replay(ctx context.Context, id int64, o Operator) (readmodel.DeadLetter, error)
	// Discard closes a dead letter, which remains for later questions.
	Discard(ctx context.Context, id int64, o Operator) (readmodel.DeadLetter, error)
}

// LetterQuery selects dead letters. Zero values select all that are open.
type LetterQuery struct {
	Closed                         bool // include closed ones
	Kind, Reason, Queue, Namespace string
	OlderThan                      time.Duration
	Before                         int64 // only letters with a smaller number; 0: from the newest
	Limit                          int   // at least 1
}

// Fleet shows the hosts and workers of the database and the queues that they share. A
// queue that does not exist is a fault (CodeQueueNotFound).
type Fleet interface {
	// Hosts lists the hosts that were alive within the last day, newest first.
	Hosts(ctx context.Context) ([]readmodel.Host, error)
	// Workers lists the outside workers, those seen most recently first.
	Workers(ctx context.Context) ([]readmodel.Worker, error)
	// Queues lists the queues of all namespaces.
	Queues(ctx context.Context) ([]readmodel.Queue, error)
	// Queue returns the queue of one namespace.
	Queue(ctx context.Context, namespace string) (readmodel.Queue, error)
	// PauseQueue stops steps of the namespace from being started, or allows it again.
	PauseQueue(ctx context.Context, namespace string, pause bool, o Operator) (readmodel.Queue, error)
}

// Operator is the person who makes a change, as the request's principal says, and the
// reason. Both are recorded. The reason may be empty.
type Operator struct{ By, Reason string }

// StepID identifies a step by its task and its number in the task.
type StepID struct {
	Task   vocab.UUID
	Number int
}

// String returns the step's UUID.
func (s StepID) String() string { return vocab.StepID(s.Task, s.Number).String() }

// Templates manages task templates.
type Templates interface {
	// ApplyTemplate stores the template that src describes. source is the name of src
	// in messages (a file name). created is false if exactly this template exists
	// already. Faults: CodeTemplateInvalid with one issue per problem,
	// CodeTemplateExists (conflict) if the version exists with other content.
	ApplyTemplate(ctx context.Context, source string, src []byte) (t readmodel.Template, created bool, err error)
	// ValidateTemplate checks as ApplyTemplate does, but stores nothing.
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
}

// Health answers probes. No method may wait: probes come often and give up soon.
type Health interface {
	// Started reports whether the host has left the state startup.
	Started(ctx context.Context) readmodel.Health
	// HealthReport returns what the host's checks found.
	HealthReport(ctx context.Context) readmodel.HealthReport
	// Live reports whether the process works; it must not ask the database.
	Live(ctx context.Context) readmodel.Health
	// Ready reports whether the host takes work now.
	Ready(ctx context.Context) readmodel.Health
}

// Configuration shows the host's configuration in force.
type Configuration interface {
	// Configuration returns all keys, without the values of secrets.
	Configuration(ctx context.Context) readmodel.Configuration
	// ReloadConfiguration reads the configuration again and applies what a running
	// host can take over. Fault: CodeConfigurationRefused (conflict); then the old
	// configuration stays in force.
	ReloadConfiguration(ctx context.Context) (readmodel.Reload, error)
}

// Tokens manages the bearer tokens of the API.
type Tokens interface {
	// CreateToken creates a token. If a live token has the name, that is a conflict
	// (CodeTokenExists).
	CreateToken(ctx context.Context, o TokenOrder) (readmodel.NewToken, error)
	// ListTokens returns all tokens, newest first.
	ListTokens(ctx context.Context) ([]readmodel.Token, error)
	// RevokeToken revokes the token with an id, or the live one with a name. A token
	// that is revoked already is returned as it is. Fault: CodeTokenNotFound.
	RevokeToken(ctx context.Context, idOrName, by string) (readmodel.Token, error)
}

// Audit records who changed what. Entries are never changed.
type Audit interface {
	// RecordAudit adds an entry; its id and time are assigned here.
	RecordAudit(ctx context.Context, e readmodel.AuditEntry) error
	// ListAudit returns up to q.Limit entries, newest first.
	ListAudit(ctx context.Context, q AuditQuery) ([]readmodel.AuditEntry, error)
}

// Events follows what happens in the system.
type Events interface {
	// FollowEvents returns the events from now on, or those after the event whose
	// id is After. Faults: CodeMalformedRequest (invalid) if After is not the id of
	// an event, CodeEventsExpired (gone) if it is too old.
	FollowEvents(ctx context.Context, q EventQuery) (EventStream, error)
}

// EventStream returns events in their order. Close it at the end.
type EventStream interface {
	// Next waits for events until ctx ends. It returns [ErrTooSlow] if the client
	// was cut off. Every error except that of ctx ends the stream.
	Next(ctx context.Context) ([]EventItem, error)
	// Place returns what serves as the id after everything that Next has returned.
	Place() string
	Close()
}

// ErrTooSlow says that a client reads events too slowly.
var ErrTooSlow = errors.New("events arrive faster than they are read")

// EventQuery selects events.
type EventQuery struct {
	After     string   // the id of an event; empty: from now on
	Kinds     []string // at least one
	Namespace string   // empty: all events, including those of no namespace
	Task      vocab.UUID
}

// EventItem is an event as it is sent.
type EventItem struct {
	ID, Kind string
	JSON     []byte // a readmodel.Event
}

// TokenOrder says which token to create.
type TokenOrder struct {
	Name        string
	Permissions []string // validated
	Life        time.Duration
	CreatedBy   string
}

// AuditQuery selects audit entries.
type AuditQuery struct {
	Actor  string // empty: everybody
	Before int64  // only entries with a smaller id; -1: from the newest
	Limit  int    // at least 1
}

// Submission is a validated request for a task. Context is a JSON object, byte for byte
// as received.
type Submission struct {
	Namespace, Name string
	Version         string // empty: the highest version
	Context         json.RawMessage
	Priority        *int // nil: that of the template
	Tags            []string
	Initiator       string
	SourceSystem    string
	Reason          string
	IdempotencyKey  string // empty: none
	SubmittedBy     string // the principal
}

// SubmitAnswer is the result of one of many submissions.
type SubmitAnswer struct {
	TaskUUID string
	Created  bool
	Err      error // as Submit would return it
}

// TaskQuery selects tasks. Zero values select everything.
type TaskQuery struct {
	States          []vocab.TaskState
	Namespace, Name string
	Tags            []string   // a task must have all of them
	Before          vocab.UUID // only tasks with a smaller UUID; zero: from the newest
	Limit           int        // at least 1
}

// PageQuery selects a page of a numbered list.
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
