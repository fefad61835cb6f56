package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// setSteps puts the steps of a task into any states, bypassing the guards.
func (b *bed) setSteps(ctx context.Context, t require.TestingT, task vocab.UUID, plan *store.Plan, steps []workflow.StepStatus) {
	var batch pgx.Batch
	batch.Queue("alter table tasker_workflow_steps disable trigger all")
	for n, s := range steps {
		remaining := 0
		for _, p := range plan.Steps[n].Parents {
			if !steps[p].State.Satisfies() {
				remaining++
			}
		}
		var due *time.Time
		if !s.DueAt.IsZero() {
			due = &s.DueAt
		}
		batch.Queue(`update tasker_workflow_steps set state = $3::text::tasker_step_state, attempts = $4, due_at = $5, remaining_parents = $6
		              where task_uuid = $1 and step_no = $2`, task, n, string(s.State), s.Attempts, due, remaining)
	}
	batch.Queue("alter table tasker_workflow_steps enable trigger all")
	require.NoError(t, b.pool.SendBatch(ctx, &batch).Close())
}

// readiness reads the readiness according to SQL.
func (b *bed) readiness(ctx context.Context, t require.TestingT, task vocab.UUID) (steps []workflow.StepReadiness, c workflow.ExecutionContext) {
	rows, err := b.pool.Query(ctx, `
select dependencies_satisfied, retry_eligible, ready_for_execution from get_step_readiness_status($1) order by named_step_no`, task)
	require.NoError(t, err)
	steps, err = pgx.CollectRows(rows, pgx.RowToStructByPos[workflow.StepReadiness])
	require.NoError(t, err)
	err = b.pool.QueryRow(ctx, `
select total_steps, pending_steps, enqueued_steps, in_progress_steps, completed_steps, failed_steps, ready_steps,
       execution_status, recommended_action, completion_percentage::float8, health_status
  from get_task_execution_context($1)`, task).Scan(&c.TotalSteps, &c.PendingSteps, &c.EnqueuedSteps, &c.InProgressSteps,
		&c.CompletedSteps, &c.FailedSteps, &c.ReadySteps, &c.ExecutionStatus, &c.RecommendedAction, &c.CompletionPercentage, &c.HealthStatus)
	require.NoError(t, err)
	return steps, c
}

// The rule of readiness exists in Go and in SQL: for any states of all steps, the two
// agree.
func TestReadinessIsTheSameInGoAndSQL(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	host := b.host(t)
	seen := map[workflow.ExecutionStatus]int{}
	rapid.Check(t, func(rt *rapid.T) {
		ctx := rt.Context()
		plan, err := b.plan(rt.Context(), drawSteps(rt)...)
		require.NoError(rt, err)
		created, err := b.store.CreateTasks(rt.Context(), b.grant(host, 0), []store.NewTask{newTask(plan)}, "")
		require.NoError(rt, err)
		task := created[0].UUID
		for range 4 {
			now := time.Now()
			steps := make([]workflow.StepStatus, len(plan.Steps))
			for n := range steps {
				steps[n].State = rapid.SampledFrom(vocab.StepStates).Draw(rt, "state")
				steps[n].Attempts = rapid.IntRange(0, 4).Draw(rt, "attempts")
				switch rapid.IntRange(0, 2).Draw(rt, "due") {
				case 1:
					steps[n].DueAt = now.Add(-time.Hour)
				case 2:
					steps[n].DueAt = now.Add(time.Hour)
				}
			}
			b.setSteps(ctx, rt, task, plan, steps)
			gotSteps, gotTask := b.readiness(ctx, rt, task)
			require.Equal(rt, workflow.Readiness(&plan.Plan, steps, now), gotSteps)
			want := workflow.Context(&plan.Plan, steps, now)
			require.Equal(rt, want, gotTask)
			seen[want.ExecutionStatus]++
		}
	})
	t.Logf("%v", seen)
}

