package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// ApplyTemplate stores a template; source names src in messages. created is
// false if the very same version is stored already.
func (c *Client) ApplyTemplate(ctx context.Context, source string, src []byte) (t readmodel.Template, created bool, err error) {
	status, err := c.call(ctx, templateRequest("/v1/templates", source, src), &t)
	return t, status == http.StatusCreated, err
}

// ValidateTemplate checks a template as ApplyTemplate does and stores nothing.
func (c *Client) ValidateTemplate(ctx context.Context, source string, src []byte) (readmodel.Template, error) {
	var t readmodel.Template
	_, err := c.call(ctx, templateRequest("/v1/templates/validate", source, src), &t)
	return t, err
}

func templateRequest(path, source string, src []byte) request {
	if src == nil {
		src = []byte{}
	}
	return request{
		method: http.MethodPost, path: path, query: url.Values{"source": {source}},
		contentType: "application/yaml", body: src,
	}
}

// Templates returns all templates of a namespace with a name; empty: all.
func (c *Client) Templates(ctx context.Context, namespace, name string) ([]readmodel.TemplateSummary, error) {
	return collect(func(cursor string) ([]readmodel.TemplateSummary, string, error) {
		q := cursorQuery(cursor)
		set(q, "namespace", namespace)
		set(q, "name", name)
		var page readmodel.TemplatePage
		_, err := c.call(ctx, request{method: http.MethodGet, path: "/v1/templates", query: q}, &page)
		return page.Items, page.NextCursor, err
	})
}

// Template returns one version; the version "latest" means the highest.
func (c *Client) Template(ctx context.Context, namespace, name, version string) (readmodel.Template, error) {
	var t readmodel.Template
	path := "/v1/templates/" + url.PathEscape(namespace) + "/" + url.PathEscape(name) + "/" + url.PathEscape(version)
	_, err := c.call(ctx, request{method: http.MethodGet, path: path}, &t)
	return t, err
}

// Plugins lists the host's plugins.
func (c *Client) Plugins(ctx context.Context) ([]readmodel.Plugin, error) {
	var page readmodel.PluginPage
	_, err := c.call(ctx, request{method: http.MethodGet, path: "/v1/plugins"}, &page)
	return page.Items, err
}

// Doctor has the host look for what is wrong.
func (c *Client) Doctor(ctx context.Context) (readmodel.DoctorReport, error) {
	var report readmodel.DoctorReport
	_, err := c.call(ctx, request{method: http.MethodGet, path: "/v1/system/doctor"}, &report)
	return report, err
}

// Ready says whether the host takes work now.
func (c *Client) Ready(ctx context.Context) (readmodel.Health, error) {
	var h readmodel.Health
	_, err := c.call(ctx, request{method: http.MethodGet, path: "/health/ready"}, &h)
	return h, err
}
