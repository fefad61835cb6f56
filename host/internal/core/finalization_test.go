package core

import (
	"context"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/finalizer"
	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/opstate"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// finalizations reads the finalization metrics that are not zero; for durations, their
// count.
func finalizations(t *testing.T, reg prometheus.Gatherer) map[string]float64 {
	t.Helper()
	found := map[string]float64{}
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		name, ok := strings.CutPrefix(f.GetName(), "tasker_finalization_")
		if !ok {
			continue
		}
		for _, m := range f.GetMetric() {
			key := name
			for _, l := range m.GetLabel() {
				key += ":" + l.GetValue()
			}
			if value := m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount()); value > 0 {
				found[key] = value
			}
		}
	}
	return found
}

// ones returns metrics with a count of one each.
func ones(names string) map[string]float64 {
	all := map[string]float64{}
	for _, name := range strings.Fields(names) {
		all[name] = 1
	}
	return all
}

// thief steals every claim between the inspection of the task and the decision.
type thief struct{ *bed }

// QueryRow implements [finalizer.DB].
func (f thief) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if strings.Contains(sql, "get_task_execution_context") {
		if _, err := f.pool.Exec(ctx, "update tasker_tasks set finalize_lease = gen_random_uuid(), finalize_by = 'another' where task_uuid = $1", args[0]); err != nil {
			panic(err)
		}
	}
	return f.pool.QueryRow(ctx, sql, args...)
}

// newTask submits a task of three steps that nobody runs, and changes the steps' states
// as with psql: without counting, and without finishing the task.
func (b *bed) newTask(t *testing.T, states ...string) vocab.UUID {
	t.Helper()
	_, _, err := b.api.ApplyTemplate(t.Context(), "three.yaml", []byte(threeSteps))
	require.NoError(t, err)
	task, _, err := b.api.Submit(t.Context(), client.Submission{Namespace: "reload", Name: "three", Version: "1.0.0"})
	require.NoError(t, err)
	id, err := vocab.ParseUUID(task.UUID)
	require.NoError(t, err)
	tx, err := pgtest.Pool(t, b.cfg.Database.URL.Reveal()).Begin(t.Context()) // waits for locks
	require.NoError(t, err)
	exec := func(sql string, args ...any) {
		_, err := tx.Exec(t.Context(), sql, args...)
		require.NoError(t, err)
	}
	exec("alter table tasker_workflow_steps disable trigger all")
	for step, state := range states {
		exec("update tasker_workflow_steps set state = $3::text::tasker_step_state where task_uuid = $1 and step_no = $2", id, step, state)
	}
	exec("alter table tasker_workflow_steps enable trigger all")
	require.NoError(t, tx.Commit(t.Context()))
	return id
}

// An abandoned task is found by the sweep and finished under a claim, and the host's
// metrics show it.
func TestTheSweepFeedsTheMetricsOfFinalization(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	done := b.newTask(t, "complete", "complete", "complete")
	failed := b.newTask(t, "complete", "error", "complete")
	b.eventually(t, "the tasks end", func() bool {
		return scalar[int](t, b, "select count(*) from tasker_tasks where task_uuid = any($1) and state in ('complete', 'error')", []vocab.UUID{done, failed}) == 2
	})
	want := map[string]float64{
		"claim_duration_seconds": 2, "claim_attempts_total": 2, "claim_success_total": 2, "results_total:complete": 1, "results_total:error": 1,
	}
	b.eventually(t, "the metrics show it", func() bool { return reflect.DeepEqual(want, finalizations(t, b.registry)) })
	_, text := b.get(t, "/metrics")
	require.Contains(t, text, "\ntasker_finalization_claim_success_total 2\n")
	require.Contains(t, text, "\ntasker_finalization_claim_contention_by_reason_total{reason=\"already_claimed\"} 0\n", "metrics of what has not happened exist")
}

// Each finalization metric changes only with what it counts.
func TestMetricsOfFinalization(t *testing.T) {
	t.Parallel()
	b := start(t, "[orchestration]\nlease = \"1h\"\nsweep_interval = \"10m\"\n") // no sweep interferes
	const run = "claim_duration_seconds claim_attempts_total"
	const back = " claim_release_duration_seconds claim_release_attempts_total"
	refused := func(reason string) string {
		return run + " claim_contention_total claim_contention_by_reason_total:" + reason
	}
	for name, c := range map[string]struct {
		states []string
		before string // what happens to the task before
		want   string
	}{
		"finished":         {states: []string{"complete", "complete", "complete"}, want: run + " claim_success_total results_total:complete"},
		"failed":           {states: []string{"error", "complete", "complete"}, want: run + " claim_success_total results_total:error"},
		"something moves":  {states: []string{"complete"}, want: run + " claim_success_total results_total:waiting" + back + " claim_release_success_total"},
		"nothing has run":  {want: refused("not_ready")},
		"claimed already":  {states: []string{"complete"}, before: "select from claim_task_for_finalization($1, 'another', 60)", want: refused("already_claimed")},
		"cancelled":        {before: "select from tasker_cancel_task($1, 'r', 'b')", want: refused("already_settled")},
		"complete already": {states: []string{"complete", "complete", "complete"}, before: "select tasker_conclude_task($1, null)", want: refused("already_complete")},
		"gone":             {before: "delete from tasker_tasks where task_uuid = $1", want: refused("other")},
	} {
		t.Run(name, func(t *testing.T) {
			task := b.newTask(t, c.states...)
			if c.before != "" {
				_, err := b.pool.Exec(t.Context(), c.before, task)
				require.NoError(t, err)
			}
			reg := prometheus.NewRegistry()
			_, err := b.newFinalizer().Observed(newFinalizationMetrics(reg)).Finalize(t.Context(), task)
			require.NoError(t, err)
			require.Equal(t, ones(c.want), finalizations(t, reg))
		})
	}
	t.Run("the claim is lost", func(t *testing.T) {
		reg := prometheus.NewRegistry()
		f := finalizer.New(thief{b}, "slow", time.Minute).Observed(newFinalizationMetrics(reg))
		_, err := f.Finalize(t.Context(), b.newTask(t, "complete", "complete", "complete"))
		require.ErrorIs(t, err, finalizer.ErrClaimLost)
		require.Equal(t, ones(run+" claim_success_total results_total:claim_lost"+back+" claim_release_not_owned_total"), finalizations(t, reg))
	})
	t.Run("the call fails", func(t *testing.T) {
		reg := prometheus.NewRegistry()
		task := b.newTask(t, "complete", "complete", "complete")
		f := finalizer.New(thief{b}, "", time.Minute).Observed(newFinalizationMetrics(reg)) // the database refuses a claim without a name
		_, err := f.Finalize(t.Context(), task)
		require.Error(t, err)
		require.Equal(t, ones(run), finalizations(t, reg), "neither granted nor refused")
	})
	t.Run("not in this state", func(t *testing.T) {
		reg := prometheus.NewRegistry()
		f := stateFinalizer{b.newFinalizer().Observed(newFinalizationMetrics(reg)), opstate.New(time.Now)}
		_, err := f.Finalize(t.Context(), b.newTask(t, "complete", "complete", "complete"))
		require.ErrorIs(t, err, errNotInState)
		require.Empty(t, finalizations(t, reg))
	})
}
