package store_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/store"
)

// limits records until when each statement that calls a function may take.
type limits struct {
	mu  sync.Mutex
	all map[string][]time.Time // by function; zero: for ever
}

func (l *limits) TraceQueryStart(ctx context.Context, _ *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	if _, from, ok := strings.Cut(q.SQL, "from "); ok {
		name, _, _ := strings.Cut(from, "(")
		until, _ := ctx.Deadline()
		l.mu.Lock()
		l.all[name] = append(l.all[name], until)
		l.mu.Unlock()
	}
	return ctx
}

func (l *limits) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TestEachPageHasALimitOfItsOwn: a look at everything there is may take as long as it
// needs, but each statement has to be answered in time.
func TestEachPageHasALimitOfItsOwn(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	host, p := b.host(t), b.mustPlan(t, fan(1)...)
	const pages = 3 // of 500 tasks
	batch := make([]store.NewTask, 500*(pages-1)+1)
	for i := range batch {
		batch[i] = newTask(p)
	}
	b.submit(t, b.grant(host, len(batch)), batch...)

	seen := &limits{all: map[string][]time.Time{}}
	cfg := b.pool.Config()
	cfg.ConnConfig.Tracer = seen
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	s := store.New(pool)
	ended := 0
	ctx := store.InPages(t.Context(), time.Hour, func() { ended++ })
	for _, c := range []struct {
		function   string
		statements int
		more       int // others, whose limit is not looked at
		call       func() error
	}{
		{"tasker_host_leases", pages, 0, func() error {
			held, err := s.HostLeases(ctx, host)
			require.Len(t, held, len(batch))
			return err
		}},
		{"tasker_sweep_messages", pages, 0, func() error { _, _, err := s.SweepMessages(ctx, time.Hour); return err }},
		{"tasker_sweep_worker_leases", 1, 0, func() error { _, err := s.SweepWorkerLeases(ctx, policy); return err }},
		{"tasker_release_host_steps", pages, 1, func() error { _, err := s.ReleaseHost(ctx, host, "host_lost", 0); return err }},
		{"", 0, 4, func() error { return s.EnsurePartitions(ctx, store.PartitionDays, day) }},
	} {
		ended = 0
		began := time.Now()
		require.NoError(t, c.call(), c.function)
		require.Equal(t, c.statements+c.more, ended, c.function)
		until := seen.all[c.function]
		require.Len(t, until, c.statements, c.function)
		for i, at := range until {
			require.False(t, at.Before(began.Add(time.Hour)) || at.After(time.Now().Add(time.Hour)), "%s: %s", c.function, at)
			require.True(t, i == 0 || at.After(until[i-1]), "%s: every page begins anew", c.function)
		}
	}
}
