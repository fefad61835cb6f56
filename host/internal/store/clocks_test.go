package store_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
)

// withClock does something as a machine whose clock is the given time after the beginning
// of the year 2000, where the clock of a synctest bubble starts.
func withClock(t *testing.T, dsn string, later time.Duration, do func(ctx context.Context, s *store.Store)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		<-time.After(later)
		pool := pgtest.Pool(t, dsn)
		do(t.Context(), store.New(pool))
		pool.Close()
	})
}

// Fifty hosts whose clocks are wrong by up to decades: none that sends heartbeats is
// considered dead, none that does not stays alive, whoever looks. The database's clock
// counts.
func TestHostsWithSkewedClocks(t *testing.T) {
	t.Parallel()
	const hosts, lease = 50, time.Hour
	dsn := pgtest.DSN(t)
	gone := map[int32]bool{}
	ids := make([]int32, hosts)
	year := 365 * 24 * time.Hour
	for i := range hosts {
		withClock(t, dsn, time.Duration(i)*year+time.Duration(i)*time.Second, func(ctx context.Context, s *store.Store) {
			id, err := s.RegisterHost(ctx, store.HostInfo{Name: fmt.Sprint("host-", i), Version: "1", Environment: "test", State: "normal"}, lease)
			require.NoError(t, err)
			ids[i] = id
			beats := lease
			if i%2 == 1 {
				beats = -time.Second // its last one: the lease has expired since
			}
			alive, _, err := s.Heartbeat(ctx, id, "normal", nil, beats, nil)
			require.NoError(t, err)
			require.True(t, alive)
			if i%10 == 0 {
				swept, err := s.SweepHosts(ctx)
				require.NoError(t, err)
				for _, g := range swept {
					gone[g.ID] = true
				}
			}
		})
	}
	for _, later := range []time.Duration{0, 100 * year} {
		withClock(t, dsn, later, func(ctx context.Context, s *store.Store) {
			swept, err := s.SweepHosts(ctx)
			require.NoError(t, err)
			for _, g := range swept {
				gone[g.ID] = true
			}
			facts, err := s.HostFacts(ctx)
			require.NoError(t, err)
			require.Len(t, facts, hosts)
			for _, f := range facts {
				beats := f.ID%2 == ids[0]%2
				require.Equal(t, beats, f.Alive(), f.Name)
				if beats {
					require.LessOrEqual(t, f.LeaseLeft, lease, f.Name)
				}
			}
		})
	}
	for i, id := range ids {
		require.Equal(t, i%2 == 1, gone[id], "host-%d", i)
	}
	for i, id := range ids {
		if i%7 != 0 {
			continue
		}
		withClock(t, dsn, time.Duration(i)*year, func(ctx context.Context, s *store.Store) {
			alive, _, err := s.Heartbeat(ctx, id, "normal", nil, lease, nil)
			require.NoError(t, err)
			require.Equal(t, i%2 == 0, alive, "a host that was given up learns of it")
		})
	}
}
