package store_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// A step that crashes its plugin comes back quickly once, and then rarely: there are at
// most four such crashes in any minute, too few to open the breaker of the plugin (five
// in sixty seconds).
func TestWaitAfterLostPlugins(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p, g := b.mustPlan(t, withAttempts(fan(1), 3)...), b.grant(b.host(t), 1)
	_, leases := b.create(t, g, p)
	const pause = 250 * time.Millisecond
	var at time.Duration
	crashes := []time.Duration{0}
	for claims := 1; claims < 9; claims++ {
		s := settlement(leases[0].StepKey, leases[0].ID, vocab.OutcomeReleased)
		s.RetryAfter = pause
		before := time.Now()
		got, err := b.store.Settle(t.Context(), g, store.Policy{RetryAfterCap: time.Hour, ClaimFactor: 3}, []store.Settlement{s})
		require.NoError(t, err)
		require.Len(t, got.Due, 1)
		want := pause
		if claims > 1 {
			want = min(40*pause<<(claims-2), 30*time.Second)
		}
		const slack = 2 * time.Second
		require.WithinRange(t, got.Due[0], before.Add(want-slack), time.Now().Add(want+slack), "after claim %d", claims)
		require.Equal(t, got.Due[0].UTC(), one[time.Time](t, b, "select due_at from tasker_workflow_steps").UTC())
		at += want
		crashes = append(crashes, at)
		b.exec(t, "update tasker_workflow_steps set due_at = null")
		b.exec(t, "update pgmq.q_"+queue+" set vt = clock_timestamp()")
		leases = b.claim(t, g)
		require.Len(t, leases, 1)
	}
	for i, from := range crashes {
		within := 0
		for _, c := range crashes[i:] {
			if c-from <= time.Minute {
				within++
			}
		}
		require.LessOrEqual(t, within, 4, "crashes in the minute from %s on", from)
	}
}

// A step that a worker gives back properly is not one that kills its workers: a rolling
// restart of a fleet may interrupt it any number of times.
func TestShutdownsOfWorkersAreNotCounted(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	task, j := b.workersStep(t)
	for range 2 * workerClaimFactor {
		require.Equal(t, 1, one[int](t, b, "select claims from tasker_workflow_steps"))
		verdict, err := outsider{b.pool}.release(t.Context(), j.StepKey, j.ID, 0)
		require.NoError(t, err)
		require.Equal(t, "recorded", verdict)
		jobs, err := outsider{b.pool}.claim(t.Context(), handlers, 1, time.Hour)
		require.NoError(t, err)
		require.Len(t, jobs, 1)
		j = jobs[0]
	}
	b.exec(t, "select verdict from tasker_worker_release($1, $2)", j.StepKey.UUID(), j.ID)
	require.True(t, one[bool](t, b, "select due_at is not null from tasker_workflow_steps"), "it waits unless the worker says otherwise")
	require.Equal(t, vocab.StepEnqueued, b.stepState(t, task, 0))
	require.Equal(t, 0, one[int](t, b, "select claims + attempts from tasker_workflow_steps"))
}
