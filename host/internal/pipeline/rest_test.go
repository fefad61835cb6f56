package pipeline_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/pgmq"
	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// sleepy is a host that soon rests, and then does nothing for an hour unless it is
// roused.
func sleepy(c *pipeline.Config) { c.RestAfter, c.RestBeat = 50*time.Millisecond, time.Hour }

// rests waits until the host rests, and no earlier message can still rouse it: it is
// roused only by what is sent after that.
func (b *testBundle) rests(t *testing.T) {
	t.Helper()
	resting := func() { require.Eventually(t, b.engine.Resting, time.Minute, time.Millisecond) }
	for {
		ended := b.engine.RestEnded()
		resting()
		_, err := b.pool.Exec(t.Context(), `select pg_notify('tasker_rouse', '')`)
		require.NoError(t, err)
		if b.engine.RestEnded() == ended {
			require.Eventually(t, func() bool { return b.engine.RestEnded() != ended }, time.Minute, time.Millisecond)
			resting()
			return
		}
	}
}

func done(context.Context, *pluginv1.Step) pluginhost.Outcome { return success(`1`) }

// newTask returns a task of a plan.
func newTask(t *testing.T, plan int32) store.NewTask {
	t.Helper()
	id, err := uuid.NewV7()
	require.NoError(t, err)
	return store.NewTask{UUID: vocab.TaskID(vocab.UUID(id)), Plan: plan, Context: []byte(`{}`), Identity: []byte("i")}
}

func taskRequest(n int) []byte {
	return fmt.Appendf(nil, `{"request_id": "r%d", "namespace": "test_ns", "task_name": "one", "task_version": "1.0.0", "input_data": {}}`, n)
}

// ended waits until the given number of tasks have ended.
func (b *testBundle) ended(t *testing.T, tasks int) {
	t.Helper()
	require.Eventually(t, func() bool {
		return count(t, b, `select count(*) from tasker_tasks where state = 'complete'`) == tasks
	}, time.Minute, 2*time.Millisecond)
}

// TestARestingHostIsRousedByWhatIsSent: by any sender, to any queue.
func TestARestingHostIsRousedByWhatIsSent(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]handlerFunc{"t.step": done}, sleepy)
	b.apply(t, oneStep)
	exec := func(sql string, args ...any) {
		t.Helper()
		_, err := b.pool.Exec(t.Context(), sql, args...)
		require.NoError(t, err)
	}

	b.rests(t)
	exec(`select pgmq.send('task_requests_queue', $1::text::jsonb)`, string(taskRequest(1)))
	b.ended(t, 1)

	b.rests(t)
	require.Equal(t, vocab.TaskComplete, b.settled(t, b.submit(t, "one", `{}`)), "its own API")

	// A step in a namespace's queue, as sent by another host that gives it back.
	b.rests(t)
	exec(`update tasker_task_namespaces set paused_at = clock_timestamp()`)
	b.rests(t)
	task := b.submit(t, "one", `{}`)
	b.rests(t)
	exec(`update tasker_task_namespaces set paused_at = null`)
	require.Equal(t, vocab.TaskComplete, b.settled(t, task), "its namespace is resumed")

	// Hidden for an hour, and then made visible.
	b.rests(t)
	exec(`select pgmq.send('task_requests_queue', $1::text::jsonb, 3600)`, string(taskRequest(2)))
	b.rests(t)
	exec(`select pgmq.set_vt('task_requests_queue', (select max(msg_id) from pgmq.q_task_requests_queue), 0)`)
	b.ended(t, 4)

	// Visible at a time that the host learns when it lies down.
	b.rests(t)
	exec(`select pgmq.send('task_requests_queue', $1::text::jsonb, 1)`, string(taskRequest(3)))
	b.ended(t, 5)
}

