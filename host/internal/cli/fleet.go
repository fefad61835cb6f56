package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

func (a *app) hostCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List the hosts of the database that were alive within the last day", Args: arguments(0, 0, ""),
		RunE: a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			page, err := c.Hosts(ctx)
			return a.answer(page, err, func() { a.listHosts(page.Items) })
		}),
	}
	return group("host", "Show the hosts of the database", "", list)
}

func (a *app) listHosts(hosts []readmodel.Host) {
	var t table
	t.header("HOST", "NAME", "STATE", "VERSION", "ENVIRONMENT", "LAST SEEN", "PLUGINS", "SERVES")
	for i := range hosts {
		h := &hosts[i]
		state := cell{text: oneLine(h.State), colour: green}
		if !h.Alive {
			state.colour = red
		}
		t.add(text(strconv.Itoa(h.ID)), text(h.Name), state, text(h.Version), text(h.Environment), text(when(h.HeartbeatAt)),
			text(shortList(pluginVersions(h.Plugins), 6)), text(shortList(h.Served, 6)))
	}
	a.printTable(&t)
}

// pluginVersions names plugins with their versions.
func pluginVersions(plugins []readmodel.HostPlugin) []string {
	all := make([]string, len(plugins))
	for i, p := range plugins {
		all[i] = strings.TrimSpace(p.Kind + "/" + p.Name + " " + p.Version)
	}
	return all
}

// shortList joins the first of many names.
func shortList(names []string, most int) string {
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}

func (a *app) queueCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List the queues of all namespaces", Args: arguments(0, 0, ""),
		RunE: a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			page, err := c.Queues(ctx)
			return a.answer(page, err, func() { a.listQueues(page.Items) })
		}),
	}
	show := &cobra.Command{
		Use: "show NAMESPACE", Short: "Show the queue of a namespace", Args: arguments(1, 1, "a NAMESPACE"),
		RunE: a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			q, err := c.Queue(ctx, args[0])
			if err != nil {
				return err
			}
			return a.printQueue(&q)
		}),
	}
	return group("queue", "Show, pause and resume queues", "", list, show,
		a.queueMove("pause NAMESPACE", "Start no more steps of a namespace, on any host",
			"Running steps finish. The pause lasts until 'tasker queue resume', even across restarts. It does not stop outside workers that "+
				"read the queue's table directly.", (*client.Client).PauseQueue),
		a.queueMove("resume NAMESPACE", "Start steps of a paused namespace again", "", (*client.Client).ResumeQueue))
}

func (a *app) queueMove(use, short, long string, do func(*client.Client, context.Context, string, client.Operator) (readmodel.Queue, error)) *cobra.Command {
	var o client.Operator
	cmd := &cobra.Command{
		Use: use, Short: short, Long: summed(short, long), Args: arguments(1, 1, "a NAMESPACE"),
		RunE: a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			q, err := do(c, ctx, args[0], o)
			if err != nil {
				return err
			}
			return a.printQueue(&q)
		}),
	}
	a.operatorFlags(cmd, &o)
	return cmd
}

func (a *app) listQueues(queues []readmodel.Queue) {
	if len(queues) == 0 {
		a.printf("no queues; a namespace has one with its first template\n")
		return
	}
	var t table
	t.header("NAMESPACE", "STATE", "WAITING", "DELAYED", "OLDEST")
	for i := range queues {
		q := &queues[i]
		oldest := ""
		if q.OldestAt != nil {
			oldest = a.lasting(q.OldestAt, nil)
		}
		t.add(text(q.Namespace), queueState(q), text(strconv.Itoa(q.Waiting)), text(strconv.Itoa(q.Delayed)), text(oldest))
	}
	a.printTable(&t)
}

func queueState(q *readmodel.Queue) cell {
	if q.Paused != nil {
		return cell{text: "paused", colour: yellow}
	}
	return cell{text: "running", colour: green}
}

func (a *app) printQueue(q *readmodel.Queue) error {
	if a.json {
		return a.printJSON(q)
	}
	var f facts
	f.add("Namespace", text(q.Namespace))
	f.add("Queue", text(q.Queue))
	f.add("State", queueState(q))
	if p := q.Paused; p != nil {
		f.add("Paused", text(pauseText(p)))
	}
	f.add("Waiting", text(strconv.Itoa(q.Waiting)))
	f.add("Delayed", text(strconv.Itoa(q.Delayed)))
	if q.OldestAt != nil {
		f.add("Oldest", text(when(*q.OldestAt)))
	}
	a.printTable(&f.table)
	return nil
}

func pauseText(p *readmodel.Pause) string {
	s := "since " + when(p.Since)
	if p.By != "" {
		s += " by " + p.By
	}
	if p.Reason != "" {
		s += ": " + p.Reason
	}
	return s
}
