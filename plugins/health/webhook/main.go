// Command webhook is the health plugin that posts the events of a host to an address. The host starts and
// stops it; see plugins/health/internal/reports.
package main

import (
	"github.com/tasker-systems/tasker-host/plugins/health/internal/reports"
	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/health"
)

func main() { sdk.Serve(plugin()) }

func plugin() sdk.Part {
	p := reports.NewWebhook()
	return sdk.Health("health-webhook", "1.0.0", map[string]health.Service{"webhook": {Reporter: p}},
		sdk.WithOptions(reports.WebhookDefaults, p.Configure))
}
