package bench_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/bench"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// costServer is a server on which nothing happens by itself, and which reports what was
// written (pg_walinspect) and what was called (pg_stat_statements).
func costServer(t *testing.T) (dsn string) {
	t.Helper()
	dsn = pgtest.Cluster(t, map[string]string{
		"autovacuum": "off", "checkpoint_timeout": "1d", "wal_keep_size": "8GB", "max_wal_size": "64GB", "full_page_writes": "off",
		"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track": "top",
		"bgwriter_lru_maxpages": "0", "jit": "off",
	}).DSN()
	pool := pgtest.Pool(t, dsn)
	for _, extension := range []string{"pg_walinspect", "pg_stat_statements"} {
		_, err := pool.Exec(t.Context(), "create extension "+extension)
		require.NoError(t, err, "PostgreSQL's contrib modules are needed")
	}
	return dsn
}

// hostPool is a connection pool like the host's.
func hostPool(t *testing.T, dsn string) *pgxpool.Pool {
	t.Helper()
	pool, err := store.OpenPool(t.Context(), store.PoolConfig{URL: dsn, MaxConns: 8, ApplicationName: "cost"})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// meter measures what happens between two points in time.
type meter struct {
	pool  *pgxpool.Pool
	lsn   string
	calls int64
	mem   runtime.MemStats
}

// Statements that only the meter makes do not count, nor do checks of a queue, whose
// number varies by chance.
const sqlCalls = `
select coalesce(sum(calls), 0)::bigint from pg_stat_statements
 where dbid = (select oid from pg_database where datname = current_database()) and query like '%tasker\_%' and query not like '%tasker\_claim\_steps%'`

func (m *meter) calledSoFar(t *testing.T) (n int64) {
	t.Helper()
	require.NoError(t, m.pool.QueryRow(t.Context(), sqlCalls).Scan(&n))
	return n
}

func (m *meter) start(t *testing.T) {
	t.Helper()
	m.calls = m.calledSoFar(t)
	require.NoError(t, m.pool.QueryRow(t.Context(), "select pg_current_wal_insert_lsn()::text").Scan(&m.lsn))
	runtime.ReadMemStats(&m.mem)
}

const sqlWritten = `
select coalesce(sum(combined_size), 0)::float8,
       coalesce(sum(count) filter (where "resource_manager/record_type" like 'Transaction/COMMIT%'), 0)::float8,
       coalesce(sum(count) filter (where "resource_manager/record_type" like any (array['Heap/UPDATE%', 'Heap/HOT\_UPDATE%', 'Heap/DELETE%'])), 0)::float8,
       coalesce(sum(count) filter (where "resource_manager/record_type" like any (array['Heap/UPDATE%', 'Heap/HOT\_UPDATE%'])), 0)::float8,
       coalesce(sum(count) filter (where "resource_manager/record_type" like 'Heap/HOT\_UPDATE%'), 0)::float8
  from pg_get_wal_stats($1::text::pg_lsn, $2::text::pg_lsn, true)`

func (m *meter) stop(t *testing.T, steps int) cost {
	t.Helper()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	var lsn string
	require.NoError(t, m.pool.QueryRow(t.Context(), "select pg_current_wal_insert_lsn()::text").Scan(&lsn))
	calls := m.calledSoFar(t) - m.calls
	_, err := m.pool.Exec(t.Context(), "checkpoint") // pg_get_wal_stats reads only what was flushed
	require.NoError(t, err)
	var bytes, commits, dead, updates, hot float64
	require.NoError(t, m.pool.QueryRow(t.Context(), sqlWritten, m.lsn, lsn).Scan(&bytes, &commits, &dead, &updates, &hot))
	n := float64(steps)
	m.where(t, lsn, n)
	c := cost{
		"wal_bytes_per_step": bytes / n, "commits_per_step": commits / n, "dead_tuples_per_step": dead / n,
		"sql_calls_per_step":       float64(calls) / n,
		"allocations_per_step":     float64(mem.Mallocs-m.mem.Mallocs) / n,
		"allocated_bytes_per_step": float64(mem.TotalAlloc-m.mem.TotalAlloc) / n,
	}
	if updates > 0 {
		c["hot_update_share"] = hot / updates
	}
	return c
}

const sqlWhere = `
select "resource_manager/record_type", count / $3::float8, combined_size / $3::float8
  from pg_get_wal_stats($1::text::pg_lsn, $2::text::pg_lsn, true) where count > 0 order by combined_size desc limit 8`

// where logs the records that make up the bytes of a step.
func (m *meter) where(t *testing.T, lsn string, steps float64) {
	t.Helper()
	rows, err := m.pool.Query(t.Context(), sqlWhere, m.lsn, lsn, steps)
	require.NoError(t, err)
	var kind string
	var count, bytes float64
	_, err = pgx.ForEachRow(rows, []any{&kind, &count, &bytes}, func() error {
		t.Logf("  %-24s %6.3f records, %6.1f bytes a step", kind, count, bytes)
		return nil
	})
	require.NoError(t, err)
}

// TestCostDoesNotGrowWithWidth runs a task that is ten times as wide as another: its
// steps must not cost more, or something is quadratic.
func TestCostDoesNotGrowWithWidth(t *testing.T) {
	dsn := costServer(t)
	m := &meter{pool: pgtest.Pool(t, dsn)}
	s := newStepped(t, hostPool(t, dsn))
	narrow, wide := bench.FanOut(400), bench.FanOut(4000)
	s.apply(t, narrow, wide)
	measure := func(shape bench.Shape, tasks int) cost {
		s.run(t, shape, 1)
		m.start(t)
		for range tasks {
			s.run(t, shape, 1)
		}
		return m.stop(t, tasks*shape.Steps)
	}
	small, large := measure(narrow, 10), measure(wide, 1)
	for figure, v := range large {
		t.Logf("%-25s %10.4g of 400, %10.4g of 4000", figure, small[figure], v)
		if figure != "hot_update_share" {
			require.Less(t, v, 1.3*small[figure], figure)
		}
	}
}

// TestCost compares the cost of a step with the budget: what the database writes, the
// calls to it, and what the host allocates. It does not measure time, so the budget
// holds on any machine, however busy. A change that makes a step more expensive fails
// here. If the change is worth it,
//
//	go test -race ./host/internal/bench -run TestCost -update
//
// writes the new costs, and the change of the file can be reviewed.
//
// The test must have the process to itself, since allocations are counted for all of it.
func TestCost(t *testing.T) {
	dsn := costServer(t)
	m := &meter{pool: pgtest.Pool(t, dsn)}
	measured := map[string]cost{}

	pool := hostPool(t, dsn)
	s := newStepped(t, pool)
	fanOut := bench.FanOut(200)
	s.apply(t, bench.Shapes["linear"], bench.Shapes["diamond"], bench.Shapes["single"], fanOut)
	for _, w := range []struct {
		name          string
		shape         bench.Shape
		tasks, rounds int
	}{
		{"linear", bench.Shapes["linear"], 200, 6},
		{"diamond", bench.Shapes["diamond"], 200, 6},
		{"single", bench.Shapes["single"], 400, 6},
		{"fan_out", fanOut, 2, 6},
		{"one_by_one", bench.Shapes["linear"], 1, 200},
	} {
		s.run(t, w.shape, w.tasks)
		m.start(t)
		for range w.rounds {
			s.run(t, w.shape, w.tasks)
		}
		measured[w.name] = m.stop(t, w.tasks*w.rounds*w.shape.Steps)
	}
	q := newQueued(t, s, pool)
	for _, w := range []struct {
		name string
		run  func(t *testing.T, tasks int)
	}{{"queue", q.host}, {"worker", q.worker}, {"worker_bulk", q.bulk}, {"worker_next", q.next}, {"worker_exchange", q.exchange}, {"worker_post", q.post}} {
		w.run(t, 100)
		m.start(t)
		for range 6 {
			w.run(t, 100)
		}
		c := m.stop(t, 6*100*bench.Shapes["linear"].Steps)
		// What the test does here instead of the engine says nothing about the host.
		delete(c, "allocations_per_step")
		delete(c, "allocated_bytes_per_step")
		measured[w.name] = c
	}
	var version int
	require.NoError(t, pool.QueryRow(t.Context(), "select current_setting('server_version_num')::integer / 10000").Scan(&version))
	compareWithBudget(t, version, measured)
}

// queued runs tasks whose steps all go through the queue, as in the engine when it has
// no room, or with an outside worker.
type queued struct {
	store *store.Store
	pool  *pgxpool.Pool
	plan  *store.Plan
	grant store.Grant
	queue string
}

const queuedBatch = 100

func newQueued(t *testing.T, s *stepped, pool *pgxpool.Pool) *queued {
	t.Helper()
	plan, err := s.FindPlan(t.Context(), bench.Namespace, "linear", "1.0.0", "")
	require.NoError(t, err)
	q := &queued{store: s.Store, pool: pool, plan: plan, queue: s.queues[0]}
	q.grant = store.Grant{Host: s.engine.HostID(), Served: slices.Collect(maps.Values(s.ids))}
	return q
}

func (q *queued) create(t *testing.T, n int) {
	t.Helper()
	batch := make([]store.NewTask, n)
	for i := range batch {
		id, err := uuid.NewV7()
		require.NoError(t, err)
		batch[i] = store.NewTask{UUID: vocab.TaskID(vocab.UUID(id)), Plan: q.plan.ID, Context: bench.Context, Identity: bytes.Repeat([]byte{7}, 32)}
	}
	_, err := q.store.CreateTasks(t.Context(), q.grant, batch, "")
	require.NoError(t, err)
}

func (q *queued) host(t *testing.T, tasks int) {
	t.Helper()
	q.create(t, tasks)
	g := q.grant
	g.Room = queuedBatch
	finished := 0
	for range tasks * bench.Shapes["linear"].Steps / queuedBatch {
		got, err := q.store.Claim(t.Context(), g, q.queue, []string{"bench.noop"}, 0)
		require.NoError(t, err)
		require.Len(t, got.Leases, queuedBatch)
		batch := make([]store.Settlement, len(got.Leases))
		for i, l := range got.Leases {
			batch[i] = store.Settlement{StepKey: l.StepKey, Lease: l.ID, Outcome: vocab.OutcomeSuccess, Generation: 1, Result: noopResult}
		}
		done, err := q.store.Settle(t.Context(), q.grant, store.Policy{RetryAfterCap: time.Minute, ClaimFactor: 3}, batch)
		require.NoError(t, err)
		finished += len(done.Finished)
	}
	require.Equal(t, tasks, finished)
}

// outside claims all steps of tasks, a batch at a time, like an outside worker.
func (q *queued) outside(t *testing.T, tasks int, settle func(steps, leases []vocab.UUID)) {
	t.Helper()
	q.create(t, tasks)
	for range tasks * bench.Shapes["linear"].Steps / queuedBatch {
		var steps, leases []vocab.UUID
		require.NoError(t, q.pool.QueryRow(t.Context(), `
select array_agg(step_uuid), array_agg(lease_id) from tasker_worker_claim($1::text, 'cost', array['bench.noop'], $2::integer)`,
			bench.Namespace, queuedBatch).Scan(&steps, &leases))
		require.Len(t, steps, queuedBatch)
		settle(steps, leases)
	}
	_, err := q.store.SweepWorkerLeases(t.Context(), store.Policy{RetryAfterCap: time.Minute, ClaimFactor: 3})
	require.NoError(t, err)
}

func (q *queued) worker(t *testing.T, tasks int) {
	t.Helper()
	q.outside(t, tasks, func(steps, leases []vocab.UUID) {
		for i := range steps {
			var verdict, detail string
			require.NoError(t, q.pool.QueryRow(t.Context(), `
select verdict, coalesce(detail, '') from tasker_worker_settle($1::uuid, $2::uuid, 'success', $3::text)`, steps[i], leases[i], string(noopResult)).Scan(&verdict, &detail))
			require.Equal(t, "recorded", verdict, detail)
		}
	})
}

func (q *queued) bulk(t *testing.T, tasks int) {
	t.Helper()
	q.outside(t, tasks, func(steps, leases []vocab.UUID) {
		var n int
		require.NoError(t, q.pool.QueryRow(t.Context(), `
select count(*) filter (where verdict = 'recorded')
  from tasker_worker_complete($1::uuid[], $2::uuid[], array_fill($3::text, array[cardinality($1::uuid[])]))`, steps, leases, string(noopResult)).Scan(&n))
		require.Equal(t, len(steps), n)
	})
}

// next runs the steps like a worker that runs one at a time.
func (q *queued) next(t *testing.T, tasks int) {
	t.Helper()
	q.create(t, tasks)
	var step, lease *vocab.UUID
	require.NoError(t, q.pool.QueryRow(t.Context(), `
select step_uuid, lease_id from tasker_worker_claim($1::text, 'cost', array['bench.noop'])`, bench.Namespace).Scan(&step, &lease))
	for range tasks * bench.Shapes["linear"].Steps {
		var verdict string
		require.NotNil(t, step)
		require.NoError(t, q.pool.QueryRow(t.Context(), `
select verdict, step_uuid, lease_id from tasker_worker_next($1::uuid, $2::uuid, $3::text, $4::text, 'cost', array['bench.noop'])`,
			step, lease, string(noopResult), bench.Namespace).Scan(&verdict, &step, &lease))
		require.Equal(t, "recorded", verdict)
	}
	require.Nil(t, step)
	_, err := q.store.SweepWorkerLeases(t.Context(), store.Policy{RetryAfterCap: time.Minute, ClaimFactor: 3})
	require.NoError(t, err)
}

// exchange runs the steps like a worker that runs a batch at a time and continues with
// the steps that its results made ready.
func (q *queued) exchange(t *testing.T, tasks int) {
	t.Helper()
	q.create(t, tasks)
	done := 0
	for steps, leases := []vocab.UUID{}, []vocab.UUID{}; done < tasks*bench.Shapes["linear"].Steps; {
		var n int
		require.NoError(t, q.pool.QueryRow(t.Context(), `
select count(*) filter (where verdict = 'recorded'),
       coalesce(array_agg(step_uuid) filter (where step_uuid is not null), '{}'), coalesce(array_agg(lease_id) filter (where step_uuid is not null), '{}')
  from tasker_worker_exchange($1::uuid[], $2::uuid[], array_fill($3::text, array[cardinality($1::uuid[])]), $4::text, 'cost', array['bench.noop'], $5::integer)`,
			steps, leases, string(noopResult), bench.Namespace, queuedBatch).Scan(&n, &steps, &leases))
		done += n
		require.True(t, len(steps) == queuedBatch || done == tasks*bench.Shapes["linear"].Steps, "%d steps after %d", len(steps), done)
	}
	_, err := q.store.SweepWorkerLeases(t.Context(), store.Policy{RetryAfterCap: time.Minute, ClaimFactor: 3})
	require.NoError(t, err)
}

// post runs the steps like a worker that reads messages and posts results, which a host
// records.
func (q *queued) post(t *testing.T, tasks int) {
	t.Helper()
	const results = "orchestration_step_results"
	q.create(t, tasks)
	for range tasks * bench.Shapes["linear"].Steps / queuedBatch {
		var messages []int64
		require.NoError(t, q.pool.QueryRow(t.Context(), `select array_agg(msg_id) from pgmq.read($1::text, 60, $2::integer)`, q.queue, queuedBatch).Scan(&messages))
		var sent, removed int
		require.NoError(t, q.pool.QueryRow(t.Context(), fmt.Sprintf(`
select (select count(*) from pgmq.send_batch($1::text, array(
         select jsonb_build_object('step_uuid', q.message -> 'step_uuid', 'task_uuid', q.message -> 'task_uuid', 'status', 'Success', 'results', $4::jsonb)
           from pgmq.q_%s q where q.msg_id = any($3::bigint[])))),
       (select count(*) from pgmq.delete($2::text, $3::bigint[]))`, q.queue), results, q.queue, messages, string(noopResult)).Scan(&sent, &removed))
		require.Equal(t, [2]int{queuedBatch, queuedBatch}, [2]int{sent, removed})
		posted, err := q.store.ReadMessages(t.Context(), results, time.Minute, queuedBatch)
		require.NoError(t, err)
		require.Len(t, posted, queuedBatch)
		batch := make([]store.Posted, len(posted))
		for i, m := range posted {
			var r struct {
				Step string `json:"step_uuid"`
			}
			require.NoError(t, json.Unmarshal(m.Body, &r))
			step, err := vocab.ParseUUID(r.Step)
			require.NoError(t, err)
			task, number, ok := vocab.SplitStepID(step)
			require.True(t, ok)
			batch[i] = store.Posted{Message: m.ID, Settlement: store.Settlement{
				StepKey: store.StepKey{Task: task, Number: int32(number)}, Outcome: vocab.OutcomeSuccess, Result: noopResult,
			}}
		}
		done, err := q.store.SettlePosted(t.Context(), q.grant.Host, results, store.Policy{RetryAfterCap: time.Minute, ClaimFactor: 3}, batch)
		require.NoError(t, err)
		require.Equal(t, slices.Repeat([]store.Verdict{store.Recorded}, queuedBatch), done.Verdicts)
	}
}
