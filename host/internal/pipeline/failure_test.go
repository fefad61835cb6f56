package pipeline_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	handpool "github.com/tasker-systems/tasker-host/host/internal/pool"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

const oneStep = `
namespace: test_ns
name: one
version: 1.0.0
steps:
  - {name: a, handler: t.step, retry: {max_attempts: 3, backoff: fixed, base: 30ms, cap: 1s, jitter: 0}}
`

// never is longer than any test: what happens nevertheless was not found by polling.
const never = time.Hour

func count(t *testing.T, b *testBundle, sql string, args ...any) int {
	t.Helper()
	var n int
	require.NoError(t, b.pool.QueryRow(t.Context(), sql, args...).Scan(&n))
	return n
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, time.Minute, 5*time.Millisecond, what)
}

// failsTwice returns a handler that succeeds on its third call.
func failsTwice() handlerFunc {
	var calls atomic.Int32
	return func(_ context.Context, s *pluginv1.Step) pluginhost.Outcome {
		if n := calls.Add(1); n < 3 {
			return failure(vocab.OutcomeRetryable, fmt.Sprintf("attempt %d of %d", s.Attempt, s.MaxAttempts))
		}
		return success(`"third"`)
	}
}

// neverPolls makes a host see only what it is notified of or knows to be due.
func neverPolls(h *pipeline.HandsConfig) { h.Pace.PollMin, h.Pace.PollMax = never, never }

// nobodyPolls suspends the look at the queues until something says when to look.
var nobodyPolls = []func(*pipeline.Config){
	hands(pipeline.TaskClaimer, neverPolls), hands(pipeline.TaskRequestProcessor, neverPolls), hands(pipeline.StepResultProcessor, neverPolls),
}

func TestRetryableFailureRunsAgainWhenDueWithoutAPoll(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]handlerFunc{"t.step": failsTwice()}, nobodyPolls...)
	b.apply(t, oneStep)
	task := b.submit(t, "one", `{}`)
	require.Equal(t, vocab.TaskComplete, b.settled(t, task))
	require.Equal(t, `"third"`, b.result(t, task, 0))
	require.Equal(t, 3, count(t, b, `select attempts from tasker_workflow_steps where task_uuid = $1`, task))
	require.Equal(t, 2, count(t, b, `select count(*) from tasker_workflow_step_transitions where task_uuid = $1 and to_state = 'error'`, task))
}

// A due retry is found even if the times change at that moment.
func TestADueRetryIsNotLostInAHurry(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]handlerFunc{"t.step": failsTwice()}, hands(pipeline.TaskClaimer, neverPolls))
	b.apply(t, oneStep)
	done := make(chan struct{})
	var hurry sync.WaitGroup
	hurry.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				b.engine.Hurry()
			}
		}
	})
	task := b.submit(t, "one", `{}`)
	state := b.settled(t, task)
	close(done)
	hurry.Wait()
	require.Equal(t, vocab.TaskComplete, state)
}

func TestExhaustedAttemptsFailTheTaskAndLeaveADeadLetter(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]handlerFunc{"t.step": func(_ context.Context, s *pluginv1.Step) pluginhost.Outcome {
		return failure(vocab.OutcomeRetryable, fmt.Sprintf("attempt %d", s.Attempt))
	}})
	b.apply(t, oneStep)
	task := b.submit(t, "one", `{}`)
	require.Equal(t, vocab.TaskError, b.settled(t, task))
	require.Equal(t, 1, count(t, b, `select count(*) from tasker_dead_letters where task_uuid = $1 and reason = 'attempts_exhausted' and detail = 'attempt 3'`, task))
	require.Equal(t, 1, count(t, b, `select count(*) from tasker_tasks where task_uuid = $1 and error -> 'error' ->> 'message' = 'attempt 3'`, task))
}

func TestReleasedAttemptIsNotCharged(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	b := setup(t, map[string]handlerFunc{"t.step": func(_ context.Context, s *pluginv1.Step) pluginhost.Outcome {
		if calls.Add(1) == 1 {
			return pluginhost.Outcome{Kind: vocab.OutcomeReleased, Failure: &pluginhost.Failure{Code: pluginhost.ReasonCrashed, Message: "plugin_crashed"}}
		}
		return success(fmt.Sprint(s.Attempt))
	}})
	b.apply(t, oneStep)
	task := b.submit(t, "one", `{}`)
	require.Equal(t, vocab.TaskComplete, b.settled(t, task))
	require.Equal(t, "1", b.result(t, task, 0), "the crash was not the handler's attempt")
	require.Equal(t, 2, count(t, b, `select claims from tasker_workflow_steps where task_uuid = $1`, task))
}

