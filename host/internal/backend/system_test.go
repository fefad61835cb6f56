package backend_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/backend"
	"github.com/tasker-systems/tasker-host/host/internal/health"
	"github.com/tasker-systems/tasker-host/host/internal/opstate"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

func TestReady(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name   string
		beat   time.Duration // since the last heartbeat
		state  opstate.State
		plugin pluginhost.State
		bad    string // the check that is not ok
	}{
		{"all is well", time.Second, opstate.Normal, pluginhost.Serving, ""},
		{"a heartbeat is late", 3 * time.Second, opstate.Normal, pluginhost.Serving, ""},
		{"the database is silent", 5 * time.Second, opstate.Normal, pluginhost.Serving, "database"},
		{"the host drains", time.Second, opstate.GracefulShutdown, pluginhost.Serving, "state"},
		{"a required plugin restarts", time.Second, opstate.Normal, pluginhost.BackingOff, "plugins"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			state := opstate.New(time.Now)
			_, err := state.To(tc.state, "test")
			require.NoError(t, err)
			b := backend.New(backend.Parts{
				Pulse: pulse(now.Add(-tc.beat)), State: state, Now: func() time.Time { return now },
				Plugins: plugins{{Name: "math", State: tc.plugin, Required: true}, {Name: "optional", State: pluginhost.Failed}},
			}, backend.Config{Heartbeat: 2 * time.Second})
			h := b.Ready(t.Context())
			require.Equal(t, string(tc.state), h.State)
			require.Equal(t, tc.bad == "", h.Status == readmodel.HealthOK)
			for _, c := range h.Checks {
				require.Equal(t, c.Name != tc.bad, c.OK, c.Name)
				require.Equal(t, c.OK, c.Message == "", c.Message)
			}
			require.Equal(t, readmodel.HealthOK, b.Live(t.Context()).Status)
		})
	}
}

func TestRequiredPluginThatIsNotThere(t *testing.T) {
	t.Parallel()
	b := backend.New(backend.Parts{Pulse: pulse(time.Now()), State: opstate.New(time.Now), Now: time.Now, Plugins: plugins{{Name: "math", State: pluginhost.Stopped, Required: true}}},
		backend.Config{Heartbeat: time.Hour})
	h := b.Ready(t.Context())
	require.Equal(t, "required plugin math is stopped", h.Checks[2].Message)
}

func TestPlugins(t *testing.T) {
	t.Parallel()
	started := time.Date(2026, 3, 1, 12, 0, 0, 0, time.FixedZone("", 3600))
	b := backend.New(backend.Parts{Plugins: plugins{
		{
			Kind: "handler", Name: "math", State: pluginhost.Serving, Version: "1.2.3", SHA256: "ab", Generation: 7, PID: 42,
			StartedAt: started, Handlers: []string{"math.add", "math.square"}, Restarts: 1, LastError: "it crashed once",
		},
		{Kind: "handler", Name: "ill", State: pluginhost.Failed, LastError: "exit status 1"},
	}}, backend.Config{})
	got, err := b.Plugins(t.Context())
	require.NoError(t, err)
	require.Equal(t, []readmodel.Plugin{
		{
			Kind: "handler", Name: "math", State: "serving", Version: "1.2.3", Artifact: "ab", Generation: 7, PID: 42,
			StartedAt: new(started.UTC()), Restarts: 1, Handlers: []readmodel.Handler{{Name: "math.add"}, {Name: "math.square"}},
		},
		{Kind: "handler", Name: "ill", State: "failed", Message: "exit status 1"},
	}, got)
}

func TestDoctorOfAHostThatWorks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.apply(t, pairYAML)
	b.submit(t)
	report, err := b.Doctor(t.Context())
	require.NoError(t, err)
	var names []string
	for _, c := range report.Checks {
		names = append(names, c.Name)
		require.NotEmpty(t, c.Message, c.Name)
		require.Equal(t, c.Status == readmodel.DoctorOK, c.Fix == "", c.Name)
		// The test server is not durable, and it is shared, so its load is unknown.
		if !slices.Contains([]string{"durability", "connections", "transactions"}, c.Name) {
			require.Equal(t, readmodel.DoctorOK, c.Status, "%s: %s", c.Name, c.Message)
		}
	}
	require.Equal(t, []string{
		"state", "plugins", "pools", "server_version", "durability", "writable", "encoding", "connections", "transactions",
		"schema", "pgmq", "clock", "hosts", "queues", "limbo", "dead_letters", "oldest_task", "leases", "disk", "partitions",
	}, names)
}

func TestDoctorFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.apply(t, pairYAML)
	b.apply(t, "namespace: linear\nname: broken\nversion: 1.0.0\nsteps:\n  - {name: only, handler: math.broken}\n")
	s := pairSubmission()
	s.Name = "broken"
	failed, _, err := b.Submit(t.Context(), s)
	require.NoError(t, err)
	b.watchUntil(t, parse(t, failed.UUID), func(s readmodel.Snapshot) bool { return s.Settled() })
	stuck := b.submit(t)
	b.watchUntil(t, stuck, func(s readmodel.Snapshot) bool { return s.Progress.Completed == 1 && s.Progress.InProgress == 1 })
	_, err = b.pool.Exec(t.Context(), "update tasker_workflow_steps set lease_id = null where task_uuid = $1 and step_no = 1", stuck)
	require.NoError(t, err)
	_, err = b.pool.Exec(t.Context(), `
insert into tasker_worker_leases (lease_id, task_uuid, step_no, worker_id, lease, look_at)
values (gen_random_uuid(), $1, 1, 0, interval '3 hours', clock_timestamp() + interval '3 hours')`, stuck)
	require.NoError(t, err)
	_, err = b.state.To(opstate.GracefulShutdown, "test")
	require.NoError(t, err)

	_, err = b.pool.Exec(t.Context(), `
insert into tasker_tasks (task_uuid, plan_id, namespace_id, open_sinks, total_steps, state, created_at, completed_at, context, identity_hash)
values ('00000000-0001-7000-8000-000000000000', 1, 1, 0, 1, 'complete', to_timestamp(0), clock_timestamp(), '{}', '')`)
	require.NoError(t, err)

	parts := b.parts
	parts.Plugins = plugins{{Name: "math", State: pluginhost.BackingOff, LastError: "exit status 1", Required: true}}
	parts.Now = func() time.Time { return time.Now().Add(48 * time.Hour) }
	parts.Pools = func() []health.Named {
		return []health.Named{{Name: "task_claimer", Finding: health.Finding{Status: health.Degraded, Message: "executors that are stuck and were replaced: 1"}}}
	}
	report, err := backend.New(parts, backend.Config{}).Doctor(t.Context())
	require.NoError(t, err)
	require.Equal(t, readmodel.DoctorFail, report.Status)
	got := map[string]readmodel.DoctorStatus{}
	for _, c := range report.Checks {
		got[c.Name] = c.Status
		if c.Name == "partitions" {
			require.Equal(t, "tasks in the default partition: 1, created from 1970-01-01 to 1970-01-01", c.Message)
		}
	}
	for name, want := range map[string]readmodel.DoctorStatus{
		"state": readmodel.DoctorWarn, "plugins": readmodel.DoctorFail, "pools": readmodel.DoctorWarn, "clock": readmodel.DoctorFail,
		"limbo": readmodel.DoctorFail, "dead_letters": readmodel.DoctorWarn, "oldest_task": readmodel.DoctorWarn,
		"leases": readmodel.DoctorWarn, "disk": readmodel.DoctorOK, "partitions": readmodel.DoctorWarn,
	} {
		require.Equal(t, want, got[name], name)
	}
}
