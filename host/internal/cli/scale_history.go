package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/scaling/sim"
)

func (a *app) scaleHistoryCommand() *cobra.Command {
	var limit int
	var changes bool
	cmd := &cobra.Command{
		Use: "history POOL", Short: "Explain the last decisions about a pool", Args: arguments(1, 1, "a POOL"),
		Long: "List the last decisions about a pool, newest first: what was measured, what was advised and by whom, which rules changed the advice, and why.",
		RunE: a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			h, err := c.PoolHistory(ctx, args[0], limit, changes)
			return a.answer(h, err, func() { a.listDecisions(h.Items) })
		}),
	}
	limitFlag(cmd, &limit, 20, 500, "maximum number of decisions")
	cmd.Flags().BoolVar(&changes, "changes", false, "show only decisions that changed the pool")
	return cmd
}

func (a *app) listDecisions(all []readmodel.PoolDecision) {
	if len(all) == 0 {
		a.printf("no decisions yet\n")
		return
	}
	var t table
	t.header("AT", "SIZE", "ADVICE", "MEASURED", "BY", "REASON")
	for i := range all {
		d := &all[i]
		size, advice, measured := cell{text: strconv.Itoa(d.To)}, "", ""
		if d.From != d.To {
			size = cell{text: fmt.Sprintf("%d to %d", d.From, d.To), colour: green}
		}
		reason := d.Reason
		for _, c := range d.Clamps {
			reason += fmt.Sprintf("; %s: %d instead of %d, %s", c.Rule, c.To, c.From, c.Reason)
		}
		if s := d.Shadow; s != nil && s.To != d.To {
			reason += fmt.Sprintf("; shadow %s: %d", s.Algorithm, s.To)
		}
		if d.Advice != nil {
			advice = strconv.Itoa(d.Advice.Target)
		}
		if s := d.Measured; s != nil {
			measured = fmt.Sprintf("%.1f/s in, %.1f/s out, %d waiting, %s busy",
				float64(s.Arrivals)/s.Seconds, float64(s.Completions)/s.Seconds, s.Depth, percent(s.Utilization))
		}
		by := d.Algorithm
		if d.By != "" {
			by += ", " + d.By
		}
		t.add(text(when(d.At)), size, text(advice), text(measured), text(by), text(reason))
	}
	a.printTable(&t)
}

// recording holds the options of the command record.
type recording struct {
	pool, out       string
	duration, every time.Duration
}

func (a *app) scaleRecordCommand() *cobra.Command {
	var r recording
	cmd := &cobra.Command{
		Use: "record", Short: "Record the load of a pool as a trace for 'tasker scale simulate'", Args: arguments(0, 0, ""),
		Long: "Write what the host measured of a pool as a trace: arrivals, and the time that an executor spent on a piece of work. The trace " +
			"begins with the measurements that the host has kept, about an hour, and continues for --duration or until you interrupt it.",
		RunE: a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			switch {
			case r.pool == "":
				return usagef("--pool is required; see 'tasker pool list'")
			case r.out == "":
				return usagef("--out is required: want a file, or '-' for standard output")
			case r.every < time.Second || r.every%time.Second != 0:
				return usagef("--every %s: want whole seconds, 1s or more", r.every)
			case r.duration < 0:
				return usagef("--duration %s: want 0s or more", r.duration)
			}
			return a.record(ctx, c, r)
		}),
	}
	cmd.Flags().StringVar(&r.pool, "pool", "", "the pool to record")
	cmd.Flags().StringVarP(&r.out, "out", "o", "", "file to write; '-' is standard output")
	cmd.Flags().DurationVar(&r.duration, "duration", 0, "how long to record, in addition to what the host has kept")
	cmd.Flags().DurationVar(&r.every, "every", 5*time.Second, "time between two rows of the trace")
	return cmd
}

// record collects samples, makes a trace of them and writes it.
func (a *app) record(ctx context.Context, c *client.Client, r recording) error {
	samples, err := collect(ctx, c, r)
	if err != nil {
		return err
	}
	trace, err := traceOf(samples, r)
	if err != nil {
		return err
	}
	if r.out == "-" {
		return trace.Write(a.out)
	}
	if err := writeFile(r.out, trace.Write); err != nil {
		return err
	}
	a.printf("%s: %d rows of %s, %d pieces of work\n", r.out, len(trace.Rows), r.every, arrivals(trace))
	return nil
}

// collect reads the existing samples, and new ones until the time is over. An
// interrupt ends it early without losing any.
func collect(ctx context.Context, c *client.Client, r recording) ([]readmodel.PoolSample, error) {
	var all []readmodel.PoolSample
	var after time.Time
	over := time.After(r.duration)
	for last := false; ; {
		page, err := c.PoolSamples(ctx, r.pool, after)
		if err != nil {
			if len(all) > 0 && ctx.Err() != nil {
				return all, nil
			}
			return nil, err
		}
		if n := len(page.Items); n > 0 {
			all = append(all, page.Items...)
			after = page.Items[n-1].At
			if n > 1 {
				continue // the page was full
			}
		}
		if last {
			return all, nil
		}
		select {
		case <-over:
			last = true
		case <-time.After(time.Second):
			last = r.duration == 0
		case <-ctx.Done():
			return all, nil
		}
	}
}

// traceOf adds samples up into rows of equal length. Times without a sample have no
// arrivals; a row in which nothing ended has the service time of the row before.
func traceOf(samples []readmodel.PoolSample, r recording) (*sim.Trace, error) {
	if len(samples) == 0 {
		return nil, errors.New("the pool has no measurements yet")
	}
	begin := samples[0].At.Add(-time.Duration(samples[0].Seconds * float64(time.Second)))
	rowOf := func(at time.Time) int { return max(int((at.Sub(begin)-1)/r.every), 0) } // an end on the boundary belongs to the row before
	n := rowOf(samples[len(samples)-1].At) + 1
	if n < 2 {
		return nil, fmt.Errorf("fewer than two rows of %s were measured: record for longer, or with a shorter --every", r.every)
	}
	rows := make([]struct{ arrivals, ended, busy float64 }, n)
	ended, busy := 0.0, 0.0
	for i := range samples {
		s := &samples[i]
		row := &rows[min(rowOf(s.At), n-1)]
		work := float64(s.Size) * s.Seconds * s.Utilization
		row.arrivals += float64(s.Arrivals)
		row.ended += float64(s.Completions)
		row.busy += work
		ended, busy = ended+float64(s.Completions), busy+work
	}
	if ended == 0 {
		return nil, errors.New("the pool has finished no work yet, so the time per piece of work is unknown")
	}
	trace := &sim.Trace{
		Name:     r.pool,
		Comments: []string{fmt.Sprintf("recorded from pool %s since %s", r.pool, begin.Format(time.RFC3339))},
		Interval: r.every,
	}
	service := busy / ended
	for _, row := range rows {
		if row.ended > 0 && row.busy > 0 {
			service = row.busy / row.ended
		}
		trace.Rows = append(trace.Rows, sim.Row{Arrivals: int(row.arrivals), Service: max(math.Round(service*1e6)/1e6, 1e-6)})
	}
	return trace, nil
}

func arrivals(t *sim.Trace) (n int) {
	for _, row := range t.Rows {
		n += row.Arrivals
	}
	return n
}
