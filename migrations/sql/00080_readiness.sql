-- Readiness and execution context: what may happen to the steps of a task, and
-- what the task as a whole is doing. The rule is that of package workflow; a
-- property test compares the two. The engine does not need these functions to
-- make progress: they serve people, finalization and workers.

-- +goose Up

-- One row per step of a task, or per step that is named.
-- +goose StatementBegin
create function get_step_readiness_status(p_task_uuid uuid, p_step_uuids uuid[] default null)
returns table (
  workflow_step_uuid uuid, task_uuid uuid, named_step_no integer, name text, current_state text,
  dependencies_satisfied boolean, retry_eligible boolean, ready_for_execution boolean,
  last_failure_at timestamptz, next_retry_at timestamptz, total_parents integer, completed_parents integer,
  attempts integer, retry_limit integer, backoff_request_seconds integer, last_attempted_at timestamptz)
language sql stable as $$
  select tasker_step_uuid(s.task_uuid, s.step_no), s.task_uuid, s.step_no, n.name, s.state::text,
         p.completed = p.total,
         e.eligible,
         s.state = 'pending' and p.completed = p.total and e.eligible and coalesce(s.due_at, '-infinity') <= clock_timestamp(),
         h.failed_at, s.due_at, p.total, p.completed,
         s.attempts::integer, n.max_attempts::integer,
         ceil(extract(epoch from s.due_at - h.failed_at))::integer, h.attempted_at
    from tasker_workflow_steps s
    join tasker_named_steps n on n.plan_id = s.plan_id and n.step_no = s.step_no
   cross join lateral (
     select cardinality(n.parents) as total,
            (select count(*)::integer from unnest(n.parents) parent(step_no)
               join tasker_workflow_steps o on o.task_uuid = s.task_uuid and o.step_no = parent.step_no
              where o.state in ('complete', 'resolved_manually')) as completed) p
   cross join lateral (
     select s.state in ('pending', 'enqueued', 'in_progress') and s.attempts < n.max_attempts
            and (n.retryable or s.attempts = 0) as eligible) e
   cross join lateral (
     select max(t.created_at) filter (where t.to_state = 'error') as failed_at,
            max(t.created_at) filter (where t.to_state = 'in_progress') as attempted_at
       from tasker_workflow_step_transitions t
      where t.task_uuid = s.task_uuid and t.step_no = s.step_no) h
   where s.task_uuid = p_task_uuid
     and (p_step_uuids is null or tasker_step_uuid(s.task_uuid, s.step_no) = any(p_step_uuids))
   order by s.step_no
$$;
-- +goose StatementEnd

-- What each task is doing: one row per task that exists.
-- +goose StatementBegin
create function get_task_execution_contexts_batch(p_task_uuids uuid[])
returns table (
  task_uuid uuid, named_task_uuid uuid, status text, total_steps integer, pending_steps integer, in_progress_steps integer,
  completed_steps integer, failed_steps integer, ready_steps integer, execution_status text, recommended_action text,
  completion_percentage numeric, health_status text, enqueued_steps integer)
