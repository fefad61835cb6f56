// Command http is the health plugin that asks addresses whether they answer. The host starts and
// stops it; see plugins/health/internal/checks.
package main

import (
	"github.com/tasker-systems/tasker-host/plugins/health/internal/checks"
	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/health"
)

func main() { sdk.Serve(plugin()) }

func plugin() sdk.Part {
	p := &checks.HTTP{}
	return sdk.Health("health-http", "1.0.0", map[string]health.Service{"http": {Checker: p}},
		sdk.WithOptions(checks.HTTPDefaults, p.Configure))
}
