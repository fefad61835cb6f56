-- Retention: what has ended is deleted after a while. Tasks live in partitions by
-- the days of their creation, so days of which nothing is to be kept are dropped as a
-- whole, which costs as much as deleting their files, and one short lock. If a
-- partition holds something to keep, a task that has not ended or one of a namespace
-- that keeps its tasks longer, the rest of it is deleted in small batches, and the
-- partition goes with its last row. A partition is named after its first day, and the
-- functions here refer to it by that day.
--
-- A task is expired when it ended (complete, error, cancelled, resolved by hand)
-- longer ago than its namespace keeps tasks. A task that has not ended is kept
-- however old it is.
--
-- Nothing here runs in the hot path. The only lock that others notice is that of
-- tasker_drop_day: it waits for p_wait_ms at most, and is held for as long as it
-- takes to remove a table from the catalogue.

-- +goose Up

-- Duties that one host at a time does for all.
create table tasker_duties (
  duty       text primary key,
  host_id    integer not null,
  held_until timestamptz not null
);

-- Tasks that an operator changed after they had ended: their retention period starts
-- anew when they end again. Dropping a day looks at them under its lock, where
-- looking at all tasks of the day would take too long. The rows go with their tasks.
create table tasker_reopened_tasks (task_uuid uuid primary key);

-- The caller holds the task's row.
-- +goose StatementBegin
create function tasker_note_reopened(p_task uuid)
returns void language sql as $$
  insert into tasker_reopened_tasks (task_uuid) values (p_task) on conflict do nothing
$$;
-- +goose StatementEnd

-- The queues that hosts read as inboxes, or have read, under whatever names: the
-- entries of their archives are kept as long as other records.
create table tasker_inboxes (queue_name text primary key);

-- The task after which the next pruning continues with the idempotency keys ("key") or
-- identities ("identity") of a namespace, besides the oldest ones: see tasker_prune_keys.
create table tasker_prune_marks (
  namespace_id integer not null,
  kind         text not null,
  after        uuid not null,
  primary key (namespace_id, kind)
);

-- Takes or keeps a duty for p_lease. Returns whether the host has it now.
-- +goose StatementBegin
create function tasker_take_duty(p_duty text, p_host integer, p_lease interval)
returns boolean language plpgsql as $$
begin
  insert into tasker_duties as d (duty, host_id, held_until) values (p_duty, p_host, clock_timestamp() + p_lease)
  on conflict (duty) do update set host_id = excluded.host_id, held_until = excluded.held_until
   where d.host_id = p_host or d.held_until < clock_timestamp();
  return found;
end
$$;
-- +goose StatementEnd

-- When a day begins. Days are days of UTC.
-- +goose StatementBegin
create function tasker_day_begins(p_day date)
returns timestamptz language sql stable strict as $$
  select (p_day::text || ' 00:00:00+00')::timestamptz
$$;
-- +goose StatementEnd

-- When the partition that begins with the day ends, the last of those of the four
-- tables; null: there is none.
-- +goose StatementBegin
create function tasker_partition_ends(p_day date)
returns timestamptz language sql stable as $$
  select max(x.o_ends) from tasker_partitions() x where x.o_begins = tasker_day_begins(p_day)
$$;
-- +goose StatementEnd

-- Whether the database holds a task that was created from p_from on, before p_before,
-- in any partition.
-- +goose StatementBegin
create function tasker_has_tasks(p_from timestamptz, p_before timestamptz)
returns boolean language sql stable as $$
  select exists (select from tasker_tasks t where t.task_uuid >= tasker_uuid_floor(p_from) and t.task_uuid < tasker_uuid_floor(p_before))
$$;
-- +goose StatementEnd

