package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Server reads what the database counts.
type Server struct{ pool *pgxpool.Pool }

// NewServer returns a reader of the server behind the pool.
func NewServer(pool *pgxpool.Pool) *Server { return &Server{pool} }

// Counters are sums over the life of the server or database.
type Counters struct {
	WALBytes, FullPageImages, Commits float64
	DeadTuples, Updates, HotUpdates   float64
}

const sqlCounters = `
select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8,
       (select wal_fpi::float8 from pg_stat_wal),
       (select xact_commit::float8 from pg_stat_database where datname = current_database()),
       sum(n_tup_upd + n_tup_del)::float8,
       coalesce(sum(n_tup_upd) filter (where relname like 'tasker_workflow_steps%'), 0)::float8,
       coalesce(sum(n_tup_hot_upd) filter (where relname like 'tasker_workflow_steps%'), 0)::float8
  from pg_stat_user_tables`

// statisticsDelay is how long the server's backends keep their counts to
// themselves.
const statisticsDelay = 1500 * time.Millisecond

// Counters waits until the counts of what has happened are in, and reads them.
func (s *Server) Counters(ctx context.Context) (Counters, error) {
	select {
	case <-time.After(statisticsDelay):
	case <-ctx.Done():
		return Counters{}, ctx.Err()
	}
	var c Counters
	err := s.pool.QueryRow(ctx, sqlCounters).
		Scan(&c.WALBytes, &c.FullPageImages, &c.Commits, &c.DeadTuples, &c.Updates, &c.HotUpdates)
	if err != nil {
		return Counters{}, fmt.Errorf("read the server's counters: %w", err)
	}
	return c, nil
}

func (c Counters) minus(o Counters) Counters {
	return Counters{
		c.WALBytes - o.WALBytes, c.FullPageImages - o.FullPageImages, c.Commits - o.Commits,
		c.DeadTuples - o.DeadTuples, c.Updates - o.Updates, c.HotUpdates - o.HotUpdates,
	}
}

// hotShare is the share of heap-only updates among those of step rows.
func (c Counters) hotShare() float64 {
	if c.Updates == 0 {
		return 0
	}
	return c.HotUpdates / c.Updates
}
