package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Engine is what is measured.
type Engine interface {
	SubmitAll(ctx context.Context, all []pipeline.Submission) ([]pipeline.Submitted, error)
	Submit(ctx context.Context, s pipeline.Submission) (pipeline.Submitted, error)
	Ended(task vocab.UUID) (ended <-chan vocab.TaskState, stop func())
	OnFinished(f func(vocab.UUID, vocab.TaskState)) (stop func())
	TemplatesChanged(ctx context.Context) error
}

// Templates stores the template that is run.
type Templates interface {
	ApplyTemplate(ctx context.Context, source []byte, plans []workflow.Plan) (bool, error)
}

// Options say what to run.
type Options struct {
	Shape    string        // a key of Shapes
	Tasks    int           // at full load, without the warm-up
	Window   int           // tasks under way at once at full load
	Samples  int           // tasks of the latency measurement
	Pause    time.Duration // between them
	Progress func(phase string, done, total int)
}

// DefaultOptions are the ones a comparison should use.
func DefaultOptions() Options {
	return Options{Shape: "linear", Tasks: 20000, Window: 2000, Samples: 200, Pause: 10 * time.Millisecond}
}

// warmUpShare of the tasks run before the clock starts.
const warmUpShare = 0.2

// submitChunk is how many tasks are submitted with one call at full load.
const submitChunk = 250

// Run measures one shape.
func Run(ctx context.Context, e Engine, t Templates, server *Server, o Options) (readmodel.BenchReport, error) {
	shape, ok := Shapes[o.Shape]
	if !ok {
		return readmodel.BenchReport{}, fmt.Errorf("no benchmark %q", o.Shape)
	}
	if o.Progress == nil {
		o.Progress = func(string, int, int) {}
	}
	if err := apply(ctx, e, t, shape); err != nil {
		return readmodel.BenchReport{}, err
	}
	r := &run{engine: e, options: o, shape: shape}
	warm := max(int(float64(o.Tasks)*warmUpShare), min(o.Tasks, 50))
	if _, err := r.load(ctx, "warm-up", warm); err != nil {
		return readmodel.BenchReport{}, fmt.Errorf("warm-up: %w", err)
	}
	before, err := server.Counters(ctx)
	if err != nil {
		return readmodel.BenchReport{}, err
	}
	loaded, err := r.load(ctx, "load", o.Tasks)
	if err != nil {
		return readmodel.BenchReport{}, fmt.Errorf("load: %w", err)
	}
	after, err := server.Counters(ctx)
	if err != nil {
		return readmodel.BenchReport{}, err
	}
	idle, err := r.idle(ctx)
	if err != nil {
		return readmodel.BenchReport{}, fmt.Errorf("latency: %w", err)
	}
	steps := o.Tasks * shape.Steps
	report := readmodel.BenchReport{
		Name: o.Shape, Tasks: o.Tasks, Steps: steps, Seconds: loaded.elapsed.Seconds(),
		TasksPerSecond: float64(o.Tasks) / loaded.elapsed.Seconds(),
		StepsPerSecond: float64(steps) / loaded.elapsed.Seconds(),
		LatencyMS:      quantiles(idle), Extra: map[string]float64{},
	}
	cost := after.minus(before)
	report.WALBytesPerStep = cost.WALBytes / float64(steps)
	report.CommitsPerStep = cost.Commits / float64(steps)
	report.Extra["wal_full_page_images_per_step"] = cost.FullPageImages / float64(steps)
	report.Extra["dead_tuples_per_step"] = cost.DeadTuples / float64(steps)
	report.Extra["hot_update_share"] = cost.hotShare()
	under := quantiles(loaded.latencies)
	report.Extra["loaded_latency_ms_p50"], report.Extra["loaded_latency_ms_p99"] = under.P50, under.P99
	return report, nil
}

func apply(ctx context.Context, e Engine, t Templates, shape Shape) error {
	parsed, err := workflow.ParseTemplate("bench", shape.Template, workflow.Limits{})
	if err != nil {
		return fmt.Errorf("benchmark template: %w", err)
	}
	plans, err := parsed.Plans()
	if err != nil {
		return fmt.Errorf("benchmark template: %w", err)
	}
	if _, err := t.ApplyTemplate(ctx, shape.Template, plans); err != nil {
		return err
	}
	return e.TemplatesChanged(ctx)
}

type run struct {
	engine  Engine
	options Options
	shape   Shape
}

type loaded struct {
	elapsed   time.Duration
	latencies []time.Duration
}

var benchContext = json.RawMessage(`{"order_id":"7b1f0a52-4f6e-4f43-9d6b-2f7c9b1d5e10","amount":"209.97"}`)

func (r *run) submission() pipeline.Submission {
	return pipeline.Submission{Namespace: Namespace, Name: r.shape.Name, Version: benchVersion, Context: benchContext}
}