-- The bound of each namespace: tasks that ended before it are expired; null: its tasks
-- are kept for ever. p_keep belongs to p_namespaces, p_default to the others; a null in
-- either means for ever. o_shorter: the namespace keeps its tasks for less time than
-- the others.
-- +goose StatementBegin
create function tasker_retention(p_default interval, p_namespaces text[], p_keep interval[])
returns table (o_namespace integer, o_before timestamptz, o_shorter boolean)
language sql stable as $$
  select ns.namespace_id, clock_timestamp() - case when k.name is null then p_default else k.keep end,
         k.keep is not null and (p_default is null or k.keep < p_default)
    from tasker_task_namespaces ns
    left join unnest(p_namespaces, p_keep) k(name, keep) on k.name = ns.name
$$;
-- +goose StatementEnd

-- The first days of partitions that may have expired tasks, oldest first: partitions
-- that ended before the latest of the namespaces' bounds and, where a namespace keeps
-- its tasks for less time than the others, those whose first day ended before its bound.
-- +goose StatementBegin
create function tasker_old_days(p_default interval, p_namespaces text[], p_keep interval[])
returns setof date language sql stable as $$
  select distinct (x.o_begins at time zone 'UTC')::date
    from tasker_partitions() x
   cross join (select max(r.o_before) as any_of, max(r.o_before) filter (where r.o_shorter) as shorter
                 from tasker_retention(p_default, p_namespaces, p_keep) r) b
   where x.o_ends <= b.any_of or x.o_begins + interval '24 hours' <= b.shorter
   order by 1
$$;
-- +goose StatementEnd

-- Whether the partitions that begin with a day hold nothing that is to be kept, and take
-- no more tasks. One query looks for tasks that have not ended, by their index, and
-- another at all tasks, which stops at the first that is kept.
-- +goose StatementBegin
create function tasker_day_is_over(p_day date, p_default interval, p_namespaces text[], p_keep interval[])
returns boolean language plpgsql stable as $$
declare
  v_table text := 'tasker_tasks_' || to_char(p_day, 'YYYYMMDD');
  v_ends  timestamptz := tasker_partition_ends(p_day);
  v_kept  boolean;
begin
  if v_ends is null then
    return true;
  elsif v_ends > clock_timestamp() then
    return false;
  elsif to_regclass(v_table) is null then   -- tasks are gone; steps or history may be left
    return not tasker_has_tasks(tasker_day_begins(p_day), v_ends);
  end if;
  execute format($q$select exists (select from %I t where t.state in ('pending', 'in_progress'))$q$, v_table) into v_kept;
  if v_kept then
    return false;
  end if;
  execute format($q$
    select exists (select from %I t
                     left join (select r.o_namespace, r.o_before from tasker_retention($1, $2, $3) r offset 0) r on r.o_namespace = t.namespace_id
                    where t.completed_at is null or r.o_before is null or t.completed_at >= r.o_before)
  $q$, v_table) into v_kept using p_default, p_namespaces, p_keep;
  return not v_kept;
end
$$;
-- +goose StatementEnd

-- Drops the partition of one table that begins with a day: first that of tasks and then,
-- when no tasks of its time are left, those of steps and history. Waits for the lock for
-- p_wait_ms at most, since everybody else waits behind it meanwhile; after that it fails
-- with lock_not_available. Returns whether it dropped the partition. A task that an
-- operator has reopened since the partition was looked at keeps it, even if the task has
-- ended again meanwhile: the lock ensures that nobody is in the middle of reopening one,
-- and whoever did so before has noted it.
-- +goose StatementBegin
create function tasker_drop_day(
  p_table text, p_day date, p_wait_ms integer, p_default interval, p_namespaces text[], p_keep interval[])
returns boolean language plpgsql as $$
declare
  v_table  text := p_table || '_' || to_char(p_day, 'YYYYMMDD');
  v_begins timestamptz;
  v_ends   timestamptz;
  v_kept   boolean;
