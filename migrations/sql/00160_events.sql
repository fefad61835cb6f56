-- Events, for those who follow what happens. Almost nothing is written for them
-- that is not written anyway: they read the histories of tasks and steps, the
-- audit and the record of plugins. Only hosts and their health, which have no
-- history elsewhere, get one here; no step waits for it.
--
-- Followers ask by transaction. A row belongs to the transaction that wrote it
-- (xmin), and all transactions below the horizon (pg_snapshot_xmin) have ended, so
-- no more rows can appear below it. Numbers from sequences cannot give that: a
-- transaction may take a lower number and commit later. There are no indexes on
-- transaction numbers; the times below narrow the search.

-- +goose Up

create table tasker_system_events (
  event_id    bigint generated always as identity primary key,
  recorded_at timestamptz not null default clock_timestamp(),
  happened_at timestamptz not null default clock_timestamp(),   -- by the clock of whoever reports it
  kind        text not null check (kind in ('host', 'health')),
  host        text not null,
  subject     text not null,               -- the host's number, or the name of the check
  from_state  text not null default '',    -- empty: it is new
  to_state    text not null,
  reason      text not null default ''
);

create index on tasker_system_events using brin (recorded_at) with (autosummarize = on);
create index on tasker_plugin_events using brin (recorded_at) with (autosummarize = on);
create index on tasker_audit using brin (recorded_at) with (autosummarize = on);

-- +goose StatementBegin
create function tasker_note_host() returns trigger language plpgsql as $$
begin
  insert into tasker_system_events (kind, host, subject, from_state, to_state)
  values ('host', new.name, new.host_id::text, case when tg_op = 'UPDATE' then old.state else '' end, new.state);
  return null;
end
$$;
-- +goose StatementEnd

create trigger tasker_host_comes after insert on tasker_hosts for each row execute function tasker_note_host();
create trigger tasker_host_changes after update of state on tasker_hosts
  for each row when (old.state <> new.state) execute function tasker_note_host();

-- +goose Down
drop trigger tasker_host_changes on tasker_hosts;
drop trigger tasker_host_comes on tasker_hosts;
drop function tasker_note_host();
drop index tasker_audit_recorded_at_idx;
drop index tasker_plugin_events_recorded_at_idx;
drop table tasker_system_events;