// TestARestingHostIsRousedByResults: those of a worker that polls the queue itself.
func TestARestingHostIsRousedByResults(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]handlerFunc{}, sleepy)
	b.apply(t, oneStep)
	task := b.submit(t, "one", `{}`)
	b.rests(t)
	_, err := b.pool.Exec(t.Context(), `select pgmq.send('orchestration_step_results', jsonb_build_object('task_uuid', $1::text,
		'step_uuid', $2::text, 'status', 'Success', 'results', 1))`, task.String(), vocab.StepID(task, 0).String())
	require.NoError(t, err)
	require.Equal(t, vocab.TaskComplete, b.settled(t, task))
}

// TestWhatIsSentWhileAHostLiesDown: it is seen, even if its transaction began long before
// and commits long after.
func TestWhatIsSentWhileAHostLiesDown(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]handlerFunc{"t.step": done}, func(c *pipeline.Config) { c.RestBeat = time.Hour })
	b.apply(t, oneStep)
	// It sends while nobody rests, so it will rouse nobody.
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	_, err = pgmq.New(tx).Send(t.Context(), "task_requests_queue", pgmq.Outgoing{Body: taskRequest(1)}, 0)
	require.NoError(t, err)
	cfg := testConfig()
	sleepy(&cfg)
	b.engine.Reload(cfg)
	require.Never(t, b.engine.Resting, 300*time.Millisecond, time.Millisecond, "a sender has not committed")
	require.NoError(t, tx.Commit(t.Context()))
	b.ended(t, 1)
	b.rests(t)
}

// TestARestingHostWhoseConnectionIsLost: it looks for work as usual, and rests again.
func TestARestingHostWhoseConnectionIsLost(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]handlerFunc{"t.step": done}, sleepy)
	b.apply(t, oneStep)
	for n := range 3 {
		b.rests(t)
		// Nobody is roused by the message: it is found because the host looks for work
		// again.
		_, err := b.pool.Exec(t.Context(), `alter table pgmq.q_task_requests_queue disable trigger tasker_rouse`)
		require.NoError(t, err)
		_, err = b.pool.Exec(t.Context(), `select pgmq.send('task_requests_queue', $1::text::jsonb)`, string(taskRequest(n)))
		require.NoError(t, err)
		_, err = b.pool.Exec(t.Context(), `select pg_terminate_backend(l.pid) from pg_locks l
			where l.locktype = 'advisory' and l.classid = hashtext('tasker_bed')::bigint::bit(32)::bigint::oid
			  and l.database = (select oid from pg_database where datname = current_database())`)
		require.NoError(t, err)
		b.ended(t, n+1)
		_, err = b.pool.Exec(t.Context(), `alter table pgmq.q_task_requests_queue enable trigger tasker_rouse`)
		require.NoError(t, err)
	}
}

// TestQueuesThatRouseNobody: they are repaired before a host rests.
func TestQueuesThatRouseNobody(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]handlerFunc{"t.step": done}, func(c *pipeline.Config) { c.RestBeat = time.Hour })
	b.apply(t, oneStep)
	_, err := b.pool.Exec(t.Context(), `select pgmq.drop_queue('test_ns_queue'); select pgmq.create('test_ns_queue')`, pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err)
	require.Never(t, b.engine.Resting, 200*time.Millisecond, time.Millisecond, "it must not rest")
	cfg := testConfig()
	sleepy(&cfg)
	b.engine.Reload(cfg)
	b.rests(t)
	defer func() {
		b.engine.Reload(testConfig())
		require.Never(t, b.engine.Resting, 200*time.Millisecond, time.Millisecond, "it must no longer rest")
	}()
	require.Equal(t, 1, count(t, b, `select count(*) from pg_trigger where tgrelid = 'pgmq.q_test_ns_queue'::regclass and tgname = 'tasker_rouse'`))
}

// lying is a store that does something when a host has a bed but does not rest yet.
type lying struct {
	*store.Store

	then atomic.Pointer[func()]
}

