package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

const (
	sqlTaskPlan = `select t.plan_id from tasker_tasks t where t.task_uuid = $1::uuid`

	// Names, handlers and parents come from the plan, which the store has in its
	// cache. The history of the page's steps is read once and not step by step,
	// because its index finds only ranges of pages.
	sqlReadSteps = `
with page as materialized (
  select s.step_no, s.state, s.attempts, s.claims, s.generation, s.due_at, s.updated_at, s.lease_host, s.lease_until,
         s.result, s.metadata, s.error, s.plugin_generation
    from tasker_workflow_steps s
   where s.task_uuid = $1::uuid and s.step_no > $2::integer
   order by s.step_no
   limit $3::integer
), times as (
  select h.step_no,
         max(h.created_at) filter (where h.to_state = 'in_progress') as started_at,
         max(h.created_at) filter (where h.to_state in ('complete', 'error', 'cancelled', 'resolved_manually')) as settled_at
    from tasker_workflow_step_transitions h
   where h.task_uuid = $1::uuid and h.step_no > $2::integer
   group by h.step_no
)
select s.step_no, s.state::text, s.attempts, s.claims, s.generation, s.due_at, h.started_at,
       case when s.state in ('complete', 'error', 'cancelled', 'resolved_manually') then coalesce(h.settled_at, s.updated_at) end,
       s.lease_host, o.name, coalesce(s.lease_until, o.alive_until),
       s.result, s.metadata, s.error, coalesce(s.plugin_generation, 0)
  from page s
  left join times h on h.step_no = s.step_no
  left join tasker_hosts o on o.host_id = s.lease_host and s.state = 'in_progress'
 order by s.step_no`

	// The history of a task and its steps in one sequence. The first entries, which
	// are not stored, are derived from the task and its plan.
	//
	// The sort key is the time since the task was created, in microseconds, times
	// 65536, plus the entry's position among those of the same microsecond. Entries
	// of one microsecond come from one transaction, so a key never changes. If there
	// are more than 65536, as with the first entries of a very large task, they run on
	// into the microseconds that creating them took. After four years the time stands
	// still and only the positions count on.
	sqlReadHistory = `
with task as materialized (
  select t.task_uuid, t.plan_id, t.created_at from tasker_tasks t where t.task_uuid = $1::uuid
), entry as (
  select -1 as step_no, 1 as sort_key, null::text as from_state, 'pending' as to_state, t.created_at, null::jsonb as metadata,
         null::bigint as plugin_generation
    from task t
  union all
  select n.step_no, 1, null, 'pending', t.created_at, null, null
    from task t join tasker_named_steps n on n.plan_id = t.plan_id
  union all
  select -1, h.sort_key, h.from_state::text, h.to_state::text, h.created_at, h.metadata, null
    from tasker_task_transitions h where h.task_uuid = $1::uuid
  union all
  select h.step_no, h.sort_key, h.from_state::text, h.to_state::text, h.created_at, h.metadata, h.plugin_generation
    from tasker_workflow_step_transitions h where h.task_uuid = $1::uuid
), timed as (
  select e.step_no, e.sort_key, e.from_state, e.to_state, e.created_at, e.metadata, e.plugin_generation,
         least(greatest((extract(epoch from e.created_at - t.created_at) * 1000000)::bigint, 0), 140737488289791) as micros
    from entry e cross join task t
), keyed as (
  select x.step_no, x.from_state, x.to_state, x.created_at, x.metadata, x.plugin_generation,
         x.micros * 65536 + row_number() over (
           partition by x.micros
           order by x.created_at, x.step_no = -1 and x.to_state in ('complete', 'error', 'cancelled', 'resolved_manually'),
                    x.step_no, x.sort_key) as history_key
    from timed x
   where x.micros >= $2::bigint / 65536 - 32
)
select k.history_key, k.step_no, coalesce(k.from_state, ''), k.to_state, k.created_at, k.metadata, coalesce(k.plugin_generation, 0)
  from keyed k
 where k.history_key > $2::bigint
 order by k.history_key
 limit $3::integer`
)