func TestStepThatNeverComesToAnOutcomeEnds(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]handlerFunc{"t.step": func(context.Context, *pluginv1.Step) pluginhost.Outcome {
		return pluginhost.Outcome{Kind: vocab.OutcomeReleased, Failure: &pluginhost.Failure{Message: "gone"}}
	}})
	b.apply(t, oneStep)
	task := b.submit(t, "one", `{}`)
	require.Equal(t, vocab.TaskError, b.settled(t, task))
	require.Equal(t, 9, count(t, b, `select claims from tasker_workflow_steps where task_uuid = $1`, task), "three times max_attempts")
	require.Equal(t, 1, count(t, b, `select count(*) from tasker_dead_letters where task_uuid = $1 and reason = 'claims_exhausted'`, task))
}

// TestSwapsAndShutdownsAreNotCounted: operators interrupt a step more often than it may
// be claimed without an outcome.
func TestSwapsAndShutdownsAreNotCounted(t *testing.T) {
	t.Parallel()
	var runs atomic.Int32
	b := setup(t, map[string]handlerFunc{"t.step": func(context.Context, *pluginv1.Step) pluginhost.Outcome {
		switch n := runs.Add(1); {
		case n > 24:
			return success(`1`)
		case n%2 == 0:
			return pluginhost.Outcome{Kind: vocab.OutcomeReleased, Failure: &pluginhost.Failure{Code: pluginhost.ReasonReplaced, Message: "version 2"}}
		default:
			return pluginhost.Outcome{Kind: vocab.OutcomeReleased, Failure: &pluginhost.Failure{Code: pluginhost.ReasonStopping, Message: "the host stops"}}
		}
	}}, hands(pipeline.TaskClaimer, neverPolls))
	b.apply(t, oneStep)
	task := b.submit(t, "one", `{}`)
	require.Equal(t, vocab.TaskComplete, b.settled(t, task))
	require.Equal(t, 1, count(t, b, `select claims from tasker_workflow_steps where task_uuid = $1`, task))
	require.Equal(t, 25, count(t, b, `select count(*) from tasker_workflow_step_transitions where task_uuid = $1 and to_state = 'in_progress'`, task))
}

// once is a template whose step may be claimed three times without an outcome.
const once = `
namespace: test_ns
name: once
version: 1.0.0
steps:
  - {name: a, handler: t.step, retry: {max_attempts: 1}}
`

// TestAnAbsentPluginIsNotCounted: a step meets a plugin that is away or about to end more
// often than it may be claimed without an outcome. It waits between tries.
func TestAnAbsentPluginIsNotCounted(t *testing.T) {
	t.Parallel()
	why := []string{pluginhost.ReasonNoPlugin, pluginhost.ReasonNoPlugin, pluginhost.ReasonNoPlugin, pluginhost.ReasonDraining}
	var at []time.Time
	b := setup(t, map[string]handlerFunc{"t.step": func(context.Context, *pluginv1.Step) pluginhost.Outcome {
		at = append(at, time.Now())
		if n := len(at); n <= len(why) {
			return pluginhost.Outcome{Kind: vocab.OutcomeReleased, Failure: &pluginhost.Failure{Code: why[n-1], Message: why[n-1]}}
		}
		return success(`1`)
	}})
	b.apply(t, once)
	task := b.submit(t, "once", `{}`)
	require.Equal(t, vocab.TaskComplete, b.settled(t, task))
	require.Equal(t, 1, count(t, b, `select claims from tasker_workflow_steps where task_uuid = $1`, task))
	for i := 1; i < len(at); i++ {
		require.Greater(t, at[i].Sub(at[i-1]), 200*time.Millisecond, "it waits")
	}
}

