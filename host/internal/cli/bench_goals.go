package cli

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// goal is a row of the table of goals: the targets, and how they are measured.
type goal struct {
	measure              string
	first, aim, moonshot string
	ours                 func(r readmodel.BenchReport) string
}

// goalRun is one run of the benchmark, and the goals that it measures.
type goalRun struct {
	options BenchOptions
	goals   []goal
}

func thousands(v float64) string { return strconv.FormatFloat(v/1000, 'f', 1, 64) + " k" }

func share(v float64) string { return strconv.FormatFloat(100*v, 'f', 0, 64) + " %" }

func milliseconds(q *readmodel.Quantiles) string {
	if q == nil {
		return "–"
	}
	return fmt.Sprintf("%.1f / %.1f ms", q.P50, q.P99)
}

func stepsPerSecond(r readmodel.BenchReport) string { return thousands(r.StepsPerSecond) }

func ratio(r readmodel.BenchReport) string { return share(r.Ratio) }

// goalOptions returns the options of a run for the table.
func goalOptions(workload string, change ...func(o *BenchOptions)) BenchOptions {
	o := BenchOptions{
		Workload: workload, Repeats: 3, Samples: 200, Width: 1000, Share: 0.5, Duration: 20 * time.Second,
		History: 1000000, Namespaces: 50, Workers: 1, Claim: maxClaim, Way: benchWays[0], Payload: 1000000, Hosts: 1,
		FlushDelay: time.Millisecond,
	}
	for _, f := range change {
		f(&o)
	}
	return o
}

func tenSeconds(o *BenchOptions) { o.Duration = 10 * time.Second }

// limitsRun measures what the machine can do, to put the other rows in perspective.
// That changes on a shared machine, so it is measured before and after the other runs.
func limitsRun(when string) goalRun {
	told := func(measure string, of func(l *readmodel.BenchLimits) string) goal {
		return goal{measure + ", " + when, "–", "–", "–", func(r readmodel.BenchReport) string {
			if r.Limits == nil {
				return "–"
			}
			return of(r.Limits)
		}}
	}
	return goalRun{goalOptions("limits", tenSeconds), []goal{
		told("this machine: SHA-256 MB/s by 1 thread; all", func(l *readmodel.BenchLimits) string {
			return fmt.Sprintf("%.0f; %.0f", l.HashMBPerSecond, l.HashMBPerSecondAll)
		}),
		told("commits/s of a row over 1 connection; 16", func(l *readmodel.BenchLimits) string {
			return thousands(l.CommitsPerSecond) + "; " + thousands(l.CommitsPerSecondMany)
		}),
		told("messages/s read and deleted one by one, 16 connections", func(l *readmodel.BenchLimits) string {
			return thousands(l.MessagesPerSecondMany)
		}),
	}}
}

