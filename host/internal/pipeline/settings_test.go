package pipeline_test

import (
	"context"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/finalizer"
	"github.com/tasker-systems/tasker-host/host/internal/payload"
	"github.com/tasker-systems/tasker-host/host/internal/pgmq"
	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/pool"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// noting is a store that notes the settings with which the engine calls it.
type noting struct {
	*store.Store

	mu       sync.Mutex
	gate     chan struct{} // nil: open; else transactions wait, so that work piles up
	reads    []read
	created  []int
	settled  []int
	policies map[store.Policy]bool
	workers  store.WorkerPolicy
	lost     map[time.Duration]bool
	lease    map[time.Duration]bool
	factors  map[int]bool
	keeps    []store.Retention
	claims   []int         // the room asked for
	looks    [3]int        // for requests, results and steps
	freeze   chan struct{} // not nil: reads of the requests hang until it is closed, even if cancelled
	frozen   chan struct{} // signals that one hangs
}

type read struct {
	queue string
	vt    time.Duration
	most  int
}

func note[T any](n *noting, f func() T) T {
	n.mu.Lock()
	defer n.mu.Unlock()
	return f()
}

func (n *noting) wait(ctx context.Context) {
	if gate := note(n, func() chan struct{} { return n.gate }); gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
		}
	}
}

func (n *noting) ReadMessages(ctx context.Context, queue string, vt time.Duration, most int) ([]pgmq.Message, error) {
	note(n, func() any { n.reads = append(n.reads, read{queue, vt, most}); return nil })
	if n.freeze != nil && queue == "task_requests_queue" {
		select {
		case n.frozen <- struct{}{}:
		default:
		}
		<-n.freeze
	}
	return n.Store.ReadMessages(ctx, queue, vt, most)
}

func (n *noting) Waiting(ctx context.Context, queues, handlers, inboxes []string) ([]string, error) {
	note(n, func() any {
		for i, looked := range []bool{
			slices.Contains(inboxes, "task_requests_queue"), slices.Contains(inboxes, "orchestration_step_results"), len(queues) > 0,
		} {
			if looked {
				n.looks[i]++
			}
		}
		return nil
	})
	return n.Store.Waiting(ctx, queues, handlers, inboxes)
}

func (n *noting) Claim(ctx context.Context, g store.Grant, queue string, names []string, after int64) (store.Claimed, error) {
	note(n, func() any { n.claims = append(n.claims, g.Room); return nil })
	return n.Store.Claim(ctx, g, queue, names, after)
}

func (n *noting) CreateTasks(ctx context.Context, g store.Grant, batch []store.NewTask, queue string) ([]store.Created, error) {
	note(n, func() any { n.created = append(n.created, len(batch)); return nil })
	n.wait(ctx)
	return n.Store.CreateTasks(ctx, g, batch, queue)
}

func (n *noting) Settle(ctx context.Context, g store.Grant, p store.Policy, batch []store.Settlement) (store.Settled, error) {
	note(n, func() any { n.settled = append(n.settled, len(batch)); n.policies[p] = true; return nil })
	n.wait(ctx)
	return n.Store.Settle(ctx, g, p, batch)
}

func (n *noting) SetWorkerPolicy(ctx context.Context, p store.WorkerPolicy) error {
	note(n, func() any { n.workers = p; return nil })
	return n.Store.SetWorkerPolicy(ctx, p)
}

func (n *noting) SweepMessages(ctx context.Context, age time.Duration) (int, []vocab.UUID, error) {
	note(n, func() any { n.lost[age] = true; return nil })
	return n.Store.SweepMessages(ctx, age)
}

func (n *noting) ReleaseHost(ctx context.Context, host int32, reason string, factor int) (int, error) {
	note(n, func() any { n.factors[factor] = true; return nil })
	return n.Store.ReleaseHost(ctx, host, reason, factor)
}

func (n *noting) Rise(ctx context.Context, host int32, rises int64, state string, served []string, lease time.Duration, heard []vocab.UUID) (bool, []store.Revoked, error) {
	note(n, func() any { n.lease[lease] = true; return nil })
	return n.Store.Rise(ctx, host, rises, state, served, lease, heard)
}

