-- Settling: the one place that defines what the outcome of an attempt does. In
-- one transaction: fence, record, count down the children, hand the ready ones
-- back or enqueue them, and finish the task with its last step.
--
-- Everybody takes locks in the same order, so that there are no deadlocks: first
-- the rows of steps that can move (enqueued, in_progress, or pending with all
-- parents satisfied) by (task, number); then those of steps that wait for
-- parents, in the same order; then task rows by UUID; then queues by name. A
-- batch is sorted by its caller, and holds only successes or no success: a
-- success locks its own row and then its children, a failure for good the movable
-- rows of its task.
--
-- Why a task finishes exactly once and never early: a task's open_sinks counts
-- its steps without children that are not complete. Every step lies above some
-- sink and runs only when its parents are satisfied, so open_sinks = 0 exactly
-- when all steps are satisfied. The counter goes down, under the task row's lock,
-- in the statement that completes a sink, and the fence lets that happen only
-- once. Whoever takes it to zero finishes the task.
--
-- Where a step has failed for good, the sinks below it stay open for ever. So the
-- failure marks every step of its task that can move as doomed, and a doomed step
-- passes the mark on to the children that it makes ready. Whoever settles a
-- doomed step looks, under the task row's lock and with a fresh snapshot, whether
-- anything can still move. The last one to get the lock sees what all the others
-- did. No step that can move escapes the mark: the failure looks again until it
-- finds no more of them, and a step that a concurrent transaction makes ready has
-- a parent whose row the failure had to wait for.

-- A batch names the range of its tasks, so that only the partitions of their days
-- are opened. The upper end is written "<= any (array[…])", which the planner does
-- not recognize as the other end of a range. It estimates so few rows for a range
-- that, on tables without statistics, it would read the whole range again for each
-- task instead of looking the task up.

-- +goose Up

-- Finishes those of the given tasks in which nothing can move any more: as complete
-- if every step is satisfied, else as error. The tasks are ordered. Returns the
-- resulting states of all of them. The caller holds no locks except those of step
-- rows.
-- +goose StatementBegin
create function tasker_conclude_tasks(p_task uuid[], p_host integer)
returns table (o_task uuid, o_state tasker_task_state)
language plpgsql
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
#variable_conflict use_column
declare
  v_open uuid[];
  v_now  timestamptz;
begin
  select array_agg(l.task_uuid) filter (where l.state = 'in_progress') into v_open
    from (select t.task_uuid, t.state from unnest(p_task) u(task_uuid) join tasker_tasks t on t.task_uuid = u.task_uuid
           order by t.task_uuid for update of t) l;
  if v_open is not null then
    v_now := clock_timestamp();
    -- A new statement and so a new snapshot: it is taken after the locks, so it sees
    -- everything that their previous holders did.
    with still as materialized (
      select u.task_uuid, s.satisfied
        from unnest(v_open) u(task_uuid)
       cross join lateral (
         select bool_or(o.state in ('enqueued', 'in_progress') or o.state = 'pending' and o.remaining_parents = 0) as moving,
                bool_and(o.state in ('complete', 'resolved_manually')) as satisfied
           from tasker_workflow_steps o where o.task_uuid = u.task_uuid) s
       where not s.moving
    ), ended as (
      update tasker_tasks t
         set state = case when l.satisfied then 'complete' else 'error' end::tasker_task_state, completed_at = v_now, sort_key = t.sort_key + 1,
             finalize_lease = null, finalize_by = null, finalize_until = null,
             error = case when l.satisfied then null else tasker_task_failure(t.task_uuid) end
        from still l
       where t.task_uuid = l.task_uuid
      returning t.task_uuid, t.sort_key, t.state
    )
    insert into tasker_task_transitions (task_uuid, sort_key, from_state, to_state, created_at, host_id)
    select e.task_uuid, e.sort_key, 'in_progress', e.state, v_now, p_host from ended e;
  end if;
  return query select t.task_uuid, t.state from unnest(p_task) u(task_uuid) join tasker_tasks t on t.task_uuid = u.task_uuid;
end
$$;
-- +goose StatementEnd

-- Finishes one task, as tasker_conclude_tasks does. Returns its resulting state;
-- null: no such task.
-- +goose StatementBegin
create function tasker_conclude_task(p_task uuid, p_host integer)
returns tasker_task_state language plpgsql as $$
begin
  return (select c.o_state from tasker_conclude_tasks(array[p_task], p_host) c);
end
$$;
-- +goose StatementEnd

-- Why a task cannot go on: its first failed or cancelled step, and how many
-- others there are.
-- +goose StatementBegin
create function tasker_task_failure(p_task uuid)
returns jsonb language sql stable as $$
  select jsonb_build_object(
           'step', (array_agg(n.name order by s.updated_at, s.step_no))[1],
           'step_uuid', (array_agg(tasker_step_uuid(p_task, s.step_no) order by s.updated_at, s.step_no))[1],
           'error', (array_agg(case when s.state = 'cancelled' then jsonb_build_object('type', 'Cancelled', 'message', 'the step was cancelled')
                                    else s.error end order by s.updated_at, s.step_no))[1],
           'attempts', (array_agg(s.attempts order by s.updated_at, s.step_no))[1],
           'failed_steps', count(*))
    from tasker_workflow_steps s
    join tasker_named_steps n on n.plan_id = s.plan_id and n.step_no = s.step_no
   where s.task_uuid = p_task and s.state in ('error', 'cancelled')
  having count(*) > 0
$$;
-- +goose StatementEnd

-- Locks the rows of the steps of p_tasks that can move, and those of the steps in
-- the other two arrays, in the order of tasks and numbers. A step that becomes
-- movable while this waits may come earlier in the order than rows that are locked
-- already, and whoever has locked its row may want those. So in that case all locks
-- are released, which only a block with an exception can do, and the function
-- starts again, until it has them all. That terminates: a step becomes movable only
-- once unless an operator has it run again, so there are no more tries than steps
-- that waited at the start.
-- +goose StatementBegin
create function tasker_lock_movable(p_tasks uuid[], p_task uuid[] default '{}', p_step integer[] default '{}')
returns void language plpgsql
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
declare
  v_tasks uuid[];
  v_steps integer[];