// The scenarios of the reference's SQL tests, in our states. Two things differ
// throughout. What the reference calls pending and ready is enqueued here as soon as it
// is ready, so "ready" counts the roots only while neither a host nor a queue has them:
// the tasks are set to pending by hand. And a failed attempt that will be repeated is
// pending with a due time, not error; error is final.
func TestReferenceScenarios(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	type st = workflow.StepStatus
	pending, running, done, resolved, failed := st{State: vocab.StepPending}, st{State: vocab.StepInProgress},
		st{State: vocab.StepComplete}, st{State: vocab.StepResolvedManually}, st{State: vocab.StepError, Attempts: 3}
	past := time.Now().Add(-time.Hour)
	tried := func(n int) st { return st{State: vocab.StepPending, Attempts: n, DueAt: past} }
	linear, tree := withAttempts(chain(4), 3), withAttempts(binaryTree(), 3)
	rhombus := withAttempts(diamond(), 3)
	mixed := withAttempts(mixedDAG(), 3)
	for _, c := range []struct {
		name   string
		plan   []workflow.Step
		steps  []st
		ready  int
		status workflow.ExecutionStatus
	}{
		{"fresh linear", linear, []st{pending, pending, pending, pending}, 1, workflow.HasReadySteps},
		{"fresh diamond", rhombus, []st{pending, pending, pending, pending}, 1, workflow.HasReadySteps},
		{"diamond after its root", rhombus, []st{done, pending, pending, pending}, 2, workflow.HasReadySteps},
		{"diamond after one branch", rhombus, []st{done, done, running, pending}, 0, workflow.Processing},
		{"diamond after both", rhombus, []st{done, done, done, pending}, 1, workflow.HasReadySteps},
		{"diamond at its end", rhombus, []st{done, done, done, done}, 0, workflow.AllComplete},
		{"fresh tree", tree, []st{pending, pending, pending, pending, pending, pending, pending}, 1, workflow.HasReadySteps},
		{"tree after its root", tree, []st{done, pending, pending, pending, pending, pending, pending}, 2, workflow.HasReadySteps},
		// The reference: 3 after one branch, 4 after both.
		{"tree after one branch", tree, []st{done, done, pending, pending, pending, pending, pending}, 3, workflow.HasReadySteps},
		{"tree after both branches", tree, []st{done, done, done, pending, pending, pending, pending}, 4, workflow.HasReadySteps},
		{"tree at its end", tree, []st{done, done, done, done, done, done, done}, 0, workflow.AllComplete},
		{"fresh mixed", mixed, []st{pending, pending, pending, pending, pending, pending, pending}, 1, workflow.HasReadySteps},
		{"mixed after its root", mixed, []st{done, pending, pending, pending, pending, pending, pending}, 2, workflow.HasReadySteps},
		{"mixed after two", mixed, []st{done, done, done, pending, pending, pending, pending}, 3, workflow.HasReadySteps},
		{"mixed before its last", mixed, []st{done, done, done, done, done, done, pending}, 1, workflow.HasReadySteps},
		{"mixed at its end", mixed, []st{done, done, done, done, done, done, done}, 0, workflow.AllComplete},
		// The reference: state error, failed 1, ready again. Here it is pending.
		{"failed 1 of 3, its wait over", linear, []st{tried(1), pending, pending, pending}, 1, workflow.HasReadySteps},
		{"failed 1 of 3, waiting", linear, []st{{State: vocab.StepPending, Attempts: 1, DueAt: time.Now().Add(time.Hour)}, pending, pending, pending}, 0, workflow.WaitingForDependencies},
		{"failed 3 of 3", linear, []st{failed, pending, pending, pending}, 0, workflow.BlockedByFailures},
		{"one running, none ready", linear, []st{running, pending, pending, pending}, 0, workflow.Processing},
		{"a blocking failure resolved", linear, []st{resolved, pending, pending, pending}, 1, workflow.HasReadySteps},
	} {
		t.Run(c.name, func(t *testing.T) {
			plan := b.mustPlan(t, c.plan...)
			task, _ := b.create(t, b.grant(b.host(t), 0), plan)
			b.setSteps(t.Context(), t, task, plan, c.steps)
			_, got := b.readiness(t.Context(), t, task)
			require.Equal(t, c.status, got.ExecutionStatus)
			require.Equal(t, c.ready, got.ReadySteps)
			require.Equal(t, workflow.Context(&plan.Plan, c.steps, time.Now()), got)
		})
	}
	t.Run("parents of the merge after one branch", func(t *testing.T) {
		plan := b.mustPlan(t, rhombus...)
		task, _ := b.create(t, b.grant(b.host(t), 0), plan)
		b.setSteps(t.Context(), t, task, plan, []st{done, done, running, pending})
		require.Equal(t, []int32{2, 1}, one[[]int32](t, b, `
select array[total_parents, completed_parents] from get_step_readiness_status($1, array[tasker_step_uuid($1, 3)])`, task))
	})
}

