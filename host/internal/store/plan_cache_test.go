package store_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/cache"
	"github.com/tasker-systems/tasker-host/host/internal/store"
)

// counted returns the metrics of the plan caches, by metric and cache.
func counted(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			all[f.GetName()+" "+m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return all
}

func TestPlanCache(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	reg := prometheus.NewPedanticRegistry()
	other := store.New(b.pool) // another host
	other.CachePlans(2, cache.NewMetrics(reg, store.PlanCache, store.PlanNameCache))
	find := func(p *store.Plan) error {
		found, err := other.FindPlan(t.Context(), p.Namespace, p.Name, p.Version, "test")
		if err == nil {
			require.Equal(t, p.ID, found.ID)
			require.Equal(t, p.Steps, found.Steps)
			schema, err := found.Input()
			require.NoError(t, err)
			require.NoError(t, schema.Validate([]byte(`{}`)))
		}
		return err
	}
	plans := []*store.Plan{b.mustPlan(t, chain(1)...), b.mustPlan(t, chain(2)...), b.mustPlan(t, chain(3)...)}
	absent := *plans[2]
	absent.Version = "9.0.0"
	require.ErrorIs(t, find(&absent), store.ErrNotFound)
	b.exec(t, `update tasker_named_tasks set version = '9.0.0' where name = $1`, absent.Name) // another host applies it
	require.NoError(t, find(&absent), "a missing one is not cached")

	for range 3 {
		require.NoError(t, find(plans[0]))
	}
	got := counted(t, reg)
	require.InDelta(t, 2, got["tasker_query_cache_hits_total plan_names"], 0)
	require.InDelta(t, 3, got["tasker_query_cache_misses_total plan_names"], 0)
	require.InDelta(t, 2, got["tasker_query_cache_misses_total plans"], 0)
	require.Zero(t, got["tasker_query_cache_evictions_total plans"])
	for range 3 { // more than fit: each is found nevertheless
		require.NoError(t, find(plans[0]))
		require.NoError(t, find(plans[1]))
		require.NoError(t, find(&absent))
	}
	got = counted(t, reg)
	require.Positive(t, got["tasker_query_cache_evictions_total plans"])
	require.InDelta(t, 2, got["tasker_query_cache_entries plans"], 0)
	require.InDelta(t, 2, got["tasker_query_cache_entries plan_names"], 0)
}
