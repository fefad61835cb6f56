-- Claiming: taking enqueued steps from their queues. The message is deleted in
-- the transaction that leases the step, so a step in flight has no message. While
-- the message existed the queue made sure that the step runs; from now on the
-- lease does.

-- +goose Up

-- Leases up to p_qty steps from the queue whose handler is among p_served (names)
-- and p_served_ids (their ids) to p_host or, if that is null, for p_lease to the
-- outside worker p_worker. It looks only at messages after p_after: a caller that
-- has just emptied the queue up to there avoids the dead rows before it, and
-- looks from 0 once in a while.
--
-- The queue is read in the order of its messages. That is why there are no bitmap
-- scans, and why "vt + interval '0'" is written, which has no index: the planner
-- assumes that almost no message is for p_served, and would rather read and sort
-- all of a long queue.
--
-- Of the visible messages those with the highest computed priority come first:
-- the head of the queue is compared with the heads of the priority lanes.
-- Messages that cannot be read are set aside as dead letters. Messages whose step
-- cannot be claimed, or no longer, are dropped. Nothing is taken from a paused
-- queue.
--
-- A caller that already holds locks of steps does not wait for more (p_wait
-- false): messages of steps that others have locked are sent again.
--
-- Returns one row: the leased steps, the last message seen, how many messages
-- were taken, and when the leases began.
-- +goose StatementBegin
create function tasker_claim_steps(
  p_host integer, p_queue text, p_served text[], p_served_ids integer[], p_qty integer, p_after bigint default 0,
  p_worker text default null, p_lease interval default null, p_wait boolean default true,
  out o_task uuid[], out o_step integer[], out o_lease uuid[], out o_attempt integer[], out o_plan integer[], out o_generation integer[],
  out o_last bigint, out o_taken integer, out o_at timestamptz)
language plpgsql
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
#variable_conflict use_column
declare
  v_now     timestamptz;
  v_misled  boolean;   -- a message for others came here
  v_ids     bigint[];
  v_bodies  jsonb[];
  v_headers jsonb[];
  v_lanes   boolean := false;
  v_one     record;
  v_steps   uuid[];    -- the steps that the messages name; null: the message is faulty
  v_step    uuid;
  v_task    uuid;
  v_number  integer;
  v_state   tasker_step_state;
  v_missed  bigint[];  -- the positions of the messages whose steps cannot be had without waiting
  v_tasks   uuid[];    -- and those steps
  v_numbers integer[];
  v_uuid    constant text := '^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$';
