-- Outside workers: programs in any language that claim steps, keep their leases
-- and settle them through the functions here, with the names and promises of
-- docs/write-a-worker.md. They move steps as the engine does: a claim is
-- tasker_claim_steps, an outcome is tasker_settle_steps, and a lease that expires
-- is settled by the sweep. The difference is where the lease ends: a worker is
-- not a host, so each of its leases has a time of its own (lease_until).
--
-- A worker's role may call the functions and nothing else. The functions run as
-- their owner (security definer, with a fixed search path) and check which role
-- called.
--
-- Locks: rows of steps as 00040 says; rows of workers' leases after all others,
-- and rows of workers last.

-- +goose Up

-- Which roles may work in which namespaces. '*' means in all.
create table tasker_worker_grants (
  role_name text not null,
  namespace text not null check (namespace ~ '^([a-z][a-z0-9_]{0,39}|\*)$'),
  primary key (role_name, namespace)
);

-- The limits that hosts enforce on plugins, applied to outside workers as well.
-- Hosts write it when they start. One row.
create table tasker_worker_policy (
  singleton          boolean primary key default true check (singleton),
  max_result_bytes   integer not null default 4194304,
  max_depth          integer not null default 64,
  retry_after_cap_ms bigint not null default 300000,
  claim_factor       integer not null default 3
);
insert into tasker_worker_policy default values;

-- Lets a role work in namespaces, or in all with '*'. The role must exist and be
-- able to log in, itself or through others. It is granted nothing but the
-- functions of this file. Namespaces need not exist yet.
-- +goose StatementBegin
create function tasker_grant_worker(p_role text, variadic p_namespaces text[])
returns void language plpgsql as $$
declare
  v_role   record;
  v_schema text := (select n.nspname from pg_proc p join pg_namespace n on n.oid = p.pronamespace
                     where p.oid = 'tasker_worker_claim(text, text, text[], integer, interval)'::regprocedure);
  v_name   text;
begin
  select r.oid, r.rolsuper into v_role from pg_roles r where r.rolname = p_role;
  if not found then
    raise exception 'there is no role %', p_role using errcode = 'undefined_object',
      hint = format('create role %I login password ''…'';', p_role);
  elsif v_role.rolsuper then
    raise exception 'role % is a superuser: nothing can be kept from it', p_role using errcode = 'invalid_parameter_value',
      hint = 'Create a role for workers.';
  elsif has_schema_privilege(p_role, v_schema, 'create') then
    raise exception 'role % may create objects in schema %: it could shadow the functions for workers', p_role, v_schema
      using errcode = 'invalid_parameter_value', hint = format('revoke create on schema %I from public, %I;', v_schema, p_role);
  elsif coalesce(cardinality(p_namespaces), 0) = 0 then
    raise exception 'no namespaces are given for role %', p_role using errcode = 'invalid_parameter_value',
      hint = 'Name them, or ''*'' for all.';
  end if;
  insert into tasker_worker_grants (role_name, namespace)
  select distinct p_role, n.name from unnest(p_namespaces) n(name)
  on conflict do nothing;
  execute format('grant usage on schema %I to %I', v_schema, p_role);
  foreach v_name in array array['tasker_worker_claim(text, text, text[], integer, interval)', 'tasker_worker_heartbeat(uuid, uuid, text)',
                                'tasker_worker_settle(uuid, uuid, text, text, text, text)', 'tasker_worker_complete(uuid[], uuid[], text[], text[])',
                                'tasker_worker_next(uuid, uuid, text, text, text, text[], interval, text)',
                                'tasker_worker_exchange(uuid[], uuid[], text[], text, text, text[], integer, interval, text[])',
                                'tasker_worker_release(uuid, uuid, interval, text)'] loop
    execute format('grant execute on function %s to %I', v_name, p_role);
  end loop;
end
$$;
-- +goose StatementEnd

-- Revokes namespaces from a role; without any, all of them.
-- +goose StatementBegin
create function tasker_revoke_worker(p_role text, variadic p_namespaces text[] default '{}')
returns void language sql as $$
  delete from tasker_worker_grants g
   where g.role_name = p_role and (p_namespaces = '{}' or g.namespace = any(p_namespaces))
$$;
-- +goose StatementEnd

-- Refuses the caller if it may not work in the namespace. Inside a function that
-- runs as its owner current_user is the owner, who may do everything. The caller is
-- the role that logged in, or the one that it has set itself to.
-- +goose StatementBegin
create function tasker_worker_may(p_namespace text)
returns void language plpgsql stable as $$
declare
  v_role text := coalesce(nullif(current_setting('role'), 'none'), session_user);
begin
  if pg_has_role(v_role, current_user, 'member') then
    return;
  elsif exists (select from tasker_worker_grants g join pg_roles r on r.rolname = g.role_name
                 where g.namespace in (p_namespace, '*') and pg_has_role(v_role, r.oid, 'member')) then
    return;
  end if;
  raise exception 'role % may not work in namespace %', v_role, p_namespace using errcode = 'insufficient_privilege',
    hint = format('An administrator can allow it: select tasker_grant_worker(%L, %L);', v_role, p_namespace);
end
$$;
-- +goose StatementEnd

-- Looks up a step and the numbers of its children. Refuses a caller that may not
-- work in its namespace. o_namespace is null if there is no such step.
-- +goose StatementBegin
create function tasker_worker_step(
  p_step uuid, p_lease uuid, out o_namespace text, out o_task uuid, out o_number integer, out o_children integer[])
language plpgsql stable as $$
begin
  if p_step is null or p_lease is null then
    raise exception 'a step and its lease are required' using errcode = 'null_value_not_allowed';
  end if;
  o_task := tasker_task_of(p_step);
  o_number := tasker_step_no(p_step);
  select ns.name, n.children into o_namespace, o_children
    from tasker_workflow_steps s
    join tasker_named_steps n on n.plan_id = s.plan_id and n.step_no = s.step_no
    join tasker_task_plans p on p.plan_id = s.plan_id
    join tasker_task_namespaces ns on ns.namespace_id = p.namespace_id
   where s.task_uuid = o_task and s.step_no = o_number;
  if o_namespace is not null then
    perform tasker_worker_may(o_namespace);
  end if;
end
$$;
-- +goose StatementEnd

-- The worker's number; a new worker is entered. The time at which it was last seen
-- is renewed every five seconds at most, and without waiting for others.
-- +goose StatementBegin
create function tasker_worker_seen(p_namespace text, p_worker text)
returns integer language plpgsql as $$
declare
  v_now    timestamptz := clock_timestamp();
  v_worker record;
begin
  select w.worker_id, w.last_seen_at into v_worker from tasker_workers w where w.namespace = p_namespace and w.name = p_worker;
  if not found then
    insert into tasker_workers (namespace, name, first_seen_at, last_seen_at) values (p_namespace, p_worker, v_now, v_now)
    on conflict (namespace, name) do update set last_seen_at = excluded.last_seen_at
    returning worker_id, last_seen_at into v_worker;
  elsif v_worker.last_seen_at < v_now - interval '5 seconds' then
    update tasker_workers w set last_seen_at = v_now
     where w.worker_id = (select x.worker_id from tasker_workers x where x.worker_id = v_worker.worker_id for update skip locked);
  end if;
  return v_worker.worker_id;
end
$$;
-- +goose StatementEnd

-- Whether JSON may take more than twice p_max_bytes once it is stored. 1e131071 does,
-- for example, since it is written out when stored. One byte becomes 16384 at most,
-- and only in a number with an exponent does it become more than two.
-- +goose StatementBegin
create function tasker_worker_swells(p_json text, p_max_bytes integer)
returns boolean language sql immutable as $$
  select octet_length(p_json) > p_max_bytes / 8192 and p_json ~ '[0-9][eE]'