func (s *lying) LieDown(ctx context.Context) (*store.Bed, error) {
	bed, err := s.Store.LieDown(ctx)
	if then := s.then.Load(); err == nil && then != nil {
		(*then)()
	}
	return bed, err
}

// TestAHostThatLiesDownIsToldNotTo: it obeys at once, not with its next heartbeat.
func TestAHostThatLiesDownIsToldNotTo(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	s := &lying{Store: store.New(db)}
	b := setupWith(t, db, s, s.Store, map[string]handlerFunc{"t.step": done}, sleepy)
	b.rests(t)
	told := make(chan struct{})
	tell := sync.OnceFunc(func() {
		b.engine.Reload(testConfig())
		close(told)
	})
	s.then.Store(&tell)
	b.engine.Rouse()
	<-told
	require.Never(t, b.engine.Resting, 300*time.Millisecond, time.Millisecond)
}

// TestAHostThatRestsHoldsNothing: it is given no steps, and its lease has the usual
// length before it takes any.
func TestAHostThatRestsHoldsNothing(t *testing.T) {
	t.Parallel()
	leases := make(chan time.Duration, 1)
	var b *testBundle
	b = setup(t, map[string]handlerFunc{"t.step": func(ctx context.Context, _ *pluginv1.Step) pluginhost.Outcome {
		var left float64
		var rests bool
		if err := b.pool.QueryRow(ctx, `select extract(epoch from alive_until - clock_timestamp())::float8, rests from tasker_hosts`).Scan(&left, &rests); err != nil || rests {
			return failure(vocab.OutcomePermanent, fmt.Sprint(rests, err))
		}
		leases <- time.Duration(left * float64(time.Second))
		return success(`1`)
	}}, sleepy)
	b.apply(t, oneStep)
	for range 3 {
		b.rests(t)
		require.Equal(t, 1, count(t, b, `select count(*) from tasker_hosts where rests and alive_until > clock_timestamp() + interval '2 hours'`))
		require.Equal(t, 0, count(t, b, `select count(*) from tasker_hosts where tasker_may_lease(host_id)`))
		require.Equal(t, vocab.TaskComplete, b.settled(t, b.submit(t, "one", `{}`)))
		left := <-leases
		require.LessOrEqual(t, left, testConfig().Lease)
	}
}

// TestHostsRestOnlyTogether: no host rests while another one works, so that its death is
// noticed as soon as usual.
func TestHostsRestOnlyTogether(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	works := map[string]handlerFunc{"t.step": func(ctx context.Context, _ *pluginv1.Step) pluginhost.Outcome {
		select {
		case <-release:
		case <-ctx.Done():
		}
		return success(`1`)
	}}
	a := setup(t, works, sleepy)
	a.apply(t, oneStep)
	b := setupOn(t, a.pool, map[string]handlerFunc{"t.other": done}, sleepy)
	a.rests(t)
	b.rests(t)
	task := a.submit(t, "one", `{}`)
	require.Eventually(t, func() bool { return !b.engine.Resting() }, time.Minute, time.Millisecond, "it was not told")
	require.Never(t, b.engine.Resting, 300*time.Millisecond, time.Millisecond)
	close(release)
	require.Equal(t, vocab.TaskComplete, a.settled(t, task))
	a.rests(t)
	b.rests(t)
}

// TestStepsOfAHostThatDiesWhileOthersHaveNothingToDo: they are taken over within the
// usual time: its lease and a sweep.
func TestStepsOfAHostThatDiesWhileOthersHaveNothingToDo(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]handlerFunc{"t.step": done}, sleepy)
	b.apply(t, oneStep)
	b.rests(t)
	// A host that dies with a step: it registers, takes one and is not heard of again.
	dies, err := b.store.RegisterHost(t.Context(), testConfig().Host, time.Hour)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return !b.engine.Resting() }, time.Minute, time.Millisecond)
	plan, err := b.store.FindPlan(t.Context(), "test_ns", "one", "1.0.0", "test")
	require.NoError(t, err)
	ids, err := b.store.HandlerIDs(t.Context(), []string{"t.step"})
	require.NoError(t, err)
	task := newTask(t, plan.ID)
	made, err := b.store.CreateTasks(t.Context(), store.Grant{Host: dies, Room: 1, Served: []int32{ids["t.step"]}}, []store.NewTask{task}, "")
	require.NoError(t, err)
	require.Len(t, made[0].Leases, 1)
	_, err = b.pool.Exec(t.Context(), `update tasker_hosts set alive_until = clock_timestamp() where host_id = $1`, dies)
	require.NoError(t, err)
	require.Equal(t, vocab.TaskComplete, b.settled(t, task.UUID))
	b.rests(t)
}