begin
  o_taken := 0;
  if not tasker_may_lease(p_host) then
    return;
  end if;
  -- A statement of its own and so a new snapshot: it sees a pause that the first
  -- statement had to wait for.
  if tasker_queue_paused(p_queue) then
    return;
  end if;
  -- Read the messages in one of three ways: the most urgent if any has a priority,
  -- else a single one, or the first p_qty of the queue.
  if exists (select from tasker_priority_messages m where m.queue_name = p_queue) then
    v_lanes := true;
  elsif p_qty = 1 and p_after = 0 then  -- as below, with half as much to plan
    execute format($q$
      delete from pgmq.%1$I q
       where q.msg_id = (
         select q.msg_id from pgmq.%1$I q
          where q.vt + interval '0' <= clock_timestamp() and (q.headers ->> 'handler' is null or q.headers ->> 'handler' = any($1))
          order by q.msg_id limit 1 for update of q skip locked)
      returning array[q.msg_id], array[q.message], array[q.headers]
    $q$, 'q_' || p_queue)
    into v_ids, v_bodies, v_headers
    using p_served;
  else
    execute format($q$
      with locked as (
        select q.msg_id from pgmq.%1$I q
         where q.vt + interval '0' <= clock_timestamp() and q.msg_id > $1
           and (q.headers ->> 'handler' is null or q.headers ->> 'handler' = any($2))
         order by q.msg_id limit $3 for update of q skip locked
      ), taken as (
        delete from pgmq.%1$I q using locked l where q.msg_id = l.msg_id
        returning q.msg_id, q.message, q.headers
      )
      select array_agg(t.msg_id), array_agg(t.message), array_agg(t.headers) from (select t.msg_id, t.message, t.headers from taken t order by t.msg_id) t
    $q$, 'q_' || p_queue)
    into v_ids, v_bodies, v_headers
    using p_after, p_served, p_qty;
  end if;
  if v_lanes then
    -- head and lane: the first p_qty of the queue, and of each priority; best: the most urgent of these.
    execute format($q$
      with head as (
        select q.msg_id, q.message, q.headers from pgmq.%1$I q
         where q.vt + interval '0' <= clock_timestamp() and q.msg_id > $1
           and (q.headers ->> 'handler' is null or q.headers ->> 'handler' = any($2))
         order by q.msg_id limit $3
      ), lane as (
        select q.msg_id, q.message, q.headers
          from (select distinct m.priority from tasker_priority_messages m where m.queue_name = $4) p
         cross join lateral (
           select q.msg_id, q.message, q.headers
             from tasker_priority_messages m join pgmq.%1$I q on q.msg_id = m.msg_id
            where m.queue_name = $4 and m.priority = p.priority
              and q.vt <= clock_timestamp() and (q.headers ->> 'handler' is null or q.headers ->> 'handler' = any($2))
            order by m.msg_id limit $3) q
      ), best as (
        select c.msg_id from (select h.msg_id, h.message, h.headers from head h union select l.msg_id, l.message, l.headers from lane l) c
         order by tasker_computed_priority(
                    case when jsonb_typeof(c.headers -> 'priority') = 'number'
                         then least(greatest((c.headers ->> 'priority')::numeric, -32768), 32767)::integer else 0 end,
                    case when c.message ->> 'task_uuid' ~ $5
                         then extract(epoch from clock_timestamp() - tasker_uuid_time((c.message ->> 'task_uuid')::uuid))::double precision
                         else 1e6 end) desc, c.msg_id
         limit $3
      ), locked as (
        select q.msg_id from pgmq.%1$I q join best b on b.msg_id = q.msg_id
         order by q.msg_id for update of q skip locked
      ), taken as (
        delete from pgmq.%1$I q using locked l where q.msg_id = l.msg_id
        returning q.msg_id, q.message, q.headers
      )
      select array_agg(t.msg_id), array_agg(t.message), array_agg(t.headers) from (select t.msg_id, t.message, t.headers from taken t order by t.msg_id) t
    $q$, 'q_' || p_queue)
    into v_ids, v_bodies, v_headers
    using p_after, p_served, p_qty, p_queue, v_uuid;
  end if;

  o_taken := coalesce(cardinality(v_ids), 0);
  if o_taken = 0 then
    return;
  end if;
  o_last := v_ids[o_taken];
  -- Taken after reading the queue: a step whose message was visible is due by now.
  v_now := clock_timestamp();
  o_at := v_now;

  if v_lanes or o_taken > 1 or v_headers[1] ->> 'priority' is distinct from '0' then
    delete from tasker_priority_messages m
     using unnest(v_ids, v_headers) u(msg_id, headers)
     where m.queue_name = p_queue and m.msg_id = u.msg_id  -- a priority outside our range has no row, and may not fit a smallint
       and m.priority = case when jsonb_typeof(u.headers -> 'priority') = 'number' and (u.headers ->> 'priority')::numeric between 0 and 32767
                             then (u.headers ->> 'priority')::numeric::smallint end;
  end if;

  -- A single well-formed message for a step that is served. The statement for many
  -- below would do the same, at ten times the cost.
  if o_taken = 1 and v_bodies[1] ->> 'step_uuid' ~ v_uuid
     and lower(v_bodies[1] ->> 'task_uuid') = left(lower(v_bodies[1] ->> 'step_uuid'), 31) || '00000' then
    v_step := (v_bodies[1] ->> 'step_uuid')::uuid;
    v_task := tasker_task_of(v_step);
    v_number := tasker_step_no(v_step);
    select n.handler_id = any(p_served_ids) as served, nullif(n.timeout_ms, 0) * interval '1 millisecond' as timeout into v_one
      from tasker_workflow_steps s
      join tasker_named_steps n on n.plan_id = s.plan_id and n.step_no = s.step_no
     where s.task_uuid = v_task and s.step_no = v_number;
    if v_one.served then
      if p_wait then
        select s.state into v_state from tasker_workflow_steps s
         where s.task_uuid = v_task and s.step_no = v_number
           and s.state in ('enqueued', 'pending') and s.remaining_parents = 0 and coalesce(s.due_at, v_now) <= v_now
           for update;
      else
        select s.state into v_state from tasker_workflow_steps s
         where s.task_uuid = v_task and s.step_no = v_number
           and s.state in ('enqueued', 'pending') and s.remaining_parents = 0 and coalesce(s.due_at, v_now) <= v_now
           for update skip locked;
        if not found then
          perform tasker_enqueue_one(v_task, v_number, null) from tasker_workflow_steps s
            where s.task_uuid = v_task and s.step_no = v_number
              and s.state in ('enqueued', 'pending') and s.remaining_parents = 0 and coalesce(s.due_at, v_now) <= v_now;
          return;
        end if;
      end if;
      if v_state is null then
        return;
      end if;
      update tasker_workflow_steps s
         set state = 'in_progress', sort_key = s.sort_key + 1, lease_no = s.lease_no + 1, claims = s.claims + 1,
             lease_host = p_host, lease_id = gen_random_uuid(), due_at = null, updated_at = v_now,
             lease_until = case when p_worker is not null then v_now + least(p_lease, v_one.timeout) end
       where s.task_uuid = v_task and s.step_no = v_number
      returning s.sort_key, s.lease_id, s.attempts, s.plan_id, s.generation into v_one;
      insert into tasker_workflow_step_transitions (task_uuid, step_no, sort_key, from_state, to_state, created_at, host_id, lease_id, metadata)
      values (v_task, v_number, v_one.sort_key, v_state, 'in_progress', v_now, p_host, v_one.lease_id,
              case when p_worker is not null then jsonb_build_object('worker', p_worker) end);
      o_task := array[v_task]; o_step := array[v_number]; o_lease := array[v_one.lease_id];
      o_attempt := array[v_one.attempts + 1]; o_plan := array[v_one.plan_id]; o_generation := array[v_one.generation::integer];
      return;
    end if;
  end if;

  -- Casting all of them at once shows whether each names a step, and costs less than
  -- matching each with an expression. Only if one does not are they checked singly.
  begin
    v_steps := array(select case when lower(b.body ->> 'step_uuid') = b.step::text and lower(b.body ->> 'task_uuid') = tasker_task_of(b.step)::text then b.step end
                       from (select u.body, (u.body ->> 'step_uuid')::uuid as step from unnest(v_bodies) u(body)) b);
  exception when invalid_text_representation then
    v_steps := array(select case when b.body ->> 'step_uuid' ~ v_uuid and lower(b.body ->> 'task_uuid') = left(lower(b.body ->> 'step_uuid'), 31) || '00000'
                                 then (b.body ->> 'step_uuid')::uuid end
                       from unnest(v_bodies) b(body));
  end;

  -- Take the locks that are free, and hide the steps that others have locked from
  -- the statement below.
  if not p_wait then
    with named as materialized (
      select u.ord, s.task_uuid, s.step_no
        from unnest(v_steps) with ordinality u(step, ord)
       cross join lateral (  -- as in tasker_enqueue
         select o.task_uuid, o.step_no, o.plan_id from tasker_workflow_steps o
          where o.task_uuid = tasker_task_of(u.step) and o.step_no = tasker_step_no(u.step) offset 0) s
       cross join lateral (
         select z.handler_id from tasker_named_steps z where z.plan_id = s.plan_id and z.step_no = s.step_no offset 0) n
       where n.handler_id = any(p_served_ids)
    ), locked as materialized (
      select s.task_uuid, s.step_no
        from (select distinct n.task_uuid, n.step_no from named n) n
        join tasker_workflow_steps s on s.task_uuid = n.task_uuid and s.step_no = n.step_no
       where s.state in ('enqueued', 'pending') and s.remaining_parents = 0 and coalesce(s.due_at, v_now) <= v_now
         for update of s skip locked
    )
    select array_agg(n.ord), array_agg(n.task_uuid), array_agg(n.step_no) into v_missed, v_tasks, v_numbers
      from named n where (n.task_uuid, n.step_no) not in (select l.task_uuid, l.step_no from locked l);
    if v_missed is not null then
      -- A new statement: steps that were started or settled meanwhile need no message.
      perform tasker_enqueue(array_agg(m.task_uuid), array_agg(m.step_no))
         from (select distinct s.task_uuid, s.step_no
                 from unnest(v_tasks, v_numbers) u(task_uuid, step_no)
                 join tasker_workflow_steps s on s.task_uuid = u.task_uuid and s.step_no = u.step_no
                where s.state in ('enqueued', 'pending') and s.remaining_parents = 0 and coalesce(s.due_at, v_now) <= v_now) m
       having count(*) > 0;
      select array_agg(u.msg_id order by u.ord), array_agg(u.body order by u.ord), array_agg(u.headers order by u.ord), array_agg(u.step order by u.ord)
        into v_ids, v_bodies, v_headers, v_steps
        from unnest(v_ids, v_bodies, v_headers, v_steps) with ordinality u(msg_id, body, headers, step, ord)
       where u.ord <> all(v_missed);
      if v_ids is null then
        return;
      end if;
    end if;
  end if;

  with message as materialized (  -- what is wrong with each; null: nothing
    select u.msg_id, u.body, u.headers,
           case when u.step is not null then null
                when jsonb_typeof(u.body) is distinct from 'object' then 'not_an_object'
                when u.body ->> 'step_uuid' is null then 'no_step_uuid'
                when u.body ->> 'task_uuid' is null then 'no_task_uuid'
                when u.body ->> 'step_uuid' !~ v_uuid or u.body ->> 'task_uuid' !~ v_uuid then 'not_a_uuid'
                when left(lower(u.body ->> 'step_uuid'), 31) <> left(lower(u.body ->> 'task_uuid'), 31)
                  or right(u.body ->> 'task_uuid', 5) <> '00000' then 'foreign_step'
           end as fault
      from unnest(v_ids, v_bodies, v_headers, v_steps) u(msg_id, body, headers, step)
  ), named as materialized (  -- the steps they name; no task_uuid: no such step
    select m.msg_id, m.body, m.headers, s.task_uuid, s.step_no,
           n.handler_id = any(p_served_ids) as served, nullif(n.timeout_ms, 0) * interval '1 millisecond' as timeout
      from message m
      left join tasker_workflow_steps s
        on s.task_uuid = (m.body ->> 'task_uuid')::uuid and s.step_no = tasker_step_no((m.body ->> 'step_uuid')::uuid)
      left join tasker_named_steps n on n.plan_id = s.plan_id and n.step_no = s.step_no
     where m.fault is null
  ), poison as (
    insert into tasker_dead_letters (kind, queue_name, msg_id, reason, detail, body, headers)
    select 'message', p_queue, m.msg_id, m.fault, 'a step message holds task_uuid, step_uuid and ready_dependency_step_uuids', m.body, m.headers
      from message m where m.fault is not null
    union all
    select 'message', p_queue, n.msg_id, 'unknown_step', 'no step has this UUID', n.body, n.headers
      from named n where n.task_uuid is null
  ), waiting as materialized (
    -- The state as it is under the lock, which may be newer than what the
    -- statement sees: the history must say where the step came from.
    select s.task_uuid, s.step_no, s.state, n.timeout
      from (select distinct on (n.task_uuid, n.step_no) n.task_uuid, n.step_no, n.timeout from named n where n.served order by n.task_uuid, n.step_no) n
      join tasker_workflow_steps s on s.task_uuid = n.task_uuid and s.step_no = n.step_no
     where s.state in ('enqueued', 'pending') and s.remaining_parents = 0 and coalesce(s.due_at, v_now) <= v_now
     order by s.task_uuid, s.step_no
       for update of s
  ), claimed as (
    update tasker_workflow_steps s
       set state = 'in_progress', sort_key = s.sort_key + 1, lease_no = s.lease_no + 1, claims = s.claims + 1,
           lease_host = p_host, lease_id = gen_random_uuid(), due_at = null, updated_at = v_now,
           lease_until = case when p_worker is not null then v_now + least(p_lease, w.timeout) end
      from waiting w
     where s.task_uuid = w.task_uuid and s.step_no = w.step_no
    returning s.task_uuid, s.step_no, s.sort_key, s.lease_id, s.attempts, s.plan_id, s.generation, w.state as came_from
  ), logged as (
    insert into tasker_workflow_step_transitions (task_uuid, step_no, sort_key, from_state, to_state, created_at, host_id, lease_id, metadata)
    select c.task_uuid, c.step_no, c.sort_key, c.came_from, 'in_progress', v_now, p_host, c.lease_id,
           case when p_worker is not null then jsonb_build_object('worker', p_worker) end
      from claimed c
  )
  select l.tasks, l.steps, l.leases, l.attempts, l.plans, l.generations, exists (select from named n where not n.served)
    into o_task, o_step, o_lease, o_attempt, o_plan, o_generation, v_misled
    from (select array_agg(c.task_uuid) as tasks, array_agg(c.step_no) as steps, array_agg(c.lease_id) as leases,
                 array_agg(c.attempts + 1) as attempts, array_agg(c.plan_id) as plans, array_agg(c.generation::integer) as generations
            from claimed c) l;

  -- The headers of some messages did not match the plan. Send those messages again
  -- with the right headers, for whoever serves the handler.
  if v_misled then
    perform tasker_enqueue(array_agg(u.task_uuid), array_agg(u.step_no))
       from (select s.task_uuid, s.step_no
               from unnest(v_bodies, v_headers) b(body, headers)
               join tasker_workflow_steps s
                 on s.task_uuid = case when b.body ->> 'task_uuid' ~ v_uuid then (b.body ->> 'task_uuid')::uuid end
                and s.step_no = case when b.body ->> 'step_uuid' ~ v_uuid then tasker_step_no((b.body ->> 'step_uuid')::uuid) end
               join tasker_named_steps n on n.plan_id = s.plan_id and n.step_no = s.step_no
              where s.state = 'enqueued' and not n.handler_id = any(p_served_ids)) u
     having count(*) > 0;
  end if;
