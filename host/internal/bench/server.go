package bench

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// server reads the database's counters.
type server struct{ pool *pgxpool.Pool }

func newServer(pool *pgxpool.Pool) *server { return &server{pool} }

// The counters.
const (
	walBytes = iota
	pageImages
	commits
	deadTuples
	updates    // of step rows
	hotUpdates // updates that touched no index
	hostCPU    // microseconds
	pluginCPU
	serverCPU // zero if the server is elsewhere
	allocations
	allocatedBytes
	counters
)

// cost is a value for each counter: sums since some time, or the cost of a step.
type cost [counters]float64

func (c cost) minus(o cost) cost {
	for i := range c {
		c[i] -= o[i]
	}
	return c
}

func (c cost) each(n float64) cost {
	for i := range c {
		c[i] /= n
	}
	return c
}

// tell adds the cost of a step to the report.
func (c cost) tell(r *readmodel.BenchReport) {
	r.WALBytesPerStep, r.PageImagesPerStep, r.CommitsPerStep = c[walBytes], c[pageImages], c[commits]
	r.DeadTuplesPerStep = c[deadTuples]
	if c[updates] > 0 {
		r.HotUpdateShare = c[hotUpdates] / c[updates]
	}
	r.CPUMicrosecondsPerStep = &readmodel.BenchCPU{Host: c[hostCPU], Plugin: c[pluginCPU], Server: c[serverCPU]}
	r.AllocationsPerStep, r.AllocatedBytesPerStep = c[allocations], c[allocatedBytes]
}

const sqlCounters = `
select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8,
       (select wal_fpi::float8 from pg_stat_wal),
       (select xact_commit::float8 from pg_stat_database where datname = current_database()),
       sum(n_tup_upd + n_tup_del)::float8,
       coalesce(sum(n_tup_upd) filter (where relname like 'tasker_workflow_steps%'), 0)::float8,
       coalesce(sum(n_tup_hot_upd) filter (where relname like 'tasker_workflow_steps%'), 0)::float8,
       pg_backend_pid()
  from pg_stat_user_tables`

// statisticsDelay is how long the server's backends always delay their counts.
const statisticsDelay = 1500 * time.Millisecond

// count waits until the server's statistics are up to date, and reads all counters.
func (m *measurement) count() (cost, error) {
	var c cost
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	c[allocations], c[allocatedBytes] = float64(mem.Mallocs), float64(mem.TotalAlloc)
	c[hostCPU] = ownCPU()
	for _, pid := range m.Plugins() {
		c[pluginCPU] += cpuOf(pid)
	}
	if err := m.rest(statisticsDelay); err != nil {
		return c, err
	}
	if err := m.tellCounts(); err != nil {
		return c, err
	}
	var backend int
	err := m.Pool.QueryRow(m.ctx, sqlCounters).Scan(
		&c[walBytes], &c[pageImages], &c[commits], &c[deadTuples], &c[updates], &c[hotUpdates], &backend)
	if err != nil {
		return c, fmt.Errorf("read the server's counters: %w", err)
	}
	c[serverCPU] = familyCPU(backend)
	return c, nil
}

// tellCounts makes the hosts' idle sessions report their counts to the server's
// statistics; otherwise they delay them for up to ten seconds.
func (m *measurement) tellCounts() error {
	for _, pool := range m.Pools {
		for _, conn := range pool.AcquireAllIdle(m.ctx) {
			_, err := conn.Exec(m.ctx, "select 1")
			conn.Release()
			if err != nil {
				return fmt.Errorf("flush the statistics: %w", err)
			}
		}
	}
	return nil
}

const sqlSettings = `
select name, current_setting(name) from unnest(array['server_version', 'fsync', 'synchronous_commit', 'full_page_writes', 'shared_buffers',
  'max_wal_size', 'checkpoint_timeout', 'autovacuum', 'wal_level']) name`

// settings are the server settings that matter here, by name.
func (s *server) settings(ctx context.Context) (map[string]string, error) {
	rows, err := s.pool.Query(ctx, sqlSettings)
	if err != nil {
		return nil, fmt.Errorf("read the server's settings: %w", err)
	}
	all := map[string]string{}
	var name, value string
	_, err = pgx.ForEachRow(rows, []any{&name, &value}, func() error { all[name] = value; return nil })
	if err != nil {
		return nil, fmt.Errorf("read the server's settings: %w", err)
	}
	return all, nil
}
