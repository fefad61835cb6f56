package backend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// submitPatience bounds how long a submission waits for its turn at the database.
const submitPatience = 20 * time.Second

// Submit implements [api.Tasks].
func (b *Backend) Submit(ctx context.Context, s api.Submission) (readmodel.Task, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, submitPatience)
	defer cancel()
	known := newKnown(b)
	request, err := known.prepare(ctx, &s)
	if err != nil {
		return readmodel.Task{}, false, err
	}
	done, err := b.Engine.Submit(ctx, request)
	if err != nil {
		return readmodel.Task{}, false, known.fault(ctx, &s, err)
	}
	task, err := b.Store.ReadTask(ctx, done.Task)
	if err != nil {
		// The task exists. An error would make the client submit it again.
		task = b.unread(done.Task, &s)
	}
	return task, done.Created, nil
}

// SubmitMany implements [api.Tasks].
func (b *Backend) SubmitMany(ctx context.Context, all []api.Submission) []api.SubmitAnswer {
	answers := make([]api.SubmitAnswer, len(all))
	requests := make([]pipeline.Submission, 0, len(all))
	at := make([]int, 0, len(all))
	known := newKnown(b)
	for i := range all {
		request, err := known.prepare(ctx, &all[i])
		if err != nil {
			answers[i].Err = err
			continue
		}
		requests, at = append(requests, request), append(at, i)
	}
	for n, a := range b.Engine.SubmitEach(ctx, requests) {
		i := at[n]
		if a.Err != nil {
			answers[i].Err = known.fault(ctx, &all[i], a.Err)
			continue
		}
		answers[i].TaskUUID, answers[i].Created = a.Task.String(), a.Created
	}
	return answers
}

// known is what a call has found out about templates, since many submissions may ask for
// the same ones, and all may be wrong.
type known struct {
	*Backend
	latest  map[[2]string]string // the versions, by namespace and name
	unknown map[[3]string]error  // the errors for those that do not exist, by version, too
}

func newKnown(b *Backend) *known {
	return &known{Backend: b, latest: map[[2]string]string{}, unknown: map[[3]string]error{}}
}

// fault is fault for a submission.
func (b *known) fault(ctx context.Context, s *api.Submission, err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return b.missing(ctx, s)
	}
	return submitFault(s, err)
}

// missing says which templates exist instead of a missing one; it looks only once.
func (b *known) missing(ctx context.Context, s *api.Submission) error {
	template := [3]string{s.Namespace, s.Name, s.Version}
	if b.unknown[template] == nil {
		b.unknown[template] = b.unknownTemplate(ctx, s)
	}
	return b.unknown[template]
}

// prepare converts a submission into one for the engine, and records in it the version
// that was meant.
func (b *known) prepare(ctx context.Context, s *api.Submission) (pipeline.Submission, error) {
	asked := s.Version
	if asked == "" {
		asked = Latest
		template := [2]string{s.Namespace, s.Name}
		version, found := b.latest[template]
		if err := b.unknown[[3]string{s.Namespace, s.Name}]; err != nil {
			return pipeline.Submission{}, err
		}
		if !found {
			var err error
			version, err = b.Store.LatestVersion(ctx, s.Namespace, s.Name)
			if errors.Is(err, store.ErrNotFound) {
				return pipeline.Submission{}, b.missing(ctx, s)
			} else if err != nil {
				return pipeline.Submission{}, inputFault(err)
			}
			b.latest[template] = version
		}
		s.Version = version
	}
	request, err := requestOf(s)
	request.Asked = asked
	return request, err
}

// attributes is what is stored about a submission besides its context.
type attributes struct {
	Tags         []string `json:"tags,omitempty"`
	Initiator    string   `json:"initiator,omitempty"`
	SourceSystem string   `json:"source_system,omitempty"`
	Reason       string   `json:"reason,omitempty"`
	SubmittedBy  string   `json:"submitted_by,omitempty"`
}