$$;
-- +goose StatementEnd

-- Whether JSON takes more than p_max_bytes once its numbers are written out. It stops as
-- soon as it knows: all of 1e131071,1e131071,… at once could be more than memory holds.
-- +goose StatementBegin
create function tasker_worker_too_wide(p_json text, p_value jsonb, p_max_bytes bigint)
returns boolean language plpgsql immutable as $$
declare
  v_bytes  bigint := octet_length(p_json);
  v_number jsonb;
begin
  for v_number in select n.value from jsonb_path_query(p_value, 'strict $.** ? (@.type() == "number")') n(value) loop
    v_bytes := v_bytes + octet_length(v_number::text);
    exit when v_bytes > p_max_bytes;
  end loop;
  return v_bytes > p_max_bytes;
end
$$;
-- +goose StatementEnd

-- What is wrong with a text that should be JSON that we can store; null: nothing.
-- jsonb stores what passes without losing a digit.
-- +goose StatementBegin
create function tasker_worker_fault(p_what text, p_text text, p_max_bytes integer, p_max_depth integer, p_object boolean)
returns text language plpgsql immutable as $$
declare
  v_value jsonb;
  v_depth integer := 1;
  v_level jsonb[];
begin
  if octet_length(p_text) > p_max_bytes then
    return format('%s is %s bytes long: at most %s are allowed', p_what, octet_length(p_text), p_max_bytes);
  end if;
  begin
    v_value := p_text::jsonb;
  exception when others then
    return format('%s is not JSON that can be stored: %s', p_what, sqlerrm);
  end;
  if p_object and jsonb_typeof(v_value) <> 'object' then
    return format('%s is not a JSON object', p_what);
  end if;
  -- The depth is at most the number of brackets: only suspicious texts are taken apart.
  if length(p_text) - length(translate(p_text, '[{', '')) > p_max_depth then
    v_level := array[v_value];
    while v_level is not null loop
      if v_depth > p_max_depth then
        return format('%s is nested deeper than %s levels', p_what, p_max_depth);
      end if;
      select array_agg(e.value) into v_level
        from unnest(v_level) l(value)
       cross join lateral (
         select a.value from jsonb_array_elements(case jsonb_typeof(l.value) when 'array' then l.value end) a(value)
         union all
         select o.value from jsonb_each(case jsonb_typeof(l.value) when 'object' then l.value end) o(key, value)) e
       where jsonb_typeof(e.value) in ('array', 'object');
      v_depth := v_depth + 1;
    end loop;
  end if;
  if tasker_worker_swells(p_text, p_max_bytes) and tasker_worker_too_wide(p_text, v_value, 2::bigint * p_max_bytes) then
    return format('%s takes more than %s bytes when its numbers are written out: send them as strings', p_what, 2::bigint * p_max_bytes);
  end if;
  return null;
end
$$;
-- +goose StatementEnd

-- What is wrong with the result of a step and the metadata to be kept with it; null: nothing.
-- +goose StatementBegin
create function tasker_worker_refusal(p_output text, p_metadata text)
returns text language plpgsql stable as $$
declare
  v_max record;
begin
  select c.max_result_bytes, c.max_depth into v_max from tasker_worker_policy c;
  return coalesce(
    case when p_output is not null then tasker_worker_fault('output', p_output, v_max.max_result_bytes, v_max.max_depth, false) end,
    case when p_metadata is not null then tasker_worker_fault('metadata', p_metadata, v_max.max_result_bytes, v_max.max_depth, true) end);
end
$$;
-- +goose StatementEnd

-- What the worker needs to run one step that was leased to it at p_at, as described at
-- tasker_worker_claim. Enters the lease for the sweep. If p_done is not null it is the
-- lease of a step that the worker has just done, whose row is reused.
-- +goose StatementBegin
create function tasker_worker_job(
  p_worker integer, p_lease interval, p_at timestamptz, p_task uuid, p_step integer, p_lease_id uuid, p_plan integer, p_generation integer,
  p_done uuid default null,
  out o_task_name text, out o_task_version text, out o_step_name text, out o_handler text, out o_max_attempts integer, out o_key text,
  out o_context jsonb, out o_config jsonb, out o_dependencies jsonb, out o_until timestamptz, out o_deadline timestamptz)
language plpgsql as $$
declare
  v_step record;
begin
  select n.name, n.config, n.max_attempts, nullif(n.timeout_ms, 0) * interval '1 millisecond' as timeout, n.ancestors, h.name as handler into strict v_step
    from tasker_named_steps n
    join tasker_handlers h on h.handler_id = n.handler_id
   where n.plan_id = p_plan and n.step_no = p_step;
  o_step_name := v_step.name; o_config := v_step.config; o_max_attempts := v_step.max_attempts; o_handler := v_step.handler;
  o_until := p_at + least(p_lease, v_step.timeout); o_deadline := p_at + v_step.timeout;
  if p_done is not null then
    update tasker_worker_leases l
       set lease_id = p_lease_id, task_uuid = p_task, step_no = p_step, lease = p_lease, look_at = o_until, deadline_at = o_deadline,
           progress = null, done = l.done + 1
     where l.lease_id = p_done and l.worker_id = p_worker;
  end if;
  if p_done is null or not found then
    if p_done is not null then  -- the lease was another worker's, or the sweep has it
      perform tasker_worker_count(array[p_done], 'success');
    end if;
    insert into tasker_worker_leases (lease_id, task_uuid, step_no, worker_id, lease, look_at, deadline_at)
    values (p_lease_id, p_task, p_step, p_worker, p_lease, o_until, o_deadline);
  end if;
  select k.name, k.version, t.context into o_task_name, o_task_version, o_context
    from tasker_tasks t
    join tasker_task_plans p on p.plan_id = t.plan_id
    join tasker_named_tasks k on k.named_task_uuid = p.named_task_uuid
   where t.task_uuid = p_task;
  o_key := tasker_step_uuid(p_task, p_step)::text || case when p_generation > 0 then '.' || p_generation else '' end;
  o_dependencies := '{}';
  if v_step.ancestors <> '{}' then
    select coalesce(jsonb_object_agg(n.name, x.result), '{}') into o_dependencies
      from unnest(v_step.ancestors) a(step_no)
     cross join lateral (  -- as in tasker_enqueue
       select o.result, o.state from tasker_workflow_steps o where o.task_uuid = p_task and o.step_no = a.step_no offset 0) x
     cross join lateral (select z.name from tasker_named_steps z where z.plan_id = p_plan and z.step_no = a.step_no offset 0) n
     where x.state in ('complete', 'resolved_manually') and x.result is not null;
  end if;
end
$$;
-- +goose StatementEnd

-- What the worker needs to run each of many steps, and their leases, as
-- tasker_worker_job does for one. The rows are in no order; ord is the position in the arrays.
-- +goose StatementBegin
create function tasker_worker_jobs(
  p_worker integer, p_lease interval, p_at timestamptz[], p_task uuid[], p_step integer[], p_lease_id uuid[], p_attempt integer[],
  p_plan integer[], p_generation integer[])
returns table (
  ord bigint, step_uuid uuid, lease_id uuid, task_uuid uuid, task_name text, task_version text, step_name text, handler text,
  attempt integer, max_attempts integer, idempotency_key text, context jsonb, config jsonb, dependencies jsonb,
  lease_until timestamptz, deadline timestamptz)
