package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/tasker-systems/tasker-host/plugins/health/internal/checks"
	"github.com/tasker-systems/tasker-host/sdk/plugintest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	o := checks.HTTPDefaults
	o.Targets = []checks.Target{{Name: "here", URL: server.URL, Status: http.StatusNotFound}}
	plugintest.Conformance(t, plugin(), plugintest.WithOptions(o))
}
