-- The tables: templates and their plans, tasks and their steps, the history of
-- both, hosts, and what was set aside.

-- +goose Up

-- Templates ------------------------------------------------------------------

create table tasker_task_namespaces (
  namespace_id integer generated always as identity primary key,
  name         text not null unique check (name ~ '^[a-z][a-z0-9_]{0,39}$'),
  created_at   timestamptz not null default clock_timestamp(),
  paused_at    timestamptz,   -- while it is set, none of its steps is started
  paused_by    text,
  paused_reason text
);

create index tasker_paused on tasker_task_namespaces (namespace_id) where paused_at is not null;

-- The namespaces that are paused; null if there are none, which costs one look
-- at an empty index. Called by whoever starts steps, after tasker_may_lease.
-- +goose StatementBegin
create function tasker_paused_namespaces()
returns integer[] language plpgsql stable as $$
begin
  return (select array_agg(n.namespace_id) from tasker_task_namespaces n where n.paused_at is not null);
end
$$;
-- +goose StatementEnd

-- Whether the namespace of a queue is paused, so that nobody may take steps from it.
-- +goose StatementBegin
create function tasker_queue_paused(p_queue text)
returns boolean language plpgsql stable as $$
begin
  return exists (select from tasker_task_namespaces n where n.name = left(p_queue, -6) and n.paused_at is not null);
end
$$;
-- +goose StatementEnd

create table tasker_named_tasks (
  named_task_uuid uuid primary key default gen_random_uuid(),
  namespace_id    integer not null references tasker_task_namespaces,
  name            text not null check (name ~ '^[a-z][a-z0-9_]{0,62}$'),
  version         text not null check (length(version) <= 64),
  description     text not null default '',
  source          text not null,          -- the YAML as it was applied
  digest          bytea not null,         -- SHA-256 of the source
  input_schema    jsonb,
  created_at      timestamptz not null default clock_timestamp(),
  unique (namespace_id, name, version)
);

-- A plan is a template version as it runs in one environment. The plan with
-- environment '' serves all environments that the template does not name. Plans
-- never change: a task keeps the plan it started with.
create table tasker_task_plans (
  plan_id         integer generated always as identity primary key,
  named_task_uuid uuid not null references tasker_named_tasks,
  environment     text not null default '',
  priority        smallint not null default 0,
  step_count      integer not null check (step_count > 0),
  sink_count      integer not null check (sink_count > 0),
  namespace_id    integer not null references tasker_task_namespaces,
  identity        text not null default 'allow' check (identity in ('allow', 'reject', 'return_existing')),
  unique (named_task_uuid, environment)
);

create table tasker_handlers (
  handler_id integer generated always as identity primary key,
  name       text not null unique check (name ~ '^[a-z][a-z0-9_.-]{0,127}$')
);

-- Steps are numbered from 0 in topological order. parents and children are the
-- numbers of the direct ones, ascending. ancestors are the steps whose results
-- an outside worker is given: all parents, and further ancestors up to 256 in
-- all, nearest first.
create table tasker_named_steps (
  plan_id      integer not null references tasker_task_plans,
  step_no      integer not null check (step_no >= 0),
  handler_id   integer not null references tasker_handlers,
  parent_count integer not null generated always as (cardinality(parents)) stored,
  name         text not null check (name ~ '^[a-z][a-z0-9_]{0,62}$'),
  description  text not null default '',
  parents      integer[] not null,
  children     integer[] not null,
  config       jsonb not null default '{}' check (jsonb_typeof(config) = 'object'),
  retryable    boolean not null,
  skippable    boolean not null default false,   -- an operator may skip it
  max_attempts smallint not null check (max_attempts between 1 and 100),
  backoff      tasker_backoff not null,
  base_ms      bigint not null check (base_ms >= 0),
  cap_ms       bigint not null check (cap_ms >= 0),
  jitter       real not null check (jitter between 0 and 1),
  timeout_ms   bigint not null default 0 check (timeout_ms >= 0),
  priority     smallint,
  ancestors    integer[] not null,
  primary key (plan_id, step_no),
  unique (name, plan_id)   -- in this order: of two keys that begin with plan_id the planner may pick either while the table is small
);

-- Hosts ----------------------------------------------------------------------

create sequence tasker_plugin_generation;