// TestAPluginThatHandsStepsBackForEverIsCounted: so that this comes to an end.
func TestAPluginThatHandsStepsBackForEverIsCounted(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]handlerFunc{"t.step": func(context.Context, *pluginv1.Step) pluginhost.Outcome {
		return pluginhost.Outcome{Kind: vocab.OutcomeReleased, Failure: &pluginhost.Failure{Code: pluginhost.ReasonReturned, Message: "not me"}}
	}})
	b.apply(t, `
namespace: test_ns
name: seldom
version: 1.0.0
steps:
  - {name: a, handler: t.step, retry: {max_attempts: 1}}
`)
	task := b.submit(t, "seldom", `{}`)
	eventually(t, "it was given back, and counted", func() bool {
		return count(t, b, `select count(*) from tasker_workflow_steps where task_uuid = $1 and state = 'enqueued' and claims = 1 and due_at > updated_at`, task) == 1
	})
}

// TestACutIsExcused: a step that is cancelled because the host stops is given back, and
// its claim does not count.
func TestACutIsExcused(t *testing.T) {
	t.Parallel()
	started := make(chan struct{}, 1)
	b := setup(t, map[string]handlerFunc{"t.step": func(ctx context.Context, _ *pluginv1.Step) pluginhost.Outcome {
		started <- struct{}{}
		<-ctx.Done()
		return pluginhost.Outcome{Kind: vocab.OutcomeReleased, Failure: &pluginhost.Failure{Code: pluginhost.ReasonCancelled, Message: "cut"}}
	}})
	b.apply(t, oneStep)
	task := b.submit(t, "one", `{}`)
	<-started
	expired, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, 1, b.engine.Drain(expired))
	b.engine.Cut()
	require.Zero(t, b.engine.Drain(t.Context()))
	require.Zero(t, count(t, b, `select claims from tasker_workflow_steps where task_uuid = $1`, task))
	require.Equal(t, 1, count(t, b, `select count(*) from tasker_workflow_step_transitions where task_uuid = $1 and metadata @> '{"reason": "cut", "excused": true}'`, task))
}

func TestResultsThatCannotBeStoredFailTheirStepOnly(t *testing.T) {
	t.Parallel()
	bad := map[string]string{
		"not_json":  `{"a":`,
		"nul":       `"a\u0000b"`,
		"surrogate": `"\ud800"`,
		"bytes":     "\"\xff\"",
		"twice":     `{"a":1,"a":2}`,
		"deep":      strings.Repeat("[", 70) + strings.Repeat("]", 70),
		"large":     `"` + strings.Repeat("x", 5<<20) + `"`,
		"trailing":  `1 2`,
	}
	b := setup(t, map[string]handlerFunc{"t.step": func(_ context.Context, s *pluginv1.Step) pluginhost.Outcome {
		var in struct{ Case string }
		_ = json.Unmarshal(s.Context, &in)
		if r, ok := bad[in.Case]; ok {
			return success(r)
		}
		return success(`123456789012345678901234567890.10`)
	}})
	b.apply(t, oneStep)
	good := b.submit(t, "one", `{}`)
	tasks := map[string]vocab.UUID{}
	for name := range bad {
		tasks[name] = b.submit(t, "one", fmt.Sprintf(`{"case":%q}`, name))
	}
	for name, task := range tasks {
		require.Equal(t, vocab.TaskError, b.settled(t, task), name)
		require.Equal(t, 1, count(t, b, `select count(*) from tasker_workflow_steps where task_uuid = $1 and error ->> 'type' = 'InvalidResult'`, task), name)
	}
	require.Equal(t, vocab.TaskComplete, b.settled(t, good))
	require.Equal(t, `123456789012345678901234567890.10`, b.result(t, good, 0), "every digit is kept")
}

func TestCancelReachesTheRunningHandler(t *testing.T) {
	t.Parallel()
	started := make(chan struct{})
	ended := make(chan error, 1)
	b := setup(t, map[string]handlerFunc{"t.step": func(ctx context.Context, _ *pluginv1.Step) pluginhost.Outcome {
		close(started)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return success(`"too late"`)
	}})
	b.apply(t, oneStep)
	task := b.submit(t, "one", `{}`)
	<-started
	state, cancelled, err := b.engine.Cancel(t.Context(), task, store.Operator{Reason: "not needed"})
	require.NoError(t, err)
	require.True(t, cancelled)
	require.Equal(t, vocab.TaskCancelled, state)
	require.EqualError(t, <-ended, "task_cancelled")
	eventually(t, "the late outcome is refused", func() bool { return b.engine.InFlight() == 0 })
	require.Equal(t, 1, count(t, b, `select count(*) from tasker_workflow_steps where task_uuid = $1 and state = 'cancelled' and result is null`, task))

	_, cancelled, err = b.engine.Cancel(t.Context(), task, store.Operator{Reason: "again"})
	require.NoError(t, err)
	require.False(t, cancelled)
	_, _, err = b.engine.Cancel(t.Context(), vocab.TaskID(vocab.UUID{1}), store.Operator{Reason: "no such task"})
	require.ErrorIs(t, err, store.ErrNotFound)
}

