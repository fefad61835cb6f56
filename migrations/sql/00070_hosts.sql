-- Hosts and the sweep, which finds the work that a lost process, a lost message
-- or a lost decision left behind. Every function may be run by any number of
-- hosts at once, and may be repeated.

-- +goose Up

-- +goose StatementBegin
create function tasker_register_host(p_name text, p_version text, p_environment text, p_state text, p_lease_ms bigint)
returns integer language sql as $$
  insert into tasker_hosts (name, version, environment, state, alive_until)
  values (p_name, p_version, p_environment, p_state, clock_timestamp() + p_lease_ms * interval '1 millisecond')
  returning host_id
$$;
-- +goose StatementEnd

-- Whether a host may be given steps. It may not once it was declared dead: its
-- steps are given back at that time, and nobody would look after one that it got
-- later. Nor while it rests, since then nobody looks after it. An outside worker
-- (null) always may: its leases end by themselves.
--
-- The lock, which the transaction keeps, is shared between all that give steps to
-- the host. tasker_release_host_steps waits for them, so that it sees the steps they
-- gave. Must be called before any row is locked.
-- +goose StatementBegin
create function tasker_may_lease(p_host integer)
returns boolean language plpgsql as $$
begin
  perform pg_advisory_xact_lock_shared(hashtext('tasker_hosts'), coalesce(p_host, 0));
  if p_host is null then
    return true;
  end if;
  return exists (select from tasker_hosts h where h.host_id = p_host and h.state not in ('dead', 'stopped') and not h.rests);
end
$$;
-- +goose StatementEnd

-- Extends the lease of all steps of a host and returns the leases that were
-- revoked. Since the answer may be lost, each is returned until the host has
-- acknowledged it: p_heard are the leases in the previous answer. p_rises is how
-- many times the host has risen from rest. If it is more than the database knows,
-- the host is marked as no longer at rest; otherwise that mark stays as it is.
-- o_alive is false if the host was declared dead: its steps are given to others, and
-- it must stop them and register anew.
-- +goose StatementBegin
create function tasker_heartbeat(
  p_host integer, p_state text, p_served text[], p_lease_ms bigint, p_heard uuid[], p_rises bigint,
  out o_alive boolean, out o_task uuid[], out o_step integer[], out o_lease uuid[], out o_reason text[])
language plpgsql as $$
begin
  update tasker_hosts h
     set heartbeat_at = clock_timestamp(), alive_until = clock_timestamp() + p_lease_ms * interval '1 millisecond',
         state = p_state, served = p_served, rests = h.rests and h.rises >= p_rises, rises = greatest(h.rises, p_rises)
   where h.host_id = p_host and h.state <> 'dead';
  o_alive := found;
  if p_heard <> '{}' then
    delete from tasker_revocations r where r.host_id = p_host and r.lease_id = any(p_heard);
  end if;
  select array_agg(r.task_uuid), array_agg(r.step_no), array_agg(r.lease_id), array_agg(r.reason)
    into o_task, o_step, o_lease, o_reason from tasker_revocations r where r.host_id = p_host;
end
$$;
-- +goose StatementEnd

-- Gives back the steps of a host that is gone, in up to p_limit active tasks after
-- p_after. If p_claim_factor is null, or the host has said that it stops, their claims
-- do not count: the host has stopped in an orderly way, even if another has to finish
-- its shutdown. Otherwise steps that were claimed too often fail for good. Returns how
-- many steps it gave back or failed, and the last task it looked at; null: it has seen
-- all.
--
-- If somebody else is giving back steps of that host at the same time, it does nothing
-- and sets o_busy. Waiting would be in vain on a server so slow that the other takes
-- longer than the lock timeout.
-- +goose StatementBegin
create function tasker_release_host_steps(
  p_host integer, p_reason text, p_after uuid, p_limit integer, p_claim_factor integer,
  out o_released integer, out o_last uuid, out o_busy boolean)
language plpgsql
set plan_cache_mode = force_generic_plan set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
declare
  v_row      record;
  v_held     record;
  v_tasks    uuid[];
  v_count    integer;
