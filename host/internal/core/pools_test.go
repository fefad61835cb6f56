package core

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/coordinator"
	"github.com/tasker-systems/tasker-host/host/internal/health"
	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/host/internal/pool"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
)

// A change of a pool over the API takes effect in the engine's pool at once, for every
// pool; changes against the configuration's rules are refused.
func TestEveryPoolChangesWhileTheHostRuns(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	for _, p := range b.Engine.Pools() {
		name := string(p.Kind)
		change := client.PoolChange{Min: new(2), Max: new(3), Batch: new(17), TurnTimeout: new("90s"), StopTimeout: new("1500ms")}
		polls := p.Kind != pipeline.StepEnqueuer && p.Kind != pipeline.TaskFinalizer
		if polls {
			change.PollMin, change.PollMax = new("3ms"), new("40ms")
		}
		shown, err := b.api.SetPool(t.Context(), name, change)
		require.NoError(t, err, name)
		require.True(t, shown.Overrides)
		again, err := b.api.Pool(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, []any{2, 3, 17, "1m30s", "1.5s"}, []any{again.Min, again.Max, again.Pace.Batch, again.Pace.TurnTimeout, again.Pace.StopTimeout})
		if polls {
			require.Equal(t, []string{"3ms", "40ms"}, []string{again.Pace.PollMin, again.Pace.PollMax})
		}
		require.GreaterOrEqual(t, p.State().Size, 2)

		change.PollMax = new("20m") // more than a third of the lease, and not for pools that are woken
		_, err = b.api.SetPool(t.Context(), name, change)
		require.ErrorContains(t, err, map[bool]string{true: "poll_max is 20m0s", false: "do not poll"}[polls])
	}
	_, err := b.api.SetPool(t.Context(), "task_claimer", client.PoolChange{PollMax: new("soon")})
	require.ErrorContains(t, err, "poll_max")
}

// Setting an algorithm that nobody serves is refused at once, naming those available; the
// pool keeps its own.
func TestAnAlgorithmThatNobodyServesIsRefused(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	const name = "task_request_processor"
	before, err := b.api.Pool(t.Context(), name)
	require.NoError(t, err)
	for what, change := range map[string]client.PoolChange{
		"algorithm": {Algorithm: new("latncy"), Max: new(7)},
		"shadow":    {Shadow: new(" latncy ")},
	} {
		_, err := b.api.SetPool(t.Context(), name, change)
		refused, ok := errors.AsType[*client.Error](err)
		require.True(t, ok, "%v", err)
		require.Equal(t, 409, refused.Status)
		require.Equal(t, "pool_refused", refused.Code)
		require.Contains(t, refused.Detail, what+`: no plugin serves "latncy" and no built-in algorithm has that name; available: composite, cost, latency,`)
	}
	after, err := b.api.Pool(t.Context(), name)
	require.NoError(t, err)
	require.Equal(t, []any{before.Algorithm, before.Shadow, before.Max}, []any{after.Algorithm, after.Shadow, after.Max})
	for _, change := range []client.PoolChange{{Algorithm: new("rate")}, {Algorithm: new(`rate={"drain":"2m"}`)}, {Shadow: new("cost")}, {Shadow: new("")}} {
		_, err = b.api.SetPool(t.Context(), name, change)
		require.NoError(t, err)
	}
}

func TestWhatIsFoundOfPools(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	pause := &coordinator.Pause{Since: now, By: "ops", Reason: "the shop moves"}
	settings := coordinator.Settings{Min: 1, Max: 8}
	for name, c := range map[string]struct {
		status  coordinator.Status
		share   float64
		want    health.Status
		message string
	}{
		"at work": {coordinator.Status{Settings: settings, State: pool.State{Waiting: 9}}, 1, health.Healthy, ""},
		"stuck":   {coordinator.Status{State: pool.State{Lost: 2}, Pause: pause}, 1, health.Degraded, "executors that are stuck and were replaced: 2"},
		"paused":  {coordinator.Status{Pause: pause}, 1, health.Healthy, "paused since 2026-03-01T12:00:00Z by ops: the shop moves"},
		"paused while work waits": {
			coordinator.Status{Pause: pause, State: pool.State{Waiting: 3}},
			1, health.Degraded,
			"paused since 2026-03-01T12:00:00Z by ops: the shop moves, and 3 pieces of work wait in this host",
		},
		"strained": {
			coordinator.Status{Settings: settings, StrainedSince: now.Add(-90 * time.Second), Backlog: 77},
			1, health.Degraded,
			"it has been at its limit for 1m30s (its maximum is 8), and its backlog has grown to 77",
		},
		"strained by its plugins": {
			coordinator.Status{Settings: settings, Useful: 4, StrainedSince: now.Add(-time.Minute), Backlog: 77},
			1, health.Degraded,
			"it has been at its limit for 1m0s (more than 4 would not help, as its plugins take no more steps at once), and its backlog has grown to 77",
		},
		"not yet strained":               {coordinator.Status{StrainedSince: now.Add(-59 * time.Second)}, 1, health.Healthy, ""},
		"strained while the host starts": {coordinator.Status{StrainedSince: now.Add(-90 * time.Second)}, 0.5, health.Healthy, ""},
		"held":                           {coordinator.Status{Problem: "nobody serves it\nmore"}, 1, health.Degraded, "its size is held: nobody serves it"},
	} {
		f := poolFinding(&c.status, now, c.share)
		require.Equal(t, c.want, f.Status, name)
		require.Equal(t, c.message, f.Message, name)
	}
}