begin
  loop
    begin
      select array_agg(l.task_uuid), array_agg(l.step_no) into v_tasks, v_steps
        from (select s.task_uuid, s.step_no
                from (select m.task_uuid, m.step_no
                        from unnest(p_tasks) u(task_uuid)
                        join tasker_workflow_steps m on m.task_uuid = u.task_uuid
                       where m.state in ('enqueued', 'in_progress') or m.state = 'pending' and m.remaining_parents = 0
                      union
                      select x.task_uuid, x.step_no from unnest(p_task, p_step) x(task_uuid, step_no)) k
                join tasker_workflow_steps s on s.task_uuid = k.task_uuid and s.step_no = k.step_no
               order by s.task_uuid, s.step_no for update of s) l;
      -- A new statement and so a new snapshot. Once a look finds every movable step
      -- locked, no other can become movable: making a step ready requires holding the
      -- row of a step that can move.
      exit when not exists (
        select from unnest(p_tasks) u(task_uuid)
          join tasker_workflow_steps s on s.task_uuid = u.task_uuid
         where (s.state in ('enqueued', 'in_progress') or s.state = 'pending' and s.remaining_parents = 0)
           and (s.task_uuid, s.step_no) not in (select x.task_uuid, x.step_no from unnest(v_tasks, v_steps) x(task_uuid, step_no)));
      raise exception 'what can move has become more' using errcode = 'TK001';
    exception when sqlstate 'TK001' then
      null;
    end;
  end loop;
end
$$;
-- +goose StatementEnd

-- Locks a task and all its steps in the right order, for callers that end or
-- repair it. Returns the state of the task; null: no such task.
-- +goose StatementBegin
create function tasker_lock_task(p_task uuid)
returns tasker_task_state language plpgsql as $$
declare
  v_state tasker_task_state;
begin
  perform tasker_lock_movable(array[p_task]);
  perform from tasker_workflow_steps s where s.task_uuid = p_task order by s.step_no for update;
  select t.state into v_state from tasker_tasks t where t.task_uuid = p_task for update;
  return v_state;
end
$$;
-- +goose StatementEnd

-- Fails running steps for good: their rows, their history, their dead letters, and
-- the marks on the steps of their tasks that can still move. Per step:
--   p_generation  the process that it ran in; null: none of ours
--   p_reason      why, as a stable word
--   p_error       why, for people
--   p_charge      1: an attempt is charged; 0: none
-- The steps are ordered. The caller holds the locks of their rows and of all rows
-- that can move in their tasks, and concludes the tasks afterwards.
-- +goose StatementBegin
create function tasker_bury_steps(
  p_host integer, p_task uuid[], p_step integer[], p_generation bigint[], p_reason text[], p_error jsonb[], p_charge integer[])
returns void language plpgsql
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
#variable_conflict use_column
declare
  v_now   timestamptz := clock_timestamp();
  v_tasks uuid[];
begin
  with buried as (
    update tasker_workflow_steps s
       set state = 'error', error = u.error, attempts = s.attempts + u.charge, sort_key = s.sort_key + 1,
           plugin_generation = u.generation, due_at = null, lease_until = null, doomed = false, updated_at = v_now
      from unnest(p_task, p_step, p_generation, p_reason, p_error, p_charge) u(task_uuid, step_no, generation, reason, error, charge)
     where s.task_uuid = u.task_uuid and s.step_no = u.step_no
    returning s.task_uuid, s.step_no, s.sort_key, s.lease_id, s.plugin_generation, s.generation, s.attempts, u.reason, u.error
  ), logged as (
    insert into tasker_workflow_step_transitions
      (task_uuid, step_no, sort_key, from_state, to_state, created_at, host_id, lease_id, plugin_generation, metadata)
    select b.task_uuid, b.step_no, b.sort_key, 'in_progress', 'error', v_now, p_host, b.lease_id, b.plugin_generation,
           jsonb_build_object('error', b.error, 'reason', b.reason)
      from buried b
  )
  insert into tasker_dead_letters (kind, task_uuid, step_no, generation, reason, detail, body)
  select 'step', b.task_uuid, b.step_no, b.generation, b.reason, coalesce(b.error ->> 'message', ''),
         jsonb_build_object('error', b.error, 'attempts', b.attempts)
    from buried b;
  v_tasks := array(select distinct u.task_uuid from unnest(p_task) u(task_uuid) order by 1);
  loop
    perform tasker_lock_movable(v_tasks);
    update tasker_workflow_steps s set doomed = true
      from unnest(v_tasks) u(task_uuid)
     where s.task_uuid = u.task_uuid and not s.doomed
       and (s.state in ('enqueued', 'in_progress') or s.state = 'pending' and s.remaining_parents = 0);
    exit when not found;
  end loop;
end
$$;
-- +goose StatementEnd

-- The error of a step that was claimed as often as it may be without ever coming to
-- an outcome. A step that kills its host or plugin each time must come to an end, too.
-- +goose StatementBegin
create function tasker_claims_exhausted(p_claims integer, p_reason text)
returns jsonb language sql immutable as $$
  select jsonb_build_object('type', 'ClaimsExhausted', 'retryable', false,
    'message', format('claimed %s times without an outcome, most recently given back because: %s', p_claims, p_reason))
$$;
-- +goose StatementEnd

-- Gives steps back without a verdict on their handlers: their plugin died or was
-- replaced, or their host is gone or draining. No attempt is charged. A step with a
-- due time becomes visible at that time, the others at once. A step that was given
-- back through no fault of its own, as by a shutdown, is excused: its claim does not
-- count.
--
-- The steps are ordered by (task, number). The caller holds the locks of their rows,
-- has checked their leases, and buries those that were claimed too often
-- (tasker_bury_steps). No range is named here: the planner would read it again for
-- each step.
-- +goose StatementBegin
create function tasker_release_steps(
  p_host integer, p_task uuid[], p_step integer[], p_generation bigint[], p_reason text[], p_due timestamptz[], p_excused boolean[])