func (n *noting) OldDays(ctx context.Context, r store.Retention) ([]time.Time, error) {
	note(n, func() any { n.keeps = append(n.keeps, r); return nil })
	return n.Store.OldDays(ctx, r)
}

// The policy for outside workers is written when it changes, not with the next sweep: a
// resting host has none.
func TestOutsideWorkersAreToldOfAChange(t *testing.T) {
	t.Parallel()
	cfg := testConfig()
	cfg.SweepInterval = never
	b := setup(t, nil, func(c *pipeline.Config) { *c = cfg })
	cfg.Results.MaxBytes = 4321
	b.engine.Reload(cfg)
	eventually(t, "the limit", func() (told bool) {
		require.NoError(t, b.pool.QueryRow(t.Context(), "select max_result_bytes = 4321 from tasker_worker_policy").Scan(&told))
		return told
	})
}

// Every setting that may change reaches the calls that use it, and so do those that are
// fixed at start: the batches are no larger, the waits no longer.
func TestSettingsReachTheCallsThatObeyThem(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	n := &noting{
		Store: store.New(db), policies: map[store.Policy]bool{}, lost: map[time.Duration]bool{},
		lease: map[time.Duration]bool{}, factors: map[int]bool{},
	}
	cfg := testConfig()
	hands(pipeline.TaskFinalizer, func(h *pipeline.HandsConfig) { h.Size = 3 })(&cfg)
	cfg.Lease, cfg.SweepInterval = 17*time.Second, never
	require.NoError(t, n.CreateQueue(t.Context(), cfg.RequestQueue))
	require.NoError(t, n.CreateQueue(t.Context(), cfg.ResultQueue))
	b := &testBundle{pool: db, store: n.Store, runner: newRunner(map[string]handlerFunc{"t.step": ok})}
	log := hclog.New(&hclog.LoggerOptions{Name: t.Name(), Output: os.Stderr, Level: hclog.Error})
	b.engine = pipeline.New(cfg, n, b.runner, finalizer.New(db, "test", 30*time.Second), prometheus.NewRegistry(), log)
	require.NoError(t, b.engine.Start(t.Context()))
	stop := sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		b.runner.stop()
		require.NoError(t, b.engine.Stop(ctx))
	})
	t.Cleanup(stop)
	loops := map[string]int{}
	for _, l := range b.engine.Loops() {
		loops[l.Name]++
	}
	require.Equal(t, 3, loops["settle"], "Size")
	eventually(t, "a heartbeat", func() bool { return note(n, func() bool { return n.lease[17*time.Second] }) })
	b.apply(t, oneStep)

	cfg.SweepInterval, cfg.LostAfter = 20*time.Millisecond, 1234*time.Millisecond
	cfg.InboxVT = 47 * time.Second
	cfg.Policy = store.Policy{RetryAfterCap: 77 * time.Second, ClaimFactor: 9}
	cfg.Retention = store.Retention{Tasks: 99 * time.Hour, Namespaces: map[string]time.Duration{"test_ns": time.Hour}, Keys: 98 * time.Hour, DeadLetters: 97 * time.Hour, Audit: 721 * time.Hour, Records: 96 * time.Hour}
	cfg.Results = payload.Limits{MaxBytes: 4321, MaxDepth: 7}
	b.engine.Reload(cfg)
	tune(t, b.engine, pipeline.StepEnqueuer, func(p *pool.Pace) { p.Batch = 3 })
	tune(t, b.engine, pipeline.TaskFinalizer, func(p *pool.Pace) { p.Batch = 2 })
	tune(t, b.engine, pipeline.TaskClaimer, func(p *pool.Pace) { p.Batch = 4 })
	tune(t, b.engine, pipeline.TaskRequestProcessor, func(p *pool.Pace) { p.Batch = 7 })
	tune(t, b.engine, pipeline.StepResultProcessor, func(p *pool.Pace) { p.Batch = 8 })
	b.engine.Reload(cfg) // so that all look once more, now with all settings

	eventually(t, "reads of the inboxes", func() bool {
		return note(n, func() bool {
			return slices.Contains(n.reads, read{cfg.RequestQueue, 47 * time.Second, 7}) && slices.Contains(n.reads, read{cfg.ResultQueue, 47 * time.Second, 8})
		})
	})
	eventually(t, "LostAfter", func() bool { return note(n, func() bool { return n.lost[1234*time.Millisecond] }) })
	eventually(t, "the policy for outside workers", func() bool {
		return note(n, func() bool {
			return n.workers == store.WorkerPolicy{Policy: cfg.Policy, MaxResultBytes: 4321, MaxDepth: 7}
		})
	})

	eventually(t, "the task claimer's batch", func() bool { return note(n, func() bool { return slices.Contains(n.claims, 4) }) })

	gate := make(chan struct{})
	note(n, func() any { n.gate, n.created, n.settled = gate, nil, nil; return nil })
	var submitters sync.WaitGroup
	for range 20 {
		submitters.Go(func() {
			_, err := b.engine.Submit(t.Context(), pipeline.Submission{Namespace: "test_ns", Name: "one", Version: "1.0.0"})
			require.NoError(t, err)
		})
	}
	eventually(t, "a first transaction", func() bool { return note(n, func() bool { return len(n.created) > 0 }) })
	close(gate)
	submitters.Wait()
	eventually(t, "all of them", func() bool { return count(t, b, `select count(*) from tasker_tasks where state = 'complete'`) == 20 })
	n.mu.Lock()
	for _, size := range n.created {
		require.LessOrEqual(t, size, 3, "the step enqueuer's batch")
	}
	for _, size := range n.settled {
		require.LessOrEqual(t, size, 2, "the task finalizer's batch")
	}
	require.True(t, n.policies[cfg.Policy], "the policy")
	n.mu.Unlock()

	require.NoError(t, b.engine.RetentionTurn(t.Context()))
	require.Equal(t, cfg.Retention, note(n, func() store.Retention { return n.keeps[len(n.keeps)-1] }))
	gone, err := n.RegisterHost(t.Context(), store.HostInfo{Name: "gone", Version: "1", Environment: "test", State: "normal"}, time.Hour)
	require.NoError(t, err)
	_, err = db.Exec(t.Context(), `update tasker_hosts set state = 'dead' where host_id = $1`, gone)
	require.NoError(t, err)
	eventually(t, "ClaimFactor", func() bool { return note(n, func() bool { return n.factors[9] }) })
	stop()
	require.True(t, note(n, func() bool { return n.factors[0] }), "claims of what it holds when it stops do not count")
}