language plpgsql as $$
#variable_conflict use_column
begin
  return query
  with got as materialized (
    select u.ord, u.at, u.task_uuid, u.step_no, u.lease_id, u.attempt, u.plan_id, u.generation
      from unnest(p_at, p_task, p_step, p_lease_id, p_attempt, p_plan, p_generation)
           with ordinality u(at, task_uuid, step_no, lease_id, attempt, plan_id, generation, ord)
  ), kind as materialized (  -- what is the same for a step in all tasks that follow a plan: looked up once for all of them
    select d.plan_id, d.step_no, n.name, n.config, n.max_attempts, nullif(n.timeout_ms, 0) * interval '1 millisecond' as timeout,
           h.name as handler, k.name as task_name, k.version, n.ancestors, a.names
      from (select distinct g.plan_id, g.step_no from got g) d
     cross join lateral (  -- as in tasker_enqueue
       select z.handler_id, z.name, z.config, z.max_attempts, z.timeout_ms, z.ancestors
         from tasker_named_steps z where z.plan_id = d.plan_id and z.step_no = d.step_no offset 0) n
      join tasker_handlers h on h.handler_id = n.handler_id
      join tasker_task_plans p on p.plan_id = d.plan_id
      join tasker_named_tasks k on k.named_task_uuid = p.named_task_uuid
     cross join lateral (
       select array_agg(y.name order by x.ord) as names
         from unnest(n.ancestors) with ordinality x(step_no, ord)
        cross join lateral (select z.name from tasker_named_steps z where z.plan_id = d.plan_id and z.step_no = x.step_no offset 0) y
        where n.ancestors <> '{}') a
  ), noted as (
    insert into tasker_worker_leases (lease_id, task_uuid, step_no, worker_id, lease, look_at, deadline_at)
    select g.lease_id, g.task_uuid, g.step_no, p_worker, p_lease, g.at + least(p_lease, k.timeout), g.at + k.timeout
      from got g join kind k on k.plan_id = g.plan_id and k.step_no = g.step_no
  )
  select g.ord, tasker_step_uuid(g.task_uuid, g.step_no), g.lease_id, g.task_uuid, k.task_name, k.version, k.name, k.handler,
         g.attempt, k.max_attempts::integer,
         tasker_step_uuid(g.task_uuid, g.step_no)::text || case when g.generation > 0 then '.' || g.generation else '' end,
         t.context, k.config,
         case when k.ancestors = '{}' then '{}'
              else (select coalesce(jsonb_object_agg(a.step_name, x.result), '{}')
                      from unnest(k.ancestors, k.names) a(step_no, step_name)
                     cross join lateral (
                       select o.result, o.state from tasker_workflow_steps o where o.task_uuid = g.task_uuid and o.step_no = a.step_no offset 0) x
                     where x.state in ('complete', 'resolved_manually') and x.result is not null) end,
         g.at + least(p_lease, k.timeout), g.at + k.timeout
    from got g
    join kind k on k.plan_id = g.plan_id and k.step_no = g.step_no
   cross join lateral (select z.context from tasker_tasks z where z.task_uuid = g.task_uuid offset 0) t;
end
$$;
-- +goose StatementEnd

-- A length of time in seconds. Months and days have none of their own: 1000 years less
-- 360000 days compares as nothing, but takes fourteen years when it is added to a time.
-- +goose StatementBegin
create function tasker_worker_span(p_span interval)
returns interval language sql immutable as $$
  select extract(epoch from p_span)::double precision * interval '1 second'
$$;
-- +goose StatementEnd

-- Refuses a request for work that makes no sense, or that the caller may not make.
-- p_known is a namespace in which the caller is known to be allowed to work, or null.
-- +goose StatementBegin
create function tasker_worker_asks(p_namespace text, p_worker text, p_handlers text[], p_qty integer, p_lease interval, p_known text)
returns void language plpgsql stable as $$
begin
  if p_known is null or p_namespace is distinct from p_known then
    perform tasker_worker_may(coalesce(p_namespace, ''));
  end if;
  if coalesce(length(p_worker), 0) not between 1 and 200 then
    raise exception 'a worker needs a name of 1 to 200 characters' using errcode = 'invalid_parameter_value';
  elsif coalesce(cardinality(p_handlers), 0) not between 1 and 1000 or array_position(p_handlers, null) is not null then
    raise exception 'a claim names 1 to 1000 handlers' using errcode = 'invalid_parameter_value';
  elsif p_qty is null or p_qty not between 1 and 100 then
    raise exception 'a claim is for 1 to 100 steps, not for %', p_qty using errcode = 'invalid_parameter_value';
  elsif p_lease is null or p_lease not between interval '1 second' and interval '1 day' then
    raise exception 'a lease lasts from 1 second to 1 day, not %', p_lease using errcode = 'invalid_parameter_value';
  elsif p_namespace = p_known then
    return;
  elsif not exists (select from tasker_task_namespaces ns where ns.name = p_namespace) then
    raise exception 'there is no namespace %', p_namespace using errcode = 'undefined_object',
      hint = 'A namespace is created by the first template applied in it.';
  end if;
end
$$;
-- +goose StatementEnd

-- Leases to the worker up to p_qty steps of the namespace whose handler is among
-- p_handlers, those with the highest priority first. Each lease lasts p_lease, and
-- each heartbeat extends it by the same time, but never beyond the step's timeout.
--
-- Returns what the worker needs to run each step: context, the template's config,
-- and as dependencies an object with the results of the steps it depends on, by
-- their names: all its parents, and nearer ancestors up to 256. The
-- idempotency_key is the same for every attempt of a step.
-- +goose StatementBegin
create function tasker_worker_claim(
  p_namespace text, p_worker text, p_handlers text[], p_qty integer default 1, p_lease interval default '60 seconds')
returns table (
  step_uuid uuid, lease_id uuid, task_uuid uuid, namespace text, task_name text, task_version text, step_name text, handler text,
  attempt integer, max_attempts integer, idempotency_key text, context jsonb, config jsonb, dependencies jsonb,
  lease_until timestamptz, deadline timestamptz)
language plpgsql security definer set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
#variable_conflict use_column
declare
  v_got    record;
  v_job    record;
  v_worker integer;
begin
  p_lease := tasker_worker_span(p_lease);
  perform tasker_worker_asks(p_namespace, p_worker, p_handlers, p_qty, p_lease, null);
  v_got := tasker_claim_steps(null, p_namespace || '_queue', p_handlers,
             array(select h.handler_id from tasker_handlers h where h.name = any(p_handlers)), p_qty, 0, p_worker, p_lease);
  v_worker := tasker_worker_seen(p_namespace, p_worker);
  if coalesce(cardinality(v_got.o_task), 0) = 0 then
    return;
  elsif cardinality(v_got.o_task) = 1 then
    v_job := tasker_worker_job(v_worker, p_lease, v_got.o_at, v_got.o_task[1], v_got.o_step[1], v_got.o_lease[1],
                               v_got.o_plan[1], v_got.o_generation[1]);
    step_uuid := tasker_step_uuid(v_got.o_task[1], v_got.o_step[1]); lease_id := v_got.o_lease[1]; task_uuid := v_got.o_task[1];
    namespace := p_namespace; task_name := v_job.o_task_name; task_version := v_job.o_task_version; step_name := v_job.o_step_name;
    handler := v_job.o_handler; attempt := v_got.o_attempt[1]; max_attempts := v_job.o_max_attempts; idempotency_key := v_job.o_key;
    context := v_job.o_context; config := v_job.o_config; dependencies := v_job.o_dependencies;
    lease_until := v_job.o_until; deadline := v_job.o_deadline;
    return next;
    return;
  end if;
  return query
  select j.step_uuid, j.lease_id, j.task_uuid, p_namespace, j.task_name, j.task_version, j.step_name, j.handler, j.attempt, j.max_attempts,
         j.idempotency_key, j.context, j.config, j.dependencies, j.lease_until, j.deadline
    from tasker_worker_jobs(v_worker, p_lease, array_fill(v_got.o_at, array[cardinality(v_got.o_task)]), v_got.o_task, v_got.o_step,
                            v_got.o_lease, v_got.o_attempt, v_got.o_plan, v_got.o_generation) j
   order by j.ord;
