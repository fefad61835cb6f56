package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// maxClaim is how many steps an outside worker may claim at once.
const maxClaim = 100

// benchWays are the ways in which outside workers take and settle steps; the first
// one is the default.
var benchWays = []string{"claim", "exchange", "post"}

// benchWorkloads are the workloads and their descriptions.
var benchWorkloads = [][2]string{
	{"linear", "four steps in a line"},
	{"diamond", "one step, then two, then one that waits for both"},
	{"tree", "a root, two branches, four leaves, and one step that waits for all leaves"},
	{"mixed", "seven steps, some in a line, some in parallel"},
	{"fan-out", "one step, then --width steps, then one that waits for all of them"},
	{"single", "one step, like a job in a job queue"},
	{"queue-worker", "four steps in a line, each sent through the queue to --workers outside worker processes that take --claim steps at once in the given --way; with --way exchange or --claim 1, a worker continues with the steps that its results made ready"},
	{"latency", "one task at a time on an idle system; also the time from submission to the first call of a handler"},
	{"load", "latency at --share of the maximum load"},
	{"history", "empty tables compared with tables that hold --history finished steps"},
	{"pressure", "alone on the database, then while another session holds a snapshot, then while a third session also reads all steps again and again"},
	{"flush", "the disk as it is, compared with --flush-delay added to each flush of the server's log"},
	{"sustained", "full load for --duration: the last sixth compared with the first"},
	{"sustained-queue", "the same, through the queue to --workers outside worker processes"},
	{"namespaces", "the same work in one namespace, then spread over --namespaces"},
	{"payload", "four steps in a line whose context and results have --payload bytes each"},
	{"memory", "memory of a host at rest for --duration, then with --tasks tasks in flight (default 100,000)"},
	{"idle", "transactions per second of --hosts resting hosts with --namespaces namespaces"},
	{"limits", "what machine and database can do without Tasker: hashing, commits of one row, messages one by one"},
	{"goals", "all workloads above that the table of goals needs, and the table itself; takes about a quarter of an hour"},
}

func (a *app) benchCommand() *cobra.Command {
	o := BenchOptions{}
	var long strings.Builder
	long.WriteString("Measure throughput at full load, latency on an idle system, and what a step costs the database and the machine. " +
		"The benchmark starts its own hosts and runs the handlers in plugin processes. It uses the database in DATABASE_URL if that is " +
		"set, otherwise a private PostgreSQL.\n\nWorkloads:\n")
	names := make([]string, len(benchWorkloads))
	for i, w := range benchWorkloads {
		fmt.Fprintf(&long, "  %-16s %s\n", w[0], w[1])
		names[i] = w[0]
	}
	cmd := &cobra.Command{
		Use: "bench WORKLOAD", Short: "Measure throughput, latency and cost", Args: arguments(1, 1, "a WORKLOAD, such as linear"),
		Long: strings.TrimSpace(long.String()), ValidArgs: names,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(names, args[0]) {
				return usagef("there is no workload %q: want %s", args[0], strings.Join(names, ", "))
			}
			if !cmd.Flags().Changed("duration") {
				o.Duration = benchDuration(args[0])
			}
			if err := o.check(cmd.Flags().Changed("tasks")); err != nil {
				return err
			}
			options, err := a.configOptions()
			if err != nil {
				return err
			}
			if args[0] == "goals" {
				base := o
				base.Config = options
				return a.benchGoals(cmd.Context(), base)
			}
			show, end := a.phases()
			run := o
			run.Config, run.Workload, run.Progress = options, args[0], show
			report, err := a.rt.Bench(cmd.Context(), run)
			end()
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(report)
			}
			a.showBench(report)
			return nil
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Tasks, "tasks", 0, "tasks in each run at full load (default: as many as make 80,000 steps)")
	f.IntVar(&o.Window, "window", 0, "tasks in progress at once at full load (default: as many as make 8,000 steps)")
	f.IntVar(&o.Repeats, "repeat", 3, "runs at full load; the medians are reported")
	f.IntVar(&o.Samples, "samples", 200, "tasks to measure the latency with")
	f.IntVar(&o.Width, "width", 1000, "steps that run in parallel, for fan-out")
	f.Float64Var(&o.Share, "share", 0.5, "share of the maximum load, for load")
	f.DurationVar(&o.Duration, "duration", 0, "how long to measure load, sustained, limits, and the resting hosts of idle and memory (default: 10s; sustained: 60s)")
	f.DurationVar(&o.FlushDelay, "flush-delay", time.Millisecond, "time added to each flush, for flush; at most 100ms")
	f.IntVar(&o.History, "history", 100000, "finished steps in the tables, for history")
	f.IntVar(&o.Namespaces, "namespaces", 50, "number of namespaces, for namespaces and idle")
	f.IntVar(&o.Workers, "workers", 1, "worker processes, for queue-worker")
	f.IntVar(&o.Claim, "claim", maxClaim, "steps that each worker takes at once, for queue-worker; at most 100")
	f.StringVar(&o.Way, "way", benchWays[0], "how workers take and settle steps, for queue-worker: claim (claim the next steps while the previous ones are settled), exchange (hand in results and get new steps in one call) or post (read messages and post results)")
	f.IntVar(&o.Payload, "payload", 1000000, "size of the context and of each result in bytes, for payload; at most 1048576")
	f.IntVar(&o.Hosts, "hosts", 1, "number of hosts that work on the database")
	f.BoolVar(&o.InProcess, "in-process", false, "run handlers and workers inside the host, to measure the cost without plugins")
	f.StringVar(&o.Profile, "profile", "", "write profiles of the host (cpu, allocs, block, mutex) and of its plugins (cpu) to this directory; profiling slows the run down")
	f.BoolVar(&o.Force, "force", false, "use the database even if it holds other tasks")
	if a.rt.BenchWorker != nil {
		var work BenchWorkerOptions
		worker := &cobra.Command{
			Use: "worker", Short: "What queue-worker starts", Hidden: true, Args: arguments(0, 0, ""),
			RunE: func(cmd *cobra.Command, _ []string) error { return a.rt.BenchWorker(cmd.Context(), work) },
		}
		worker.Flags().IntVar(&work.Claim, "claim", maxClaim, "steps taken at once")
		worker.Flags().StringVar(&work.Way, "way", benchWays[0], "how")
		worker.Flags().StringVar(&work.Results, "results", "", "the queue of results")
		cmd.AddCommand(worker)
	}
	return cmd
}

