package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// The partitions of a table are counted as one.
	sqlTableSizes = `
select coalesce(parent.relname, c.relname)::text,
       sum(pg_total_relation_size(c.oid))::bigint,
       sum(pg_stat_get_live_tuples(c.oid))::bigint, sum(pg_stat_get_dead_tuples(c.oid))::bigint,
       (select pg_database_size(current_database()))
  from pg_class c
  left join pg_inherits i on i.inhrelid = c.oid
  left join pg_class parent on parent.oid = i.inhparent
 where c.relkind = 'r' and (c.relnamespace = to_regnamespace('pgmq')
       or c.relnamespace = (select t.relnamespace from pg_class t where t.oid = to_regclass('tasker_tasks')))
 group by 1
 order by 2 desc
 limit $1::integer`

	// A lease may be as long as its worker asked for. One that has expired must be
	// gone after the next sweep.
	sqlWorkerLeases = `
select count(*)::integer,
       count(*) filter (where l.lease > $1::interval)::integer,
       count(*) filter (where l.look_at < clock_timestamp() - $2::interval)::integer
  from tasker_worker_leases l`

	// The partitions of today and tomorrow, of all four tables, and rows of the default partition.
	sqlPartitions = `
select (select count(*)::integer
          from unnest($1::text[]) t(name) cross join (values (clock_timestamp()), (clock_timestamp() + interval '24 hours')) d(at)
         where not exists (select from tasker_partitions(t.name) x where x.o_begins <= d.at and x.o_ends > d.at)),
       (select count(*)::integer from (select from tasker_tasks_default limit $2::integer) n),
       (select tasker_uuid_time(t.task_uuid) from tasker_tasks_default t order by t.task_uuid limit 1),
       (select tasker_uuid_time(t.task_uuid) from tasker_tasks_default t order by t.task_uuid desc limit 1)`
)

// TableSize is the space that a table takes with its indexes and partitions.
type TableSize struct {
	Name       string
	Bytes      int64
	Live, Dead int64 // rows, approximately; dead ones wait for vacuum
}

// DiskUse returns the size of the database, and its largest tables.
func (s *Store) DiskUse(ctx context.Context, limit int) (total int64, largest []TableSize, err error) {
	rows, err := s.pool.Query(ctx, sqlTableSizes, limit)
	if err != nil {
		return 0, nil, fmt.Errorf("read the sizes of tables: %w", err)
	}
	largest, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (TableSize, error) {
		var t TableSize
		err := r.Scan(&t.Name, &t.Bytes, &t.Live, &t.Dead, &total)
		return t, err
	})
	if err != nil {
		return 0, nil, fmt.Errorf("read the sizes of tables: %w", err)
	}
	return total, largest, nil
}

// WorkerLeases counts the leases of outside workers.
type WorkerLeases struct {
	All     int
	Long    int // that outlive a dead worker by more than a limit
	Overdue int // that expired longer ago than a limit and have not been swept
}

// WorkerLeases counts the leases of outside workers.
func (s *Store) WorkerLeases(ctx context.Context, long, overdue time.Duration) (WorkerLeases, error) {
	var l WorkerLeases
	if err := s.pool.QueryRow(ctx, sqlWorkerLeases, long, overdue).Scan(&l.All, &l.Long, &l.Overdue); err != nil {
		return WorkerLeases{}, fmt.Errorf("count the leases of outside workers: %w", err)
	}
	return l, nil
}

// PartitionFacts tell whether each task is in the partition of its day.
type PartitionFacts struct {
	Missing     int       // of the partitions of today and tomorrow
	Astray      int       // tasks in the default partition, counted up to a limit
	First, Last time.Time // when the first and last of these were created, by the clocks of their hosts; zero: there are none
}

// Partitions looks at the partitions of tasks. It counts up to limit tasks that are in no
// partition for their day.
func (s *Store) Partitions(ctx context.Context, limit int) (PartitionFacts, error) {
	var f PartitionFacts
	var first, last *time.Time
	if err := s.pool.QueryRow(ctx, sqlPartitions, partitioned, limit).Scan(&f.Missing, &f.Astray, &first, &last); err != nil {
		return f, fmt.Errorf("look at the partitions: %w", err)
	}
	if first != nil && last != nil {
		f.First, f.Last = *first, *last
	}
	return f, nil
}
