package main

import (
	"path/filepath"
	"testing"

	"github.com/tasker-systems/tasker-host/plugins/health/internal/reports"
	"github.com/tasker-systems/tasker-host/sdk/plugintest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	o := reports.TextfileOptions{Path: filepath.Join(t.TempDir(), "tasker.prom")}
	plugintest.Conformance(t, plugin(), plugintest.WithOptions(o), plugintest.Report())
}
