package api

import (
	"context"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

type detailInput struct {
	TaskUUID string `path:"task_uuid" format:"uuid"`
	Cursor   string `query:"cursor" maxLength:"200" doc:"next_cursor of the previous page."`
	Limit    int    `query:"limit" minimum:"1" maximum:"1000" default:"200"`
}

type stepsOutput struct{ Body readmodel.StepPage }

type historyOutput struct{ Body readmodel.TransitionPage }

func (r *routes) detailRoutes() {
	register(r, huma.Operation{
		OperationID: "list-steps", Method: http.MethodGet, Path: "/v1/tasks/{task_uuid}/steps", Tags: []string{"tasks"},
		Summary: "List a task's steps in topological order, with their results",
	}, r.steps)
	register(r, huma.Operation{
		OperationID: "list-history", Method: http.MethodGet, Path: "/v1/tasks/{task_uuid}/history", Tags: []string{"tasks"},
		Summary: "List the transitions of a task and its steps, oldest first",
	}, r.history)
	register(r, huma.Operation{
		OperationID: "watch-task", Method: http.MethodGet, Path: "/v1/tasks/{task_uuid}/events", Tags: []string{"tasks"},
		Summary: "Watch a task until it is settled, as server-sent events",
		Description: "Every change sends an event `snapshot`, the last one an event `settled`; then the stream ends. " +
			"The data of both is a snapshot. A client that was disconnected sends Last-Event-ID and misses nothing that still " +
			"matters; 204 means that it has already seen the end.",
		Responses: map[string]*huma.Response{
			"200": {
				Description: "The stream; the schema is that of an event's data",
				Content:     map[string]*huma.MediaType{"text/event-stream": {Schema: schemaOf[readmodel.Snapshot](r.api)}},
			},
			"204": {Description: "The task is settled and the client has seen it"},
		},
	}, r.watch)
}

func (r *routes) steps(ctx context.Context, in *detailInput) (*stepsOutput, error) {
	id, err := taskID(in.TaskUUID)
	if err != nil {
		return nil, err
	}
	from, err := after("s", in.Cursor)
	if err != nil {
		return nil, err
	}
	steps, err := r.backend.Details.Steps(ctx, id, PageQuery{After: from, Limit: in.Limit + 1})
	if err != nil {
		return nil, err
	}
	items, more := trim(steps, in.Limit)
	out := &stepsOutput{Body: readmodel.StepPage{Items: items}}
	if more {
		out.Body.NextCursor = encodeCursor("s", strconv.Itoa(items[len(items)-1].Number))
	}
	return out, nil
}

func (r *routes) history(ctx context.Context, in *detailInput) (*historyOutput, error) {
	id, err := taskID(in.TaskUUID)
	if err != nil {
		return nil, err
	}
	from, err := after("h", in.Cursor)
	if err != nil {
		return nil, err
	}
	entries, err := r.backend.Details.History(ctx, id, PageQuery{After: from, Limit: in.Limit + 1})
	if err != nil {
		return nil, err
	}
	items, more := trim(entries, in.Limit)
	out := &historyOutput{Body: readmodel.TransitionPage{Items: items}}
	if more {
		out.Body.NextCursor = encodeCursor("h", strconv.FormatInt(items[len(items)-1].SortKey, 10))
	}
	return out, nil
}
