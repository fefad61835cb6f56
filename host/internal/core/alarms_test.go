package core

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/health"
	"github.com/tasker-systems/tasker-host/host/internal/opstate"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
)

// alarms are the events that the host's monitor has raised.
func (b *bed) alarms() []health.Event {
	var all []health.Event
	for _, e := range b.health.Events(1000) {
		if e.Severity != health.Info {
			all = append(all, e)
		}
	}
	return all
}

// TestPlannedShutdownsAreQuiet: ten shutdowns of busy hosts, and no alarm.
func TestPlannedShutdownsAreQuiet(t *testing.T) {
	t.Parallel()
	for i := range 10 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			b := start(t, "[orchestration]\nlease = \"1h\"\nheartbeat = \"1m\"\n") // long, so that it is not late when the machine pauses
			_, _, err := b.api.ApplyTemplate(t.Context(), "one.yaml", []byte(oneStepTemplate))
			require.NoError(t, err)
			for range 20 {
				_, _, err := b.api.Submit(t.Context(), client.Submission{Namespace: "outage", Name: "one"})
				require.NoError(t, err)
			}
			looked := b.health.Report().At
			b.eventually(t, "a few looks", func() bool { return b.health.Report().At.Sub(looked) > 300*time.Millisecond })
			if i%2 == 0 { // connections that are in use until the end must not raise an alarm
				var held []*pgxpool.Conn
				for range b.pool.Config().MaxConns - 1 {
					conn, err := b.pool.Acquire(t.Context())
					require.NoError(t, err)
					held = append(held, conn)
				}
				b.enter(opstate.GracefulShutdown, "a planned shutdown")
				looked = b.health.Report().At
				b.eventually(t, "looks during the shutdown", func() bool { return b.health.Report().At.Sub(looked) > 400*time.Millisecond })
				for _, conn := range held {
					conn.Release()
				}
			}
			require.NoError(t, b.Stop(t.Context()))
			require.Empty(t, b.alarms())
		})
	}
}

// TestMessagesSetAsideAreMeasured: including those that the database set aside when it
// was asked for steps, which no host counts.
func TestMessagesSetAsideAreMeasured(t *testing.T) {
	t.Parallel()
	b := start(t, "[orchestration]\nrest_after = \"0s\"\n")
	_, _, err := b.api.ApplyTemplate(t.Context(), "one.yaml", []byte(oneStepTemplate))
	require.NoError(t, err)
	b.send(t, "outage_queue", `{"hello": 1}`)
	claim := "select task_uuid from tasker_worker_claim('outage', 'w', array['nobody.serves'])"
	_, err = b.pool.Exec(t.Context(), claim)
	require.NoError(t, err)
	b.eventually(t, "one message is set aside", func() bool {
		_, text := b.get(t, "/metrics")
		return strings.Contains(text, "\ntasker_dead_letter_messages 1\n")
	})
}

