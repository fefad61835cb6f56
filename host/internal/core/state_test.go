package core

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/opstate"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// effects are what a host does in a state.
type effects struct {
	claims, reads, finalizes bool
	watchedPlugins           bool // loads what the files specify
	askedPlugins             bool // changes plugins on request
	ready, live, started     int  // the status of its probes
}

// TestWhatAHostDoesInEachState goes through all states with one host and checks each
// effect where it happens: claims and reads at the engine's gate, finalization and
// plugins where they are requested, probes over HTTP. That running steps are cancelled
// and given back is tested in e2e (TestShutdownForced), scaling in the coordinator's
// tests, alarms in those of health.
func TestWhatAHostDoesInEachState(t *testing.T) {
	t.Parallel()
	b := start(t, "[orchestration]\nlease = \"1h\"\nsweep_interval = \"10m\"\n") // nothing is given back meanwhile
	ctx := t.Context()
	_, _, err := b.api.ApplyTemplate(ctx, "one.yaml", []byte(oneStep))
	require.NoError(t, err)
	ids, err := b.Store.HandlerIDs(ctx, []string{"nobody.serves"})
	require.NoError(t, err)
	submit := func() vocab.UUID {
		task, _, err := b.api.Submit(ctx, client.Submission{Namespace: "keys", Name: "one", Version: "1.0.0"})
		require.NoError(t, err)
		id, err := vocab.ParseUUID(task.UUID)
		require.NoError(t, err)
		return id
	}
	claimable := submit()
	submit() // for the second time in state normal
	requests := b.cfg.Orchestration.TaskRequestsQueue
	tasks := scalar[int](t, b, "select count(*) from tasker_tasks")
	waiting := 0

	const yes, no = http.StatusOK, http.StatusServiceUnavailable
	normal := effects{claims: true, reads: true, finalizes: true, watchedPlugins: true, askedPlugins: true, ready: yes, live: yes, started: yes}
	seen := map[opstate.State]bool{}
	for i, c := range []struct {
		state opstate.State
		want  effects
	}{
		{opstate.Normal, normal},
		{opstate.GracefulShutdown, effects{finalizes: true, ready: no, live: yes, started: yes}},
		{opstate.Emergency, effects{ready: no, live: yes, started: yes}},
		{opstate.Stopped, effects{ready: no, live: no, started: no}},
		{opstate.Startup, effects{watchedPlugins: true, ready: no, live: yes, started: no}},
		{opstate.Normal, normal},
	} {
		seen[c.state] = true
		b.enter(c.state, "a test")
		require.Equal(t, c.state, b.state.State())
		b.eventually(t, "the other hosts see "+string(c.state), func() bool {
			return scalar[string](t, b, "select state from tasker_hosts where host_id = $1", b.Engine.HostID()) == string(c.state)
		})
		var got effects

		grant := store.Grant{Host: b.Engine.HostID(), Room: 1, Served: []int32{ids["nobody.serves"]}}
		claimed, err := b.Store.Claim(ctx, grant, "keys_queue", []string{"nobody.serves"}, 0)
		require.NoError(t, err)
		got.claims = len(claimed.Leases) == 1

		b.send(t, requests, fmt.Sprintf(`{"request_id": "r%d", "namespace": "keys", "task_name": "one", "task_version": "1.0.0", "input_data": {}}`, i))
		waiting++
		if c.want.reads { // the engine does so, for all requests that have waited until now
			b.eventually(t, "the requests are read", func() bool { return scalar[int](t, b, "select count(*) from tasker_tasks") == tasks+waiting })
			tasks, waiting, got.reads = tasks+waiting, 0, true
		} else {
			messages, err := b.Store.ReadMessages(ctx, requests, time.Second, 10)
			require.ErrorIs(t, err, store.ErrRefused)
			got.reads = len(messages) > 0 || scalar[int](t, b, "select count(*) from pgmq.q_"+requests) != waiting
		}

		_, err = stateFinalizer{b.newFinalizer(), b.state}.Finalize(ctx, claimable)
		got.finalizes = err == nil
		if !got.finalizes {
			require.ErrorIs(t, err, errNotInState)
		}

		_, err = pluginEngine{b.Core}.Apply(ctx, nil, "test", "test")
		got.watchedPlugins = err == nil
		if !got.watchedPlugins {
			require.ErrorIs(t, err, errNotInState)
		}
		_, err = b.api.ApplyPlugins(ctx, "test")
		require.Error(t, err, "there are no files in any state")
		var refused *client.Error
		require.ErrorAs(t, err, &refused)
		got.askedPlugins = refused.Code != api.CodeStateForbidden

		got.ready, _ = b.get(t, "/health/ready")
		got.live, _ = b.get(t, "/health/live")
		got.started, _ = b.get(t, "/health/startup")
		require.Equal(t, c.want, got, "state %s, the log:\n%s", c.state, b.log)
	}
	require.Len(t, seen, len(opstate.States), "every state is tested")

	// The first effect of a stop: nobody can submit anything from now on.
	b.enter(opstate.GracefulShutdown, "a test")
	over, cancel := context.WithCancel(ctx)
	cancel()
	b.Engine.Drain(over)
	_, _, err = b.api.Submit(ctx, client.Submission{Namespace: "keys", Name: "one", Version: "1.0.0"})
	var problem *client.Error
	require.ErrorAs(t, err, &problem)
	require.Equal(t, no, problem.Status, "a submission to a draining host")
	require.Equal(t, tasks, scalar[int](t, b, "select count(*) from tasker_tasks"))
}

// A host in emergency that receives SIGTERM, once or twice, stays in emergency and stops.
func TestSignalsInEmergency(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	b.enter(opstate.Emergency, "a test")
	told, signal := context.WithCancel(t.Context())
	signal()
	second := make(chan struct{})
	close(second)
	b.watchSignals(told, second, nil)
	require.Equal(t, opstate.Emergency, b.state.State())
	for what, closed := range map[string]<-chan struct{}{"it is to stop": b.halt.asked, "its drain is cut short": b.halt.cut} {
		select {
		case <-closed:
		default:
			require.Fail(t, what)
		}
	}
	require.NoError(t, b.Stop(t.Context()))
	require.Equal(t, opstate.Stopped, b.state.State())
	require.NotContains(t, b.log.String(), "state=graceful_shutdown", "nothing leads back from emergency")
}
