package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

func (a *app) healthCommand() *cobra.Command {
	return &cobra.Command{
		Use: "health", Short: "Show the results of the host's health checks", Args: arguments(0, 0, ""),
		Long: "Show the latest results of the running host's health checks, and their last changes. Exits with 1 unless the host is healthy or degraded.",
		RunE: a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			report, err := c.Health(ctx)
			if err != nil {
				return err
			}
			if a.json {
				err = a.printJSON(report)
			} else {
				a.showHealth(&report)
			}
			if err == nil && report.Status != "healthy" && report.Status != "degraded" {
				err = errShown
			}
			return err
		}),
	}
}

func (a *app) showHealth(r *readmodel.HealthReport) {
	a.printf("the host is %s in state %s\n\n", r.Status, r.State)
	var t table
	t.header("STATUS", "CHECK", "SINCE", "MESSAGE")
	for _, i := range r.Items {
		message := i.Message
		if i.Expected {
			message = "expected in state " + r.State + ": " + message
		}
		t.add(stateCell(i.Status), text(i.Name), text(when(i.Since)), text(message))
	}
	a.printTable(&t)
	if len(r.Events) == 0 {
		return
	}
	a.printf("\n")
	var events table
	events.header("AT", "SEVERITY", "CHECK", "CHANGE", "MESSAGE")
	for _, e := range r.Events {
		events.add(text(when(e.At)), stateCell(e.Severity), text(e.Check), text(e.From+" → "+e.To), text(e.Message))
	}
	a.printTable(&events)
}