begin
  if p_table not in ('tasker_tasks', 'tasker_workflow_steps', 'tasker_task_transitions', 'tasker_workflow_step_transitions') then
    raise exception '% is not partitioned by days', p_table using errcode = 'invalid_parameter_value';
  end if;
  select x.o_begins, x.o_ends into v_begins, v_ends from tasker_partitions(p_table) x where x.o_partition = v_table;
  if not found or v_ends > clock_timestamp() then
    return false;
  end if;
  perform set_config('lock_timeout', p_wait_ms::text, true);
  if p_table <> 'tasker_tasks' then
    if tasker_has_tasks(v_begins, v_ends) then
      return false;
    end if;
  else
    execute format('lock table %I in access exclusive mode', p_table);
    execute format($q$select exists (select from %I t where t.state in ('pending', 'in_progress'))$q$, v_table) into v_kept;
    if v_kept then
      return false;
    end if;
    execute format($q$
      select exists (select from tasker_reopened_tasks n
                       join %I t on t.task_uuid = n.task_uuid
                       left join (select r.o_namespace, r.o_before from tasker_retention($3, $4, $5) r offset 0) r on r.o_namespace = t.namespace_id
                      where n.task_uuid >= tasker_uuid_floor($1) and n.task_uuid < tasker_uuid_floor($2)
                        and (t.completed_at is null or r.o_before is null or t.completed_at >= r.o_before))
    $q$, v_table) into v_kept using v_begins, v_ends, p_default, p_namespaces, p_keep;
    if v_kept then
      return false;
    end if;
    delete from tasker_reopened_tasks n where n.task_uuid >= tasker_uuid_floor(v_begins) and n.task_uuid < tasker_uuid_floor(v_ends);
  end if;
  execute format('drop table %I', v_table);
  return true;
end
$$;
-- +goose StatementEnd

-- Deletes the expired tasks among up to p_limit tasks after p_after in the partition that
-- begins with a day, or in the default one (p_day null), with their steps and history. If
-- the whole partition may soon be dropped, it takes only tasks of namespaces that keep
-- their tasks for less time than the others. Returns how many, and the last task looked
-- at; null: it has seen all. Locks steps before tasks, as everybody does.
-- +goose StatementBegin
create function tasker_prune_tasks(
  p_day date, p_after uuid, p_limit integer, p_default interval, p_namespaces text[], p_keep interval[],
  out o_deleted integer, out o_last uuid)
language plpgsql
set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
#variable_conflict use_column
declare
  v_table text := 'tasker_tasks_' || coalesce(to_char(p_day, 'YYYYMMDD'), 'default');
  v_whole boolean := coalesce(tasker_partition_ends(p_day) > clock_timestamp() - p_default, false);   -- it may be dropped later
  v_ids   uuid[];
  v_seen  integer;
begin
  o_deleted := 0;
  if to_regclass(v_table) is null then
    return;
  end if;
  execute format($q$
    with page as (
      select t.task_uuid, t.namespace_id, t.completed_at from %I t where t.task_uuid > $1 order by t.task_uuid limit $2
    )
    select count(*), (array_agg(p.task_uuid order by p.task_uuid desc))[1],
           array_agg(p.task_uuid order by p.task_uuid) filter (where p.completed_at < r.o_before)
      from page p
      left join (select r.o_namespace, r.o_before from tasker_retention($3, $4, $5) r where r.o_shorter or not $6 offset 0) r
             on r.o_namespace = p.namespace_id
  $q$, v_table) into v_seen, o_last, v_ids using p_after, p_limit, p_default, p_namespaces, p_keep, v_whole;
  if v_seen < p_limit then o_last := null; end if;
  if v_ids is null then
    return;
  end if;
  perform from tasker_workflow_steps s
    where s.task_uuid = any(v_ids) and s.task_uuid between v_ids[1] and v_ids[cardinality(v_ids)]
    order by s.task_uuid, s.step_no for update;
  -- Under the locks: a task that an operator has reopened meanwhile stays.
  v_ids := array(select t.task_uuid from tasker_tasks t
                  where t.task_uuid = any(v_ids) and t.task_uuid between v_ids[1] and v_ids[cardinality(v_ids)]
                    and exists (select from tasker_retention(p_default, p_namespaces, p_keep) r
                                 where r.o_namespace = t.namespace_id and t.completed_at < r.o_before)
                  order by t.task_uuid for update of t);
  o_deleted := cardinality(v_ids);
  if o_deleted = 0 then
    return;
  end if;
  delete from tasker_task_transitions x where x.task_uuid = any(v_ids) and x.task_uuid between v_ids[1] and v_ids[o_deleted];
  delete from tasker_workflow_step_transitions x where x.task_uuid = any(v_ids) and x.task_uuid between v_ids[1] and v_ids[o_deleted];
  delete from tasker_workflow_steps s where s.task_uuid = any(v_ids) and s.task_uuid between v_ids[1] and v_ids[o_deleted];
  delete from tasker_tasks t where t.task_uuid = any(v_ids) and t.task_uuid between v_ids[1] and v_ids[o_deleted];
  delete from tasker_reopened_tasks n where n.task_uuid = any(v_ids);