language sql stable as $$
  with step as (
    select s.task_uuid, s.state,
           s.state in ('pending', 'enqueued', 'in_progress') and s.remaining_parents = 0
             and s.attempts < n.max_attempts and (n.retryable or s.attempts = 0) as may_run,
           s.state in ('pending', 'enqueued', 'in_progress') and s.attempts > 0 as retried,
           coalesce(s.due_at, '-infinity') <= clock_timestamp() as due
      from unnest(p_task_uuids) u(task_uuid)
      join tasker_workflow_steps s on s.task_uuid = u.task_uuid
      join tasker_named_steps n on n.plan_id = s.plan_id and n.step_no = s.step_no
  ), counted as (
    select c.task_uuid,
           count(*)::integer as total,
           count(*) filter (where c.state = 'pending')::integer as pending,
           count(*) filter (where c.state = 'enqueued')::integer as enqueued,
           count(*) filter (where c.state = 'in_progress')::integer as in_progress,
           count(*) filter (where c.state in ('complete', 'resolved_manually'))::integer as completed,
           count(*) filter (where c.state = 'error')::integer as failed,
           count(*) filter (where c.state = 'pending' and c.may_run and c.due)::integer as ready,
           bool_or(c.may_run) as waits,
           bool_or(c.state in ('error', 'cancelled')) as doomed,
           bool_or(c.retried) as retried
      from step c group by c.task_uuid
  ), judged as (
    select t.task_uuid, p.named_task_uuid, t.state::text as status, c.total, c.pending, c.enqueued, c.in_progress,
           c.completed, c.failed, c.ready, c.doomed, c.retried,
           case when c.ready > 0 then 'has_ready_steps'
                when c.in_progress + c.enqueued > 0 then 'processing'
                when c.total is null or c.waits then 'waiting_for_dependencies'
                when c.completed = c.total then 'all_complete'
                else 'blocked_by_failures' end as execution_status
      from unnest(p_task_uuids) u(task_uuid)
      join tasker_tasks t on t.task_uuid = u.task_uuid
      join tasker_task_plans p on p.plan_id = t.plan_id
      left join counted c on c.task_uuid = t.task_uuid
  )
  select j.task_uuid, j.named_task_uuid, j.status, coalesce(j.total, 0), coalesce(j.pending, 0), coalesce(j.in_progress, 0),
         coalesce(j.completed, 0), coalesce(j.failed, 0), coalesce(j.ready, 0), j.execution_status,
         case j.execution_status when 'has_ready_steps' then 'execute_ready_steps'
                                 when 'processing' then 'wait_for_completion'
                                 when 'all_complete' then 'finalize_task'
                                 when 'blocked_by_failures' then 'handle_failures'
                                 else 'wait_for_dependencies' end,
         coalesce(round(100.0 * j.completed / nullif(j.total, 0), 2), 0.0),
         case when j.total is null then 'unknown'
              when j.doomed or j.execution_status = 'blocked_by_failures' then 'blocked'
              when j.retried then 'recovering'
              else 'healthy' end,
         coalesce(j.enqueued, 0)
    from judged j
$$;
-- +goose StatementEnd

-- +goose StatementBegin
create function get_task_execution_context(p_task_uuid uuid)
returns table (
  task_uuid uuid, named_task_uuid uuid, status text, total_steps integer, pending_steps integer, in_progress_steps integer,
  completed_steps integer, failed_steps integer, ready_steps integer, execution_status text, recommended_action text,
  completion_percentage numeric, health_status text, enqueued_steps integer)
language sql stable as $$
  select c.task_uuid, c.named_task_uuid, c.status, c.total_steps, c.pending_steps, c.in_progress_steps,
         c.completed_steps, c.failed_steps, c.ready_steps, c.execution_status, c.recommended_action,
         c.completion_percentage, c.health_status, c.enqueued_steps
    from get_task_execution_contexts_batch(array[p_task_uuid]) c
$$;
-- +goose StatementEnd

-- How far each step of a task is from a root, along its longest path.
-- +goose StatementBegin
create function calculate_dependency_levels(p_task_uuid uuid)
returns table (workflow_step_uuid uuid, dependency_level integer)
language plpgsql stable as $$
declare
  v_levels integer[] := '{}';
  v_step   record;
begin
  -- Steps are numbered in topological order: one pass is enough.
  for v_step in
    select n.step_no, n.parents from tasker_tasks t join tasker_named_steps n on n.plan_id = t.plan_id
     where t.task_uuid = p_task_uuid order by n.step_no
  loop
    v_levels[v_step.step_no] := coalesce((select max(v_levels[p.n]) + 1 from unnest(v_step.parents) p(n)), 0);
  end loop;
  return query
    select tasker_step_uuid(p_task_uuid, n.step_no), v_levels[n.step_no]
      from tasker_tasks t join tasker_named_steps n on n.plan_id = t.plan_id
     where t.task_uuid = p_task_uuid
     order by 2, 1;
end
$$;
-- +goose StatementEnd

