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

func (a *app) poolCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List the host's executor pools", Args: arguments(0, 0, ""),
		RunE: a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			page, err := c.Pools(ctx)
			return a.answer(page, err, func() { a.listPools(page.Items) })
		}),
	}
	show := &cobra.Command{
		Use: "show POOL", Short: "Show a pool: its size, what was measured, and the latest decision", Args: arguments(1, 1, "a POOL"),
		RunE: a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			p, err := c.Pool(ctx, args[0])
			if err != nil {
				return err
			}
			return a.printPool(&p)
		}),
	}
	return group("pool", "Show, size, pause and resume executor pools", "", list, show, a.poolSetCommand(),
		a.poolMove("pause POOL", "Start no new work in a pool, on this host",
			"Running work finishes. Steps that were claimed but not started are given back, for other hosts. The pause lasts until 'tasker pool resume' or until the host stops.",
			(*client.Client).PausePool),
		a.poolMove("resume POOL", "Start work in a paused pool again", "", (*client.Client).ResumePool))
}

func (a *app) poolSetCommand() *cobra.Command {
	var change client.PoolChange
	var least, most, batch int
	var pollMin, pollMax, turn, stop time.Duration
	var algorithm, shadow string
	cmd := &cobra.Command{
		Use: "set POOL", Short: "Change a pool's bounds, pace or algorithm", Args: arguments(1, 1, "a POOL"),
		Long: "Change a pool's bounds, pace or algorithm, with immediate effect. The change is checked against the available connections and " +
			"memory. It lasts until the configuration changes the pool or the host stops. Equal --min and --max fix the size.",
	}
	flags := cmd.Flags()
	flags.IntVar(&least, "min", 0, "minimum number of executors")
	flags.IntVar(&most, "max", 0, "maximum number of executors")
	flags.IntVar(&batch, "batch", 0, "maximum number of pieces of work in one turn")
	flags.DurationVar(&pollMin, "poll-min", 0, "wait before polling queues that had work again, such as 50ms")
	flags.DurationVar(&pollMax, "poll-max", 0, "longest wait between two polls of idle queues, such as 1s")
	flags.DurationVar(&turn, "turn-timeout", 0, "replace an executor as stuck if one turn takes longer than this, such as 1m")
	flags.DurationVar(&stop, "stop-timeout", 0, "how long a stopping host waits for the pool's executors, such as 3s")
	flags.StringVar(&algorithm, "algorithm", "", "algorithm that sizes the pool: a name that a scaling plugin serves, or a built-in one, such as 'latency' or 'rate={\"drain\":\"2m\"}'")
	flags.StringVar(&shadow, "shadow", "", "algorithm whose advice is only recorded, for comparison; '' for none")
	cmd.RunE = a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
		for name, set := range map[string]func(){
			"min": func() { change.Min = &least }, "max": func() { change.Max = &most },
			"batch": func() { change.Batch = &batch }, "poll-min": func() { change.PollMin = new(pollMin.String()) }, "poll-max": func() { change.PollMax = new(pollMax.String()) },
			"turn-timeout": func() { change.TurnTimeout = new(turn.String()) }, "stop-timeout": func() { change.StopTimeout = new(stop.String()) },
			"algorithm": func() { change.Algorithm = &algorithm }, "shadow": func() { change.Shadow = &shadow },
		} {
			if flags.Changed(name) {
				set()
			}
		}
		if change == (client.PoolChange{}) {
			return usagef("say what to change: --min, --max, --batch, --poll-min, --poll-max, --turn-timeout, --stop-timeout, --algorithm or --shadow")
		}
		p, err := c.SetPool(ctx, args[0], change)
		if err != nil {
			return err
		}
		return a.printPool(&p)
	})
	return cmd
}

func (a *app) poolMove(use, short, long string, do func(*client.Client, context.Context, string, client.Operator) (readmodel.Pool, error)) *cobra.Command {
	var o client.Operator
	cmd := &cobra.Command{
		Use: use, Short: short, Long: summed(short, long), Args: arguments(1, 1, "a POOL"),
		RunE: a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			p, err := do(c, ctx, args[0], o)
			if err != nil {
				return err
			}
			return a.printPool(&p)
		}),
	}
	a.operatorFlags(cmd, &o)
	return cmd
}

