package pipeline_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

func ok(context.Context, *pluginv1.Step) pluginhost.Outcome { return success(`"done"`) }

func (b *testBundle) send(t *testing.T, queue, message string) {
	t.Helper()
	_, err := b.pool.Exec(t.Context(), `select pgmq.send($1, $2::jsonb)`, queue, message)
	require.NoError(t, err)
}

func (b *testBundle) deadLetter(t *testing.T, queue, reason string) {
	t.Helper()
	eventually(t, "dead letter "+reason, func() bool {
		return count(t, b, `select count(*) from tasker_dead_letters where kind = 'message' and queue_name = $1 and reason = $2`, queue, reason) > 0
	})
}

func TestTaskRequestInTheUsersOwnTransaction(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]handlerFunc{"t.step": ok})
	b.apply(t, oneStep)
	request := `{"request_id":"r-1","namespace":"test_ns","task_name":"one","task_version":"1.0.0",
		"input_data":{"n":340282366920938463463374607431768211456},
		"metadata":{"requested_at":"2026-11-23T05:00:00Z","requester":"billing","priority":"High"}}`
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `select pgmq.send('task_requests_queue', $1::jsonb)`, request)
	require.NoError(t, err)
	require.NoError(t, tx.Rollback(t.Context()))

	require.NoError(t, pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		for range 2 { // the same request twice creates one task
			if _, err := tx.Exec(t.Context(), `select pgmq.send('task_requests_queue', $1::jsonb)`, request); err != nil {
				return err
			}
		}
		return nil
	}))
	eventually(t, "the task", func() bool {
		return count(t, b, `select count(*) from tasker_tasks where state = 'complete' and priority = 3 and attributes ->> 'initiator' = 'billing'
			and (context ->> 'n') = '340282366920938463463374607431768211456'`) == 1
	})
	eventually(t, "the queue is empty", func() bool { return count(t, b, `select count(*) from pgmq.q_task_requests_queue`) == 0 })
	require.Equal(t, 1, count(t, b, `select count(*) from tasker_tasks`))
}

// What SQL makes of a column is as good as what a person writes.
func TestTaskRequestPriorities(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]handlerFunc{"t.step": ok})
	b.apply(t, oneStep)
	for priority, want := range map[string]int{"null": 0, `"Urgent"`: 4, "7": 7, "8.0": 8, "1e2": 100} {
		b.send(t, "task_requests_queue", `{"request_id":null,"namespace":"test_ns","task_name":"one","task_version":"1.0.0",
			"metadata":{"requester":null,"requested_at":null,"priority":`+priority+`}}`)
		eventually(t, priority, func() bool {
			return count(t, b, `select count(*) from tasker_tasks where priority = $1`, want) == 1
		})
	}
	for _, priority := range []string{"-1", "32768", "1.5", `"high"`, "[]", "1e400"} {
		b.send(t, "task_requests_queue", `{"namespace":"test_ns","task_name":"one","task_version":"1.0.0","metadata":{"priority":`+priority+`}}`)
	}
	b.send(t, "task_requests_queue", `{"namespace":"test_ns","task_name":"one","task_version":"1.0.0","request_id":17}`)
	eventually(t, "all are set aside", func() bool {
		return count(t, b, `select count(*) from tasker_dead_letters where reason = 'malformed' and detail not like '%Go %'`) == 7
	})
}

// setAside returns the metric of messages that were set aside, by reason.
func (b *testBundle) setAside(t *testing.T) map[string]float64 {
	t.Helper()
	families, err := b.counts.Gather()
	require.NoError(t, err)
	counted := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "tasker_pipeline_messages_set_aside_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			counted[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
		}
	}
	return counted
}