-- A host's row is the lease of every step it runs: one update extends them all.
create table tasker_hosts (
  host_id      integer generated always as identity primary key,
  name         text not null,
  version      text not null,
  environment  text not null,
  state        text not null check (state in ('startup', 'normal', 'graceful_shutdown', 'emergency', 'stopped', 'dead')),
  served       text[] not null default '{}',   -- the handlers that its plugins serve
  plugins      jsonb not null default '[]',    -- the plugins it runs, with their versions; written when they change
  started_at   timestamptz not null default clock_timestamp(),
  heartbeat_at timestamptz not null default clock_timestamp(),
  alive_until  timestamptz not null,
  swept_at     timestamptz,                    -- when its steps were given back
  rests        boolean not null default false, -- it holds no step and is given none, see 00190
  rises        bigint not null default 0       -- how many times it has risen from rest
) with (fillfactor = 50);

-- Leases of a host that are void. The host is told with every heartbeat until
-- it has acknowledged them.
create table tasker_revocations (
  host_id   integer not null,
  task_uuid uuid not null,
  step_no   integer not null,
  lease_id  uuid not null,
  reason    text not null,
  primary key (host_id, lease_id)
);

-- The progress that hosts report for their running steps, for clients of other
-- hosts. Each host writes it at most once a second, for those of its steps that
-- reported something new, and removes it when their leases have ended. A row
-- counts only while the step still has this lease. Rows lost in a server crash
-- are reported again.
create unlogged table tasker_step_progress (
  lease_id uuid primary key,
  host_id  integer not null,
  percent  integer not null,
  note     text not null
) with (fillfactor = 50);

-- Outside workers --------------------------------------------------------------

-- Programs in any language that run steps through the functions of 00090. The
-- counts lag behind the steps by up to one sweep: see tasker_sweep_worker_counts.
create table tasker_workers (
  worker_id     integer generated always as identity primary key,
  namespace     text not null,
  name          text not null,
  first_seen_at timestamptz not null,
  last_seen_at  timestamptz not null,   -- renewed every few seconds at most
  done          bigint not null default 0,
  failed        bigint not null default 0,
  released      bigint not null default 0,
  lost          bigint not null default 0,   -- leases that ended without an answer, by expiry or cancellation
  unique (namespace, name)
) with (fillfactor = 50);

-- Where the sweep looks for expired leases of outside workers. The step's row is
-- the truth, its lease_until included; a row here only says when to look at the
-- step. It is removed with the step's outcome, or is reused for the step that
-- the worker goes on with. In that case it counts what the worker has done until
-- it is removed.
create table tasker_worker_leases (
  lease_id    uuid primary key,
  task_uuid   uuid not null,
  step_no     integer not null,
  worker_id   integer not null,
  lease       interval not null,        -- how much each heartbeat extends it by
  look_at     timestamptz not null,
  deadline_at timestamptz,              -- when the attempt times out; null: never
  progress    jsonb,                    -- what the last heartbeat reported
  done        integer not null default 0
) with (fillfactor = 50);
create index on tasker_worker_leases (look_at);

-- Outcomes of workers' steps that have not been added to tasker_workers yet: one
-- row for each call that ended some.
create table tasker_worker_counts (
  worker_id integer not null,
  outcome   tasker_outcome,             -- null: the lease ended without one
  steps     integer not null
);

-- Tasks ----------------------------------------------------------------------
-- Partitioned by creation time, which the version 7 UUID carries, so that
-- retention can drop partitions. tasker_ensure_partitions creates them ahead of
-- time; the default partition takes rows that fit no other.

create table tasker_tasks (
  task_uuid       uuid not null check (right(task_uuid::text, 5) = '00000'),
  plan_id         integer not null,
  namespace_id    integer not null,
  open_sinks      integer not null check (open_sinks >= 0),   -- steps without children that are not yet complete
  total_steps     integer not null,
  sort_key        integer not null default 1,
  generation      smallint not null default 0,
  priority        smallint not null default 0,
  state           tasker_task_state not null,
  created_at      timestamptz not null,
  requested_at    timestamptz,
  started_at      timestamptz,
  completed_at    timestamptz,
  finalize_lease  uuid,
  finalize_by     text,
  finalize_until  timestamptz,
  finalize_claims integer not null default 0,
  context         jsonb not null check (jsonb_typeof(context) = 'object'),
  identity_hash   bytea not null,
  attributes      jsonb,   -- tags, initiator, source_system, reason, traceparent; null: none given
  error           jsonb,   -- which step failed and why
  primary key (task_uuid),
  check ((completed_at is not null) = (state = any ('{complete,cancelled,resolved_manually,error}')))
) partition by range (task_uuid);

