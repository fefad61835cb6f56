package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// progressOf joins, to the task t whose UUID is given, the counts of its steps by
// state, from their primary key, and the attempts of the step that failed it. That
// step is found by its name in the plan, so that an error that somebody wrote by
// hand cannot break anything. If the UUID is a parameter it should be given as one:
// then the plan covers one partition instead of all.
func progressOf(task string) string {
	return `
  left join lateral (
    select s.attempts
      from tasker_named_steps n
      join tasker_workflow_steps s on s.task_uuid = ` + task + ` and s.step_no = n.step_no
     where n.plan_id = t.plan_id and n.name = t.error ->> 'step'
  ) failed on t.error is not null
 cross join lateral (
    select array_agg(g.state) as states, array_agg(g.steps) as counts
      from (select s.state::text as state, count(*)::integer as steps
              from tasker_workflow_steps s where s.task_uuid = ` + task + ` group by s.state) g
  ) counted`
}

const (
	taskSummaryColumns = `
select t.task_uuid, ns.name, nt.name, nt.version, t.state::text, t.priority,
       t.created_at, t.started_at, t.completed_at, encode(t.identity_hash, 'hex'),
       t.attributes, t.error, failed.attempts, counted.states, counted.counts`

	taskSummaryJoins = `
  join tasker_task_plans p on p.plan_id = t.plan_id
  join tasker_named_tasks nt on nt.named_task_uuid = p.named_task_uuid
  join tasker_task_namespaces ns on ns.namespace_id = t.namespace_id`

	// Why a task was cancelled, from its history. Histories of other tasks are not read.
	cancelReason = `
    select h.metadata ->> 'reason' as reason
      from tasker_task_transitions h
     where t.state = 'cancelled' and h.task_uuid = $1::uuid and h.to_state = 'cancelled'
     order by h.sort_key desc limit 1`

	// A page of tasks is read backwards along the primary keys of the partitions,
	// newest first. The filters by name are resolved before a task is looked at: a
	// name that does not exist costs no scan.
	listTasksHead = `
with page as materialized (
  select t.task_uuid, t.namespace_id, t.plan_id, t.state, t.priority, t.created_at, t.started_at, t.completed_at,
         t.identity_hash, t.attributes, t.error
    from tasker_tasks t
   where t.task_uuid < $1::uuid
     and ($2::text = '' or exists (select from tasker_task_namespaces x where x.name = $2::text))
     and ($3::text = '' or exists (select from tasker_named_tasks x where x.name = $3::text))
     and ($2::text = '' or t.namespace_id = (select x.namespace_id from tasker_task_namespaces x where x.name = $2::text))
     and ($3::text = '' or t.plan_id = any(array(
           select q.plan_id from tasker_task_plans q
             join tasker_named_tasks x on x.named_task_uuid = q.named_task_uuid
            where x.name = $3::text)))`
)

var (
	sqlReadTask = taskSummaryColumns + `, t.context, cancelled.reason
  from tasker_tasks t` + taskSummaryJoins + progressOf("$1::uuid") + `
  left join lateral (` + cancelReason + `) cancelled on true
 where t.task_uuid = $1::uuid`

	sqlSnapshot = `
select t.state::text, t.error, failed.attempts, counted.states, counted.counts, cancelled.reason
  from tasker_tasks t` + progressOf("$1::uuid") + `
  left join lateral (` + cancelReason + `) cancelled on true
 where t.task_uuid = $1::uuid`

	listTasksTail = `
   order by t.task_uuid desc
   limit $5::integer
)` + taskSummaryColumns + `
  from page t` + taskSummaryJoins + progressOf("t.task_uuid") + `
 order by t.task_uuid desc`

	sqlListTasks = listTasksHead + `
     and (cardinality($4::text[]) = 0 or t.state = any($4::text[]::tasker_task_state[]))` + listTasksTail

	// The literal condition is the one of the index tasker_tasks_active.
	sqlListActiveTasks = listTasksHead + `
     and t.state in ('pending', 'in_progress') and t.state = any($4::text[]::tasker_task_state[])` + listTasksTail

	// The filters are applied where the tags are.
	sqlListTaggedTasks = `
with page as materialized (
  select t.task_uuid, t.namespace_id, t.plan_id, t.state, t.priority, t.created_at, t.started_at, t.completed_at,
         t.identity_hash, t.attributes, t.error
    from tasker_tagged_tasks(
           $6::text[], $1::uuid,
           (select x.namespace_id from tasker_task_namespaces x where x.name = $2::text),
           case when $3::text <> '' then array(
             select q.plan_id from tasker_task_plans q
               join tasker_named_tasks x on x.named_task_uuid = q.named_task_uuid
              where x.name = $3::text) end,
           nullif($4::text[], '{}')::tasker_task_state[], $5::integer) f(task_uuid)
    join tasker_tasks t on t.task_uuid = f.task_uuid
   where ($2::text = '' or exists (select from tasker_task_namespaces x where x.name = $2::text))` + listTasksTail
)

