package core

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/breaker"
	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/coordinator"
	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
)

const oneStep = `namespace: keys
name: one
version: 1.0.0
steps:
  - {name: a, handler: nobody.serves}
`

// scalar reads one value from a host's database, through its own connections.
func scalar[T any](t *testing.T, b *bed, sql string, args ...any) T {
	t.Helper()
	var v T
	require.NoError(t, b.pool.QueryRow(t.Context(), sql, args...).Scan(&v))
	return v
}

// Settings that are fixed at start take effect: each value here differs from the default,
// and is checked where it has its effect.
func TestKeysOfAHostThatStarts(t *testing.T) {
	t.Parallel()
	b := start(t, `
[database]
max_connections = 7
connect_timeout = "30s"
statement_timeout = "8s"
lock_timeout = "6s"
[executor_pools.task_finalizer]
min = 3
max = 3
[orchestration]
lease = "181s"
heartbeat = "1s"
dead_host_grace = "2s"
finalization_claim = "10m"
task_requests_queue = "asked"
step_results_queue = "answered"
[system]
log_format = "json"
max_context_bytes = 2048
max_depth = 5
http_listen = "127.0.0.1:0"
[telemetry]
metrics = false
`, "TASKER__SYSTEM__PLUGINS=/does/not/exist")

	require.EqualValues(t, 7, b.pool.Stat().MaxConns(), "database.max_connections")
	require.Equal(t, 30*time.Second, b.pool.Config().ConnConfig.ConnectTimeout, "database.connect_timeout")
	require.Equal(t, "8s", scalar[string](t, b, "show statement_timeout"), "database.statement_timeout")
	require.Equal(t, "6s", scalar[string](t, b, "show lock_timeout"), "database.lock_timeout")
	require.Contains(t, b.cfg.Database.URL.Reveal(), scalar[string](t, b, "select current_database()"), "database.url")

	committers := 0
	for _, l := range b.Engine.Loops() {
		if l.Name == "settle" {
			committers++
		}
	}
	require.Equal(t, 3, committers, "executor_pools.task_finalizer.min")
	require.Equal(t, 183, scalar[int](t, b, "select round(extract(epoch from alive_until - heartbeat_at))::integer from tasker_hosts"),
		"orchestration.lease and dead_host_grace")
	first := scalar[time.Time](t, b, "select heartbeat_at from tasker_hosts")
	b.eventually(t, "orchestration.heartbeat", func() bool {
		return scalar[time.Time](t, b, "select heartbeat_at from tasker_hosts").After(first)
	})

	_, _, err := b.api.ApplyTemplate(t.Context(), "one.yaml", []byte(oneStep))
	require.NoError(t, err)
	ask := `{"request_id": "r", "namespace": "keys", "task_name": "one", "task_version": "1.0.0", "input_data": {}}`
	b.send(t, "asked", ask)
	b.eventually(t, "orchestration.task_requests_queue", func() bool { return scalar[int](t, b, "select count(*) from tasker_tasks") == 1 })
	b.send(t, "answered", `{"nonsense": true}`)
	b.eventually(t, "orchestration.step_results_queue", func() bool {
		return scalar[int](t, b, "select count(*) from tasker_dead_letters where queue_name = 'answered'") == 1
	})

	submit := func(context string) error {
		_, _, err := b.api.Submit(t.Context(), client.Submission{Namespace: "keys", Name: "one", Version: "1.0.0", Context: json.RawMessage(context)})
		return err
	}
	require.NoError(t, submit(`{"a": [[[1]]]}`))
	require.ErrorContains(t, submit(`{"a": [[[[[1]]]]]}`), "5", "system.max_depth")
	require.ErrorContains(t, submit(`{"a": "`+strings.Repeat("x", 2048)+`"}`), "2048", "system.max_context_bytes")

	status, _ := b.get(t, "/metrics")
	require.Equal(t, http.StatusNotFound, status, "telemetry.metrics")
	require.Equal(t, filepath.Join(b.cfg.System.StateDir, "tasker.sock"), b.cfg.System.Socket, "system.state_dir")
	require.FileExists(t, b.cfg.System.StateDir+"/plugins/../tasker.sock", "system.socket")
	for line := range strings.Lines(b.log.String()) {
		require.True(t, json.Valid([]byte(line)), "system.log_format: %s", line)
	}
	plan, err := b.api.PluginPlan(t.Context())
	require.Error(t, err, "system.plugins: %v", plan)
	over := "http://" + b.listens(t)
	resp, err := http.Get(over + "/health/live")
	require.NoError(t, err, "system.http_listen")
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode)
}

