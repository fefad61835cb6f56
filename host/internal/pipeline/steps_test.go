package pipeline_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// gated is a handler whose steps run until they are released.
type gated struct {
	running, most atomic.Int64
	let           chan struct{}
}

func (g *gated) run(ctx context.Context, _ *pluginv1.Step) pluginhost.Outcome {
	for now := g.running.Add(1); ; {
		if seen := g.most.Load(); now <= seen || g.most.CompareAndSwap(seen, now) {
			break
		}
	}
	defer g.running.Add(-1)
	select {
	case <-g.let:
		return success(`1`)
	case <-ctx.Done():
		return failure(vocab.OutcomeReleased, "stopping")
	}
}

func (b *testBundle) submitMany(t *testing.T, n int) []vocab.UUID {
	t.Helper()
	all := make([]pipeline.Submission, n)
	for i := range all {
		all[i] = pipeline.Submission{Namespace: "test_ns", Name: "one", Version: "1.0.0"}
	}
	done, err := b.engine.SubmitAll(t.Context(), all)
	require.NoError(t, err)
	tasks := make([]vocab.UUID, n)
	for i := range done {
		tasks[i] = done[i].Task
	}
	return tasks
}

func (b *testBundle) stepsPool(t *testing.T) pipeline.Pool {
	t.Helper()
	for _, p := range b.engine.Pools() {
		if p.Kind == pipeline.StepExecution && p.Namespace == "test_ns" {
			return p
		}
	}
	t.Fatal("there is no pool for the namespace")
	return pipeline.Pool{}
}

// The size of a namespace's pool is how many of its steps run at once; changes take
// effect at once, and everything gets done.
func TestThePoolsSizeIsHowManyStepsRun(t *testing.T) {
	t.Parallel()
	g := &gated{let: make(chan struct{})}
	b := setup(t, map[string]handlerFunc{"t.step": g.run}, func(c *pipeline.Config) {
		c.StepExecutors = func(string) int { return 3 }
	})
	b.apply(t, oneStep)
	tasks := b.submitMany(t, 200)
	p := b.stepsPool(t)
	runs := func(n int) {
		t.Helper()
		require.Eventually(t, func() bool { return g.running.Load() == int64(n) }, time.Minute, 2*time.Millisecond)
	}
	runs(3)
	require.LessOrEqual(t, b.engine.InFlight(), 6, "it holds leases on twice as many")
	p.Resize(20)
	runs(20)
	require.Equal(t, int64(20), g.most.Load())
	require.LessOrEqual(t, b.engine.InFlight(), 40)
	s, ok := p.Cut(0, 0)
	require.True(t, ok)
	require.Equal(t, 20, s.Size)
	require.Positive(t, s.Utilization)

	p.Resize(2) // the others end as usual
	require.Equal(t, 20, p.State().Running)
	for range 19 {
		g.let <- struct{}{}
	}
	runs(2)
	g.most.Store(0)
	close(g.let)
	for _, task := range tasks {
		require.Equal(t, vocab.TaskComplete, b.settled(t, task))
	}
	require.LessOrEqual(t, g.most.Load(), int64(2))
	eventually(t, "the host learns that all have ended", func() bool { return b.engine.InFlight() == 0 })
}

// A paused pool gives back what it has not started, for other hosts, and running steps
// end.
func TestAPausedPoolGivesBackWhatItHolds(t *testing.T) {
	t.Parallel()
	g := &gated{let: make(chan struct{})}
	b := setup(t, map[string]handlerFunc{"t.step": g.run}, func(c *pipeline.Config) {
		c.StepExecutors = func(string) int { return 2 }
	})
	b.apply(t, oneStep)
	tasks := b.submitMany(t, 20)
	p := b.stepsPool(t)
	require.Eventually(t, func() bool { return b.engine.InFlight() == 4 && g.running.Load() == 2 }, time.Minute, 2*time.Millisecond)
	p.Pause(true)
	require.Eventually(t, func() bool { return b.engine.InFlight() == 2 }, time.Minute, 2*time.Millisecond)
	g.let <- struct{}{}
	g.let <- struct{}{}
	require.Eventually(t, func() bool { return b.engine.InFlight() == 0 }, time.Minute, 2*time.Millisecond)
	var waiting int
	require.NoError(t, b.pool.QueryRow(t.Context(), `select count(*) from tasker_workflow_steps where state = 'enqueued'`).Scan(&waiting))
	require.Equal(t, 18, waiting)
	b.submitMany(t, 1)
	require.Never(t, func() bool { return b.engine.InFlight() > 0 }, 300*time.Millisecond, 20*time.Millisecond)

	p.Pause(false)
	close(g.let)
	for _, task := range tasks {
		require.Equal(t, vocab.TaskComplete, b.settled(t, task))
	}
	var attempts int
	require.NoError(t, b.pool.QueryRow(t.Context(), `select max(attempts) from tasker_workflow_steps`).Scan(&attempts))
	require.Equal(t, 1, attempts, "a pause costs no attempt")
}

// A step that waits for an executor does not fail because of pauses, however many: its
// handler was never called.
func TestPausesAreNotCounted(t *testing.T) {
	t.Parallel()
	g := &gated{let: make(chan struct{})}
	b := setup(t, map[string]handlerFunc{"t.step": g.run}, func(c *pipeline.Config) {
		c.StepExecutors = func(string) int { return 1 }
	})
	b.apply(t, once)
	b.submit(t, "once", `{}`)
	eventually(t, "the first runs", func() bool { return g.running.Load() == 1 })
	task := b.submit(t, "once", `{}`)
	p := b.stepsPool(t)
	for range 4 {
		eventually(t, "the second waits", func() bool { return p.State().Waiting == 1 })
		p.Pause(true)
		eventually(t, "it was given back", func() bool { return b.engine.InFlight() == 1 })
		p.Pause(false)
	}
	eventually(t, "the second waits again", func() bool { return p.State().Waiting == 1 })
	require.Equal(t, 1, count(t, b, `select claims from tasker_workflow_steps where task_uuid = $1`, task))
	close(g.let)
	require.Equal(t, vocab.TaskComplete, b.settled(t, task))
}