end
$$;
-- +goose StatementEnd

-- Extends a lease by the time that it was claimed for. p_progress, if given, is JSON
-- of at most 4096 bytes for people to see. The verdict is
--   ok                the lease holds until lease_until
--   cancel_requested  stop: reason is task_cancelled, or timeout when the step's
--                     timeout has passed; no answer counts once that is recorded
--   stale_lease       stop: the step belongs to somebody else, or has been settled
--   invalid           the progress was refused, for the reason given; the lease was extended
-- +goose StatementBegin
create function tasker_worker_heartbeat(p_step uuid, p_lease uuid, p_progress text default null)
returns table (verdict text, lease_until timestamptz, reason text)
language plpgsql security definer
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
#variable_conflict use_column
declare
  v_namespace text := (tasker_worker_step(p_step, p_lease)).o_namespace;
  v_now       timestamptz := clock_timestamp();
  v_lease     record;
  v_worker    text;
begin
  select l.worker_id, l.lease, l.deadline_at into v_lease from tasker_worker_leases l
   where l.lease_id = p_lease and l.task_uuid = tasker_task_of(p_step) and l.step_no = tasker_step_no(p_step);
  if found then
    update tasker_workflow_steps s set lease_until = least(v_now + v_lease.lease, v_lease.deadline_at)
     where s.task_uuid = tasker_task_of(p_step) and s.step_no = tasker_step_no(p_step)
       and s.state = 'in_progress' and s.lease_id = p_lease
    returning s.lease_until into lease_until;
  end if;
  if lease_until is null then
    select 'cancel_requested', 'task_cancelled' into verdict, reason
      from tasker_workflow_steps s
     where s.task_uuid = tasker_task_of(p_step) and s.step_no = tasker_step_no(p_step)
       and s.state = 'cancelled' and s.lease_id = p_lease;
    if not found then
      verdict := 'stale_lease'; reason := 'the step belongs to somebody else or has been settled';
    end if;
    return next; return;
  end if;
  verdict := 'ok';
  if v_lease.deadline_at <= v_now then
    verdict := 'cancel_requested'; reason := 'timeout';
  elsif p_progress is not null then
    reason := tasker_worker_fault('progress', p_progress, 4096, 8, false);
    if reason is null then
      update tasker_worker_leases l set progress = p_progress::jsonb where l.lease_id = p_lease;
    else
      verdict := 'invalid';
    end if;
  end if;
  -- After the lease, in the order of the sweep that counts.
  select w.name into v_worker from tasker_workers w where w.worker_id = v_lease.worker_id;
  if found then  -- retention may have removed it at the moment when it claimed
    perform tasker_worker_seen(v_namespace, v_worker);
  end if;
  return next;
end
$$;
-- +goose StatementEnd

-- Ends leases whose outcome was recorded: there is nothing left to look at. Each
-- worker's count grows by a row of its own: if the worker's row were updated all of
-- its steps would wait for each other. The sweep adds these rows up.
-- +goose StatementBegin
create function tasker_worker_count(p_lease uuid[], p_outcome tasker_outcome)
returns void language plpgsql as $$
declare
  v_lease record;
begin
  if cardinality(p_lease) = 1 then  -- at a fourth of the cost of the statement for many
    delete from tasker_worker_leases l where l.lease_id = p_lease[1] returning l.worker_id, l.done into v_lease;
    if found then
      insert into tasker_worker_counts (worker_id, outcome, steps) values (v_lease.worker_id, p_outcome, 1);
      if v_lease.done > 0 then
        insert into tasker_worker_counts (worker_id, outcome, steps) values (v_lease.worker_id, 'success', v_lease.done);
      end if;
    end if;
    return;
  end if;
  with ended as (
    delete from tasker_worker_leases l where l.lease_id = any(p_lease) returning l.worker_id, l.done
  )
  insert into tasker_worker_counts (worker_id, outcome, steps)
  select e.worker_id, p_outcome, count(*) from ended e group by e.worker_id
  union all
  select e.worker_id, 'success', sum(e.done) from ended e where e.done > 0 group by e.worker_id;
end
$$;
-- +goose StatementEnd

-- Passes an outcome that has been checked to tasker_settle_steps, and records it for
-- the worker's counts.
-- +goose StatementBegin
create function tasker_worker_record(
  p_step uuid, p_lease uuid, p_outcome tasker_outcome, p_output text, p_metadata text, p_error jsonb, p_wait_ms bigint)
returns text language plpgsql as $$
declare
  v_policy record;
  v_row    record;
begin
  select c.retry_after_cap_ms, c.claim_factor into v_policy from tasker_worker_policy c;
  v_row := tasker_settle_steps(null, 0, '{}', array[tasker_task_of(p_step)], array[tasker_step_no(p_step)], array[p_lease],
             array[p_outcome], array[null::bigint], array[p_output], array[p_metadata], array[p_error::text], array[p_wait_ms],
             v_policy.retry_after_cap_ms, v_policy.claim_factor);
  if v_row.o_verdict[1] = 'recorded' then
    perform tasker_worker_count(array[p_lease], p_outcome);
  end if;
  return v_row.o_verdict[1];
end
$$;
-- +goose StatementEnd

-- Records a success that has been checked. If p_worker is not null, leases it, for
-- p_lease_for, a child that is ready and whose handler is in p_served. The caller
-- counts what was recorded (tasker_worker_count); if it was counted here already, that
-- does no harm.
-- +goose StatementBegin
create function tasker_worker_success(
  p_task uuid, p_step integer, p_lease uuid, p_output text, p_metadata text, p_children integer[],
  p_worker text, p_served integer[], p_lease_for interval,
  out o_verdict text, out o_step integer, out o_lease uuid, out o_attempt integer, out o_plan integer, out o_generation integer, out o_at timestamptz)
language plpgsql as $$
declare
  v_done record;
begin
  v_done := tasker_settle_success(null, case when p_worker is null then 0 else 1 end, p_served, p_task, p_step, p_lease, null,
                                  coalesce(p_output, 'null'), p_metadata, p_children, p_worker, p_lease_for);
  if v_done.o_verdict is null then
    o_verdict := tasker_worker_record(tasker_step_uuid(p_task, p_step), p_lease, 'success', coalesce(p_output, 'null'), p_metadata, null, 0);
    return;
  end if;
  o_verdict := v_done.o_verdict; o_at := v_done.o_at; o_plan := v_done.o_plan;
  o_step := v_done.o_step[1]; o_lease := v_done.o_lease[1]; o_attempt := v_done.o_attempt[1]; o_generation := v_done.o_generation[1];
end
$$;
-- +goose StatementEnd

-- Records the outcome of a step. p_outcome is
--   success    p_output is its result, any JSON value; p_metadata an object that is kept with it
--   retryable  p_error says why; the step's retry policy decides when it runs again
--   permanent  p_error says why; it is not tried again
-- p_error is an object: message, type, code, context (an object) and retry_after
-- (seconds), all optional. All three are texts, so that a fault in them leads to an
-- answer instead of an exception. The verdict is
--   recorded          it counts
--   already_recorded  an earlier call with this lease counted: the reply was lost
--   stale_lease       it does not count: the step belongs to somebody else, or was cancelled
--   unknown           there is no such step
--   invalid           nothing was done; detail says what to send instead
-- +goose StatementBegin
create function tasker_worker_settle(
  p_step uuid, p_lease uuid, p_outcome text, p_output text default null, p_error text default null, p_metadata text default null)