// TaskFilter selects tasks. Zero values select everything.
type TaskFilter struct {
	States          []vocab.TaskState
	Namespace, Name string
	Tags            []string   // a task must have all of them
	Before          vocab.UUID // only tasks with a smaller UUID; zero: from the newest
	Limit           int        // at least 1
}

// ReadTask returns a task with its context. The error is [ErrNotFound] if there
// is none.
func (s *Store) ReadTask(ctx context.Context, task vocab.UUID) (readmodel.Task, error) {
	var row taskRow
	var input json.RawMessage
	var reason *string
	err := s.pool.QueryRow(ctx, sqlReadTask, task).Scan(append(row.targets(), &input, &reason)...)
	if err != nil {
		return readmodel.Task{}, fmt.Errorf("read task %s: %w", task, orNotFound(err))
	}
	t := row.task()
	t.Context = input
	t.StateReason = stateReason(t.State, t.Error, reason)
	return t, nil
}

// ListTasks returns up to f.Limit tasks, newest first, without contexts. Lists of
// everything and of active tasks look at no more tasks than they return. Other
// filters look at all tasks newer than the last match, except that a filter by tags
// looks only at tasks that match it, and at a few thousand of the newest.
func (s *Store) ListTasks(ctx context.Context, f TaskFilter) ([]readmodel.Task, error) {
	before := f.Before
	if before == (vocab.UUID{}) {
		for i := range before {
			before[i] = 0xff
		}
	}
	states := make([]string, len(f.States))
	active := len(f.States) > 0
	for i, state := range f.States {
		states[i] = string(state)
		active = active && state.Active()
	}
	sql, args := sqlListTasks, []any{before, f.Namespace, f.Name, states, f.Limit}
	switch {
	case len(f.Tags) > 0:
		sql, args = sqlListTaggedTasks, append(args, f.Tags)
	case active:
		sql = sqlListActiveTasks
	}
	rows, err := s.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("list tasks: %w", err)
	}
	tasks, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (readmodel.Task, error) {
		var row taskRow
		if err := r.Scan(row.targets()...); err != nil {
			return readmodel.Task{}, err
		}
		t := row.task()
		t.StateReason = stateReason(t.State, t.Error, nil)
		return t, nil
	})
	if err != nil {
		return nil, fmt.Errorf("list tasks: %w", err)
	}
	return tasks, nil
}

// Snapshot returns what a watcher of a task sees: its state and the counts of its
// steps. The error is [ErrNotFound] if there is no such task.
func (s *Store) Snapshot(ctx context.Context, task vocab.UUID) (readmodel.Snapshot, error) {
	snap := readmodel.Snapshot{UUID: task.String()}
	var row taskRow
	var reason *string
	err := s.pool.QueryRow(ctx, sqlSnapshot, task).
		Scan(&snap.State, &row.failure, &row.attempts, &row.states, &row.counts, &reason)
	if err != nil {
		return readmodel.Snapshot{}, fmt.Errorf("look at task %s: %w", task, orNotFound(err))
	}
	snap.Progress, snap.Error = row.progress(), taskError(row.failure, row.attempts)
	snap.StateReason = stateReason(snap.State, snap.Error, reason)
	return snap, nil
}