create index tasker_tasks_active on tasker_tasks (task_uuid) where state in ('pending', 'in_progress');

-- For lists by tag. Tasks without tags are not in the index and cost nothing; a
-- tag costs about 70 bytes of WAL. The pending list is kept short, so that no
-- single insert has to merge a long one.
create index tasker_tasks_tags on tasker_tasks using gin ((attributes -> 'tags')) with (gin_pending_list_limit = 512)
  where attributes ? 'tags';

create index tasker_tasks_unfinished on tasker_tasks (task_uuid) where state in ('error', 'cancelled', 'resolved_manually');

-- The columns that change are not indexed and the pages keep free room, so that
-- updates are heap-only.
create table tasker_workflow_steps (
  task_uuid         uuid not null,
  step_no           integer not null,
  plan_id           integer not null,
  remaining_parents integer not null check (remaining_parents >= 0),
  sort_key          integer not null default 1,
  lease_no          integer not null default 0,   -- grows with every claim: for order and display
  lease_host        integer,                      -- null: an outside worker
  attempts          smallint not null default 0,  -- attempts that reached the handler and counted
  claims            smallint not null default 0,  -- all claims of this generation
  generation        smallint not null default 0,  -- grows when an operator has the step run again
  state             tasker_step_state not null,
  doomed            boolean not null default false, -- a step of its task has failed for good
  updated_at        timestamptz not null,
  due_at            timestamptz,                  -- when the next attempt may start
  lease_until       timestamptz,                  -- null with a lease_host: for as long as the host lives
  lease_id          uuid,                         -- random, new for each claim: the fence
  plugin_generation bigint,
  result            jsonb,
  metadata          jsonb,
  error             jsonb,                        -- of the last failed attempt
  primary key (task_uuid, step_no)
) partition by range (task_uuid);

-- History. The first entry of every task and step, "pending" with sort_key 1,
-- is the row itself and is not stored again.
create table tasker_task_transitions (
  task_uuid  uuid not null,
  sort_key   integer not null,
  from_state tasker_task_state not null,
  to_state   tasker_task_state not null,
  created_at timestamptz not null,
  host_id    integer,
  metadata   jsonb
) partition by range (task_uuid);

create table tasker_workflow_step_transitions (
  task_uuid         uuid not null,
  step_no           integer not null,
  sort_key          integer not null,
  from_state        tasker_step_state not null,
  to_state          tasker_step_state not null,
  created_at        timestamptz not null,
  host_id           integer,
  lease_id          uuid,
  plugin_generation bigint,
  metadata          jsonb
) partition by range (task_uuid);

-- By task for its history, by time for clients that follow events.
create index on tasker_task_transitions using brin (task_uuid uuid_minmax_multi_ops, created_at) with (pages_per_range = 16, autosummarize = on);
create index on tasker_workflow_step_transitions using brin (task_uuid uuid_minmax_multi_ops, created_at) with (pages_per_range = 16, autosummarize = on);

-- The guards contain the bodies of the functions instead of calls to them: the
-- server reads a function in a guard anew in each statement that meets it,
-- which takes 60 to 90 µs, half of what it takes to settle a single step.
-- +goose StatementBegin
do $do$
declare
  v_guard record;
  v_edge  text;
begin
  for v_guard in
    select g.kind, g.states, g.history
      from (values ('task', 'tasker_tasks', 'tasker_task_transitions'),
                   ('step', 'tasker_workflow_steps', 'tasker_workflow_step_transitions')) g(kind, states, history)
  loop
    select regexp_replace(p.prosrc, '^\s*select\s', '') into strict v_edge
      from pg_proc p where p.oid = format('tasker_legal_%s_edge', v_guard.kind)::regproc;
    execute format('alter table %I add constraint legal_edge check (%s)', v_guard.history,
                   replace(replace(v_edge, 'p_from', 'from_state'), 'p_to', 'to_state'));
    execute format('create trigger legal_edge after update of state on %I for each row when (old.state <> new.state and not (%s)) '
                   'execute function tasker_refuse_edge(%L)', v_guard.states,
                   replace(replace(v_edge, 'p_from', 'old.state'), 'p_to', 'new.state'), v_guard.kind);
  end loop;
