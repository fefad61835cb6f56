package core

import (
	"bytes"
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/bench"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
)

// Every workload runs, counts what it has run, and reports it under the names that others
// rely on. How fast anything is, is not for a test to say.
func TestBenchWorkloads(t *testing.T) {
	t.Parallel()
	throughput := []string{
		"tasks_per_second", "steps_per_second", "wal_bytes_per_step", "commits_per_step", "dead_tuples_per_step", "hot_update_share",
		"cpu_us_per_step", "allocations_per_step", "allocated_bytes_per_step", "page_images_per_step", "repeats", "steps_per_second_least",
		"steps_per_second_most",
	}
	latency := append([]string{"latency_ms", "full_load_latency_ms"}, throughput...)
	for workload, want := range map[string]struct {
		steps int  // per task
		tasks int  // if not as many as requested
		open  bool // as many as time allows
		bare  bool // without the costs of a step
		names []string
	}{
		"linear":          {steps: 4, names: latency},
		"diamond":         {steps: 4, names: latency},
		"tree":            {steps: 8, names: latency},
		"mixed":           {steps: 7, names: latency},
		"fan-out":         {steps: 22, names: latency},
		"single":          {steps: 1, names: latency},
		"queue-worker":    {steps: 4, names: append([]string{"latency_ms"}, throughput...)},
		"latency":         {steps: 4, tasks: 5, names: []string{"latency_ms", "first_call_ms"}},
		"load":            {steps: 4, names: append([]string{"latency_ms", "share"}, throughput...)},
		"history":         {steps: 4, names: append([]string{"baseline_steps_per_second", "ratio", "history_steps"}, throughput...)},
		"pressure":        {steps: 4, names: append([]string{"baseline_steps_per_second", "ratio", "scans"}, throughput...)},
		"flush":           {steps: 4, names: append([]string{"baseline_steps_per_second", "ratio", "latency_ms", "baseline_latency_ms", "flush_delay_ms"}, throughput...)},
		"sustained":       {steps: 4, open: true, names: append([]string{"first_steps_per_second", "last_steps_per_second", "ratio"}, throughput...)},
		"sustained-queue": {steps: 4, open: true, names: append([]string{"first_steps_per_second", "last_steps_per_second", "ratio"}, throughput...)},
		"namespaces":      {steps: 4, names: append([]string{"baseline_steps_per_second", "ratio", "namespaces"}, throughput...)},
		"payload":         {steps: 4, names: append([]string{"peak_memory_bytes"}, latency...)},
		"memory":          {steps: 4, bare: true, names: []string{"rest_memory_bytes", "in_flight_memory_bytes", "in_flight"}},
		"idle":            {names: []string{"idle_transactions_per_second", "namespaces"}},
		"limits":          {names: []string{"limits"}},
	} {
		t.Run(workload, func(t *testing.T) {
			t.Parallel()
			o, pool := benchOptions(t, workload)
			report, err := Bench(t.Context(), o)
			require.NoError(t, err)
			require.Equal(t, workload, report.Name)
			if want.steps > 0 {
				tasks := want.tasks
				switch {
				case want.open:
					tasks = report.Tasks
					require.Greater(t, tasks, o.Window)
				case tasks == 0:
					tasks = o.Tasks
				}
				require.Equal(t, tasks, report.Tasks)
				require.Equal(t, tasks*want.steps, report.Steps)
			}
			raw, err := json.Marshal(report)
			require.NoError(t, err)
			var fields map[string]any
			require.NoError(t, json.Unmarshal(raw, &fields))
			for _, name := range append(want.names, "setting") {
				require.Contains(t, fields, name)
			}
			if want.tasks == 0 && want.steps > 0 && !want.bare {
				// Each step is written at least twice: when it is created, and when it
				// ends.
				require.Greater(t, report.WALBytesPerStep, 100.0)
				require.Positive(t, report.CommitsPerStep)
				require.GreaterOrEqual(t, report.DeadTuplesPerStep, 1.0)
				require.Positive(t, report.AllocationsPerStep)
				require.Positive(t, report.CPUMicrosecondsPerStep.Server, "the server is on this machine")
			}
			require.NotEmpty(t, report.Setting.Database["server_version"])
			var left, failed int
			require.NoError(t, pool.QueryRow(t.Context(),
				`select count(*) filter (where state in ('pending', 'in_progress')), count(*) filter (where state not in ('pending', 'in_progress', 'complete')) from tasker_tasks`).
				Scan(&left, &failed))
			require.Zero(t, left, "the submitted tasks have ended")
			require.Zero(t, failed)
		})
	}
}