func TestTaskRequestsThatCannotBeReadAreSetAside(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]handlerFunc{"t.step": ok})
	b.apply(t, `
namespace: test_ns
name: strict
version: 1.0.0
input_schema: {type: object, required: [n]}
steps: [{name: a, handler: t.step}]
`)
	counted := b.setAside(t)
	// An alert on growth misses a counter that only appears with its first count.
	for _, reason := range []string{"request_id_reused", "duplicate_identity", "read_too_often", "stale_result", "unknown_step", "foreign_step"} {
		require.Contains(t, counted, reason)
	}
	for reason, message := range map[string]string{
		"not_an_object":    `[1]`,
		"missing_key":      `{"namespace":"test_ns","task_name":"strict","input_data":{}}`,
		"malformed":        `{"namespace":7,"task_name":"strict","task_version":"1.0.0"}`,
		"unknown_template": `{"namespace":"test_ns","task_name":"'; drop table tasker_tasks; --","task_version":"1.0.0"}`,
		"input_invalid":    `{"namespace":"test_ns","task_name":"strict","task_version":"1.0.0","input_data":{"m":1}}`,
	} {
		require.Zero(t, counted[reason], reason)
		require.Contains(t, counted, reason)
		b.send(t, "task_requests_queue", message)
		b.deadLetter(t, "task_requests_queue", reason)
		eventually(t, "it is counted", func() bool { return b.setAside(t)[reason] == 1 })
	}
	b.send(t, "task_requests_queue", `{"request_id":"x","namespace":"test_ns","task_name":"strict","task_version":"1.0.0","input_data":{"n":1}}`)
	b.send(t, "task_requests_queue", `{"request_id":"x","namespace":"test_ns","task_name":"strict","task_version":"1.0.0","input_data":{"n":2}}`)
	b.deadLetter(t, "task_requests_queue", "request_id_reused")
	eventually(t, "it is counted", func() bool { return b.setAside(t)["request_id_reused"] == 1 })
	_, err := b.pool.Exec(t.Context(), `insert into pgmq.q_task_requests_queue (vt, message) values (clock_timestamp(), null)`)
	require.NoError(t, err)
	eventually(t, "a message without a body", func() bool {
		return count(t, b, `select count(*) from tasker_dead_letters where reason = 'not_an_object' and body is null`) == 1
	})
	eventually(t, "nothing is left", func() bool { return count(t, b, `select count(*) from pgmq.q_task_requests_queue`) == 0 })
}

func TestStepMessagesThatCannotBeReadAreSetAside(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]handlerFunc{"t.step": ok})
	b.apply(t, oneStep)
	other := "01a20000-0000-7000-8000-000000000000"
	for reason, message := range map[string]string{
		"not_an_object": `"x"`,
		"no_step_uuid":  fmt.Sprintf(`{"task_uuid":%q}`, other),
		"no_task_uuid":  fmt.Sprintf(`{"step_uuid":%q}`, other),
		"not_a_uuid":    `{"task_uuid":"x'; --","step_uuid":"y"}`,
		"foreign_step":  `{"task_uuid":"01a20000-0000-7000-8000-000000000000","step_uuid":"01a20001-0000-7000-8000-000000000001"}`,
		"unknown_step":  `{"task_uuid":"01a20000-0000-7000-8000-000000000000","step_uuid":"01a20000-0000-7000-8000-000000000001"}`,
	} {
		b.send(t, "test_ns_queue", message)
		b.deadLetter(t, "test_ns_queue", reason)
	}
	task := b.submit(t, "one", `{}`)
	require.Equal(t, vocab.TaskComplete, b.settled(t, task), "a bad message does not hold up others")
}

// outside is a worker that polls the queue itself and posts results like the reference's
// workers. The host serves nothing.
func outside(t *testing.T) (*testBundle, vocab.UUID, string) {
	t.Helper()
	b := setup(t, map[string]handlerFunc{})
	b.apply(t, diamond)
	task := b.submit(t, "diamond", `{}`)
	return b, task, vocab.StepID(task, 0).String()
}