// silent is a database that stops answering heartbeats on request.
type silent struct {
	*store.Store

	hangs atomic.Bool
}

func (s *silent) Rise(ctx context.Context, host int32, rises int64, state string, served []string, lease time.Duration, heard []vocab.UUID) (bool, []store.Revoked, error) {
	if s.hangs.Load() {
		<-ctx.Done()
		return false, nil, context.Cause(ctx)
	}
	return s.Store.Rise(ctx, host, rises, state, served, lease, heard)
}

// A host that cannot reach the database stops its steps while its lease is still valid,
// even if every call hangs until its timeout.
func TestStepsStopBeforeTheLeaseOfTheirHostEnds(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	s := &silent{Store: store.New(db)}
	cfg := testConfig()
	// A heartbeat longer than SelfStop, and five seconds more than the stop takes at
	// worst: the machine may pause.
	cfg.Lease, cfg.Heartbeat, cfg.SelfStop, cfg.SweepInterval = 40*time.Second, 14*time.Second, 13*time.Second, never
	require.NoError(t, s.CreateQueue(t.Context(), cfg.RequestQueue))
	require.NoError(t, s.CreateQueue(t.Context(), cfg.ResultQueue))
	started, held := make(chan struct{}), make(chan bool, 1)
	b := &testBundle{pool: db, store: s.Store, runner: newRunner(map[string]handlerFunc{"t.step": func(ctx context.Context, _ *pluginv1.Step) pluginhost.Outcome {
		close(started)
		<-ctx.Done()
		var holds bool
		err := db.QueryRow(context.WithoutCancel(ctx), "select alive_until > clock_timestamp() from tasker_hosts").Scan(&holds)
		held <- err == nil && holds
		return pluginhost.Outcome{Kind: vocab.OutcomeReleased, Failure: &pluginhost.Failure{Code: pluginhost.ReasonStopping, Message: "stopped"}}
	}})}
	b.engine = pipeline.New(cfg, s, b.runner, finalizer.New(db, "test", 30*time.Second), prometheus.NewRegistry(), hclog.NewNullLogger())
	require.NoError(t, b.engine.Start(t.Context()))
	t.Cleanup(func() {
		s.hangs.Store(false)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		b.runner.stop()
		require.NoError(t, b.engine.Stop(ctx))
	})
	b.apply(t, oneStep)
	b.submit(t, "one", `{}`)
	<-started
	s.hangs.Store(true)
	require.True(t, <-held, "the lease has ended before")
}