end
$$;
-- +goose StatementEnd

-- Moves the marks of a kind behind the rows that were looked at in turn, which are those
-- of the arrays, each with its namespace. If a namespace has fewer than p_limit of them it
-- has no more, and its next turn starts from the beginning.
-- +goose StatementBegin
create function tasker_move_prune_marks(p_kind text, p_limit integer, p_namespace integer[], p_task uuid[])
returns void language plpgsql as $$
declare
  v_first constant uuid := '00000000-0000-0000-0000-000000000000';
begin
  insert into tasker_prune_marks (namespace_id, kind, after)
  select n.namespace_id, p_kind, n.after
    from (select ns.namespace_id, m.after as before, case when t.seen = p_limit then t.last else v_first end as after
            from tasker_task_namespaces ns
            left join tasker_prune_marks m on m.namespace_id = ns.namespace_id and m.kind = p_kind
            left join (select u.namespace_id, count(*) as seen, (array_agg(u.task_uuid order by u.task_uuid desc))[1] as last
                         from unnest(p_namespace, p_task) u(namespace_id, task_uuid)
                        group by u.namespace_id) t on t.namespace_id = ns.namespace_id) n
   where n.after <> coalesce(n.before, v_first)
  on conflict (namespace_id, kind) do update set after = excluded.after;
end
$$;
-- +goose StatementEnd

-- Deletes idempotency keys older than p_keep whose task is gone. A key is kept as long as
-- its task, since the answer to a repeated request names the task. In each namespace it
-- looks at the p_limit oldest keys. Since all of those may have to stay, it also looks at
-- p_limit others in turn, those after the mark. Returns how many it deleted.
-- +goose StatementBegin
create function tasker_prune_keys(p_limit integer, p_keep interval)
returns integer language plpgsql as $$
declare
  v_first     constant uuid := '00000000-0000-0000-0000-000000000000';
  v_now       timestamptz := clock_timestamp();
  v_gone      integer;
  v_namespace integer[];  -- of the keys that were looked at in turn
  v_task      uuid[];
begin
  with page as (
    select ns.namespace_id, x.idempotency_key, x.task_uuid, x.created_at, x.in_turn
      from tasker_task_namespaces ns
      left join tasker_prune_marks m on m.namespace_id = ns.namespace_id and m.kind = 'key'
     cross join lateral (
       (select y.idempotency_key, y.task_uuid, y.created_at, false as in_turn from tasker_idempotency_keys y
         where y.namespace_id = ns.namespace_id order by y.task_uuid limit p_limit)
       union all
       (select y.idempotency_key, y.task_uuid, y.created_at, true from tasker_idempotency_keys y
         where y.namespace_id = ns.namespace_id and y.task_uuid > coalesce(m.after, v_first) and y.task_uuid < tasker_uuid_floor(v_now - p_keep)
         order by y.task_uuid limit p_limit)) x
  ), gone as (
    delete from tasker_idempotency_keys k
     using (select distinct p.namespace_id, p.idempotency_key, p.task_uuid from page p where p.created_at < v_now - p_keep) o
     where k.namespace_id = o.namespace_id and k.idempotency_key = o.idempotency_key
       and not exists (select from tasker_tasks t where t.task_uuid = o.task_uuid)
    returning k.namespace_id
  )
  select (select count(*) from gone), array_agg(p.namespace_id), array_agg(p.task_uuid) into v_gone, v_namespace, v_task
    from page p where p.in_turn;
  perform tasker_move_prune_marks('key', p_limit, v_namespace, v_task);
  return v_gone;
