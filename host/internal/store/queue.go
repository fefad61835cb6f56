package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

const (
	sqlPauseQueue = `
update tasker_task_namespaces n
   set paused_at = coalesce(n.paused_at, clock_timestamp()), paused_by = nullif($2::text, ''), paused_reason = nullif($3::text, '')
 where n.name = $1::text
returning n.paused_at, n.paused_by, n.paused_reason`

	sqlResumeQueue = `
update tasker_task_namespaces n set paused_at = null, paused_by = null, paused_reason = null
 where n.name = $1::text
returning n.paused_at, n.paused_by, n.paused_reason`

	// A namespace has no queue if no template ever had it created.
	sqlListQueues = `
select n.name, n.name || '_queue', f.o_waiting, f.o_delayed, f.o_oldest_at, n.paused_at, n.paused_by, n.paused_reason
  from tasker_task_namespaces n
  left join pgmq.meta m on m.queue_name = n.name || '_queue'
  left join lateral tasker_queue_facts(m.queue_name::text, 10000) f on m.queue_name is not null
 where $1::text = '' or n.name = $1::text
 order by n.name collate "C"`

	sqlListHosts = `
select h.host_id, h.name, h.version, h.environment, h.state, h.alive_until > clock_timestamp() and h.state not in ('dead', 'stopped'),
       h.started_at, h.heartbeat_at, h.alive_until, h.served, h.plugins
  from tasker_hosts h
 where h.alive_until > clock_timestamp() - interval '1 day'
 order by h.host_id desc
 limit 500`

	sqlHostPlugins = `update tasker_hosts set plugins = $2::jsonb where host_id = $1::integer`

	sqlQueuePlace = `select tasker_queue_place($1::text, $2::text::uuid, $3::integer)`

	sqlAwaitGrants = `select tasker_await_grants()`
)

// PauseQueue pauses the queue of a namespace, or resumes it. Once it has returned, no
// host starts a step of a paused namespace; running steps finish. The error is
// [ErrNotFound] if there is no such namespace.
func (s *Store) PauseQueue(ctx context.Context, namespace string, pause bool, o Operator) (*readmodel.Pause, error) {
	var err error
	var at *time.Time
	var by, reason *string
	if pause {
		err = s.pool.QueryRow(ctx, sqlPauseQueue, namespace, o.By, o.Reason).Scan(&at, &by, &reason)
	} else {
		err = s.pool.QueryRow(ctx, sqlResumeQueue, namespace).Scan(&at, &by, &reason)
	}
	if err == nil && pause {
		_, err = s.pool.Exec(ctx, sqlAwaitGrants)
	}
	if err != nil {
		return nil, fmt.Errorf("pause the queue of %s (%v): %w", namespace, pause, orNotFound(err))
	}
	return pauseOf(at, by, reason), nil
}

// Queues returns the queues of all namespaces, or of one.
func (s *Store) Queues(ctx context.Context, namespace string) ([]readmodel.Queue, error) {
	rows, err := s.pool.Query(ctx, sqlListQueues, namespace)
	if err != nil {
		return nil, fmt.Errorf("list queues: %w", err)
	}
	queues, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (readmodel.Queue, error) {
		var q readmodel.Queue
		var waiting, delayed *int
		var paused *time.Time
		var by, reason *string
		err := r.Scan(&q.Namespace, &q.Queue, &waiting, &delayed, &q.OldestAt, &paused, &by, &reason)
		if waiting != nil {
			q.Waiting, q.Delayed = *waiting, *delayed
		}
		q.OldestAt, q.Paused = utc(q.OldestAt), pauseOf(paused, by, reason)
		return q, err
	})
	if err != nil {
		return nil, fmt.Errorf("list queues: %w", err)
	}
	return queues, nil
}

// QueuePlace returns how many messages of a queue come before that of a step; found is
// false if it is not among the first most messages.
func (s *Store) QueuePlace(ctx context.Context, queue, step string, most int) (ahead int, found bool, err error) {
	var place *int
	if err := s.pool.QueryRow(ctx, sqlQueuePlace, queue, step, most).Scan(&place); err != nil {
		return 0, false, fmt.Errorf("look for step %s in %s: %w", step, queue, err)
	}
	if place == nil {
		return 0, false, nil
	}
	return *place, true, nil
}

// Hosts returns the hosts that were alive within the last day, newest first, at most
// 500.
func (s *Store) Hosts(ctx context.Context) ([]readmodel.Host, error) {
	rows, err := s.pool.Query(ctx, sqlListHosts)
	if err != nil {
		return nil, fmt.Errorf("list hosts: %w", err)
	}
	hosts, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (readmodel.Host, error) {
		var h readmodel.Host
		err := r.Scan(&h.ID, &h.Name, &h.Version, &h.Environment, &h.State, &h.Alive, &h.StartedAt, &h.HeartbeatAt, &h.AliveUntil, &h.Served, &h.Plugins)
		h.StartedAt, h.HeartbeatAt, h.AliveUntil = h.StartedAt.UTC(), h.HeartbeatAt.UTC(), h.AliveUntil.UTC()
		return h, err
	})
	if err != nil {
		return nil, fmt.Errorf("list hosts: %w", err)
	}
	return hosts, nil
}

// SetHostPlugins records, for the other hosts, which plugins a host runs.
func (s *Store) SetHostPlugins(ctx context.Context, host int32, plugins []readmodel.HostPlugin) error {
	told := make([]readmodel.HostPlugin, len(plugins)) // never null
	for i, p := range plugins {
		p.Version = storable(p.Version)
		told[i] = p
	}
	if _, err := s.pool.Exec(ctx, sqlHostPlugins, host, told); err != nil {
		return fmt.Errorf("record the plugins of host %d: %w", host, err)
	}
	return nil
}

func pauseOf(at *time.Time, by, reason *string) *readmodel.Pause {
	if at == nil {
		return nil
	}
	p := &readmodel.Pause{Since: at.UTC()}
	if by != nil {
		p.By = *by
	}
	if reason != nil {
		p.Reason = *reason
	}
	return p
}