// A message that comes back more often than InboxMaxReads is set aside, and that number
// may change.
func TestMessagesReadTooOftenAreSetAside(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]handlerFunc{"t.step": ok}, func(c *pipeline.Config) { c.InboxMaxReads = 40 })
	b.apply(t, oneStep)
	send := func(id string) {
		_, err := b.pool.Exec(t.Context(), `
with sent as (select pgmq.send('task_requests_queue', jsonb_build_object('request_id', $1::text, 'namespace', 'test_ns', 'task_name', 'one', 'task_version', '1.0.0'), 3600) as id)
select id from sent`, id)
		require.NoError(t, err)
		_, err = b.pool.Exec(t.Context(), `update pgmq.q_task_requests_queue set read_ct = 20, vt = clock_timestamp()`)
		require.NoError(t, err)
	}
	send("first")
	eventually(t, "a task", func() bool { return count(t, b, `select count(*) from tasker_tasks`) == 1 })
	cfg := testConfig()
	cfg.InboxMaxReads = 20
	b.engine.Reload(cfg)
	send("second")
	eventually(t, "a dead letter", func() bool {
		return count(t, b, `select count(*) from tasker_dead_letters where reason = 'read_too_often'`) == 1
	})
	require.Equal(t, 1, count(t, b, `select count(*) from tasker_tasks`))
}

// PollMin and PollMax: how often each pool looks at an idle queue; changes take effect at
// once.
func TestIdleQueuesAreLookedAtAsOftenAsThePaceSays(t *testing.T) {
	t.Parallel()
	const enough = 60
	db := pgtest.New(t)
	n := &noting{Store: store.New(db), policies: map[store.Policy]bool{}, lost: map[time.Duration]bool{}, lease: map[time.Duration]bool{}, factors: map[int]bool{}}
	cfg := testConfig()
	reading := []pipeline.PoolKind{pipeline.TaskRequestProcessor, pipeline.StepResultProcessor, pipeline.TaskClaimer}
	for _, kind := range reading {
		hands(kind, func(h *pipeline.HandsConfig) { h.Pace.PollMin, h.Pace.PollMax = never, never })(&cfg)
	}
	require.NoError(t, n.CreateQueue(t.Context(), cfg.RequestQueue))
	require.NoError(t, n.CreateQueue(t.Context(), cfg.ResultQueue))
	b := &testBundle{pool: db, store: n.Store, runner: newRunner(map[string]handlerFunc{"t.step": ok})}
	e := pipeline.New(cfg, n, b.runner, finalizer.New(db, "test", 30*time.Second), prometheus.NewRegistry(), hclog.NewNullLogger())
	b.engine = e
	require.NoError(t, e.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		b.runner.stop()
		require.NoError(t, e.Stop(ctx))
	})
	b.apply(t, oneStep) // from now on there is a queue to claim from
	looks := func() [3]int { return note(n, func() [3]int { return n.looks }) }
	for i, kind := range reading {
		before := looks()
		tune(t, e, kind, func(p *pool.Pace) { p.PollMin, p.PollMax = time.Millisecond, 2*time.Millisecond })
		eventually(t, string(kind)+" looks often", func() bool { return looks()[i] > enough })
		for later := i + 1; later < len(reading); later++ {
			require.Equal(t, before[later], looks()[later], "%s looks no more often for that", reading[later])
		}
	}
	require.LessOrEqual(t, note(n, func() int { return len(n.reads) }), 4, "nothing is read if nothing waits")
}