func TestCancelOnAnotherHostReachesTheHandlerWithTheHeartbeat(t *testing.T) {
	t.Parallel()
	started, ended := make(chan struct{}), make(chan struct{})
	b := setup(t, map[string]handlerFunc{"t.step": func(ctx context.Context, _ *pluginv1.Step) pluginhost.Outcome {
		close(started)
		<-ctx.Done()
		close(ended)
		return success(`1`)
	}})
	b.apply(t, oneStep)
	task := b.submit(t, "one", `{}`)
	<-started
	_, cancelled, err := b.store.CancelTask(t.Context(), task, store.Operator{Reason: "elsewhere"}, b.engine.HostID()+1)
	require.NoError(t, err)
	require.True(t, cancelled)
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("the handler was not told")
	}
	eventually(t, "the host acknowledges it", func() bool { return count(t, b, `select count(*) from tasker_revocations`) == 0 })
}

// slowInputs is a database that returns the inputs of steps only when released.
type slowInputs struct {
	*store.Store

	asked, answer chan struct{}
}

func (s *slowInputs) StepInputs(ctx context.Context, contexts []vocab.UUID, results []store.StepKey) (store.Inputs, error) {
	close(s.asked)
	<-s.answer
	return s.Store.StepInputs(ctx, contexts, results)
}

// revealing is a store in which something happens after the first look that began at a
// mark.
type revealing struct {
	*store.Store

	reveal func()
	once   sync.Once
}

func (s *revealing) Claim(ctx context.Context, g store.Grant, queue string, names []string, after int64) (store.Claimed, error) {
	out, err := s.Store.Claim(ctx, g, queue, names, after)
	if after != 0 {
		s.once.Do(s.reveal)
	}
	return out, err
}

// A look that has taken all it could is followed by one that begins where it ended. What
// becomes visible behind that mark meanwhile is found without a notification.
func TestWhatBecomesVisibleBehindTheMark(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	s := &revealing{Store: store.New(pool)}
	b := setupWith(t, pool, s, s.Store, map[string]handlerFunc{"t.step": ok}, append(nobodyPolls,
		hands(pipeline.TaskClaimer, func(h *pipeline.HandsConfig) { h.Pace.Batch = 1 }))...)
	s.reveal = func() {
		_, err := pool.Exec(t.Context(), `update pgmq.q_test_ns_queue set vt = clock_timestamp()`)
		require.NoError(t, err)
	}
	b.apply(t, oneStep)
	plan, err := s.FindPlan(t.Context(), "test_ns", "one", "1.0.0", "test")
	require.NoError(t, err)
	var tasks []vocab.UUID
	for range 2 {
		task := vocab.TaskID(vocab.UUID(uuid.Must(uuid.NewV7())))
		_, err = s.CreateTasks(t.Context(), store.Grant{Host: b.engine.HostID()}, // without room
			[]store.NewTask{{UUID: task, Plan: plan.ID, Context: json.RawMessage(`{}`), Identity: []byte("x")}}, "")
		require.NoError(t, err)
		tasks = append(tasks, task)
		if len(tasks) == 1 {
			_, err = pool.Exec(t.Context(), `update pgmq.q_test_ns_queue set vt = 'infinity'`)
			require.NoError(t, err)
		}
	}
	b.apply(t, strings.ReplaceAll(oneStep, "test_ns", "other_ns")) // wakes the claimers
	for _, task := range tasks {
		require.Equal(t, vocab.TaskComplete, b.settled(t, task))
	}
}

// refusing is a store whose breaker refuses claims.
type refusing struct {
	*store.Store

	refuse atomic.Bool
	asked  atomic.Int64
}

func (s *refusing) Claim(ctx context.Context, g store.Grant, queue string, names []string, after int64) (store.Claimed, error) {
	s.asked.Add(1)
	if s.refuse.Load() {
		return store.Claimed{Refused: true}, nil
	}
	return s.Store.Claim(ctx, g, queue, names, after)
}

