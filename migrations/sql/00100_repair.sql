-- Repair: what an operator does with steps that have failed for good, and with
-- the tasks that failed with them.
--
-- Each function first takes all the locks of its task, in the order of
-- 00040_settle.sql (rows that can move, rows that wait, the task's row). So it
-- excludes settling, cancelling and finalizing, and sees everything that they did
-- before. Its promises are kept as follows.
--
-- A step runs again as a new generation: its attempts and claims start at zero,
-- its lease is void (an outcome under it is stale), its history and its dead
-- letter stay. lease_no continues: it never names two claims.
--
-- open_sinks and remaining_parents count steps that are not satisfied. A failed
-- step is not satisfied before or after its retry, so a retry changes neither.
-- Resolving a step satisfies it, once, so it counts down its children and its
-- sink as its success would have. Only a step whose own parents are satisfied
-- may be resolved: otherwise a sink could be satisfied while something above it
-- runs, and its task would be complete too early.
--
-- The mark of doom stays if and only if another step of the task remains failed:
-- then whoever settles the last step that can move has to look. Clearing it is
-- safe under the locks: a later failure waits for them and sets the marks again.
--
-- A failed task goes error → pending → in_progress with its first repair, and
-- ends again as any task does: with the step that takes away the last of its work,
-- or right here if the repair itself did.

-- +goose Up

-- What the history records of an operator's action. Reason and name may be null.
-- +goose StatementBegin
create function tasker_operator_note(p_what text, p_reason text, p_by text)
returns jsonb language sql immutable parallel safe as $$
  select jsonb_strip_nulls(jsonb_build_object('reason', p_what, 'note', nullif(p_reason, ''), 'by', nullif(p_by, '')))
$$;
-- +goose StatementEnd

-- Closes the open dead letters of a task's steps, of all or of those given, as
-- replayed, resolved or cancelled.
-- +goose StatementBegin
create function tasker_close_letters(p_task uuid, p_steps integer[], p_as text, p_reason text, p_by text)
returns void language sql as $$
  update tasker_dead_letters d
     set closed_at = clock_timestamp(), closed_as = p_as, closed_by = nullif(p_by, ''), closed_reason = nullif(p_reason, '')
   where d.kind = 'step' and d.task_uuid = p_task and d.closed_at is null
     and (p_steps is null or d.step_no = any(p_steps))
$$;
-- +goose StatementEnd

-- Reopens a failed task. The caller holds its locks, and gives it something that
-- moves or concludes it.
-- +goose StatementBegin
create function tasker_reopen_task(p_task uuid, p_host integer, p_note jsonb)
returns void language plpgsql as $$
declare
  v_now  timestamptz := clock_timestamp();
  v_sort integer;
begin
  update tasker_tasks t
     set state = 'pending', completed_at = null, error = null, generation = t.generation + 1, sort_key = t.sort_key + 1
   where t.task_uuid = p_task and t.state = 'error'
  returning t.sort_key into v_sort;
  if not found then
    return;
  end if;
  perform tasker_note_reopened(p_task);
  update tasker_tasks t set state = 'in_progress', sort_key = t.sort_key + 1 where t.task_uuid = p_task;
  insert into tasker_task_transitions (task_uuid, sort_key, from_state, to_state, created_at, host_id, metadata)
  values (p_task, v_sort, 'error', 'pending', v_now, p_host, p_note),
         (p_task, v_sort + 1, 'pending', 'in_progress', v_now, p_host, null);
end
$$;
-- +goose StatementEnd

-- Whether a step of the task, other than those given, has failed for good. The
-- caller holds the task's locks.
-- +goose StatementBegin
create function tasker_fails_without(p_task uuid, p_steps integer[])
returns boolean language sql stable as $$
  select exists (select from tasker_workflow_steps s
                  where s.task_uuid = p_task and s.state = 'error' and not s.step_no = any(p_steps))
$$;
-- +goose StatementEnd

-- Runs failed steps again: one of them, or all (p_step null). Returns the task's
-- resulting state, the state of the step (null for all), and the numbers of the
-- steps that run again: none if the task is settled or no such step has failed. No
-- row: no such task or step.
-- +goose StatementBegin
create function tasker_retry_steps(p_task uuid, p_step integer, p_reason text, p_by text, p_host integer default null)
returns table (o_task_state tasker_task_state, o_step_state tasker_step_state, o_steps integer[])
language plpgsql as $$
#variable_conflict use_column
declare
  v_note   jsonb := tasker_operator_note('retried', p_reason, p_by);
  v_now    timestamptz;
  v_failed boolean;
begin
  o_task_state := tasker_lock_task(p_task);
  if o_task_state is null then
    return;
  end if;
  select s.state into o_step_state from tasker_workflow_steps s where s.task_uuid = p_task and s.step_no = p_step;
  if not found and p_step is not null then
    return;
  end if;
  o_steps := '{}';
  if o_task_state in ('in_progress', 'error') then
    o_steps := array(select s.step_no from tasker_workflow_steps s
                      where s.task_uuid = p_task and s.state = 'error' and (p_step is null or s.step_no = p_step)
                      order by s.step_no);
  end if;
  if o_steps = '{}' then
    return next; return;
  end if;
  v_now := clock_timestamp();
  v_failed := tasker_fails_without(p_task, o_steps);
  perform tasker_reopen_task(p_task, p_host, v_note);
  update tasker_workflow_steps s
     set state = 'pending', generation = s.generation + 1, attempts = 0, claims = 0, sort_key = s.sort_key + 1,
         lease_id = null, lease_host = null, lease_until = null, plugin_generation = null, due_at = null, error = null, updated_at = v_now
   where s.task_uuid = p_task and s.step_no = any(o_steps);
  insert into tasker_workflow_step_transitions (task_uuid, step_no, sort_key, from_state, to_state, created_at, host_id, metadata)
  select p_task, s.step_no, s.sort_key, 'error', 'pending', v_now, p_host, v_note || jsonb_build_object('generation', s.generation)
    from tasker_workflow_steps s where s.task_uuid = p_task and s.step_no = any(o_steps);
  update tasker_workflow_steps s set state = 'enqueued', sort_key = s.sort_key + 1
   where s.task_uuid = p_task and s.step_no = any(o_steps);
  insert into tasker_workflow_step_transitions (task_uuid, step_no, sort_key, from_state, to_state, created_at, host_id)
  select p_task, s.step_no, s.sort_key, 'pending', 'enqueued', v_now, p_host
    from tasker_workflow_steps s where s.task_uuid = p_task and s.step_no = any(o_steps);
  perform tasker_mark_doom(p_task, v_failed);
  perform tasker_close_letters(p_task, o_steps, 'replayed', p_reason, p_by);
  perform tasker_enqueue(array_fill(p_task, array[cardinality(o_steps)]), o_steps);
  o_task_state := 'in_progress';
  o_step_state := case when p_step is not null then 'enqueued'::tasker_step_state end;
  return next;
end
$$;
-- +goose StatementEnd

-- Puts the mark of doom on every step of a task that can move, or removes it from
-- all. The caller holds the task's locks.
-- +goose StatementBegin
create function tasker_mark_doom(p_task uuid, p_failing boolean)
returns void language sql as $$
  update tasker_workflow_steps s set doomed = p_failing
   where s.task_uuid = p_task and s.doomed <> p_failing
     and (not p_failing or s.state in ('enqueued', 'in_progress') or s.state = 'pending' and s.remaining_parents = 0)
$$;
-- +goose StatementEnd

-- Declares a step done, with a result that its children see, or skips it: then its
-- result is null, and the plan must allow it. Returns the outcome:
--   resolved       the step is resolved_manually, and its task goes on
--   running        somebody holds its lease: the outcome of that run decides
--   waiting        it waits for its parents
--   settled        it is complete, cancelled or resolved already
--   ended          its task is complete, cancelled or resolved
--   not_skippable  its template does not allow skipping it
-- with the resulting states of task and step. No row: no such step.
-- +goose StatementBegin
create function tasker_resolve_step(
  p_task uuid, p_step integer, p_result text, p_skip boolean, p_reason text, p_by text, p_host integer default null)
returns table (o_verdict text, o_task_state tasker_task_state, o_step_state tasker_step_state)
language plpgsql as $$
#variable_conflict use_column
declare
  v_note   jsonb := tasker_operator_note(case when p_skip then 'skipped' else 'resolved' end, p_reason, p_by);
  v_now    timestamptz;
  v_step   record;
  v_failed boolean;
  v_ready  integer[];
begin
  o_task_state := tasker_lock_task(p_task);
  select s.state, s.sort_key, s.remaining_parents, n.children, n.skippable into v_step
    from tasker_workflow_steps s
    join tasker_named_steps n on n.plan_id = s.plan_id and n.step_no = s.step_no
   where s.task_uuid = p_task and s.step_no = p_step;
  if not found then
    return;
  end if;
  o_step_state := v_step.state;
  o_verdict := case
    when o_task_state not in ('in_progress', 'error') then 'ended'
    when v_step.state = 'in_progress' then 'running'
    when v_step.state in ('complete', 'cancelled', 'resolved_manually') then 'settled'
    when v_step.remaining_parents > 0 then 'waiting'
    when p_skip and not v_step.skippable then 'not_skippable'
    else 'resolved' end;
  if o_verdict <> 'resolved' then
    return next; return;
  end if;
  v_now := clock_timestamp();
  v_failed := tasker_fails_without(p_task, array[p_step]);
  perform tasker_reopen_task(p_task, p_host, v_note);
  update tasker_workflow_steps s
     set state = 'resolved_manually', result = case when p_skip then 'null' else p_result::jsonb end, metadata = v_note,
         error = null, due_at = null, lease_until = null, sort_key = s.sort_key + 1, updated_at = v_now
   where s.task_uuid = p_task and s.step_no = p_step;
  insert into tasker_workflow_step_transitions (task_uuid, step_no, sort_key, from_state, to_state, created_at, host_id, metadata)
  values (p_task, p_step, v_step.sort_key + 1, v_step.state, 'resolved_manually', v_now, p_host, v_note);
  update tasker_workflow_steps s
     set remaining_parents = s.remaining_parents - 1,
         state = case when s.remaining_parents = 1 and s.state = 'pending' then 'enqueued' else s.state end,
         sort_key = s.sort_key + (s.remaining_parents = 1 and s.state = 'pending')::integer, updated_at = v_now
   where s.task_uuid = p_task and s.step_no = any(v_step.children);
  v_ready := array(select s.step_no from tasker_workflow_steps s
                    where s.task_uuid = p_task and s.step_no = any(v_step.children) and s.state = 'enqueued' and s.remaining_parents = 0
                    order by s.step_no);
  insert into tasker_workflow_step_transitions (task_uuid, step_no, sort_key, from_state, to_state, created_at, host_id)
  select p_task, s.step_no, s.sort_key, 'pending', 'enqueued', v_now, p_host
    from tasker_workflow_steps s where s.task_uuid = p_task and s.step_no = any(v_ready);
  if v_step.children = '{}' then
    update tasker_tasks t set open_sinks = t.open_sinks - 1 where t.task_uuid = p_task;
  end if;
  perform tasker_mark_doom(p_task, v_failed);
  perform tasker_close_letters(p_task, array[p_step], 'resolved', p_reason, p_by);
  if v_ready <> '{}' then
    perform tasker_enqueue(array_fill(p_task, array[cardinality(v_ready)]), v_ready);
  end if;
  o_task_state := tasker_conclude_task(p_task, p_host);
  o_step_state := 'resolved_manually';
  return next;
end
$$;
-- +goose StatementEnd

-- Declares a task done whatever became of its steps: those that are not settled
-- are cancelled, as tasker_cancel_task does. Returns the task's state and whether
-- this call resolved it; no row: no such task.
-- +goose StatementBegin
create function tasker_resolve_task(p_task uuid, p_reason text, p_by text, p_host integer default null)
returns table (o_state tasker_task_state, o_resolved boolean)
language sql as $$
  select e.o_state, e.o_ended from tasker_end_task(p_task, 'resolved_manually', p_reason, p_by, p_host) e
$$;
-- +goose StatementEnd

-- +goose Down
drop function tasker_resolve_task(uuid, text, text, integer);
drop function tasker_resolve_step(uuid, integer, text, boolean, text, text, integer);
drop function tasker_mark_doom(uuid, boolean);
drop function tasker_retry_steps(uuid, integer, text, text, integer);
drop function tasker_fails_without(uuid, integer[]);
drop function tasker_reopen_task(uuid, integer, jsonb);
drop function tasker_close_letters(uuid, integer[], text, text, text);
drop function tasker_operator_note(text, text, text);
