-- The tables: templates and their plans, tasks and their steps, the history of
-- both, hosts, and what was set aside.

-- +goose Up

-- Templates ------------------------------------------------------------------

create table tasker_task_namespaces (
  namespace_id integer generated always as identity primary key,
  name         text not null unique check (name ~ '^[a-z][a-z0-9_]{0,39}$'),
  created_at   timestamptz not null default clock_timestamp()
);

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

-- A plan is a template version as it runs in one environment; '' is the plan of
-- environments the template does not name. Plans never change: a task keeps
-- the plan it started with.
create table tasker_task_plans (
  plan_id         integer generated always as identity primary key,
  named_task_uuid uuid not null references tasker_named_tasks,
  environment     text not null default '',
  priority        smallint not null default 0,
  step_count      integer not null check (step_count > 0),
  sink_count      integer not null check (sink_count > 0),
  namespace_id    integer not null references tasker_task_namespaces,
  unique (named_task_uuid, environment)
);

create table tasker_handlers (
  handler_id integer generated always as identity primary key,
  name       text not null unique check (name ~ '^[a-z][a-z0-9_.-]{0,127}$')
);

-- Steps are numbered from 0 in topological order; parents and children are the
-- numbers of the direct ones, ascending.
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
  max_attempts smallint not null check (max_attempts between 1 and 100),
  backoff      tasker_backoff not null,
  base_ms      bigint not null check (base_ms >= 0),
  cap_ms       bigint not null check (cap_ms >= 0),
  jitter       real not null check (jitter between 0 and 1),
  timeout_ms   bigint not null default 0 check (timeout_ms >= 0),
  priority     smallint,
  primary key (plan_id, step_no),
  unique (plan_id, name)
);

-- Hosts ----------------------------------------------------------------------

create sequence tasker_plugin_generation;

-- A host's row is the lease of every step it runs: one update keeps them all.
create table tasker_hosts (
  host_id       integer generated always as identity primary key,
  instance_uuid uuid not null unique default gen_random_uuid(),
  name          text not null,
  version       text not null,
  environment   text not null,
  state         text not null check (state in ('startup', 'normal', 'graceful_shutdown', 'emergency', 'stopped', 'dead')),
  served        text[] not null default '{}',   -- the handlers its plugins serve
  started_at    timestamptz not null default clock_timestamp(),
  heartbeat_at  timestamptz not null default clock_timestamp(),
  alive_until   timestamptz not null,
  swept_at      timestamptz                     -- its steps were given back
) with (fillfactor = 50);

-- What a host must be told with its next heartbeat: a lease it holds is void.
create table tasker_revocations (
  host_id   integer not null,
  task_uuid uuid not null,
  step_no   integer not null,
  lease_id  uuid not null,
  reason    text not null,
  primary key (host_id, lease_id)
);

-- Tasks ----------------------------------------------------------------------
-- Partitioned by day of creation, which the version 7 UUID carries, so that
-- retention drops partitions. tasker_ensure_partitions makes them ahead of
-- time; the default partition takes what no other does.

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
  attributes      jsonb,   -- tags, initiator, source_system, reason; null: none given
  error           jsonb,   -- which step failed and why
  primary key (task_uuid),
  check ((completed_at is not null) = (state in ('complete', 'cancelled', 'resolved_manually', 'error')))
) partition by range (task_uuid);

create index tasker_tasks_active on tasker_tasks (task_uuid) where state in ('pending', 'in_progress');

create index tasker_tasks_unfinished on tasker_tasks (task_uuid) where state in ('error', 'cancelled', 'resolved_manually');

-- The columns that change are not indexed and the pages keep room, so that
-- updates are heap-only.
create table tasker_workflow_steps (
  task_uuid         uuid not null,
  step_no           integer not null,
  plan_id           integer not null,
  remaining_parents integer not null check (remaining_parents >= 0),
  sort_key          integer not null default 1,
  lease_no          integer not null default 0,   -- grows with every claim: order and display
  lease_host        integer,                      -- null: an outside worker
  attempts          smallint not null default 0,  -- that reached the handler and counted
  claims            smallint not null default 0,  -- all of this generation
  generation        smallint not null default 0,  -- grows when an operator has it run anew
  state             tasker_step_state not null,
  doomed            boolean not null default false, -- a step of its task has failed for good
  updated_at        timestamptz not null,
  due_at            timestamptz,                  -- when the next attempt may start
  lease_until       timestamptz,                  -- null with a lease_host: as long as the host lives
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
  metadata   jsonb,
  check (tasker_legal_task_edge(from_state, to_state))
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
  metadata          jsonb,
  check (tasker_legal_step_edge(from_state, to_state))
) partition by range (task_uuid);