// load runs tasks with a window of them under way, and returns when all have
// ended.
func (r *run) load(ctx context.Context, phase string, tasks int) (loaded, error) {
	w := newWatch(tasks)
	stop := r.engine.OnFinished(w.finished)
	defer stop()
	window := make(chan struct{}, r.options.Window)
	w.release = func() { <-window }
	began := time.Now()
	var feeders sync.WaitGroup
	errs := make(chan error, 2)
	next := make(chan int)
	for range 2 { // two calls at once: one is under way while the next is made ready
		feeders.Go(func() {
			for n := range next {
				if err := r.submitChunk(ctx, w, n); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	err := r.feed(ctx, phase, tasks, window, next, errs)
	close(next)
	feeders.Wait()
	if err != nil {
		return loaded{}, err
	}
	select {
	case <-w.done:
	case err := <-errs:
		return loaded{}, err
	case <-ctx.Done():
		return loaded{}, ctx.Err()
	}
	if w.failed > 0 {
		return loaded{}, fmt.Errorf("%d of %d tasks did not complete", w.failed, tasks)
	}
	return loaded{time.Since(began), w.latencies}, nil
}

func (r *run) feed(ctx context.Context, phase string, tasks int, window chan<- struct{}, next chan<- int, errs <-chan error) error {
	for sent := 0; sent < tasks; {
		n := min(submitChunk, tasks-sent)
		for range n {
			select {
			case window <- struct{}{}:
			case err := <-errs:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		select {
		case next <- n:
		case err := <-errs:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
		sent += n
		r.options.Progress(phase, sent, tasks)
	}
	return nil
}

func (r *run) submitChunk(ctx context.Context, w *watch, n int) error {
	all := make([]pipeline.Submission, n)
	for i := range all {
		all[i] = r.submission()
	}
	began := time.Now()
	answers, err := r.engine.SubmitAll(ctx, all)
	if err != nil {
		return err
	}
	w.submitted(answers, began)
	return nil
}

// idle runs one task at a time.
func (r *run) idle(ctx context.Context) ([]time.Duration, error) {
	var all []time.Duration
	for i := range r.options.Samples {
		began := time.Now()
		ended := make(chan vocab.TaskState, 1)
		var mine sync.Mutex
		var id vocab.UUID
		early := map[vocab.UUID]vocab.TaskState{} // ended before Submit returned
		stop := r.engine.OnFinished(func(task vocab.UUID, s vocab.TaskState) {
			mine.Lock()
			defer mine.Unlock()
			if id == (vocab.UUID{}) {
				early[task] = s
			} else if task == id {
				ended <- s
			}
		})
		answer, err := r.engine.Submit(ctx, r.submission())
		if err != nil {
			stop()
			return nil, err
		}
		mine.Lock()
		id = answer.Task
		if s, ok := early[id]; ok {
			ended <- s
		}
		mine.Unlock()
		select {
		case s := <-ended:
			all = append(all, time.Since(began))
			if s != vocab.TaskComplete {
				err = fmt.Errorf("task %s ended as %s", id, s)
			}
		case <-time.After(30 * time.Second):
			err = errors.New("a task did not end within 30 seconds")
		case <-ctx.Done():
			err = ctx.Err()
		}
		stop()
		if err != nil {
			return nil, err
		}
		r.options.Progress("latency", i+1, r.options.Samples)
		time.Sleep(r.options.Pause)
	}
	return all, nil
}

// watch collects the ends of the tasks of a load.
type watch struct {
	want    int
	done    chan struct{}
	release func()

	mu        sync.Mutex
	began     map[vocab.UUID]time.Time
	early     map[vocab.UUID]end // ended before the call that submitted it returned
	latencies []time.Duration
	failed    int
}

type end struct {
	at    time.Time
	state vocab.TaskState
}

func newWatch(want int) *watch {
	return &watch{want: want, done: make(chan struct{}), began: make(map[vocab.UUID]time.Time, want), early: map[vocab.UUID]end{}}
}

func (w *watch) finished(task vocab.UUID, state vocab.TaskState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := end{time.Now(), state}
	if began, ok := w.began[task]; ok {
		delete(w.began, task)
		w.count(began, e)
	} else {
		w.early[task] = e
	}
}

func (w *watch) submitted(answers []pipeline.Submitted, began time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range answers {
		if e, ok := w.early[a.Task]; ok {
			delete(w.early, a.Task)
			w.count(began, e)
		} else {
			w.began[a.Task] = began
		}
	}
}

func (w *watch) count(began time.Time, e end) {
	w.latencies = append(w.latencies, e.at.Sub(began))
	if e.state != vocab.TaskComplete {
		w.failed++
	}
	w.release()
	if len(w.latencies) == w.want {
		close(w.done)
	}
}

// quantiles of durations, in milliseconds.
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