func orNotFound(err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrNotFound
	}
	return err
}

// taskRow is a row of taskSummaryColumns.
type taskRow struct {
	uuid       vocab.UUID
	shown      readmodel.Task
	attributes json.RawMessage
	failure    json.RawMessage
	attempts   *int
	states     []string
	counts     []int
}

func (r *taskRow) targets() []any {
	t := &r.shown
	return []any{
		&r.uuid, &t.Namespace, &t.Name, &t.Version, &t.State, &t.Priority,
		&t.CreatedAt, &t.StartedAt, &t.CompletedAt, &t.IdentityHash,
		&r.attributes, &r.failure, &r.attempts, &r.states, &r.counts,
	}
}

func (r *taskRow) task() readmodel.Task {
	t := r.shown
	t.UUID = r.uuid.String()
	t.CreatedAt, t.StartedAt, t.CompletedAt = t.CreatedAt.UTC(), utc(t.StartedAt), utc(t.CompletedAt)
	t.Progress = r.progress()
	t.Error = taskError(r.failure, r.attempts)
	describe(&t, r.attributes)
	return t
}

func (r *taskRow) progress() readmodel.Progress {
	steps := make(map[vocab.StepState]int, len(r.states))
	for i, state := range r.states {
		steps[vocab.StepState(state)] = r.counts[i]
	}
	return readmodel.NewProgress(steps)
}

// describe fills in what the submitter said about the task. Others write attributes too,
// so a value of an unexpected type is left out.
func describe(t *readmodel.Task, attributes json.RawMessage) {
	var all map[string]json.RawMessage
	if json.Unmarshal(attributes, &all) != nil {
		return
	}
	for name, target := range map[string]any{
		"tags": &t.Tags, "initiator": &t.Initiator, "source_system": &t.SourceSystem, "reason": &t.Reason,
		"submitted_by": &t.SubmittedBy,
	} {
		if raw, ok := all[name]; ok {
			_ = json.Unmarshal(raw, target)
		}
	}
}

// storedError is an error as the engine writes it; one from an outside worker may
// have other members, and lack these.
type storedError struct {
	Type    vocab.ErrorType `json:"type"`
	Code    string          `json:"code"`
	Message string          `json:"message"`
}

func stepError(raw json.RawMessage) *readmodel.StepError {
	if len(raw) == 0 {
		return nil
	}
	var e storedError
	if json.Unmarshal(raw, &e) != nil || e == (storedError{}) {
		return &readmodel.StepError{Type: vocab.UnexpectedError, Message: string(raw)}
	}
	return &readmodel.StepError{Type: e.Type, Code: e.Code, Message: e.Message}
}

func taskError(raw json.RawMessage, attempts *int) *readmodel.TaskError {
	if len(raw) == 0 {
		return nil
	}
	var e struct {
		Step     string          `json:"step"`
		StepUUID string          `json:"step_uuid"`
		Error    json.RawMessage `json:"error"`
	}
	if json.Unmarshal(raw, &e) != nil || len(e.Error) == 0 {
		e.Error = raw
	}
	t := &readmodel.TaskError{Step: e.Step, StepUUID: e.StepUUID, StepError: *stepError(e.Error)}
	if attempts != nil {
		t.Attempts = *attempts
	}
	return t
}

// stateReason says in one sentence why nothing moves in a task.
func stateReason(state vocab.TaskState, failure *readmodel.TaskError, cancelled *string) string {
	switch {
	case state == vocab.TaskComplete:
		return "all steps are complete"
	case state == vocab.TaskCancelled && cancelled != nil && *cancelled != "":
		return "cancelled: " + *cancelled
	case state == vocab.TaskCancelled:
		return "cancelled"
	case state == vocab.TaskResolvedManually:
		return "resolved by an operator"
	case state == vocab.TaskError && failure != nil && failure.Step != "":
		return fmt.Sprintf("step %s failed: %s", failure.Step, failure.Message)
	case state == vocab.TaskError:
		return "failed"
	default:
		return ""
	}
}
