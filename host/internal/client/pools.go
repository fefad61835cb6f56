package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// PoolChange says what to change about a pool; nil: no change.
type PoolChange struct {
	Min         *int    `json:"min,omitempty"`
	Max         *int    `json:"max,omitempty"`
	Batch       *int    `json:"batch,omitempty"`
	PollMin     *string `json:"poll_min,omitempty"` // durations with a unit
	PollMax     *string `json:"poll_max,omitempty"`
	TurnTimeout *string `json:"turn_timeout,omitempty"`
	StopTimeout *string `json:"stop_timeout,omitempty"`
	Algorithm   *string `json:"algorithm,omitempty"`
	Shadow      *string `json:"shadow,omitempty"`
}

// Pools lists the host's executor pools.
func (c *Client) Pools(ctx context.Context) (readmodel.PoolPage, error) {
	return get[readmodel.PoolPage](ctx, c, "/v1/pools", nil)
}

// Pool returns one pool.
func (c *Client) Pool(ctx context.Context, name string) (readmodel.Pool, error) {
	return get[readmodel.Pool](ctx, c, poolPath(name, ""), nil)
}

// SetPool changes a pool.
func (c *Client) SetPool(ctx context.Context, name string, change PoolChange) (readmodel.Pool, error) {
	var out readmodel.Pool
	_, err := c.Call(ctx, request{Method: http.MethodPatch, Path: poolPath(name, ""), JSON: change}, &out)
	return out, err
}

// PausePool starts no new work in a pool.
func (c *Client) PausePool(ctx context.Context, name string, o Operator) (readmodel.Pool, error) {
	return post[readmodel.Pool](ctx, c, poolPath(name, "/pause"), o)
}

// ResumePool starts work in a paused pool again.
func (c *Client) ResumePool(ctx context.Context, name string, o Operator) (readmodel.Pool, error) {
	return post[readmodel.Pool](ctx, c, poolPath(name, "/resume"), o)
}

// PoolHistory lists decisions about a pool, newest first: all, or only those that
// changed it.
func (c *Client) PoolHistory(ctx context.Context, name string, limit int, changes bool) (readmodel.PoolHistory, error) {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	if changes {
		q.Set("changes", "true")
	}
	return get[readmodel.PoolHistory](ctx, c, poolPath(name, "/history"), q)
}

// PoolSamples lists the measurements of a pool after a time, oldest first.
func (c *Client) PoolSamples(ctx context.Context, name string, after time.Time) (readmodel.PoolSamples, error) {
	q := url.Values{}
	if !after.IsZero() {
		q.Set("after", after.UTC().Format(time.RFC3339Nano))
	}
	return get[readmodel.PoolSamples](ctx, c, poolPath(name, "/samples"), q)
}

func poolPath(name, rest string) string { return "/v1/pools/" + url.PathEscape(name) + rest }