returns void language plpgsql
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
#variable_conflict use_column
declare
  v_now timestamptz := clock_timestamp();
begin
  with given as materialized (
    select u.task_uuid, u.step_no, u.generation, u.reason, u.due, u.excused, s.lease_id
      from unnest(p_task, p_step, p_generation, p_reason, p_due, p_excused) u(task_uuid, step_no, generation, reason, due, excused)
     cross join lateral (  -- as in tasker_enqueue
       select o.lease_id from tasker_workflow_steps o where o.task_uuid = u.task_uuid and o.step_no = u.step_no offset 0) s
  ), released as (
    update tasker_workflow_steps s
       set state = 'enqueued', lease_id = null, lease_host = null, lease_until = null, plugin_generation = g.generation, due_at = g.due,
           sort_key = s.sort_key + 1, claims = s.claims - g.excused::integer, updated_at = v_now
      from given g
     where s.task_uuid = g.task_uuid and s.step_no = g.step_no and s.state = 'in_progress'
    returning s.task_uuid, s.step_no, s.sort_key, g.lease_id, g.generation, g.reason, g.excused
  )
  insert into tasker_workflow_step_transitions
    (task_uuid, step_no, sort_key, from_state, to_state, created_at, host_id, lease_id, plugin_generation, metadata)
  select r.task_uuid, r.step_no, r.sort_key, 'in_progress', 'enqueued', v_now, p_host, r.lease_id, r.generation,
         case when r.excused then jsonb_build_object('reason', r.reason, 'excused', true) else jsonb_build_object('reason', r.reason) end
    from released r;
  perform tasker_enqueue(p_task, p_step, p_due);
end
$$;
-- +goose StatementEnd

-- Takes the locks that are needed to record the failures of the arrays, in their
-- order: those of the steps and, in tasks in which one of them fails for good, of all
-- steps that can move. An outcome without a lease (null) is for a step that nobody has claimed.
--
-- Which steps fail for good is determined before anything is locked: what that
-- depends on is changed only by the holder of the lease.
-- +goose StatementBegin
create function tasker_lock_failing(p_task uuid[], p_step integer[], p_lease uuid[], p_outcome tasker_outcome[], p_claim_factor integer)
returns void language plpgsql as $$
declare
  v_tasks uuid[];  -- those in which a step fails for good
begin
  v_tasks := array(
    select distinct u.task_uuid
      from unnest(p_task, p_step, p_lease, p_outcome) u(task_uuid, step_no, lease_id, outcome)
     cross join lateral (
       select o.plan_id, o.claims, o.attempts
         from tasker_workflow_steps o
        where o.task_uuid = u.task_uuid and o.step_no = u.step_no
          and case when u.lease_id is null then o.state in ('enqueued', 'pending') and o.remaining_parents = 0 else o.state = 'in_progress' and o.lease_id = u.lease_id end
       offset 0) s
     cross join lateral (
       select z.retryable, z.max_attempts from tasker_named_steps z where z.plan_id = s.plan_id and z.step_no = u.step_no offset 0) n
     where case u.outcome when 'success' then false
                          when 'released' then s.claims >= p_claim_factor * n.max_attempts
                          else u.outcome = 'permanent' or not n.retryable or s.attempts + 1 >= n.max_attempts end);
  if v_tasks <> '{}' then
    perform tasker_lock_movable(v_tasks, p_task, p_step);
  else
    perform from (select distinct u.task_uuid, u.step_no from unnest(p_task, p_step, p_outcome) u(task_uuid, step_no, outcome) where u.outcome <> 'success') u
       join tasker_workflow_steps s on s.task_uuid = u.task_uuid and s.step_no = u.step_no
      where s.state in ('enqueued', 'in_progress') or s.state = 'pending' and s.remaining_parents = 0
      order by s.task_uuid, s.step_no for update of s;
  end if;
end
$$;
-- +goose StatementEnd

-- Records the outcomes of the arrays that are not successes; those to be retried, and
-- those given back, together. Returns the verdicts as tasker_settle_steps does, null
-- for a success; when the steps that have to wait are due; how many steps it put on
-- queues to be claimed at once; and the tasks that may have come to their end.
-- +goose StatementBegin
create function tasker_settle_failures(
  p_host integer, p_task uuid[], p_step integer[], p_lease uuid[], p_outcome tasker_outcome[], p_generation bigint[],
  p_error text[], p_retry_after_ms bigint[], p_retry_after_cap_ms bigint, p_claim_factor integer,
  out o_verdict text[], out o_due timestamptz[], out o_enqueued integer, out o_settled uuid[])
language plpgsql
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
#variable_conflict use_column
declare
  v_now  timestamptz;
  v_fate record;
