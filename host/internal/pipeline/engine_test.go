package pipeline_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/tasker-systems/tasker-host/finalizer"
	"github.com/tasker-systems/tasker-host/host/internal/payload"
	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/pool"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/internal/leaks"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	"github.com/tasker-systems/tasker-host/sdk/handler"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

func TestMain(m *testing.M) {
	leaks.Main(m,
		goleak.IgnoreTopFunction("github.com/jackc/pgx/v5/pgxpool.(*Pool).backgroundHealthCheck"),
		goleak.IgnoreTopFunction("github.com/jackc/pgx/v5/pgxpool.(*Pool).triggerHealthCheck.func1"))
}

// handlerFunc is an in-process handler.
type handlerFunc func(ctx context.Context, s *pluginv1.Step) pluginhost.Outcome

// runner runs handlers in process, each call in its own goroutine.
type runner struct {
	handlers map[string]handlerFunc
	window   int
	changed  chan struct{}
	before   func(call pluginhost.Call) // called before a call is registered; nil: nothing

	mu      sync.Mutex
	running map[string]context.CancelCauseFunc // by step uuid
	stopped bool
	calls   sync.WaitGroup
}

func newRunner(handlers map[string]handlerFunc) *runner {
	return &runner{handlers: handlers, window: 64, changed: make(chan struct{}, 1), running: map[string]context.CancelCauseFunc{}}
}

func (r *runner) Services() []pluginhost.Service {
	s := pluginhost.Service{Name: "test", Window: r.window}
	for name := range r.handlers {
		s.Handlers = append(s.Handlers, name)
	}
	return []pluginhost.Service{s}
}

func (r *runner) Changed() <-chan struct{} { return r.changed }

