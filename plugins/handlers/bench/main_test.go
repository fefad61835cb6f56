package main

import (
	"encoding/json"
	"testing"

	"github.com/tasker-systems/tasker-host/internal/leaks"
	"github.com/tasker-systems/tasker-host/plugins/examples/bench"
	"github.com/tasker-systems/tasker-host/sdk/plugintest"
)

func TestMain(m *testing.M) { leaks.Main(m) }

func TestConformance(t *testing.T) {
	t.Parallel()
	plugintest.Conformance(t, plugin(),
		plugintest.Example(bench.Noop, plugintest.Step{}),
		plugintest.Example(bench.Sleep, plugintest.Step{Config: json.RawMessage(`{"sleep_ms":20}`)}),
		plugintest.Example(bench.Fail, plugintest.Step{Config: json.RawMessage(`{"error_rate":0}`)}),
		plugintest.Example(bench.Echo, plugintest.Step{Context: json.RawMessage(`{"a":0.10}`)}),
	)
}
