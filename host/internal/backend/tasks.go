package backend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Submit implements [api.Tasks].
func (b *Backend) Submit(ctx context.Context, s api.Submission) (readmodel.Task, bool, error) {
	asked := s.Version
	if asked == "" {
		asked = Latest
		latest, err := b.Store.LatestVersion(ctx, s.Namespace, s.Name)
		if errors.Is(err, store.ErrNotFound) {
			return readmodel.Task{}, false, b.unknownTemplate(ctx, &s)
		} else if err != nil {
			return readmodel.Task{}, false, inputFault(err)
		}
		s.Version = latest
	}
	request, err := requestOf(&s)
	if err != nil {
		return readmodel.Task{}, false, err
	}
	request.Asked = asked
	done, err := b.Engine.Submit(ctx, request)
	if errors.Is(err, store.ErrNotFound) {
		return readmodel.Task{}, false, b.unknownTemplate(ctx, &s)
	} else if err != nil {
		return readmodel.Task{}, false, submitFault(&s, err)
	}
	task, err := b.Store.ReadTask(ctx, done.Task)
	if err != nil {
		// The task is there. An error would make the client submit it again.
		task = b.unread(done.Task, &s)
	}
	return task, done.Created, nil
}

// attributes is what is kept of a submission beside its context.
type attributes struct {
	Tags         []string `json:"tags,omitempty"`
	Initiator    string   `json:"initiator,omitempty"`
	SourceSystem string   `json:"source_system,omitempty"`
	Reason       string   `json:"reason,omitempty"`
}

func requestOf(s *api.Submission) (pipeline.Submission, error) {
	r := pipeline.Submission{
		Namespace: s.Namespace, Name: s.Name, Version: s.Version,
		Context: s.Context, IdempotencyKey: s.IdempotencyKey,
	}
	if s.Priority != nil {
		r.Priority = new(int32(*s.Priority)) //nolint:gosec // the API bounds it
	}
	if len(s.Tags) > 0 || s.Initiator != "" || s.SourceSystem != "" || s.Reason != "" {
		raw, err := json.Marshal(attributes{s.Tags, s.Initiator, s.SourceSystem, s.Reason})
		if err != nil {
			return pipeline.Submission{}, fmt.Errorf("encode the attributes of a task: %w", err)
		}
		r.Attributes = raw
	}
	return r, nil
}

// unread is a task that was just made, as far as its submission tells.
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

// unknownTemplate says that the template of a submission does not exist, and
// which do.
func (b *Backend) unknownTemplate(ctx context.Context, s *api.Submission) error {
	same, err := b.Store.ListTemplates(ctx, store.TemplateFilter{Namespace: s.Namespace, Name: s.Name, Limit: shownNames})
	if err != nil {
		return fault(err)
	}
	if len(same) > 0 {
		return api.Invalid(api.CodeTemplateNotFound,
			fmt.Sprintf("template %s/%s has no version %s; there is %s", s.Namespace, s.Name, s.Version, listed(same, version)),
			api.Issue{Pointer: "/version", Detail: "unknown version"})
	}
	near, err := b.Store.ListTemplates(ctx, store.TemplateFilter{Namespace: s.Namespace, Limit: shownNames})
	if err == nil && len(near) == 0 {
		near, err = b.Store.ListTemplates(ctx, store.TemplateFilter{Limit: shownNames})
	}
	if err != nil {
		return fault(err)
	}
	detail := fmt.Sprintf("there is no template %s/%s; there is %s", s.Namespace, s.Name, listed(near, fullName))
	if len(near) == 0 {
		detail = fmt.Sprintf("there is no template %s/%s, nor any other: apply it first", s.Namespace, s.Name)
	}
	return api.Invalid(api.CodeTemplateNotFound, detail, api.Issue{Pointer: "/name", Detail: "unknown template"})
}

func version(t *readmodel.TemplateSummary) string  { return t.Version }
func fullName(t *readmodel.TemplateSummary) string { return t.Namespace + "/" + t.Name }

// listed joins what name gives for the templates, each once.
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
func (b *Backend) CancelTask(ctx context.Context, task vocab.UUID, reason string) (readmodel.Task, error) {
	state, _, err := b.Engine.Cancel(ctx, task, reason)
	if err != nil {
		return readmodel.Task{}, taskFault(task, err)
	}
	if state != vocab.TaskCancelled {
		return readmodel.Task{}, api.Conflict(api.CodeTaskNotCancellable, "task %s is %s and cannot be cancelled", task, state)
	}
	return b.Task(ctx, task)
}
