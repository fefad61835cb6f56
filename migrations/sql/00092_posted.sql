-- Results that outside workers post on a queue, as in the reference: such a worker
-- reads the message of a step with any pgmq client, runs the step and sends its
-- outcome. A host judges the outcome. It removes the message in the transaction of
-- the judgement, so a call that is repeated because its reply was lost finds the
-- messages gone and changes nothing.
--
-- Locks are taken in the order of 00040_settle.sql, but after those of the messages:
-- whoever holds one of these wants nothing else of this queue.

-- +goose Up

-- Records outcomes that were posted on p_queue. The arrays are ordered, and have the
-- same meaning as in tasker_settle_steps; p_msg_id is the message that each outcome
-- came in, and p_lease the lease that it names. An outcome without a lease (null) is from a
-- worker that has claimed nothing. It counts if the step could be claimed now: then the
-- step is leased and settled here in one go. Of several such outcomes for one step the
-- first counts. p_host is the calling host, for the history: nothing is leased to it.
--
-- The message of an outcome that counts, now or already before, is removed; all others
-- are set aside. A message that is gone has been judged: its outcome is not looked at,
-- and the verdict is already_recorded. Otherwise the verdicts, and everything else that
-- is returned, are those of tasker_settle_steps.
-- +goose StatementBegin
create function tasker_settle_posted(
  p_host integer, p_queue text, p_msg_id bigint[], p_task uuid[], p_step integer[], p_lease uuid[], p_outcome tasker_outcome[],
  p_result text[], p_metadata text[], p_error text[], p_retry_after_ms bigint[],
  p_retry_after_cap_ms bigint, p_claim_factor integer,
  out o_verdict text[], out o_finished uuid[], out o_finished_state text[], out o_due timestamptz[], out o_enqueued integer)
language plpgsql
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
#variable_conflict use_column
declare
  v_never  constant uuid := '00000000-0000-0000-0000-000000000000';  -- nobody's lease
  v_now    timestamptz := clock_timestamp();
  v_lease  uuid[] := p_lease;
  v_there  bigint[];
  v_gone   integer[] := '{}';  -- the outcomes whose messages are gone
  v_judged bigint[] := '{}';
  v_ord    integer;
  v_row    record;
  v_done   record;
begin
  execute format('select array_agg(l.msg_id) from (select q.msg_id from pgmq.%I q where q.msg_id = any($1) order by q.msg_id for update) l',
                 'q_' || p_queue) into v_there using p_msg_id;
  if cardinality(v_there) is distinct from cardinality(p_msg_id) then
    v_gone := array(
      select min(m.ord) from (select u.msg_id, u.ord from unnest(p_msg_id) with ordinality u(msg_id, ord)
                              union all
                              select u.msg_id, null from unnest(v_there) u(msg_id)) m
       group by m.msg_id having count(*) = 1);
    foreach v_ord in array v_gone loop
      v_lease[v_ord] := v_never;
    end loop;
  end if;

  if array_position(v_lease, null) is not null then
    -- Lock everything that settling will lock, in its order, before anything is leased.
    if p_outcome[1] = 'success' then
      perform from (select distinct u.task_uuid, u.step_no from unnest(p_task, p_step) u(task_uuid, step_no)) u
         join tasker_workflow_steps s on s.task_uuid = u.task_uuid and s.step_no = u.step_no
        where s.state in ('enqueued', 'in_progress') or s.state = 'pending' and s.remaining_parents = 0
        order by s.task_uuid, s.step_no for update of s;
    else
      perform tasker_lock_failing(p_task, p_step, v_lease, p_outcome, p_claim_factor);
    end if;
    v_now := clock_timestamp();  -- a step that was settled while this waited may be due
    for v_row in
      with adopted as (
        update tasker_workflow_steps s
           set state = 'in_progress', sort_key = s.sort_key + 1, lease_no = s.lease_no + 1, claims = s.claims + 1,
               lease_host = null, lease_id = gen_random_uuid(), lease_until = v_now + interval '1 minute', due_at = null, updated_at = v_now
          from (select u.task_uuid, u.step_no, min(u.ord) as ord
                  from unnest(p_task, p_step, v_lease) with ordinality u(task_uuid, step_no, lease_id, ord)
                 where u.lease_id is null
                 group by u.task_uuid, u.step_no) u
         cross join lateral (  -- as in tasker_enqueue
           select o.state from tasker_workflow_steps o where o.task_uuid = u.task_uuid and o.step_no = u.step_no offset 0) was
         where s.task_uuid = u.task_uuid and s.step_no = u.step_no
           and (s.state = 'enqueued' or s.state = 'pending' and coalesce(s.due_at, v_now) <= v_now) and s.remaining_parents = 0
        returning s.task_uuid, s.step_no, s.sort_key, s.lease_id, was.state as from_state, u.ord
      ), logged as (
        insert into tasker_workflow_step_transitions (task_uuid, step_no, sort_key, from_state, to_state, created_at, host_id, lease_id, metadata)
        select a.task_uuid, a.step_no, a.sort_key, a.from_state, 'in_progress', v_now, p_host, a.lease_id, '{"reason": "result_without_claim"}'
          from adopted a
      )
      select a.ord, a.lease_id from adopted a
    loop
      v_lease[v_row.ord] := v_row.lease_id;
    end loop;
    v_lease := array_replace(v_lease, null, v_never);
  end if;

  v_done := tasker_settle_steps(p_host, 0, '{}', p_task, p_step, v_lease, p_outcome, array_fill(null::bigint, array[cardinality(p_task)]),
                                p_result, p_metadata, p_error, p_retry_after_ms, p_retry_after_cap_ms, p_claim_factor);
  o_verdict := v_done.o_verdict; o_finished := v_done.o_finished; o_finished_state := v_done.o_finished_state;
  o_due := v_done.o_due; o_enqueued := v_done.o_enqueued;
  for v_row in  -- steps that were claimed through the functions for workers, but whose outcome was posted
    select u.outcome, array_agg(u.lease_id) as leases
      from unnest(p_lease, p_outcome, o_verdict) u(lease_id, outcome, verdict)
     where u.lease_id is not null and u.verdict = 'recorded'
     group by u.outcome order by u.outcome
  loop
    perform tasker_worker_count(v_row.leases, v_row.outcome);
  end loop;

  foreach v_ord in array v_gone loop
    o_verdict[v_ord] := 'already_recorded';
  end loop;
  for i in 1 .. cardinality(p_msg_id) loop
    if o_verdict[i] in ('recorded', 'already_recorded') then
      v_judged := v_judged || p_msg_id[i];
    elsif o_verdict[i] = 'unknown' then
      perform tasker_set_aside(p_queue, p_msg_id[i], 'unknown_step', 'no step has this UUID');
    else
      perform tasker_set_aside(p_queue, p_msg_id[i], 'stale_result', 'the step is not (or no longer) run under this lease');
    end if;
  end loop;
  perform pgmq.delete(p_queue, v_judged);
end
$$;
-- +goose StatementEnd

-- +goose Down
drop function tasker_settle_posted(integer, text, bigint[], uuid[], integer[], uuid[], tasker_outcome[], text[], text[], text[], bigint[], bigint, integer);
