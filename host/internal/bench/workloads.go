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

// Workload is one way to measure. The help of the command says what each is about.
type Workload struct {
	Name  string
	shape func(o Options) Shape // of its tasks
	run   func(m *measurement) error
}

// Workloads lists all workloads, in the order in which help shows them.
var Workloads = []Workload{
	{"linear", named("linear"), (*measurement).throughput},
	{"diamond", named("diamond"), (*measurement).throughput},
	{"tree", named("tree"), (*measurement).throughput},
	{"mixed", named("mixed"), (*measurement).throughput},
	{"fan-out", func(o Options) Shape { return FanOut(o.Width) }, (*measurement).throughput},
	{"single", named("single"), (*measurement).throughput},
	{"queue-worker", outside, (*measurement).throughput},
	{"latency", clocked, (*measurement).latency},
	{"load", named("linear"), (*measurement).underLoad},
	{"history", named("linear"), (*measurement).history},
	{"pressure", named("linear"), (*measurement).pressure},
	{"flush", named("linear"), (*measurement).flush},
	{"sustained", named("linear"), (*measurement).sustained},
	{"sustained-queue", outside, (*measurement).sustained},
	{"namespaces", named("linear"), (*measurement).namespaces},
	{"payload", echoing, (*measurement).throughput},
	{Memory, named("linear"), (*measurement).memory},
	{"idle", named("linear"), (*measurement).idle},
	{"limits", named("linear"), (*measurement).limits},
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