// A cancelled task removes its steps from the line too.
func TestACancelledTasksStepLeavesTheLine(t *testing.T) {
	t.Parallel()
	g := &gated{let: make(chan struct{})}
	b := setup(t, map[string]handlerFunc{"t.step": g.run}, func(c *pipeline.Config) {
		c.StepExecutors = func(string) int { return 1 }
	})
	b.apply(t, oneStep)
	first := b.submit(t, "one", `{}`)
	require.Eventually(t, func() bool { return g.running.Load() == 1 }, time.Minute, 2*time.Millisecond)
	second := b.submit(t, "one", `{}`)
	require.Eventually(t, func() bool { return b.stepsPool(t).State().Waiting == 1 }, time.Minute, 2*time.Millisecond)
	_, cancelled, err := b.engine.Cancel(t.Context(), second, store.Operator{Reason: "no longer wanted"})
	require.NoError(t, err)
	require.True(t, cancelled)
	require.Eventually(t, func() bool { return b.stepsPool(t).State().Waiting == 0 && b.engine.InFlight() == 1 }, time.Minute, 2*time.Millisecond)
	close(g.let)
	require.Equal(t, vocab.TaskComplete, b.settled(t, first))
}

// The engine's own pools are real: their sizes take effect while work runs, and each can
// be paused.
func TestThePoolsOfTheEngineAreResized(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]handlerFunc{"t.step": func(context.Context, *pluginv1.Step) pluginhost.Outcome { return success(`1`) }})
	b.apply(t, oneStep)
	pools := map[pipeline.PoolKind]pipeline.Pool{}
	for _, p := range b.engine.Pools() {
		pools[p.Kind] = p
	}
	executors := func(loop string) (n int) {
		for _, l := range b.engine.Loops() {
			if l.Name == loop {
				n++
			}
		}
		return n
	}
	for kind, loop := range map[pipeline.PoolKind]string{
		pipeline.TaskRequestProcessor: "requests", pipeline.TaskClaimer: "claim", pipeline.StepEnqueuer: "create",
		pipeline.StepResultProcessor: "results", pipeline.TaskFinalizer: "settle",
	} {
		pools[kind].Resize(5)
		require.Equal(t, 5, executors(loop))
	}
	tasks := b.submitMany(t, 300)
	for kind, loop := range map[pipeline.PoolKind]string{
		pipeline.TaskRequestProcessor: "requests", pipeline.TaskClaimer: "claim", pipeline.StepEnqueuer: "create",
		pipeline.StepResultProcessor: "results", pipeline.TaskFinalizer: "settle",
	} {
		pools[kind].Resize(1)
		require.Eventually(t, func() bool { return executors(loop) == 1 }, time.Minute, 2*time.Millisecond, kind)
	}
	for _, task := range tasks {
		require.Equal(t, vocab.TaskComplete, b.settled(t, task))
	}
	completions, utilization := int64(0), 0.0
	eventually(t, "the pool's counts match the database", func() bool {
		s, ok := pools[pipeline.TaskFinalizer].Cut(0, 0)
		require.True(t, ok)
		completions, utilization = completions+s.Completions, max(utilization, s.Utilization)
		return completions >= 300
	})
	require.Equal(t, int64(300), completions)
	require.Positive(t, utilization)

	pools[pipeline.TaskFinalizer].Pause(true)
	last := b.submitMany(t, 1)
	require.Eventually(t, func() bool { return pools[pipeline.TaskFinalizer].State().Waiting == 1 }, time.Minute, 2*time.Millisecond)
	pools[pipeline.TaskFinalizer].Pause(false)
	require.Equal(t, vocab.TaskComplete, b.settled(t, last[0]))
}

// A host that stops while 200 steps run gives back what does not end in time, and another
// one finishes it all: none is lost, none costs an attempt.
func TestADrainOf200StepsLosesNone(t *testing.T) {
	t.Parallel()
	g := &gated{let: make(chan struct{})}
	b := setup(t, map[string]handlerFunc{"t.step": g.run}, func(c *pipeline.Config) {
		c.StepExecutors = func(string) int { return 200 }
	})
	b.runner.window = 400
	b.apply(t, oneStep)
	tasks := b.submitMany(t, 300)
	require.Eventually(t, func() bool { return g.running.Load() == 200 }, time.Minute, 2*time.Millisecond)
	for range 50 { // end while it drains
		g.let <- struct{}{}
	}
	drain, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	require.Positive(t, b.engine.Drain(drain))
	b.runner.stop()
	stop, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(t, b.engine.Stop(stop))
	require.Zero(t, b.engine.InFlight())
	var held int
	require.NoError(t, b.pool.QueryRow(t.Context(), `select count(*) from tasker_workflow_steps where state = 'in_progress'`).Scan(&held))
	require.Zero(t, held)

	other := setupOn(t, b.pool, map[string]handlerFunc{"t.step": func(context.Context, *pluginv1.Step) pluginhost.Outcome { return success(`1`) }})
	for _, task := range tasks {
		require.Equal(t, vocab.TaskComplete, other.settled(t, task))
	}
	var attempts int
	require.NoError(t, b.pool.QueryRow(t.Context(), `select max(attempts) from tasker_workflow_steps`).Scan(&attempts))
	require.Equal(t, 1, attempts)
}