begin
  o_released := 0;
  o_busy := not pg_try_advisory_xact_lock(hashtext('tasker_release_host_steps'), p_host);
  if o_busy then
    return;
  end if;
  perform pg_advisory_xact_lock(hashtext('tasker_hosts'), p_host);
  if exists (select from tasker_hosts h where h.host_id = p_host and h.state = 'stopped') then
    p_claim_factor := null;
  end if;
  select array_agg(t.task_uuid order by t.task_uuid) into v_tasks
    from (select t.task_uuid from tasker_tasks t
           where t.state in ('pending', 'in_progress') and t.task_uuid > p_after
           order by t.task_uuid limit p_limit) t;
  if v_tasks is null then
    return;
  end if;
  if cardinality(v_tasks) = p_limit then o_last := v_tasks[p_limit]; end if;

  -- Burying a step requires locking every movable row of its task. All rows are
  -- locked in one order, task by task, so those of the first task cannot be locked
  -- after rows of the last.
  select array_agg(distinct x.task_uuid) filter (where x.buries) as burying, array_agg(x.task_uuid) as tasks, array_agg(x.step_no) as steps
    into v_row
    from (select s.task_uuid, s.step_no, coalesce(s.claims >= p_claim_factor * n.max_attempts, false) as buries
            from unnest(v_tasks) u(task_uuid)
            join tasker_workflow_steps s on s.task_uuid = u.task_uuid
            join tasker_named_steps n on n.plan_id = s.plan_id and n.step_no = s.step_no
           where s.state = 'in_progress' and s.lease_host = p_host) x;
  if v_row.burying is not null then
    perform tasker_lock_movable(v_row.burying, v_row.tasks, v_row.steps);
  end if;

  -- The lock waits for anyone who is settling a step at the moment; steps that no longer
  -- belong to the host after that are not returned. All rows are locked before the first
  -- is changed: a row that was changed since the statement began would be skipped.
  select count(*) as steps,
         array_agg(l.task_uuid) filter (where not l.unclaimable) as back_task, array_agg(l.step_no) filter (where not l.unclaimable) as back_step,
         array_agg(l.task_uuid) filter (where l.unclaimable) as bury_task, array_agg(l.step_no) filter (where l.unclaimable) as bury_step,
         array_agg(tasker_claims_exhausted(l.claims, p_reason)) filter (where l.unclaimable) as bury_error,
         array_agg(distinct l.task_uuid) filter (where l.unclaimable or l.doomed) as conclude
    into v_held
    from (select s.task_uuid, s.step_no, s.doomed, s.claims, coalesce(s.claims >= p_claim_factor * n.max_attempts, false) as unclaimable
            from unnest(v_tasks) u(task_uuid)
            join tasker_workflow_steps s on s.task_uuid = u.task_uuid
            join tasker_named_steps n on n.plan_id = s.plan_id and n.step_no = s.step_no
           where s.state = 'in_progress' and s.lease_host = p_host
           order by s.task_uuid, s.step_no for update of s) l(task_uuid, step_no, doomed, claims, unclaimable);
  o_released := v_held.steps;
  if v_held.bury_task is not null then
    v_count := cardinality(v_held.bury_task);
    perform tasker_bury_steps(null, v_held.bury_task, v_held.bury_step, array_fill(null::bigint, array[v_count]),
              array_fill('claims_exhausted'::text, array[v_count]), v_held.bury_error, array_fill(0, array[v_count]));
  end if;
  if v_held.back_task is not null then
    v_count := cardinality(v_held.back_task);
    perform tasker_release_steps(null, v_held.back_task, v_held.back_step, array_fill(null::bigint, array[v_count]),
              array_fill(p_reason, array[v_count]), array_fill(null::timestamptz, array[v_count]), array_fill(p_claim_factor is null, array[v_count]));
  end if;
  if v_held.conclude is not null then
    perform tasker_conclude_tasks(v_held.conclude, null);  -- task rows are locked after all step rows
  end if;
end
$$;
-- +goose StatementEnd

-- The point from which on a time in the future proves that the database's clock was put
-- back, as by a failover to a server whose clock is behind: each of these times was once
-- the clock's own now.
-- +goose StatementBegin
create function tasker_clock_slack()
returns interval language sql immutable parallel safe as $$
  select interval '5 seconds'
$$;
-- +goose StatementEnd

-- Declares dead the hosts whose lease has expired, and returns all hosts that
-- are gone and whose steps have not been given back yet. A lease that was granted
-- before the clock was put back gets its full length again, from now on.
-- +goose StatementBegin
create function tasker_sweep_hosts()
returns table (o_host integer, o_name text, o_late interval)
language plpgsql as $$
begin
  update tasker_hosts h set heartbeat_at = clock_timestamp(), alive_until = clock_timestamp() + (h.alive_until - h.heartbeat_at)
   where h.host_id in (select x.host_id from tasker_hosts x
                        where x.state not in ('dead', 'stopped') and x.heartbeat_at > clock_timestamp() + tasker_clock_slack()
                        order by x.host_id for update skip locked);
  update tasker_hosts h set state = 'dead'
   where h.host_id in (select x.host_id from tasker_hosts x
                        where x.state not in ('dead', 'stopped') and x.alive_until < clock_timestamp()
                        order by x.host_id for update skip locked);
  return query
    select h.host_id, h.name, clock_timestamp() - h.alive_until from tasker_hosts h
     where h.state in ('dead', 'stopped') and h.swept_at is null
     order by h.host_id;
