package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tasker-systems/tasker-host/host/internal/auth"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// eventPermissions says which permission each kind of event requires.
var eventPermissions = map[string]auth.Permission{
	readmodel.EventTask:   {Resource: auth.Task, Level: auth.Read},
	readmodel.EventStep:   {Resource: auth.Task, Level: auth.Read},
	readmodel.EventPlugin: {Resource: auth.Plugin, Level: auth.Read},
	readmodel.EventAudit:  {Resource: auth.Host, Level: auth.Administer},
	readmodel.EventHost:   {Resource: auth.Host, Level: auth.Read},
	readmodel.EventHealth: {Resource: auth.Host, Level: auth.Read},
}

type followInput struct {
	Kinds       []string `query:"kind" maxItems:"16" enum:"task,step,plugin,audit,host,health" doc:"Only these kinds, separated by commas. Default: all that the client may see."`
	Namespace   string   `query:"namespace" maxLength:"40" doc:"Only events of tasks of this namespace."`
	Task        string   `query:"task" maxLength:"36" doc:"Only events of this task and its steps: its UUID."`
	LastEventID string   `header:"Last-Event-ID" maxLength:"128" doc:"The id of the last event that the client received; the stream continues after it."`
}

func (r *routes) streamRoutes() {
	register(r, huma.Operation{
		OperationID: "follow-events", Method: http.MethodGet, Path: "/v1/events", Tags: []string{"system"},
		Summary: "Follow what happens in the system, as server-sent events",
		Description: "Transitions of tasks, steps and plugins, what operators do, hosts that come and go, changes of health. " +
			"An event's name is its kind. The stream begins now, or after the event that Last-Event-ID names, without gaps or " +
			"repetitions and on any host of the database. An id without data says how far the stream has progressed. " +
			"A client that reads too slowly gets an event `cut_off` and continues with a new request; ids are valid for a day. " +
			"Events that happened at the same time may arrive in any order; sort_key orders those of one task or step. " +
			"The kind plugin requires plugin:read, host and health require system:read, audit requires system:administer.",
		Responses: map[string]*huma.Response{
			"200": {
				Description: "The stream; the schema is that of an event's data",
				Content:     map[string]*huma.MediaType{"text/event-stream": {Schema: schemaOf[readmodel.Event](r.api)}},
			},
		},
	}, r.follow)
}

func (r *routes) follow(ctx context.Context, in *followInput) (*huma.StreamResponse, error) {
	q, err := eventQuery(ctx, in)
	if err != nil {
		return nil, err
	}
	if !r.streams.enter() {
		return nil, Unavailable("too many clients watch now", 5*time.Second, nil)
	}
	events, err := r.backend.Events.FollowEvents(ctx, q)
	if err != nil {
		r.streams.leave()
		return nil, err
	}
	return &huma.StreamResponse{Body: func(hctx huma.Context) {
		defer r.streams.leave()
		defer events.Close()
		req, w := humago.Unwrap(hctx)
		ctx, cancel := context.WithCancelCause(hctx.Context())
		defer cancel(nil)
		defer r.attend(ctx, cancel)()
		follow(ctx, r.newSSE(req, w), events)
	}}, nil
}

// eventQuery limits a query to what the client may see. Events that it may not see are
// refused if it asks for them, and left out otherwise.
func eventQuery(ctx context.Context, in *followInput) (EventQuery, error) {
	q := EventQuery{After: in.LastEventID, Kinds: in.Kinds, Namespace: in.Namespace}
	may := auth.From(ctx).Permissions
	for _, kind := range q.Kinds {
		if need := eventPermissions[kind]; !may.Allows(need) {
			return q, newProblem(http.StatusForbidden, CodePermissionDenied,
				fmt.Sprintf("events of kind %s require the permission %s", kind, need))
		}
	}
	if len(q.Kinds) == 0 {
		q.Kinds = slices.DeleteFunc(slices.Clone(readmodel.EventKinds), func(kind string) bool { return !may.Allows(eventPermissions[kind]) })
	}
	if in.Task != "" {
		task, err := vocab.ParseUUID(in.Task)
		if err != nil {
			return q, Invalid(CodeValidationFailed, "the request has values that are not allowed", Issue{Location: "query.task", Detail: err.Error()})
		}
		q.Task = task
	}
	return q, nil
}

// follow sends events until the client leaves, is too slow, or ctx ends.
func follow(ctx context.Context, s sse, events EventStream) {
	if s.begin() != nil || s.write(fmt.Sprintf("id: %s\n\n", events.Place())) != nil {
		return
	}
	for {
		items, err := nextEvents(ctx, events)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, context.DeadlineExceeded):
			if s.write(fmt.Sprintf(": keep-alive\nid: %s\n\n", events.Place())) != nil {
				return
			}
		case errors.Is(err, ErrTooSlow):
			_ = s.write(cutOff(events.Place()))
			return
		case err != nil || s.write(eventLines(items)) != nil:
			return
		}
	}
}

func nextEvents(ctx context.Context, events EventStream) ([]EventItem, error) {
	ctx, cancel := context.WithTimeout(ctx, keepAliveInterval)
	defer cancel()
	return events.Next(ctx)
}

func eventLines(items []EventItem) string {
	var b strings.Builder
	for _, item := range items {
		fmt.Fprintf(&b, "id: %s\nevent: %s\ndata: %s\n\n", item.ID, item.Kind, item.JSON)
	}
	return b.String()
}

func cutOff(place string) string {
	data, err := json.Marshal(readmodel.CutOff{
		Code: "too_slow", ResumeAfter: place,
		Detail: "events arrive faster than this client reads them; continue with a new request and this Last-Event-ID",
	})
	if err != nil {
		return ""
	}
	return fmt.Sprintf("event: cut_off\ndata: %s\n\n", data)
}