begin
  perform tasker_lock_failing(p_task, p_step, p_lease, p_outcome, p_claim_factor);
  v_now := clock_timestamp();
  -- A new statement: it sees what the previous holders of the locks did. It decides the
  -- fate of each outcome, and sorts the outcomes by fate into arrays:
  --   retry    it is tried again when it is due
  --   release  it is given back, and no attempt is charged
  --   bury     it fails for good
  --   exhaust  it was given back too often, and fails for good
  -- For an outcome that is not recorded the fate is the verdict.
  --
  -- When a step that was given back is due: one that lost its plugin once runs again after
  -- the wait that was asked for. One that loses it again and again may be what kills it. It
  -- waits forty times as long, then twice that and so on, half a minute at most, so that
  -- the plugin can serve other steps meanwhile. Claims that came to an outcome do not
  -- count. A step that is excused has killed nothing. A step given back by an outside
  -- worker waits as long as the worker says.
  select array_agg(case when j.fate in ('retry', 'release', 'bury', 'exhaust') then 'recorded' else j.fate end) as verdicts,
         array_agg(j.task_uuid) filter (where j.fate = 'retry') as retry_task, array_agg(j.step_no) filter (where j.fate = 'retry') as retry_step,
         array_agg(j.generation) filter (where j.fate = 'retry') as retry_generation, array_agg(j.error) filter (where j.fate = 'retry') as retry_error,
         array_agg(j.due) filter (where j.fate = 'retry') as retry_due,
         array_agg(j.task_uuid) filter (where j.fate = 'release') as task, array_agg(j.step_no) filter (where j.fate = 'release') as step,
         array_agg(j.generation) filter (where j.fate = 'release') as generation,
         array_agg(coalesce(j.error::jsonb ->> 'message', 'released')) filter (where j.fate = 'release') as reason,
         array_agg(j.excused) filter (where j.fate = 'release') as excused,
         array_agg(j.due) filter (where j.fate = 'release') as due, count(*) filter (where j.fate = 'release' and j.due is null) as at_once,
         array_agg(j.task_uuid) filter (where j.fate in ('bury', 'exhaust') or j.fate = 'release' and j.doomed) as settled,
         array_agg(j.task_uuid) filter (where j.fate in ('bury', 'exhaust')) as bury_task,
         array_agg(j.step_no) filter (where j.fate in ('bury', 'exhaust')) as bury_step,
         array_agg(j.generation) filter (where j.fate in ('bury', 'exhaust')) as bury_generation,
         array_agg(case when j.fate = 'exhaust' then 'claims_exhausted' when j.outcome = 'permanent' then 'permanent_failure'
                        when not j.retryable then 'not_retryable' else 'attempts_exhausted' end) filter (where j.fate in ('bury', 'exhaust')) as bury_reason,
         array_agg(case when j.fate = 'exhaust' then tasker_claims_exhausted(j.claims, coalesce(j.error::jsonb ->> 'message', 'released'))
                        else j.error::jsonb end) filter (where j.fate in ('bury', 'exhaust')) as bury_error,
         array_agg((j.fate = 'bury')::integer) filter (where j.fate in ('bury', 'exhaust')) as bury_charge
    into v_fate
    from (select g.task_uuid, g.step_no, g.outcome, g.generation, g.error, g.doomed, g.claims, g.retryable, g.excused, f.fate,
                 v_now + interval '1 millisecond' * case
                   when f.fate = 'retry' and g.retry_after_ms > 0 then least(g.retry_after_ms, p_retry_after_cap_ms)
                   when f.fate = 'retry' then (tasker_backoff_ms(g.backoff, g.base_ms, g.cap_ms, g.attempts + 1) * (1 - g.jitter * random()))::bigint
                   when f.fate <> 'release' or coalesce(g.retry_after_ms, 0) <= 0 then null
                   when g.lease_host is null or g.excused or g.claims - g.attempts <= 1 then g.retry_after_ms
                   else least(g.retry_after_ms * 40 * power(2, least(g.claims - g.attempts - 2, 20)), 30000) end as due
            from (select u.ord, u.task_uuid, u.step_no, u.lease_id, u.outcome, u.generation, u.error, u.retry_after_ms,
                         row_number() over (partition by u.task_uuid, u.step_no, u.lease_id order by u.ord) as nth,
                         u.outcome = 'released' and coalesce((u.error::jsonb ->> 'excused')::boolean, false) as excused,
                         s.state, s.lease_id as has, s.lease_host, s.attempts, s.claims, s.doomed,
                         n.retryable, n.max_attempts, n.backoff, n.base_ms, n.cap_ms, n.jitter
                    from unnest(p_task, p_step, p_lease, p_outcome, p_generation, p_error, p_retry_after_ms) with ordinality
                           u(task_uuid, step_no, lease_id, outcome, generation, error, retry_after_ms, ord)
                    left join lateral (  -- as in tasker_enqueue
                      select o.plan_id, o.state, o.lease_id, o.lease_host, o.attempts, o.claims, o.doomed
                        from tasker_workflow_steps o where o.task_uuid = u.task_uuid and o.step_no = u.step_no offset 0) s on true
                    left join lateral (
                      select z.retryable, z.max_attempts, z.backoff, z.base_ms, z.cap_ms, z.jitter
                        from tasker_named_steps z where z.plan_id = s.plan_id and z.step_no = u.step_no offset 0) n on true) g
           cross join lateral (
             select case
               when g.outcome = 'success' then null
               when g.state is null then 'unknown'
               -- A cancelled step keeps its last lease, although nothing was recorded under it.
               when g.nth > 1 and g.has = g.lease_id then 'already_recorded'
               when g.state <> 'in_progress' or g.has is distinct from g.lease_id then
                 case when g.has = g.lease_id and g.state not in ('cancelled', 'resolved_manually') then 'already_recorded' else 'stale_lease' end
               when g.outcome = 'released' then case when g.claims >= p_claim_factor * g.max_attempts and not g.excused then 'exhaust' else 'release' end
               when g.outcome = 'permanent' or not g.retryable or g.attempts + 1 >= g.max_attempts then 'bury'
               else 'retry' end as fate) f
           order by g.ord) j;
  o_verdict := v_fate.verdicts; o_enqueued := v_fate.at_once; o_settled := coalesce(v_fate.settled, '{}');

  if v_fate.retry_task is not null then
    with failed as (
      update tasker_workflow_steps s
         set state = 'error', error = r.error::jsonb, attempts = s.attempts + 1, sort_key = s.sort_key + 1,
             plugin_generation = r.generation, updated_at = v_now
        from unnest(v_fate.retry_task, v_fate.retry_step, v_fate.retry_generation, v_fate.retry_error) r(task_uuid, step_no, generation, error)
       where s.task_uuid = r.task_uuid and s.step_no = r.step_no
      returning s.task_uuid, s.step_no, s.sort_key, s.lease_id, s.plugin_generation, s.error
    )
    insert into tasker_workflow_step_transitions
      (task_uuid, step_no, sort_key, from_state, to_state, created_at, host_id, lease_id, plugin_generation, metadata)
    select f.task_uuid, f.step_no, f.sort_key, 'in_progress', 'error', v_now, p_host, f.lease_id, f.plugin_generation, jsonb_build_object('error', f.error)
      from failed f;
    with waiting as (
      update tasker_workflow_steps s
         set state = 'pending', due_at = r.due, sort_key = s.sort_key + 1, lease_until = null
        from unnest(v_fate.retry_task, v_fate.retry_step, v_fate.retry_due) r(task_uuid, step_no, due)
       where s.task_uuid = r.task_uuid and s.step_no = r.step_no
      returning s.task_uuid, s.step_no, s.sort_key, s.due_at
    )
    insert into tasker_workflow_step_transitions (task_uuid, step_no, sort_key, from_state, to_state, created_at, host_id, metadata)
    select w.task_uuid, w.step_no, w.sort_key, 'error', 'pending', v_now, p_host, jsonb_build_object('due_at', w.due_at)
      from waiting w;
    perform tasker_enqueue(v_fate.retry_task, v_fate.retry_step, v_fate.retry_due);
  end if;
  if v_fate.task is not null then
    perform tasker_release_steps(p_host, v_fate.task, v_fate.step, v_fate.generation, v_fate.reason, v_fate.due, v_fate.excused);
  end if;
  if v_fate.bury_task is not null then
    perform tasker_bury_steps(p_host, v_fate.bury_task, v_fate.bury_step, v_fate.bury_generation, v_fate.bury_reason, v_fate.bury_error, v_fate.bury_charge);
  end if;
  o_due := array_remove(v_fate.retry_due || v_fate.due, null);
