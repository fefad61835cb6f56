package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

const (
	sqlSweepWorkerLeases = `
select o_looked, o_released, o_timed_out, o_finished, o_finished_state
  from tasker_sweep_worker_leases($1::integer, $2::bigint, $3::integer)`

	// Adds what the sweep has not counted yet.
	sqlListWorkers = `
select w.name, w.namespace, w.first_seen_at, w.last_seen_at, coalesce(l.held, 0)::integer,
       w.done + coalesce(c.done, 0) + coalesce(l.done, 0), w.failed + coalesce(c.failed, 0), w.released + coalesce(c.released, 0), w.lost + coalesce(c.lost, 0)
  from tasker_workers w
  left join (select l.worker_id, count(*) as held, sum(l.done) as done from tasker_worker_leases l group by l.worker_id) l on l.worker_id = w.worker_id
  left join (select c.worker_id, sum(c.steps) filter (where c.outcome = 'success') as done,
                    sum(c.steps) filter (where c.outcome in ('retryable', 'permanent')) as failed,
                    sum(c.steps) filter (where c.outcome = 'released') as released,
                    sum(c.steps) filter (where c.outcome is null) as lost
               from tasker_worker_counts c group by c.worker_id) c on c.worker_id = w.worker_id
 order by w.last_seen_at desc, w.worker_id
 limit 500`

	sqlSetWorkerPolicy = `
update tasker_worker_policy
   set max_result_bytes = $1::integer, max_depth = $2::integer, retry_after_cap_ms = $3::bigint, claim_factor = $4::integer
 where (max_result_bytes, max_depth, retry_after_cap_ms, claim_factor) is distinct from ($1::integer, $2::integer, $3::bigint, $4::integer)`
)

// WorkerPolicy is the set of limits for outside workers.
type WorkerPolicy struct {
	Policy
	MaxResultBytes, MaxDepth int
}

// SetWorkerPolicy stores the limits that this host sets its plugins, for the functions
// that outside workers call.
func (s *Store) SetWorkerPolicy(ctx context.Context, p WorkerPolicy) error {
	_, err := s.pool.Exec(ctx, sqlSetWorkerPolicy, p.MaxResultBytes, p.MaxDepth, p.RetryAfterCap.Milliseconds(), p.ClaimFactor)
	if err != nil {
		return fmt.Errorf("set the policy for outside workers: %w", err)
	}
	return nil
}

// Workers returns the outside workers, those seen most recently first, at most 500.
func (s *Store) Workers(ctx context.Context) ([]readmodel.Worker, error) {
	rows, err := s.pool.Query(ctx, sqlListWorkers)
	if err != nil {
		return nil, fmt.Errorf("list workers: %w", err)
	}
	workers, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (readmodel.Worker, error) {
		var w readmodel.Worker
		err := r.Scan(&w.Name, &w.Namespace, &w.FirstSeenAt, &w.LastSeenAt, &w.Leases, &w.Done, &w.Failed, &w.Released, &w.Lost)
		w.FirstSeenAt, w.LastSeenAt = w.FirstSeenAt.UTC(), w.LastSeenAt.UTC()
		return w, err
	})
	if err != nil {
		return nil, fmt.Errorf("list workers: %w", err)
	}
	return workers, nil
}

// SweptLeases says what a sweep of outside workers' leases found.
type SweptLeases struct {
	Released int // leases that had expired: their steps are on the queue again
	TimedOut int // attempts that exceeded the timeout of their step
	Finished []Finished
}

// workerLeasePage is how many leases one statement of the sweep looks at.
const workerLeasePage = 200

// SweepWorkerLeases looks at the leases of outside workers whose time has come.
func (s *Store) SweepWorkerLeases(ctx context.Context, p Policy) (SweptLeases, error) {
	var all SweptLeases
	for looked := workerLeasePage; looked == workerLeasePage; {
		var released, late int
		var tasks []vocab.UUID
		var states []string
		page, end := Page(ctx)
		err := s.pool.QueryRow(page, sqlSweepWorkerLeases, workerLeasePage, p.RetryAfterCap.Milliseconds(), p.ClaimFactor).
			Scan(&looked, &released, &late, &tasks, &states)
		end()
		if err != nil {
			return all, fmt.Errorf("sweep leases of outside workers: %w", err)
		}
		all.Released += released
		all.TimedOut += late
		for i := range tasks {
			all.Finished = append(all.Finished, Finished{UUID: tasks[i], State: vocab.TaskState(states[i])})
		}
	}
	return all, nil
}
