package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/client"
)

// ApplyTemplate stores a template; source names src in messages. created is
// false if the same version is already stored.
func (c *Client) ApplyTemplate(ctx context.Context, source string, src []byte) (t readmodel.Template, created bool, err error) {
	status, err := c.Call(ctx, templateRequest("/v1/templates", source, src), &t)
	return t, status == http.StatusCreated, err
}

// ValidateTemplate checks a template as ApplyTemplate does and stores nothing.
func (c *Client) ValidateTemplate(ctx context.Context, source string, src []byte) (readmodel.Template, error) {
	var t readmodel.Template
	_, err := c.Call(ctx, templateRequest("/v1/templates/validate", source, src), &t)
	return t, err
}

func templateRequest(path, source string, src []byte) request {
	if src == nil {
		src = []byte{}
	}
	return request{
		Method: http.MethodPost, Path: path, Query: url.Values{"source": {source}},
		ContentType: "application/yaml", Body: src,
	}
}

// Templates returns all templates of a namespace with a name; empty: all.
func (c *Client) Templates(ctx context.Context, namespace, name string) ([]readmodel.TemplateSummary, error) {
	return client.Collect(func(cursor string) ([]readmodel.TemplateSummary, string, error) {
		q := cursorQuery(cursor)
		set(q, "namespace", namespace)
		set(q, "name", name)
		var page readmodel.TemplatePage
		_, err := c.Call(ctx, request{Method: http.MethodGet, Path: "/v1/templates", Query: q}, &page)
		return page.Items, page.NextCursor, err
	})
}

// Template returns one version; the version "latest" means the highest.
func (c *Client) Template(ctx context.Context, namespace, name, version string) (readmodel.Template, error) {
	var t readmodel.Template
	path := "/v1/templates/" + url.PathEscape(namespace) + "/" + url.PathEscape(name) + "/" + url.PathEscape(version)
	_, err := c.Call(ctx, request{Method: http.MethodGet, Path: path}, &t)
	return t, err
}

// Plugins lists the host's plugins.
func (c *Client) Plugins(ctx context.Context) ([]readmodel.Plugin, error) {
	page, err := c.PluginList(ctx)
	return page.Items, err
}

// PluginList lists the host's plugins and reports what is wrong with their files.
func (c *Client) PluginList(ctx context.Context) (readmodel.PluginPage, error) {
	var page readmodel.PluginPage
	_, err := c.Call(ctx, request{Method: http.MethodGet, Path: "/v1/plugins"}, &page)
	return page, err
}

// Doctor makes the host look for problems.
func (c *Client) Doctor(ctx context.Context) (readmodel.DoctorReport, error) {
	var report readmodel.DoctorReport
	_, err := c.Call(ctx, request{Method: http.MethodGet, Path: "/v1/system/doctor"}, &report)
	return report, err
}

// Configuration returns the configuration in force in the host.
func (c *Client) Configuration(ctx context.Context) (readmodel.Configuration, error) {
	var v readmodel.Configuration
	_, err := c.Call(ctx, request{Method: http.MethodGet, Path: "/v1/system/configuration"}, &v)
	return v, err
}

// ReloadConfiguration makes the host reload its configuration.
func (c *Client) ReloadConfiguration(ctx context.Context) (readmodel.Reload, error) {
	var v readmodel.Reload
	_, err := c.Call(ctx, request{Method: http.MethodPost, Path: "/v1/system/configuration/reload"}, &v)
	return v, err
}

// Health returns the results of the host's checks, whether it is healthy or not.
func (c *Client) Health(ctx context.Context) (readmodel.HealthReport, error) {
	var h readmodel.HealthReport
	_, err := c.Call(ctx, request{Method: http.MethodGet, Path: "/health/status"}, &h)
	return h, err
}

// Ready reports whether the host takes work now.
func (c *Client) Ready(ctx context.Context) (readmodel.Health, error) {
	var h readmodel.Health
	_, err := c.Call(ctx, request{Method: http.MethodGet, Path: "/health/ready"}, &h)
	return h, err
}
