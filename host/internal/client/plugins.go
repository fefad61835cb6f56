package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// PluginPlan returns the changes in the plugins' files that are not applied yet.
func (c *Client) PluginPlan(ctx context.Context) (readmodel.PluginPlan, error) {
	var plan readmodel.PluginPlan
	_, err := c.Call(ctx, request{Method: http.MethodGet, Path: "/v1/plugins/plan"}, &plan)
	return plan, err
}

// PluginPlanOf returns what another plugins.toml, given as text, would change.
func (c *Client) PluginPlanOf(ctx context.Context, text string) (readmodel.PluginPlan, error) {
	return post[readmodel.PluginPlan](ctx, c, "/v1/plugins/plan", map[string]string{"text": text})
}

// ApplyPlugins applies the plugins' files now.
func (c *Client) ApplyPlugins(ctx context.Context, reason string) (readmodel.PluginPlan, error) {
	return post[readmodel.PluginPlan](ctx, c, "/v1/plugins/apply", map[string]string{"reason": reason})
}

// Plugin returns everything that the host knows about a plugin.
func (c *Client) Plugin(ctx context.Context, kind, name string) (readmodel.PluginDetail, error) {
	var d readmodel.PluginDetail
	_, err := c.Call(ctx, request{Method: http.MethodGet, Path: pluginPath(kind, name)}, &d)
	return d, err
}

// PluginHistory returns a page of the events of a plugin, newest first.
// limit is 1 to 1000; cursor is the next_cursor of the page before, or empty.
func (c *Client) PluginHistory(ctx context.Context, kind, name string, limit int, cursor string) (readmodel.PluginHistory, error) {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	set(q, "cursor", cursor)
	var page readmodel.PluginHistory
	_, err := c.Call(ctx, request{Method: http.MethodGet, Path: pluginPath(kind, name) + "/history", Query: q}, &page)
	return page, err
}

// SwapPlugin replaces a plugin's binary by a file on the host's machine.
func (c *Client) SwapPlugin(ctx context.Context, kind, name, artifact, reason string) (readmodel.PluginDetail, error) {
	return c.changePlugin(ctx, kind, name, "swap", map[string]string{"artifact": artifact, "reason": reason})
}

// RollBackPlugin undoes the last change of a plugin.
func (c *Client) RollBackPlugin(ctx context.Context, kind, name, reason string) (readmodel.PluginDetail, error) {
	return c.changePlugin(ctx, kind, name, "rollback", map[string]string{"reason": reason})
}

// PromotePlugin completes a rollout.
func (c *Client) PromotePlugin(ctx context.Context, kind, name, reason string) (readmodel.PluginDetail, error) {
	return c.changePlugin(ctx, kind, name, "promote", map[string]string{"reason": reason})
}

// ReleasePlugin releases a binary, or with an empty digest all, from quarantine.
func (c *Client) ReleasePlugin(ctx context.Context, kind, name, sha256, reason string) (readmodel.PluginDetail, error) {
	return c.changePlugin(ctx, kind, name, "release", map[string]string{"sha256": sha256, "reason": reason})
}

func (c *Client) changePlugin(ctx context.Context, kind, name, verb string, body map[string]string) (readmodel.PluginDetail, error) {
	return post[readmodel.PluginDetail](ctx, c, pluginPath(kind, name)+"/"+verb, body)
}

func pluginPath(kind, name string) string {
	return "/v1/plugins/" + url.PathEscape(kind) + "/" + url.PathEscape(name)
}
