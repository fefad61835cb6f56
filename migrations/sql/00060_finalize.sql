-- Finalization outside the settling transaction, for what cannot be done there:
-- tasks found blocked, repaired or left behind, and callers from outside. The
-- claim has its own columns, a fresh lease for every claim and an expiry on the
-- database's clock, and every attempt is recorded.

-- +goose Up

-- Tries to claim a task for finalization. The claim excludes everybody, including
-- the same processor, until it is released or p_timeout_seconds have passed. Using
-- it requires its lease. A caller that is refused loses nothing: the work that it
-- came for will be found again.
-- +goose StatementBegin
create function claim_task_for_finalization(p_task_uuid uuid, p_processor_id text, p_timeout_seconds integer default 30)
returns table (claimed boolean, already_claimed_by text, task_state text, message text,
               finalization_attempt_uuid uuid, lease_id uuid)
language plpgsql as $$
#variable_conflict use_column
declare
  v_task  record;
  v_found boolean;
  v_now   timestamptz;
  v_state text;
begin
  claimed := false;
  if p_timeout_seconds is null or p_timeout_seconds not between 1 and 3600 then
    raise exception 'claim of task % for finalization: timeout of % seconds is not between 1 and 3600', p_task_uuid, p_timeout_seconds
      using errcode = 'invalid_parameter_value';
  elsif coalesce(p_processor_id, '') = '' then
    raise exception 'claim of task % for finalization: no processor id', p_task_uuid using errcode = 'invalid_parameter_value';
  end if;
  select t.state, t.finalize_by, t.finalize_until into v_task from tasker_tasks t where t.task_uuid = p_task_uuid for update;
  v_found := found;
  v_now := clock_timestamp();
  if not v_found then
    task_state := 'not_found'; message := 'Task not found';
  elsif v_task.state = 'complete' then
    task_state := 'complete'; message := 'Task already complete';
  elsif v_task.state <> 'in_progress' then
    task_state := v_task.state; message := 'Task already settled';
  else
    select c.execution_status into v_state from get_task_execution_context(p_task_uuid) c;
    task_state := v_state;
    if v_task.finalize_until > v_now then
      already_claimed_by := v_task.finalize_by; message := 'Task already claimed for finalization';
    elsif not exists (select from tasker_workflow_steps s where s.task_uuid = p_task_uuid
                         and s.state in ('complete', 'error', 'cancelled', 'resolved_manually')) then
      message := 'Task has no completed or failed steps';
    else
      claimed := true; message := 'Successfully claimed for finalization'; lease_id := gen_random_uuid();
      update tasker_tasks t
         set finalize_lease = lease_id, finalize_by = p_processor_id, finalize_claims = t.finalize_claims + 1,
             finalize_until = v_now + p_timeout_seconds * interval '1 second'
       where t.task_uuid = p_task_uuid;
    end if;
  end if;
  insert into tasker_finalization_attempts (task_uuid, processor_id, claimed, already_claimed_by, task_state, message, lease_id)
  values (p_task_uuid, p_processor_id, claimed, already_claimed_by, task_state, message, lease_id)
  returning finalization_attempt_uuid into finalization_attempt_uuid;
  return next;
end
$$;
-- +goose StatementEnd

-- Gives up a claim. Without a lease it releases the processor's own claim, as
-- the reference did; with a lease, only the claim of that lease. Returns whether
-- a claim was released.
-- +goose StatementBegin
create function release_finalization_claim(p_task_uuid uuid, p_processor_id text, p_lease_id uuid default null)
returns boolean language plpgsql as $$
begin
  update tasker_tasks t
     set finalize_lease = null, finalize_by = null, finalize_until = null
   where t.task_uuid = p_task_uuid and t.finalize_by = p_processor_id
     and (p_lease_id is null or t.finalize_lease = p_lease_id);
  return found;
end
$$;
-- +goose StatementEnd

-- Applies a finalization under its lease: concludes the task as
-- tasker_conclude_task does. That function looks again under the lock, so a
-- decision based on older facts cannot finish a task early. Returns the task's
-- resulting state, or null if the lease is not, or no longer, the task's current
-- claim: then nothing was changed.
-- +goose StatementBegin
create function tasker_apply_finalization(p_task uuid, p_lease uuid, p_host integer)
returns tasker_task_state language plpgsql as $$
declare
  v_lease uuid;
  v_until timestamptz;
