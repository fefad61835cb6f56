package store_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// putClockBack puts the database in the state after its clock was set back by an hour, as
// after a failover to a server whose clock is behind: the times it has stored are an hour
// ahead.
func (b *bed) putClockBack(t *testing.T, queues ...string) {
	t.Helper()
	for table, columns := range map[string][]string{
		"tasker_hosts":          {"started_at", "heartbeat_at", "alive_until"},
		"tasker_workflow_steps": {"updated_at", "due_at", "lease_until"},
		"tasker_worker_leases":  {"look_at", "deadline_at"},
	} {
		b.shift(t, table, columns...)
	}
	for _, q := range append(queues, queue) {
		b.shift(t, "pgmq.q_"+q, "vt", "enqueued_at")
	}
}

func (b *bed) shift(t *testing.T, table string, columns ...string) {
	t.Helper()
	set := make([]string, len(columns))
	for i, c := range columns {
		set[i] = fmt.Sprintf("%[1]s = %[1]s + interval '1 hour'", c)
	}
	b.exec(t, "update "+table+" set "+strings.Join(set, ", "))
}

// A host that died when the clock was set back is found to be dead within the time of its
// lease, not an hour later.
func TestADeadHostIsFoundAfterTheClockWasPutBack(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.mustPlan(t, fan(1)...)
	dead, err := b.store.RegisterHost(t.Context(), store.HostInfo{Name: "dead", Version: "1", Environment: "test", State: "normal"}, 50*time.Millisecond)
	require.NoError(t, err)
	live := b.host(t)
	b.create(t, b.grant(dead, 1), p)
	b.putClockBack(t)
	alive, _, err := b.store.Heartbeat(t.Context(), live, "normal", nil, time.Minute, nil)
	require.NoError(t, err)
	require.True(t, alive)
	require.Eventually(t, func() bool {
		gone, err := b.store.SweepHosts(t.Context())
		require.NoError(t, err)
		return len(gone) == 1 && gone[0].ID == dead
	}, time.Minute, 5*time.Millisecond)
	require.Equal(t, "normal", one[string](t, b, "select state from tasker_hosts where host_id = $1", live))
}

// Steps whose messages are hidden because the clock was set back are claimed after the
// next sweep; those that have to wait, after their wait.
func TestStepsAreClaimedAfterTheClockWasPutBack(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.mustPlan(t, twice(fan(1))...)
	host := b.host(t)
	ready, _ := b.create(t, b.grant(host, 0), p)
	waiting, leases := b.create(t, b.grant(host, 1), p)
	s := settlement(leases[0].StepKey, leases[0].ID, vocab.OutcomeRetryable)
	s.RetryAfter = 30 * time.Minute
	_, err := b.store.Settle(t.Context(), b.grant(host, 0), store.Policy{RetryAfterCap: time.Hour, ClaimFactor: 3}, []store.Settlement{s})
	require.NoError(t, err)
	b.putClockBack(t)
	require.Empty(t, b.claim(t, b.grant(host, 10)), "the messages are hidden")

	n, _, err := b.store.SweepMessages(t.Context(), time.Hour)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	got := b.claim(t, b.grant(host, 10))
	require.Len(t, got, 1)
	require.Equal(t, ready, got[0].Task)
	left := one[time.Duration](t, b, "select due_at - clock_timestamp() from tasker_workflow_steps where task_uuid = $1", waiting)
	require.Greater(t, left, 20*time.Minute)
	require.LessOrEqual(t, left, 30*time.Minute)
	require.Equal(t, 1, one[int](t, b, "select count(*) from pgmq.q_"+queue+" q where q.message ->> 'task_uuid' = $1::uuid::text and q.vt < clock_timestamp() + interval '31 min'", waiting))

	n, _, err = b.store.SweepMessages(t.Context(), time.Hour)
	require.NoError(t, err)
	require.Zero(t, n, "once is enough")
	b.settle(t, b.grant(host, 0), vocab.OutcomeSuccess, got...)
	b.exec(t, "update pgmq.q_"+queue+" set vt = clock_timestamp()")
	require.Empty(t, b.claim(t, b.grant(host, 10)), "the hidden messages have no effect")
}

// The lease of a dead outside worker ends, and a living one keeps its lease.
func TestWorkersLeasesEndAfterTheClockWasPutBack(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	_, j := b.workersStep(t)
	b.putClockBack(t)
	_, _, err := b.store.SweepMessages(t.Context(), time.Hour)
	require.NoError(t, err)
	for _, sql := range []string{"select lease_until from tasker_workflow_steps", "select look_at from tasker_worker_leases"} {
		until := one[time.Time](t, b, sql)
		require.Less(t, time.Until(until), time.Hour+time.Minute)
		require.Greater(t, time.Until(until), 59*time.Minute)
	}
	verdict, _, err := outsider{b.pool}.heartbeat(t.Context(), j.StepKey, j.ID, nil)
	require.NoError(t, err)
	require.Equal(t, "ok", verdict)
}

// Requests from before the clock was set back are read, and messages being read are
// hidden for as long as intended.
func TestInboxesAreReadAfterTheClockWasPutBack(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	const inbox = "orchestration_step_results"
	require.NoError(t, b.store.CreateQueue(t.Context(), inbox))
	_, err := b.store.ReadMessages(t.Context(), inbox, time.Second, 1) // which makes it known as an inbox
	require.NoError(t, err)
	b.exec(t, "insert into tasker_inboxes (queue_name) values ($1) on conflict do nothing", inbox)
	for _, sql := range []string{
		`select pgmq.send($1, '{"n": 1}'::jsonb)`,
		`select pgmq.send($1, '{"n": 2}'::jsonb, 1800)`,
	} {
		b.exec(t, sql, inbox)
	}
	b.putClockBack(t, inbox)
	_, _, err = b.store.SweepMessages(t.Context(), time.Hour)
	require.NoError(t, err)
	got, err := b.store.ReadMessages(t.Context(), inbox, time.Minute, 10)
	require.NoError(t, err)
	require.Len(t, got, 1)
	require.JSONEq(t, `{"n": 1}`, string(got[0].Body))
	require.Less(t, one[time.Duration](t, b, "select vt - clock_timestamp() from pgmq.q_"+inbox+" where message ->> 'n' = '2'"), 31*time.Minute)
}