// The machine's own limits are measured with a table and a queue that are removed
// afterwards, including those of a run that was killed.
func TestBenchLimits(t *testing.T) {
	t.Parallel()
	o, pool := benchOptions(t, "limits")
	for _, left := range []string{`create table tasker_bench_limits (other integer)`, `select pgmq.create('tasker_bench_limits')`} {
		_, err := pool.Exec(t.Context(), left)
		require.NoError(t, err)
	}
	report, err := Bench(t.Context(), o)
	require.NoError(t, err)
	l := report.Limits
	require.Positive(t, min(l.HashMBPerSecond, l.HashMBPerSecondAll, l.CommitsPerSecond, l.CommitsPerSecondMany, l.MessagesPerSecondMany))
	var tables, queues int
	require.NoError(t, pool.QueryRow(t.Context(), `
select (select count(*) from pg_class where relname like '%tasker_bench_limits%'),
       (select count(*) from pgmq.list_queues() where queue_name = 'tasker_bench_limits')`).Scan(&tables, &queues))
	require.Zero(t, tables)
	require.Zero(t, queues)
}

func benchOptions(t *testing.T, workload string) (BenchOptions, *pgxpool.Pool) {
	t.Helper()
	if workload == "flush" { // without flushes there is nothing to slow down
		return benchOptionsOn(t, workload, flushing(t))
	}
	return benchOptionsOn(t, workload, pgtest.New(t))
}

// flushing is a private server that flushes its log.
func flushing(t *testing.T) *pgxpool.Pool {
	t.Helper()
	return pgtest.Pool(t, pgtest.Cluster(t, map[string]string{"fsync": "on"}).DSN())
}

func benchOptionsOn(t *testing.T, workload string, pool *pgxpool.Pool) (BenchOptions, *pgxpool.Pool) {
	t.Helper()
	cfg, err := config.Load(config.Options{
		Environment: "test", Environ: []string{"HOME=" + t.TempDir(), "DATABASE_URL=" + pool.Config().ConnString()},
		Overrides: map[string]string{"system.state_dir": t.TempDir()},
	})
	require.NoError(t, err)
	log := hclog.New(&hclog.LoggerOptions{Output: t.Output(), Level: hclog.Warn})
	return BenchOptions{Config: cfg, Log: log, Options: bench.Options{
		Workload: workload, Tasks: 60, Repeats: 2, Window: 25, Samples: 5, Width: 20, Share: 0.5, Duration: 200 * time.Millisecond,
		History: 1000, Namespaces: 3, Workers: 2, Claim: 10, Way: "claim", Payload: 50_000, Hosts: 1, InProcess: true,
		FlushDelay: 2 * time.Millisecond,
	}}, pool
}

// Several hosts share the work on one database.
func TestBenchSeveralHosts(t *testing.T) {
	t.Parallel()
	o, pool := benchOptions(t, "linear")
	o.Hosts, o.Tasks = 3, 600
	report, err := Bench(t.Context(), o)
	require.NoError(t, err)
	require.Equal(t, 3, report.Setting.Hosts)
	require.Equal(t, 2400, report.Steps)
	var hosts int
	require.NoError(t, pool.QueryRow(t.Context(), `select count(*) from tasker_hosts`).Scan(&hosts))
	require.Equal(t, 3, hosts)
}

// Steps taken by one claim began at the same moment.
func TestBenchWorkersClaimAsManyAsTheyAreTold(t *testing.T) {
	t.Parallel()
	for _, how := range []bench.Manner{{Claim: 1, Way: "claim"}, {Claim: 7, Way: "claim"}, {Claim: 7, Way: "exchange"}, {Claim: 7, Way: "post"}} {
		o, pool := benchOptions(t, "queue-worker")
		o.Claim, o.Way, o.Repeats = how.Claim, how.Way, 1
		_, err := Bench(t.Context(), o)
		require.NoError(t, err)
		var most int
		require.NoError(t, pool.QueryRow(t.Context(), `
select max(n) from (select count(*) as n from tasker_workflow_step_transitions where to_state = 'in_progress' group by created_at, metadata) c`).Scan(&most))
		if how.Way != "post" { // whose results a host records as they arrive
			require.Equal(t, how.Claim, most)
		}
		var through int
		require.NoError(t, pool.QueryRow(t.Context(), `
select count(*) from tasker_workflow_step_transitions where to_state = 'enqueued' and step_no > 0`).Scan(&through))
		require.Equal(t, how.Claim > 1 && how.Way != "exchange", through > 0, "%d that were not the first of their tasks came through the queue", through)
	}
}

func TestBenchProfiles(t *testing.T) {
	t.Parallel()
	o, _ := benchOptions(t, "linear")
	o.Profile, o.Repeats = t.TempDir(), 1
	_, err := Bench(t.Context(), o)
	require.NoError(t, err)
	for _, name := range []string{"cpu", "allocs", "block", "mutex"} {
		raw, err := os.ReadFile(filepath.Join(o.Profile, "host."+name+".pprof"))
		require.NoError(t, err)
		require.True(t, bytes.HasPrefix(raw, []byte{0x1f, 0x8b}), "%s is no profile", name)
	}
}