// A claimer that is refused by a breaker rests, and takes what is waiting later.
func TestARefusedClaimerRests(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	s := &refusing{Store: store.New(pool)}
	s.refuse.Store(true)
	b := setupWith(t, pool, s, s.Store, map[string]handlerFunc{"t.step": ok}, hands(pipeline.TaskClaimer, neverPolls))
	b.apply(t, oneStep)
	eventually(t, "claimers look at the new queue", func() bool { return s.asked.Load() > 0 })
	plan, err := s.FindPlan(t.Context(), "test_ns", "one", "1.0.0", "test")
	require.NoError(t, err)
	waits := vocab.TaskID(vocab.UUID(uuid.Must(uuid.NewV7())))
	_, err = s.CreateTasks(t.Context(), store.Grant{Host: b.engine.HostID()}, // without room
		[]store.NewTask{{UUID: waits, Plan: plan.ID, Context: json.RawMessage(`{}`), Identity: []byte("x")}}, "")
	require.NoError(t, err)
	for range 20 {
		require.Equal(t, vocab.TaskComplete, b.settled(t, b.submit(t, "one", `{}`)), "work that needs no claim continues")
	}
	require.Less(t, s.asked.Load(), int64(100), "it asks again and again")
	s.refuse.Store(false)
	tune(t, b.engine, pipeline.TaskClaimer, func(p *handpool.Pace) { p.PollMax = 10 * time.Millisecond })
	b.apply(t, strings.ReplaceAll(oneStep, "test_ns", "other_ns")) // wakes the claimers
	require.Equal(t, vocab.TaskComplete, b.settled(t, waits))
}

// A cancel that arrives while a step waits for its inputs is not forgotten: the handler
// never runs.
func TestCancelBeforeTheStepIsDispatched(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	s := &slowInputs{Store: store.New(pool), asked: make(chan struct{}), answer: make(chan struct{})}
	var ran atomic.Bool
	b := setupWith(t, pool, s, s.Store, map[string]handlerFunc{"t.step": func(context.Context, *pluginv1.Step) pluginhost.Outcome {
		ran.Store(true)
		return success(`1`)
	}})
	b.apply(t, oneStep)
	plan, err := s.FindPlan(t.Context(), "test_ns", "one", "1.0.0", "test")
	require.NoError(t, err)
	id := vocab.TaskID(vocab.UUID(uuid.Must(uuid.NewV7())))
	_, err = s.CreateTasks(t.Context(), store.Grant{Host: b.engine.HostID()}, // created by another host: this one does not know its context
		[]store.NewTask{{UUID: id, Plan: plan.ID, Context: json.RawMessage(`{}`), Identity: []byte("x")}}, "")
	require.NoError(t, err)
	<-s.asked
	_, cancelled, err := b.engine.Cancel(t.Context(), id, store.Operator{Reason: "not needed"})
	require.NoError(t, err)
	require.True(t, cancelled)
	close(s.answer)
	eventually(t, "the step is dropped", func() bool { return b.engine.InFlight() == 0 })
	require.False(t, ran.Load(), "the handler ran in vain")
}

// One that arrives while a step is being handed to the runner, which does not know it
// yet, reaches the handler too, without waiting for a later heartbeat.
func TestCancelWhileTheStepIsDispatched(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]handlerFunc{"t.step": func(ctx context.Context, _ *pluginv1.Step) pluginhost.Outcome {
		<-ctx.Done()
		return failure(vocab.OutcomeReleased, "cancelled")
	}}, func(c *pipeline.Config) { c.Heartbeat, c.Lease = never, 3*never })
	b.apply(t, oneStep)
	b.runner.before = func(call pluginhost.Call) {
		task, err := uuid.Parse(call.Step.TaskUuid)
		require.NoError(t, err)
		_, cancelled, err := b.engine.Cancel(t.Context(), vocab.UUID(task), store.Operator{Reason: "not needed"})
		require.NoError(t, err)
		require.True(t, cancelled)
	}
	require.Equal(t, vocab.TaskCancelled, b.settled(t, b.submit(t, "one", `{}`)))
	eventually(t, "the step is dropped", func() bool { return b.engine.InFlight() == 0 })
}

