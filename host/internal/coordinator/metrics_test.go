package coordinator_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/coordinator"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// values returns the metrics that are not zero, by name and labels.
func (b *bundle) values(t *testing.T) map[string]float64 {
	t.Helper()
	families, err := b.reg.Gather()
	require.NoError(t, err)
	found := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			l := []string{f.GetName()}
			for _, p := range m.GetLabel() {
				l = append(l, p.GetValue())
			}
			if v := m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount()); v != 0 {
				found[strings.Join(l, " ")] = v
			}
		}
	}
	return found
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		target := 9
		b := setup(scaler.Func(func(context.Context, scaler.Observation) (scaler.Decision, error) {
			if target == 0 {
				return scaler.Decision{}, errors.New("no idea")
			}
			return scaler.Decision{Target: target, Reason: "the test says so", Confidence: 1}, nil
		}), func(b *bundle) {
			b.cfg.Policy.Stabilization, b.cfg.Policy.Reversal, b.cfg.Policy.CooldownDown = 0, 0, 0
		})
		b.world.algorithms["other"] = says(30)
		_, _, err := b.Set(t.Context(), name, coordinator.Change{Shadow: new("other")})
		require.NoError(t, err)
		b.executors.load = func() scaler.Sample {
			return scaler.Sample{Completions: 7, Errors: 2, Utilization: 0.5, QueueDepth: 3}
		}
		b.tick(t) // 4 to 9
		b.executors.lost = 2
		target = 30
		b.tick(t) // to 20, as the shadow says too
		b.tick(t) // and keeps that size
		target = 0
		b.tick(t) // held
		target = 10
		b.tick(t) // to 10
		_, err = b.Pause(name, true, "kim", "")
		require.NoError(t, err)
		b.tick(t)
		const kind = " step_execution"
		require.Equal(t, map[string]float64{
			"tasker_pool_executors" + kind: 10, "tasker_pool_executors_busy" + kind: 5, "tasker_pool_backlog" + kind: 3,
			"tasker_pool_paused" + kind: 1, "tasker_pool_executors_stuck" + kind: 2, "tasker_pool_executors_replaced_total" + kind: 2,
			"tasker_pool_items_total" + kind: 6 * 7, "tasker_pool_failed_items_total" + kind: 6 * 2,
			"tasker_scaling_decisions_total" + kind + " grow": 2, "tasker_scaling_decisions_total" + kind + " keep": 1,
			"tasker_scaling_decisions_total" + kind + " held": 1, "tasker_scaling_decisions_total" + kind + " shrink": 1,
			"tasker_scaling_clamps_total bounds":   2,
			"tasker_scaling_shadow_differed_total": 2, // 20 instead of 9, and of 10
			"tasker_scaling_decision_seconds":      5,
		}, b.values(t))
	})
}
