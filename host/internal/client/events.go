package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/client"
)

// EventFilter says which events to follow. Zero values mean all.
type EventFilter struct {
	After     string // the id of the last known event; empty: from now on
	Kinds     []string
	Namespace string
	Task      string // its UUID
}

// FollowEvents calls each with the events of the system until each is done or fails, or
// ctx ends. It reconnects without missing or repeating events.
func (c *Client) FollowEvents(ctx context.Context, f EventFilter, each func(readmodel.Event) (done bool, err error)) error {
	q := url.Values{}
	set(q, "kind", strings.Join(f.Kinds, ","))
	set(q, "namespace", f.Namespace)
	set(q, "task", f.Task)
	r := request{Method: http.MethodGet, Path: "/v1/events", Query: q}
	return c.Stream(ctx, r, f.After, func(s client.StreamEvent) (bool, error) {
		if s.Name == "cut_off" {
			return false, nil // the stream ends now and continues with a new request
		}
		var e readmodel.Event
		if err := json.Unmarshal([]byte(s.Data), &e); err != nil {
			return false, fmt.Errorf("follow events: read an event from the host: %w", err)
		}
		return each(e)
	})
}