func TestSubmitRefusesWhatCannotRun(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]handlerFunc{"t.step": func(context.Context, *pluginv1.Step) pluginhost.Outcome { return success(`1`) }})
	b.apply(t, `
namespace: test_ns
name: strict
version: 1.0.0
input_schema: {type: object, required: [n], properties: {n: {type: integer, minimum: 2}}}
steps: [{name: a, handler: t.step}]
`)
	submit := func(version, context string) error {
		_, err := b.engine.Submit(t.Context(), pipeline.Submission{Namespace: "test_ns", Name: "strict", Version: version, Context: json.RawMessage(context)})
		return err
	}
	require.ErrorIs(t, submit("2.0.0", `{"n":2}`), store.ErrNotFound)
	for name, context := range map[string]string{
		"against the schema": `{"n":1}`, "missing": `{}`, "no object": `[1]`, "no json": `{"n":`, "nul": `{"n":2,"x":"\u0000"}`,
		"surrogate": `{"n":2,"x":"\udfff"}`, "bytes": "{\"n\":2,\"x\":\"\xff\"}", "twice": `{"n":2,"n":3}`,
		"deep":  `{"n":2,"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`,
		"large": `{"n":2,"x":"` + strings.Repeat("x", 2<<20) + `"}`,
	} {
		_, isContext := errors.AsType[*pipeline.ContextError](submit("1.0.0", context))
		require.True(t, isContext, name)
	}
	require.NoError(t, submit("1.0.0", `{"n":123456789012345678901234567890}`))
	require.Equal(t, 1, count(t, b, `select count(*) from tasker_tasks`))
}

func TestIdempotencyKeyMakesOneTask(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]handlerFunc{"t.step": func(context.Context, *pluginv1.Step) pluginhost.Outcome { return success(`1`) }})
	b.apply(t, oneStep)
	s := pipeline.Submission{Namespace: "test_ns", Name: "one", Version: "1.0.0", Context: json.RawMessage(`{"a":1}`), IdempotencyKey: "k'\"; drop table"}
	type answer struct {
		pipeline.Submitted
		err error
	}
	answers := make(chan answer, 16)
	for range cap(answers) {
		go func() {
			got, err := b.engine.Submit(t.Context(), s)
			answers <- answer{got, err}
		}()
	}
	made := 0
	var task vocab.UUID
	for range cap(answers) {
		a := <-answers
		require.NoError(t, a.err)
		if a.Created {
			made++
		}
		require.True(t, task == vocab.UUID{} || task == a.Task)
		task = a.Task
	}
	require.Equal(t, 1, made)
	s.Context = json.RawMessage(`{"a":2}`)
	_, err := b.engine.Submit(t.Context(), s)
	reused, ok := errors.AsType[*pipeline.KeyReusedError](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, task, reused.Task)
	require.Equal(t, 1, count(t, b, `select count(*) from tasker_tasks`))
}

// TestClaimTooLongForAStatement: on a slow database, a full batch of claims may exceed
// the statement timeout. It is halved until it fits, and grows again.
func TestClaimTooLongForAStatement(t *testing.T) {
	t.Parallel()
	dsn := pgtest.DSN(t)
	pool := pgtest.Pool(t, dsn)
	submitter := setupOn(t, pool, map[string]handlerFunc{})
	submitter.apply(t, oneStep)
	var tasks []vocab.UUID
	for range 100 {
		tasks = append(tasks, submitter.submit(t, "one", `{}`))
	}
	b := &testBundle{pool: pool}
	sql := func(text string) {
		t.Helper()
		_, err := pool.Exec(t.Context(), text)
		require.NoError(t, err)
	}
	const signature = `integer, text, text[], integer[], integer, bigint, text, interval, boolean`
	sql(`alter function tasker_claim_steps(` + signature + `) rename to quick_claim_steps`)
	sql(`create table asked (steps integer)`)
	sql(`create function tasker_claim_steps(
		p_host integer, p_queue text, p_served text[], p_served_ids integer[], p_qty integer, p_after bigint default 0,
		p_worker text default null, p_lease interval default null, p_wait boolean default true,
		out o_task uuid[], out o_step integer[], out o_lease uuid[], out o_attempt integer[], out o_plan integer[], out o_generation integer[],
		out o_last bigint, out o_taken integer)
	language plpgsql as $$ begin
		if p_qty > 20 then
			perform pg_sleep(60);
		end if;
		insert into asked values (p_qty);
		select q.o_task, q.o_step, q.o_lease, q.o_attempt, q.o_plan, q.o_generation, q.o_last, q.o_taken
		  into o_task, o_step, o_lease, o_attempt, o_plan, o_generation, o_last, o_taken
		  from quick_claim_steps(p_host, p_queue, p_served, p_served_ids, p_qty, p_after, p_worker, p_lease) q;
	end $$`)

	setupOn(t, impatient(t, dsn), map[string]handlerFunc{"t.step": func(context.Context, *pluginv1.Step) pluginhost.Outcome { return success(`1`) }},
		hands(pipeline.TaskClaimer, func(h *pipeline.HandsConfig) { h.Pace.Batch = 64 }))
	for _, task := range tasks {
		require.Equal(t, vocab.TaskComplete, b.settled(t, task))
	}
	sizes := count(t, b, `select count(*) from asked where steps = 16`)
	require.Positive(t, sizes, "halved twice")
}