end
$$;
-- +goose StatementEnd

-- Settles one success, as tasker_settle_steps does a batch: what is said there holds
-- here, too. The caller has the settings of that function in effect. For a single step
-- the statement for a batch takes ten times as long as the few statements that are
-- needed, which are here. p_children are the step's children. If there are more than
-- eight a batch is cheaper, so nothing is done and o_verdict is null. Children that are
-- handed out are leased to p_host or, if that is null, for p_lease_for to the outside
-- worker p_worker.
-- +goose StatementBegin
create function tasker_settle_success(
  p_host integer, p_room integer, p_served integer[],
  p_task uuid, p_step integer, p_lease uuid, p_generation bigint, p_result text, p_metadata text, p_children integer[],
  p_worker text default null, p_lease_for interval default null,
  out o_verdict text, out o_step integer[], out o_lease uuid[], out o_attempt integer[], out o_generation integer[],
  out o_plan integer, out o_finished_state text, out o_enqueued integer, out o_at timestamptz)
language plpgsql as $$
declare
  v_now    timestamptz := clock_timestamp();
  v_old    record;
  v_child  record;
  v_kind   record;
  v_number integer;
  v_hand   boolean := false;
  v_logged boolean := false;
  v_until  timestamptz;
  v_queued integer[] := '{}';
  v_state  tasker_task_state;
begin
  if cardinality(p_children) > 8 then
    return;
  end if;
  o_at := v_now; o_enqueued := 0;
  update tasker_workflow_steps s
     set state = 'complete', result = p_result::jsonb, metadata = p_metadata::jsonb, error = null,
         attempts = s.attempts + 1, sort_key = s.sort_key + 1, updated_at = v_now,
         plugin_generation = p_generation, lease_until = null, due_at = null
   where s.task_uuid = p_task and s.step_no = p_step and s.state = 'in_progress' and s.lease_id = p_lease
  returning s.plan_id, s.sort_key, s.doomed into v_old;
  if not found then
    o_verdict := coalesce((
      select case when s.state = 'complete' and s.lease_id = p_lease then 'already_recorded' else 'stale_lease' end
        from tasker_workflow_steps s where s.task_uuid = p_task and s.step_no = p_step), 'unknown');
    return;
  end if;
  o_verdict := 'recorded'; o_plan := v_old.plan_id;
  foreach v_number in array p_children loop  -- ascending, which is the order of their locks
    if p_room > 0 then
      select n.handler_id = any(p_served) as served, nullif(n.timeout_ms, 0) * interval '1 millisecond' as timeout into v_kind
        from tasker_named_steps n where n.plan_id = v_old.plan_id and n.step_no = v_number;
      v_hand := v_kind.served;
      v_until := case when p_worker is not null then v_now + least(p_lease_for, v_kind.timeout) end;
    else
      v_hand := false;
    end if;
    update tasker_workflow_steps s
       set remaining_parents = s.remaining_parents - 1,
           state = case when s.remaining_parents > 1 or s.state <> 'pending' then s.state when v_hand then 'in_progress' else 'enqueued' end,
           sort_key = s.sort_key + (s.remaining_parents = 1 and s.state = 'pending')::integer,
           lease_no = s.lease_no + (v_hand and s.remaining_parents = 1 and s.state = 'pending')::integer,
           claims = s.claims + (v_hand and s.remaining_parents = 1 and s.state = 'pending')::integer,
           lease_host = case when v_hand and s.remaining_parents = 1 and s.state = 'pending' then p_host else s.lease_host end,
           lease_id = case when v_hand and s.remaining_parents = 1 and s.state = 'pending' then gen_random_uuid() else s.lease_id end,
           lease_until = case when v_hand and s.remaining_parents = 1 and s.state = 'pending' then v_until else s.lease_until end,
           doomed = s.doomed or v_old.doomed, updated_at = v_now
     where s.task_uuid = p_task and s.step_no = v_number
    returning s.state, s.sort_key, s.lease_id, s.attempts, s.remaining_parents, s.generation into v_child;
    continue when v_child.remaining_parents > 0 or v_child.state not in ('in_progress', 'enqueued');
    if v_logged then
      insert into tasker_workflow_step_transitions
        (task_uuid, step_no, sort_key, from_state, to_state, created_at, host_id, lease_id, metadata)
      values (p_task, v_number, v_child.sort_key, 'pending', v_child.state, v_now, p_host, case when v_hand then v_child.lease_id end,
              case when v_hand and p_worker is not null then jsonb_build_object('worker', p_worker) end);
    else  -- both in one statement: starting a statement is most of its cost
      insert into tasker_workflow_step_transitions
        (task_uuid, step_no, sort_key, from_state, to_state, created_at, host_id, lease_id, plugin_generation, metadata)
      values
        (p_task, p_step, v_old.sort_key, 'in_progress', 'complete', v_now, p_host, p_lease, p_generation, null),
        (p_task, v_number, v_child.sort_key, 'pending', v_child.state, v_now, p_host, case when v_hand then v_child.lease_id end, null,
         case when v_hand and p_worker is not null then jsonb_build_object('worker', p_worker) end);
      v_logged := true;
    end if;
    if v_hand then
      o_step := o_step || v_number; o_lease := o_lease || v_child.lease_id;
      o_attempt := o_attempt || v_child.attempts + 1; o_generation := o_generation || v_child.generation::integer;
      p_room := p_room - 1;
    else
      v_queued := v_queued || v_number;
    end if;
  end loop;
  if not v_logged then
    insert into tasker_workflow_step_transitions
      (task_uuid, step_no, sort_key, from_state, to_state, created_at, host_id, lease_id, plugin_generation)
    values (p_task, p_step, v_old.sort_key, 'in_progress', 'complete', v_now, p_host, p_lease, p_generation);
  end if;

  if p_children = '{}' then
    update tasker_tasks t
       set open_sinks = t.open_sinks - 1,
           state = case when t.open_sinks = 1 and t.state = 'in_progress' then 'complete' else t.state end,
           completed_at = case when t.open_sinks = 1 and t.state = 'in_progress' then v_now else t.completed_at end,
           sort_key = t.sort_key + (t.open_sinks = 1 and t.state = 'in_progress')::integer,
           finalize_lease = case when t.open_sinks > 1 then t.finalize_lease end,
           finalize_by = case when t.open_sinks > 1 then t.finalize_by end,
           finalize_until = case when t.open_sinks > 1 then t.finalize_until end
     where t.task_uuid = p_task
    returning t.open_sinks, t.sort_key, t.state into v_kind;
    if v_kind.open_sinks = 0 and v_kind.state = 'complete' then
      o_finished_state := 'complete';
      insert into tasker_task_transitions (task_uuid, sort_key, from_state, to_state, created_at, host_id)
      values (p_task, v_kind.sort_key, 'in_progress', 'complete', v_now, p_host);
    end if;
  end if;

  o_enqueued := cardinality(v_queued);
  if o_enqueued > 0 then
    perform tasker_enqueue(array_fill(p_task, array[o_enqueued]), v_queued);
  end if;
  if v_old.doomed then
    v_state := tasker_conclude_task(p_task, p_host);
    if v_state in ('complete', 'error') then
      o_finished_state := v_state::text;
    end if;
  end if;