returns table (verdict text, detail text)
language plpgsql security definer
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
#variable_conflict use_column
declare
  v_step  record;
  v_error jsonb;
  v_wait  numeric := 0;
begin
  v_step := tasker_worker_step(p_step, p_lease);
  detail := case
    when p_outcome is null or p_outcome not in ('success', 'retryable', 'permanent') then
      format('outcome %L is not success, retryable or permanent', left(p_outcome, 40))
    when p_outcome = 'success' and p_error is not null then 'a success has no error'
    when p_outcome <> 'success' and coalesce(p_output, p_metadata) is not null then 'a failure has an error, but neither output nor metadata'
    when p_outcome = 'success' then tasker_worker_refusal(p_output, p_metadata)
    else tasker_worker_fault('error', coalesce(p_error, '{}'), 65536, 32, true)
  end;
  if detail is not null then
    verdict := 'invalid';
    return next; return;
  elsif v_step.o_namespace is null then
    verdict := 'unknown'; detail := 'no step has this UUID';
    return next; return;
  end if;
  if p_outcome <> 'success' then
    v_error := coalesce(p_error, '{}')::jsonb;
    if jsonb_typeof(v_error -> 'retry_after') = 'number' then
      v_wait := least(greatest((v_error ->> 'retry_after')::numeric, 0), 1000000);
    end if;
    v_error := jsonb_strip_nulls(jsonb_build_object(
      'type', left(coalesce(v_error ->> 'type', case p_outcome when 'retryable' then 'RetryableError' else 'PermanentError' end), 200),
      'code', left(v_error ->> 'code', 200),
      'message', left(coalesce(v_error ->> 'message', 'the worker gave no reason'), 8192),
      'retryable', p_outcome = 'retryable',
      'retry_after_seconds', case when v_wait > 0 then v_wait end,
      'context', case when jsonb_typeof(v_error -> 'context') = 'object' then v_error -> 'context' end));
  end if;
  if p_outcome = 'success' then
    verdict := (tasker_worker_success(v_step.o_task, v_step.o_number, p_lease, p_output, p_metadata, v_step.o_children, null, '{}', null)).o_verdict;
    if verdict = 'recorded' then
      perform tasker_worker_count(array[p_lease], 'success');
    end if;
  else
    verdict := tasker_worker_record(p_step, p_lease, p_outcome::tasker_outcome, null, null, v_error, (v_wait * 1000)::bigint);
  end if;
  detail := case verdict when 'stale_lease' then 'the step is not (or no longer) run under this lease' end;
  return next;
end
$$;
-- +goose StatementEnd

-- Records the success of a step, as tasker_worker_settle does, and leases the worker
-- its next one, as tasker_worker_claim does: in one call and one commit, for a worker
-- that runs one step at a time. The next step is one that this success made ready, if
-- the worker serves it, just as a host continues with the steps that its plugins have
-- made ready; otherwise one from the queue. Returns one row: the verdict and, unless
-- step_uuid is null, the step. After "invalid" there is none: the current step must be
-- settled first.
--
-- While it looks into the queue it holds the locks of the step and of those below it.
-- So it does not wait for anybody there.
-- +goose StatementBegin
create function tasker_worker_next(
  p_step uuid, p_lease uuid, p_output text, p_namespace text, p_worker text, p_handlers text[],
  p_lease_for interval default '60 seconds', p_metadata text default null)
returns table (
  verdict text, detail text,
  step_uuid uuid, lease_id uuid, task_uuid uuid, namespace text, task_name text, task_version text, step_name text, handler text,
  attempt integer, max_attempts integer, idempotency_key text, context jsonb, config jsonb, dependencies jsonb,
  lease_until timestamptz, deadline timestamptz)
language plpgsql security definer
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
#variable_conflict use_column
declare
  v_step   record;
  v_done   record;
  v_got    record;
  v_job    record;
  v_served integer[];
  v_worker integer;
  v_renew  boolean;
  v_task   uuid;
  v_number integer;
  v_plan   integer;
  v_again  integer;
  v_at     timestamptz;
begin
  v_step := tasker_worker_step(p_step, p_lease);
  p_lease_for := tasker_worker_span(p_lease_for);
  perform tasker_worker_asks(p_namespace, p_worker, p_handlers, 1, p_lease_for, v_step.o_namespace);
  detail := tasker_worker_refusal(p_output, p_metadata);
  if detail is not null then
    verdict := 'invalid';
    return next; return;
  end if;
  v_served := array(select h.handler_id from tasker_handlers h where h.name = any(p_handlers));
  if v_step.o_namespace is null then
    verdict := 'unknown'; detail := 'no step has this UUID';
  else
    perform tasker_may_lease(null);  -- before any lock of a step
    v_done := tasker_worker_success(v_step.o_task, v_step.o_number, p_lease, p_output, p_metadata, v_step.o_children,
                case when v_step.o_namespace = p_namespace and not tasker_queue_paused(p_namespace || '_queue') then p_worker end,
                v_served, p_lease_for);
    verdict := v_done.o_verdict;
    detail := case verdict when 'stale_lease' then 'the step is not (or no longer) run under this lease' end;
    if v_done.o_step is not null then
      v_task := v_step.o_task; v_number := v_done.o_step; lease_id := v_done.o_lease; v_plan := v_done.o_plan;
      attempt := v_done.o_attempt; v_again := v_done.o_generation; v_at := v_done.o_at;
    end if;
  end if;
  if v_task is null then
    v_got := tasker_claim_steps(null, p_namespace || '_queue', p_handlers, v_served, 1, 0, p_worker, p_lease_for, false);
    v_task := v_got.o_task[1]; v_number := v_got.o_step[1]; lease_id := v_got.o_lease[1]; v_plan := v_got.o_plan[1];
    attempt := v_got.o_attempt[1]; v_again := v_got.o_generation[1]; v_at := v_got.o_at;
  end if;
  select w.worker_id, w.last_seen_at < clock_timestamp() - interval '5 seconds' into v_worker, v_renew
    from tasker_workers w where w.namespace = p_namespace and w.name = p_worker;
  if not found then
    v_worker := tasker_worker_seen(p_namespace, p_worker);
  end if;
  if v_task is not null then
    v_job := tasker_worker_job(v_worker, p_lease_for, v_at, v_task, v_number, lease_id, v_plan, v_again,
                               case when verdict = 'recorded' then p_lease end);
    step_uuid := tasker_step_uuid(v_task, v_number); task_uuid := v_task; namespace := p_namespace; task_name := v_job.o_task_name;
    task_version := v_job.o_task_version; step_name := v_job.o_step_name; handler := v_job.o_handler; max_attempts := v_job.o_max_attempts;
    idempotency_key := v_job.o_key; context := v_job.o_context; config := v_job.o_config; dependencies := v_job.o_dependencies;
    lease_until := v_job.o_until; deadline := v_job.o_deadline;
  elsif verdict = 'recorded' then
    perform tasker_worker_count(array[p_lease], 'success');
  end if;
  if v_renew then  -- after the lease, in the order of the sweep that counts
    perform tasker_worker_seen(p_namespace, p_worker);
  end if;
  return next;
end
$$;
-- +goose StatementEnd