end
$do$;
-- +goose StatementEnd

create table tasker_idempotency_keys (
  namespace_id    integer not null,
  idempotency_key text not null check (length(idempotency_key) between 1 and 255),
  task_uuid       uuid not null,
  request_hash    bytea not null,
  created_at      timestamptz not null default clock_timestamp()
);
-- For looking at the oldest keys: task UUIDs sort by time. It is created before
-- the primary key because the planner takes the younger of two indexes that look
-- equally good while the table is empty.
create index tasker_idempotency_keys_age on tasker_idempotency_keys (namespace_id, task_uuid);
alter table tasker_idempotency_keys add primary key (namespace_id, idempotency_key);

-- Which task has an identity, for templates that do not allow two tasks with the
-- same one; other tasks have no rows here. An identity whose task is gone is free.
create table tasker_task_identities (
  identity_hash bytea primary key,
  namespace_id  integer not null,
  task_uuid     uuid not null
);
create index tasker_task_identities_age on tasker_task_identities (namespace_id, task_uuid);

-- Messages of steps whose task asked for a priority, so that the claim finds
-- them before the rest of a long queue.
create table tasker_priority_messages (
  queue_name text not null,
  priority   smallint not null,
  msg_id     bigint not null,
  primary key (queue_name, priority, msg_id)
);

-- Every attempt to claim a finalization, with its outcome.
create table tasker_finalization_attempts (
  finalization_attempt_uuid uuid primary key default gen_random_uuid(),
  task_uuid          uuid not null,
  processor_id       text not null,
  claimed            boolean not null,
  already_claimed_by text,
  task_state         text not null,
  message            text not null,
  lease_id           uuid,
  attempted_at       timestamptz not null default clock_timestamp()
);
create index on tasker_finalization_attempts (task_uuid, attempted_at desc);
create index on tasker_finalization_attempts (attempted_at);

-- What was set aside: messages that nobody can read, and steps that failed for good.
create table tasker_dead_letters (
  dead_letter_id bigint generated always as identity primary key,
  kind           text not null check (kind in ('message', 'step')),
  queue_name     text,
  msg_id         bigint,
  task_uuid      uuid,
  step_no        integer,
  generation     smallint,
  reason         text not null,           -- a stable word, such as malformed or attempts_exhausted
  detail         text not null default '',
  body           jsonb,
  headers        jsonb,
  created_at     timestamptz not null default clock_timestamp(),
  closed_at      timestamptz,             -- when somebody dealt with it
  closed_as      text check (closed_as in ('replayed', 'resolved', 'cancelled', 'discarded')),
  closed_by      text,
  closed_reason  text,
  check ((closed_at is null) = (closed_as is null)),
  check ((kind = 'step') = (task_uuid is not null and step_no is not null) or kind = 'message')
);
create index on tasker_dead_letters (task_uuid) where task_uuid is not null;
create index tasker_dead_letters_open on tasker_dead_letters (dead_letter_id) where closed_at is null;
create index tasker_dead_letters_messages on tasker_dead_letters (dead_letter_id) where closed_at is null and kind = 'message';

-- Makes the server sample a tenth of the usual rows when it analyzes a partition
-- of steps or of history, which it does again and again while the partition
-- grows. Those samples were half of the work of autovacuum under load, in bursts
-- that everybody else waited for. Nothing but keys is looked up in these
-- partitions. Lists of tasks filter by many columns, so partitions of tasks keep
-- the usual sample.
-- +goose StatementBegin
create function tasker_sample_little(p_partition text)
returns void language plpgsql as $$
begin
  if p_partition not like 'tasker\_tasks\_%' then
    execute (select format('alter table %I %s', p_partition, string_agg(format('alter column %I set statistics 10', a.attname), ', '))
               from pg_attribute a
              where a.attrelid = p_partition::regclass and a.attnum > 0 and not a.attisdropped);
  end if;
end
$$;
-- +goose StatementEnd