// A stop waits for a pool whose turn does not end no longer than that pool's StopTimeout,
// and stops the others nevertheless.
func TestASlowPoolHoldsUpNoStop(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	n := &noting{
		Store: store.New(db), policies: map[store.Policy]bool{}, lost: map[time.Duration]bool{}, lease: map[time.Duration]bool{}, factors: map[int]bool{},
		freeze: make(chan struct{}), frozen: make(chan struct{}, 1),
	}
	cfg := testConfig()
	hands(pipeline.TaskRequestProcessor, func(h *pipeline.HandsConfig) { h.Pace.StopTimeout = 10 * time.Millisecond })(&cfg)
	require.NoError(t, n.CreateQueue(t.Context(), cfg.RequestQueue))
	require.NoError(t, n.CreateQueue(t.Context(), cfg.ResultQueue))
	r := newRunner(map[string]handlerFunc{"t.step": ok})
	e := pipeline.New(cfg, n, r, finalizer.New(db, "test", 30*time.Second), prometheus.NewRegistry(), hclog.NewNullLogger())
	require.NoError(t, e.Start(t.Context()))
	<-n.frozen
	r.stop()
	err := e.Stop(t.Context())
	require.ErrorContains(t, err, "stop pipeline: task_request_processor: stop executors: 1 have not ended their turn")
	require.NotContains(t, err.Error(), "task_claimer")
	require.Equal(t, 1, count(t, &testBundle{pool: db}, "select count(*) from tasker_hosts where state = 'stopped'"), "it has stopped nevertheless")
	close(n.freeze)
	for _, p := range e.Pools() {
		if p.Kind == pipeline.TaskRequestProcessor {
			eventually(t, "the end of the turn", func() bool { return p.State().Running == 0 })
		}
	}
}

// MaxInFlight: no more leases are held, however much is waiting, and more when it is
// raised.
func TestNoMoreThanMaxInFlightIsHeld(t *testing.T) {
	t.Parallel()
	open := make(chan struct{})
	b := setup(t, map[string]handlerFunc{"t.step": func(ctx context.Context, _ *pluginv1.Step) pluginhost.Outcome {
		select {
		case <-open:
		case <-ctx.Done():
		}
		return success(`1`)
	}}, func(c *pipeline.Config) { c.MaxInFlight = 3 })
	b.apply(t, oneStep)
	for range 12 {
		b.submit(t, "one", `{}`)
	}
	held := func() int {
		return count(t, b, `select count(*) from tasker_workflow_steps where state = 'in_progress'`)
	}
	most := func() int { // at any time so far, according to the history: steps that end at a moment make room for those that begin then
		return count(t, b, `
select max(n) from (
  select sum(x.d) over (order by x.created_at, x.d rows unbounded preceding) as n
    from (select h.created_at, case when h.to_state = 'in_progress' then 1 else -1 end as d
            from tasker_workflow_step_transitions h where 'in_progress' in (h.from_state, h.to_state)) x) y`)
	}
	eventually(t, "three leases", func() bool { return held() == 3 })
	require.Equal(t, 3, most())
	cfg := testConfig()
	cfg.MaxInFlight = 5
	b.engine.Reload(cfg)
	eventually(t, "two more", func() bool { return held() == 5 })
	eventually(t, "the host learns of them", func() bool { return b.engine.InFlight() == 5 })
	close(open)
	eventually(t, "all", func() bool { return count(t, b, `select count(*) from tasker_tasks where state = 'complete'`) == 12 })
	require.Equal(t, 5, most())
}