// The tables are filled only once: existing rows count.
func TestBenchHistoryIsFilledUp(t *testing.T) {
	t.Parallel()
	o, pool := benchOptions(t, "history")
	o.Tasks, o.Repeats = 50, 1
	report, err := Bench(t.Context(), o)
	require.NoError(t, err)
	require.Equal(t, 1000, report.History)
	var steps int
	require.NoError(t, pool.QueryRow(t.Context(), `select count(*) from tasker_workflow_steps`).Scan(&steps))
	require.Equal(t, 1000+4*(50+50), steps, "the history, and what was measured on it with its warm-up")
}

// Only the sessions of the hosts in the second measurement have the delay: the server may
// have other users.
func TestBenchFlushDelaysOnlyItsHosts(t *testing.T) {
	t.Parallel()
	o, pool := benchOptions(t, "flush")
	o.FlushDelay, o.Repeats = 40*time.Millisecond, 1
	report, err := Bench(t.Context(), o)
	require.NoError(t, err)
	require.InDelta(t, 40.0, report.FlushDelayMS, 0)
	// Each step is durable before the next begins: no task can be faster than that.
	require.GreaterOrEqual(t, report.LatencyMS.P50, 4*40.0)
	var left int
	require.NoError(t, pool.QueryRow(t.Context(), `select count(*) from pg_db_role_setting where setconfig::text ~ 'commit_'`).Scan(&left))
	require.Zero(t, left, "no setting is left behind")
	var delay string
	require.NoError(t, pool.QueryRow(t.Context(), `show commit_delay`).Scan(&delay))
	require.Equal(t, "0", delay)
}

// If flushes cannot be slowed down, the error comes before anything is measured.
func TestBenchFlushIsRefused(t *testing.T) {
	t.Parallel()
	t.Run("nothing is flushed", func(t *testing.T) {
		t.Parallel()
		o, _ := benchOptionsOn(t, "flush", pgtest.New(t))
		_, err := Bench(t.Context(), o)
		require.ErrorContains(t, err, "fsync is off")
	})
	t.Run("the role may not", func(t *testing.T) {
		t.Parallel()
		pool := flushing(t)
		o, _ := benchOptionsOn(t, "flush", pool)
		for _, statement := range []string{`create role measurer login`, `create database measured owner measurer`} {
			_, err := pool.Exec(t.Context(), statement)
			require.NoError(t, err, statement)
		}
		u, err := url.Parse(pool.Config().ConnString())
		require.NoError(t, err)
		u.Path = "/measured"
		q := u.Query()
		q.Set("role", "measurer")
		u.RawQuery = q.Encode()
		o.Config.Database.URL = config.NewSecret(u.String())
		_, err = Bench(t.Context(), o)
		require.ErrorContains(t, err, "measurer may not set commit_delay")
		require.ErrorContains(t, err, "grant set on parameter commit_delay to measurer")
		_, err = pool.Exec(t.Context(), `grant set on parameter commit_delay to measurer`)
		require.NoError(t, err)
		_, err = Bench(t.Context(), o)
		require.NoError(t, err)
	})
}

func TestWithSession(t *testing.T) {
	t.Parallel()
	for database, want := range map[string]string{
		"postgres://a:b@h:1/d":                  "7",
		"postgresql://a@h/d?sslmode=disable":    "7",
		"postgres://a@h/d?commit_delay=1":       "7",
		"host=h user=a dbname=d commit_delay=1": "7",
		"host=h user=a password='b c' dbname=d": "7",
	} {
		slow, err := withSession(database, map[string]string{"commit_delay": "7"})
		require.NoError(t, err)
		before, err := pgx.ParseConfig(database)
		require.NoError(t, err)
		after, err := pgx.ParseConfig(slow)
		require.NoError(t, err, slow)
		require.Equal(t, want, after.RuntimeParams["commit_delay"], slow)
		require.Equal(t, before.Host+before.User+before.Password+before.Database, after.Host+after.User+after.Password+after.Database)
		same, err := withSession(database, nil)
		require.NoError(t, err)
		require.Equal(t, database, same)
	}
	_, err := withSession("postgres://a:secret@h:x/d", map[string]string{"commit_delay": "7"})
	require.Error(t, err)
	require.NotContains(t, err.Error(), "secret")
}

func TestBenchRefuses(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(o *bench.Options){
		"there is no workload": func(o *bench.Options) { o.Workload = "circle" },
		"must be at least 1":   func(o *bench.Options) { o.Repeats = 0 },
		"share 1.5 of":         func(o *bench.Options) { o.Share = 1.5 },
		"flush delay 0s":       func(o *bench.Options) { o.FlushDelay = 0 },
		"flush delay 1s":       func(o *bench.Options) { o.FlushDelay = time.Second },
		"duration 0s":          func(o *bench.Options) { o.Duration = 0 },
		"claim of 0 steps":     func(o *bench.Options) { o.Claim = 0 },
		"claim of 101 steps":   func(o *bench.Options) { o.Claim = 101 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := bench.DefaultOptions()
			change(&o)
			_, err := bench.Run(t.Context(), bench.Site{}, o)
			require.ErrorContains(t, err, name)
		})
	}
}
