package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// Operator says why something is done. By is a name to add to the principal in the
// history; it counts only on the socket and without authentication.
type Operator struct {
	Reason string `json:"reason,omitempty"`
	By     string `json:"by,omitempty"`
}

// Step returns one step with its result.
func (c *Client) Step(ctx context.Context, id string) (readmodel.Step, error) {
	var step readmodel.Step
	_, err := c.Call(ctx, request{Method: http.MethodGet, Path: stepPath(id, "")}, &step)
	return step, err
}

// RetryTask runs all failed steps of a task again.
func (c *Client) RetryTask(ctx context.Context, id string, o Operator) (readmodel.Task, error) {
	return post[readmodel.Task](ctx, c, taskPath(id, "/retry"), o)
}

// ResolveTask declares a task done.
func (c *Client) ResolveTask(ctx context.Context, id string, o Operator) (readmodel.Task, error) {
	return post[readmodel.Task](ctx, c, taskPath(id, "/resolve"), o)
}

// RetryStep runs a failed step again.
func (c *Client) RetryStep(ctx context.Context, id string, o Operator) (readmodel.Step, error) {
	return post[readmodel.Step](ctx, c, stepPath(id, "/retry"), o)
}

// ResolveStep declares a step done with a result.
func (c *Client) ResolveStep(ctx context.Context, id string, result json.RawMessage, o Operator) (readmodel.Step, error) {
	return post[readmodel.Step](ctx, c, stepPath(id, "/resolve"), struct {
		Operator
		Result json.RawMessage `json:"result,omitempty"`
	}{o, result})
}

// SkipStep declares a step done without a result.
func (c *Client) SkipStep(ctx context.Context, id string, o Operator) (readmodel.Step, error) {
	return post[readmodel.Step](ctx, c, stepPath(id, "/skip"), o)
}

func stepPath(id, rest string) string { return "/v1/steps/" + url.PathEscape(id) + rest }

// ExplainTask says why a task does not run.
func (c *Client) ExplainTask(ctx context.Context, id string) (readmodel.TaskExplanation, error) {
	return get[readmodel.TaskExplanation](ctx, c, taskPath(id, "/explain"), nil)
}

// ExplainStep says why a step does not run.
func (c *Client) ExplainStep(ctx context.Context, id string) (readmodel.Explanation, error) {
	return get[readmodel.Explanation](ctx, c, stepPath(id, "/explain"), nil)
}