func (a *app) listPools(pools []readmodel.Pool) {
	if len(pools) == 0 {
		a.printf("no pools; a namespace has one with its first step\n")
		return
	}
	var t table
	t.header("POOL", "STATE", "SIZE", "BUSY", "BOUNDS", "WAITING", "UTILIZATION", "P95", "ALGORITHM", "DECIDED BY", "LAST REASON")
	for i := range pools {
		p := &pools[i]
		size := strconv.Itoa(p.Size)
		if p.Size != p.Target {
			size += fmt.Sprintf(" to %d", p.Target)
		}
		waiting, utilization, p95, by, reason := "", "", "", "", p.Problem
		if s := p.Measured; s != nil {
			waiting, utilization, p95 = strconv.FormatInt(s.Depth, 10), percent(s.Utilization), seconds(s.P95)
		}
		if d := p.Decision; d != nil {
			by, reason = d.By, d.Reason
		}
		name, _, _ := strings.Cut(p.Algorithm, "=")
		t.add(text(p.Name), poolState(p), text(size), text(strconv.Itoa(p.Busy)), text(fmt.Sprintf("%d to %d", p.Min, p.Max)), text(waiting),
			text(utilization), text(p95), text(name), text(by), text(reason))
	}
	a.printTable(&t)
}

func percent(share float64) string { return fmt.Sprintf("%.0f%%", 100*share) }

func seconds(s float64) string {
	if s < 1 {
		return fmt.Sprintf("%.0f ms", 1000*s)
	}
	return fmt.Sprintf("%.1f s", s)
}

func poolState(p *readmodel.Pool) cell {
	switch {
	case p.Paused != nil:
		return cell{text: "paused", colour: yellow}
	case p.Lost > 0:
		return cell{text: fmt.Sprintf("%d stuck", p.Lost), colour: red}
	case p.Problem != "":
		return cell{text: "held", colour: yellow}
	default:
		return cell{text: "running", colour: green}
	}
}

func (a *app) printPool(p *readmodel.Pool) error {
	if a.json {
		return a.printJSON(p)
	}
	var f facts
	f.add("Pool", text(p.Name))
	f.add("State", poolState(p))
	if p.Paused != nil {
		f.add("Paused", text(pauseText(p.Paused)))
	}
	f.add("Size", text(fmt.Sprintf("%d, target %d, %d at work", p.Size, p.Target, p.Busy)))
	bounds := fmt.Sprintf("%d to %d", p.Min, p.Max)
	if p.Useful > 0 && p.Useful < p.Max {
		bounds += fmt.Sprintf("; more than %d are of no use", p.Useful)
	}
	f.add("Bounds", text(bounds))
	if p.Pace != nil {
		f.add("Pace", text(paceText(p.Pace)))
	}
	if p.Overrides {
		f.add("Settings", text("changed at run time; lasts until the configuration changes the pool or the host stops"))
	}
	f.add("Algorithm", text(p.Algorithm))
	if p.Shadow != "" {
		f.add("Shadow", text(p.Shadow))
	}
	if p.Problem != "" {
		f.add("Problem", cell{text: oneLine(p.Problem), colour: red})
	}
	if p.Restarts > 0 {
		f.add("Replaced", text(fmt.Sprintf("%d executors, %d of them still stuck", p.Restarts, p.Lost)))
	}
	if s := p.Measured; s != nil {
		f.add("Measured", text(sampleText(s)))
	}
	if d := p.Decision; d != nil {
		f.add("Decided", text(decisionText(d)))
	}
	for _, w := range p.Warnings {
		f.add("Warning", cell{text: oneLine(w), colour: yellow})
	}
	a.printTable(&f.table)
	return nil
}

func paceText(p *readmodel.PoolPace) string {
	polls := ""
	if p.PollMax != "" {
		polls = fmt.Sprintf(", polls every %s to %s", p.PollMin, p.PollMax)
	}
	return fmt.Sprintf("batches of %d%s, a turn takes at most %s, stopping %s", p.Batch, polls, p.TurnTimeout, p.StopTimeout)
}

func sampleText(s *readmodel.PoolSample) string {
	return fmt.Sprintf("%.1f per second arrived, %.1f ended, %d waiting; utilization %s, p95 %s",
		float64(s.Arrivals)/s.Seconds, float64(s.Completions)/s.Seconds, s.Depth, percent(s.Utilization), seconds(s.P95))
}

// decisionText is a decision in one line: who advised what, how the rules changed it,
// and why.
func decisionText(d *readmodel.PoolDecision) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d to %d", d.From, d.To)
	if d.From == d.To {
		b.Reset()
		fmt.Fprintf(&b, "stays %d", d.To)
	}
	fmt.Fprintf(&b, " by %s", d.Algorithm)
	if d.By != "" {
		fmt.Fprintf(&b, " (%s)", d.By)
	}
	if d.Advice != nil {
		fmt.Fprintf(&b, ", which advised %d", d.Advice.Target)
	}
	b.WriteString(": " + d.Reason)
	for _, c := range d.Clamps {
		fmt.Fprintf(&b, "; %s made it %d: %s", c.Rule, c.To, c.Reason)
	}
	if s := d.Shadow; s != nil {
		fmt.Fprintf(&b, "; shadow %s would have made it %d: %s", s.Algorithm, s.To, s.Reason)
	}
	return b.String()
}