end
$$;
-- +goose StatementEnd

-- The leases that a host holds, in up to p_limit active tasks after p_after, for a
-- host that lost the reply to a call and must find out what it was given. o_last is
-- null when it has seen all.
-- +goose StatementBegin
create function tasker_host_leases(
  p_host integer, p_after uuid, p_limit integer,
  out o_task uuid[], out o_step integer[], out o_lease uuid[], out o_last uuid)
language sql stable as $$
  with page as (
    select t.task_uuid from tasker_tasks t
     where t.state in ('pending', 'in_progress') and t.task_uuid > p_after
     order by t.task_uuid limit p_limit
  ), held as (
    select s.task_uuid, s.step_no, s.lease_id
      from page p join tasker_workflow_steps s on s.task_uuid = p.task_uuid
     where s.state = 'in_progress' and s.lease_host = p_host
  )
  select (select array_agg(h.task_uuid) from held h), (select array_agg(h.step_no) from held h), (select array_agg(h.lease_id) from held h),
         (select case when count(*) = p_limit then (array_agg(p.task_uuid order by p.task_uuid desc))[1] end from page p)
$$;
-- +goose StatementEnd

-- Finds the steps of active tasks that could run but have no message: enqueued, or
-- waiting for a time that has come, since more than p_age. Looks at up to p_limit
-- active tasks after p_after and puts what it finds on its queue again. A second
-- message for one step does no harm: it is dropped when its turn comes. Also returns,
-- as o_stalled, the tasks in which nothing can move: they wait to be finalized.
--
-- If the clock was put back, messages sent before that are hidden until it has caught
-- up. So messages of steps are sent again, visible after the wait that they had left;
-- messages of inboxes become visible when they would have; and leases of outside
-- workers end as if each had just been extended.
-- +goose StatementBegin
create function tasker_sweep_messages(
  p_after uuid, p_limit integer, p_age interval,
  out o_enqueued integer, out o_last uuid, out o_stalled uuid[])
language plpgsql
set plan_cache_mode = force_generic_plan set enable_hashjoin = on set enable_mergejoin = off set jit = off
as $$
#variable_conflict use_column
declare
  v_tasks  uuid[];
  v_queue  record;
  v_lost   record;
  v_now    timestamptz := clock_timestamp();
  v_slack  timestamptz := v_now + tasker_clock_slack();
  v_ahead  boolean;  -- a step waits for a time that the clock, having been put back, will not reach soon
  v_held   boolean;  -- an outside worker's lease may end at such a time
  v_old    boolean;  -- a step has waited so long that its message may be lost
