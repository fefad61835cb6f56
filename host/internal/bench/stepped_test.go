package bench_test

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/finalizer"
	"github.com/tasker-systems/tasker-host/host/internal/bench"
	"github.com/tasker-systems/tasker-host/host/internal/payload"
	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	enginepool "github.com/tasker-systems/tasker-host/host/internal/pool"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// stepped is a real engine on a real database that does not depend on time: the test
// decides what happens next, so that every run makes the same calls with the same
// batches. It sits between the engine and its store, and is the engine's runner.
type stepped struct {
	*store.Store
	engine *pipeline.Engine

	mu       sync.Mutex
	changed  sync.Cond
	calls    []pluginhost.Call // that wait for an answer
	claims   int               // number of claims that returned
	finished int
	ids      map[string]int32 // answer of HandlerIDs, final by now
	queues   []string

	entered, creating chan int      // sizes of batches to settle and to create
	release           chan struct{} // lets the batch continue
	creators          pipeline.Executors
}

const (
	never        = 24 * time.Hour // no timer of the engine fires during a test
	steppedLimit = 10000          // more than ever run at once
	patience     = time.Minute
)

func newStepped(t *testing.T, pool *pgxpool.Pool) *stepped {
	t.Helper()
	s := &stepped{Store: store.New(pool), entered: make(chan int), creating: make(chan int), release: make(chan struct{})}
	s.changed.L = &s.mu
	hands := map[pipeline.PoolKind]pipeline.HandsConfig{}
	for _, kind := range []pipeline.PoolKind{pipeline.TaskRequestProcessor, pipeline.TaskClaimer, pipeline.StepResultProcessor} {
		hands[kind] = pipeline.HandsConfig{Size: 1, Pace: enginepool.Pace{Batch: 500, PollMin: never, PollMax: never, TurnTimeout: never, StopTimeout: patience}}
	}
	for _, kind := range []pipeline.PoolKind{pipeline.StepEnqueuer, pipeline.TaskFinalizer} {
		hands[kind] = pipeline.HandsConfig{Size: 1, Pace: enginepool.Pace{Batch: 500, TurnTimeout: never, StopTimeout: patience}}
	}
	cfg := pipeline.Config{
		Host: store.HostInfo{Name: "bench", Version: "0", Environment: "test", State: "normal"}, Environment: "test",
		State: func() string { return "normal" }, MaxInFlight: steppedLimit, Hands: hands,
		InputCache: 64 << 20, Memory: 64 << 20, MemoryShare: 1 << 20, MaxDependency: 256, StepExecutors: func(string) int { return steppedLimit },
		Lease: never, Heartbeat: never, SelfStop: time.Second, SweepInterval: never, LostAfter: never,
		InboxVT: 30 * time.Second, InboxMaxReads: 5,
		RequestQueue: "task_requests_queue", ResultQueue: "orchestration_step_results",
		Policy:  store.Policy{RetryAfterCap: time.Minute, ClaimFactor: 3},
		Payload: payload.ContextLimits(), Results: payload.Limits{MaxBytes: 4 << 20, MaxDepth: 64},
	}
	for _, queue := range []string{cfg.RequestQueue, cfg.ResultQueue} {
		require.NoError(t, s.CreateQueue(t.Context(), queue))
	}
	log := hclog.New(&hclog.LoggerOptions{Output: t.Output(), Level: hclog.Warn})
	s.engine = pipeline.New(cfg, s, s, finalizer.New(pool, "bench", time.Minute), prometheus.NewRegistry(), log)
	s.engine.OnFinished(func(_ vocab.UUID, state vocab.TaskState) {
		s.note(func() {
			if state == vocab.TaskComplete {
				s.finished++
			}
		})
	})
	for _, p := range s.engine.Pools() {
		if p.Kind == pipeline.StepEnqueuer {
			s.creators = p
		}
	}
	require.NotNil(t, s.creators)
	require.NoError(t, s.engine.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, s.engine.Stop(ctx))
	})
	return s
}

// apply stores the templates and waits until the engine has polled the queue that came
// with the first one.
func (s *stepped) apply(t *testing.T, shapes ...bench.Shape) {
	t.Helper()
	for _, shape := range shapes {
		parsed, err := workflow.ParseTemplate("bench", shape.Template, workflow.Limits{MaxSteps: steppedLimit})
		require.NoError(t, err)
		plans, err := parsed.Plans()
		require.NoError(t, err)
		_, err = s.ApplyTemplate(t.Context(), shape.Template, plans)
		require.NoError(t, err)
	}
	require.NoError(t, s.engine.TemplatesChanged(t.Context()))
	s.wait(t, "a look at the queue", func() bool { return s.claims > 0 })
}

// run takes n tasks of a shape from submission to their end, together. All steps that
// can run at once are settled together: first one of them; the others arrive while that
// transaction is in progress, and make a second one.
func (s *stepped) run(t *testing.T, shape bench.Shape, n int) {
	t.Helper()
	s.mu.Lock()
	finished := s.finished
	s.mu.Unlock()
	s.submit(t, shape, n)
	for _, width := range shape.Waves {
		s.answer(t, n*width)
	}
	s.wait(t, "the end of the tasks", func() bool { return s.finished == finished+n })
}

