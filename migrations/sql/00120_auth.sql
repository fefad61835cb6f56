-- Who may use the API over TCP, and who changed what.

-- +goose Up

-- Bearer tokens. Only the hash of a token's secret is kept.
create table tasker_tokens (
  token_id    text primary key,
  name        text not null check (name ~ '^[a-z][a-z0-9_-]{0,62}$'),
  secret_hash bytea not null check (octet_length(secret_hash) = 32),
  permissions text[] not null,
  created_at  timestamptz not null default clock_timestamp(),
  created_by  text not null,
  expires_at  timestamptz not null,
  revoked_at  timestamptz,
  revoked_by  text,
  check (expires_at > created_at),
  check ((revoked_at is null) = (revoked_by is null))
);

-- Creates a token that works for p_life_seconds; no row if a live token has the
-- name. A name is free again when its token has expired or was revoked.
-- +goose StatementBegin
create function tasker_create_token(p_id text, p_name text, p_hash bytea, p_permissions text[], p_by text, p_life_seconds bigint)
returns setof tasker_tokens language plpgsql as $$
begin
  perform pg_advisory_xact_lock(hashtextextended('tasker_token:' || p_name, 0));
  if exists (select from tasker_tokens t
              where t.name = p_name and t.revoked_at is null and t.expires_at > clock_timestamp()) then
    return;
  end if;
  return query
  insert into tasker_tokens (token_id, name, secret_hash, permissions, created_by, expires_at)
  values (p_id, p_name, p_hash, p_permissions, p_by, clock_timestamp() + make_interval(secs => p_life_seconds))
  returning *;
end
$$;
-- +goose StatementEnd

-- Who changed what through the API. Rows are never changed, and never removed
-- before they are 30 days old: retention removes older ones.
create table tasker_audit (
  audit_id    bigint generated always as identity primary key,
  recorded_at timestamptz not null default clock_timestamp(),
  actor       text not null,
  action      text not null,
  subject     text not null,
  request_id  text not null,
  address     text not null,
  outcome     text not null check (outcome in ('done', 'refused', 'failed')),
  status      integer not null
);
create index tasker_audit_actor on tasker_audit (actor, audit_id);

-- +goose StatementBegin
create function tasker_refuse_audit_change() returns trigger language plpgsql as $$
begin
  raise exception 'entries of tasker_audit are not changed, and not removed before they are 30 days old' using errcode = 'insufficient_privilege';
end
$$;
-- +goose StatementEnd

create trigger tasker_audit_append_only before update or truncate on tasker_audit
  for each statement execute function tasker_refuse_audit_change();

create trigger tasker_audit_kept before delete on tasker_audit
  for each row when (old.recorded_at > clock_timestamp() - interval '30 days') execute function tasker_refuse_audit_change();

-- +goose Down
drop table tasker_audit;
drop function tasker_refuse_audit_change();
drop function tasker_create_token(text, text, bytea, text[], text, bigint);
drop table tasker_tokens;