end
$$;
-- +goose StatementEnd

-- Settles the attempts of the arrays, which must be ordered by (p_task, p_step) and
-- should be all successes or none. A mixed batch is recorded, too, but may run into a
-- deadlock and then has to be repeated. Per attempt:
--   p_lease           the lease it ran under
--   p_outcome         success, retryable, permanent, released
--   p_generation      the plugin process that ran it; null: none of ours
--   p_result          success: a JSON value
--   p_metadata        success: a JSON object or null
--   p_error           otherwise: a JSON object with type, message, code, …; if released,
--                     with message, and excused, true if the claim is not to count
--   p_retry_after_ms  otherwise: the wait that its handler asked for; 0: the back-off decides
-- Children that become ready and whose handler is in p_served are leased to p_host, up
-- to p_room of them, or, if p_host is null, for p_lease_for to the outside worker
-- p_worker. The others, and those of paused namespaces, are enqueued.
--
-- Returns one row:
--   o_verdict   per attempt: recorded, already_recorded (this lease has settled the
--               step before), stale_lease (the step belongs to somebody else, and
--               nothing was changed) or unknown
--   o_task, o_step, o_lease, o_attempt, o_plan, o_generation
--               the steps leased to the host or the worker
--   o_finished, o_finished_state          the tasks that this call finished
--   o_due       when the retries it caused are due
--   o_enqueued  how many steps it put on queues, to be claimed at once
--   o_at        when the leases began
-- +goose StatementBegin
create function tasker_settle_steps(
  p_host integer, p_room integer, p_served integer[],
  p_task uuid[], p_step integer[], p_lease uuid[], p_outcome tasker_outcome[], p_generation bigint[],
  p_result text[], p_metadata text[], p_error text[], p_retry_after_ms bigint[],
  p_retry_after_cap_ms bigint default 300000, p_claim_factor integer default 3,
  p_worker text default null, p_lease_for interval default null,
  out o_verdict text[], out o_task uuid[], out o_step integer[], out o_lease uuid[], out o_attempt integer[],
  out o_plan integer[], out o_generation integer[], out o_finished uuid[], out o_finished_state text[], out o_due timestamptz[], out o_enqueued integer,
  out o_at timestamptz)
language plpgsql
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
#variable_conflict use_column
declare
  v_now     timestamptz := clock_timestamp();
  v_min     uuid := p_task[1];
  v_max     uuid := p_task[cardinality(p_task)];
  v_good    integer[];
  v_queued  uuid[];
  v_numbers integer[];
  v_doomed  uuid[];
  v_paused  integer[];              -- the paused namespaces; null: none
  v_failed  uuid[] := '{}';
  v_row     record;
  v_one     record;
