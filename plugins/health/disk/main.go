// Command disk is the health plugin that checks how much space a host's file systems have. The host
// starts and stops it; see plugins/health/internal/checks.
package main

import (
	"github.com/tasker-systems/tasker-host/plugins/health/internal/checks"
	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/health"
)

func main() { sdk.Serve(plugin()) }

func plugin() sdk.Part {
	p := &checks.Disk{}
	return sdk.Health("health-disk", "1.0.0", map[string]health.Service{"disk": {Checker: p}},
		sdk.WithOptions(checks.DiskDefaults, p.Configure))
}