-- Records successes together, in the order of their steps. Leases to p_worker, for
-- p_lease_for, up to p_room of the children that they made ready and whose handler is in
-- p_served; none if one of the steps is not of the namespace p_namespace. Returns the
-- verdict on each, by its position in the arrays, and the steps leased, as
-- tasker_settle_steps does. If one is refused the others are recorded all the same.
-- +goose StatementBegin
create function tasker_worker_successes(
  p_step uuid[], p_lease uuid[], p_output text[], p_metadata text[],
  p_namespace text, p_worker text, p_room integer, p_served integer[], p_lease_for interval,
  out o_verdict text[], out o_detail text[],
  out o_task uuid[], out o_step integer[], out o_lease uuid[], out o_attempt integer[], out o_plan integer[], out o_generation integer[],
  out o_at timestamptz)
language plpgsql as $$
declare
  v_count     constant integer := coalesce(cardinality(p_step), 0);
  v_policy    record;
  v_json      boolean;
  v_namespace text;
  v_ord       integer[];  -- positions of those that are recorded together, in the order of their steps
  v_task      uuid[];
  v_number    integer[];
  v_lease     uuid[];
  v_output    text[];
  v_metadata  text[];
  v_done      record;
  v_said      record;
begin
  if v_count <> coalesce(cardinality(p_lease), 0) or v_count <> coalesce(cardinality(p_output), 0) or v_count <> cardinality(p_metadata) then
    raise exception 'each step needs its lease and its output' using errcode = 'invalid_parameter_value';
  elsif array_position(p_step, null) is not null or array_position(p_lease, null) is not null then
    raise exception 'a step and its lease are required' using errcode = 'null_value_not_allowed';
  elsif v_count = 0 then
    return;
  end if;
  for v_namespace in
    select ns.name
      from (select distinct s.plan_id
              from unnest(p_step) u(step)
             cross join lateral (  -- as in tasker_enqueue
               select o.plan_id from tasker_workflow_steps o
                where o.task_uuid = tasker_task_of(u.step) and o.step_no = tasker_step_no(u.step) offset 0) s) d
      join tasker_task_plans p on p.plan_id = d.plan_id
      join tasker_task_namespaces ns on ns.namespace_id = p.namespace_id
     group by ns.name
  loop
    perform tasker_worker_may(v_namespace);
    if v_namespace is distinct from p_namespace then
      p_room := 0;
    end if;
  end loop;
  select c.max_result_bytes, c.max_depth, c.retry_after_cap_ms, c.claim_factor into v_policy from tasker_worker_policy c;

  -- One cast shows whether all of it is JSON. Only if not are they checked one by one
  -- for what is wrong, and with which.
  begin
    perform p_output::jsonb[], p_metadata::jsonb[];
    v_json := true;
  exception when others then
    v_json := false;
  end;
  with given as (  -- what is wrong with each; null: nothing
    select u.ord, u.step, u.lease, coalesce(u.output, 'null') as output, u.metadata,
           row_number() over (partition by u.step order by u.ord) as nth,
           case when v_json and (u.output is null
                  or octet_length(u.output) <= v_policy.max_result_bytes and not tasker_worker_swells(u.output, v_policy.max_result_bytes)
                     and length(u.output) - length(translate(u.output, '[{', '')) <= v_policy.max_depth) then null
                else tasker_worker_fault('output', coalesce(u.output, 'null'), v_policy.max_result_bytes, v_policy.max_depth, false) end
             as output_fault,
           case when u.metadata is not null
                then tasker_worker_fault('metadata', u.metadata, v_policy.max_result_bytes, v_policy.max_depth, true) end as metadata_fault
      from unnest(p_step, p_lease, p_output, p_metadata) with ordinality u(step, lease, output, metadata, ord)
  ), together as (  -- those that are recorded together; of a step that is named twice, the first
    select g.ord, tasker_task_of(g.step) as task_uuid, tasker_step_no(g.step) as step_no, g.lease, g.output, g.metadata
      from given g where coalesce(g.output_fault, g.metadata_fault) is null and g.nth = 1
  )
  select t.ord, t.task, t.number, t.lease, t.output, t.metadata, d.details
    into v_ord, v_task, v_number, v_lease, v_output, v_metadata, o_detail
    from (select array_agg(x.ord) as ord, array_agg(x.task_uuid) as task, array_agg(x.step_no) as number, array_agg(x.lease) as lease,
                 array_agg(x.output) as output, array_agg(x.metadata) as metadata
            from (select x.ord, x.task_uuid, x.step_no, x.lease, x.output, x.metadata
                    from together x order by x.task_uuid, x.step_no) x) t,
         (select array_agg(coalesce(g.output_fault, g.metadata_fault) order by g.ord) as details from given g) d;

  o_verdict := array_fill(null::text, array[v_count]);
  if v_ord is not null then
    v_done := tasker_settle_steps(null, p_room, p_served, v_task, v_number, v_lease, array_fill('success'::tasker_outcome, array[cardinality(v_ord)]),
                array_fill(null::bigint, array[cardinality(v_ord)]), v_output, v_metadata, array_fill(null::text, array[cardinality(v_ord)]),
                array_fill(0::bigint, array[cardinality(v_ord)]), v_policy.retry_after_cap_ms, v_policy.claim_factor, p_worker, p_lease_for);
    o_task := v_done.o_task; o_step := v_done.o_step; o_lease := v_done.o_lease; o_attempt := v_done.o_attempt;
    o_plan := v_done.o_plan; o_generation := v_done.o_generation; o_at := v_done.o_at;
    perform tasker_worker_count(
      array(select u.lease from unnest(v_lease, v_done.o_verdict) u(lease, verdict) where u.verdict = 'recorded'), 'success');
    for i in 1 .. cardinality(v_ord) loop
      o_verdict[v_ord[i]] := v_done.o_verdict[i];
    end loop;
  end if;
  for i in 1 .. v_count loop
    if o_detail[i] is not null then
      o_verdict[i] := 'invalid';
    elsif o_verdict[i] = 'stale_lease' then
      o_detail[i] := 'the step is not (or no longer) run under this lease';
    elsif o_verdict[i] = 'unknown' then
      o_detail[i] := 'no step has this UUID';
    elsif o_verdict[i] is null then  -- a step that was named before
      select x.verdict, x.detail into v_said
        from tasker_worker_settle(p_step[i], p_lease[i], 'success', p_output[i], null, p_metadata[i]) x;
      o_verdict[i] := v_said.verdict; o_detail[i] := v_said.detail;
    end if;
  end loop;
end
$$;
-- +goose StatementEnd

-- Records the success of up to 500 steps together, at a fraction of the cost of as
-- many calls of tasker_worker_settle. p_output and p_metadata are as there, one for
-- each step. Returns a row for each, in the order given. If one is refused the others
-- are recorded all the same.
-- +goose StatementBegin
create function tasker_worker_complete(p_step uuid[], p_lease uuid[], p_output text[], p_metadata text[] default null)
returns table (step_uuid uuid, verdict text, detail text)
language plpgsql security definer set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
#variable_conflict use_column
declare
  v_done record;
begin
  if coalesce(cardinality(p_step), 0) not between 1 and 500 then
    raise exception 'complete is for 1 to 500 steps, not for %', coalesce(cardinality(p_step), 0) using errcode = 'invalid_parameter_value';
  end if;
  v_done := tasker_worker_successes(p_step, p_lease, p_output, p_metadata, null, null, 0, '{}', null);
  for i in 1 .. cardinality(p_step) loop
    step_uuid := p_step[i]; verdict := v_done.o_verdict[i]; detail := v_done.o_detail[i];
    return next;
  end loop;
end
$$;
-- +goose StatementEnd