// The wait after failed attempt n: tasker_backoff_ms is the longest that workflow.Retry
// allows, and what settling writes is within its bounds.
func TestWaitsAreThePolicys(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	rapid.Check(t, func(rt *rapid.T) {
		r := drawRetry(rt)
		n := rapid.IntRange(1, 200).Draw(rt, "attempt")
		_, longest := r.Delay(n)
		var ms int64
		require.NoError(rt, b.pool.QueryRow(rt.Context(), "select tasker_backoff_ms($1::text::tasker_backoff, $2, $3, $4)",
			string(r.Backoff), r.Base.Milliseconds(), r.Cap.Milliseconds(), n).Scan(&ms))
		require.Equal(rt, longest.Milliseconds(), ms)
	})
	host := b.host(t)
	rapid.Check(t, func(rt *rapid.T) {
		steps := fan(40)
		r := drawRetry(rt)
		for i := range steps {
			steps[i].Retry = r
		}
		plan, err := b.plan(rt.Context(), steps...)
		require.NoError(rt, err)
		created, err := b.store.CreateTasks(rt.Context(), b.grant(host, 40), []store.NewTask{newTask(plan)}, "")
		require.NoError(rt, err)
		task, before := created[0].UUID, rapid.IntRange(0, 20).Draw(rt, "attempts")
		_, err = b.pool.Exec(rt.Context(), "update tasker_workflow_steps set attempts = $2 where task_uuid = $1", task, before)
		require.NoError(rt, err)
		after := time.Duration(rapid.SampledFrom([]int64{0, 0, 1, 700, 3_600_000}).Draw(rt, "retry after")) * time.Millisecond
		batch := make([]store.Settlement, len(created[0].Leases))
		for i, l := range created[0].Leases {
			batch[i] = settlement(l.StepKey, l.ID, vocab.OutcomeRetryable)
			batch[i].RetryAfter = after
		}
		_, err = b.store.Settle(rt.Context(), store.Grant{Host: host}, policy, batch)
		require.NoError(rt, err)
		shortest, longest := r.NextDelay(before+1, after, policy.RetryAfterCap)
		var least, most int64
		require.NoError(rt, b.pool.QueryRow(rt.Context(), `
select min(extract(epoch from due_at - updated_at) * 1000)::bigint, max(extract(epoch from due_at - updated_at) * 1000)::bigint
  from tasker_workflow_steps where task_uuid = $1`, task).Scan(&least, &most))
		require.GreaterOrEqual(rt, least, shortest.Milliseconds())
		require.LessOrEqual(rt, most, longest.Milliseconds())
	})
}

func drawRetry(rt *rapid.T) workflow.Retry {
	base := rapid.Int64Range(0, 100_000).Draw(rt, "base")
	return workflow.Retry{
		Retryable: true, MaxAttempts: 100, Backoff: rapid.SampledFrom(workflow.Backoffs).Draw(rt, "backoff"),
		Base: time.Duration(base) * time.Millisecond,
		Cap:  time.Duration(rapid.Int64Range(base, 86_400_000).Draw(rt, "cap")) * time.Millisecond,
		// As the column stores it: in single precision.
		Jitter: float64(rapid.SampledFrom([]float32{0, 0.125, 0.25, 0.5, 0.75, 1}).Draw(rt, "jitter")),
	}
}

func withAttempts(steps []workflow.Step, n int) []workflow.Step {
	for i := range steps {
		steps[i].Retry.MaxAttempts = n
	}
	return steps
}

// dag returns steps with the given parents.
func dag(parents ...[]int32) []workflow.Step {
	steps := make([]workflow.Step, len(parents))
	for i := range steps {
		steps[i] = step(fmt.Sprintf("step_%d", i), parents[i], nil)
		for _, p := range parents[i] {
			steps[p].Children = append(steps[p].Children, int32(i))
		}
	}
	return steps
}

// binaryTree is the tree of the reference's SQL tests: a root, two branches, four
// leaves.
func binaryTree() []workflow.Step {
	return dag(nil, []int32{0}, []int32{0}, []int32{1}, []int32{1}, []int32{2}, []int32{2})
}

// mixedDAG is the mixed graph: an init step, two processors, a validation and two
// transforms of these, and a final step.
func mixedDAG() []workflow.Step {
	return dag(nil, []int32{0}, []int32{0}, []int32{1, 2}, []int32{1}, []int32{2}, []int32{3, 4, 5})
}
