package backend_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/tasker-systems/tasker-host/finalizer"
	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/auth"
	"github.com/tasker-systems/tasker-host/host/internal/backend"
	"github.com/tasker-systems/tasker-host/host/internal/health"
	"github.com/tasker-systems/tasker-host/host/internal/opstate"
	"github.com/tasker-systems/tasker-host/host/internal/payload"
	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/pool"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/internal/leaks"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

func TestMain(m *testing.M) {
	leaks.Main(m,
		goleak.IgnoreTopFunction("github.com/jackc/pgx/v5/pgxpool.(*Pool).backgroundHealthCheck"),
		goleak.IgnoreTopFunction("github.com/jackc/pgx/v5/pgxpool.(*Pool).triggerHealthCheck.func1"))
}

const twoTo128 = "340282366920938463463374607431768211456"

const pairYAML = `namespace: linear
name: pair
version: 1.0.0
description: Two steps in a line.
input_schema:
  type: object
  required: [n]
  properties:
    n: {type: integer, minimum: 0}
    "a/b": {type: string}
steps:
  - name: first
    handler: math.square
    timeout: 90s
  - name: second
    handler: math.hold
    depends_on: [first]
`

// handlers runs steps in process: math.square answers 2^128 at once; math.hold reports
// that it is half done and answers when it is released; everything else fails.
type handlers struct {
	plugins atomic.Pointer[[]readmodel.HostPlugin] // that the host reports
	hold    chan struct{}
	alive   context.Context // ends with the test
	end     context.CancelFunc

	mu      sync.Mutex
	running map[string]context.CancelFunc
	calls   sync.WaitGroup
}

func (h *handlers) Services() []pluginhost.Service {
	return []pluginhost.Service{{Name: "test", Window: 16, Handlers: []string{"math.square", "math.hold", "math.broken"}}}
}

func (h *handlers) Changed() <-chan struct{} { return nil }

func (h *handlers) Dispatch(call pluginhost.Call) {
	ctx, cancel := context.WithCancel(h.alive)
	h.mu.Lock()
	h.running[call.Step.GetStepUuid()] = cancel
	h.mu.Unlock()
	h.calls.Go(func() {
		defer cancel()
		if call.Handler == "math.hold" {
			call.Progress(pluginhost.Progress{Percent: 50, Note: "half way"})
		}
		call.Done(h.run(ctx, call.Handler))
		call.Progress(pluginhost.Progress{Percent: 51, Note: "late"})
	})
}

func (h *handlers) run(ctx context.Context, name string) pluginhost.Outcome {
	switch name {
	case "math.hold":
		select {
		case <-h.hold:
		case <-ctx.Done():
			return pluginhost.Outcome{Kind: vocab.OutcomeReleased, Failure: &pluginhost.Failure{Code: pluginhost.ReasonCancelled}}
		}
		fallthrough
	case "math.square":
		return pluginhost.Outcome{Kind: vocab.OutcomeSuccess, Result: json.RawMessage(twoTo128), Generation: 1}
	default:
		return pluginhost.Outcome{Kind: vocab.OutcomePermanent, Failure: &pluginhost.Failure{
			Type: vocab.PermanentError, Code: "BROKEN", Message: "it is broken",
		}}
	}
}

func (h *handlers) Cancel(step, _ string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if cancel := h.running[step]; cancel != nil {
		cancel()
	}
}

// plugins and pulse report what a test sets.
type plugins []pluginhost.Status

func (p plugins) Status() []pluginhost.Status { return p }

type pulse time.Time

func (p pulse) LastHeartbeat() time.Time { return time.Time(p) }

func (pulse) BeatEvery() time.Duration { return 0 }

func (pulse) Loops() []pipeline.Loop { return nil }

// bundle is a backend on its own database, with a running engine.
type bundle struct {
	*backend.Backend
	parts    backend.Parts
	pool     *pgxpool.Pool
	engine   *pipeline.Engine
	handlers *handlers
	state    *opstate.Machine
}