// TestTaskTooLargeForAStatement: to create, settle or cancel a task with very many steps
// may exceed the statement timeout, and cannot be divided. It gets more time.
func TestTaskTooLargeForAStatement(t *testing.T) {
	t.Parallel()
	dsn := pgtest.DSN(t)
	pool := pgtest.Pool(t, dsn)
	_, err := pool.Exec(t.Context(), `
create function slow() returns trigger language plpgsql as $$ begin
  if coalesce(current_setting('test.slept', true), '') = '' then -- once in a transaction
    perform pg_sleep(1.5), set_config('test.slept', 'yes', true);
  end if;
  return null;
end $$;
create trigger slow after insert on tasker_tasks for each statement execute function slow();
create trigger slow after update on tasker_workflow_steps for each row when (new.state in ('complete', 'cancelled')) execute function slow();`)
	require.NoError(t, err)
	started := make(chan struct{}, 2)
	b := setupOn(t, impatient(t, dsn), map[string]handlerFunc{"t.step": func(ctx context.Context, s *pluginv1.Step) pluginhost.Outcome {
		started <- struct{}{}
		if string(s.Context) == `{"wait": true}` {
			<-ctx.Done()
			return failure(vocab.OutcomePermanent, "cancelled")
		}
		return success(`1`)
	}})
	b.apply(t, oneStep)
	b.pool = pool
	require.Equal(t, vocab.TaskComplete, b.settled(t, b.submit(t, "one", `{}`)))
	<-started
	task := b.submit(t, "one", `{"wait": true}`)
	<-started
	state, cancelled, err := b.engine.Cancel(t.Context(), task, store.Operator{By: "test", Reason: "test"})
	require.NoError(t, err)
	require.True(t, cancelled)
	require.Equal(t, vocab.TaskCancelled, state)
}

// impatient is a pool of sessions with a statement timeout of a second.
func impatient(t *testing.T, dsn string) *pgxpool.Pool {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(dsn)
	require.NoError(t, err)
	cfg.ConnConfig.RuntimeParams["statement_timeout"] = "1s"
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// TestMemoryOfStepsIsBounded: a host with room for hundreds of steps holds the inputs of
// only as many as its memory allows; the others wait, and all of them run.
func TestMemoryOfStepsIsBounded(t *testing.T) {
	t.Parallel()
	const large, tasks = 8 << 10, 60
	var running, most atomic.Int32
	b := setup(t, map[string]handlerFunc{"t.step": func(context.Context, *pluginv1.Step) pluginhost.Outcome {
		now := running.Add(1)
		for seen := most.Load(); now > seen && !most.CompareAndSwap(seen, now); seen = most.Load() {
		}
		<-time.After(20 * time.Millisecond)
		running.Add(-1)
		return success(`"` + strings.Repeat("r", large) + `"`)
	}}, func(c *pipeline.Config) { c.Memory, c.MemoryShare, c.InputCache = 4*large, large, 0 })
	b.apply(t, oneStep)
	all := make([]vocab.UUID, tasks)
	for i := range all {
		all[i] = b.submit(t, "one", `{"x": "`+strings.Repeat("x", large)+`"}`)
	}
	for _, task := range all {
		require.Equal(t, vocab.TaskComplete, b.settled(t, task))
	}
	require.LessOrEqual(t, most.Load(), int32(4+16), "the memory limit, plus what was read at once")
	require.Eventually(t, func() bool { return b.engine.MemoryInUse() == 0 }, time.Minute, 5*time.Millisecond, "all of it is given back")
}