// ReadSteps returns up to limit steps of a task with numbers greater than
// after, in order; -1 is before the first. The error is [ErrNotFound] if there
// is no such task.
func (s *Store) ReadSteps(ctx context.Context, task vocab.UUID, after int64, limit int) ([]readmodel.Step, error) {
	plan, err := s.planOf(ctx, task)
	if err != nil {
		return nil, fmt.Errorf("read steps of task %s: %w", task, err)
	}
	if after >= vocab.MaxSteps {
		return nil, nil
	}
	rows, err := s.pool.Query(ctx, sqlReadSteps, task, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read steps of task %s: %w", task, err)
	}
	steps, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (readmodel.Step, error) {
		return scanStep(r, task, plan)
	})
	if err != nil {
		return nil, fmt.Errorf("read steps of task %s: %w", task, err)
	}
	return steps, nil
}

// ReadStep returns a step of a task. The error is [ErrNotFound] if there is none.
func (s *Store) ReadStep(ctx context.Context, k StepKey) (readmodel.Step, error) {
	steps, err := s.ReadSteps(ctx, k.Task, int64(k.Number)-1, 1)
	if err != nil {
		return readmodel.Step{}, err
	}
	if len(steps) == 0 || steps[0].Number != int(k.Number) {
		return readmodel.Step{}, fmt.Errorf("read step %s: %w", k.UUID(), ErrNotFound)
	}
	return steps[0], nil
}

func (s *Store) planOf(ctx context.Context, task vocab.UUID) (*Plan, error) {
	var id int32
	if err := s.pool.QueryRow(ctx, sqlTaskPlan, task).Scan(&id); err != nil {
		return nil, orNotFound(err)
	}
	return s.Plan(ctx, id)
}

func scanStep(r pgx.CollectableRow, task vocab.UUID, plan *Plan) (readmodel.Step, error) {
	var st readmodel.Step
	var host *int32
	var holder *string
	var until *time.Time
	var failure json.RawMessage
	err := r.Scan(&st.Number, &st.State, &st.Attempts, &st.Claims, &st.Generation, &st.DueAt, &st.StartedAt, &st.FinishedAt,
		&host, &holder, &until, &st.Result, &st.Metadata, &failure, &st.PluginGeneration)
	if err != nil {
		return readmodel.Step{}, err
	}
	planned := &plan.Steps[st.Number]
	st.UUID, st.TaskUUID = vocab.StepID(task, st.Number).String(), task.String()
	st.Name, st.Handler, st.MaxAttempts = planned.Name, planned.Handler, planned.Retry.MaxAttempts
	st.Skippable = planned.Skippable
	for _, parent := range planned.Parents {
		st.Parents = append(st.Parents, plan.Steps[parent].Name)
	}
	st.DueAt, st.StartedAt, st.FinishedAt = utc(st.DueAt), utc(st.StartedAt), utc(st.FinishedAt)
	st.Error = stepError(failure)
	if st.State == vocab.StepInProgress {
		st.Lease = leaseOf(host, holder, until)
	}
	return st, nil
}

func leaseOf(host *int32, name *string, until *time.Time) *readmodel.Lease {
	l := &readmodel.Lease{Holder: "outside worker", ExpiresAt: utc(until)}
	switch {
	case name != nil:
		l.Holder = *name
	case host != nil:
		l.Holder = fmt.Sprintf("host %d", *host)
	}
	return l
}

// ReadHistory returns up to limit transitions of a task and its steps with sort
// keys greater than after, oldest first; -1 is before the first. The error is
// [ErrNotFound] if there is no such task.
//
// While a task runs, a transaction that took longer may add an entry before one
// that was read already. Once nothing in the task moves its history is complete.
func (s *Store) ReadHistory(ctx context.Context, task vocab.UUID, after int64, limit int) ([]readmodel.Transition, error) {
	plan, err := s.planOf(ctx, task)
	if err != nil {
		return nil, fmt.Errorf("read history of task %s: %w", task, err)
	}
	rows, err := s.pool.Query(ctx, sqlReadHistory, task, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read history of task %s: %w", task, err)
	}
	entries, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (readmodel.Transition, error) {
		var e readmodel.Transition
		var step int
		if err := r.Scan(&e.SortKey, &step, &e.From, &e.To, &e.At, &e.Metadata, &e.PluginGeneration); err != nil {
			return readmodel.Transition{}, err
		}
		e.At = e.At.UTC()
		if step >= 0 {
			e.Step, e.StepUUID = plan.Steps[step].Name, vocab.StepID(task, step).String()
		}
		return e, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read history of task %s: %w", task, err)
	}
	return entries, nil
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	return new(t.UTC())
}
