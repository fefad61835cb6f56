package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tasker-systems/tasker-host/migrations"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

const (
	sqlServerFacts = `
select current_setting('server_version'), current_setting('server_version_num')::integer,
       current_setting('fsync') = 'on', current_setting('full_page_writes') = 'on', current_setting('synchronous_commit'),
       pg_is_in_recovery(), current_setting('server_encoding'),
       current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer,
       (select count(*)::integer from pg_stat_activity a where a.backend_type = 'client backend'),
       (select coalesce(extract(epoch from max(x.age)), 0)::double precision
          from (select clock_timestamp() - a.xact_start as age from pg_stat_activity a
                 where a.backend_type = 'client backend' and a.pid <> pg_backend_pid()
                union all
                select clock_timestamp() - p.prepared from pg_prepared_xacts p where p.database = current_database()) x)`

	sqlClock = `select clock_timestamp()`

	sqlHostFacts = `
select h.host_id, h.name, h.version, h.environment, h.state,
       extract(epoch from h.alive_until - clock_timestamp())::double precision, h.swept_at is not null
  from tasker_hosts h
 where h.swept_at is null or h.alive_until > clock_timestamp() - interval '1 day'
 order by h.host_id desc
 limit 500`

	sqlWorkFacts = `
select (select count(*)::integer from (select from tasker_dead_letters d
         where d.closed_at is null limit $1::integer) x),
       oldest.task_uuid, oldest.created_at
  from (select) one
  left join lateral (
    select t.task_uuid, t.created_at from tasker_tasks t
     where t.state in ('pending', 'in_progress') order by t.task_uuid limit 1) oldest on true`

	sqlMessagesSetAside = `
select count(*)::integer from (select from tasker_dead_letters d
 where d.closed_at is null and d.kind = 'message' limit $1::integer) x`

	sqlLimbo = `
select l.task_uuid, l.step_no, l.state, l.reason from tasker_limbo l limit $1::integer`

	// Estimates: counting a deep queue takes time in proportion to its depth.
	sqlQueueDepths = `
select m.queue_name::text, pg_stat_get_live_tuples(c.oid), pg_stat_get_dead_tuples(c.oid)
  from pgmq.meta m
  join pg_class c on c.relnamespace = to_regnamespace('pgmq') and c.relname = 'q_' || lower(m.queue_name)
 order by m.queue_name`
)

// ServerFacts are what the doctor needs to know about the database server.
type ServerFacts struct {
	Version    string // such as "16.4 (Debian 16.4-1)"
	VersionNum int    // such as 160004

	Fsync, FullPageWrites bool
	SynchronousCommit     string // "on", "off", "local", "remote_write" or "remote_apply"
	InRecovery            bool
	Encoding              string

	Connections, MaxConnections int           // of clients; without those reserved for superusers
	OldestTransaction           time.Duration // of other sessions, as far as this role may see them
}

// ServerFacts queries the server about itself.
func (s *Store) ServerFacts(ctx context.Context) (ServerFacts, error) {
	var f ServerFacts
	var oldest float64
	err := s.pool.QueryRow(ctx, sqlServerFacts).Scan(
		&f.Version, &f.VersionNum, &f.Fsync, &f.FullPageWrites, &f.SynchronousCommit, &f.InRecovery, &f.Encoding,
		&f.MaxConnections, &f.Connections, &oldest)
	if err != nil {
		return ServerFacts{}, fmt.Errorf("read the server's settings: %w", err)
	}
	f.OldestTransaction = seconds(oldest)
	return f, nil
}

// PGMQ reports where the queues of the database come from.
func (s *Store) PGMQ(ctx context.Context) (migrations.PGMQInfo, error) {
	return migrations.PGMQ(ctx, s.pool)
}

// CheckSchema reports whether this program may work with the database; see
// [migrations.Check] for the errors.
func (s *Store) CheckSchema(ctx context.Context) error { return migrations.Check(ctx, s.pool) }

// ClockSkew compares the database's clock with now: how far it is ahead, and how
// uncertain that is because of the round trip.
func (s *Store) ClockSkew(ctx context.Context, now func() time.Time) (ahead, uncertainty time.Duration, err error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("compare clocks: %w", err)
	}
	defer conn.Release()
	// The shortest of a few tries is the most accurate; the first prepares the statement.
	for range 3 {
		var there time.Time
		began := now()
		if err := conn.QueryRow(ctx, sqlClock).Scan(&there); err != nil {
			return 0, 0, fmt.Errorf("compare clocks: %w", err)
		}
		half := now().Sub(began) / 2
		if uncertainty == 0 || half < uncertainty {
			ahead, uncertainty = there.Sub(began.Add(half)), half
		}
	}
	return ahead, uncertainty, nil
}

