package store_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// A claim grows old: the levels begin at two, three and four fifths of its time and at
// its end.
func TestClaimHealthFollowsTheAgeOfAClaim(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	healthy, err := b.store.ClaimHealth(t.Context())
	require.NoError(t, err)
	require.Equal(t, store.ClaimHealth{Score: 100, Level: "healthy"}, healthy)

	g := b.grant(b.host(t), 2)
	task, leases := b.create(t, g, b.mustPlan(t, fan(2)...))
	b.settle(t, g, vocab.OutcomeSuccess, leases[0])
	claim, _ := b.claimAs(t, b.pool, task, "slow one", 100)
	require.True(t, claim.Claimed)
	for _, c := range []struct {
		age  time.Duration
		want store.ClaimHealth
	}{
		{10 * time.Second, store.ClaimHealth{Score: 100, Level: "healthy"}},
		{45 * time.Second, store.ClaimHealth{Slow: 1, Score: 100, Level: "healthy"}},
		{65 * time.Second, store.ClaimHealth{Warning: 1, Score: 95, Level: "healthy"}},
		{85 * time.Second, store.ClaimHealth{Critical: 1, Score: 90, Level: "warning"}},
		{105 * time.Second, store.ClaimHealth{Expired: 1, Score: 80, Level: "critical"}},
		{10 * time.Minute, store.ClaimHealth{Expired: 1, Missing: 1, Score: 65, Level: "critical"}},
	} {
		b.exec(t, `update tasker_finalization_attempts set attempted_at = clock_timestamp() - $1::interval where lease_id = $2`, c.age, claim.Lease)
		b.exec(t, `update tasker_tasks set finalize_until = clock_timestamp() - $1::interval + interval '100 seconds' where task_uuid = $2`, c.age, task)
		got, err := b.store.ClaimHealth(t.Context())
		require.NoError(t, err)
		if c.want.Slow+c.want.Warning+c.want.Critical+c.want.Expired > 0 {
			require.InDelta(t, c.age.Seconds(), got.Oldest.Seconds(), 15)
		}
		got.Oldest = 0
		require.Equal(t, c.want, got, "at %s", c.age)
	}
}
