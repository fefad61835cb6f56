package bench

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// submitChunk is how many tasks are submitted with one call at full load.
const submitChunk = 250

type loaded struct {
	elapsed   time.Duration
	latencies []time.Duration // empty for outside workers
}

// load runs tasks, at most a window of them at once, and returns when all have ended.
func (m *measurement) load(phase string, tasks int) (loaded, error) {
	l, _, err := m.flow(newWatch(tasks), func() {}, flow{
		next:     func(sent int) int { return min(submitChunk, tasks-sent, m.options.Window) },
		progress: func(sent int) { m.options.Progress(phase, sent, tasks) },
	})
	return l, err
}

// flow runs tasks, at most a window of them at once, and calls release when one ends.
// It returns their number when all have ended.
func (m *measurement) flow(w *watch, release func(), f flow) (loaded, int, error) {
	window := make(chan struct{}, m.options.Window)
	w.release = func() { <-window; release() }
	stop := m.watch(w)
	defer stop()
	began := time.Now()
	feeders := 2 * len(m.Engines) // two calls at once: one is in progress while the next is prepared
	errs := make(chan error, feeders)
	next := make(chan []pipeline.Submission)
	var all sync.WaitGroup
	for i := range feeders {
		all.Go(func() {
			for chunk := range next {
				if err := m.submit(m.Engines[i%len(m.Engines)], w, chunk); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	sent, err := m.feed(f, window, next, errs)
	close(next)
	all.Wait()
	if err != nil {
		return loaded{}, sent, err
	}
	w.expect(sent)
	select {
	case <-w.done:
	case err := <-errs:
		return loaded{}, sent, err
	case <-m.ctx.Done():
		return loaded{}, sent, m.ctx.Err()
	}
	if w.failed > 0 {
		return loaded{}, sent, fmt.Errorf("%d of %d tasks did not complete", w.failed, sent)
	}
	return loaded{time.Since(began), w.latencies}, sent, nil
}

func (m *measurement) submit(e Engine, w *watch, chunk []pipeline.Submission) error {
	began := time.Now()
	answers, err := e.SubmitAll(m.ctx, chunk)
	if err != nil {
		return err
	}
	w.submitted(answers, began)
	return nil
}

// watch passes every end to the watch until stop is called.
func (m *measurement) watch(w *watch) (stop func()) {
	if m.shape.handler == apart {
		return m.outside.follow(m.shape.Steps, w)
	}
	stops := make([]func(), len(m.Engines))
	for i, e := range m.Engines {
		stops[i] = e.OnFinished(w.finished)
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}
}

// one runs a task and returns how long it took.
func (m *measurement) one(e Engine) (vocab.UUID, time.Duration, error) {
	w := newWatch(1)
	stop := m.watch(w)
	defer stop()
	ctx, cancel := context.WithTimeout(m.ctx, oneTask)
	defer cancel()
	began := time.Now()
	answer, err := e.Submit(ctx, m.submission())
	if err != nil {
		return answer.Task, 0, err
	}
	w.submitted([]pipeline.Submitted{answer}, began)
	select {
	case <-w.done:
	case <-ctx.Done():
		return answer.Task, 0, fmt.Errorf("task %s did not end within %s: %w", answer.Task, oneTask, ctx.Err())
	}
	if w.failed > 0 {
		return answer.Task, 0, fmt.Errorf("task %s did not complete", answer.Task)
	}
	if m.shape.handler == apart {
		return answer.Task, time.Since(began), nil
	}
	return answer.Task, w.latencies[0], nil
}

// oneTask is how long a single task on an idle system may take.
const oneTask = 30 * time.Second

// watch collects the ends of tasks.
type watch struct {
	done    chan struct{} // closed when the wanted number has ended
	release func()        // called for each end

	mu        sync.Mutex
	want      int // 0: not yet known
	began     map[vocab.UUID]time.Time
	early     map[vocab.UUID]end // ended before the call that submitted it returned
	latencies []time.Duration
	ended     int
	failed    int
}

type end struct {
	at    time.Time
	state vocab.TaskState
}

func newWatch(want int) *watch {
	return &watch{
		want: want, done: make(chan struct{}), release: func() {},
		began: make(map[vocab.UUID]time.Time, want), early: map[vocab.UUID]end{},
	}
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
	w.due(answers, func(int) time.Time { return began })
}

// due is like submitted, for tasks whose latency counts from a given time.
func (w *watch) due(answers []pipeline.Submitted, began func(i int) time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, a := range answers {
		if e, ok := w.early[a.Task]; ok {
			delete(w.early, a.Task)
			w.count(began(i), e)
		} else {
			w.began[a.Task] = began(i)
		}
	}
}

func (w *watch) count(began time.Time, e end) {
	w.latencies = append(w.latencies, e.at.Sub(began))
	if e.state != vocab.TaskComplete {
		w.failed++
	}
	w.add()
}

// expect sets the number of wanted ends, if it was not known before.
func (w *watch) expect(want int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.want == want {
		return
	}
	if w.want = want; w.ended == want {
		close(w.done)
	}
}

// settled counts an end without knowing its task.
func (w *watch) settled() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.add()
}

func (w *watch) add() {
	w.ended++
	w.release()
	if w.ended == w.want {
		close(w.done)
	}
}

// outsideSteps converts the number of steps that outside workers settled into ends of
// tasks. The number of tasks that have ended follows from it, except for those in
// progress.
type outsideSteps struct {
	mu    sync.Mutex
	watch *watch
	each  int // steps per task
	steps int // of tasks that were not counted yet
}

func (o *outsideSteps) follow(each int, w *watch) (stop func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.watch, o.each, o.steps = w, each, 0
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.watch = nil
	}
}

func (m *measurement) recorded(steps int) {
	o := &m.outside
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.watch == nil {
		return // of an earlier run
	}
	for o.steps += steps; o.steps >= o.each; o.steps -= o.each {
		o.watch.settled()
	}
}
