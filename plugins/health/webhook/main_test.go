package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/tasker-systems/tasker-host/plugins/health/internal/reports"
	"github.com/tasker-systems/tasker-host/sdk/plugintest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	o := reports.WebhookDefaults
	o.URL = server.URL
	plugintest.Conformance(t, plugin(), plugintest.WithOptions(o), plugintest.Report())
}
