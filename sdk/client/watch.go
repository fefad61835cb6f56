package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/tasker-systems/tasker-host/sdk/task"
)

const settledEvent = "settled"

// Watch calls show with every change of a task until it is settled, and returns the last
// snapshot. It reconnects when it is cut off, even across a restart of the host; a host that
// stays away for a minute is an error.
func (c *Client) Watch(ctx context.Context, id string, show func(task.Snapshot)) (task.Snapshot, error) {
	var last task.Snapshot
	err := c.Stream(ctx, Request{Method: http.MethodGet, Path: taskPath(id, "/events")}, "", func(e StreamEvent) (done bool, err error) {
		var snap task.Snapshot
		if err := json.Unmarshal([]byte(e.Data), &snap); err != nil {
			return false, fmt.Errorf("watch task %s: the host sent an event that is not a snapshot: %w", id, err)
		}
		last = snap
		if show != nil {
			show(snap)
		}
		return e.Name == settledEvent, nil
	})
	return last, err
}