func (r *runner) Dispatch(call pluginhost.Call) {
	if r.before != nil {
		r.before(call)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	r.mu.Lock()
	if r.stopped { // as the plugin host answers
		r.mu.Unlock()
		cancel(nil)
		call.Done(failure(vocab.OutcomeReleased, "stopped"))
		return
	}
	r.running[call.Step.StepUuid] = cancel
	ctx = handler.WithProgress(ctx, func(percent int, note string) {
		call.Progress(pluginhost.Progress{Percent: percent, Note: note})
	})
	r.calls.Go(func() { // under the lock: stop waits for all calls before it
		o := r.handlers[call.Handler](ctx, call.Step)
		r.mu.Lock()
		delete(r.running, call.Step.StepUuid)
		r.mu.Unlock()
		cancel(nil)
		call.Done(o)
	})
	r.mu.Unlock()
}

func (r *runner) Cancel(step, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if cancel := r.running[step]; cancel != nil {
		cancel(fmt.Errorf("%s", reason))
	}
}

func (r *runner) stop() {
	r.mu.Lock()
	r.stopped = true
	for _, cancel := range r.running {
		cancel(fmt.Errorf("stopping"))
	}
	r.mu.Unlock()
	r.calls.Wait()
}

func success(v string) pluginhost.Outcome {
	return pluginhost.Outcome{Kind: vocab.OutcomeSuccess, Result: json.RawMessage(v), Generation: 1}
}

func failure(kind vocab.Outcome, message string) pluginhost.Outcome {
	return pluginhost.Outcome{Kind: kind, Failure: &pluginhost.Failure{Type: vocab.PermanentError, Message: message}}
}

// bench is a host without plugins and API, on its own database.
type testBundle struct {
	pool   *pgxpool.Pool
	store  *store.Store
	engine *pipeline.Engine
	runner *runner
	counts *prometheus.Registry
}

func testConfig() pipeline.Config {
	return pipeline.Config{
		Host: store.HostInfo{Name: "test", Version: "0", Environment: "test", State: "normal"}, Environment: "test", State: func() string { return "normal" },
		MaxInFlight: 2000, InputCache: 64 << 20, Memory: 64 << 20, MemoryShare: 1 << 20, MaxDependency: 256, Hands: testHands(),
		StepExecutors: func(string) int { return 1000 },
		Lease:         30 * time.Second, Heartbeat: time.Second, SelfStop: 5 * time.Second, SweepInterval: 500 * time.Millisecond, LostAfter: time.Second,
		InboxVT: 30 * time.Second, InboxMaxReads: 5,
		RequestQueue: "task_requests_queue", ResultQueue: "orchestration_step_results",
		Policy:  store.Policy{RetryAfterCap: 5 * time.Minute, ClaimFactor: 3},
		Payload: payload.ContextLimits(), Results: payload.ResultLimits(),
	}
}

// testHands are the pools of a test host.
func testHands() map[pipeline.PoolKind]pipeline.HandsConfig {
	woken := pool.Pace{Batch: 500, TurnTimeout: time.Minute, StopTimeout: 5 * time.Second}
	reading := woken
	reading.PollMin, reading.PollMax = 5*time.Millisecond, 100*time.Millisecond
	inbox := reading
	inbox.Batch = 50
	return map[pipeline.PoolKind]pipeline.HandsConfig{
		pipeline.TaskRequestProcessor: {Size: 1, Pace: inbox}, pipeline.TaskClaimer: {Size: 1, Pace: reading},
		pipeline.StepResultProcessor: {Size: 1, Pace: inbox},
		pipeline.StepEnqueuer:        {Size: 2, Pace: woken}, pipeline.TaskFinalizer: {Size: 2, Pace: woken},
	}
}

// hands changes a pool in a configuration.
func hands(kind pipeline.PoolKind, change func(h *pipeline.HandsConfig)) func(*pipeline.Config) {
	return func(c *pipeline.Config) {
		h := c.Hands[kind]
		change(&h)
		c.Hands[kind] = h
	}
}

// tune changes the pace of a running pool.
func tune(t *testing.T, e *pipeline.Engine, kind pipeline.PoolKind, change func(p *pool.Pace)) {
	t.Helper()
	pace := testHands()[kind].Pace
	change(&pace)
	for _, p := range e.Pools() {
		if p.Kind == kind {
			p.Tune(pace)
		}
	}
}

func setup(t *testing.T, handlers map[string]handlerFunc, change ...func(*pipeline.Config)) *testBundle {
	t.Helper()
	return setupOn(t, pgtest.New(t), handlers, change...)
}

func setupOn(t *testing.T, db *pgxpool.Pool, handlers map[string]handlerFunc, change ...func(*pipeline.Config)) *testBundle {
	t.Helper()
	st := store.New(db)
	return setupWith(t, db, st, st, handlers, change...)
}

// setupWith sets up an engine whose calls go to a store that wraps that of the bundle.
func setupWith(t *testing.T, db *pgxpool.Pool, asked pipeline.Store, st *store.Store, handlers map[string]handlerFunc, change ...func(*pipeline.Config)) *testBundle {
	t.Helper()
	cfg := testConfig()
	for _, f := range change {
		f(&cfg)
	}
	require.NoError(t, st.CreateQueue(t.Context(), cfg.RequestQueue))
	require.NoError(t, st.CreateQueue(t.Context(), cfg.ResultQueue))
	b := &testBundle{pool: db, store: st, runner: newRunner(handlers), counts: prometheus.NewRegistry()}
	log := hclog.New(&hclog.LoggerOptions{Name: t.Name(), Output: os.Stderr, Level: hclog.Error})
	b.engine = pipeline.New(cfg, asked, b.runner, finalizer.New(db, "test", 30*time.Second), b.counts, log)
	require.NoError(t, b.engine.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		b.runner.stop()
		require.NoError(t, b.engine.Stop(ctx))
		require.Empty(t, b.engine.Left())
	})
	return b
}

// apply stores a template given as YAML steps.
func (b *testBundle) apply(t *testing.T, yaml string) {
	t.Helper()
	parsed, err := workflow.ParseTemplate("test.yaml", []byte(yaml), workflow.Limits{})
	require.NoError(t, err)
	plans, err := parsed.Plans()
	require.NoError(t, err)
	_, err = b.store.ApplyTemplate(t.Context(), []byte(yaml), plans)
	require.NoError(t, err)
	require.NoError(t, b.engine.TemplatesChanged(t.Context()))
}

func (b *testBundle) submit(t *testing.T, name, context string) vocab.UUID {
	t.Helper()
	s, err := b.engine.Submit(t.Context(), pipeline.Submission{Namespace: "test_ns", Name: name, Version: "1.0.0", Context: json.RawMessage(context)})
	require.NoError(t, err)
	return s.Task
}

// settled waits until the task is settled and returns its state.
func (b *testBundle) settled(t *testing.T, task vocab.UUID) vocab.TaskState {
	t.Helper()
	var state vocab.TaskState
	require.Eventually(t, func() bool {
		require.NoError(t, b.pool.QueryRow(t.Context(), `select state::text from tasker_tasks where task_uuid = $1`, task).Scan(&state))
		return !state.Active()
	}, time.Minute, 5*time.Millisecond)
	return state
}