// TestHostsDoNotRestWhileOutsideWorkersHoldLeases: they must notice when these end.
func TestHostsDoNotRestWhileOutsideWorkersHoldLeases(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]handlerFunc{"t.other": done}, sleepy)
	b.apply(t, oneStep)
	task := b.submit(t, "one", `{}`)
	b.rests(t)
	require.Equal(t, 1, count(t, b, `select count(*) from tasker_worker_claim('test_ns', 'w', '{t.step}', 1, '1 hour')`))
	require.Eventually(t, func() bool { return !b.engine.Resting() }, time.Minute, time.Millisecond)
	require.Never(t, b.engine.Resting, 300*time.Millisecond, time.Millisecond)
	for _, runsOut := range []string{
		`update tasker_workflow_steps set lease_until = clock_timestamp() where state = 'in_progress'`,
		`update tasker_worker_leases set look_at = clock_timestamp()`,
	} {
		_, err := b.pool.Exec(t.Context(), runsOut)
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { // it is back in its queue
		return count(t, b, `select count(*) from tasker_workflow_steps where task_uuid = $1 and state in ('enqueued', 'pending')`, task) == 1
	}, time.Minute, 5*time.Millisecond)
	b.rests(t)
}

// TestATemplateOfAnotherHostRouses: resting hosts may serve its handlers.
func TestATemplateOfAnotherHostRouses(t *testing.T) {
	t.Parallel()
	a := setup(t, nil, sleepy)
	b := setupOn(t, a.pool, map[string]handlerFunc{"t.step": done}, sleepy)
	a.rests(t)
	b.rests(t)
	a.apply(t, oneStep)
	require.Equal(t, vocab.TaskComplete, a.settled(t, a.submit(t, "one", `{}`)))
}

// TestARestIsOneStatementABeat: for all loops together.
func TestARestIsOneStatementABeat(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	cfg, err := pgxpool.ParseConfig(pgtest.DSN(t))
	require.NoError(t, err)
	cfg.ConnConfig.Tracer = counter{&asked}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	const beat = 200 * time.Millisecond
	b := setupOn(t, pool, map[string]handlerFunc{"t.step": done}, func(c *pipeline.Config) {
		c.RestAfter, c.RestBeat = 50*time.Millisecond, beat
		c.Heartbeat, c.SweepInterval, c.LostAfter = time.Second, 10*time.Millisecond, 10*time.Millisecond // a call may take as long as a heartbeat
	})
	b.apply(t, oneStep)
	require.Equal(t, vocab.TaskComplete, b.settled(t, b.submit(t, "one", `{}`)))
	b.rests(t)
	// Whatever was in progress when it lay down has ended after a beat.
	require.Eventually(t, func() bool {
		last := b.engine.LastHeartbeat()
		before := asked.Load()
		for range 3 {
			eventually(t, "a beat", func() bool { return b.engine.LastHeartbeat().After(last) })
			last = b.engine.LastHeartbeat()
		}
		return b.engine.Resting() && asked.Load()-before <= 4 // one may be in progress
	}, time.Minute, time.Millisecond)
}

// counter counts statements.
type counter struct{ n *atomic.Int64 }

func (c counter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.n.Add(1)
	return ctx
}

func (counter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
