package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

const (
	sqlTakeDuty = `select tasker_take_duty($1::text, $2::integer, $3::interval)`

	sqlOldDays = `select d from tasker_old_days($1::interval, $2::text[], $3::interval[]) d`

	sqlDayIsOver = `select tasker_day_is_over($1::date, $2::interval, $3::text[], $4::interval[])`

	sqlDropDay = `select tasker_drop_day($1::text, $2::date, $3::integer, $4::interval, $5::text[], $6::interval[])`

	sqlPruneTasks = `
select o_deleted, o_last from tasker_prune_tasks($1::date, $2::uuid, $3::integer, $4::interval, $5::text[], $6::interval[])`

	sqlPruneRecords = `select tasker_prune_records($1::integer, $2::interval, $3::interval, $4::interval, $5::interval)`
)

// Retention says how long tasks and records are kept after their end. Zero: for ever.
type Retention struct {
	Tasks       time.Duration            // with their steps and history, from their end on
	Namespaces  map[string]time.Duration // where that differs
	Keys        time.Duration            // idempotency keys; they stay at least as long as their task
	DeadLetters time.Duration
	Audit       time.Duration // audit entries, 30 days at least
	Records     time.Duration // archives of queues, finalization attempts, hosts that are gone, workers not seen
}

// arguments returns the arguments that the SQL functions for tasks take.
func (r Retention) arguments() (tasks *time.Duration, namespaces []string, keep []*time.Duration) {
	namespaces = slices.Sorted(maps.Keys(r.Namespaces))
	keep = make([]*time.Duration, len(namespaces))
	for i, n := range namespaces {
		keep[i] = unlessZero(r.Namespaces[n])
	}
	return unlessZero(r.Tasks), append([]string{}, namespaces...), keep
}

func unlessZero(d time.Duration) *time.Duration {
	if d == 0 {
		return nil
	}
	return &d
}

// TakeDuty takes or keeps, for a while, a duty that one host at a time does for all. It
// reports whether the host has it now.
func (s *Store) TakeDuty(ctx context.Context, duty string, host int32, lease time.Duration) (mine bool, err error) {
	if err := s.pool.QueryRow(ctx, sqlTakeDuty, duty, host, lease).Scan(&mine); err != nil {
		return false, fmt.Errorf("take duty %s: %w", duty, err)
	}
	return mine, nil
}

// OldDays returns the first days of the partitions that may have expired tasks, oldest
// first.
func (s *Store) OldDays(ctx context.Context, r Retention) ([]time.Time, error) {
	tasks, namespaces, keep := r.arguments()
	rows, err := s.pool.Query(ctx, sqlOldDays, tasks, namespaces, keep)
	if err != nil {
		return nil, fmt.Errorf("list old days: %w", err)
	}
	days, err := pgx.CollectRows(rows, pgx.RowTo[time.Time])
	if err != nil {
		return nil, fmt.Errorf("list old days: %w", err)
	}
	return days, nil
}

// DayIsOver reports whether nothing in the partitions that begin with a day is to be
// kept. It may have to read all of them, and take correspondingly long.
func (s *Store) DayIsOver(ctx context.Context, day time.Time, r Retention) (over bool, err error) {
	tasks, namespaces, keep := r.arguments()
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := allow(ctx, tx, time.Minute); err != nil {
			return err
		}
		return tx.QueryRow(ctx, sqlDayIsOver, day, tasks, namespaces, keep).Scan(&over)
	})
	if err != nil {
		return false, fmt.Errorf("check whether %s is over: %w", day.Format(time.DateOnly), err)
	}
	return over, nil
}

// partitioned are the tables with partitions for days, in the order in which these are
// dropped: nobody sees a step without its task.
var partitioned = [...]string{"tasker_tasks", "tasker_workflow_steps", "tasker_task_transitions", "tasker_workflow_step_transitions"}

// DropDay drops the partitions that begin with a day, each in a transaction of its own
// that waits for its lock for at most wait. Partitions with a task that was reopened
// since they were checked stay. It returns how many it dropped. An error of class [Retry]
// means that a lock was not available, and that the rest may be dropped another time.
func (s *Store) DropDay(ctx context.Context, day time.Time, wait time.Duration, r Retention) (dropped int, err error) {
	tasks, namespaces, keep := r.arguments()
	for _, table := range partitioned {
		var did bool
		if err := s.pool.QueryRow(ctx, sqlDropDay, table, day, wait.Milliseconds(), tasks, namespaces, keep).Scan(&did); err != nil {
			return dropped, fmt.Errorf("drop %s of %s: %w", day.Format(time.DateOnly), table, err)
		}
		if did {
			dropped++
		}
	}
	return dropped, nil
}

// prunePage is how many tasks one statement of a pruning looks at.
const prunePage = 500

// PruneTasks deletes the expired tasks among the next ones of the partition that begins
// with a day, or of the default partition if day is nil. It returns how many, and the
// task to continue after; nil: all have been seen.
func (s *Store) PruneTasks(ctx context.Context, day *time.Time, after vocab.UUID, r Retention) (deleted int, last *vocab.UUID, err error) {
	tasks, namespaces, keep := r.arguments()
	err = s.pool.QueryRow(ctx, sqlPruneTasks, day, after, prunePage, tasks, namespaces, keep).Scan(&deleted, &last)
	if err != nil {
		return 0, nil, fmt.Errorf("delete tasks past their retention time: %w", err)
	}
	return deleted, last, nil
}

// PruneRecords deletes some of the old records that are not tasks, and returns how many.
func (s *Store) PruneRecords(ctx context.Context, r Retention) (deleted int, err error) {
	err = s.pool.QueryRow(ctx, sqlPruneRecords, prunePage, unlessZero(r.Keys), unlessZero(r.DeadLetters), unlessZero(r.Records), unlessZero(r.Audit)).Scan(&deleted)
	if err != nil {
		return 0, fmt.Errorf("delete old records: %w", err)
	}
	return deleted, nil
}
