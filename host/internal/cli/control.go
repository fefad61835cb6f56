package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

func (a *app) stateCommand() *cobra.Command {
	show := &cobra.Command{
		Use: "show", Short: "Show the host's operational state", Args: arguments(0, 0, ""),
		RunE: a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			s, err := c.HostState(ctx)
			if err != nil {
				return err
			}
			return a.printState(&s)
		}),
	}
	var o client.Operator
	set := &cobra.Command{
		Use: "set STATE", Short: "Change the host's state to graceful_shutdown or emergency", Args: arguments(1, 1, "a STATE"),
		Long: "Change the host's state. In graceful_shutdown, the host takes no new work, finishes the running steps, and stops. In " +
			"emergency, it cancels the running steps, hands their leases back, and stops. The host enters all other states by itself.",
		RunE: a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			s, err := c.MoveHost(ctx, client.StateOrder{State: args[0], Operator: o})
			if err != nil {
				return err
			}
			return a.printState(&s)
		}),
	}
	a.operatorFlags(set, &o)
	return group("state", "Show and set the host's operational state", "", show, set)
}

func (a *app) shutdownCommand() *cobra.Command {
	var (
		order client.StateOrder
		grace time.Duration
		now   bool
	)
	cmd := &cobra.Command{
		Use: "shutdown", Short: "Finish the running steps and stop the host", Args: arguments(0, 0, ""),
		Long: "Make the host take no new work, finish its running steps, and stop. Steps still running after --grace are cancelled and their " +
			"leases are handed back. The command returns at once; 'tasker state show' shows the progress until the host has stopped.",
	}
	cmd.RunE = a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
		order.State = "graceful_shutdown"
		if now {
			order.State = "emergency"
		}
		if cmd.Flags().Changed("grace") {
			if now {
				return usagef("--grace and --now exclude each other: give one")
			}
			if grace < 0 || grace > time.Hour {
				return usagef("--grace %s: want 0s to 1h", grace)
			}
			order.Grace = &grace
		}
		s, err := c.MoveHost(ctx, order)
		if err != nil {
			return err
		}
		return a.printState(&s)
	})
	cmd.Flags().DurationVar(&grace, "grace", 0, "how long running steps may continue (default: orchestration.drain_timeout)")
	cmd.Flags().BoolVar(&now, "now", false, "cancel the running steps at once and hand their leases back")
	a.operatorFlags(cmd, &order.Operator)
	return cmd
}

func (a *app) printState(s *readmodel.HostState) error {
	if a.json {
		return a.printJSON(s)
	}
	var f facts
	f.add("Host", text(s.Host))
	f.add("State", stateCell(s.State))
	f.add("Since", text(when(s.Since)))
	f.add("Reason", text(s.Reason))
	f.add("Steps", text(strconv.Itoa(s.Steps)))
	if s.DrainUntil != nil {
		f.add("Drain until", text(when(*s.DrainUntil)))
	}
	if len(s.Next) > 0 {
		f.add("Can be set", text(strings.Join(s.Next, ", ")))
	}
	a.printTable(&f.table)
	return nil
}

func (a *app) breakerCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List the host's circuit breakers", Args: arguments(0, 0, ""),
		RunE: a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			page, err := c.Breakers(ctx)
			return a.answer(page, err, func() { a.listBreakers(&page) })
		}),
	}
	return group("breaker", "Show, open, close and reset the host's circuit breakers", "", list,
		a.breakerMove("open NAME", "Open a breaker for maintenance: refuse its calls until it is closed or reset",
			"NAME is database, or queue.QUEUE.CLASS with CLASS claim, read or settle. While the database breaker is open, only the host's "+
				"heartbeats reach the database: running steps continue, and their results wait in the host. An opened breaker affects only "+
				"this host, and stays open until it is closed or reset, or the host stops.", (*client.Client).OpenBreaker),
		a.breakerMove("close NAME", "Close a breaker: let all its calls through again and reset its failure count", "", (*client.Client).CloseBreaker),
		a.breakerMove("reset NAME", "Reset a breaker: let a few calls through, and close it if they succeed", "", (*client.Client).ResetBreaker))
}

func (a *app) breakerMove(use, short, long string, do func(*client.Client, context.Context, string, client.Operator) (readmodel.Breaker, error)) *cobra.Command {
	var o client.Operator
	cmd := &cobra.Command{
		Use: use, Short: short, Long: summed(short, long), Args: arguments(1, 1, "a NAME, such as database or queue.shop_queue.claim"),
		RunE: a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			b, err := do(c, ctx, args[0], o)
			return a.answer(b, err, func() { a.listBreakers(&readmodel.BreakerPage{Enabled: true, Items: []readmodel.Breaker{b}}) })
		}),
	}
	a.operatorFlags(cmd, &o)
	return cmd
}

func (a *app) listBreakers(page *readmodel.BreakerPage) {
	if !page.Enabled {
		a.printf("circuit breakers are disabled: circuit_breakers.enabled is off\n\n")
	}
	var t table
	t.header("BREAKER", "STATE", "SINCE", "FAILURES", "REFUSED", "RETRY", "REASON")
	for i := range page.Items {
		b := &page.Items[i]
		retry := ""
		if b.RetrySeconds > 0 {
			retry = "in " + time.Duration(b.RetrySeconds*float64(time.Second)).Round(100*time.Millisecond).String()
		}
		t.add(text(b.Name), breakerState(b.State), text(when(b.Since)), text(fmt.Sprintf("%d of %d", b.Failures, b.Threshold)),
			text(strconv.FormatInt(b.Refused, 10)), text(retry), text(b.Reason))
	}
	a.printTable(&t)
}

func breakerState(state string) cell {
	switch state {
	case "closed":
		return cell{text: state, colour: green}
	case "half_open":
		return cell{text: state, colour: yellow}
	default:
		return cell{text: oneLine(state), colour: red}
	}
}