// HostFacts is a host as other hosts see it.
type HostFacts struct {
	ID                                int32
	Name, Version, Environment, State string
	LeaseLeft                         time.Duration // negative: how long ago it expired
	Swept                             bool          // its steps were given back
}

// Alive reports whether the host's leases are valid.
func (h *HostFacts) Alive() bool { return h.LeaseLeft > 0 && h.State != "dead" && h.State != "stopped" }

// HostFacts returns the hosts of the last day, newest first, at most 500.
func (s *Store) HostFacts(ctx context.Context) ([]HostFacts, error) {
	rows, err := s.pool.Query(ctx, sqlHostFacts)
	if err != nil {
		return nil, fmt.Errorf("list hosts: %w", err)
	}
	hosts, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (HostFacts, error) {
		var h HostFacts
		var left float64
		err := r.Scan(&h.ID, &h.Name, &h.Version, &h.Environment, &h.State, &left, &h.Swept)
		h.LeaseLeft = seconds(left)
		return h, err
	})
	if err != nil {
		return nil, fmt.Errorf("list hosts: %w", err)
	}
	return hosts, nil
}

// WorkFacts are what the doctor needs to know about tasks.
type WorkFacts struct {
	DeadLetters  int        // neither replayed nor discarded; counted up to a limit
	OldestTask   vocab.UUID // the oldest active one; zero: there is none
	OldestTaskAt time.Time
}

// WorkFacts looks at dead letters, counting up to limit, and at the oldest
// active task.
func (s *Store) WorkFacts(ctx context.Context, limit int) (WorkFacts, error) {
	var f WorkFacts
	var task *vocab.UUID
	var at *time.Time
	if err := s.pool.QueryRow(ctx, sqlWorkFacts, limit).Scan(&f.DeadLetters, &task, &at); err != nil {
		return WorkFacts{}, fmt.Errorf("look at dead letters and the oldest task: %w", err)
	}
	if task != nil {
		f.OldestTask, f.OldestTaskAt = *task, at.UTC()
	}
	return f, nil
}

// MessagesSetAside counts the messages among the open dead letters, up to limit.
func (s *Store) MessagesSetAside(ctx context.Context, limit int) (int, error) {
	var n int
	if err := s.pool.QueryRow(ctx, sqlMessagesSetAside, limit).Scan(&n); err != nil {
		return 0, fmt.Errorf("count the messages among the dead letters: %w", err)
	}
	return n, nil
}

// Limbo is a step that nothing will wake.
type Limbo struct {
	StepKey
	State  vocab.StepState
	Reason string
}

// Limbo returns up to limit steps that nothing will wake. If there are any, the
// engine has a defect.
func (s *Store) Limbo(ctx context.Context, limit int) ([]Limbo, error) {
	rows, err := s.pool.Query(ctx, sqlLimbo, limit)
	if err != nil {
		return nil, fmt.Errorf("look for steps in limbo: %w", err)
	}
	found, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (Limbo, error) {
		var l Limbo
		err := r.Scan(&l.Task, &l.Number, &l.State, &l.Reason)
		return l, err
	})
	if err != nil {
		return nil, fmt.Errorf("look for steps in limbo: %w", err)
	}
	return found, nil
}

// QueueDepth is the approximate number of messages in a queue, by the server's
// statistics, which lag by a second or so.
type QueueDepth struct {
	Queue      string
	Live, Dead int64 // rows; dead ones wait for vacuum
}

// QueueDepths returns the depths of all queues, in order of their names.
func (s *Store) QueueDepths(ctx context.Context) ([]QueueDepth, error) {
	rows, err := s.pool.Query(ctx, sqlQueueDepths)
	if err != nil {
		return nil, fmt.Errorf("read queue depths: %w", err)
	}
	depths, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (QueueDepth, error) {
		var d QueueDepth
		err := r.Scan(&d.Queue, &d.Live, &d.Dead)
		return d, err
	})
	if err != nil {
		return nil, fmt.Errorf("read queue depths: %w", err)
	}
	return depths, nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
