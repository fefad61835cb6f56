-- Creating tasks: a batch at a time, in one transaction with everything it
-- causes and with the removal of the request it answers.

-- +goose Up

-- Sends a message for each step of the arrays to its namespace's queue, visible
-- from p_due on (null: at once), in the order of the arrays. The steps must be
-- enqueued, or pending with a due time, in the same transaction.
-- +goose StatementBegin
create function tasker_enqueue(p_task uuid[], p_step integer[], p_due timestamptz default null)
returns void language plpgsql as $$
declare
  v_queue record;
  v_ids   bigint[];
begin
  for v_queue in
    select ns.name || '_queue' as name,
           array_agg(jsonb_build_object(
             'task_uuid', t.task_uuid,
             'step_uuid', tasker_step_uuid(t.task_uuid, s.step_no),
             'ready_dependency_step_uuids',
               (select coalesce(jsonb_agg(tasker_step_uuid(t.task_uuid, p.n) order by p.n), '[]') from unnest(s.parents[1:100]) p(n)))
             order by u.ord) as bodies,
           array_agg(jsonb_build_object('handler', h.name, 'priority', coalesce(s.priority, t.priority)) order by u.ord) as headers,
           array_agg(coalesce(s.priority, t.priority) order by u.ord) as priorities
      from unnest(p_task, p_step) with ordinality u(task_uuid, step_no, ord)
      join tasker_tasks t on t.task_uuid = u.task_uuid
      join tasker_named_steps s on s.plan_id = t.plan_id and s.step_no = u.step_no
      join tasker_handlers h on h.handler_id = s.handler_id
      join tasker_task_namespaces ns on ns.namespace_id = t.namespace_id
     group by ns.name
     order by ns.name
  loop
    if p_due is null then
      v_ids := array(select pgmq.send_batch(v_queue.name, v_queue.bodies, v_queue.headers));
    else
      v_ids := array(select pgmq.send_batch(v_queue.name, v_queue.bodies, v_queue.headers, p_due));
    end if;
    if exists (select from unnest(v_queue.priorities) p where p > 0) then
      insert into tasker_priority_messages (queue_name, priority, msg_id)
      select v_queue.name, u.priority, u.msg_id
        from unnest(v_queue.priorities, v_ids) u(priority, msg_id)
       where u.priority > 0;
    end if;
  end loop;
end
$$;
-- +goose StatementEnd

-- Creates the tasks of the arrays, which must be ordered by p_task. Per task:
--   p_task         its UUID
--   p_plan         the plan it follows
--   p_context      its input, a JSON object
--   p_priority     null: the plan's
--   p_identity     SHA-256 over what identifies the request
--   p_attributes   tags, initiator and the like; null: none
--   p_key, p_hash  idempotency key and hash of the request; null: none
--   p_request      the message on p_request_queue that asks for it; null: none
-- Root steps whose handler is in p_served are leased to p_host, as many as
-- p_room; the others are enqueued.
--
-- Returns a row per task, in order:
--   outcome  created; duplicate (the key was used for the same request: task is
--            the one it made); conflict (the key was used for another request);
--            gone (the request's message is somebody else's)
--   steps    the numbers of the steps leased to the host, with their leases
-- +goose StatementBegin
create function tasker_create_tasks(
  p_host integer, p_room integer, p_served integer[],
  p_task uuid[], p_plan integer[], p_context text[], p_priority integer[], p_identity bytea[], p_attributes text[],
  p_key text[] default null, p_hash bytea[] default null,
  p_request_queue text default null, p_request bigint[] default null)
returns table (o_outcome text, o_task uuid, o_steps integer[], o_leases uuid[])
language plpgsql
set plan_cache_mode = force_generic_plan set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
#variable_conflict use_column
declare
  v_now     timestamptz := clock_timestamp();
  v_count   integer := cardinality(p_task);
  v_outcome text[] := array_fill('created'::text, array[v_count]);
  v_result  uuid[] := p_task;
  v_plan    integer[] := p_plan;   -- null where no task is to be made
  v_taken   bigint[] := '{}';
  v_bodies  jsonb[];
  v_headers jsonb[];
  v_row     record;
  v_used    record;
  v_tasks   uuid[];
  v_steps   integer[];