-- The partitions of a table, or of all four, each with the range of UTC days that
-- it covers: from o_begins on, before o_ends. Default partitions are left out.
-- +goose StatementBegin
create function tasker_partitions(p_table text default null)
returns table (o_table text, o_partition text, o_begins timestamptz, o_ends timestamptz)
language sql stable as $$
  select p.relname::text, c.relname::text, tasker_uuid_time(b.bound[1]::uuid), tasker_uuid_time(b.bound[2]::uuid)
    from pg_inherits i
    join pg_class c on c.oid = i.inhrelid
    join pg_class p on p.oid = i.inhparent
   cross join lateral (
     select regexp_match(pg_get_expr(c.relpartbound, c.oid), $re$FROM \('([0-9a-f-]+)'\) TO \('([0-9a-f-]+)'\)$re$) as bound) b
   where i.inhparent = any (array['tasker_tasks', 'tasker_workflow_steps', 'tasker_task_transitions', 'tasker_workflow_step_transitions']::regclass[])
     and (p_table is null or p.relname = p_table) and b.bound is not null
$$;
-- +goose StatementEnd

-- Creates a partition of a table for the days from p_begins on, before p_ends.
-- Returns whether it did. It cannot if the default partition has rows of these
-- days: then further rows of these days go there, too.
-- +goose StatementBegin
create function tasker_make_partition(p_table text, p_begins timestamptz, p_ends timestamptz)
returns boolean language plpgsql as $$
declare
  v_name text := p_table || coalesce('_' || to_char(p_begins at time zone 'UTC', 'YYYYMMDD'), '_default');
begin
  if to_regclass(v_name) is not null then
    return false;
  end if;
  -- The partition has a cost limit of its own, which the autovacuum workers do not
  -- share out among their tables. With the usual limit they do not keep up, and
  -- with 1000 they write more than a disk can take besides the WAL, and everybody
  -- waits for that. New steps fill a page to two fifths. The rest has room for the
  -- version of a step that is leased and for the one with its result, so that
  -- neither needs new entries in the key.
  execute format('create table %I partition of %I %s with (%s)', v_name, p_table,
    case when p_begins is null then 'default'
         else format('for values from (%L) to (%L)', tasker_uuid_floor(p_begins), tasker_uuid_floor(p_ends)) end,
    case p_table
      when 'tasker_workflow_steps' then 'fillfactor = 40, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_limit = 400'
      when 'tasker_tasks' then 'fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_limit = 400'
      else 'autovacuum_vacuum_cost_delay = 10' end);   -- nothing in them dies, so there is no hurry
  perform tasker_sample_little(v_name);
  return true;
exception when check_violation then
  return false;
end
$$;
-- +goose StatementEnd

-- Creates the default partition of a table, or of all four, and the partitions
-- that are missing for p_days days from p_from on. Each covers p_width days:
-- every statement that changes a step is prepared for all partitions, so few are
-- better than many. It may be repeated. Hosts call it when they start and once in
-- a while, for one table per transaction: creating a partition takes an exclusive
-- lock on the table, so a session that works on two tables could deadlock with
-- one that has locked one of them and waits for the other. Returns how many
-- partitions it created.
-- +goose StatementBegin
create function tasker_ensure_partitions(p_from timestamptz, p_days integer, p_table text default null, p_width integer default 1)
returns integer language plpgsql as $$
declare
  c_day   constant interval := interval '24 hours';   -- a day of UTC, whatever the session's time zone
  v_from  constant timestamptz := date_trunc('day', p_from at time zone 'UTC') at time zone 'UTC';
  v_table text;
  v_at    timestamptz;
  v_next  timestamptz;
  v_made  integer := 0;
begin
  perform pg_advisory_xact_lock(hashtextextended('tasker_ensure_partitions', 0));
  foreach v_table in array array['tasker_tasks', 'tasker_workflow_steps',
                                 'tasker_task_transitions', 'tasker_workflow_step_transitions'] loop
    continue when v_table <> p_table;
    perform tasker_make_partition(v_table, null, null);
    v_at := v_from;
    while v_at < v_from + p_days * c_day loop
      select x.o_ends into v_next from tasker_partitions(v_table) x where x.o_begins <= v_at and x.o_ends > v_at;
      if not found then
        -- Up to the next existing partition; one day if the default partition has rows of a longer span.
        select least(v_at + p_width * c_day, min(x.o_begins)) into v_next from tasker_partitions(v_table) x where x.o_begins > v_at;
        if tasker_make_partition(v_table, v_at, v_next) then
          v_made := v_made + 1;
        elsif v_next > v_at + c_day then
          v_next := v_at + c_day;
          v_made := v_made + tasker_make_partition(v_table, v_at, v_next)::integer;
        end if;
      end if;
      v_at := v_next;
    end loop;
  end loop;
  return v_made;