begin
  o_verdict := array_fill(null::text, array[cardinality(p_task)]);
  o_at := v_now;
  if p_room > 0 and not tasker_may_lease(p_host) then
    p_room := 0;
  end if;
  if p_room > 0 then
    v_paused := tasker_paused_namespaces();
  end if;

  if cardinality(p_task) = 1 and p_outcome[1] = 'success' then
    select n.children, v_paused is not null
                       and exists (select from tasker_task_plans p where p.plan_id = n.plan_id and p.namespace_id = any(v_paused)) as paused
      into v_row
      from tasker_workflow_steps s
      join tasker_named_steps n on n.plan_id = s.plan_id and n.step_no = s.step_no
     where s.task_uuid = v_min and s.step_no = p_step[1];
    v_one := tasker_settle_success(p_host, case when v_row.paused then 0 else p_room end, p_served, v_min, p_step[1], p_lease[1],
                                   p_generation[1], p_result[1], p_metadata[1], v_row.children, p_worker, p_lease_for);
    if v_one.o_verdict is not null then
      o_verdict := array[v_one.o_verdict];
      o_enqueued := v_one.o_enqueued;
      o_at := v_one.o_at;
      if v_one.o_step is not null then
        o_step := v_one.o_step; o_lease := v_one.o_lease; o_attempt := v_one.o_attempt; o_generation := v_one.o_generation;
        o_task := array_fill(v_min, array[cardinality(o_step)]);
        o_plan := array_fill(v_one.o_plan, array[cardinality(o_step)]);
      end if;
      o_finished_state := '{}';
      if v_one.o_finished_state is not null then
        o_finished := array[v_min]; o_finished_state := array[v_one.o_finished_state];
      end if;
      return;
    end if;
  end if;

  with given as materialized (
    select u.ord, u.task_uuid, u.step_no, u.lease_id, u.generation, u.result, u.metadata
      from unnest(p_task, p_step, p_lease, p_outcome, p_generation, p_result, p_metadata)
           with ordinality u(task_uuid, step_no, lease_id, outcome, generation, result, metadata, ord)
     where u.outcome = 'success'
  ), done as (  -- the fence: only steps that run, and under this lease
    update tasker_workflow_steps s
       set state = 'complete', result = g.result::jsonb, metadata = g.metadata::jsonb, error = null,
           attempts = s.attempts + 1, sort_key = s.sort_key + 1, updated_at = v_now,
           plugin_generation = g.generation, lease_until = null, due_at = null
      from given g
     where s.task_uuid = g.task_uuid and s.step_no = g.step_no
       and s.task_uuid >= v_min and s.task_uuid <= any (array[v_max])
       and s.state = 'in_progress' and s.lease_id = g.lease_id
    returning g.ord, s.task_uuid, s.step_no, s.plan_id, s.sort_key, s.doomed, s.lease_id, s.plugin_generation
  ), done_logged as (
    insert into tasker_workflow_step_transitions
      (task_uuid, step_no, sort_key, from_state, to_state, created_at, host_id, lease_id, plugin_generation)
    select d.task_uuid, d.step_no, d.sort_key, 'in_progress', 'complete', v_now, p_host, d.lease_id, d.plugin_generation
      from done d
  ), placed as (  -- the steps done, with their places in the graph
    select d.task_uuid, d.plan_id, d.doomed, n.children
      from done d
      join tasker_named_steps n on n.plan_id = d.plan_id and n.step_no = d.step_no
  ), below as (  -- their children, each once, with the number of its parents that were done here
    select p.task_uuid, c.step_no, p.plan_id, count(*)::integer as settled, bool_or(p.doomed) as doomed
      from placed p
     cross join unnest(p.children) c(step_no)
     group by p.task_uuid, c.step_no, p.plan_id
  ), offered as (  -- "hand": lease it if it becomes ready, which is not known yet; it takes up room either way
    select b.task_uuid, b.step_no, b.settled, b.doomed,
           case when p_worker is not null then v_now + least(p_lease_for, nullif(n.timeout_ms, 0) * interval '1 millisecond') end as until,
           n.handler_id = any(p_served)
           and row_number() over (order by n.handler_id = any(p_served) desc, b.task_uuid, b.step_no) <= p_room
           and (v_paused is null or not exists (select from tasker_task_plans p where p.plan_id = b.plan_id and p.namespace_id = any(v_paused))) as hand
      from below b
      join tasker_named_steps n on n.plan_id = b.plan_id and n.step_no = b.step_no
     order by b.task_uuid, b.step_no
  ), counted as (  -- counts them down; one without open parents is leased or enqueued
    update tasker_workflow_steps s
       set remaining_parents = s.remaining_parents - o.settled,
           state = case when s.remaining_parents > o.settled or s.state <> 'pending' then s.state
                        when o.hand then 'in_progress' else 'enqueued' end,
           sort_key = s.sort_key + (s.remaining_parents = o.settled and s.state = 'pending')::integer,
           lease_no = s.lease_no + (o.hand and s.remaining_parents = o.settled and s.state = 'pending')::integer,
           claims = s.claims + (o.hand and s.remaining_parents = o.settled and s.state = 'pending')::integer,
           lease_host = case when o.hand and s.remaining_parents = o.settled and s.state = 'pending' then p_host else s.lease_host end,
           lease_id = case when o.hand and s.remaining_parents = o.settled and s.state = 'pending' then gen_random_uuid() else s.lease_id end,
           lease_until = case when o.hand and s.remaining_parents = o.settled and s.state = 'pending' then o.until else s.lease_until end,
           doomed = s.doomed or o.doomed, updated_at = v_now
      from offered o
     where s.task_uuid = o.task_uuid and s.step_no = o.step_no
       and s.task_uuid >= v_min and s.task_uuid <= any (array[v_max])
    returning s.task_uuid, s.step_no, s.state, s.sort_key, s.lease_id, s.attempts, s.remaining_parents, s.plan_id, s.generation
  ), ready as (
    select c.task_uuid, c.step_no, c.state, c.sort_key, c.lease_id, c.attempts, c.plan_id, c.generation
      from counted c
     where c.remaining_parents = 0 and c.state in ('in_progress', 'enqueued')
  ), ready_logged as (
    insert into tasker_workflow_step_transitions
      (task_uuid, step_no, sort_key, from_state, to_state, created_at, host_id, lease_id, metadata)
    select r.task_uuid, r.step_no, r.sort_key, 'pending', r.state, v_now, p_host, case when r.state = 'in_progress' then r.lease_id end,
           case when p_worker is not null and r.state = 'in_progress' then jsonb_build_object('worker', p_worker) end
      from ready r
  ), sinks as (  -- and doomed tasks, whose rows are locked below: all of them here, in one order
    select p.task_uuid, count(*) filter (where p.children = '{}')::integer as settled
      from placed p
     where p.children = '{}' or p.doomed
     group by p.task_uuid
     order by p.task_uuid
  ), finished as (  -- completes the tasks whose last sink this was
    update tasker_tasks t
       set open_sinks = t.open_sinks - k.settled,
           state = case when t.open_sinks = k.settled and t.state = 'in_progress' then 'complete' else t.state end,
           completed_at = case when t.open_sinks = k.settled and t.state = 'in_progress' then v_now else t.completed_at end,
           sort_key = t.sort_key + (t.open_sinks = k.settled and t.state = 'in_progress')::integer,
           finalize_lease = case when t.open_sinks > k.settled then t.finalize_lease end,
           finalize_by = case when t.open_sinks > k.settled then t.finalize_by end,
           finalize_until = case when t.open_sinks > k.settled then t.finalize_until end
      from sinks k
     where t.task_uuid = k.task_uuid and t.task_uuid >= v_min and t.task_uuid <= any (array[v_max])
    returning t.task_uuid, t.open_sinks, t.sort_key, t.state
  ), finished_logged as (
    insert into tasker_task_transitions (task_uuid, sort_key, from_state, to_state, created_at, host_id)
    select f.task_uuid, f.sort_key, 'in_progress', 'complete', v_now, p_host
      from finished f where f.open_sinks = 0 and f.state = 'complete'
  )
  select (select array_agg(d.ord) from done d),
         (select array_agg(distinct d.task_uuid) from done d where d.doomed),
         l.tasks, l.steps, l.leases, l.attempts, l.plans, l.generations, q.tasks, q.steps, f.tasks
    into v_good, v_doomed, o_task, o_step, o_lease, o_attempt, o_plan, o_generation, v_queued, v_numbers, o_finished
    from (select array_agg(r.task_uuid) as tasks, array_agg(r.step_no) as steps, array_agg(r.lease_id) as leases,
                 array_agg(r.attempts + 1) as attempts, array_agg(r.plan_id) as plans, array_agg(r.generation::integer) as generations
            from ready r where r.state = 'in_progress') l,
         (select array_agg(r.task_uuid) as tasks, array_agg(r.step_no) as steps from ready r where r.state = 'enqueued') q,
         (select array_agg(x.task_uuid) as tasks from finished x where x.open_sinks = 0 and x.state = 'complete') f;

  o_enqueued := coalesce(cardinality(v_queued), 0);
  if o_enqueued > 0 then
    perform tasker_enqueue(v_queued, v_numbers);
  end if;
  o_finished_state := array_fill('complete'::text, array[coalesce(cardinality(o_finished), 0)]);

  if coalesce(cardinality(v_good), 0) < cardinality(p_task) then
    for i in 1 .. cardinality(p_task) loop
      if i = any(v_good) then
        o_verdict[i] := 'recorded';
      elsif p_outcome[i] = 'success' then
        o_verdict[i] := coalesce((
          select case when s.state = 'complete' and s.lease_id = p_lease[i] then 'already_recorded' else 'stale_lease' end
            from tasker_workflow_steps s where s.task_uuid = p_task[i] and s.step_no = p_step[i]), 'unknown');
      end if;
    end loop;
    if exists (select from unnest(p_outcome) u(outcome) where u.outcome <> 'success') then
      v_row := tasker_settle_failures(p_host, p_task, p_step, p_lease, p_outcome, p_generation, p_error, p_retry_after_ms,
                                      p_retry_after_cap_ms, p_claim_factor);
      o_due := v_row.o_due; o_enqueued := o_enqueued + v_row.o_enqueued; v_failed := v_row.o_settled;
      if v_good is null then
        o_verdict := v_row.o_verdict;
      else
        for i in 1 .. cardinality(p_task) loop
          o_verdict[i] := coalesce(v_row.o_verdict[i], o_verdict[i]);
        end loop;
      end if;
    end if;
  else
    o_verdict := array_fill('recorded'::text, array[cardinality(p_task)]);
  end if;

  if v_doomed is not null or v_failed <> '{}' then
    for v_row in
      select c.o_task, c.o_state
        from tasker_conclude_tasks(array(select distinct u.task_uuid from unnest(v_doomed || v_failed) u(task_uuid) order by 1), p_host) c
       where c.o_state in ('complete', 'error')
    loop
      if not v_row.o_task = any(coalesce(o_finished, '{}')) then
        o_finished := o_finished || v_row.o_task;
        o_finished_state := o_finished_state || v_row.o_state::text;
      end if;
    end loop;
  end if;
end
$$;
-- +goose StatementEnd

-- +goose Down
drop function tasker_settle_steps(integer, integer, integer[], uuid[], integer[], uuid[], tasker_outcome[], bigint[],
                                  text[], text[], text[], bigint[], bigint, integer, text, interval);
drop function tasker_settle_success(integer, integer, integer[], uuid, integer, uuid, bigint, text, text, integer[], text, interval);
drop function tasker_settle_failures(integer, uuid[], integer[], uuid[], tasker_outcome[], bigint[], text[], bigint[], bigint, integer);
drop function tasker_lock_failing(uuid[], integer[], uuid[], tasker_outcome[], integer);
drop function tasker_claims_exhausted(integer, text);
drop function tasker_release_steps(integer, uuid[], integer[], bigint[], text[], timestamptz[], boolean[]);
drop function tasker_lock_task(uuid);
drop function tasker_lock_movable(uuid[], uuid[], integer[]);
drop function tasker_bury_steps(integer, uuid[], integer[], bigint[], text[], jsonb[], integer[]);
drop function tasker_task_failure(uuid);
drop function tasker_conclude_task(uuid, integer);
drop function tasker_conclude_tasks(uuid[], integer);