end
$$;
-- +goose StatementEnd

-- Deletes identities whose task is gone. It looks at as many as tasker_prune_keys does, and
-- for the same reason. An identity that a submission is taking over at the moment is left
-- to it. Returns how many it deleted.
-- +goose StatementBegin
create function tasker_prune_identities(p_limit integer)
returns integer language plpgsql as $$
declare
  v_first     constant uuid := '00000000-0000-0000-0000-000000000000';
  v_gone      integer;
  v_namespace integer[];  -- of the identities that were looked at in turn
  v_task      uuid[];
begin
  with page as (
    select ns.namespace_id, x.identity_hash, x.task_uuid, x.in_turn
      from tasker_task_namespaces ns
      left join tasker_prune_marks m on m.namespace_id = ns.namespace_id and m.kind = 'identity'
     cross join lateral (
       (select y.identity_hash, y.task_uuid, false as in_turn from tasker_task_identities y
         where y.namespace_id = ns.namespace_id order by y.task_uuid limit p_limit)
       union all
       (select y.identity_hash, y.task_uuid, true from tasker_task_identities y
         where y.namespace_id = ns.namespace_id and y.task_uuid > coalesce(m.after, v_first) order by y.task_uuid limit p_limit)) x
  ), gone as (
    delete from tasker_task_identities i
     using (select y.identity_hash
              from (select distinct p.identity_hash, p.task_uuid from page p) o
              join tasker_task_identities y on y.identity_hash = o.identity_hash and y.task_uuid = o.task_uuid
             where not exists (select from tasker_tasks t where t.task_uuid = o.task_uuid)
               for update of y skip locked) g
     where i.identity_hash = g.identity_hash
    returning i.namespace_id
  )
  select (select count(*) from gone), array_agg(p.namespace_id), array_agg(p.task_uuid) into v_gone, v_namespace, v_task
    from page p where p.in_turn;
  perform tasker_move_prune_marks('identity', p_limit, v_namespace, v_task);
  return v_gone;
end
$$;
-- +goose StatementEnd

-- Deletes, of each kind, what is expired among the p_limit oldest; null means that the kind
-- is kept for ever. Returns how many rows it deleted in all.
--   p_keys     idempotency keys whose task is gone, see tasker_prune_keys; identities
--              whose task is gone are deleted in any case
--   p_letters  dead letters
--   p_records  the archives of queues, finalization attempts, hosts that are gone, workers
--              that were not seen, and events of hosts
--   p_audit    audit entries, which are kept for 30 days at least
-- +goose StatementBegin
create function tasker_prune_records(p_limit integer, p_keys interval, p_letters interval, p_records interval, p_audit interval)
returns integer language plpgsql
set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
declare
  v_now   timestamptz := clock_timestamp();
  v_all   integer;
  v_some  integer;
  v_queue text;