func TestOutsideWorkerPostsResults(t *testing.T) {
	t.Parallel()
	b, task, _ := outside(t)
	eventually(t, "the task", func() bool {
		rows, err := b.pool.Query(t.Context(), `select msg_id, message ->> 'step_uuid' from pgmq.read('test_ns_queue', 30, 10)`)
		require.NoError(t, err)
		type message struct {
			ID   int64
			Step string
		}
		got, err := pgx.CollectRows(rows, pgx.RowToStructByPos[message])
		require.NoError(t, err)
		for _, m := range got {
			_, err := b.pool.Exec(t.Context(), `select pgmq.delete('test_ns_queue', $1::bigint)`, m.ID)
			require.NoError(t, err)
			b.send(t, "orchestration_step_results", fmt.Sprintf(
				`{"step_uuid":%q,"task_uuid":%q,"namespace":"test_ns","status":"Success","results":"{\"n\": 18446744073709551616}","execution_time_ms":3,"metadata":{"worker_id":"w"}}`, m.Step, task))
		}
		return count(t, b, `select count(*) from tasker_tasks where state = 'complete'`) == 1
	})
	require.Equal(t, `{"n": 18446744073709551616}`, b.result(t, task, 3))
}

func TestResultsThatDoNotCountAreSetAside(t *testing.T) {
	t.Parallel()
	b, task, step := outside(t)
	const queue = "orchestration_step_results"
	post := func(fields string) { b.send(t, queue, fmt.Sprintf(`{"task_uuid":%q,%s}`, task, fields)) }
	unready := vocab.StepID(task, 3).String()

	b.send(t, queue, `7`)
	b.deadLetter(t, queue, "not_an_object")
	post(`"status":"Success"`)
	b.deadLetter(t, queue, "malformed")
	b.send(t, queue, fmt.Sprintf(`{"task_uuid":"01a20000-0000-7000-8000-000000000000","step_uuid":%q,"status":"Success"}`, step))
	b.deadLetter(t, queue, "foreign_step")
	b.send(t, queue, `{"task_uuid":"01a20000-0000-7000-8000-000000000000","step_uuid":"01a20000-0000-7000-8000-000000000001","status":"Success"}`)
	b.deadLetter(t, queue, "unknown_step")
	post(fmt.Sprintf(`"step_uuid":%q,"status":"Success","lease_id":"d84900a4-787e-4d22-aee9-62e5845510b0"`, step))
	b.deadLetter(t, queue, "stale_result")
	post(fmt.Sprintf(`"step_uuid":%q,"status":"Success"`, unready))
	eventually(t, "a result for a step that is not ready", func() bool {
		return count(t, b, `select count(*) from tasker_dead_letters where reason = 'stale_result' and body ->> 'step_uuid' = $1`, unready) == 1
	})
	require.Equal(t, 1, count(t, b, `select count(*) from tasker_workflow_steps where state = 'enqueued'`), "nothing has changed")

	for range 2 { // the second of two results is too late
		post(fmt.Sprintf(`"step_uuid":%q,"status":"Success","results":1`, step))
	}
	eventually(t, "one of two results counts", func() bool {
		return count(t, b, `select count(*) from tasker_dead_letters where reason = 'stale_result' and body ->> 'results' = '1'`) == 1
	})
	eventually(t, "and is recorded", func() bool {
		return count(t, b, `select count(*) from tasker_workflow_steps where state = 'complete'`) == 1
	})
}

func TestOutsideFailureIsRetriedAfterTheHint(t *testing.T) {
	t.Parallel()
	b, task, step := outside(t)
	b.send(t, "orchestration_step_results", fmt.Sprintf(
		`{"task_uuid":%q,"step_uuid":%q,"status":"Failed","error":{"message":"busy","retryable":true},"orchestration_metadata":{"backoff_hint":{"delay_seconds":40}}}`, task, step))
	eventually(t, "the step waits", func() bool {
		return count(t, b, `select count(*) from tasker_workflow_steps where state = 'pending' and due_at between clock_timestamp() + interval '20 seconds' and clock_timestamp() + interval '41 seconds'`) == 1
	})
	require.Equal(t, 1, count(t, b, `select count(*) from pgmq.q_test_ns_queue where vt > clock_timestamp() + interval '20 seconds'`), "its message is its timer")

	_, err := b.pool.Exec(t.Context(), `update tasker_workflow_steps set due_at = clock_timestamp()`)
	require.NoError(t, err)
	b.send(t, "orchestration_step_results", fmt.Sprintf(`{"task_uuid":%q,"step_uuid":%q,"status":"Success","results":2}`, task, step))
	eventually(t, "the next attempt's result counts", func() bool {
		return count(t, b, `select count(*) from tasker_workflow_steps where state = 'complete' and attempts = 2`) == 1
	})
}