create index on tasker_task_transitions using brin (task_uuid uuid_minmax_multi_ops) with (pages_per_range = 16, autosummarize = on);
create index on tasker_workflow_step_transitions using brin (task_uuid uuid_minmax_multi_ops) with (pages_per_range = 16, autosummarize = on);

create trigger legal_edge after update of state on tasker_tasks
  for each row when (old.state <> new.state and not tasker_legal_task_edge(old.state, new.state))
  execute function tasker_refuse_edge('task');

create trigger legal_edge after update of state on tasker_workflow_steps
  for each row when (old.state <> new.state and not tasker_legal_step_edge(old.state, new.state))
  execute function tasker_refuse_edge('step');

create table tasker_idempotency_keys (
  namespace_id    integer not null,
  idempotency_key text not null check (length(idempotency_key) between 1 and 255),
  task_uuid       uuid not null,
  request_hash    bytea not null,
  created_at      timestamptz not null default clock_timestamp(),
  primary key (namespace_id, idempotency_key)
);

-- Messages of steps whose task asked for a priority, so that the claim finds
-- them before the rest of a long queue.
create table tasker_priority_messages (
  queue_name text not null,
  priority   smallint not null,
  msg_id     bigint not null,
  primary key (queue_name, priority, msg_id)
);

-- Every try to claim a finalization, with its outcome.
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

-- What was set aside: messages nobody can read, and steps that failed for good.
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
  replayed_at    timestamptz,
  discarded_at   timestamptz,
  check ((kind = 'step') = (task_uuid is not null and step_no is not null) or kind = 'message')
);
create index on tasker_dead_letters (task_uuid) where task_uuid is not null;

-- Makes the default partitions and one for each day from p_from on, for p_days
-- days. Repeatable; hosts call it as they start and once in a while.
-- +goose StatementBegin
create function tasker_ensure_partitions(p_from timestamptz, p_days integer)
returns integer language plpgsql as $$
declare
  v_day   timestamptz := date_trunc('day', p_from at time zone 'UTC') at time zone 'UTC';
  v_next  timestamptz;
  v_table text;
  v_name  text;
  v_opts  text;
  v_made  integer := 0;
begin
  perform pg_advisory_xact_lock(hashtextextended('tasker_ensure_partitions', 0));
  for i in 0 .. p_days - 1 loop
    v_next := v_day + interval '1 day';
    foreach v_table in array array['tasker_tasks', 'tasker_workflow_steps',
                                   'tasker_task_transitions', 'tasker_workflow_step_transitions'] loop
      v_opts := case v_table
        when 'tasker_workflow_steps' then ' with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0)'
        when 'tasker_tasks' then ' with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0)'
        else '' end;
      v_name := v_table || '_default';
      if to_regclass(v_name) is null then
        execute format('create table %I partition of %I default%s', v_name, v_table, v_opts);
      end if;
      v_name := v_table || '_' || to_char(v_day at time zone 'UTC', 'YYYYMMDD');
      if to_regclass(v_name) is null then
        execute format('create table %I partition of %I for values from (%L) to (%L)%s',
                       v_name, v_table, tasker_uuid_floor(v_day), tasker_uuid_floor(v_next), v_opts);
        v_made := v_made + 1;
      end if;
    end loop;
    v_day := v_next;
  end loop;
  return v_made;
end
$$;
-- +goose StatementEnd

select tasker_ensure_partitions(clock_timestamp(), 2);

-- +goose Down
drop function tasker_ensure_partitions(timestamptz, integer);
drop table tasker_dead_letters;
drop table tasker_finalization_attempts;
drop table tasker_priority_messages;
drop table tasker_idempotency_keys;
drop table tasker_workflow_step_transitions;
drop table tasker_task_transitions;
drop table tasker_workflow_steps;
drop table tasker_tasks;
drop table tasker_revocations;
drop table tasker_hosts;
drop sequence tasker_plugin_generation;
drop table tasker_named_steps;
drop table tasker_handlers;
drop table tasker_task_plans;
drop table tasker_named_tasks;
drop table tasker_task_namespaces;