// benchDuration is the default of --duration for a workload.
func benchDuration(workload string) time.Duration {
	if strings.HasPrefix(workload, "sustained") {
		return time.Minute
	}
	return 10 * time.Second
}

// check refuses flags that make no sense.
func (o BenchOptions) check(tasks bool) error {
	if tasks && o.Tasks < 1 {
		return usagef("--tasks %d: want at least 1", o.Tasks)
	}
	for _, f := range [...]struct {
		name  string
		value int
	}{
		{"repeat", o.Repeats}, {"samples", o.Samples}, {"width", o.Width}, {"namespaces", o.Namespaces}, {"workers", o.Workers}, {"payload", o.Payload}, {"hosts", o.Hosts},
	} {
		if f.value < 1 {
			return usagef("--%s %d: want at least 1", f.name, f.value)
		}
	}
	if o.Claim < 1 || o.Claim > maxClaim {
		return usagef("--claim %d: want 1 to %d", o.Claim, maxClaim)
	}
	if !slices.Contains(benchWays, o.Way) {
		return usagef("--way %q: want %s", o.Way, strings.Join(benchWays, ", "))
	}
	if o.Share <= 0 || o.Share > 1 {
		return usagef("--share %g: want more than 0 and at most 1", o.Share)
	}
	if o.FlushDelay < time.Microsecond || o.FlushDelay > 100*time.Millisecond {
		return usagef("--flush-delay %s: want 1µs to 100ms", o.FlushDelay)
	}
	if o.Duration <= 0 || o.History < 0 || o.Window < 0 {
		return usagef("--duration must be greater than 0, and --history and --window must not be negative")
	}
	return nil
}

