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
	"time"

	"github.com/tasker-systems/tasker-host/sdk/task"
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

// Submit creates a task. created is false if the idempotency key was used before; t is then the
// earlier task.
//
// If the host has no room or has lost its database, Submit asks again after the pause that the
// host names, for at most Options.Patience in all. With an idempotency key it does the same
// after lost connections and uncertain answers, because repeating is harmless then.
func (c *Client) Submit(ctx context.Context, s Submission) (t task.Task, created bool, err error) {
	r := Request{Method: http.MethodPost, Path: "/v1/tasks", JSON: s}
	if s.IdempotencyKey != "" {
		r.Header = http.Header{"Idempotency-Key": {s.IdempotencyKey}}
	}
	redial, began := firstRedial, time.Now()
	for {
		var status int
		if status, err = c.Call(ctx, r, &t); err == nil {
			return t, status == http.StatusCreated, nil
		}
		wait := pauseFor(redial, err)
		if !repeatable(err, s.IdempotencyKey != "") || time.Since(began)+wait > c.patience || !pause(ctx, wait) {
			return t, false, err
		}
		redial = min(redial*2, slowestRedial)
	}
}

// repeatable reports whether a submission may be made again after err. Without a key, only if
// the host says that nothing was done.
func repeatable(err error, keyed bool) bool {
	e, ok := errors.AsType[*Error](err)
	switch {
	case !ok:
		return keyed && errors.Is(err, ErrUnreachable) && !isNobody(err)
	case e.Status == http.StatusTooManyRequests:
		return true
	case e.Status == http.StatusServiceUnavailable && (e.Code == "unavailable" || e.Code == "overloaded"):
		return true
	default:
		return keyed && e.passing()
	}
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
func (c *Client) Task(ctx context.Context, id string) (task.Task, error) {
	var t task.Task
	_, err := c.Call(ctx, Request{Method: http.MethodGet, Path: taskPath(id, "")}, &t)
	return t, err
}

// TaskFilter selects tasks. Zero values select everything.
type TaskFilter struct {
	States          []vocab.TaskState
	Namespace, Name string
	Tags            []string // a task must have all of them
	Cursor          string
	Limit           int
}

// Tasks returns a page of tasks, newest first.
func (c *Client) Tasks(ctx context.Context, f TaskFilter) (task.TaskPage, error) {
	q := url.Values{}
	states := make([]string, len(f.States))
	for i, s := range f.States {
		states[i] = string(s)
	}
	set(q, "state", strings.Join(states, ","))
	set(q, "namespace", f.Namespace)
	set(q, "name", f.Name)
	for _, tag := range f.Tags {
		q.Add("tag", tag)
	}
	set(q, "cursor", f.Cursor)
	if f.Limit > 0 {
		q.Set("limit", strconv.Itoa(f.Limit))
	}
	var page task.TaskPage
	_, err := c.Call(ctx, Request{Method: http.MethodGet, Path: "/v1/tasks", Query: q}, &page)
	return page, err
}

// Cancel cancels a task.
func (c *Client) Cancel(ctx context.Context, id, reason string) (task.Task, error) {
	var t task.Task
	_, err := c.Call(ctx, Request{
		Method: http.MethodPost, Path: taskPath(id, "/cancel"), JSON: map[string]string{"reason": reason},
	}, &t)
	return t, err
}

// Steps returns all steps of a task in topological order.
func (c *Client) Steps(ctx context.Context, id string) ([]task.Step, error) {
	return Collect(func(cursor string) ([]task.Step, string, error) {
		var page task.StepPage
		_, err := c.Call(ctx, Request{Method: http.MethodGet, Path: taskPath(id, "/steps"), Query: cursorQuery(cursor)}, &page)
		return page.Items, page.NextCursor, err
	})
}

// History returns all transitions of a task and its steps, oldest first.
func (c *Client) History(ctx context.Context, id string) ([]task.Transition, error) {
	return Collect(func(cursor string) ([]task.Transition, string, error) {
		var page task.TransitionPage
		_, err := c.Call(ctx, Request{Method: http.MethodGet, Path: taskPath(id, "/history"), Query: cursorQuery(cursor)}, &page)
		return page.Items, page.NextCursor, err
	})
}

// Collect reads a list page by page. The function page returns a page and the cursor of the
// next one, which is empty after the last.
func Collect[T any](page func(cursor string) ([]T, string, error)) ([]T, error) {
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
			return nil, errors.New("the host's list does not end: it returned the same cursor twice")
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