end
$$;
-- +goose StatementEnd

-- What steps need to run, for steps that a host holds leases on: the inputs of
-- their tasks and the results of the steps named. Read-only.
-- +goose StatementBegin
create function tasker_step_inputs(p_task uuid[], p_wanted_task uuid[], p_wanted_step integer[])
returns table (o_task uuid, o_step integer, o_value jsonb)
language plpgsql stable
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
begin
  return query
  select t.task_uuid, v.number, v.value
    from unnest(p_task) u(task_uuid)
    join tasker_tasks t on t.task_uuid = u.task_uuid
   cross join lateral (values (-1, t.context), (-2, t.attributes -> 'traceparent')) v(number, value)
   where v.value is not null;
  return query
  select s.task_uuid, s.step_no, s.result
    from unnest(p_wanted_task, p_wanted_step) u(task_uuid, step_no)
    join tasker_workflow_steps s on s.task_uuid = u.task_uuid and s.step_no = u.step_no
   where s.state in ('complete', 'resolved_manually');
end
$$;
-- +goose StatementEnd

-- Moves a message that cannot be processed from its queue to the dead letters.
-- Returns whether the message was still there.
-- +goose StatementBegin
create function tasker_set_aside(p_queue text, p_msg_id bigint, p_reason text, p_detail text)
returns boolean language plpgsql as $$
declare
  v_row record;
begin
  execute format('delete from pgmq.%I q where q.msg_id = $1 returning q.msg_id, q.message, q.headers', 'q_' || p_queue)
     into v_row using p_msg_id;
  if v_row.msg_id is null then
    return false;
  end if;
  insert into tasker_dead_letters (kind, queue_name, msg_id, reason, detail, body, headers)
  values ('message', p_queue, p_msg_id, p_reason, p_detail, v_row.message, v_row.headers);
  return true;
end
$$;
-- +goose StatementEnd

-- +goose Down
drop function tasker_set_aside(text, bigint, text, text);
drop function tasker_step_inputs(uuid[], uuid[], integer[]);
drop function tasker_claim_steps(integer, text, text[], integer[], integer, bigint, text, interval, boolean);
