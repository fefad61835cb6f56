-- Creating tasks: a batch at a time, in one transaction with everything that
-- follows from it and with the removal of the request that it answers.

-- +goose Up

-- Sends the message of one step, as tasker_enqueue does for many. For a single step
-- the machinery for sets costs several times the work itself, and pgmq's own
-- function as much again.
-- +goose StatementBegin
create function tasker_enqueue_one(p_task uuid, p_step integer, p_due timestamptz)
returns void language plpgsql as $$
declare
  v_task    record;
  v_step    record;
  v_queue   text;
  v_id      bigint;
  v_parent  integer;
  v_parents uuid[] := '{}';
begin
  select t.plan_id, t.namespace_id, t.priority, t.attributes -> 'traceparent' as trace, t.attributes ? 'traceparent' as traced into v_task
    from tasker_tasks t where t.task_uuid = p_task;
  select n.parents, coalesce(n.priority, v_task.priority) as priority, h.name as handler into v_step
    from tasker_named_steps n join tasker_handlers h on h.handler_id = n.handler_id
   where n.plan_id = v_task.plan_id and n.step_no = p_step;
  select ns.name || '_queue' into v_queue from tasker_task_namespaces ns where ns.namespace_id = v_task.namespace_id;
  if v_queue is null or v_step.parents is null then
    return;  -- there is no such step
  end if;
  foreach v_parent in array v_step.parents[1:100] loop
    v_parents := v_parents || tasker_step_uuid(p_task, v_parent);
  end loop;
  execute format('insert into pgmq.%I (vt, message, headers) values ($1, $2, $3) returning msg_id', 'q_' || v_queue)
     into v_id
    using coalesce(p_due, clock_timestamp()),
          jsonb_build_object('task_uuid', p_task, 'step_uuid', tasker_step_uuid(p_task, p_step), 'ready_dependency_step_uuids', to_jsonb(v_parents)),
          jsonb_build_object('handler', v_step.handler, 'priority', v_step.priority)
            || case when v_task.traced then jsonb_build_object('traceparent', v_task.trace) else '{}' end;
  if v_step.priority > 0 then
    insert into tasker_priority_messages (queue_name, priority, msg_id) values (v_queue, v_step.priority, v_id);
  end if;
end
$$;
-- +goose StatementEnd

-- Sends a message for each step of the arrays to its namespace's queue, in the
-- order of the arrays. A message is visible from its time in p_due on (null: at
-- once). The steps must become enqueued, or pending with a due time, in the same
-- transaction.
-- +goose StatementBegin
create function tasker_enqueue(p_task uuid[], p_step integer[], p_due timestamptz[] default null)
returns void language plpgsql as $$
declare
  v_queue record;
  v_ids   bigint[];
