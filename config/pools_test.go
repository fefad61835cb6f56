package config

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBoundsOfNamespaces(t *testing.T) {
	t.Parallel()
	const key = "executor_pools.step_execution.namespaces"
	c, err := load(t, Options{Overrides: map[string]string{key: "shop=8..64, lab=1..4"}})
	require.NoError(t, err)
	s := &c.ExecutorPools.StepExecution
	require.Equal(t, Bounds{8, 64}, s.Bounds("shop"))
	require.Equal(t, Bounds{1, 4}, s.Bounds("lab"))
	require.Equal(t, Bounds{s.Min, s.Max}, s.Bounds("other"))
	for value, want := range map[string]string{
		"shop":           `"shop": want namespaces with their minimum and maximum number of executors`,
		"shop=4":         "want namespaces with",
		"shop=8..4":      "want namespaces with",
		"shop=0..4":      "want namespaces with",
		"shop=1..100001": "want namespaces with",
		"shop=a..b":      "want namespaces with",
		"Shop=1..2":      `"Shop" is not a valid name for a namespace`,
		"a=1..2,a=1..3":  "namespace a is listed twice",
	} {
		_, err := load(t, Options{Overrides: map[string]string{key: value}})
		require.ErrorContains(t, err, key+": ", value)
		require.ErrorContains(t, err, want, value)
	}
}

func TestPoolsThatContradictThemselves(t *testing.T) {
	t.Parallel()
	for key, c := range map[string][2]string{
		"executor_pools.step_execution.max":       {"3", "must be at least executor_pools.step_execution.min (64)"},
		"executor_pools.coordinator.interval":     {"0s", "out of range"},
		"executor_pools.coordinator.stale":        {"0s", "out of range"},
		"executor_pools.coordinator.dead_band":    {"nan", "out of range"},
		"executor_pools.step_execution.algorithm": {"no name", "is not valid: want a name, optionally with options"},
		"executor_pools.step_execution.shadow":    {"rate=2m", "is not valid: want nothing, or a name, optionally with options"},
	} {
		_, err := load(t, Options{Overrides: map[string]string{key: c[0]}})
		require.ErrorContains(t, err, key+": ")
		require.ErrorContains(t, err, c[1])
	}
	_, err := load(t, Options{Overrides: map[string]string{"executor_pools.coordinator.interval": "6s"}})
	require.ErrorContains(t, err, "executor_pools.coordinator.stale: 10s must be at least twice executor_pools.coordinator.interval (6s)")
}

func TestEveryPoolLeavesConnections(t *testing.T) {
	t.Parallel()
	for _, pool := range []string{"task_request_processor", "task_claimer", "step_enqueuer", "step_result_processor", "task_finalizer"} {
		key := "executor_pools." + pool
		_, err := load(t, Options{Overrides: map[string]string{key + ".min": "9", key + ".max": "20"}})
		require.ErrorContains(t, err, key+".min: must leave 2 of the 10 database.max_connections free")
		_, err = load(t, Options{Overrides: map[string]string{key + ".min": "8", key + ".max": "20"}})
		require.NoError(t, err)
	}
}
