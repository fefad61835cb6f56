package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

func (a *app) eventsCommand() *cobra.Command {
	var f client.EventFilter
	count := 0
	cmd := &cobra.Command{
		Use: "events", Short: "Follow what happens in the system", Args: arguments(0, 0, ""),
		Long: "Follow what happens in the system, a line for each event: transitions of tasks and steps, of plugins, what operators do, " +
			"hosts that come and go, changes of health. It goes on over restarts of the host, until it is interrupted. " +
			"--json prints one event a line; the id of one, given to --after, brings all that follows, for a day, from whatever host.",
		RunE: a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			if count < 0 {
				return usagef("--count: %d is no number of events", count)
			}
			seen := 0
			return c.FollowEvents(ctx, f, func(e readmodel.Event) (done bool, err error) {
				if a.json {
					err = a.printLine(&e)
				} else {
					a.printf("%s\n", a.eventLine(&e))
				}
				seen++
				return seen == count, err
			})
		}),
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&f.Kinds, "kind", nil, "only these kinds: "+strings.Join(readmodel.EventKinds, ", "))
	flags.StringVar(&f.Namespace, "namespace", "", "only events of tasks of this namespace")
	flags.StringVar(&f.Task, "task", "", "only events of this task and its steps")
	flags.StringVar(&f.After, "after", "", "go on after the event with this id")
	flags.IntVar(&count, "count", 0, "end after this many events (0: never)")
	return cmd
}

// eventLine says in one line what happened.
func (a *app) eventLine(e *readmodel.Event) string {
	about := e.Subject
	switch e.Kind {
	case readmodel.EventTask:
		about = e.Namespace + " " + e.TaskUUID
	case readmodel.EventStep:
		about = e.Namespace + " " + e.TaskUUID + " " + e.Step
	case readmodel.EventHost:
		about = e.Host + " " + e.Subject
	case readmodel.EventAudit:
		about = e.Actor + " " + e.Action + " " + e.Subject
	}
	change := a.paint(stateColour(e.To), oneLine(e.To))
	if e.From != "" {
		change = oneLine(e.From) + " > " + change
	}
	line := when(e.At) + "  " + e.Kind + strings.Repeat(" ", max(0, len(readmodel.EventPlugin)-len(e.Kind))) + "  " + oneLine(about) + "  " + change
	if e.Reason != "" {
		line += "  " + oneLine(e.Reason)
	}
	if e.Message != "" {
		line += ": " + oneLine(e.Message)
	}
	return line
}