begin
  if cardinality(p_task) = 1 then
    perform tasker_enqueue_one(p_task[1], p_step[1], p_due[1]);
    return;
  end if;
  for v_queue in
    select m.name || '_queue' as name, array_agg(m.body) as bodies, array_agg(m.headers) as headers, array_agg(m.priority) as priorities,
           array_agg(m.due) as dues
      from (  -- sorted once, not once per array
        select ns.name, u.due, coalesce(s.priority, t.priority) as priority,
               jsonb_build_object(
                 'task_uuid', t.task_uuid,
                 'step_uuid', tasker_step_uuid(t.task_uuid, s.step_no),
                 'ready_dependency_step_uuids',
                   case when s.parents = '{}' then '[]'
                        else (select jsonb_agg(tasker_step_uuid(t.task_uuid, p.n) order by p.n) from unnest(s.parents[1:100]) p(n)) end) as body,
               case when t.attributes ? 'traceparent'
                    then jsonb_build_object('handler', h.name, 'priority', coalesce(s.priority, t.priority), 'traceparent', t.attributes -> 'traceparent')
                    else jsonb_build_object('handler', h.name, 'priority', coalesce(s.priority, t.priority)) end as headers
          from unnest(p_task, p_step, p_due) with ordinality u(task_uuid, step_no, due, ord)
          join tasker_tasks t on t.task_uuid = u.task_uuid
         cross join lateral (  -- offset 0: looks up both columns together; a join might look up the plan and filter all its steps
           select n.step_no, n.handler_id, n.parents, n.priority
             from tasker_named_steps n where n.plan_id = t.plan_id and n.step_no = u.step_no offset 0) s
          join tasker_handlers h on h.handler_id = s.handler_id
          join tasker_task_namespaces ns on ns.namespace_id = t.namespace_id
         order by ns.name, u.ord) m
     group by m.name
     order by m.name
  loop
    execute format('with sent as (
                      insert into pgmq.%I (vt, message, headers)
                      select coalesce(u.due, clock_timestamp()), u.body, u.headers from unnest($1, $2, $3) u(due, body, headers)
                      returning msg_id)
                    select array_agg(msg_id) from sent', 'q_' || v_queue.name)
       into v_ids using v_queue.dues, v_queue.bodies, v_queue.headers;
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
--   p_identity     SHA-256 of what identifies the request
--   p_attributes   tags, initiator and the like; null: none
--   p_key, p_hash  idempotency key and hash of the request; null: none
--   p_request      the message on p_request_queue that asks for it; null: none
--   p_unique       what to do if a task with the same identity exists: reject or
--                  return_existing; null: create the task all the same
-- Root steps whose handler is in p_served are leased to p_host, p_room of them at
-- most. The others, and those of paused namespaces, are enqueued.
--
-- Returns one row per task, in order:
--   outcome  created; duplicate (the key was used for the same request: task is
--            the one created for it; or, with return_existing, task is the one
--            that has the identity); conflict (the key was used for another
--            request); exists (rejected: task has the identity); gone (somebody
--            else has taken the request's message)
--   steps    the numbers of the steps leased to the host, with their leases
-- +goose StatementBegin
create function tasker_create_tasks(
  p_host integer, p_room integer, p_served integer[],
  p_task uuid[], p_plan integer[], p_context text[], p_priority integer[], p_identity bytea[], p_attributes text[],
  p_key text[] default null, p_hash bytea[] default null,
  p_request_queue text default null, p_request bigint[] default null, p_unique text[] default null)
returns table (o_outcome text, o_task uuid, o_steps integer[], o_leases uuid[])
language plpgsql
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
#variable_conflict use_column
declare
  v_now     timestamptz := clock_timestamp();
  v_count   integer := cardinality(p_task);
  v_outcome text[] := array_fill('created'::text, array[v_count]);
  v_result  uuid[] := p_task;
  v_plan    integer[] := p_plan;   -- null where no task is to be created
  v_taken   bigint[] := '{}';
  v_bodies  jsonb[];
  v_headers jsonb[];
  v_row     record;
  v_made    uuid[] := '{}';  -- the tasks whose key is new, later those whose identity is new
  v_left    integer;         -- how many tasks still have a key that may be new
  v_not     uuid[] := '{}';  -- the tasks that are not created, since the task in v_instead has the identity
  v_instead uuid[] := '{}';
  v_says    text[] := '{}';  -- the outcome reported instead
  v_leased  uuid[];      -- the tasks, numbers and leases of the steps leased
  v_numbers integer[];
  v_leases  uuid[];
  v_tasks   uuid[];      -- the tasks and numbers of the steps enqueued
  v_steps   integer[];
  v_paused  integer[];   -- the paused namespaces; null: none
  v_has     uuid;        -- the task that has the identity
begin
  if p_room > 0 and not tasker_may_lease(p_host) then
    p_room := 0;
  end if;
  v_paused := tasker_paused_namespaces();
  -- Remove the messages of the requests together with answering them.
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

  -- All sessions that want the same keys take them in one order, and wait for each
  -- other. Each round enters the keys that are free, and looks up the tasks that
  -- have the others: those requests are duplicates or in conflict. A key that
  -- retention has removed in between is tried again in the next round.
  select count(*) into v_left from unnest(p_key, v_plan) u(key, plan_id) where u.key is not null and u.plan_id is not null;
  while cardinality(v_made) < v_left loop
    with made as (
      insert into tasker_idempotency_keys (namespace_id, idempotency_key, task_uuid, request_hash)
      select p.namespace_id, u.key, u.task_uuid, u.hash
        from unnest(p_key, p_hash, p_task, v_plan) with ordinality u(key, hash, task_uuid, plan_id, ord)
        join tasker_task_plans p on p.plan_id = u.plan_id
       where u.key is not null and u.task_uuid <> all(v_made)
       order by p.namespace_id, u.key, u.ord
      on conflict do nothing
      returning task_uuid)
    select v_made || coalesce(array_agg(m.task_uuid), '{}') into v_made from made m;
    exit when cardinality(v_made) = v_left;
    -- "offset 0" makes the planner look up each key by itself. Planned as a join
    -- while the table is empty, it would join by the namespace.
    select array_agg(case when k.task_uuid is null then u.outcome when k.request_hash = u.hash then 'duplicate' else 'conflict' end order by u.ord),
           array_agg(coalesce(k.task_uuid, u.result) order by u.ord),
           array_agg(case when k.task_uuid is null then u.plan_id end order by u.ord),
           cardinality(v_made) + count(*) filter (where p.namespace_id is not null and k.task_uuid is null)   -- retention was faster
      into v_outcome, v_result, v_plan, v_left
      from unnest(p_key, p_hash, p_task, v_plan, v_outcome, v_result) with ordinality u(key, hash, task_uuid, plan_id, outcome, result, ord)
      left join tasker_task_plans p on p.plan_id = u.plan_id and u.key is not null and u.task_uuid <> all(v_made)
      left join lateral (select x.task_uuid, x.request_hash from tasker_idempotency_keys x
                          where x.namespace_id = p.namespace_id and x.idempotency_key = u.key offset 0) k on true;
  end loop;

  -- Keys come first: a request that is repeated with its key is not a second request.
  if p_unique is not null then
    with made as (
      insert into tasker_task_identities (identity_hash, namespace_id, task_uuid)
      select u.hash, p.namespace_id, u.task_uuid
        from unnest(p_identity, p_unique, p_task, v_plan) with ordinality u(hash, policy, task_uuid, plan_id, ord)
        join tasker_task_plans p on p.plan_id = u.plan_id
       where u.policy is not null
       order by u.hash, u.ord
      on conflict do nothing
      returning task_uuid)
    select coalesce(array_agg(m.task_uuid), '{}') into v_made from made m;
    for v_row in
      select u.hash, u.policy, u.task_uuid, u.key, p.namespace_id
        from unnest(p_identity, p_unique, p_task, v_plan, p_key) with ordinality u(hash, policy, task_uuid, plan_id, key, ord)
        join tasker_task_plans p on p.plan_id = u.plan_id
       where u.policy is not null and u.task_uuid <> all(v_made)
       order by u.hash, u.ord
    loop
      loop
        select i.task_uuid into v_has from tasker_task_identities i where i.identity_hash = v_row.hash;
        if not found then          -- retention was faster
          insert into tasker_task_identities (identity_hash, namespace_id, task_uuid)
          values (v_row.hash, v_row.namespace_id, v_row.task_uuid)
          on conflict do nothing;
        else
          -- The tasks of this batch are created below.
          exit when v_has = any(p_task) or exists (select from tasker_tasks t where t.task_uuid = v_has);
          update tasker_task_identities i set task_uuid = v_row.task_uuid
           where i.identity_hash = v_row.hash and i.task_uuid = v_has;
        end if;
        v_has := v_row.task_uuid;
        exit when found;           -- otherwise somebody else has it now
      end loop;
      continue when v_has = v_row.task_uuid and not exists (select from tasker_tasks t where t.task_uuid = v_has);
      -- Its key now stands for the task that is returned, or for nothing.
      if v_row.key is not null and v_row.policy = 'return_existing' then
        update tasker_idempotency_keys k set task_uuid = v_has
         where k.namespace_id = v_row.namespace_id and k.idempotency_key = v_row.key;
      elsif v_row.key is not null then
        delete from tasker_idempotency_keys k
         where k.namespace_id = v_row.namespace_id and k.idempotency_key = v_row.key;
      end if;
      v_not := v_not || v_row.task_uuid;
      v_instead := v_instead || v_has;
      v_says := v_says || case when v_has = v_row.task_uuid or v_row.policy = 'return_existing' then 'duplicate'::text else 'exists' end;
    end loop;
    if v_not <> '{}' then
      -- Requests of the batch with the same key were answered with this task, so they change, too.
      select array_agg(case when i.has is null or u.outcome = 'conflict' then u.outcome else i.says end order by u.ord),
             array_agg(coalesce(i.has, u.result) order by u.ord),
             array_agg(case when i.has is null then u.plan_id end order by u.ord)
        into v_outcome, v_result, v_plan
        from unnest(v_outcome, v_result, v_plan) with ordinality u(outcome, result, plan_id, ord)
        left join unnest(v_not, v_instead, v_says) i(task_uuid, has, says) on i.task_uuid = u.result;
    end if;
  end if;
  if v_taken <> '{}' then
    insert into tasker_dead_letters (kind, queue_name, msg_id, reason, detail, body, headers)
    select 'message', p_request_queue, m.msg_id, case u.outcome when 'conflict' then 'request_id_reused' else 'duplicate_identity' end,
           case u.outcome when 'conflict' then format('the request_id was used for another request, whose task is %s', u.result)
                else format('task %s has the same template and input', u.result) end, m.body, m.headers
      from unnest(v_taken, v_bodies, v_headers) m(msg_id, body, headers)
      join unnest(p_request, v_outcome, v_result) u(msg_id, outcome, result) on u.msg_id = m.msg_id
     where u.outcome in ('conflict', 'exists');
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

  with wanted as (  -- all steps; "hand": a root step that is leased here
    select u.ord, u.task_uuid, n.plan_id, n.step_no, n.parent_count,
           n.parent_count = 0 as root,
           n.parent_count = 0 and n.handler_id = any(p_served)
             and row_number() over (order by n.parent_count > 0, n.handler_id = any(p_served) desc, u.ord, n.step_no) <= p_room
             and (v_paused is null or not exists (select from tasker_task_plans p where p.plan_id = n.plan_id and p.namespace_id = any(v_paused))) as hand
      from unnest(p_task, v_plan) with ordinality u(task_uuid, plan_id, ord)
     cross join lateral (  -- "offset 0": if one of a few plans has many steps, a join would read all of them for each task
       select n.plan_id, n.step_no, n.parent_count, n.handler_id from tasker_named_steps n where n.plan_id = u.plan_id offset 0) n
  ), made as (  -- the root steps among them are leased or enqueued; the others wait for their parents
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
  )
  select l.tasks, l.steps, l.leases, q.tasks, q.steps
    into v_leased, v_numbers, v_leases, v_tasks, v_steps
    from (select array_agg(m.task_uuid) as tasks, array_agg(m.step_no) as steps, array_agg(m.lease_id) as leases
            from made m where m.state = 'in_progress') l,
         (select array_agg(m.task_uuid order by m.task_uuid, m.step_no) as tasks, array_agg(m.step_no order by m.task_uuid, m.step_no) as steps
            from made m where m.state = 'enqueued') q;

  if v_tasks is not null then
    perform tasker_enqueue(v_tasks, v_steps);
  end if;

  -- Sorted together instead of joined: a join would look at all leased steps for
  -- each task.
  return query
  select (array_agg(x.outcome order by x.ord))[1], (array_agg(x.result order by x.ord))[1],
         coalesce(array_agg(x.step_no order by x.step_no) filter (where x.ord is null), '{}'),
         coalesce(array_agg(x.lease_id order by x.step_no) filter (where x.ord is null), '{}')
    from (select u.task_uuid, u.ord, u.outcome, u.result, null::integer as step_no, null::uuid as lease_id
            from unnest(v_outcome, v_result, p_task) with ordinality u(outcome, result, task_uuid, ord)
          union all
          select l.task_uuid, null, null, null, l.step_no, l.lease_id
            from unnest(v_leased, v_numbers, v_leases) l(task_uuid, step_no, lease_id)) x
   group by x.task_uuid
   order by min(x.ord);
end
$$;
-- +goose StatementEnd

-- +goose Down
drop function tasker_create_tasks(integer, integer, integer[], uuid[], integer[], text[], integer[], bytea[], text[],
                                  text[], bytea[], text, bigint[], text[]);
drop function tasker_enqueue(uuid[], integer[], timestamptz[]);
drop function tasker_enqueue_one(uuid, integer, timestamptz);
