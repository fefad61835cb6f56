package store_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// The reply to a heartbeat may be lost: a revocation is repeated until the host has
// acknowledged it.
func TestRevocationsAreToldUntilTheyAreHeard(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	host := b.host(t)
	task, leases := b.create(t, b.grant(host, 1), b.mustPlan(t, fan(1)...))
	_, cancelled, err := b.store.CancelTask(t.Context(), task, store.Operator{Reason: "no use"}, host)
	require.NoError(t, err)
	require.True(t, cancelled)
	beat := func(heard ...vocab.UUID) []store.Revoked {
		_, revoked, err := b.store.Heartbeat(t.Context(), host, "normal", handlers, time.Hour, heard)
		require.NoError(t, err)
		return revoked
	}
	first := beat()
	require.Len(t, first, 1)
	require.Equal(t, leases[0].ID, first[0].Lease)
	require.Equal(t, first, beat(), "the first answer was lost")
	require.Equal(t, first, beat(randomUUID()), "another was heard")
	require.Empty(t, beat(first[0].Lease))
	require.Empty(t, beat())
}
