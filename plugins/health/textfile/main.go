// Command textfile is the health plugin that keeps the events of a host in a file for Prometheus. The host starts and
// stops it; see plugins/health/internal/reports.
package main

import (
	"github.com/tasker-systems/tasker-host/plugins/health/internal/reports"
	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/health"
)

func main() { sdk.Serve(plugin()) }

func plugin() sdk.Part {
	p := &reports.Textfile{}
	return sdk.Health("health-textfile", "1.0.0", map[string]health.Service{"textfile": {Reporter: p}},
		sdk.WithOptions(reports.TextfileOptions{}, p.Configure))
}