func TestLostMessageIsFoundBySweep(t *testing.T) {
	t.Parallel()
	pool := setup(t, map[string]handlerFunc{}) // serves nothing: the step is enqueued
	pool.apply(t, oneStep)
	task := pool.submit(t, "one", `{}`)
	_, err := pool.pool.Exec(t.Context(), `select pgmq.purge_queue('test_ns_queue')`)
	require.NoError(t, err)
	other := setupOn(t, pool.pool, map[string]handlerFunc{"t.step": ok}, func(c *pipeline.Config) {
		c.SweepInterval, c.LostAfter = 50*time.Millisecond, 200*time.Millisecond
	})
	require.Equal(t, vocab.TaskComplete, other.settled(t, task))
}

func TestStepsOfADeadHostRunElsewhere(t *testing.T) {
	t.Parallel()
	block := make(chan struct{})
	dead := setup(t, map[string]handlerFunc{"t.step": func(ctx context.Context, _ *pluginv1.Step) pluginhost.Outcome {
		select {
		case <-block:
		case <-ctx.Done():
		}
		return success(`"zombie"`)
	}}, func(c *pipeline.Config) { c.Heartbeat = never; c.SelfStop = 0; c.SweepInterval = never })
	dead.apply(t, oneStep)
	task := dead.submit(t, "one", `{}`)
	eventually(t, "its first heartbeat", func() bool {
		return count(t, dead, `select cardinality(served) from tasker_hosts where host_id = $1`, dead.engine.HostID()) == 1
	})
	_, err := dead.pool.Exec(t.Context(), `update tasker_hosts set alive_until = clock_timestamp() - interval '1 second' where host_id = $1`, dead.engine.HostID())
	require.NoError(t, err)
	alive := setupOn(t, dead.pool, map[string]handlerFunc{"t.step": func(context.Context, *pluginv1.Step) pluginhost.Outcome { return success(`"alive"`) }},
		func(c *pipeline.Config) { c.SweepInterval = 50 * time.Millisecond })
	require.Equal(t, vocab.TaskComplete, alive.settled(t, task))
	close(block)
	eventually(t, "the zombie's result is refused", func() bool { return dead.engine.InFlight() == 0 })
	require.Equal(t, `"alive"`, alive.result(t, task, 0))
	require.Equal(t, 0, count(t, alive, `select attempts - 1 from tasker_workflow_steps where task_uuid = $1`, task), "the crash was not charged")
}

func TestHostDeclaredDeadRegistersAnew(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]handlerFunc{"t.step": ok})
	b.apply(t, oneStep)
	first := b.engine.HostID()
	_, err := b.pool.Exec(t.Context(), `update tasker_hosts set state = 'dead' where host_id = $1`, first)
	require.NoError(t, err)
	eventually(t, "a new number", func() bool { return b.engine.HostID() != first })
	require.Equal(t, vocab.TaskComplete, b.settled(t, b.submit(t, "one", `{}`)))
}

func TestLeaseWhoseReplyWasLostIsGivenBack(t *testing.T) {
	t.Parallel()
	none := setup(t, map[string]handlerFunc{})
	none.apply(t, oneStep)
	task := none.submit(t, "one", `{}`)
	b := setupOn(t, none.pool, map[string]handlerFunc{}, func(c *pipeline.Config) { c.SweepInterval, c.LostAfter = 50*time.Millisecond, 100*time.Millisecond })
	_, err := b.pool.Exec(t.Context(), `
		update tasker_workflow_steps set state = 'in_progress', lease_host = $1, lease_id = gen_random_uuid(), claims = 1 where task_uuid = $2`, b.engine.HostID(), task)
	require.NoError(t, err)
	eventually(t, "the lease is given back", func() bool {
		return count(t, b, `select count(*) from tasker_workflow_steps where task_uuid = $1 and state = 'enqueued'`, task) == 1
	})
}

