package store

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/migrations"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

func versions(list []readmodel.TemplateSummary) []string {
	var all []string
	for _, t := range list {
		all = append(all, t.Namespace+"/"+t.Name+"@"+t.Version)
	}
	return all
}

func TestTemplatesAreOrderedByTheNumbersOfTheirVersions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	huge := "1.0.99999999999999999999999999"
	for _, v := range []string{"1.10.0", "1.9.0", huge, "1.2.0", "1.10.0-beta", "2.0.0-alpha"} {
		w.apply(t, line("linear", "pair", v, "math.square"))
	}
	w.apply(t, line("billing", "pair", "1.0.0", "math.square"))
	w.apply(t, line("linear", "pa_r", "1.0.0", "math.square"))
	want := []string{
		"billing/pair@1.0.0", "linear/pa_r@1.0.0", "linear/pair@1.0.0", "linear/pair@" + huge,
		"linear/pair@1.2.0", "linear/pair@1.9.0", "linear/pair@1.10.0-beta",
		"linear/pair@1.10.0", "linear/pair@2.0.0-alpha",
	}
	for size := 1; size <= len(want)+1; size++ {
		got := pages(t, size, readmodel.TemplateSummary{}, func(after readmodel.TemplateSummary) ([]readmodel.TemplateSummary, error) {
			return w.ListTemplates(t.Context(), TemplateFilter{
				AfterNamespace: after.Namespace, AfterName: after.Name, AfterVersion: after.Version, Limit: size,
			})
		}, func(s readmodel.TemplateSummary) readmodel.TemplateSummary { return s })
		require.Equal(t, want, versions(got))
	}
	some, err := w.ListTemplates(t.Context(), TemplateFilter{Namespace: "linear", Name: "pa_r", Limit: 10})
	require.NoError(t, err)
	require.Equal(t, []string{"linear/pa_r@1.0.0"}, versions(some))
	latest, err := w.LatestVersion(t.Context(), "linear", "pair")
	require.NoError(t, err)
	require.Equal(t, "1.10.0", latest, "a prerelease is not the default version")
}

func TestReadTemplateWarnsOfHandlersNobodyServes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	base, test, other := line("linear", "mixed", "1.0.0", "math.square", "math.cube"),
		line("linear", "mixed", "1.0.0", "math.fast", "math.cube"), line("linear", "mixed", "1.0.0", "math.never", "math.cube")
	test.Environment, other.Environment = "test", "elsewhere"
	w.apply(t, base, test, other)

	got, err := w.ReadTemplate(t.Context(), "linear", "mixed", "1.0.0")
	require.NoError(t, err)
	require.Equal(t, "# mixed@1.0.0", got.Source)
	require.Equal(t, []string{"elsewhere", "test"}, got.Environments)
	require.Len(t, got.Plan.Steps, 2)
	require.Empty(t, got.Plan.Environment)
	require.Equal(t, []string{"math.cube", "math.fast"}, got.Unserved, "of the base plan and the environments in which a host runs")
	require.WithinDuration(t, time.Now(), got.AppliedAt, time.Minute)

	list, err := w.ListTemplates(t.Context(), TemplateFilter{Name: "mixed", Limit: 1})
	require.NoError(t, err)
	require.Equal(t, UnservedWarnings(got.Unserved), list[0].Warnings)

	served, err := w.ServedHandlers(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"math.add", "math.square"}, served)
	_, _, err = w.Heartbeat(t.Context(), w.grant.Host, "graceful_shutdown", []string{"math.add"}, time.Hour, nil)
	require.NoError(t, err)
	served, err = w.ServedHandlers(t.Context())
	require.NoError(t, err)
	require.Empty(t, served, "a draining host takes no work")
}

func TestReadTemplateKeepsEveryDigitOfConfigurations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := line("linear", "exact", "1.0.0", "math.square")
	p.InputSchema = []byte(`{"maximum": ` + twoTo128 + `}`)
	p.Steps[0].Config = []byte(`{"limit": ` + twoTo128Less1 + `}`)
	p.Steps[0].Retry.Backoff = workflow.BackoffFixed
	w.apply(t, p)
	got, err := w.ReadTemplate(t.Context(), "linear", "exact", "1.0.0")
	require.NoError(t, err)
	require.Equal(t, string(p.InputSchema), string(got.Plan.InputSchema))
	require.Equal(t, string(p.Steps[0].Config), string(got.Plan.Steps[0].Config))
}

func TestFactsOfAHealthyServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f, err := w.ServerFacts(t.Context())
	require.NoError(t, err)
	require.GreaterOrEqual(t, f.VersionNum, 150000)
	require.Equal(t, "UTF8", f.Encoding)
	require.False(t, f.InRecovery)
	queues, err := w.PGMQ(t.Context())
	require.NoError(t, err)
	require.NotEqual(t, migrations.PGMQNone, queues.Kind)
	require.NoError(t, w.CheckSchema(t.Context()))
	require.Positive(t, f.MaxConnections)
	require.Positive(t, f.Connections)
	require.GreaterOrEqual(t, f.OldestTransaction, time.Duration(0))

	ahead, uncertainty, err := w.ClockSkew(t.Context(), time.Now)
	require.NoError(t, err)
	require.Positive(t, uncertainty)
	require.InDelta(t, 0, ahead.Seconds(), 1+uncertainty.Seconds(), "both clocks are this machine's")
	hour := func() time.Time { return time.Now().Add(-time.Hour) }
	ahead, uncertainty, err = w.ClockSkew(t.Context(), hour)
	require.NoError(t, err)
	require.InDelta(t, time.Hour.Seconds(), ahead.Seconds(), 1+uncertainty.Seconds())
}

func TestFactsOfHosts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	gone, err := w.RegisterHost(t.Context(), HostInfo{Name: "host-b", State: "normal"}, -time.Minute)
	require.NoError(t, err)
	hosts, err := w.HostFacts(t.Context())
	require.NoError(t, err)
	require.Len(t, hosts, 2)
	require.Equal(t, gone, hosts[0].ID)
	require.False(t, hosts[0].Alive())
	require.InDelta(t, -60, hosts[0].LeaseLeft.Seconds(), 30)
	require.True(t, hosts[1].Alive())
	require.Equal(t, "host-a", hosts[1].Name)
}

func TestFactsOfWork(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	facts, err := w.WorkFacts(t.Context(), 10)
	require.NoError(t, err)
	require.Zero(t, facts)

	id, leases := w.pair(t)
	w.pair(t)
	facts, err = w.WorkFacts(t.Context(), 10)
	require.NoError(t, err)
	require.Equal(t, id, facts.OldestTask)
	require.Zero(t, facts.DeadLetters)

	w.settle(t, leases[0], vocab.OutcomePermanent, "", `{"type": "PermanentError", "message": "no"}`)
	facts, err = w.WorkFacts(t.Context(), 10)
	require.NoError(t, err)
	require.Equal(t, 1, facts.DeadLetters)
	require.NotEqual(t, id, facts.OldestTask)

	for open, sql := range []string{
		"select 1",
		"insert into tasker_dead_letters (kind, queue_name, reason) values ('message', 'q', 'malformed')",
		"insert into tasker_dead_letters (kind, queue_name, reason, closed_at, closed_as) values ('message', 'q', 'malformed', now(), 'discarded')",
	} {
		_, err = w.pool.Exec(t.Context(), sql)
		require.NoError(t, err)
		n, err := w.MessagesSetAside(t.Context(), 10)
		require.NoError(t, err)
		require.Equal(t, min(open, 1), n, sql)
	}

	limbo, err := w.Limbo(t.Context(), 10)
	require.NoError(t, err)
	require.Empty(t, limbo)
	stuck, _ := w.pair(t)
	_, err = w.pool.Exec(t.Context(), "update tasker_workflow_steps set lease_id = null where task_uuid = $1 and step_no = 0", stuck)
	require.NoError(t, err)
	limbo, err = w.Limbo(t.Context(), 10)
	require.NoError(t, err)
	require.Equal(t, []Limbo{{StepKey{stuck, 0}, vocab.StepInProgress, "in_progress without a lease that can end"}}, limbo)
}

func TestQueueDepthsFollowTheQueues(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.grant.Room = 0 // root steps go to the queue
	for range 3 {
		w.pair(t)
	}
	require.Eventually(t, func() bool {
		depths, err := w.QueueDepths(t.Context())
		require.NoError(t, err)
		for _, d := range depths {
			if d.Queue == "linear_queue" {
				return d.Live == 3
			}
		}
		return false
	}, time.Minute, 100*time.Millisecond)
}