// goalRuns returns all runs, except for rows that need an hour or other software.
func goalRuns() []goalRun {
	once := func(o *BenchOptions) { o.Repeats = 1 }
	long := func(o *BenchOptions) { o.Duration = time.Minute }
	return []goalRun{
		limitsRun("before"),
		{goalOptions("linear"), []goal{
			{"steps/s, 4 steps in a line, 1 host", "10 k", "30 k", "40 k", stepsPerSecond},
			{"commits a step under load", "0.1", "0.02", "0.01", func(r readmodel.BenchReport) string { return fmt.Sprintf("%.4f", r.CommitsPerStep) }},
			{"dead rows a step; HOT share of updates of steps", "3; 50 %", "2; 80 %", "1; 95 %", func(r readmodel.BenchReport) string {
				return fmt.Sprintf("%.2f; %s", r.DeadTuplesPerStep, share(r.HotUpdateShare))
			}},
			{"WAL a step (goals without page images; ours with)", "2.5 KB", "1.5 KB", "1.0 KB", func(r readmodel.BenchReport) string {
				return fmt.Sprintf("%.2f KB", r.WALBytesPerStep/1000)
			}},
		}},
		{goalOptions("queue-worker"), []goal{{"the same through a queue and an outside worker", "4 k", "12 k", "20 k", stepsPerSecond}}},
		{goalOptions("queue-worker", func(o *BenchOptions) { o.Way = "exchange" }), []goal{
			{"the same by an outside worker that goes on with what it made ready", "–", "–", "–", stepsPerSecond},
		}},
		{goalOptions("queue-worker", func(o *BenchOptions) { o.Way = "post" }), []goal{
			{"the same by an outside worker that reads messages and posts results", "–", "–", "–", stepsPerSecond},
		}},
		{goalOptions("queue-worker", func(o *BenchOptions) { o.Workers, o.Claim, o.Tasks = 16, 1, 5000 }), []goal{
			{"steps/s, 16 outside workers that take one step at a time", "1.5 k", "3 k", "4 k", stepsPerSecond},
		}},
		{goalOptions("single"), []goal{{"tasks/s of one step, in bulk", "5 k", "as River in its own bench", "1.5 times that", stepsPerSecond}}},
		{goalOptions("latency"), []goal{
			{"latency of 4 steps, idle, p50 / p99", "15 / 40 ms", "5 / 12 ms", "3.5 / 8 ms", func(r readmodel.BenchReport) string { return milliseconds(&r.LatencyMS) }},
			{"from submission to the first call, p50 / p99", "8 / 20 ms", "3 / 8 ms", "1.5 / 4 ms", func(r readmodel.BenchReport) string { return milliseconds(r.FirstCallMS) }},
		}},
		{goalOptions("load", tenSeconds), []goal{{"p99 of a task of 4 steps at half of the maximum load", "250 ms", "60 ms", "30 ms", func(r readmodel.BenchReport) string {
			return fmt.Sprintf("%.1f ms", r.LatencyMS.P99)
		}}}},
		{goalOptions("idle", func(o *BenchOptions) { o.Hosts, o.Duration = 3, time.Minute }), []goal{{"idle: 3 hosts, 50 namespaces", "10 tx/s", "1 tx/s", "0.2 tx/s", func(r readmodel.BenchReport) string {
			if r.IdleTransactionsPerSecond == nil {
				return "–"
			}
			return fmt.Sprintf("%.2f tx/s", *r.IdleTransactionsPerSecond)
		}}}},
		{goalOptions("namespaces"), []goal{{"50 namespaces against 1, same work", "60 %", "90 %", "98 %", ratio}}},
		{goalOptions("pressure"), []goal{
			{"while another session holds a snapshot, against without", "50 %", "85 %", "95 %", ratio},
			{"and one more reads all steps again and again", "–", "–", "–", func(r readmodel.BenchReport) string { return share(r.ReadRatio) }},
		}},
		{goalOptions("flush"), []goal{{"with 1 ms more for each flush: throughput lost; idle p50 of 4 steps", "25 %; 20 ms", "15 %; 9 ms", "10 %; 8 ms", func(r readmodel.BenchReport) string {
			return fmt.Sprintf("%s; %.1f ms", share(1-r.Ratio), r.LatencyMS.P50)
		}}}},
		{goalOptions("sustained", long), []goal{{"last 10 s of 60 s at full load against the first 10 s", "70 %", "90 %", "97 %", ratio}}},
		{goalOptions("sustained-queue", long), []goal{{"the same share, through a queue and an outside worker", "70 %", "90 %", "97 %", ratio}}},
		{goalOptions("fan-out", once, func(o *BenchOptions) { o.Width, o.Tasks, o.Samples = 10000, 1, 1 }), []goal{
			{"fan-out and fan-in of 10,000 in one task", "works", "2 s", "1 s", func(r readmodel.BenchReport) string { return fmt.Sprintf("%.2f s", r.Seconds) }},
		}},
		{goalOptions("memory"), []goal{{"memory of a host at rest; with 100,000 tasks in flight", "80 MB; bounded", "50 MB; 300 MB", "30 MB", func(r readmodel.BenchReport) string {
			return fmt.Sprintf("%.0f MB; %.0f MB", float64(r.RestMemoryBytes)/1e6, float64(r.InFlightMemoryBytes)/1e6)
		}}}},
		{goalOptions("history"), []goal{{"with 1,000,000 finished steps, against empty tables", "80 %", "95 %", "99 %", ratio}}},
		limitsRun("after"),
	}
}

// benchGoals runs everything that the table of goals needs, and shows the table.
func (a *app) benchGoals(ctx context.Context, base BenchOptions) error {
	var t table
	t.header("MEASURE", "FIRST STAGE", "GOAL", "MOONSHOT", "OURS")
	var reports []readmodel.BenchReport
	for _, run := range goalRuns() {
		show, end := a.phases()
		o := run.options
		o.Config, o.InProcess, o.Force, o.Progress = base.Config, base.InProcess, base.Force, show
		err := o.check(false)
		var r readmodel.BenchReport
		if err == nil {
			r, err = a.rt.Bench(ctx, o)
		}
		end()
		if err != nil {
			return fmt.Errorf("%s: %w", o.Workload, err)
		}
		reports = append(reports, r)
		for _, g := range run.goals {
			t.add(text(g.measure), text(g.first), text(g.aim), text(g.moonshot), text(g.ours(r)))
		}
	}
	if a.json {
		return a.printJSON(reports)
	}
	a.printTable(&t)
	s := reports[0].Setting
	a.printf("\non %d × %s, %s, PostgreSQL %s (fsync %s, synchronous_commit %s, full_page_writes %s)\n", s.CPUs, oneLine(s.CPU), s.Go,
		s.Database["server_version"], s.Database["fsync"], s.Database["synchronous_commit"], s.Database["full_page_writes"])
	return nil
}