// query_cache.max_plans bounds what is cached; what is not cached is found nevertheless.
func TestQueryCacheKey(t *testing.T) {
	t.Parallel()
	b := start(t, "[query_cache]\nmax_plans = 16\n")
	for round := range 2 {
		for i := range 20 {
			name := fmt.Sprintf("one_%d", i)
			if round == 0 {
				_, _, err := b.api.ApplyTemplate(t.Context(), "one.yaml", []byte(strings.Replace(oneStep, "name: one\n", "name: "+name+"\n", 1)))
				require.NoError(t, err)
			}
			_, _, err := b.api.Submit(t.Context(), client.Submission{Namespace: "keys", Name: name, Version: "1.0.0", Context: json.RawMessage("{}")})
			require.NoError(t, err)
		}
	}
	families, err := b.registry.Gather()
	require.NoError(t, err)
	found := 0
	for _, f := range families {
		if f.GetName() == "tasker_query_cache_entries" || f.GetName() == "tasker_query_cache_evictions_total" {
			for _, m := range f.GetMetric() {
				found++
				if m.GetGauge() != nil {
					require.InDelta(t, 16, m.GetGauge().GetValue(), 0)
				} else {
					require.GreaterOrEqual(t, m.GetCounter().GetValue(), 4.0)
				}
			}
		}
	}
	require.Equal(t, 4, found)
}

func (b *bed) send(t *testing.T, queue, message string) {
	t.Helper()
	_, err := b.pool.Exec(t.Context(), "select pgmq.send($1, $2::jsonb)", queue, message)
	require.NoError(t, err)
}

// listens returns the host's TCP address.
func (b *bed) listens(t *testing.T) string {
	t.Helper()
	for _, a := range b.Core.api.Addresses() {
		if a.Network() == "tcp" {
			return a.String()
		}
	}
	t.Fatal("the host does not listen on TCP")
	return ""
}

// liveKey is a key that can change in a running host: two values, and the effect of each
// in the parts that use it.
type liveKey struct {
	first, second string
	read          func(*Core) string
}

func ofPipeline(read func(c *Core) any) func(*Core) string {
	return func(c *Core) string { return fmt.Sprint(read(c)) }
}