// A paused pool is reported by the host's checks and by the doctor until it is resumed.
func TestPausedPoolsAreTold(t *testing.T) {
	t.Parallel()
	b := start(t, "[orchestration]\nlease = \"1h\"\nheartbeat = \"1m\"\n")
	said := func() string {
		for _, i := range b.health.Report().Items {
			if i.Name == "pools/step_result_processor" {
				return string(i.Status) + " " + i.Message
			}
		}
		return "nothing"
	}
	doctor := func() (status, message string) {
		report, err := b.api.Doctor(t.Context())
		require.NoError(t, err)
		for _, c := range report.Checks {
			if c.Name == "pools" {
				return string(c.Status), c.Message
			}
		}
		return "nothing", ""
	}
	b.eventually(t, "a look", func() bool { return said() == "healthy " })
	status, message := doctor()
	require.Equal(t, []string{"ok", "all 5 pools work"}, []string{status, message})
	_, err := b.api.PausePool(t.Context(), "step_result_processor", client.Operator{By: "ops", Reason: "a test"})
	require.NoError(t, err)
	status, message = doctor()
	require.Equal(t, "warn", status, "at once")
	require.Contains(t, message, "step_result_processor: paused since")
	b.eventually(t, "the pause", func() bool {
		return strings.HasPrefix(said(), "healthy paused since ") && strings.HasSuffix(said(), "(ops): a test")
	})
	require.Empty(t, b.alarms())
	_, err = b.api.ResumePool(t.Context(), "step_result_processor", client.Operator{})
	require.NoError(t, err)
	b.eventually(t, "no pause", func() bool { return said() == "healthy " })
}

// An executor whose database connection freezes is noticed and replaced, and work
// continues while it still hangs: the process is alive and ready, and reports what it has
// lost.
func TestAFrozenExecutorIsReplaced(t *testing.T) {
	t.Parallel()
	direct := pgtest.DSN(t)
	way, dsn := newLink(t, direct)
	b := startWith(t, nil, "", "DATABASE_URL="+dsn)
	_, _, err := b.api.ApplyTemplate(t.Context(), "one.yaml", []byte(oneStep))
	require.NoError(t, err)
	const name = "task_request_processor"
	_, err = b.api.SetPool(t.Context(), name, client.PoolChange{Min: new(1), Max: new(1), TurnTimeout: new("10s")}) // longer than the machine may pause
	require.NoError(t, err)
	db := pgtest.Pool(t, direct)
	ask := func(id string) {
		_, err := db.Exec(t.Context(), "select pgmq.send($1, jsonb_build_object('request_id', $2::text, 'namespace', 'keys', 'task_name', 'one', 'task_version', '1.0.0', 'input_data', '{}'::jsonb))",
			b.cfg.Orchestration.TaskRequestsQueue, id)
		require.NoError(t, err)
	}

	f := way.freeze("the_frozen_one") // in the response to its reader
	thaw := sync.OnceFunc(func() { close(f.thaw) })
	t.Cleanup(thaw)
	ask("the_frozen_one")
	b.eventually(t, "a connection that is frozen", f.caught.Load)
	var found []string
	b.eventually(t, "that it is noticed", func() bool {
		for _, i := range b.health.Report().Items {
			if i.Name == "pools/"+name && i.Status == health.Degraded {
				found = append(found, i.Message)
				return true
			}
		}
		return false
	})
	require.Equal(t, []string{"executors that are stuck and were replaced: 1"}, found)
	for i := range 3 {
		ask(fmt.Sprint(i))
	}
	b.eventually(t, "the work of its replacement", func() bool { return scalar[int](t, b, "select count(*) from tasker_tasks") >= 3 })
	status, body := b.get(t, "/health/live")
	require.Equal(t, 200, status, body)
	p, err := b.api.Pool(t.Context(), name)
	require.NoError(t, err)
	require.Equal(t, 1, p.Restarts)

	thaw()
	b.eventually(t, "that the frozen one is gone", func() bool {
		p, err := b.api.Pool(t.Context(), name)
		require.NoError(t, err)
		return p.Lost == 0
	})
	b.eventually(t, "nothing that it had read is lost", func() bool { return scalar[int](t, b, "select count(*) from tasker_tasks") == 4 })
}
