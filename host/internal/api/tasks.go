package api

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tasker-systems/tasker-host/host/internal/auth"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// TaskRequest is the body of a submission.
type TaskRequest struct {
	Namespace    string     `json:"namespace" pattern:"^[a-z][a-z0-9_]{0,39}$" patternDescription:"1 to 40 lower-case letters, digits and underscores, starting with a letter"`
	Name         string     `json:"name" pattern:"^[a-z][a-z0-9_]{0,62}$" patternDescription:"1 to 63 lower-case letters, digits and underscores, starting with a letter"`
	Version      string     `json:"version,omitempty" maxLength:"64" pattern:"^(\\d+\\.\\d+\\.\\d+(-[0-9A-Za-z.-]+)?)?$" patternDescription:"major.minor.patch, or that and -suffix" doc:"Default: the highest version; one with a suffix only if there is no other."`
	Context      jsonObject `json:"context,omitempty" doc:"The task's input, checked against the template's schema. Every digit is kept. Default: an empty object."`
	Priority     *whole     `json:"priority,omitempty" minimum:"0" maximum:"32767" doc:"1 low, 2 normal, 3 high, 4 urgent; larger is more urgent still. Default: the template's."`
	Tags         []string   `json:"tags,omitempty" maxItems:"64" minLength:"1"` // the length of each
	Initiator    string     `json:"initiator,omitempty" maxLength:"255"`
	SourceSystem string     `json:"source_system,omitempty" maxLength:"255"`
	Reason       string     `json:"reason,omitempty" maxLength:"1000"`
}

type submitInput struct {
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"255" pattern:"^[!-~]+$" patternDescription:"printable ASCII without spaces" doc:"Repeating a request with the same key returns the task of the first."`
	Body           TaskRequest
}

type submitOutput struct {
	Status   int
	Location string `header:"Location"`
	Body     readmodel.Task
}

type taskOutput struct{ Body readmodel.Task }

type taskPath struct {
	TaskUUID string `path:"task_uuid" format:"uuid"`
}

type listTasksInput struct {
	State     []vocab.TaskState `query:"state" doc:"Any of these states, separated by commas." enum:"pending,in_progress,complete,error,cancelled,resolved_manually" maxItems:"6"`
	Namespace string            `query:"namespace" maxLength:"63"`
	Name      string            `query:"name" maxLength:"63"`
	Tag       []string          `query:"tag,explode" doc:"Tasks that have this tag; given several times, those that have all of them." maxItems:"16"`
	Cursor    string            `query:"cursor" maxLength:"200" doc:"next_cursor of the previous page."`
	Limit     int               `query:"limit" minimum:"1" maximum:"500" default:"50"`
}

type listTasksOutput struct{ Body readmodel.TaskPage }

type cancelInput struct {
	TaskUUID string `path:"task_uuid" format:"uuid"`
	Body     *operatorRequest
}

func (r *routes) taskRoutes() {
	register(r, huma.Operation{
		OperationID: "submit-task", Method: http.MethodPost, Path: "/v1/tasks", Tags: []string{"tasks"},
		Summary:       "Submit a task",
		Description:   "Answers 201 with the new task, or 200 with the earlier one if the idempotency key was used before with the same request.",
		DefaultStatus: http.StatusCreated,
		Responses: map[string]*huma.Response{
			"200": {
				Description: "The task that an earlier request with this key created",
				Content:     map[string]*huma.MediaType{"application/json": {Schema: schemaOf[readmodel.Task](r.api)}},
			},
		},
	}, r.submit)
	register(r, huma.Operation{
		OperationID: "list-tasks", Method: http.MethodGet, Path: "/v1/tasks", Tags: []string{"tasks"},
		Summary: "List tasks, newest first",
	}, r.listTasks)
	register(r, huma.Operation{
		OperationID: "show-task", Method: http.MethodGet, Path: "/v1/tasks/{task_uuid}", Tags: []string{"tasks"},
		Summary: "Show a task with its context",
	}, r.showTask)
	register(r, huma.Operation{
		OperationID: "cancel-task", Method: http.MethodPost, Path: "/v1/tasks/{task_uuid}/cancel", Tags: []string{"tasks"},
		Summary:     "Cancel a task",
		Description: "Running steps are told through their context. Cancelling a cancelled task changes nothing.",
	}, r.cancelTask)
}

// submissionOf converts a checked body into a submission.
func (r *routes) submissionOf(b *TaskRequest) (Submission, *problem) {
	s := Submission{
		Namespace: b.Namespace, Name: b.Name, Version: b.Version,
		Context:  json.RawMessage("{}"),
		Priority: (*int)(b.Priority), Tags: b.Tags,
		Initiator: b.Initiator, SourceSystem: b.SourceSystem, Reason: b.Reason,
	}
	if raw := b.Context.RawMessage; raw != nil {
		if raw[0] != '{' { // null: the schema check takes it for an absent field
			return s, newProblem(http.StatusUnprocessableEntity, CodeValidationFailed, "the request has values that are not allowed",
				Issue{Pointer: "/context", Detail: "expected object"})
		}
		if p := checkJSON(raw, "/context", r.limits); p != nil { // the limits of the context are tighter than those of the body
			return s, p
		}
		s.Context = raw
	}
	return s, nil
}

func (r *routes) submit(ctx context.Context, in *submitInput) (*submitOutput, error) {
	s, p := r.submissionOf(&in.Body)
	if p != nil {
		return nil, p
	}
	s.IdempotencyKey, s.SubmittedBy = in.IdempotencyKey, auth.From(ctx).String()
	task, created, err := r.backend.Tasks.Submit(ctx, s)
	if err != nil {
		return nil, err
	}
	out := &submitOutput{Status: http.StatusOK, Location: "/v1/tasks/" + task.UUID, Body: task}
	if created {
		out.Status = http.StatusCreated
	}
	return out, nil
}

func (r *routes) listTasks(ctx context.Context, in *listTasksInput) (*listTasksOutput, error) {
	q := TaskQuery{States: in.State, Namespace: in.Namespace, Name: in.Name, Tags: in.Tag, Limit: in.Limit + 1}
	if in.Cursor != "" {
		key, err := decodeCursor("t", in.Cursor)
		if err != nil {
			return nil, err
		}
		if q.Before, err = vocab.ParseUUID(key); err != nil {
			return nil, badCursor()
		}
	}
	tasks, err := r.backend.Tasks.ListTasks(ctx, q)
	if err != nil {
		return nil, err
	}
	items, more := trim(tasks, in.Limit)
	out := &listTasksOutput{Body: readmodel.TaskPage{Items: items}}
	if more {
		out.Body.NextCursor = encodeCursor("t", items[len(items)-1].UUID)
	}
	return out, nil
}

func (r *routes) showTask(ctx context.Context, in *taskPath) (*taskOutput, error) {
	id, err := taskID(in.TaskUUID)
	if err != nil {
		return nil, err
	}
	task, err := r.backend.Tasks.Task(ctx, id)
	if err != nil {
		return nil, err
	}
	return &taskOutput{Body: task}, nil
}

func (r *routes) cancelTask(ctx context.Context, in *cancelInput) (*taskOutput, error) {
	id, err := taskID(in.TaskUUID)
	if err != nil {
		return nil, err
	}
	task, err := r.backend.Tasks.CancelTask(ctx, id, in.Body.operator(ctx))
	if err != nil {
		return nil, err
	}
	return &taskOutput{Body: task}, nil
}
