// Package apitest is an in-memory backend of the API for the tests of the API and of its
// clients. Tasks move only when a test moves them. Identifiers and times are the same in
// every run, so that output can be compared with golden files.
package apitest

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Epoch is the time of everything that happens in the fake, plus a second for each event.
var Epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// Backend is the fake. Its zero value is not usable: call New.
type Backend struct {
	mu        sync.Mutex
	changed   chan struct{} // closed and replaced at every change
	clock     int
	tasks     map[string]*task
	keys      map[string]keyed
	templates map[api.TemplateID]readmodel.Template
	letters   []readmodel.DeadLetter
	pause     *readmodel.Pause
	tokens    []readmodel.Token
	audit     []readmodel.AuditEntry
	events    []readmodel.Event
	tooSlow   bool
	streams   int

	poolPause  *readmodel.Pause
	poolChange *api.PoolChange

	// Fail is returned by every call while it is set.
	fail error

	lastChange string // of a plugin
	swappedTo  string // the path of its binary; empty: it was not swapped
	order      *api.StateOrder
}

type task struct {
	readmodel.Task
	steps   []readmodel.Step
	history []readmodel.Transition
}

type keyed struct {
	request string
	uuid    string
}

var (
	_ api.Tasks       = (*Backend)(nil)
	_ api.TaskDetails = (*Backend)(nil)
	_ api.Templates   = (*Backend)(nil)
	_ api.System      = (*Backend)(nil)
	_ api.Tokens      = (*Backend)(nil)
	_ api.Audit       = (*Backend)(nil)
	_ api.Events      = (*Backend)(nil)
	_ api.Pools       = (*Backend)(nil)
)

// The steps of every task of the fake.
var stepNames = []string{"linear_step_1", "linear_step_2", "linear_step_3", "linear_step_4"}

// New returns a backend with one template, linear_workflow/mathematical_sequence
// 1.0.0, whose four steps form a line.
func New() *Backend {
	b := &Backend{
		changed:   make(chan struct{}),
		tasks:     map[string]*task{},
		keys:      map[string]keyed{},
		templates: map[api.TemplateID]readmodel.Template{},
	}
	t := b.template(api.TemplateID{Namespace: "linear_workflow", Name: "mathematical_sequence", Version: "1.0.0"})
	t.Description = "Squares a number four times."
	b.templates[idOf(t)] = t
	return b
}

// All returns an [api.Backend] whose every part is this backend.
func (b *Backend) All() api.Backend {
	return api.Backend{Tasks: b, Details: b, Templates: b, Repair: b, Letters: b, Explain: b, Fleet: b, System: b, Health: b, Configuration: b, PluginViews: b, PluginChanges: b, Tokens: b, Audit: b, Events: b, Operation: b, Breakers: b, Pools: b, PoolRecords: b}
}

// Fail makes every call return err until it is called with nil.
func (b *Backend) Fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail = err
	b.notify()
}

// Finish completes the task's next step with a result, and the task with its
// last step.
func (b *Backend) Finish(uuid, result string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.tasks[uuid]
	i := slices.IndexFunc(t.steps, func(s readmodel.Step) bool { return s.State == vocab.StepPending })
	s := &t.steps[i]
	b.start(t, s)
	s.State, s.Result = vocab.StepComplete, json.RawMessage(result)
	b.end(t, s)
	if i == len(t.steps)-1 {
		b.settle(t, vocab.TaskComplete, "all steps are complete")
	}
	b.update(t)
}

// FailStep fails the task's next step for good, and with it the task.
func (b *Backend) FailStep(uuid, message string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.tasks[uuid]
	i := slices.IndexFunc(t.steps, func(s readmodel.Step) bool { return s.State == vocab.StepPending })
	s := &t.steps[i]
	b.start(t, s)
	s.State = vocab.StepError
	s.Error = &readmodel.StepError{Type: vocab.PermanentError, Code: "BROKEN", Message: message}
	b.end(t, s)
	t.Error = &readmodel.TaskError{StepUUID: s.UUID, Step: s.Name, Attempts: 1, StepError: *s.Error}
	b.settle(t, vocab.TaskError, fmt.Sprintf("step %s failed", s.Name))
	b.update(t)
}