func (a *app) showBench(r readmodel.BenchReport) {
	var t table
	say := func(name, value string) { t.add(cell{text: name, colour: grey}, text(value)) }
	number := func(v float64, digits int) string { return strconv.FormatFloat(v, 'f', digits, 64) }
	quantiles := func(name string, q *readmodel.Quantiles) {
		if q != nil && q.Max > 0 {
			say(name, fmt.Sprintf("p50 %s, p95 %s, p99 %s ms", number(q.P50, 2), number(q.P95, 2), number(q.P99, 2)))
		}
	}
	measured := r.Name
	if r.Tasks > 0 {
		measured += fmt.Sprintf(", %d tasks, %d steps", r.Tasks, r.Steps)
	}
	say("measured", measured)
	if r.StepsPerSecond > 0 {
		rate := number(r.StepsPerSecond, 0)
		if r.Repeats > 1 {
			rate += fmt.Sprintf(" (%s to %s in %d runs)", number(r.StepsPerSecondLeast, 0), number(r.StepsPerSecondMost, 0), r.Repeats)
		}
		say("steps per second", rate)
		say("tasks per second", number(r.TasksPerSecond, 0))
	}
	if r.FirstStepsPerSecond > 0 {
		say("first sixth", number(r.FirstStepsPerSecond, 0)+" steps per second")
		say("last sixth", fmt.Sprintf("%s steps per second, %s %%", number(r.LastStepsPerSecond, 0), number(100*r.Ratio, 0)))
	} else if r.Ratio > 0 {
		say("before", number(r.BaselineStepsPerSecond, 0)+" steps per second")
		say("compared with before", number(100*r.Ratio, 0)+" %")
	}
	if r.ReadRatio > 0 {
		say("with a reader", number(100*r.ReadRatio, 0)+" %")
	}
	if r.Share > 0 {
		say("at a share of", number(r.Share, 2)+" of the maximum load")
	}
	if r.FlushDelayMS > 0 {
		say("added per flush", number(r.FlushDelayMS, 3)+" ms")
	}
	quantiles("latency before", r.BaselineLatencyMS)
	quantiles("latency", &r.LatencyMS)
	quantiles("at full load", r.FullLoadLatencyMS)
	quantiles("to the first call", r.FirstCallMS)
	if r.StepsPerSecond > 0 {
		say("WAL per step", fmt.Sprintf("%s bytes, %s page images", number(r.WALBytesPerStep, 0), number(r.PageImagesPerStep, 4)))
		say("commits per step", number(r.CommitsPerStep, 3))
		say("dead rows per step", fmt.Sprintf("%s, %s %% of updates of steps HOT", number(r.DeadTuplesPerStep, 2), number(100*r.HotUpdateShare, 0)))
		if c := r.CPUMicrosecondsPerStep; c != nil {
			say("CPU per step", fmt.Sprintf("host %s, plugins %s, server %s µs", number(c.Host, 1), number(c.Plugin, 1), number(c.Server, 1)))
		}
		say("allocations per step", fmt.Sprintf("%s, %s bytes", number(r.AllocationsPerStep, 1), number(r.AllocatedBytesPerStep, 0)))
	}
	if v := r.PeakMemoryBytes; v > 0 {
		say("peak memory", fmt.Sprintf("%s MB of the host, with the load generator", number(float64(v)/1e6, 0)))
	}
	if v := r.RestMemoryBytes; v > 0 {
		say("memory at rest", number(float64(v)/1e6, 0)+" MB of a host in a process of its own")
		say("memory in flight", fmt.Sprintf("%s MB at most, with %d tasks in flight", number(float64(r.InFlightMemoryBytes)/1e6, 0), r.InFlight))
	}
	if v := r.IdleTransactionsPerSecond; v != nil {
		say("idle", number(*v, 2)+" transactions per second")
	}
	if l := r.Limits; l != nil {
		say("SHA-256", fmt.Sprintf("%s MB per second by one thread, %s by all", number(l.HashMBPerSecond, 0), number(l.HashMBPerSecondAll, 0)))
		say("commits of one row", fmt.Sprintf("%s per second, %s over 16 connections", number(l.CommitsPerSecond, 0), number(l.CommitsPerSecondMany, 0)))
		say("messages", fmt.Sprintf("%s per second, read and deleted one by one over 16 connections", number(l.MessagesPerSecondMany, 0)))
	}
	s := r.Setting
	say("on", fmt.Sprintf("%d × %s, %s, PostgreSQL %s", s.CPUs, s.CPU, s.Go, s.Database["server_version"]))
	say("settings", fmt.Sprintf("fsync %s, synchronous_commit %s, full_page_writes %s, shared_buffers %s",
		s.Database["fsync"], s.Database["synchronous_commit"], s.Database["full_page_writes"], s.Database["shared_buffers"]))
	say("hosts", fmt.Sprintf("%d%s", s.Hosts, map[bool]string{true: ", handlers in process"}[s.InProcess]))
	a.printTable(&t)
}