begin
  select t.finalize_lease, t.finalize_until into v_lease, v_until from tasker_tasks t where t.task_uuid = p_task for update;
  if p_lease is null or v_lease is distinct from p_lease or v_until <= clock_timestamp() then
    return null;
  end if;
  return tasker_conclude_task(p_task, p_host);
end
$$;
-- +goose StatementEnd

-- Ends a task on behalf of an operator, as cancelled or resolved_manually. Every
-- step that is not settled is cancelled. Failed steps are cancelled as well if the
-- task is cancelled, and stay failed if it is resolved. Hosts that run a step are
-- told with their next heartbeat; outcomes that they still report are stale.
-- Returns the task's state and whether this call ended it; no row: no such task.
-- +goose StatementBegin
create function tasker_end_task(p_task uuid, p_state tasker_task_state, p_reason text, p_by text, p_host integer)
returns table (o_state tasker_task_state, o_ended boolean)
language plpgsql as $$
#variable_conflict use_column
declare
  v_now  timestamptz;
  v_why  constant text := case p_state when 'cancelled' then 'task_cancelled' else 'task_resolved' end;
  v_gone constant tasker_step_state[] := case p_state
    when 'cancelled' then '{pending,enqueued,in_progress,error}' else '{pending,enqueued,in_progress}' end;
begin
  o_state := tasker_lock_task(p_task);
  if o_state is null then
    return;
  end if;
  if not tasker_legal_task_edge(o_state, p_state) then
    o_ended := false;
    return next; return;
  end if;
  if o_state = 'error' then
    perform tasker_note_reopened(p_task);   -- it had ended already, and ends again
  end if;
  v_now := clock_timestamp();
  insert into tasker_revocations (host_id, task_uuid, step_no, lease_id, reason)
  select s.lease_host, s.task_uuid, s.step_no, s.lease_id, v_why
    from tasker_workflow_steps s
   where s.task_uuid = p_task and s.state = 'in_progress' and s.lease_host is not null and s.lease_id is not null;
  insert into tasker_workflow_step_transitions
    (task_uuid, step_no, sort_key, from_state, to_state, created_at, host_id, lease_id, metadata)
  select s.task_uuid, s.step_no, s.sort_key + 1, s.state, 'cancelled', v_now, p_host, s.lease_id, jsonb_build_object('reason', v_why)
    from tasker_workflow_steps s
   where s.task_uuid = p_task and s.state = any(v_gone);
  update tasker_workflow_steps s
     set state = 'cancelled', sort_key = s.sort_key + 1, lease_until = null, due_at = null, updated_at = v_now
   where s.task_uuid = p_task and s.state = any(v_gone);
  update tasker_tasks t
     set state = p_state, sort_key = t.sort_key + 1, completed_at = v_now,
         finalize_lease = null, finalize_by = null, finalize_until = null
   where t.task_uuid = p_task;
  insert into tasker_task_transitions (task_uuid, sort_key, from_state, to_state, created_at, host_id, metadata)
  select p_task, t.sort_key, o_state, p_state, v_now, p_host,
         jsonb_strip_nulls(jsonb_build_object('reason', p_reason, 'by', nullif(p_by, '')))
    from tasker_tasks t where t.task_uuid = p_task;
  perform tasker_close_letters(p_task, null, case p_state when 'cancelled' then 'cancelled' else 'resolved' end, p_reason, p_by);
  o_state := p_state; o_ended := true;
  return next;
end
$$;
-- +goose StatementEnd

-- Cancels a task and all its steps that are not settled. Returns the task's
-- state and whether this call cancelled it; no row: no such task.
-- +goose StatementBegin
create function tasker_cancel_task(p_task uuid, p_reason text, p_by text, p_host integer default null)
returns table (o_state tasker_task_state, o_cancelled boolean)
language sql as $$
  select e.o_state, e.o_ended from tasker_end_task(p_task, 'cancelled', p_reason, p_by, p_host) e
$$;
-- +goose StatementEnd

-- +goose Down
drop function tasker_cancel_task(uuid, text, text, integer);
drop function tasker_end_task(uuid, tasker_task_state, text, text, integer);
drop function tasker_apply_finalization(uuid, uuid, integer);
drop function release_finalization_claim(uuid, text, uuid);
drop function claim_task_for_finalization(uuid, text, integer);