func (b *Backend) start(t *task, s *readmodel.Step) {
	if t.State == vocab.TaskPending {
		t.State, t.StartedAt = vocab.TaskInProgress, b.now()
		b.record(t, nil, string(vocab.TaskPending), string(vocab.TaskInProgress))
	}
	s.Attempts, s.Claims, s.StartedAt = 1, 1, b.now()
	b.record(t, s, string(s.State), string(vocab.StepInProgress))
}

func (b *Backend) end(t *task, s *readmodel.Step) {
	s.FinishedAt = b.now()
	b.record(t, s, string(vocab.StepInProgress), string(s.State))
}

func (b *Backend) settle(t *task, to vocab.TaskState, reason string) {
	b.record(t, nil, string(t.State), string(to))
	t.State, t.StateReason, t.CompletedAt = to, reason, b.now()
}

func (b *Backend) record(t *task, s *readmodel.Step, from, to string) {
	entry := readmodel.Transition{SortKey: int64(len(t.history) + 1), From: from, To: to, At: *b.now()}
	if s != nil {
		entry.StepUUID, entry.Step = s.UUID, s.Name
	}
	t.history = append(t.history, entry)
}

func (b *Backend) update(t *task) {
	counts := map[vocab.StepState]int{}
	for _, s := range t.steps {
		counts[s.State]++
	}
	t.Progress = readmodel.NewProgress(counts)
	b.notify()
}

func (b *Backend) notify() {
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *Backend) now() *time.Time {
	b.clock++
	at := Epoch.Add(time.Duration(b.clock) * time.Second)
	return &at
}

// Submit implements api.Tasks.
func (b *Backend) Submit(_ context.Context, s api.Submission) (readmodel.Task, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return readmodel.Task{}, false, b.fail
	}
	request := fmt.Sprintf("%s/%s@%s %s", s.Namespace, s.Name, s.Version, s.Context)
	if k, used := b.keys[s.IdempotencyKey]; used && s.IdempotencyKey != "" {
		if k.request != request {
			return readmodel.Task{}, false, api.ConflictWith(k.uuid, api.CodeIdempotencyKeyReused,
				"the idempotency key %q was used for another request, whose task is %s; use a new key", s.IdempotencyKey, k.uuid)
		}
		return b.tasks[k.uuid].Task, false, nil
	}
	version := cmp.Or(s.Version, "1.0.0")
	if _, ok := b.templates[api.TemplateID{Namespace: s.Namespace, Name: s.Name, Version: version}]; !ok {
		return readmodel.Task{}, false, api.Invalid(api.CodeTemplateNotFound,
			fmt.Sprintf("there is no template %s/%s %s; see 'tasker template list'", s.Namespace, s.Name, version),
			api.Issue{Pointer: "/name", Detail: "unknown template"})
	}
	t := b.create(s, version)
	if s.IdempotencyKey != "" {
		b.keys[s.IdempotencyKey] = keyed{request: request, uuid: t.UUID}
	}
	return t.Task, true, nil
}

// SubmitMany implements api.Tasks.
func (b *Backend) SubmitMany(ctx context.Context, all []api.Submission) []api.SubmitAnswer {
	answers := make([]api.SubmitAnswer, len(all))
	for i, s := range all {
		t, created, err := b.Submit(ctx, s)
		answers[i] = api.SubmitAnswer{TaskUUID: t.UUID, Created: created, Err: err}
	}
	return answers
}

func (b *Backend) create(s api.Submission, version string) *task {
	var id vocab.UUID
	copy(id[:], []byte{0x01, 0x9c, 0xa9, 0xd2, 0x7c, 0, 0x70, 0, 0x80, 0, byte((len(b.tasks) + 1) >> 8), byte(len(b.tasks) + 1)})
	t := &task{Task: readmodel.Task{
		UUID: id.String(), Namespace: s.Namespace, Name: s.Name, Version: version,
		State: vocab.TaskPending, CreatedAt: *b.now(), Context: s.Context, Tags: s.Tags,
		Initiator: s.Initiator, SourceSystem: s.SourceSystem, Reason: s.Reason,
	}}
	if s.Priority != nil {
		t.Priority = *s.Priority
	}
	for i, name := range stepNames {
		step := readmodel.Step{
			UUID: vocab.StepID(id, i).String(), TaskUUID: t.UUID, Number: i, Name: name, Handler: "math.square",
			State: vocab.StepPending, MaxAttempts: 3,
		}
		if i > 0 {
			step.Parents = []string{stepNames[i-1]}
		}
		t.steps = append(t.steps, step)
	}
	b.record(t, nil, "", string(vocab.TaskPending))
	b.tasks[t.UUID] = t
	b.update(t)
	return t
}

