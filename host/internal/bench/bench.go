package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Engine is the subject of the measurements.
type Engine interface {
	SubmitAll(ctx context.Context, all []pipeline.Submission) ([]pipeline.Submitted, error)
	Submit(ctx context.Context, s pipeline.Submission) (pipeline.Submitted, error)
	OnFinished(f func(vocab.UUID, vocab.TaskState)) (stop func())
	TemplatesChanged(ctx context.Context) error
}

// Templates stores the templates of the tasks.
type Templates interface {
	ApplyTemplate(ctx context.Context, source []byte, plans []workflow.Plan) (bool, error)
}

// Site is the place of a measurement: hosts, database, and what else it needs.
type Site struct {
	Engines   []Engine // one per host
	Templates Templates
	Pool      *pgxpool.Pool   // the benchmark's own connections
	Pools     []*pgxpool.Pool // the hosts' own
	Plugins   func() []int    // process ids of the hosts' plugins
	MaxSteps  int             // the limit of a template; 0: the default
	// Workers starts n outside workers on the bench's namespace. recorded is called
	// with the number of steps that they settled since its last call, failed if one
	// cannot continue. stop returns when all have ended.
	Workers func(ctx context.Context, n int, how Manner, recorded func(steps int), failed func(error)) (stop func(), err error)
	// Restart stops the hosts and starts others whose sessions have the given server
	// settings. Later measurements use the site that it returns.
	Restart func(ctx context.Context, session map[string]string) (Site, error)
	// Apart starts a host in a separate process, or in this one if handlers run inside
	// the hosts.
	Apart    func(ctx context.Context) (Apart, error)
	Pause    func(ctx context.Context, pause bool) error // the bench's namespace
	Requests string                                      // the queue for task requests
}

// Context is the context of all benchmark tasks.
var Context = json.RawMessage(`{"order_id":"7b1f0a52-4f6e-4f43-9d6b-2f7c9b1d5e10","amount":"209.97"}`)

// padded is Context, padded to the given number of bytes.
func padded(size int) json.RawMessage {
	const note = `,"note":""}`
	base := string(Context[:len(Context)-1])
	return json.RawMessage(base + note[:len(note)-2] + strings.Repeat("x", max(size-len(base)-len(note), 0)) + note[len(note)-2:])
}

// Run measures one workload.
func Run(ctx context.Context, s Site, o Options) (readmodel.BenchReport, error) {
	w, err := find(o)
	if err != nil {
		return readmodel.BenchReport{}, err
	}
	if o.Progress == nil {
		o.Progress = func(string, int, int) {}
	}
	shape := w.shape(o)
	m := &measurement{ctx: ctx, Site: s, shape: shape, input: Context, server: newServer(s.Pool)}
	if w.Name == "payload" {
		m.input = padded(o.Payload)
		if o.Tasks == 0 {
			o.Tasks = max(defaultBytes/len(m.input)/shape.Steps, 10)
		}
		if o.Window == 0 {
			o.Window = max(o.Tasks/4, 1)
		}
	}
	if w.Name == Memory && o.Tasks == 0 {
		o.Tasks = inFlightTasks
	}
	if o.Tasks == 0 {
		o.Tasks = max(defaultSteps/shape.Steps, 1)
	}
	if o.Window == 0 {
		o.Window = max(defaultWindow/shape.Steps, 1)
	}
	m.options = o
	m.report.Name = w.Name
	if m.report.Setting, err = m.setting(); err != nil {
		return m.report, err
	}
	if err := m.apply(m.shape, Namespace); err != nil {
		return m.report, err
	}
	if err := s.Pause(ctx, false); err != nil { // a run that was killed may have left it paused
		return m.report, err
	}
	if shape.handler == apart {
		work, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		stop, err := s.Workers(ctx, o.Workers, Manner{Claim: o.Claim, Way: o.Way}, m.recorded, cancel)
		if err != nil {
			return m.report, err
		}
		defer stop()
		m.ctx = work
	}
	if err := w.run(m); err != nil {
		if cause := context.Cause(m.ctx); cause != nil {
			err = cause
		}
		return m.report, fmt.Errorf("%s: %w", w.Name, err)
	}
	if w.Name != Memory { // which measured another process
		m.report.PeakMemoryBytes = peakMemory()
	}
	return m.report, nil
}

const (
	defaultSteps  = 80000       // at full load; the number of tasks follows from it
	defaultBytes  = 200_000_000 // of all results, in the workload payload
	defaultWindow = 8000        // steps of the tasks in progress at once
)

// measurement is one run of a workload.
type measurement struct {
	Site
	ctx     context.Context // of a single call
	options Options
	shape   Shape
	input   json.RawMessage // for each task
	server  *server
	report  readmodel.BenchReport
	next    int // the namespace of the next task
	spread  int // the number of namespaces used
	outside outsideSteps
}

