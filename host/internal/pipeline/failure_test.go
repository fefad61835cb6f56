package pipeline_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
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

const oneStep = `
namespace: test_ns
name: one
version: 1.0.0
steps:
  - {name: a, handler: t.step, retry: {max_attempts: 3, backoff: fixed, base: 30ms, cap: 1s, jitter: 0}}
`

// never is a wait that no test lives to see: what happens all the same was not
// found by polling.
const never = time.Hour

func count(t *testing.T, b *testBundle, sql string, args ...any) int {
	t.Helper()
	var n int
	require.NoError(t, b.pool.QueryRow(t.Context(), sql, args...).Scan(&n))
	return n
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, 20*time.Second, 5*time.Millisecond, what)
}

func TestRetryableFailureRunsAgainWhenDueWithoutAPoll(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	b := setup(t, map[string]handlerFunc{"t.step": func(_ context.Context, s *pluginv1.Step) pluginhost.Outcome {
		if n := calls.Add(1); n < 3 {
			return failure(vocab.OutcomeRetryable, fmt.Sprintf("attempt %d of %d", s.Attempt, s.MaxAttempts))
		}
		return success(`"third"`)
	}}, func(c *pipeline.Config) { c.PollMin, c.PollMax = never, never })
	b.apply(t, oneStep)
	task := b.submit(t, "one", `{}`)
	require.Equal(t, vocab.TaskComplete, b.settled(t, task))
	require.Equal(t, `"third"`, b.result(t, task, 0))
	require.Equal(t, 3, count(t, b, `select attempts from tasker_workflow_steps where task_uuid = $1`, task))
	require.Equal(t, 2, count(t, b, `select count(*) from tasker_workflow_step_transitions where task_uuid = $1 and to_state = 'error'`, task))
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
	state, cancelled, err := b.engine.Cancel(t.Context(), task, "not needed")
	require.NoError(t, err)
	require.True(t, cancelled)
	require.Equal(t, vocab.TaskCancelled, state)
	require.EqualError(t, <-ended, "task_cancelled")
	eventually(t, "the late outcome is refused", func() bool { return b.engine.InFlight() == 0 })
	require.Equal(t, 1, count(t, b, `select count(*) from tasker_workflow_steps where task_uuid = $1 and state = 'cancelled' and result is null`, task))

	_, cancelled, err = b.engine.Cancel(t.Context(), task, "again")
	require.NoError(t, err)
	require.False(t, cancelled)
	_, _, err = b.engine.Cancel(t.Context(), vocab.TaskID(vocab.UUID{1}), "no such task")
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
	}}, func(c *pipeline.Config) { c.Heartbeat = 50 * time.Millisecond })
	b.apply(t, oneStep)
	task := b.submit(t, "one", `{}`)
	<-started
	_, cancelled, err := b.store.CancelTask(t.Context(), task, "elsewhere", b.engine.HostID()+1)
	require.NoError(t, err)
	require.True(t, cancelled)
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("the handler was not told")
	}
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
	require.ErrorIs(t, err, pipeline.ErrKeyReused)
	require.Equal(t, 1, count(t, b, `select count(*) from tasker_tasks`))
}
