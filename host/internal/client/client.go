package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/tasker-systems/tasker-host/sdk/client"
)

// Client calls one host. It adds to the public client the routes that only the
// command line needs. It is safe for concurrent use.
type Client struct{ *client.Client }

// The public client's types, by the names that the host uses.
type (
	Options    = client.Options
	Submission = client.Submission
	TaskFilter = client.TaskFilter
	Error      = client.Error

	request = client.Request
)

// ErrUnreachable says that no host answered.
var ErrUnreachable = client.ErrUnreachable

// New returns a client. It does not connect yet.
func New(o Options) (*Client, error) {
	c, err := client.New(o)
	if err != nil {
		return nil, err
	}
	return &Client{c}, nil
}

// get sends a GET request.
func get[T any](ctx context.Context, c *Client, path string, query url.Values) (T, error) {
	var out T
	_, err := c.Call(ctx, request{Method: http.MethodGet, Path: path, Query: query}, &out)
	return out, err
}

// post sends a body and returns the answer.
func post[T any](ctx context.Context, c *Client, path string, body any) (T, error) {
	var out T
	_, err := c.Call(ctx, request{Method: http.MethodPost, Path: path, JSON: body}, &out)
	return out, err
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