func TestTwoHostsShareTheWorkAndRunEachStepOnce(t *testing.T) {
	t.Parallel()
	const tasks = 200
	var mu sync.Mutex
	ran := map[string]int{}
	count1 := func(_ context.Context, s *pluginv1.Step) pluginhost.Outcome {
		mu.Lock()
		ran[s.StepUuid]++
		mu.Unlock()
		return success(`1`)
	}
	few := func(c *pipeline.Config) { c.MaxInFlight = 20 }
	a := setup(t, map[string]handlerFunc{"t.step": count1}, few)
	a.apply(t, diamond)
	setupOn(t, a.pool, map[string]handlerFunc{"t.step": count1}, few)
	all := make([]pipeline.Submission, tasks)
	for i := range all {
		all[i] = pipeline.Submission{Namespace: "test_ns", Name: "diamond", Version: "1.0.0"}
	}
	_, err := a.engine.SubmitAll(t.Context(), all)
	require.NoError(t, err)
	eventually(t, "all tasks", func() bool { return count(t, a, `select count(*) from tasker_tasks where state = 'complete'`) == tasks })
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, ran, 4*tasks)
	for step, n := range ran {
		require.Equal(t, 1, n, step)
	}
	require.Equal(t, 0, count(t, a, `select count(*) from tasker_limbo`))
	require.Equal(t, 0, count(t, a, `select count(*) from pgmq.q_test_ns_queue`))
}

func TestDrainingHostGivesItsLeasesBackAtOnce(t *testing.T) {
	t.Parallel()
	other := setup(t, map[string]handlerFunc{}) // stays, so that the database is inspected
	other.apply(t, oneStep)
	started := make(chan struct{}, 1)
	b := setupOn(t, other.pool, map[string]handlerFunc{"t.step": func(ctx context.Context, _ *pluginv1.Step) pluginhost.Outcome {
		started <- struct{}{}
		<-ctx.Done()
		return pluginhost.Outcome{Kind: vocab.OutcomeReleased, Failure: &pluginhost.Failure{Code: pluginhost.ReasonStopping, Message: "host_stopping"}}
	}})
	b.apply(t, oneStep)
	task := b.submit(t, "one", `{}`)
	<-started
	expired, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, 1, b.engine.Drain(expired), "one step still runs")
	_, err := b.engine.Submit(t.Context(), pipeline.Submission{Namespace: "test_ns", Name: "one", Version: "1.0.0"})
	require.ErrorIs(t, err, pipeline.ErrDraining)
	b.runner.stop()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, b.engine.Stop(ctx))
	require.Equal(t, 1, count(t, other, `select count(*) from tasker_workflow_steps where task_uuid = $1 and state = 'enqueued' and claims = 0`, task))
	require.Equal(t, 1, count(t, other, `select count(*) from tasker_hosts where host_id = $1 and state = 'stopped' and swept_at is not null`, b.engine.HostID()))
}

func TestTaskRequestsOfOneIdentity(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]handlerFunc{"t.step": ok})
	for _, policy := range []string{"reject", "return_existing"} {
		b.apply(t, `
namespace: test_ns
name: `+policy+`
version: 1.0.0
identity: `+policy+`
steps: [{name: a, handler: t.step}]
`)
		for range 2 {
			b.send(t, "task_requests_queue", `{"namespace":"test_ns","task_name":"`+policy+`","task_version":"1.0.0","input_data":{"n":1}}`)
		}
	}
	b.deadLetter(t, "task_requests_queue", "duplicate_identity")
	eventually(t, "it is counted", func() bool { return b.setAside(t)["duplicate_identity"] == 1 })
	eventually(t, "nothing is left", func() bool { return count(t, b, `select count(*) from pgmq.q_task_requests_queue`) == 0 })
	require.Equal(t, 2, count(t, b, `select count(*) from tasker_tasks`))
	require.Equal(t, 1, count(t, b, `select count(*) from tasker_dead_letters d join tasker_tasks t on d.detail like '%' || t.task_uuid || '%'
		where d.body ->> 'task_name' = 'reject'`))
	require.Equal(t, 1, count(t, b, `select count(*) from tasker_dead_letters`))
}
