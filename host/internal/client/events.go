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
	After     string // the id of the last event that is known; empty: from now on
	Kinds     []string
	Namespace string
	Task      string // its UUID
}

// FollowEvents calls each with what happens in the system until it is done or
// fails, or ctx ends. It reconnects where it was cut off, without a gap and without a repetition.
func (c *Client) FollowEvents(ctx context.Context, f EventFilter, each func(readmodel.Event) (done bool, err error)) error {
	q := url.Values{}
	set(q, "kind", strings.Join(f.Kinds, ","))
	set(q, "namespace", f.Namespace)
	set(q, "task", f.Task)
	r := request{Method: http.MethodGet, Path: "/v1/events", Query: q}
	return c.Stream(ctx, r, f.After, func(s client.StreamEvent) (bool, error) {
		if s.Name == "cut_off" {
			return false, nil // the stream ends now, and goes on with a new request
		}
		var e readmodel.Event
		if err := json.Unmarshal([]byte(s.Data), &e); err != nil {
			return false, fmt.Errorf("follow events: read an event from the host: %w", err)
		}
		return each(e)
	})
}
