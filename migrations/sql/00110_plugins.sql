-- The record of what happened to plugins: which processes there were, who changed
-- what, when and why, and what is no longer run. Hosts write it and people read
-- it; nothing that moves work depends on it.

-- +goose Up

-- A generation is one process, on one host.
create table tasker_plugin_generations (
  generation    bigint primary key check (generation > 0),
  host          text not null,
  environment   text not null,
  kind          text not null,
  name          text not null,
  sha256        text not null,
  config_digest text not null,                 -- digest of the settings that it was started with
  version       text not null default '',      -- as it describes itself
  sdk_version   text not null default '',
  started_at    timestamptz not null,
  ended_at      timestamptz,
  exit_code     integer,                       -- -1: ended by the signal
  signal        integer,
  max_rss       bigint,                        -- bytes
  cpu_ms        bigint
);
create index on tasker_plugin_generations (environment, kind, name, generation desc);

-- What happened to generations and to executables; events of executables have no
-- generation. Rows are never changed.
create table tasker_plugin_events (
  event_id      bigint generated always as identity primary key,
  at            timestamptz not null,          -- when it happened, by the host's clock
  recorded_at   timestamptz not null default clock_timestamp(),
  host          text not null,
  environment   text not null,
  kind          text not null,
  name          text not null,
  generation    bigint not null check (generation >= 0),
  from_phase    text not null,
  to_phase      text not null check (to_phase in (
    'discovered', 'verified', 'starting', 'handshaken', 'configured', 'probing', 'shadow', 'canary', 'active',
    'unhealthy', 'draining', 'standby', 'stopping', 'stopped', 'crashed', 'quarantined', 'rejected', 'failed')),
  actor         text not null check (actor <> ''),
  reason        text not null,
  sha256        text not null,
  config_digest text not null,
  weight        smallint not null check (weight between 0 and 100)
);
create index on tasker_plugin_events (environment, kind, name, event_id desc);
create index on tasker_plugin_events (environment, kind, name, at desc) where to_phase = 'active';

-- +goose StatementBegin
create function tasker_refuse_change() returns trigger language plpgsql as $$
begin
  raise exception 'rows of % are never changed', tg_table_name using errcode = 'restrict_violation';
end
$$;
-- +goose StatementEnd
create trigger tasker_plugin_events_append_only before update or delete on tasker_plugin_events
  for each row execute function tasker_refuse_change();

-- What a slot does not run until somebody releases it. An empty config_digest
-- means with any settings.
create table tasker_plugin_quarantines (
  environment   text not null,
  kind          text not null,
  name          text not null,
  sha256        text not null,
  config_digest text not null,
  since         timestamptz not null,
  actor         text not null,
  reason        text not null,
  primary key (environment, kind, name, sha256, config_digest)
);

-- Records events in their order. A generation that starts gets a row, which is
-- completed when it ends; an executable goes into quarantine or out of it.
-- +goose StatementBegin
create function tasker_record_plugin_events(
  p_host text, p_environment text,
  p_at timestamptz[], p_kind text[], p_name text[], p_generation bigint[], p_from text[], p_to text[],
  p_actor text[], p_reason text[], p_sha256 text[], p_config text[], p_weight integer[],
  p_version text[], p_sdk_version text[],
  p_exit_code integer[], p_signal integer[], p_max_rss bigint[], p_cpu_ms bigint[])
returns void language plpgsql as $$
begin
  insert into tasker_plugin_events
    (at, host, environment, kind, name, generation, from_phase, to_phase, actor, reason, sha256, config_digest, weight)
  select u.at, p_host, p_environment, u.kind, u.name, u.generation, u.from_phase, u.to_phase, u.actor, u.reason, u.sha256, u.config, u.weight
    from unnest(p_at, p_kind, p_name, p_generation, p_from, p_to, p_actor, p_reason, p_sha256, p_config, p_weight)
         with ordinality u(at, kind, name, generation, from_phase, to_phase, actor, reason, sha256, config, weight, ord)
   order by u.ord;
  for i in 1 .. coalesce(cardinality(p_at), 0) loop
    if p_generation[i] = 0 then
      if p_to[i] = 'quarantined' then
        insert into tasker_plugin_quarantines (environment, kind, name, sha256, config_digest, since, actor, reason)
        values (p_environment, p_kind[i], p_name[i], p_sha256[i], p_config[i], p_at[i], p_actor[i], p_reason[i])
        on conflict (environment, kind, name, sha256, config_digest) do nothing;
      elsif p_from[i] = 'quarantined' then
        delete from tasker_plugin_quarantines q
         where (q.environment, q.kind, q.name, q.sha256, q.config_digest)
             = (p_environment, p_kind[i], p_name[i], p_sha256[i], p_config[i]);
      end if;
    elsif p_to[i] = 'starting' then
      insert into tasker_plugin_generations (generation, host, environment, kind, name, sha256, config_digest, started_at)
      values (p_generation[i], p_host, p_environment, p_kind[i], p_name[i], p_sha256[i], p_config[i], p_at[i])
      on conflict (generation) do nothing;
    elsif p_to[i] = 'handshaken' then
      update tasker_plugin_generations g set version = p_version[i], sdk_version = p_sdk_version[i]
       where g.generation = p_generation[i];
    elsif p_to[i] in ('stopped', 'crashed', 'failed') then
      update tasker_plugin_generations g
         set ended_at = p_at[i], exit_code = p_exit_code[i], signal = p_signal[i], max_rss = p_max_rss[i], cpu_ms = p_cpu_ms[i]
       where g.generation = p_generation[i] and g.ended_at is null;
    end if;
  end loop;
end
$$;
-- +goose StatementEnd

-- +goose Down
drop function tasker_record_plugin_events(text, text, timestamptz[], text[], text[], bigint[], text[], text[], text[], text[], text[], text[],
  integer[], text[], text[], integer[], integer[], bigint[], bigint[]);
drop table tasker_plugin_quarantines;
drop table tasker_plugin_events;
drop function tasker_refuse_change();
drop table tasker_plugin_generations;
