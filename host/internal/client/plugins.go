package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// PluginPlan says what the files of plugins ask for that does not run yet.
func (c *Client) PluginPlan(ctx context.Context) (readmodel.PluginPlan, error) {
	var plan readmodel.PluginPlan
	_, err := c.Call(ctx, request{Method: http.MethodGet, Path: "/v1/plugins/plan"}, &plan)
	return plan, err
}

// PluginPlanOf says what another plugins.toml, given by its text, would change.
func (c *Client) PluginPlanOf(ctx context.Context, text string) (readmodel.PluginPlan, error) {
	return post[readmodel.PluginPlan](ctx, c, "/v1/plugins/plan", map[string]string{"text": text})
}

// ApplyPlugins makes what runs be as the files say.
func (c *Client) ApplyPlugins(ctx context.Context, reason string) (readmodel.PluginPlan, error) {
	return post[readmodel.PluginPlan](ctx, c, "/v1/plugins/apply", map[string]string{"reason": reason})
}

// Plugin returns all that the host knows of a plugin.
func (c *Client) Plugin(ctx context.Context, kind, name string) (readmodel.PluginDetail, error) {
	var d readmodel.PluginDetail
	_, err := c.Call(ctx, request{Method: http.MethodGet, Path: pluginPath(kind, name)}, &d)
	return d, err
}

// PluginHistory returns a page of the events of a plugin, the latest first.
// limit is 1 to 1000; cursor is the next_cursor of the page before, or empty.
func (c *Client) PluginHistory(ctx context.Context, kind, name string, limit int, cursor string) (readmodel.PluginHistory, error) {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	set(q, "cursor", cursor)
	var page readmodel.PluginHistory
	_, err := c.Call(ctx, request{Method: http.MethodGet, Path: pluginPath(kind, name) + "/history", Query: q}, &page)
	return page, err
}

// SwapPlugin gives a plugin another binary, a file of the host's machine.
func (c *Client) SwapPlugin(ctx context.Context, kind, name, artifact, reason string) (readmodel.PluginDetail, error) {
	return c.changePlugin(ctx, kind, name, "swap", map[string]string{"artifact": artifact, "reason": reason})
}

// RollBackPlugin takes the last change of a plugin back.
func (c *Client) RollBackPlugin(ctx context.Context, kind, name, reason string) (readmodel.PluginDetail, error) {
	return c.changePlugin(ctx, kind, name, "rollback", map[string]string{"reason": reason})
}

// PromotePlugin ends a rollout.
func (c *Client) PromotePlugin(ctx context.Context, kind, name, reason string) (readmodel.PluginDetail, error) {
	return c.changePlugin(ctx, kind, name, "promote", map[string]string{"reason": reason})
}

// ReleasePlugin lets a binary, or with an empty digest all, out of quarantine.
func (c *Client) ReleasePlugin(ctx context.Context, kind, name, sha256, reason string) (readmodel.PluginDetail, error) {
	return c.changePlugin(ctx, kind, name, "release", map[string]string{"sha256": sha256, "reason": reason})
}

func (c *Client) changePlugin(ctx context.Context, kind, name, verb string, body map[string]string) (readmodel.PluginDetail, error) {
	return post[readmodel.PluginDetail](ctx, c, pluginPath(kind, name)+"/"+verb, body)
}

func pluginPath(kind, name string) string {
	return "/v1/plugins/" + url.PathEscape(kind) + "/" + url.PathEscape(name)
}