begin
  o_enqueued := 0;
  if p_after = '00000000-0000-0000-0000-000000000000' then
    for v_queue in
      select i.queue_name as name from tasker_inboxes i where to_regclass(format('pgmq.%I', 'q_' || i.queue_name)) is not null order by 1
    loop
      execute format($q$
        update pgmq.%1$I q set vt = $1 + (q.vt - q.enqueued_at), enqueued_at = $1
         where q.msg_id in (select x.msg_id from pgmq.%1$I x where x.vt > $1 and x.enqueued_at > $2 for update skip locked)
      $q$, 'q_' || v_queue.name) using v_now, v_slack;
    end loop;
  end if;
  select array_agg(t.task_uuid order by t.task_uuid) into v_tasks
    from (select t.task_uuid from tasker_tasks t
           where t.state in ('pending', 'in_progress') and t.task_uuid > p_after
           order by t.task_uuid limit p_limit) t;
  if v_tasks is null then
    return;
  end if;
  if cardinality(v_tasks) = p_limit then o_last := v_tasks[p_limit]; end if;

  -- Look at their steps once. Find the tasks in which nothing can move and that nobody has
  -- finished (one finished since the list was made is not among them), and whether there
  -- is any of the cases handled below, which is rare.
  select array_agg(u.task_uuid) filter (where not l.moves), bool_or(l.ahead), bool_or(l.held), bool_or(l.old)
    into o_stalled, v_ahead, v_held, v_old
    from unnest(v_tasks) u(task_uuid)
    join tasker_tasks t on t.task_uuid = u.task_uuid and t.state in ('pending', 'in_progress')
   cross join lateral (
     select coalesce(bool_or(s.state in ('enqueued', 'in_progress') or s.state = 'pending' and s.remaining_parents = 0), false) as moves,
            bool_or(s.remaining_parents = 0 and s.state in ('enqueued', 'pending') and s.updated_at > v_slack) as ahead,
            bool_or(s.state = 'in_progress' and s.lease_until > v_slack) as held,
            bool_or(s.remaining_parents = 0 and s.state in ('enqueued', 'pending') and greatest(s.updated_at, s.due_at) < v_now - p_age) as old
       from tasker_workflow_steps s where s.task_uuid = u.task_uuid) l;

  if v_ahead then
    with ahead as (
      select s.task_uuid, s.step_no
        from unnest(v_tasks) u(task_uuid)
        join tasker_workflow_steps s on s.task_uuid = u.task_uuid
       where s.remaining_parents = 0 and s.state in ('enqueued', 'pending') and s.updated_at > v_slack
       order by s.task_uuid, s.step_no for update of s skip locked
    ), back as (
      update tasker_workflow_steps s set updated_at = v_now, due_at = v_now + (s.due_at - s.updated_at)
        from ahead a
       where s.task_uuid = a.task_uuid and s.step_no = a.step_no
      returning s.task_uuid, s.step_no, s.due_at
    )
    select array_agg(b.task_uuid order by b.task_uuid, b.step_no) as tasks, array_agg(b.step_no order by b.task_uuid, b.step_no) as steps,
           array_agg(b.due_at order by b.task_uuid, b.step_no) as dues, count(*)::integer as found
      into v_lost from back b;
    if v_lost.found > 0 then
      perform tasker_enqueue(v_lost.tasks, v_lost.steps, v_lost.dues);
      o_enqueued := v_lost.found;
    end if;
  end if;
  if v_held then
    with ahead as (
      select s.task_uuid, s.step_no, l.lease_id, v_now + l.lease as until
        from unnest(v_tasks) u(task_uuid)
        join tasker_workflow_steps s on s.task_uuid = u.task_uuid
        join tasker_worker_leases l on l.lease_id = s.lease_id
       where s.state = 'in_progress' and s.lease_until > v_slack + l.lease
       order by s.task_uuid, s.step_no for update of s skip locked
    ), back as (
      update tasker_workflow_steps s set lease_until = a.until
        from ahead a
       where s.task_uuid = a.task_uuid and s.step_no = a.step_no
    )
    update tasker_worker_leases l set look_at = a.until from ahead a where l.lease_id = a.lease_id;
  end if;

  if not coalesce(v_old, false) then
    return;
  end if;
  for v_queue in
    select ns.name || '_queue' as name,
           array_agg(s.task_uuid order by s.task_uuid, s.step_no) as tasks, array_agg(s.step_no order by s.task_uuid, s.step_no) as steps
      from unnest(v_tasks) u(task_uuid)
      join tasker_tasks t on t.task_uuid = u.task_uuid
      join tasker_task_namespaces ns on ns.namespace_id = t.namespace_id
      join tasker_workflow_steps s on s.task_uuid = u.task_uuid
     where s.remaining_parents = 0
       and (s.state = 'enqueued' or s.state = 'pending')
       and greatest(s.updated_at, s.due_at) < v_now - p_age
     group by ns.name
     order by ns.name
  loop
    execute format($q$
      select array_agg(u.task_uuid order by u.task_uuid, u.step_no) as tasks,
             array_agg(u.step_no order by u.task_uuid, u.step_no) as steps, count(*)::integer as found
        from unnest($1, $2) u(task_uuid, step_no)
       where not exists (select from pgmq.%I q
                          where q.message ->> 'step_uuid' = tasker_step_uuid(u.task_uuid, u.step_no)::text)
    $q$, 'q_' || v_queue.name)
    into v_lost using v_queue.tasks, v_queue.steps;
    if v_lost.found > 0 then
      perform tasker_enqueue(v_lost.tasks, v_lost.steps);
      o_enqueued := o_enqueued + v_lost.found;
    end if;
  end loop;
end
$$;
-- +goose StatementEnd

-- +goose Down
drop function tasker_sweep_messages(uuid, integer, interval);
drop function tasker_host_leases(integer, uuid, integer);
drop function tasker_sweep_hosts();
drop function tasker_clock_slack();
drop function tasker_release_host_steps(integer, text, uuid, integer, integer);
drop function tasker_heartbeat(integer, text, text[], bigint, uuid[], bigint);
drop function tasker_may_lease(integer);
drop function tasker_register_host(text, text, text, text, bigint);