func liveKeys() map[string]liveKey {
	pipe := func(c *Core) pipeline.Config { return c.pipelineConfig(c.inForce()) }
	key := func(first, second string, read func(p pipeline.Config) any) liveKey {
		return liveKey{first, second, ofPipeline(func(c *Core) any { return read(pipe(c)) })}
	}
	plain := func(first, second string, read func(c *config.Config) any) liveKey {
		return liveKey{first, second, ofPipeline(func(c *Core) any { return read(c.inForce()) })}
	}
	aQueue := breaker.ID{Queue: "a_queue", Class: breaker.Claim}
	ofBreaker := func(first, second string, id breaker.ID, read func(c breaker.Config) any) liveKey {
		return liveKey{first, second, ofPipeline(func(c *Core) any { return read(c.breakers.Of(id).Status().Config) })}
	}
	scale := func(first, second string, read func(c coordinator.Config) any) liveKey {
		return liveKey{first, second, ofPipeline(func(c *Core) any { return read(c.pools.Config()) })}
	}
	steps := func(c coordinator.Config, namespace string) coordinator.Settings {
		return c.Settings(string(pipeline.StepExecution), namespace)
	}
	all := map[string]liveKey{
		"engine.max_in_flight":             key("15", "16", func(p pipeline.Config) any { return p.MaxInFlight }),
		"engine.max_steps":                 {"17", "18", func(c *Core) string { return fmt.Sprint(c.backendConfig(c.inForce()).Templates.MaxSteps) }},
		"orchestration.rest_after":         key("7s", "8s", func(p pipeline.Config) any { return p.RestAfter }),
		"orchestration.sweep_interval":     key("800ms", "700ms", func(p pipeline.Config) any { return p.SweepInterval }),
		"orchestration.claim_cap_factor":   key("7", "8", func(p pipeline.Config) any { return p.Policy.ClaimFactor }),
		"orchestration.retry_after_cap":    key("1m1s", "1m2s", func(p pipeline.Config) any { return p.Policy.RetryAfterCap }),
		"orchestration.drain_timeout":      plain("4s", "3s", func(c *config.Config) any { return c.Orchestration.DrainTimeout }),
		"orchestration.emergency_timeout":  plain("2s", "1s", func(c *config.Config) any { return c.Orchestration.EmergencyTimeout }),
		"orchestration.supervisor_timeout": plain("40s", "41s", func(c *config.Config) any { return c.Orchestration.SupervisorTimeout }),

		"orchestration.retention.tasks": key("25h0m0s", "26h0m0s", func(p pipeline.Config) any { return p.Retention.Tasks }),
		"orchestration.retention.namespaces": {"shop=1h", "shop=2h", func(c *Core) string {
			return "shop=" + strings.TrimSuffix(pipe(c).Retention.Namespaces["shop"].String(), "0m0s")
		}},
		"orchestration.retention.idempotency_keys": key("27h0m0s", "28h0m0s", func(p pipeline.Config) any { return p.Retention.Keys }),
		"orchestration.retention.dead_letters":     key("29h0m0s", "30h0m0s", func(p pipeline.Config) any { return p.Retention.DeadLetters }),
		"orchestration.retention.audit":            key("721h0m0s", "722h0m0s", func(p pipeline.Config) any { return p.Retention.Audit }),
		"orchestration.retention.records":          key("31h0m0s", "32h0m0s", func(p pipeline.Config) any { return p.Retention.Records }),

		"executor_pools.coordinator.auto_scaling":   scale("false", "false", func(c coordinator.Config) any { return c.Enabled }),
		"executor_pools.coordinator.interval":       scale("301ms", "302ms", func(c coordinator.Config) any { return c.Interval }),
		"executor_pools.coordinator.timeout":        scale("1.1s", "1.2s", func(c coordinator.Config) any { return c.Timeout }),
		"executor_pools.coordinator.step_up":        scale("51", "52", func(c coordinator.Config) any { return c.Policy.StepUp }),
		"executor_pools.coordinator.step_down":      scale("53", "54", func(c coordinator.Config) any { return c.Policy.StepDown }),
		"executor_pools.coordinator.cooldown_up":    scale("5s", "6s", func(c coordinator.Config) any { return c.Policy.CooldownUp }),
		"executor_pools.coordinator.cooldown_down":  scale("7s", "8s", func(c coordinator.Config) any { return c.Policy.CooldownDown }),
		"executor_pools.coordinator.dead_band":      scale("0.2", "0.3", func(c coordinator.Config) any { return c.Policy.DeadBand }),
		"executor_pools.coordinator.stabilization":  scale("9s", "10s", func(c coordinator.Config) any { return c.Policy.Stabilization }),
		"executor_pools.coordinator.reversal":       scale("11s", "12s", func(c coordinator.Config) any { return c.Policy.Reversal }),
		"executor_pools.coordinator.stale":          scale("13s", "14s", func(c coordinator.Config) any { return c.Policy.Stale }),
		"executor_pools.coordinator.min_confidence": scale("0.4", "0.5", func(c coordinator.Config) any { return c.Policy.MinConfidence }),
		"executor_pools.coordinator.resources": {"enforce", "enforce", func(c *Core) string {
			return map[bool]string{true: "enforce", false: "warn"}[c.pools.Config().Enforce]
		}},
		"executor_pools.coordinator.memory_share": scale("0.6", "0.7", func(c coordinator.Config) any { return c.MemoryShare }),

		"executor_pools.step_execution.min": scale("3", "4", func(c coordinator.Config) any { return steps(c, "").Min }),
		"executor_pools.step_execution.max": scale("301", "302", func(c coordinator.Config) any { return steps(c, "").Max }),
		"executor_pools.step_execution.namespaces": {"shop=5..6", "shop=6..7", func(c *Core) string {
			s := steps(c.pools.Config(), "shop")
			return fmt.Sprintf("shop=%d..%d", s.Min, s.Max)
		}},
		"executor_pools.step_execution.algorithm": scale("rate", "cost", func(c coordinator.Config) any { return steps(c, "").Algorithm }),
		"executor_pools.step_execution.shadow":    scale("target", "threshold", func(c coordinator.Config) any { return steps(c, "").Shadow }),
		"executor_pools.step_execution.memory":    plain("1MiB", "2MiB", func(c *config.Config) any { return c.ExecutorPools.StepExecution.Memory }),

		"circuit_breakers.database.failures": ofBreaker("7", "8", breaker.Database, func(c breaker.Config) any { return c.Failures }),
		"circuit_breakers.database.timeout":  ofBreaker("7s", "8s", breaker.Database, func(c breaker.Config) any { return c.Timeout }),
		"circuit_breakers.pgmq.failures":     ofBreaker("9", "10", aQueue, func(c breaker.Config) any { return c.Failures }),
		"circuit_breakers.pgmq.timeout":      ofBreaker("9s", "10s", aQueue, func(c breaker.Config) any { return c.Timeout }),

		"pgmq.visibility_timeout":       key("31s", "32s", func(p pipeline.Config) any { return p.InboxVT }),
		"pgmq.max_reads":                key("21", "22", func(p pipeline.Config) any { return p.InboxMaxReads }),
		"system.log_level":              {"debug", "trace", func(c *Core) string { return c.log.Named("x").GetLevel().String() }},
		"system.max_result_bytes":       key("2048", "4096", func(p pipeline.Config) any { return p.Results.MaxBytes }),
		"telemetry.traces.sample_ratio": plain("0.5", "0.25", func(c *config.Config) any { return c.Telemetry.Traces.SampleRatio }),
	}
	maps.Copy(all, liveKeysOfPools())
	return all
}