end
$$;
-- +goose StatementEnd

-- One partition for the days that a host with the default retention looks after, as the host would create it.
select tasker_ensure_partitions(clock_timestamp(), 3, null, 3);

-- The tasks older than p_before that have all tags and meet the other conditions
-- (null: any): the newest p_limit of them, and perhaps others. A tag that many
-- tasks have is found among the newest tasks. Tasks with rarer tags are looked up
-- by the index, one partition at a time, until there are enough: the rarer a tag,
-- the less is read.
--   p_before      only tasks with a smaller UUID
--   p_plans       tasks of one of these plans
-- +goose StatementBegin
create function tasker_tagged_tasks(p_tags text[], p_before uuid, p_namespace integer, p_plans integer[],
                                    p_states tasker_task_state[], p_limit integer)
returns setof uuid language plpgsql stable rows 50 set enable_seqscan = off as $$
declare
  c_newest constant integer := 2000;
  v_found  uuid[];
  v_part   record;
  v_rows   integer;
  v_left   integer := p_limit;
begin
  v_found := array(
    select n.task_uuid
      from (select t.task_uuid, t.namespace_id, t.plan_id, t.state, t.attributes
              from tasker_tasks t
             where t.task_uuid < p_before
             order by t.task_uuid desc
             limit c_newest) n
     where n.attributes -> 'tags' ?& p_tags
       and (p_namespace is null or n.namespace_id = p_namespace)
       and (p_plans is null or n.plan_id = any(p_plans))
       and (p_states is null or n.state = any(p_states))
     order by n.task_uuid desc
     limit p_limit);
  if cardinality(v_found) = p_limit then
    return query select f.task_uuid from unnest(v_found) f(task_uuid);
    return;
  end if;
  -- The default partition has tasks of any day, so it is always searched, and first.
  for v_part in
    select c.oid::regclass as name, d.day is not null as dated
      from pg_inherits i
      join pg_class c on c.oid = i.inhrelid
     cross join lateral (select substring(c.relname from '_(\d{8})$') as day) d
     where i.inhparent = 'tasker_tasks'::regclass
       and (d.day is null or tasker_uuid_floor((d.day || ' 00:00 UTC')::timestamptz) < p_before)
     order by d.day desc nulls first
  loop
    -- Without "offset 0" the limit would tempt the planner to walk the primary key backwards.
    return query execute format(
      $q$select m.task_uuid
           from (select t.task_uuid, t.namespace_id, t.plan_id, t.state
                   from %s t
                  where t.attributes -> 'tags' ?& $1 and t.attributes ? 'tags'
                 offset 0) m
          where m.task_uuid < $2
            and ($3 is null or m.namespace_id = $3)
            and ($4 is null or m.plan_id = any($4))
            and ($5 is null or m.state = any($5))
          order by m.task_uuid desc
          limit $6$q$, v_part.name)
      using p_tags, p_before, p_namespace, p_plans, p_states, v_left;
    get diagnostics v_rows = row_count;
    if v_part.dated then
      v_left := v_left - v_rows;
      exit when v_left <= 0;
    end if;
  end loop;
end
$$;
-- +goose StatementEnd

-- +goose Down
drop function tasker_tagged_tasks(text[], uuid, integer, integer[], tasker_task_state[], integer);
drop function tasker_ensure_partitions(timestamptz, integer, text, integer);
drop function tasker_make_partition(text, timestamptz, timestamptz);
drop function tasker_partitions(text);
drop function tasker_sample_little(text);
drop table tasker_dead_letters;
drop table tasker_finalization_attempts;
drop table tasker_priority_messages;
drop table tasker_task_identities;
drop table tasker_idempotency_keys;
drop table tasker_workflow_step_transitions;
drop table tasker_task_transitions;
drop table tasker_workflow_steps;
drop table tasker_tasks;
drop table tasker_worker_counts;
drop table tasker_worker_leases;
drop table tasker_workers;
drop table tasker_step_progress;
drop table tasker_revocations;
drop table tasker_hosts;
drop sequence tasker_plugin_generation;
drop table tasker_named_steps;
drop table tasker_handlers;
drop table tasker_task_plans;
drop table tasker_named_tasks;
drop function tasker_queue_paused(text);
drop function tasker_paused_namespaces();
drop table tasker_task_namespaces;