func (b *testBundle) result(t *testing.T, task vocab.UUID, step int) string {
	t.Helper()
	var result string
	require.NoError(t, b.pool.QueryRow(t.Context(),
		`select result::text from tasker_workflow_steps where task_uuid = $1 and step_no = $2`, task, step).Scan(&result))
	return result
}

const diamond = `
namespace: test_ns
name: diamond
version: 1.0.0
steps:
  - {name: a, handler: t.step}
  - {name: b, handler: t.step, depends_on: [a]}
  - {name: c, handler: t.step, depends_on: [a]}
  - {name: d, handler: t.step, depends_on: [b, c]}
`

func TestDiamondRunsInOrderWithAllResults(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]handlerFunc{"t.step": func(_ context.Context, s *pluginv1.Step) pluginhost.Outcome {
		have := ""
		for _, d := range s.Dependencies {
			have += d.StepName + string(d.Result)
		}
		v, _ := json.Marshal(s.StepName + "<" + have)
		return success(string(v))
	}})
	b.apply(t, diamond)
	task := b.submit(t, "diamond", `{"x": 340282366920938463463374607431768211456}`)
	require.Equal(t, vocab.TaskComplete, b.settled(t, task))
	require.Equal(t, `"a<"`, b.result(t, task, 0))
	require.Contains(t, b.result(t, task, 3), `d<`)
	for _, parent := range []string{"b", "c", "a"} {
		require.Contains(t, b.result(t, task, 3), parent)
	}
	var context string
	require.NoError(t, b.pool.QueryRow(t.Context(), `select context::text from tasker_tasks where task_uuid = $1`, task).Scan(&context))
	require.Contains(t, context, "340282366920938463463374607431768211456")
}

// A task whose roots were all leased to the host has nothing in a queue, and nobody looks
// there; one with more roots than the host may hold has.
func TestCreatingCallsClaimersOnlyToWhatWaits(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	b := setup(t, map[string]handlerFunc{"t.step": func(ctx context.Context, s *pluginv1.Step) pluginhost.Outcome {
		if s.TaskName == "wide" {
			select {
			case <-release:
			case <-ctx.Done():
			}
		}
		return success(`1`)
	}})
	b.apply(t, diamond)
	wide := "namespace: test_ns\nname: wide\nversion: 1.0.0\nsteps:\n"
	for i := range 300 {
		wide += fmt.Sprintf("  - {name: s%d, handler: t.step}\n", i)
	}
	b.apply(t, wide)
	before := b.engine.Signs()
	for range 3 {
		require.Equal(t, vocab.TaskComplete, b.settled(t, b.submit(t, "diamond", `{}`)))
	}
	require.Equal(t, before, b.engine.Signs())
	task := b.submit(t, "wide", `{}`)
	require.Eventually(t, func() bool { return b.engine.Signs() > before }, time.Minute, time.Millisecond)
	close(release)
	require.Equal(t, vocab.TaskComplete, b.settled(t, task))
}

func TestPermanentFailureFailsTheTaskAfterTheOtherBranch(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	b := setup(t, map[string]handlerFunc{"t.step": func(ctx context.Context, s *pluginv1.Step) pluginhost.Outcome {
		switch s.StepName {
		case "b":
			return failure(vocab.OutcomePermanent, "no")
		case "c":
			select {
			case <-release:
			case <-ctx.Done():
			}
		}
		return success(`1`)
	}})
	b.apply(t, diamond)
	task := b.submit(t, "diamond", `{}`)
	require.Eventually(t, func() bool {
		var n int
		require.NoError(t, b.pool.QueryRow(t.Context(), `select count(*) from tasker_workflow_steps where task_uuid = $1 and state = 'error'`, task).Scan(&n))
		return n == 1
	}, time.Minute, 5*time.Millisecond)
	var state string
	require.NoError(t, b.pool.QueryRow(t.Context(), `select state::text from tasker_tasks where task_uuid = $1`, task).Scan(&state))
	require.Equal(t, "in_progress", state, "c still runs")
	close(release)
	require.Equal(t, vocab.TaskError, b.settled(t, task))
	var step string
	require.NoError(t, b.pool.QueryRow(t.Context(), `select error ->> 'step' from tasker_tasks where task_uuid = $1`, task).Scan(&step))
	require.Equal(t, "b", step)
}