// liveKeysOfPools are those of the pools whose executors take turns: what is in force in
// the pool, as 'tasker pool show' reports it.
func liveKeysOfPools() map[string]liveKey {
	all := map[string]liveKey{}
	for i, kind := range []pipeline.PoolKind{
		pipeline.TaskRequestProcessor, pipeline.TaskClaimer, pipeline.StepEnqueuer, pipeline.StepResultProcessor, pipeline.TaskFinalizer,
	} {
		add := func(key, first, second string, read func(s *coordinator.Status) any) {
			all["executor_pools."+string(kind)+"."+key] = liveKey{first, second, ofPipeline(func(c *Core) any {
				s, err := c.pools.Pool(string(kind))
				if err != nil {
					return err
				}
				return read(&s)
			})}
		}
		number := func(n int) string { return strconv.Itoa(n + i) }
		add("min", number(3), number(4), func(s *coordinator.Status) any { return s.Min })
		add("max", number(41), number(51), func(s *coordinator.Status) any { return s.Max })
		add("batch", number(11), number(21), func(s *coordinator.Status) any { return s.Pace.Batch })
		add("turn_timeout", number(31)+"s", number(41)+"s", func(s *coordinator.Status) any { return s.Pace.TurnTimeout })
		add("stop_timeout", number(4)+"s", number(14)+"s", func(s *coordinator.Status) any { return s.Pace.StopTimeout })
		add("algorithm", "rate", "cost", func(s *coordinator.Status) any { return s.Algorithm })
		add("shadow", "target", "threshold", func(s *coordinator.Status) any { return s.Shadow })
		if kind != pipeline.StepEnqueuer && kind != pipeline.TaskFinalizer {
			add("poll_min", number(2)+"ms", number(3)+"ms", func(s *coordinator.Status) any { return s.Pace.PollMin })
			add("poll_max", number(80)+"ms", number(90)+"ms", func(s *coordinator.Status) any { return s.Pace.PollMax })
		}
	}
	return all
}