-- Records the successes of up to 500 steps, as tasker_worker_complete does, and leases
-- the worker up to p_qty others, as tasker_worker_claim does: in one call and one
-- commit, for a worker that runs many at a time. With empty arrays it is a claim. It
-- first leases steps that these successes made ready, if the worker serves them and
-- all steps handed in are of p_namespace, and then steps from the queue.
--
-- Returns the steps handed in, with their verdicts (verdict_on is the step), and the
-- steps leased, as two lists side by side: row n has the nth of each. The steps handed
-- in are in the order of the arguments. Past the end of a list its columns are null.
--
-- While it looks into the queue it holds the locks of the steps and of those below
-- them. So it does not wait for anybody there.
-- +goose StatementBegin
create function tasker_worker_exchange(
  p_step uuid[], p_lease uuid[], p_output text[], p_namespace text, p_worker text, p_handlers text[],
  p_qty integer default 100, p_lease_for interval default '60 seconds', p_metadata text[] default null)
returns table (
  verdict text, detail text, verdict_on uuid,
  step_uuid uuid, lease_id uuid, task_uuid uuid, namespace text, task_name text, task_version text, step_name text, handler text,
  attempt integer, max_attempts integer, idempotency_key text, context jsonb, config jsonb, dependencies jsonb,
  lease_until timestamptz, deadline timestamptz)
language plpgsql security definer set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
#variable_conflict use_column
declare
  v_count  constant integer := coalesce(cardinality(p_step), 0);
  v_done   record;
  v_got    record;
  v_served integer[];
  v_worker integer;
  v_renew  boolean;
  v_handed integer;
  v_at     timestamptz[];  -- when the leases of the leased steps began
begin
  if v_count > 500 then
    raise exception 'an exchange is for up to 500 steps, not for %', v_count using errcode = 'invalid_parameter_value';
  end if;
  p_lease_for := tasker_worker_span(p_lease_for);
  perform tasker_worker_asks(p_namespace, p_worker, p_handlers, p_qty, p_lease_for, null);
  v_served := array(select h.handler_id from tasker_handlers h where h.name = any(p_handlers));
  perform tasker_may_lease(null);  -- before any lock of a step
  v_done := tasker_worker_successes(p_step, p_lease, p_output, p_metadata, p_namespace, p_worker, p_qty, v_served, p_lease_for);
  v_handed := coalesce(cardinality(v_done.o_task), 0);
  v_at := array_fill(v_done.o_at, array[v_handed]);
  if v_handed < p_qty then
    v_got := tasker_claim_steps(null, p_namespace || '_queue', p_handlers, v_served, p_qty - v_handed, 0, p_worker, p_lease_for, v_count = 0);
    if v_got.o_task is not null then
      v_at := v_at || array_fill(v_got.o_at, array[cardinality(v_got.o_task)]);
      v_done.o_task := v_done.o_task || v_got.o_task; v_done.o_step := v_done.o_step || v_got.o_step;
      v_done.o_lease := v_done.o_lease || v_got.o_lease; v_done.o_attempt := v_done.o_attempt || v_got.o_attempt;
      v_done.o_plan := v_done.o_plan || v_got.o_plan; v_done.o_generation := v_done.o_generation || v_got.o_generation;
    end if;
  end if;
  select w.worker_id, w.last_seen_at < clock_timestamp() - interval '5 seconds' into v_worker, v_renew
    from tasker_workers w where w.namespace = p_namespace and w.name = p_worker;
  if not found then
    v_worker := tasker_worker_seen(p_namespace, p_worker);
  end if;
  if v_count + cardinality(v_at) > 0 then
    return query
    select v_done.o_verdict[n.ord], v_done.o_detail[n.ord], p_step[n.ord],
           j.step_uuid, j.lease_id, j.task_uuid, case when j.step_uuid is not null then p_namespace end, j.task_name, j.task_version,
           j.step_name, j.handler, j.attempt, j.max_attempts, j.idempotency_key, j.context, j.config, j.dependencies, j.lease_until, j.deadline
      from generate_series(1, greatest(v_count, cardinality(v_at))) n(ord)
      left join tasker_worker_jobs(v_worker, p_lease_for, v_at, v_done.o_task, v_done.o_step, v_done.o_lease, v_done.o_attempt,
                                   v_done.o_plan, v_done.o_generation) j on j.ord = n.ord
     order by n.ord;
  end if;
  if v_renew then  -- after the leases, in the order of the sweep that counts
    perform tasker_worker_seen(p_namespace, p_worker);
  end if;
end
$$;
-- +goose StatementEnd

-- Gives a step back without a verdict, for a worker that shuts down or cannot run it
-- now. Neither an attempt nor the claim is counted, however often that happens. The
-- step may be claimed again after p_delay. The default is not zero, so that a worker
-- that gives back all it claims does so slowly. The verdicts are those of
-- tasker_worker_settle.
-- +goose StatementBegin
create function tasker_worker_release(p_step uuid, p_lease uuid, p_delay interval default '1 second', p_reason text default 'released')
returns table (verdict text, detail text)
language plpgsql security definer
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
#variable_conflict use_column
declare
  v_namespace text := (tasker_worker_step(p_step, p_lease)).o_namespace;
begin
  p_delay := tasker_worker_span(p_delay);
  if p_delay is null or p_delay not between interval '0' and interval '1 day' then
    verdict := 'invalid'; detail := format('a delay of %s is not between 0 and 1 day', p_delay);
  elsif v_namespace is null then
    verdict := 'unknown'; detail := 'no step has this UUID';
  else
    verdict := tasker_worker_record(p_step, p_lease, 'released', null, null,
                 jsonb_build_object('message', left(coalesce(p_reason, 'released'), 8192), 'excused', true), (extract(epoch from p_delay) * 1000)::bigint);
    detail := case verdict when 'stale_lease' then 'the step is not (or no longer) run under this lease' end;
  end if;
  return next;
end
$$;
-- +goose StatementEnd

-- Adds up to p_limit rows of tasker_worker_counts to the workers' own counts, except
-- rows that another session is adding. Returns whether there may be more.
-- +goose StatementBegin
create function tasker_sweep_worker_counts(p_limit integer)
returns boolean language plpgsql as $$
declare
  v_rows bigint;
begin
  with counted as (
    delete from tasker_worker_counts c
     where c.ctid = any(array(select x.ctid from tasker_worker_counts x limit p_limit for update skip locked))
    returning c.worker_id, c.outcome, c.steps
  ), summed as (
    select c.worker_id,
           coalesce(sum(c.steps) filter (where c.outcome = 'success'), 0) as done,
           coalesce(sum(c.steps) filter (where c.outcome in ('retryable', 'permanent')), 0) as failed,
           coalesce(sum(c.steps) filter (where c.outcome = 'released'), 0) as released,
           coalesce(sum(c.steps) filter (where c.outcome is null), 0) as lost
      from counted c group by c.worker_id
  ), locked as (
    select s.worker_id, s.done, s.failed, s.released, s.lost
      from summed s join tasker_workers w on w.worker_id = s.worker_id order by w.worker_id for update of w
  ), added as (
    update tasker_workers w
       set done = w.done + l.done, failed = w.failed + l.failed, released = w.released + l.released, lost = w.lost + l.lost
      from locked l where w.worker_id = l.worker_id
  )
  select count(*) into v_rows from counted;
  return v_rows = p_limit;
end
$$;
-- +goose StatementEnd

