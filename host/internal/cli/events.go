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
		Long: "Print a line for each event in the system: transitions of tasks, steps and plugins, actions of operators, hosts that " +
			"come and go, changes of health. The command continues across restarts of the host until it is interrupted. --json prints one " +
			"event per line. Pass the id of an event to --after to get everything after it; any host accepts an id for one day.",
		RunE: a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			if count < 0 {
				return usagef("--count %d: want 0 or more", count)
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
	flags.StringSliceVar(&f.Kinds, "kind", nil, "show only these kinds: "+strings.Join(readmodel.EventKinds, ", "))
	flags.StringVar(&f.Namespace, "namespace", "", "show only events of tasks in this namespace")
	flags.StringVar(&f.Task, "task", "", "show only events of this task and its steps")
	flags.StringVar(&f.After, "after", "", "start after the event with this id")
	flags.IntVar(&count, "count", 0, "stop after this many events (0: never)")
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