begin
  if p_room > 0 and not tasker_may_lease(p_host) then
    p_room := 0;
  end if;
  if p_request is not null then
    execute format($q$
      with taken as (delete from pgmq.%I q where q.msg_id = any($1) returning q.msg_id, q.message, q.headers)
      select coalesce(array_agg(t.msg_id), '{}'), array_agg(t.message), array_agg(t.headers) from taken t
    $q$, 'q_' || p_request_queue)
    into v_taken, v_bodies, v_headers using array_remove(p_request, null);
    for i in 1 .. v_count loop
      if p_request[i] is not null and not p_request[i] = any(v_taken) then
        v_outcome[i] := 'gone'; v_plan[i] := null;
      end if;
    end loop;
  end if;

  if p_key is not null then
    for v_row in
      select u.ord, u.key, u.hash, u.task_uuid, p.namespace_id
        from unnest(p_key, p_hash, p_task, v_plan) with ordinality u(key, hash, task_uuid, plan_id, ord)
        join tasker_task_plans p on p.plan_id = u.plan_id
       where u.key is not null
       order by p.namespace_id, u.key, u.ord
    loop
      insert into tasker_idempotency_keys (namespace_id, idempotency_key, task_uuid, request_hash)
      values (v_row.namespace_id, v_row.key, v_row.task_uuid, v_row.hash)
      on conflict do nothing;
      if not found then
        select k.task_uuid, k.request_hash = v_row.hash as same into v_used
          from tasker_idempotency_keys k
         where k.namespace_id = v_row.namespace_id and k.idempotency_key = v_row.key;
        v_result[v_row.ord] := v_used.task_uuid;
        v_outcome[v_row.ord] := case when v_used.same then 'duplicate' else 'conflict' end;
        v_plan[v_row.ord] := null;
      end if;
    end loop;
    insert into tasker_dead_letters (kind, queue_name, msg_id, reason, detail, body, headers)
    select 'message', p_request_queue, m.msg_id, 'request_id_reused', 'the request_id was used for another request', m.body, m.headers
      from unnest(v_taken, v_bodies, v_headers) m(msg_id, body, headers)
      join unnest(p_request, v_outcome) u(msg_id, outcome) on u.msg_id = m.msg_id
     where u.outcome = 'conflict';
  end if;

  insert into tasker_tasks (task_uuid, plan_id, namespace_id, open_sinks, total_steps, sort_key, priority, state,
                            created_at, requested_at, started_at, context, identity_hash, attributes)
  select u.task_uuid, u.plan_id, p.namespace_id, p.sink_count, p.step_count, 2, coalesce(u.priority, p.priority), 'in_progress',
         v_now, (u.attributes::jsonb ->> 'requested_at')::timestamptz, v_now,
         u.context::jsonb, u.identity, u.attributes::jsonb - 'requested_at'
    from unnest(p_task, v_plan, p_context, p_priority, p_identity, p_attributes)
         u(task_uuid, plan_id, context, priority, identity, attributes)
    join tasker_task_plans p on p.plan_id = u.plan_id;

  insert into tasker_task_transitions (task_uuid, sort_key, from_state, to_state, created_at, host_id)
  select u.task_uuid, 2, 'pending', 'in_progress', v_now, p_host
    from unnest(p_task, v_plan) u(task_uuid, plan_id)
   where u.plan_id is not null;

  return query
  with wanted as (
    select u.ord, u.task_uuid, n.plan_id, n.step_no, n.parent_count,
           n.parent_count = 0 as root,
           n.parent_count = 0 and n.handler_id = any(p_served)
             and row_number() over (order by n.parent_count > 0, n.handler_id = any(p_served) desc, u.ord, n.step_no) <= p_room as hand
      from unnest(p_task, v_plan) with ordinality u(task_uuid, plan_id, ord)
      join tasker_named_steps n on n.plan_id = u.plan_id
  ), made as (
    insert into tasker_workflow_steps (task_uuid, step_no, plan_id, remaining_parents, state, updated_at, sort_key,
                                       lease_no, claims, lease_host, lease_id)
    select w.task_uuid, w.step_no, w.plan_id, w.parent_count,
           (case when w.hand then 'in_progress' when w.root then 'enqueued' else 'pending' end)::tasker_step_state, v_now,
           case when w.root then 2 else 1 end,
           w.hand::integer, w.hand::integer, case when w.hand then p_host end, case when w.hand then gen_random_uuid() end
      from wanted w
     order by w.task_uuid, w.step_no
    returning task_uuid, step_no, state, lease_id
  ), logged as (
    insert into tasker_workflow_step_transitions (task_uuid, step_no, sort_key, from_state, to_state, created_at, host_id, lease_id)
    select m.task_uuid, m.step_no, 2, 'pending', m.state, v_now, p_host, m.lease_id
      from made m where m.state <> 'pending'
  ), leased as (
    select m.task_uuid, array_agg(m.step_no order by m.step_no) as steps, array_agg(m.lease_id order by m.step_no) as leases
      from made m where m.state = 'in_progress'
     group by m.task_uuid
  )
  select u.outcome, u.result, coalesce(l.steps, '{}'), coalesce(l.leases, '{}')
    from unnest(v_outcome, v_result, p_task) with ordinality u(outcome, result, task_uuid, ord)
    left join leased l on l.task_uuid = u.task_uuid and u.outcome = 'created'
   order by u.ord;

  select array_agg(s.task_uuid order by u.ord, s.step_no), array_agg(s.step_no order by u.ord, s.step_no)
    into v_tasks, v_steps
    from unnest(p_task, v_plan) with ordinality u(task_uuid, plan_id, ord)
    join tasker_workflow_steps s on s.task_uuid = u.task_uuid
   where u.plan_id is not null and s.state = 'enqueued'
     and s.task_uuid between p_task[1] and p_task[v_count];
  if v_tasks is not null then
    perform tasker_enqueue(v_tasks, v_steps);
  end if;
end
$$;
-- +goose StatementEnd

-- +goose Down
drop function tasker_create_tasks(integer, integer, integer[], uuid[], integer[], text[], integer[], bytea[], text[],
                                  text[], bytea[], text, bigint[]);
drop function tasker_enqueue(uuid[], integer[], timestamptz);