// apply stores the shape's template for a namespace.
func (m *measurement) apply(shape Shape, namespace string) error {
	source := shape.in(namespace)
	parsed, err := workflow.ParseTemplate("bench", source, workflow.Limits{MaxSteps: m.MaxSteps, MaxSource: 64 << 20})
	if err != nil {
		return fmt.Errorf("benchmark template: %w", err)
	}
	plans, err := parsed.Plans()
	if err != nil {
		return fmt.Errorf("benchmark template: %w", err)
	}
	if _, err := m.Templates.ApplyTemplate(m.ctx, source, plans); err != nil {
		return err
	}
	for _, e := range m.Engines {
		if err := e.TemplatesChanged(m.ctx); err != nil {
			return err
		}
	}
	return nil
}

func (m *measurement) submission() pipeline.Submission {
	s := pipeline.Submission{Namespace: Namespace, Name: m.shape.Name, Version: benchVersion, Context: m.input}
	if m.spread > 1 {
		s.Namespace = namespaceOf(m.next % m.spread)
		m.next++
	}
	return s
}

// warmUp is the number of tasks in the warm-up.
func warmUp(o Options) int { return max(o.Tasks/5, min(o.Tasks, 50)) }

// loads warms up, and measures full load as often as requested.
func (m *measurement) loads() (full, error) {
	o := m.options
	if _, err := m.load("warm-up", warmUp(o)); err != nil {
		return full{}, fmt.Errorf("warm-up: %w", err)
	}
	all := make([]full, 0, o.Repeats)
	for i := range o.Repeats {
		f, err := m.measured(fmt.Sprintf("load %d of %d", i+1, o.Repeats))
		if err != nil {
			return full{}, fmt.Errorf("load: %w", err)
		}
		all = append(all, f)
	}
	return median(all), nil
}

// full is the result of one measurement at full load, or the medians of several.
type full struct {
	seconds, least, most float64 // least and most steps per second
	cost                 cost    // of a step
	latency              []time.Duration
}

func (m *measurement) measured(phase string) (full, error) {
	before, err := m.count()
	if err != nil {
		return full{}, err
	}
	l, err := m.load(phase, m.options.Tasks)
	if err != nil {
		return full{}, err
	}
	after, err := m.count()
	if err != nil {
		return full{}, err
	}
	steps := float64(m.options.Tasks * m.shape.Steps)
	rate := steps / l.elapsed.Seconds()
	return full{l.elapsed.Seconds(), rate, rate, after.minus(before).each(steps), l.latencies}, nil
}

func median(all []full) full {
	pick := func(get func(full) float64) float64 {
		values := make([]float64, len(all))
		for i, f := range all {
			values[i] = get(f)
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	out := full{seconds: pick(func(f full) float64 { return f.seconds }), least: all[0].least, most: all[0].most}
	for _, f := range all {
		out.least, out.most = min(out.least, f.least), max(out.most, f.most)
		out.latency = append(out.latency, f.latency...)
	}
	for i := range out.cost {
		out.cost[i] = pick(func(f full) float64 { return f.cost[i] })
	}
	return out
}

// tell adds a measurement at full load to the report.
func (m *measurement) tell(f full) {
	r, o := &m.report, m.options
	r.Tasks, r.Steps, r.Seconds, r.Repeats = o.Tasks, o.Tasks*m.shape.Steps, f.seconds, o.Repeats
	r.TasksPerSecond, r.StepsPerSecond = float64(r.Tasks)/f.seconds, float64(r.Steps)/f.seconds
	r.StepsPerSecondLeast, r.StepsPerSecondMost = f.least, f.most
	if len(f.latency) > 0 {
		q := quantiles(f.latency)
		r.FullLoadLatencyMS = &q
	}
	f.cost.tell(r)
}

// compared reports two measurements at full load, of which the second counts.
func (m *measurement) compared(first, second full) {
	m.tell(second)
	m.report.BaselineStepsPerSecond = float64(m.report.Steps) / first.seconds
	m.report.Ratio = first.seconds / second.seconds
}

// setting describes the environment of the measurement.
func (m *measurement) setting() (readmodel.BenchSetting, error) {
	s := readmodel.BenchSetting{
		CPUs: runtime.NumCPU(), CPU: cpuModel(), MemoryBytes: memoryBytes(), Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH,
		Hosts: max(len(m.Engines), 1), InProcess: m.options.InProcess, Window: m.options.Window,
	}
	var err error
	s.Database, err = m.server.settings(m.ctx)
	return s, err
}

// quantiles returns those of durations, in milliseconds.
func quantiles(all []time.Duration) readmodel.Quantiles {
	if len(all) == 0 {
		return readmodel.Quantiles{}
	}
	sorted := slices.Sorted(slices.Values(all))
	at := func(q float64) float64 {
		return float64(sorted[min(int(q*float64(len(sorted))), len(sorted)-1)].Microseconds()) / 1000
	}
	return readmodel.Quantiles{P50: at(0.50), P95: at(0.95), P99: at(0.99), Max: at(1)}
}