// submit lets one task be created, and then the others together, which arrived while that
// transaction was in progress.
func (s *stepped) submit(t *testing.T, shape bench.Shape, n int) {
	t.Helper()
	errs := make(chan error, 2)
	send := func(n int) {
		all := make([]pipeline.Submission, n)
		for i := range all {
			all[i] = pipeline.Submission{Namespace: bench.Namespace, Name: shape.Name, Version: "1.0.0", Context: bench.Context}
		}
		_, err := s.engine.SubmitAll(t.Context(), all)
		errs <- err
	}
	go send(1)
	s.pass(t, s.creating, 1, func() {
		if n > 1 {
			go send(n - 1)
			s.awaitWaiting(t, n-1)
		}
	})
	require.NoError(t, <-errs)
	if n > 1 {
		s.pass(t, s.creating, n-1, func() {})
		require.NoError(t, <-errs)
	}
}

// awaitWaiting waits until n tasks wait to be created. It allocates almost nothing, since
// its allocations would be counted as the engine's.
func (s *stepped) awaitWaiting(t *testing.T, n int) {
	t.Helper()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for end := time.Now().Add(patience); s.creators.State().Waiting != n; <-look.C {
		require.False(t, time.Now().After(end), "the tasks do not arrive")
	}
}

var noopResult = json.RawMessage(`{"status":"ok","handler":"bench.noop","value":420}`)

func (s *stepped) answer(t *testing.T, n int) {
	t.Helper()
	s.wait(t, "the calls of the steps", func() bool { return len(s.calls) == n })
	s.mu.Lock()
	calls := s.calls
	s.calls = nil
	s.mu.Unlock()
	done := func(calls []pluginhost.Call) {
		for _, c := range calls {
			c.Done(pluginhost.Outcome{Kind: vocab.OutcomeSuccess, Result: noopResult, Generation: 1})
		}
	}
	done(calls[:1])
	s.pass(t, s.entered, 1, func() { done(calls[1:]) })
	for left := n - 1; left > 0; {
		batch := min(left, 500)
		s.pass(t, s.entered, batch, func() {})
		left -= batch
	}
}

// pass lets one call with a batch of the given size pass; meanwhile runs while it is
// held up.
func (s *stepped) pass(t *testing.T, entered chan int, want int, meanwhile func()) {
	t.Helper()
	select {
	case got := <-entered:
		require.Equal(t, want, got, "the size of a batch")
	case <-time.After(patience):
		require.Fail(t, "no batch arrived")
	}
	meanwhile()
	s.release <- struct{}{}
}

func (s *stepped) note(what func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	what()
	s.changed.Broadcast()
}

func (s *stepped) wait(t *testing.T, what string, is func() bool) {
	t.Helper()
	late := false
	alarm := time.AfterFunc(patience, func() { s.note(func() { late = true }) })
	defer alarm.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !is() && !late {
		s.changed.Wait()
	}
	require.False(t, late, "waited in vain for %s", what)
}

// hold waits until the test lets a batch pass.
func (s *stepped) hold(ctx context.Context, entered chan int, n int) error {
	select {
	case entered <- n:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-s.release:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Settle calls the store's, when the test says so.
func (s *stepped) Settle(ctx context.Context, g store.Grant, p store.Policy, batch []store.Settlement) (store.Settled, error) {
	if err := s.hold(ctx, s.entered, len(batch)); err != nil {
		return store.Settled{}, err
	}
	return s.Store.Settle(ctx, g, p, batch)
}

// TakeDuty never grants retention, which would run by the clock, once a minute.
func (s *stepped) TakeDuty(context.Context, string, int32, time.Duration) (bool, error) {
	return false, nil
}

// CreateTasks calls the store's, when the test says so.
func (s *stepped) CreateTasks(ctx context.Context, g store.Grant, batch []store.NewTask, queue string) ([]store.Created, error) {
	if err := s.hold(ctx, s.creating, len(batch)); err != nil {
		return nil, err
	}
	return s.Store.CreateTasks(ctx, g, batch, queue)
}

// Claim calls the store's, and counts the calls.
func (s *stepped) Claim(ctx context.Context, g store.Grant, queue string, names []string, after int64) (store.Claimed, error) {
	defer s.note(func() { s.claims++ })
	return s.Store.Claim(ctx, g, queue, names, after)
}

// HandlerIDs asks the store only until it has an answer, since the engine asks every ten
// seconds.
func (s *stepped) HandlerIDs(ctx context.Context, names []string) (map[string]int32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if len(s.ids) == 0 {
		s.ids, err = s.Store.HandlerIDs(ctx, names)
	}
	return s.ids, err
}

// QueuesOf is like HandlerIDs.
func (s *stepped) QueuesOf(ctx context.Context, handlers []int32) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if len(s.queues) == 0 {
		s.queues, err = s.Store.QueuesOf(ctx, handlers)
	}
	return slices.Clone(s.queues), err
}

// Services says that there is room for everything.
func (s *stepped) Services() []pluginhost.Service {
	return []pluginhost.Service{{Name: "bench", Window: steppedLimit, Handlers: []string{"bench.noop"}}}
}

// Changed never fires.
func (s *stepped) Changed() <-chan struct{} { return nil }

// Dispatch keeps the call until it is answered.
func (s *stepped) Dispatch(call pluginhost.Call) {
	s.note(func() { s.calls = append(s.calls, call) })
}

// Cancel has nothing to cancel.
func (s *stepped) Cancel(string, string) {}