-- The steps of a plan that a step depends on over at most p_reach edges, each
-- once, with the smallest number of edges between them.
-- +goose StatementBegin
create function tasker_ancestors(p_plan integer, p_step integer, p_reach integer)
returns table (step_no integer, distance integer)
language plpgsql stable  -- which caches its plan: a function in SQL is planned for each statement that calls it
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
#variable_conflict use_column
begin
  return query
  with recursive above(step_no, distance) as (
    select p.n, 1
      from tasker_named_steps n
     cross join unnest(n.parents) p(n)
     where n.plan_id = p_plan and n.step_no = p_step
    union
    select p.n, a.distance + 1
      from above a
      join tasker_named_steps n on n.plan_id = p_plan and n.step_no = a.step_no
     cross join unnest(n.parents) p(n)
     where a.distance < p_reach
  )
  select a.step_no, min(a.distance) from above a group by a.step_no;
end
$$;
-- +goose StatementEnd

-- All steps that a step depends on, directly or not, each once, nearest first.
-- +goose StatementBegin
create function get_step_transitive_dependencies(p_step_uuid uuid)
returns table (workflow_step_uuid uuid, task_uuid uuid, named_step_no integer, step_name text,
               results jsonb, processed boolean, distance integer)
language sql stable as $$
  select tasker_step_uuid(s.task_uuid, s.step_no), s.task_uuid, s.step_no, n.name, s.result,
         s.state in ('complete', 'resolved_manually'), a.distance
    from tasker_tasks t
   cross join lateral tasker_ancestors(t.plan_id, tasker_step_no(p_step_uuid), 2147483647) a
   cross join lateral (
     select o.task_uuid, o.step_no, o.result, o.state from tasker_workflow_steps o where o.task_uuid = t.task_uuid and o.step_no = a.step_no offset 0) s
   cross join lateral (
     select o.name from tasker_named_steps o where o.plan_id = t.plan_id and o.step_no = a.step_no offset 0) n
   where t.task_uuid = tasker_task_of(p_step_uuid)
   order by a.distance, s.step_no
$$;
-- +goose StatementEnd

-- Rows of active tasks that nothing will ever wake, not even the sweep. Always
-- empty: a row is a defect, and its reason says which. in_progress steps are woken
-- by the end of their host's or their own lease, enqueued and due ones by their
-- message or the sweep for lost messages, and others by their parents.
create view tasker_limbo as
  select s.task_uuid, s.step_no, s.state::text as state, 'in_progress without a lease that can end' as reason
    from tasker_tasks t
    join tasker_workflow_steps s on s.task_uuid = t.task_uuid
    left join tasker_hosts h on h.host_id = s.lease_host
   where t.state in ('pending', 'in_progress') and s.state = 'in_progress'
     and (s.lease_id is null
          or s.lease_host is null and (s.lease_until is null
                                       or not exists (select from tasker_worker_leases l where l.lease_id = s.lease_id))
          or s.lease_host is not null and (h.host_id is null or h.swept_at is not null))
  union all
  select s.task_uuid, s.step_no, s.state::text, 'enqueued before its parents are satisfied'
    from tasker_tasks t
    join tasker_workflow_steps s on s.task_uuid = t.task_uuid
   where t.state in ('pending', 'in_progress') and s.state in ('enqueued', 'in_progress') and s.remaining_parents > 0
  union all
  select s.task_uuid, s.step_no, s.state::text, 'waits for parents that are all satisfied'
    from tasker_tasks t
    join tasker_workflow_steps s on s.task_uuid = t.task_uuid
    join tasker_named_steps n on n.plan_id = s.plan_id and n.step_no = s.step_no
   where t.state in ('pending', 'in_progress') and s.state = 'pending' and s.remaining_parents > 0
     and not exists (select from unnest(n.parents) p(n)
                       join tasker_workflow_steps o on o.task_uuid = s.task_uuid and o.step_no = p.n
                      where o.state not in ('complete', 'resolved_manually'));

-- +goose Down
drop view tasker_limbo;
drop function get_step_transitive_dependencies(uuid);
drop function tasker_ancestors(integer, integer, integer);
drop function calculate_dependency_levels(uuid);
drop function get_task_execution_context(uuid);
drop function get_task_execution_contexts_batch(uuid[]);
drop function get_step_readiness_status(uuid, uuid[]);