begin
  v_all := tasker_prune_keys(p_limit, p_keys) + tasker_prune_identities(p_limit);
  delete from tasker_dead_letters d
   using (select x.dead_letter_id, x.created_at from tasker_dead_letters x order by x.dead_letter_id limit p_limit) o
   where d.dead_letter_id = o.dead_letter_id and o.created_at < v_now - p_letters;
  get diagnostics v_some = row_count; v_all := v_all + v_some;
  delete from tasker_audit a
   using (select x.audit_id, x.recorded_at from tasker_audit x order by x.audit_id limit p_limit) o
   where a.audit_id = o.audit_id and o.recorded_at < v_now - greatest(p_audit, interval '30 days') and p_audit is not null;
  get diagnostics v_some = row_count; v_all := v_all + v_some;
  delete from tasker_finalization_attempts a
   using (select x.finalization_attempt_uuid, x.attempted_at from tasker_finalization_attempts x order by x.attempted_at limit p_limit) o
   where a.finalization_attempt_uuid = o.finalization_attempt_uuid and o.attempted_at < v_now - p_records;
  get diagnostics v_some = row_count; v_all := v_all + v_some;
  delete from tasker_revocations r
   where exists (select from tasker_hosts h where h.host_id = r.host_id and h.swept_at < v_now - p_records);
  delete from tasker_step_progress p
   where exists (select from tasker_hosts h where h.host_id = p.host_id and h.swept_at < v_now - p_records);
  delete from tasker_hosts h
   where h.host_id in (select x.host_id from tasker_hosts x where x.swept_at < v_now - p_records and x.alive_until < v_now - p_records
                        order by x.host_id limit p_limit);
  get diagnostics v_some = row_count; v_all := v_all + v_some;
  delete from tasker_workers w
   where w.worker_id in (select x.worker_id from tasker_workers x where x.last_seen_at < v_now - p_records
                          order by x.worker_id limit p_limit)
     and w.last_seen_at < v_now - p_records   -- checked again under its lock: the worker may have come back
     and not exists (select from tasker_worker_leases l where l.worker_id = w.worker_id)
     and not exists (select from tasker_worker_counts c where c.worker_id = w.worker_id);
  get diagnostics v_some = row_count; v_all := v_all + v_some;
  delete from tasker_system_events e
   using (select x.event_id, x.recorded_at from tasker_system_events x order by x.event_id limit p_limit) o
   where e.event_id = o.event_id and o.recorded_at < v_now - p_records;
  get diagnostics v_some = row_count; v_all := v_all + v_some;
  if p_records is not null then
    for v_queue in
      select m.queue_name from pgmq.meta m
       where exists (select from tasker_task_namespaces ns where ns.name || '_queue' = m.queue_name)
          or exists (select from tasker_inboxes i where i.queue_name = m.queue_name)
       order by 1
    loop
      execute format($q$
        delete from pgmq.%1$I a
         where a.msg_id in (select x.msg_id from pgmq.%1$I x where x.archived_at < $1 order by x.archived_at limit $2)
      $q$, 'a_' || v_queue) using v_now - p_records, p_limit;
      get diagnostics v_some = row_count; v_all := v_all + v_some;
    end loop;
  end if;
  return v_all;
end
$$;
-- +goose StatementEnd

-- +goose Down
drop function tasker_prune_records(integer, interval, interval, interval, interval);
drop function tasker_prune_identities(integer);
drop function tasker_prune_keys(integer, interval);
drop function tasker_move_prune_marks(text, integer, integer[], uuid[]);
drop function tasker_prune_tasks(date, uuid, integer, interval, text[], interval[]);
drop function tasker_drop_day(text, date, integer, interval, text[], interval[]);
drop function tasker_day_is_over(date, interval, text[], interval[]);
drop function tasker_old_days(interval, text[], interval[]);
drop function tasker_retention(interval, text[], interval[]);
drop function tasker_has_tasks(timestamptz, timestamptz);
drop function tasker_partition_ends(date);
drop function tasker_day_begins(date);
drop function tasker_take_duty(text, integer, interval);
drop table tasker_prune_marks;
drop table tasker_inboxes;
drop function tasker_note_reopened(uuid);
drop table tasker_reopened_tasks;
drop table tasker_duties;
