package cli_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/scaling/sim"
)

func TestDeadLetterCommands(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.golden(t, "dlq_empty", b.run(t, "dlq", "list"))
	for i := range 3 {
		b.SetAside("task_requests_queue", "malformed", fmt.Sprintf("no\x1b[31m %d", i), `{"n": 340282366920938463463374607431768211456}`)
	}
	b.SetAside("old_queue", "no_queue", "gone", `{}`)
	b.golden(t, "dlq_list", b.run(t, "dlq", "list", "--limit", "2"))
	b.golden(t, "dlq_show", b.run(t, "dlq", "show", "1"))
	b.golden(t, "dlq_replay", b.run(t, "dlq", "replay", "1", "--reason", "mended"))
	b.golden(t, "dlq_show_closed", b.run(t, "dlq", "show", "1"))
	r := b.run(t, "dlq", "replay", "--all")
	require.Equal(t, 1, r.code)
	b.golden(t, "dlq_replay_all", r)
	b.golden(t, "dlq_discard_all", b.run(t, "dlq", "discard", "--all", "--reason-is", "no_queue", "--json"))
	b.golden(t, "dlq_list_closed", b.run(t, "dlq", "list", "--closed"))
	for _, c := range []struct {
		name string
		args []string
		code int
	}{
		{"dlq_nothing", []string{"dlq", "replay"}, 2},
		{"dlq_both", []string{"dlq", "replay", "1", "--all"}, 2},
		{"dlq_filter", []string{"dlq", "discard", "1", "--queue", "x"}, 2},
		{"dlq_number", []string{"dlq", "show", "x"}, 2},
		{"dlq_unknown", []string{"dlq", "show", "9"}, 4},
		{"dlq_closed", []string{"dlq", "discard", "1"}, 6},
		{"dlq_age", []string{"dlq", "list", "--older-than", "yesterday"}, 1},
	} {
		r := b.run(t, c.args...)
		require.Equal(t, c.code, r.code, c.name+r.err)
		b.golden(t, "error_"+c.name, r)
	}
}

func TestFleetCommands(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.golden(t, "host_list", b.run(t, "host", "list"))
	b.golden(t, "host_list_json", b.run(t, "host", "list", "--json"))
	b.golden(t, "worker_list", b.run(t, "worker", "list"))
	b.golden(t, "queue_list", b.run(t, "queue", "list"))
	b.golden(t, "queue_pause", b.run(t, "queue", "pause", "linear_workflow", "--reason", "the shop moves"))
	b.golden(t, "queue_list_paused", b.run(t, "queue", "list"))
	b.golden(t, "queue_show", b.run(t, "queue", "show", "linear_workflow", "--json"))
	b.golden(t, "queue_resume", b.run(t, "queue", "resume", "linear_workflow"))
	r := b.run(t, "queue", "pause", "nobody")
	require.Equal(t, 4, r.code)
	b.golden(t, "error_queue_unknown", r)
}

func TestPoolCommands(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.env["USER"] = "ops"
	const pool = "step_execution.linear_workflow"
	b.golden(t, "pool_list", b.run(t, "pool", "list"))
	b.golden(t, "pool_show_json", b.run(t, "pool", "show", pool, "--json"))
	b.golden(t, "pool_set", b.run(t, "pool", "set", pool, "--max", "400", "--shadow", ""))
	b.golden(t, "pool_pause", b.run(t, "pool", "pause", pool, "--reason", "the shop moves"))
	b.golden(t, "pool_resume", b.run(t, "pool", "resume", pool))
	b.golden(t, "scale_history", b.run(t, "scale", "history", pool))
	b.golden(t, "scale_history_json", b.run(t, "scale", "history", pool, "--limit", "1", "--json"))
	b.golden(t, "pool_set_pace", b.run(t, "pool", "set", pool, "--batch", "50", "--poll-min", "5ms", "--poll-max", "500ms", "--turn-timeout", "2m", "--stop-timeout", "5s"))
	for name, c := range map[string]struct {
		code int
		args []string
	}{
		"pool_duration":  {2, []string{"pool", "set", pool, "--poll-max", "soon"}},
		"pool_unknown":   {4, []string{"pool", "show", "nobody"}},
		"pool_refused":   {6, []string{"pool", "set", pool, "--max", "501"}},
		"pool_nothing":   {2, []string{"pool", "set", pool}},
		"record_no_pool": {2, []string{"scale", "record", "-o", "x.csv"}},
		"record_every":   {2, []string{"scale", "record", "--pool", pool, "-o", "x.csv", "--every", "1500ms"}},
	} {
		r := b.run(t, c.args...)
		require.Equal(t, c.code, r.code, name+r.err)
		b.golden(t, "error_"+name, r)
	}
}

// A recording can be simulated.
func TestARecordedTraceIsOne(t *testing.T) {
	t.Parallel()
	b := setup(t)
	file := filepath.Join(t.TempDir(), "load.csv")
	r := b.run(t, "scale", "record", "--pool", "step_execution.linear_workflow", "-o", file, "--every", "10s")
	require.Zero(t, r.code, r.err)
	raw, err := os.ReadFile(file)
	require.NoError(t, err)
	trace, err := sim.ReadTrace(file, bytes.NewReader(raw))
	require.NoError(t, err)
	require.Equal(t, 10*time.Second, trace.Interval)
	require.Equal(t, sim.Row{Arrivals: 1200, Service: 0.512}, trace.Rows[0], "64 executors, at work for 0.72 of the time, do 90 a second")
	require.Zero(t, b.run(t, "scale", "simulate", "-a", "latency", "-t", file, "--max", "100").code)
}
