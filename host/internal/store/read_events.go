package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

const (
	sqlEventMark = `
select pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint, clock_timestamp() from pg_current_snapshot() s`

	// Only members of pg_read_all_stats see other roles' transactions.
	sqlOldestWriter = `
select coalesce(min(a.xact_start), clock_timestamp()) from pg_stat_activity a where a.backend_xid is not null`

	// A row's xmin has 32 bits: its transaction is the latest one below $5 with these
	// bits. Rows of transactions that began later seem far too old and are left out.
	sqlReadEvents = `
with recent as (
  select $5::bigint - 1 - (($5::bigint - 1 - h.xmin::text::bigint) & 4294967295) as xid, 'task' as kind, h.created_at as at,
         h.task_uuid, null::integer as step_no, h.sort_key::bigint as no, h.from_state::text, h.to_state::text, h.host_id,
         null::bigint as generation, h.metadata, '' as host, '' as subject, '' as actor, '' as action, '' as reason, '' as request_id
    from tasker_task_transitions h where h.created_at >= $3::timestamptz
  union all
  select $5::bigint - 1 - (($5::bigint - 1 - h.xmin::text::bigint) & 4294967295), 'step', h.created_at,
         h.task_uuid, h.step_no, h.sort_key, h.from_state::text, h.to_state::text, h.host_id,
         h.plugin_generation, h.metadata, '', '', '', '', '', ''
    from tasker_workflow_step_transitions h where h.created_at >= $3::timestamptz
  union all
  select $5::bigint - 1 - (($5::bigint - 1 - e.xmin::text::bigint) & 4294967295), e.kind, e.happened_at,
         null, null, e.event_id, e.from_state, e.to_state, null, null, null, e.host, e.subject, '', '', e.reason, ''
    from tasker_system_events e where e.recorded_at >= $3::timestamptz
  union all
  select $5::bigint - 1 - (($5::bigint - 1 - e.xmin::text::bigint) & 4294967295), 'plugin', e.at,
         null, null, e.event_id, e.from_phase, e.to_phase, null, nullif(e.generation, 0), null, e.host, e.kind || '/' || e.name, e.actor, '', e.reason, ''
    from tasker_plugin_events e where e.recorded_at >= $3::timestamptz
  union all
  select $5::bigint - 1 - (($5::bigint - 1 - a.xmin::text::bigint) & 4294967295), 'audit', a.recorded_at,
         null, null, a.audit_id, '', a.outcome, null, null, null, '', a.subject, a.actor, a.action, '', a.request_id
    from tasker_audit a where a.recorded_at >= $3::timestamptz
), span as (
  select r.xid, r.kind, r.at, r.task_uuid, r.step_no, r.no, r.from_state, r.to_state, r.host_id, r.generation, r.metadata,
         r.host, r.subject, r.actor, r.action, r.reason, r.request_id
    from recent r where r.xid >= $1::bigint and r.xid < $2::bigint
   order by r.xid fetch first ($4::integer) rows with ties
)
select e.xid, e.kind, e.at, coalesce(ns.name, ''), e.task_uuid, e.step_no, coalesce(n.name, ''), e.no,
       e.from_state, e.to_state, coalesce(o.name, e.host), coalesce(e.generation, 0), e.subject, e.actor, e.action,
       coalesce(e.metadata ->> 'reason', e.metadata #>> '{error,type}', e.reason),
       coalesce(left(e.metadata #>> '{error,message}', 500), ''), e.request_id
  from span e
  left join tasker_tasks t on t.task_uuid = e.task_uuid
  left join tasker_task_namespaces ns on ns.namespace_id = t.namespace_id
  left join tasker_named_steps n on n.plan_id = t.plan_id and n.step_no = e.step_no
  left join tasker_hosts o on o.host_id = e.host_id
 order by e.at, e.step_no is null and e.to_state in ('complete', 'error', 'cancelled', 'resolved_manually'),
          e.task_uuid, e.step_no nulls first, e.kind collate "C", e.no`
)

// EventMark says which transactions have ended at a point in time.
type EventMark struct {
	Horizon uint64    // all transactions below it have ended
	Next    uint64    // no transaction from here on has begun
	At      time.Time // the point in time, by the database's clock
}

// EventSpan selects what the transactions from From up to, but not including, To wrote.
type EventSpan struct {
	From, To uint64
	// Since is earlier than anything they wrote; it narrows the search.
	Since time.Time
	// Next is above every transaction that the reader may see.
	Next uint64
	// Limit is how many events are enough; events of one transaction stay together.
	Limit int
}

// EventMark returns the mark of this moment. It depends on the transactions of the
// whole server: a long-running one, in any database, holds it up.
func (s *Store) EventMark(ctx context.Context) (m EventMark, err error) {
	var horizon, next int64
	if err := s.pool.QueryRow(ctx, sqlEventMark).Scan(&horizon, &next, &m.At); err != nil {
		return m, fmt.Errorf("read the mark of events: %w", err)
	}
	m.Horizon, m.Next = uint64(horizon), uint64(next)
	return m, nil
}

// OldestWriter returns when the oldest open transaction that has written began, as far
// as the host's role may see it; if there is none, the current time.
func (s *Store) OldestWriter(ctx context.Context) (at time.Time, err error) {
	if err := s.pool.QueryRow(ctx, sqlOldestWriter).Scan(&at); err != nil {
		return at, fmt.Errorf("look for open transactions: %w", err)
	}
	return at, nil
}

// ReadEvents returns the events of a span. upTo is where the events returned end:
// span.To, or before it if there are more than the limit. The same span yields the
// same events in the same order on every host: by time, and within a task in the
// order in which they happened.
func (s *Store) ReadEvents(ctx context.Context, span EventSpan) (events []readmodel.Event, upTo uint64, err error) {
	rows, err := s.pool.Query(ctx, sqlReadEvents, int64(span.From), int64(span.To), span.Since, span.Limit, int64(span.Next))
	if err != nil {
		return nil, 0, fmt.Errorf("read events: %w", err)
	}
	var last int64
	events, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (e readmodel.Event, err error) {
		var xid int64
		var task *vocab.UUID
		var step *int
		err = r.Scan(&xid, &e.Kind, &e.At, &e.Namespace, &task, &step, &e.Step, &e.SortKey, &e.From, &e.To, &e.Host,
			&e.PluginGeneration, &e.Subject, &e.Actor, &e.Action, &e.Reason, &e.Message, &e.RequestID)
		if err != nil {
			return e, err
		}
		last, e.At = max(last, xid), e.At.UTC()
		if task != nil {
			e.TaskUUID = task.String()
		}
		if step != nil {
			e.StepUUID = vocab.StepID(*task, *step).String()
		}
		return e, nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("read events: %w", err)
	}
	if len(events) < span.Limit {
		return events, span.To, nil
	}
	return events, uint64(last) + 1, nil
}