func requestOf(s *api.Submission) (pipeline.Submission, error) {
	r := pipeline.Submission{
		Namespace: s.Namespace, Name: s.Name, Version: s.Version,
		Context: s.Context, IdempotencyKey: s.IdempotencyKey,
	}
	if s.Priority != nil {
		r.Priority = new(int32(*s.Priority)) // within the bounds that the API checked
	}
	a := attributes{s.Tags, s.Initiator, s.SourceSystem, s.Reason, s.SubmittedBy}
	if len(s.Tags) > 0 || s.Initiator != "" || s.SourceSystem != "" || s.Reason != "" || s.SubmittedBy != "" {
		raw, err := json.Marshal(a)
		if err != nil {
			return pipeline.Submission{}, fmt.Errorf("encode the attributes of a task: %w", err)
		}
		r.Attributes = raw
	}
	return r, nil
}

// unread describes a task that was just created, as far as its submission tells.
func (b *Backend) unread(id vocab.UUID, s *api.Submission) readmodel.Task {
	t := readmodel.Task{
		UUID: id.String(), Namespace: s.Namespace, Name: s.Name, Version: s.Version, State: vocab.TaskInProgress,
		CreatedAt: b.Now().UTC(), Tags: s.Tags, Initiator: s.Initiator, SourceSystem: s.SourceSystem, Reason: s.Reason,
		Context: s.Context,
	}
	if s.Priority != nil {
		t.Priority = *s.Priority
	}
	return t
}

// shownNames bounds how many names a fault lists.
const shownNames = 20

// unknownTemplate says that the template of a submission does not exist, and which
// templates do.
func (b *Backend) unknownTemplate(ctx context.Context, s *api.Submission) error {
	same, err := b.Store.ListTemplates(ctx, store.TemplateFilter{Namespace: s.Namespace, Name: s.Name, Limit: shownNames})
	if err != nil {
		return fault(err)
	}
	if len(same) > 0 {
		return api.Invalid(api.CodeTemplateNotFound,
			fmt.Sprintf("template %s/%s has no version %s; available: %s", s.Namespace, s.Name, s.Version, listed(same, version)),
			api.Issue{Pointer: "/version", Detail: "unknown version"})
	}
	near, err := b.Store.ListTemplates(ctx, store.TemplateFilter{Namespace: s.Namespace, Limit: shownNames})
	if err == nil && len(near) == 0 {
		near, err = b.Store.ListTemplates(ctx, store.TemplateFilter{Limit: shownNames})
	}
	if err != nil {
		return fault(err)
	}
	detail := fmt.Sprintf("there is no template %s/%s; available: %s", s.Namespace, s.Name, listed(near, fullName))
	if len(near) == 0 {
		detail = fmt.Sprintf("there is no template %s/%s, nor any other: apply one first", s.Namespace, s.Name)
	}
	return api.Invalid(api.CodeTemplateNotFound, detail, api.Issue{Pointer: "/name", Detail: "unknown template"})
}

func version(t *readmodel.TemplateSummary) string  { return t.Version }
func fullName(t *readmodel.TemplateSummary) string { return t.Namespace + "/" + t.Name }

// listed joins the results of name for the templates, each once.
func listed(templates []readmodel.TemplateSummary, name func(*readmodel.TemplateSummary) string) string {
	var names []string
	for i := range templates {
		if n := name(&templates[i]); len(names) == 0 || names[len(names)-1] != n {
			names = append(names, n)
		}
	}
	if len(templates) == shownNames {
		names = append(names, "…")
	}
	return strings.Join(names, ", ")
}

// Task implements [api.Tasks].
func (b *Backend) Task(ctx context.Context, task vocab.UUID) (readmodel.Task, error) {
	t, err := b.Store.ReadTask(ctx, task)
	if err != nil {
		return readmodel.Task{}, taskFault(task, err)
	}
	return t, nil
}

// ListTasks implements [api.Tasks].
func (b *Backend) ListTasks(ctx context.Context, q api.TaskQuery) ([]readmodel.Task, error) {
	tasks, err := b.Store.ListTasks(ctx, store.TaskFilter(q))
	if err != nil {
		return nil, inputFault(err)
	}
	return tasks, nil
}

// CancelTask implements [api.Tasks].
func (b *Backend) CancelTask(ctx context.Context, task vocab.UUID, o api.Operator) (readmodel.Task, error) {
	state, _, err := b.Engine.Cancel(ctx, task, store.Operator(o))
	if err != nil {
		return readmodel.Task{}, taskFault(task, err)
	}
	if state != vocab.TaskCancelled {
		return readmodel.Task{}, api.Conflict(api.CodeTaskNotCancellable, "task %s is %s and cannot be cancelled", task, state)
	}
	return b.Task(ctx, task)
}