// flat writes values by key as a file; strings are quoted.
func flat(values map[string]string, text map[string]bool) string {
	var out strings.Builder
	for _, key := range slices.Sorted(maps.Keys(values)) {
		value := values[key]
		if text[key] {
			value = strconv.Quote(value)
		}
		fmt.Fprintf(&out, "%s = %s\n", key, value)
	}
	return out.String()
}

// Every key marked as live takes effect in a running host: all of them at once from a
// changed file, then all of them at once on SIGHUP, when no file has changed. An invalid
// file changes none.
func TestEveryLiveKeyReloads(t *testing.T) {
	t.Parallel()
	live := liveKeys()
	cfg, err := config.Load(config.Options{Environment: "test", Environ: []string{"HOME=/home/you"}})
	require.NoError(t, err)
	text := map[string]bool{}
	for _, e := range cfg.Entries() {
		switch e.Value.(type) {
		case string, config.Bytes:
			text[e.Key] = true
		}
	}
	require.Equal(t, config.LiveKeys(), slices.Sorted(maps.Keys(live)), "every live key is tested here")

	b, over := startReloading(t)
	b.write(t, "bad.toml", "[engine]\nmax_steps = 0\n")
	b.eventually(t, "a refusal", func() bool { return b.refusal(t) != "" })
	before := map[string]string{}
	for name, k := range live {
		before[name] = k.read(b.Core)
		require.NotContains(t, []string{k.first, k.second}, before[name], name)
	}

	first, second := map[string]string{}, map[string]string{}
	for name, k := range live {
		first[name], second[name] = k.first, k.second
	}
	b.write(t, "host.toml", flat(first, text))
	b.write(t, "bad.toml", "# in order again\n")
	b.eventually(t, "a change of the file", func() bool { return b.refusal(t) == "" && live["engine.max_steps"].read(b.Core) == "17" })
	for name, k := range live {
		require.Equal(t, k.first, k.read(b.Core), "%s by the file", name)
	}
	// The engine has them too: it passes three on to outside workers.
	b.eventually(t, "the engine's sweep", func() bool {
		return scalar[string](t, b, "select concat_ws(' ', claim_factor, retry_after_cap_ms, max_result_bytes) from tasker_worker_policy") == "7 61000 2048"
	})

	over.Store(&second)
	b.reload <- syscall.SIGHUP
	b.eventually(t, "SIGHUP", func() bool { return live["engine.max_steps"].read(b.Core) == "18" })
	for name, k := range live {
		require.Equal(t, k.second, k.read(b.Core), "%s by SIGHUP", name)
	}
	b.eventually(t, "the engine's sweep", func() bool {
		return scalar[string](t, b, "select concat_ws(' ', claim_factor, retry_after_cap_ms, max_result_bytes) from tasker_worker_policy") == "8 62000 4096"
	})

	// One value out of range: all the others stay unchanged.
	third := maps.Clone(first)
	third["engine.max_steps"] = "0"
	over.Store(&third)
	b.reload <- syscall.SIGHUP
	b.eventually(t, "a refusal", func() bool { return b.refusal(t) != "" })
	for name, k := range live {
		require.Equal(t, k.second, k.read(b.Core), "%s after a refusal", name)
	}
	require.Contains(t, b.log.String(), "the changed configuration is refused; the previous one stays in force")
}

func (b *bed) refusal(t *testing.T) string {
	t.Helper()
	v, err := b.api.Configuration(t.Context())
	require.NoError(t, err)
	return v.Refused
}

// startReloading starts a host whose command line the test can change.
func startReloading(t *testing.T) (*bed, *atomic.Pointer[map[string]string]) {
	t.Helper()
	over := &atomic.Pointer[map[string]string]{}
	b := startOptions(t, nil, "", func(o config.Options) config.Options {
		if more := over.Load(); more != nil {
			o.Overrides = maps.Clone(o.Overrides)
			maps.Copy(o.Overrides, *more)
		}
		return o
	})
	return b, over
}
