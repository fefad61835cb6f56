package bench

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Options say what to measure.
type Options struct {
	Workload   string        // a name of Workloads
	Tasks      int           // at full load, for each repetition; 0: as many as make 80,000 steps
	Repeats    int           // of the measurement at full load; the medians count
	Window     int           // tasks in progress at once at full load; 0: as many as make 8,000 steps
	Samples    int           // tasks to measure the latency with
	Pause      time.Duration // between them, and between the checks of a resting system
	Width      int           // of the fan-out
	Share      float64       // of the maximum load, for the latency under load; 0 to 1
	Duration   time.Duration // of the load at that share, of a sustained load, or of an idle system's rest
	FlushDelay time.Duration // added to each flush of the server's log, in the workload flush
	History    int           // finished steps in the tables before the second measurement
	Namespaces int           // number of namespaces, for namespaces and idle
	Workers    int           // outside worker processes
	Claim      int           // steps that each of them takes at once: 1 to 100
	Way        string        // how they take and settle them: one of Ways
	Payload    int           // bytes of a task's context, and of each result, in the workload of that name
	Hosts      int           // number of hosts on the database
	InProcess  bool          // handlers and outside workers run in the host's process, to measure the cost without plugins
	Progress   func(phase string, done, total int)
}

// DefaultOptions returns the options that comparisons should use.
func DefaultOptions() Options {
	return Options{
		Workload: "linear", Repeats: 3, Samples: 200, Pause: 10 * time.Millisecond, Width: 1000,
		Share: 0.5, Duration: 10 * time.Second, History: 100000, Namespaces: 50, Workers: 1, Claim: maxClaim, Way: "claim", Payload: 1000000, Hosts: 1,
		FlushDelay: time.Millisecond,
	}
}

// Workload is one way to measure.
type Workload struct {
	Name, About string
	shape       func(o Options) Shape // of its tasks
	run         func(m *measurement) error
}

// Workloads lists all workloads, in the order in which help shows them.
var Workloads = []Workload{
	{"linear", "four steps in a line", named("linear"), (*measurement).throughput},
	{"diamond", "one step, then two, then one that waits for both", named("diamond"), (*measurement).throughput},
	{"tree", "a root, two branches, four leaves, and one step that waits for all leaves", named("tree"), (*measurement).throughput},
	{"mixed", "seven steps, some in a line, some in parallel", named("mixed"), (*measurement).throughput},
	{"fan-out", "one step, then --width steps, then one that waits for all of them", func(o Options) Shape { return FanOut(o.Width) }, (*measurement).throughput},
	{"single", "one step, like a job in a job queue", named("single"), (*measurement).throughput},
	{"queue-worker", "four steps in a line, each sent through the queue to --workers outside worker processes that take --claim steps at once in the given --way; with --way exchange or --claim 1, a worker continues with the steps that its results made ready", outside, (*measurement).throughput},
	{"latency", "four steps in a line, one task at a time; also the time from submission to the first call", clocked, (*measurement).latency},
	{"load", "the latency of four steps in a line at --share of the maximum load", named("linear"), (*measurement).underLoad},
	{"history", "four steps in a line on empty tables, then on tables that hold --history finished steps", named("linear"), (*measurement).history},
	{"pressure", "four steps in a line, alone, then while another session holds a snapshot, then while a third one also reads everything", named("linear"), (*measurement).pressure},
	{"flush", "four steps in a line on the disk as it is, then with --flush-delay added to each flush", named("linear"), (*measurement).flush},
	{"sustained", "four steps in a line at full load for --duration: the last sixth compared with the first", named("linear"), (*measurement).sustained},
	{"sustained-queue", "the same, through the queue to --workers outside worker processes", outside, (*measurement).sustained},
	{"namespaces", "four steps in a line in one namespace, then spread over --namespaces", named("linear"), (*measurement).namespaces},
	{"payload", "four steps in a line whose context and results have --payload bytes each", echoing, (*measurement).throughput},
	{Memory, "the memory of a host at rest for --duration, then with --tasks tasks in flight", named("linear"), (*measurement).memory},
	{"idle", "transactions per second of --hosts resting hosts", named("linear"), (*measurement).idle},
	{"limits", "what the machine and the database can do without any host", named("linear"), (*measurement).limits},
}

// Memory is the name of the workload whose host runs in a separate process.
const Memory = "memory"

func named(name string) func(Options) Shape { return func(Options) Shape { return Shapes[name] } }

// Names returns the names of all workloads.
func Names() []string {
	names := make([]string, len(Workloads))
	for i, w := range Workloads {
		names[i] = w.Name
	}
	return names
}

// find returns the requested workload, and refuses options that cannot be run.
func find(o Options) (Workload, error) {
	at := slices.IndexFunc(Workloads, func(w Workload) bool { return w.Name == o.Workload })
	if at < 0 {
		return Workload{}, fmt.Errorf("there is no workload %q: want %s", o.Workload, strings.Join(Names(), ", "))
	}
	switch {
	case min(o.Repeats, o.Samples, o.Width, o.Namespaces, o.Workers, o.Payload, o.Hosts) < 1 || min(o.Tasks, o.Window, o.History) < 0:
		return Workload{}, errors.New("the numbers of repeats, samples, namespaces, workers and hosts, and the width, must be at least 1")
	case o.Claim < 1 || o.Claim > maxClaim:
		return Workload{}, fmt.Errorf("claim of %d steps: want 1 to %d", o.Claim, maxClaim)
	case !slices.Contains(Ways, o.Way):
		return Workload{}, fmt.Errorf("outside workers have no way %q: want %s", o.Way, strings.Join(Ways, ", "))
	case o.Share <= 0 || o.Share > 1:
		return Workload{}, fmt.Errorf("share %g of the maximum load: want more than 0 and at most 1", o.Share)
	case o.FlushDelay < time.Microsecond || o.FlushDelay > maxFlushDelay:
		return Workload{}, fmt.Errorf("flush delay %s: want 1µs to %s", o.FlushDelay, maxFlushDelay)
	case o.Duration <= 0:
		return Workload{}, fmt.Errorf("duration %s: want more than 0s", o.Duration)
	}
	return Workloads[at], nil
}
