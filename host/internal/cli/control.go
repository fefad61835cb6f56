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
		Use: "set STATE", Short: "Have the host enter a state: graceful_shutdown or emergency", Args: arguments(1, 1, "a STATE"),
		Long: "Have the host enter a state. graceful_shutdown finishes what runs, takes nothing new, and stops. emergency cancels what " +
			"runs, hands its leases back, and stops. All other states a host enters by itself.",
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
		Use: "shutdown", Short: "Have the host finish what runs and stop", Args: arguments(0, 0, ""),
		Long: "Have the host take no more work, let what runs finish, and stop; what is not done after --grace is cancelled and its leases " +
			"are handed back. It answers at once: 'tasker state show' tells how far it is, until no host answers.",
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
	cmd.Flags().DurationVar(&grace, "grace", 0, "how long running steps may go on (default: orchestration.drain_timeout)")
	cmd.Flags().BoolVar(&now, "now", false, "cancel what runs at once and hand it back")
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
	return group("breaker", "Show, open and close the host's circuit breakers", "", list,
		a.breakerMove("open NAME", "Refuse its calls until it is closed or reset, for maintenance",
			"NAME is database, or queue.QUEUE.CLASS with a CLASS of claim, read, settle. An open database is asked by the host's heartbeats only: "+
				"what runs goes on, its results wait in the host. It holds for this host until it stops.", (*client.Client).OpenBreaker),
		a.breakerMove("close NAME", "Let its calls through again, and count anew", "", (*client.Client).CloseBreaker),
		a.breakerMove("reset NAME", "Leave it to itself: a few calls are let through, and close it if they succeed", "", (*client.Client).ResetBreaker))
}

func (a *app) breakerMove(use, short, long string, do func(*client.Client, context.Context, string, client.Operator) (readmodel.Breaker, error)) *cobra.Command {
	var o client.Operator
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Args: arguments(1, 1, "a NAME, such as database or queue.shop_queue.claim"),
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
		a.printf("circuit breakers do not act: circuit_breakers.enabled is off\n\n")
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
