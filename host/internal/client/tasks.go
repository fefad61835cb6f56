package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Submission is a request for a task.
type Submission struct {
	Namespace      string          `json:"namespace"`
	Name           string          `json:"name"`
	Version        string          `json:"version,omitempty"`
	Context        json.RawMessage `json:"context,omitempty"`
	Priority       *int            `json:"priority,omitempty"`
	Tags           []string        `json:"tags,omitempty"`
	Initiator      string          `json:"initiator,omitempty"`
	SourceSystem   string          `json:"source_system,omitempty"`
	Reason         string          `json:"reason,omitempty"`
	IdempotencyKey string          `json:"-"`
}

// Submit creates a task. created is false if the idempotency key was used
// before: the task is the earlier one.
func (c *Client) Submit(ctx context.Context, s Submission) (task readmodel.Task, created bool, err error) {
	body, err := encode(s)
	if err != nil {
		return task, false, fmt.Errorf("encode the context: %w", err)
	}
	r := request{method: http.MethodPost, path: "/v1/tasks", contentType: "application/json", body: body}
	if s.IdempotencyKey != "" {
		r.header = http.Header{"Idempotency-Key": {s.IdempotencyKey}}
	}
	status, err := c.call(ctx, r, &task)
	return task, status == http.StatusCreated, err
}

// encode writes JSON without touching what is inside strings.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return b.Bytes(), nil
}

// Task returns one task with its context.
func (c *Client) Task(ctx context.Context, id string) (readmodel.Task, error) {
	var task readmodel.Task
	_, err := c.call(ctx, request{method: http.MethodGet, path: taskPath(id, "")}, &task)
	return task, err
}

// TaskFilter selects tasks. Zero values select everything.
type TaskFilter struct {
	States          []vocab.TaskState
	Namespace, Name string
	Cursor          string
	Limit           int
}

// Tasks returns a page of tasks, newest first.
func (c *Client) Tasks(ctx context.Context, f TaskFilter) (readmodel.TaskPage, error) {
	q := url.Values{}
	states := make([]string, len(f.States))
	for i, s := range f.States {
		states[i] = string(s)
	}
	set(q, "state", strings.Join(states, ","))
	set(q, "namespace", f.Namespace)
	set(q, "name", f.Name)
	set(q, "cursor", f.Cursor)
	if f.Limit > 0 {
		q.Set("limit", strconv.Itoa(f.Limit))
	}
	var page readmodel.TaskPage
	_, err := c.call(ctx, request{method: http.MethodGet, path: "/v1/tasks", query: q}, &page)
	return page, err
}

// Cancel cancels a task.
func (c *Client) Cancel(ctx context.Context, id, reason string) (readmodel.Task, error) {
	var task readmodel.Task
	body, err := encode(map[string]string{"reason": reason})
	if err != nil {
		return task, err
	}
	_, err = c.call(ctx, request{
		method: http.MethodPost, path: taskPath(id, "/cancel"), contentType: "application/json", body: body,
	}, &task)
	return task, err
}

// Steps returns all steps of a task in topological order.
func (c *Client) Steps(ctx context.Context, id string) ([]readmodel.Step, error) {
	return collect(func(cursor string) ([]readmodel.Step, string, error) {
		var page readmodel.StepPage
		_, err := c.call(ctx, request{method: http.MethodGet, path: taskPath(id, "/steps"), query: cursorQuery(cursor)}, &page)
		return page.Items, page.NextCursor, err
	})
}

// History returns all transitions of a task and its steps, oldest first.
func (c *Client) History(ctx context.Context, id string) ([]readmodel.Transition, error) {
	return collect(func(cursor string) ([]readmodel.Transition, string, error) {
		var page readmodel.TransitionPage
		_, err := c.call(ctx, request{method: http.MethodGet, path: taskPath(id, "/history"), query: cursorQuery(cursor)}, &page)
		return page.Items, page.NextCursor, err
	})
}

// collect reads a list page by page.
func collect[T any](page func(cursor string) ([]T, string, error)) ([]T, error) {
	var all []T
	for cursor := ""; ; {
		items, next, err := page(cursor)
		if err != nil {
			return nil, err
		}
		all = append(all, items...)
		if next == "" {
			return all, nil
		}
		if next == cursor {
			return nil, errors.New("the host's list does not end: it answers with the same cursor again")
		}
		cursor = next
	}
}

func taskPath(id, rest string) string { return "/v1/tasks/" + url.PathEscape(id) + rest }

func cursorQuery(cursor string) url.Values {
	q := url.Values{}
	set(q, "cursor", cursor)
	return q
}

func set(q url.Values, key, value string) {
	if value != "" {
		q.Set(key, value)
	}
}