// TestFaultsRaiseAlarms injects ten faults into running hosts; each raises an alarm of
// the matching check.
func TestFaultsRaiseAlarms(t *testing.T) {
	t.Parallel()
	// At rest, some checks are ten minutes apart, and some of the faults wake nobody.
	const patient = "[orchestration]\nrest_after = \"0s\"\nlease = \"1h\"\nheartbeat = \"5s\"\nsweep_interval = \"10m\"\n[circuit_breakers.pgmq]\ntimeout = \"300s\"\n"
	type hurt struct {
		*bed
		way *link
	}
	exec := func(t *testing.T, h hurt, sql string, args ...any) {
		t.Helper()
		_, err := pgtest.Pool(t, h.cfg.Database.URL.Reveal()).Exec(t.Context(), sql, args...) // the host's own connections give up sooner
		require.NoError(t, err)
	}
	for name, f := range map[string]struct {
		check    string
		severity health.Severity
		plugins  []config.PluginSpec
		inject   func(t *testing.T, h hurt)
	}{
		"the database is away": {"database", health.Critical, nil, func(_ *testing.T, h hurt) { h.way.sever() }},
		"the database is away during a shutdown": {"database", health.Critical, nil, func(_ *testing.T, h hurt) {
			h.enter(opstate.GracefulShutdown, "a planned shutdown")
			h.way.sever()
		}},
		"heartbeats wait for a lock": {"database", health.Critical, nil, func(t *testing.T, h hurt) {
			tx, err := pgtest.Pool(t, h.cfg.Database.URL.Reveal()).Begin(t.Context())
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, tx.Rollback(context.Background())) })
			_, err = tx.Exec(t.Context(), "lock table tasker_hosts in access exclusive mode")
			require.NoError(t, err)
		}},
		"a queue is broken": {"breakers", health.Warning, nil, func(t *testing.T, h hurt) {
			exec(t, h, "alter table pgmq.q_task_requests_queue rename to gone")
		}},
		"connections leak": {"connections", health.Warning, nil, func(t *testing.T, h hurt) {
			for range h.pool.Config().MaxConns - 1 {
				conn, err := h.pool.Acquire(t.Context())
				require.NoError(t, err)
				t.Cleanup(conn.Release)
			}
		}},
		"a queue is flooded": {"queues/", health.Warning, nil, func(t *testing.T, h hurt) {
			for range 12 {
				exec(t, h, "insert into pgmq.q_orchestration_step_results (vt, message) select now() + interval '1 h', '{}' from generate_series(1, 10000)")
			}
		}},
		"a host died and nobody sweeps": {"hosts", health.Warning, nil, func(t *testing.T, h hurt) {
			exec(t, h, "insert into tasker_hosts (name, version, environment, state, alive_until) values ('gone', '1', 'test', 'normal', clock_timestamp() - interval '1 h')")
		}},
		"a claim for finalization is left": {"finalization_claims", health.Critical, nil, func(t *testing.T, h hurt) {
			_, _, err := h.api.ApplyTemplate(t.Context(), "three.yaml", []byte(threeSteps))
			require.NoError(t, err)
			task, _, err := h.api.Submit(t.Context(), client.Submission{Namespace: "reload", Name: "three"})
			require.NoError(t, err)
			steps, err := h.api.Steps(t.Context(), task.UUID)
			require.NoError(t, err)
			_, err = h.api.ResolveStep(t.Context(), steps[0].UUID, json.RawMessage("1"), client.Operator{})
			require.NoError(t, err)
			exec(t, h, "select claim_task_for_finalization($1::uuid, 'gone', 30)", task.UUID)
			exec(t, h, "update tasker_finalization_attempts set attempted_at = clock_timestamp() - interval '10 min'")
			exec(t, h, "update tasker_tasks set finalize_until = clock_timestamp() - interval '9 min' where task_uuid = $1", task.UUID)
		}},
		"a plugin does not start": {"plugins/bad", health.Warning, []config.PluginSpec{{
			Kind: "handler", Name: "bad", Options: json.RawMessage("{}"), PluginSettings: config.PluginSettings{Path: "/bin/false", MaxInFlight: 1, StartTimeout: time.Second},
		}}, func(*testing.T, hurt) {}},
		"the shutdown hangs": {"drain", health.Critical, nil, func(_ *testing.T, h hurt) {
			h.enter(opstate.GracefulShutdown, "a shutdown that hangs") // and nothing follows
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := hurt{}
			var dsn string
			h.way, dsn = newLink(t, pgtest.DSN(t))
			text := patient
			if f.check == "drain" {
				text = strings.Replace(text, "[orchestration]\n", "[orchestration]\ndrain_timeout = \"0s\"\nemergency_timeout = \"100ms\"\n", 1)
			}
			h.bed = startWith(t, f.plugins, text, "DATABASE_URL="+dsn)
			b := h.bed
			if f.plugins == nil {
				looked := b.health.Report().At
				b.eventually(t, "looks", func() bool { return b.health.Report().At.Sub(looked) > 300*time.Millisecond })
				require.Empty(t, b.alarms(), "before the fault")
			}
			f.inject(t, h)
			require.Eventually(t, func() bool {
				for _, e := range b.alarms() {
					if strings.HasPrefix(e.Check, f.check) && e.Severity == f.severity {
						t.Logf("%s: %s", e.Check, e.Message)
						return true
					}
				}
				return false
			}, 2*time.Minute, 20*time.Millisecond, "no alarm; raised: %v", b.alarms())
			h.way.cut.Store(false) // so that the host can stop in good order
		})
	}
}