-- Looks at up to p_limit leases of outside workers whose time has come. Those that
-- have expired are given back, or fail with a timeout if their step's timeout has
-- passed; those that were extended are looked at again later; those that have ended
-- are counted. Any number of hosts may run it at once. If o_looked = p_limit there
-- may be more.
-- +goose StatementBegin
create function tasker_sweep_worker_leases(
  p_limit integer, p_retry_after_cap_ms bigint, p_claim_factor integer,
  out o_looked integer, out o_released integer, out o_timed_out integer, out o_finished uuid[], out o_finished_state text[])
language plpgsql as $$
#variable_conflict use_column
declare
  v_ids  uuid[];
  v_back record;
  v_now  timestamptz;
begin
  o_released := 0; o_timed_out := 0;
  v_ids := array(select l.lease_id from tasker_worker_leases l where l.look_at <= clock_timestamp() order by l.look_at limit p_limit);
  o_looked := cardinality(v_ids);
  if o_looked = 0 then
    if tasker_sweep_worker_counts(100 * p_limit) then
      o_looked := p_limit;
    end if;
    return;
  end if;
  -- An expired lease may mean that its step fails for good, which locks all steps
  -- that can move in its task.
  v_now := clock_timestamp();
  perform tasker_lock_movable(array(
    select distinct l.task_uuid
      from tasker_worker_leases l
      join tasker_workflow_steps s on s.task_uuid = l.task_uuid and s.step_no = l.step_no
     where l.lease_id = any(v_ids) and s.state = 'in_progress' and s.lease_id = l.lease_id and s.lease_until <= v_now));
  -- A new statement: it sees what the previous holders of the locks did.
  select array_agg(x.task_uuid order by x.task_uuid, x.step_no) as tasks, array_agg(x.step_no order by x.task_uuid, x.step_no) as steps,
         array_agg(x.lease_id order by x.task_uuid, x.step_no) as leases,
         array_agg((case when x.late then 'retryable' else 'released' end)::tasker_outcome order by x.task_uuid, x.step_no) as outcomes,
         array_agg((case when x.late
                         then jsonb_build_object('type', 'TimeoutError', 'code', 'STEP_TIMEOUT', 'retryable', true,
                                'message', format('worker %s did not end it within the step''s timeout', x.worker))
                         else jsonb_build_object('message', 'lease_expired') end)::text order by x.task_uuid, x.step_no) as errors,
         count(*) filter (where x.late) as late
    into v_back
    from (select l.task_uuid, l.step_no, l.lease_id, coalesce(w.name, '(removed)') as worker, coalesce(l.deadline_at <= v_now, false) as late
            from tasker_worker_leases l
            left join tasker_workers w on w.worker_id = l.worker_id   -- as in tasker_worker_heartbeat
            join tasker_workflow_steps s on s.task_uuid = l.task_uuid and s.step_no = l.step_no
           where l.lease_id = any(v_ids) and s.state = 'in_progress' and s.lease_id = l.lease_id and s.lease_until <= v_now) x;
  if v_back.tasks is not null then
    o_timed_out := v_back.late;
    o_released := cardinality(v_back.tasks) - v_back.late;
    select r.o_finished, r.o_finished_state into o_finished, o_finished_state
      from tasker_settle_steps(null, 0, '{}', v_back.tasks, v_back.steps, v_back.leases, v_back.outcomes,
             array_fill(null::bigint, array[cardinality(v_back.tasks)]), array_fill(null::text, array[cardinality(v_back.tasks)]),
             array_fill(null::text, array[cardinality(v_back.tasks)]), v_back.errors, array_fill(0::bigint, array[cardinality(v_back.tasks)]),
             p_retry_after_cap_ms, p_claim_factor) r;
    -- What was recorded under these leases is the timeout, not what their workers still send.
    update tasker_workflow_steps s set lease_id = null
      from unnest(v_back.tasks, v_back.steps, v_back.leases, v_back.outcomes) u(task_uuid, step_no, lease_id, outcome)
     where u.outcome = 'retryable' and s.task_uuid = u.task_uuid and s.step_no = u.step_no and s.lease_id = u.lease_id;
  end if;
  update tasker_worker_leases l set look_at = s.lease_until
    from tasker_workflow_steps s
   where l.lease_id = any(v_ids) and s.task_uuid = l.task_uuid and s.step_no = l.step_no
     and s.state = 'in_progress' and s.lease_id = l.lease_id and s.lease_until > l.look_at;
  with ended as (
    delete from tasker_worker_leases l
     where l.lease_id = any(v_ids)
       and not exists (select from tasker_workflow_steps s
                        where s.task_uuid = l.task_uuid and s.step_no = l.step_no and s.state = 'in_progress' and s.lease_id = l.lease_id)
    returning l.worker_id, l.done
  )
  insert into tasker_worker_counts (worker_id, outcome, steps)
  select e.worker_id, null::tasker_outcome, count(*) from ended e group by e.worker_id
  union all
  select e.worker_id, 'success', sum(e.done) from ended e where e.done > 0 group by e.worker_id;
  if tasker_sweep_worker_counts(100 * p_limit) then
    o_looked := p_limit;
  end if;
end
$$;
-- +goose StatementEnd

-- Functions that run as their owner may be called only by roles that were granted
-- them, and look only into our own schema.
-- +goose StatementBegin
do $$
declare
  v_function regprocedure;
begin
  for v_function in
    select p.oid from pg_proc p
     where p.pronamespace = current_schema()::regnamespace and (p.proname like 'tasker\_worker\_%' or p.proname in ('tasker_grant_worker', 'tasker_revoke_worker'))
  loop
    execute format('revoke execute on function %s from public', v_function);
    if (select p.prosecdef from pg_proc p where p.oid = v_function) then  -- the others are called by these, under their path
      execute format('alter function %s set search_path = %I, pg_temp', v_function, current_schema());
    end if;
  end loop;
end
$$;
-- +goose StatementEnd

-- +goose Down
drop function tasker_sweep_worker_leases(integer, bigint, integer);
drop function tasker_sweep_worker_counts(integer);
drop function tasker_worker_release(uuid, uuid, interval, text);
drop function tasker_worker_exchange(uuid[], uuid[], text[], text, text, text[], integer, interval, text[]);
drop function tasker_worker_complete(uuid[], uuid[], text[], text[]);
drop function tasker_worker_successes(uuid[], uuid[], text[], text[], text, text, integer, integer[], interval);
drop function tasker_worker_next(uuid, uuid, text, text, text, text[], interval, text);
drop function tasker_worker_settle(uuid, uuid, text, text, text, text);
drop function tasker_worker_success(uuid, integer, uuid, text, text, integer[], text, integer[], interval);
drop function tasker_worker_record(uuid, uuid, tasker_outcome, text, text, jsonb, bigint);
drop function tasker_worker_count(uuid[], tasker_outcome);
drop function tasker_worker_heartbeat(uuid, uuid, text);
drop function tasker_worker_claim(text, text, text[], integer, interval);
drop function tasker_worker_span(interval);
drop function tasker_worker_asks(text, text, text[], integer, interval, text);
drop function tasker_worker_jobs(integer, interval, timestamptz[], uuid[], integer[], uuid[], integer[], integer[], integer[]);
drop function tasker_worker_job(integer, interval, timestamptz, uuid, integer, uuid, integer, integer, uuid);
drop function tasker_worker_refusal(text, text);
drop function tasker_worker_fault(text, text, integer, integer, boolean);
drop function tasker_worker_too_wide(text, jsonb, bigint);
drop function tasker_worker_swells(text, integer);
drop function tasker_worker_seen(text, text);
drop function tasker_worker_step(uuid, uuid);
drop function tasker_worker_may(text);
drop function tasker_revoke_worker(text, text[]);
drop function tasker_grant_worker(text, text[]);
drop table tasker_worker_policy;
drop table tasker_worker_grants;
