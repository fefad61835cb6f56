package backend

import (
	"errors"
	"fmt"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/payload"
	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

const (
	databaseRetry = 2 * time.Second // told to clients while the database is unavailable
	busyRetry     = time.Second     // while it is slow
	drainRetry    = 5 * time.Second // while the host shuts down: another one may be up by then
)

// fault converts an error into one that a client may see. Errors that the client did not
// cause and that do not go away by themselves stay as they are: internal.
func fault(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, pipeline.ErrDraining) {
		return api.Unavailable("the host is shutting down", drainRetry, err)
	}
	if errors.Is(err, store.ErrRefused) {
		return api.Unavailable("the database is not being called: its circuit breaker is open; see 'tasker breaker list'", databaseRetry, err)
	}
	switch store.Classify(err) {
	case store.Unavailable, store.Unknown:
		return api.Unavailable("the database is not responding", databaseRetry, err)
	case store.Retry:
		return api.Unavailable("the database was busy with the same rows", time.Second, err)
	case store.Cancelled:
		return api.Unavailable("the host did not answer in time", time.Second, err)
	default:
		return err
	}
}

// inputFault is fault for a call whose values come unchanged from the client: if the
// database refuses one, it is the client's fault.
func inputFault(err error) error {
	if store.Classify(err) != store.BadInput {
		return fault(err)
	}
	f := api.Invalid(api.CodeValidationFailed, "the database refuses a value in the request")
	f.Cause = err
	return f
}

// taskFault is fault for a call about one task.
func taskFault(task vocab.UUID, err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return api.NotFound(api.CodeTaskNotFound, "there is no task %s", task)
	}
	return fault(err)
}

// submitFault is fault for a submission of a template that exists.
func submitFault(s *api.Submission, err error) error {
	switch {
	case errors.Is(err, pipeline.ErrUncertain):
		return api.OutcomeUnknown("the database did not answer in time; the task may or may not have been created: "+
			"repeat the request with the same idempotency key, or check first", databaseRetry, err)
	case errors.Is(err, pipeline.ErrBusy):
		return api.Overloaded("tasks arrive faster than the database can create them; this one was not created", busyRetry, err)
	}
	if e, ok := errors.AsType[*pipeline.ContextError](err); ok {
		return contextFault(s, e)
	}
	if e, ok := errors.AsType[*pipeline.KeyReusedError](err); ok {
		return api.ConflictWith(e.Task.String(), api.CodeIdempotencyKeyReused,
			"the idempotency key %q was used for another request, whose task is %s; use a new key", s.IdempotencyKey, e.Task)
	}
	if e, ok := errors.AsType[*pipeline.DuplicateError](err); ok {
		return api.ConflictWith(e.Task.String(), api.CodeDuplicateIdentity,
			"task %s was created from template %s/%s@%s with the same context, and the template says identity: reject", e.Task, s.Namespace, s.Name, s.Version)
	}
	return inputFault(err)
}

// contextFault lists the errors in a context. The pointers refer to the body of the
// request.
func contextFault(s *api.Submission, e *pipeline.ContextError) error {
	f := api.Invalid(api.CodeContextInvalid,
		fmt.Sprintf("the context does not match the input schema of template %s/%s", s.Namespace, s.Name))
	if invalid, ok := errors.AsType[*workflow.InputError](e); ok {
		for _, p := range invalid.Problems {
			f.Issues = append(f.Issues, api.Issue{Pointer: "/context" + p.Pointer, Detail: p.Message})
		}
		return f
	}
	f.Code, f.Detail = api.CodePayloadInvalid, "the context cannot be stored exactly as it is"
	if refused, ok := errors.AsType[*payload.Error](e); ok {
		f.Issues = append(f.Issues, api.Issue{Pointer: "/context" + refused.Pointer, Detail: refused.Message})
		return f
	}
	f.Issues = append(f.Issues, api.Issue{Pointer: "/context", Detail: e.Err.Error()})
	return f
}

// templateFault lists the errors in a template's source.
func templateFault(source string, err error) error {
	f := api.Invalid(api.CodeTemplateInvalid, "the template is invalid")
	invalid, ok := errors.AsType[*workflow.TemplateError](err)
	if !ok {
		f.Issues = append(f.Issues, api.Issue{Location: source, Detail: err.Error()})
		return f
	}
	for _, p := range invalid.Problems {
		issue := api.Issue{Location: source, Detail: p.Message}
		if p.Line > 0 {
			issue.Location = fmt.Sprintf("%s:%d:%d", source, p.Line, p.Col)
		}
		if p.Path != "" {
			issue.Detail = p.Path + ": " + p.Message
		}
		f.Issues = append(f.Issues, issue)
	}
	return f
}