// The caller of find holds the lock.
func (b *Backend) find(id vocab.UUID) (*task, error) {
	if b.fail != nil {
		return nil, b.fail
	}
	t, ok := b.tasks[id.String()]
	if !ok {
		return nil, api.NotFound(api.CodeTaskNotFound, "there is no task %s", id)
	}
	return t, nil
}

// Task implements api.Tasks.
func (b *Backend) Task(_ context.Context, id vocab.UUID) (readmodel.Task, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, err := b.find(id)
	if err != nil {
		return readmodel.Task{}, err
	}
	return t.Task, nil
}

// ListTasks implements api.Tasks.
func (b *Backend) ListTasks(_ context.Context, q api.TaskQuery) ([]readmodel.Task, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return nil, b.fail
	}
	var out []readmodel.Task
	for _, uuid := range slices.Backward(slices.Sorted(maps.Keys(b.tasks))) {
		t := b.tasks[uuid].Task
		t.Context = nil
		switch {
		case q.Before != vocab.UUID{} && uuid >= q.Before.String():
		case len(q.States) > 0 && !slices.Contains(q.States, t.State):
		case q.Namespace != "" && q.Namespace != t.Namespace:
		case q.Name != "" && q.Name != t.Name:
		case slices.ContainsFunc(q.Tags, func(tag string) bool { return !slices.Contains(t.Tags, tag) }):
		default:
			out = append(out, t)
		}
	}
	return out[:min(len(out), q.Limit)], nil
}

// CancelTask implements api.Tasks.
func (b *Backend) CancelTask(_ context.Context, id vocab.UUID, o api.Operator) (readmodel.Task, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, err := b.find(id)
	if err != nil {
		return readmodel.Task{}, err
	}
	if t.State == vocab.TaskComplete || t.State == vocab.TaskResolvedManually {
		return readmodel.Task{}, api.Conflict(api.CodeTaskNotCancellable, "task %s is %s", id, t.State)
	}
	if t.State != vocab.TaskCancelled {
		for i := range t.steps {
			if !t.steps[i].State.Settled() {
				t.steps[i].State = vocab.StepCancelled
			}
		}
		b.settle(t, vocab.TaskCancelled, "cancelled: "+o.Reason)
		b.update(t)
	}
	return t.Task, nil
}

// Steps implements api.TaskDetails.
func (b *Backend) Steps(_ context.Context, id vocab.UUID, q api.PageQuery) ([]readmodel.Step, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, err := b.find(id)
	if err != nil {
		return nil, err
	}
	rest := t.steps[min(int(q.After)+1, len(t.steps)):]
	return slices.Clone(rest[:min(len(rest), q.Limit)]), nil
}

// History implements api.TaskDetails.
func (b *Backend) History(_ context.Context, id vocab.UUID, q api.PageQuery) ([]readmodel.Transition, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, err := b.find(id)
	if err != nil {
		return nil, err
	}
	rest := t.history[min(max(int(q.After), 0), len(t.history)):]
	return slices.Clone(rest[:min(len(rest), q.Limit)]), nil
}

// Watch implements api.TaskDetails.
func (b *Backend) Watch(ctx context.Context, id vocab.UUID, after string) (readmodel.Snapshot, error) {
	for {
		snap, changed, err := b.snapshot(id)
		if err != nil || snap.Revision() != after {
			return snap, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return snap, nil
		}
	}
}

func (b *Backend) snapshot(id vocab.UUID) (readmodel.Snapshot, <-chan struct{}, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, err := b.find(id)
	if err != nil {
		return readmodel.Snapshot{}, b.changed, err
	}
	return readmodel.Snapshot{
		UUID: t.UUID, State: t.State, Progress: t.Progress, StateReason: t.StateReason, Error: t.Error,
	}, b.changed, nil
}
