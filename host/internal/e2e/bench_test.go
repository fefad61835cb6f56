package e2e_test

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
)

// The figures are for benchmarks; that there are any, under stable names, and
// that a database with tasks of others is left alone, is for a test.
func TestBenchMeasuresThroughAPluginProcess(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "build", "-o", filepath.Join(built, "plugins", "bench"),
		"github.com/tasker-systems/tasker-host/plugins/handlers/bench").CombinedOutput()
	require.NoError(t, err, string(out))
	pool := pgtest.New(t)
	s := newSite(t, pool.Config().ConnString())

	got := s.tasker(t, "bench", "linear", "--tasks", "40", "--repeat", "2", "--samples", "20", "--json")
	require.Zero(t, got.code, got.err)
	var report readmodel.BenchReport
	require.NoError(t, json.Unmarshal([]byte(got.out), &report))
	require.Equal(t, 160, report.Steps)
	require.Positive(t, report.StepsPerSecond)
	require.Positive(t, report.LatencyMS.P50)
	require.Positive(t, report.WALBytesPerStep)
	require.Positive(t, report.CPUMicrosecondsPerStep.Host)
	for _, name := range []string{"tasks_per_second", "steps_per_second", "latency_ms", "wal_bytes_per_step", "commits_per_step"} {
		require.Contains(t, got.out, `"`+name+`"`)
	}
	var left int
	require.NoError(t, pool.QueryRow(t.Context(), `select count(*) from tasker_tasks where state <> 'complete'`).Scan(&left))
	require.Zero(t, left)

	// Outside workers are processes too; theirs are other steps.
	got = s.tasker(t, "bench", "queue-worker", "--tasks", "40", "--repeat", "1", "--samples", "3", "--workers", "2", "--claim", "3", "--json")
	require.Zero(t, got.code, got.err)
	require.NoError(t, json.Unmarshal([]byte(got.out), &report))
	require.Equal(t, 160, report.Steps)
	var processes int
	require.NoError(t, pool.QueryRow(t.Context(), `select count(*) from tasker_workers where name ~ '^bench/[0-9]+$'`).Scan(&processes))
	require.Positive(t, processes)
	var most int
	require.NoError(t, pool.QueryRow(t.Context(), `
		select max(n) from (select count(*) as n from tasker_workflow_step_transitions where metadata ? 'worker' group by created_at, metadata) c`).Scan(&most))
	require.Equal(t, 3, most, "each claims as many as it is told")

	// A host whose memory is measured is a process too, without what makes the load.
	got = s.tasker(t, "bench", "memory", "--tasks", "300", "--duration", "100ms", "--json")
	require.Zero(t, got.code, got.err)
	require.NoError(t, json.Unmarshal([]byte(got.out), &report))
	require.Equal(t, 300, report.InFlight)
	require.Greater(t, report.RestMemoryBytes, int64(5e6))
	require.GreaterOrEqual(t, report.InFlightMemoryBytes, report.RestMemoryBytes)
	var requested int
	require.NoError(t, pool.QueryRow(t.Context(),
		`select count(*) filter (where attributes ->> 'source_system' = 'task_request_processor') from tasker_tasks where state = 'complete'`).Scan(&requested))
	require.Equal(t, 350, requested, "those in flight, and those before the rest")

	_, err = pool.Exec(t.Context(), `
		with ns as (insert into tasker_task_namespaces (name) values ('others') returning namespace_id)
		insert into tasker_tasks (task_uuid, plan_id, namespace_id, open_sinks, total_steps, state, created_at, context, identity_hash)
		select tasker_new_task_uuid(), 1, ns.namespace_id, 1, 1, 'in_progress', clock_timestamp(), '{}', 'x' from ns`)
	require.NoError(t, err)
	refused := s.tasker(t, "bench", "linear", "--tasks", "40", "--json")
	require.Equal(t, 1, refused.code)
	require.Contains(t, refused.err, "the database has other tasks")
}