func setup(t *testing.T) *bundle {
	t.Helper()
	db := pgtest.New(t)
	st := store.New(db)
	h := &handlers{hold: make(chan struct{}), running: map[string]context.CancelFunc{}}
	h.alive, h.end = context.WithCancel(context.Background())
	h.plugins.Store(&[]readmodel.HostPlugin{{Kind: "handler", Name: "x", Version: "1.0.0", Generation: 3}})
	hands := map[pipeline.PoolKind]pipeline.HandsConfig{}
	for _, kind := range []pipeline.PoolKind{pipeline.TaskRequestProcessor, pipeline.TaskClaimer, pipeline.StepResultProcessor} {
		hands[kind] = pipeline.HandsConfig{Size: 1, Pace: pool.Pace{
			Batch: 50, PollMin: 5 * time.Millisecond, PollMax: 100 * time.Millisecond, TurnTimeout: time.Minute, StopTimeout: 10 * time.Second,
		}}
	}
	for _, kind := range []pipeline.PoolKind{pipeline.StepEnqueuer, pipeline.TaskFinalizer} {
		hands[kind] = pipeline.HandsConfig{Size: 1, Pace: pool.Pace{Batch: 50, TurnTimeout: time.Minute, StopTimeout: 10 * time.Second}}
	}
	cfg := pipeline.Config{
		Host: store.HostInfo{Name: "test", Version: "0", Environment: "test", State: "normal"}, Environment: "test", State: func() string { return "normal" },
		Plugins:     func() []readmodel.HostPlugin { return *h.plugins.Load() },
		MaxInFlight: 100, InputCache: 1 << 20, Memory: 64 << 20, MemoryShare: 1 << 20, MaxDependency: 16, Hands: hands,
		StepExecutors: func(string) int { return 100 },
		Lease:         30 * time.Second, Heartbeat: time.Second, SelfStop: 5 * time.Second, SweepInterval: time.Second, LostAfter: time.Second,
		InboxVT: 30 * time.Second, InboxMaxReads: 5,
		RequestQueue: "task_requests_queue", ResultQueue: "orchestration_step_results",
		Policy:  store.Policy{RetryAfterCap: 5 * time.Minute, ClaimFactor: 3},
		Payload: payload.ContextLimits(), Results: payload.ResultLimits(),
	}
	require.NoError(t, st.CreateQueue(t.Context(), cfg.RequestQueue))
	require.NoError(t, st.CreateQueue(t.Context(), cfg.ResultQueue))
	engine := pipeline.New(cfg, st, h, finalizer.New(db, "test", 30*time.Second), prometheus.NewRegistry(), hclog.NewNullLogger())
	require.NoError(t, engine.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		h.end()
		require.NoError(t, engine.Stop(ctx))
		h.calls.Wait()
	})
	state := opstate.New(time.Now)
	_, err := state.To(opstate.Normal, "test")
	require.NoError(t, err)
	parts := backend.Parts{
		Store: st, Engine: engine, Pools: func() []health.Named { return []health.Named{{Name: "task_claimer"}} }, Repairs: engine, Pulse: pulse(time.Now()), State: state, Now: time.Now, Bearers: auth.NewTokens(st, time.Second, time.Now),
		Plugins: plugins{{Kind: "handler", Name: "math", State: pluginhost.Serving, Handlers: []string{"math.square"}}},
	}
	return &bundle{
		Backend: backend.New(parts, backend.Config{Heartbeat: time.Hour}),
		parts:   parts, pool: db, engine: engine, handlers: h, state: state,
	}
}

func (b *bundle) apply(t *testing.T, yaml string) readmodel.Template {
	t.Helper()
	tmpl, created, err := b.ApplyTemplate(t.Context(), "test.yaml", []byte(yaml))
	require.NoError(t, err)
	require.True(t, created)
	return tmpl
}

func (b *bundle) submit(t *testing.T) vocab.UUID {
	t.Helper()
	task, created, err := b.Submit(t.Context(), pairSubmission())
	require.NoError(t, err)
	require.True(t, created)
	return parse(t, task.UUID)
}

func pairSubmission() api.Submission {
	return api.Submission{Namespace: "linear", Name: "pair", Context: json.RawMessage(`{"n": ` + twoTo128 + `}`)}
}

func parse(t *testing.T, s string) vocab.UUID {
	t.Helper()
	id, err := vocab.ParseUUID(s)
	require.NoError(t, err)
	return id
}

// watchUntil follows a task until ok is true for a snapshot.
func (b *bundle) watchUntil(t *testing.T, task vocab.UUID, ok func(readmodel.Snapshot) bool) readmodel.Snapshot {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	after := ""
	for {
		snap, err := b.Watch(ctx, task, after)
		require.NoError(t, err)
		require.NoError(t, ctx.Err(), "last seen: %+v", snap)
		if ok(snap) {
			return snap
		}
		after = snap.Revision()
	}
}

// faultOf returns the fault in an error, which must have the given kind and code.
func faultOf(t *testing.T, err, kind error, code string) *api.Fault {
	t.Helper()
	f, ok := errors.AsType[*api.Fault](err)
	require.True(t, ok, "%v", err)
	require.ErrorIs(t, err, kind)
	require.Equal(t, code, f.Code)
	return f
}
