-- A message queue with the interface of pgmq 1.5: the same schema, types, tables,
-- functions and parameter names, so that clients written for pgmq run unchanged
-- on servers that do not offer the extension. Written for Tasker Host from
-- pgmq's documented interface; it is not pgmq, and the comment on the schema,
-- which the installer sets, says so.
--
-- May be run again on an existing installation. It expects the schema pgmq to
-- exist. All names are qualified, so it works under any search_path.
--
-- Differences from pgmq, all of them refusals: queue names that are empty,
-- contain control characters, make a table name that PostgreSQL would truncate,
-- or differ from an existing queue's only in case; batches with more headers than
-- messages; partitioned queues.

-- Objects ---------------------------------------------------------------------

create table if not exists pgmq.meta (
  queue_name     varchar unique not null,
  is_partitioned boolean not null,
  is_unlogged    boolean not null,
  created_at     timestamptz not null default now()
);

do $$
begin
  if pg_catalog.to_regtype('pgmq.message_record') is null then
    create type pgmq.message_record as (
      msg_id bigint, read_ct integer, enqueued_at timestamptz, vt timestamptz, message jsonb, headers jsonb);
  end if;
  if pg_catalog.to_regtype('pgmq.queue_record') is null then
    create type pgmq.queue_record as (
      queue_name varchar, is_partitioned boolean, is_unlogged boolean, created_at timestamptz);
  end if;
  if pg_catalog.to_regtype('pgmq.metrics_result') is null then
    create type pgmq.metrics_result as (
      queue_name text, queue_length bigint, newest_msg_age_sec integer, oldest_msg_age_sec integer,
      total_messages bigint, scrape_time timestamptz, queue_visible_length bigint);
  end if;
end
$$;

-- Names -----------------------------------------------------------------------

create or replace function pgmq.validate_queue_name(queue_name text)
returns void language plpgsql immutable as $$
begin
  if queue_name is null or queue_name = '' then
    raise exception 'a queue name must not be empty' using errcode = 'invalid_parameter_value';
  elsif pg_catalog.length(queue_name) > 47 then
    raise exception 'queue name is too long, maximum length is 47 characters' using errcode = 'invalid_parameter_value';
  elsif queue_name ~ '\$|;|--|''' then
    raise exception 'queue name contains invalid characters: $, ;, --, or ''' using errcode = 'invalid_parameter_value';
  elsif queue_name ~ '[[:cntrl:]]' then
    raise exception 'queue name contains control characters' using errcode = 'invalid_parameter_value';
  elsif pg_catalog.octet_length(pg_catalog.lower(queue_name)) > 47 then -- archived_at_idx_<name> is the longest identifier
    raise exception 'queue name is too long, maximum length is 47 bytes' using errcode = 'invalid_parameter_value';
  end if;
end
$$;

-- The table of a queue: prefix q for the messages, a for the archive.
create or replace function pgmq.format_table_name(queue_name text, prefix text)
returns text language plpgsql immutable as $$
begin
  perform pgmq.validate_queue_name(queue_name);
  return pg_catalog.lower(prefix || '_' || queue_name);
end
$$;

-- Serializes creating and dropping one queue, until the transaction ends.
create or replace function pgmq.acquire_queue_lock(queue_name text)
returns void language sql as $$
  select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('pgmq.queue_' || pg_catalog.lower(queue_name), 0))
$$;

-- Creating and dropping queues ------------------------------------------------

create or replace function pgmq._create(queue_name text, unlogged boolean)
returns void language plpgsql as $$
declare
  v_queue   text := pgmq.format_table_name(queue_name, 'q');
  v_archive text := pgmq.format_table_name(queue_name, 'a');
  v_other   text;
begin
  perform pgmq.acquire_queue_lock(queue_name);
  select m.queue_name into v_other from pgmq.meta m
   where pg_catalog.lower(m.queue_name) = pg_catalog.lower(_create.queue_name) and m.queue_name <> _create.queue_name;
  if found then
    raise exception 'queue % exists: names that differ only in case are one table', v_other using errcode = 'duplicate_object';
  end if;
  if exists (select from pgmq.meta m where m.queue_name = _create.queue_name) then
    return;
  end if;
  execute pg_catalog.format(
    'create %s table if not exists pgmq.%I (
       msg_id      bigint primary key generated always as identity,
       read_ct     integer not null default 0,
       enqueued_at timestamptz not null default now(),
       vt          timestamptz not null,
       message     jsonb,
       headers     jsonb)', case when unlogged then 'unlogged' else '' end, v_queue);
  execute pg_catalog.format(
    'create table if not exists pgmq.%I (
       msg_id      bigint primary key,
       read_ct     integer not null default 0,
       enqueued_at timestamptz not null default now(),
       archived_at timestamptz not null default now(),
       vt          timestamptz not null,
       message     jsonb,
       headers     jsonb)', v_archive);
  execute pg_catalog.format('create index if not exists %I on pgmq.%I (vt)', v_queue || '_vt_idx', v_queue);
  execute pg_catalog.format('create index if not exists %I on pgmq.%I (archived_at)', 'archived_at_idx_' || pg_catalog.lower(queue_name), v_archive);
  insert into pgmq.meta (queue_name, is_partitioned, is_unlogged) values (_create.queue_name, false, unlogged);
end
$$;

create or replace function pgmq.create_non_partitioned(queue_name text)
returns void language sql as $$ select pgmq._create(queue_name, false) $$;

create or replace function pgmq.create_unlogged(queue_name text)
returns void language sql as $$ select pgmq._create(queue_name, true) $$;

create or replace function pgmq."create"(queue_name text)
returns void language sql as $$ select pgmq._create(queue_name, false) $$;

create or replace function pgmq.create_partitioned(
  queue_name text, partition_interval text default '10000', retention_interval text default '100000')
returns void language plpgsql as $$
begin
  raise exception 'partitioned queues are not supported by this pgmq-compatible installation'
    using errcode = 'feature_not_supported',
          hint = 'Use pgmq.create, or install the extensions pgmq and pg_partman.';
end
$$;

create or replace function pgmq.convert_archive_partitioned(
  table_name text, partition_interval text default '10000', retention_interval text default '100000', leading_partition integer default 10)
returns void language plpgsql as $$
begin
  raise exception 'partitioned archives are not supported by this pgmq-compatible installation'
    using errcode = 'feature_not_supported',
          hint = 'Delete old rows of the archive instead, or install the extensions pgmq and pg_partman.';
end
$$;

-- In the extension this takes the archive's table out of the extension, so that
-- it survives a drop. Ours are ordinary tables: nothing to do.
create or replace function pgmq.detach_archive(queue_name text)
returns void language sql as $$ select pgmq.validate_queue_name(queue_name) $$;

create or replace function pgmq.drop_queue(queue_name text)
returns boolean language plpgsql as $$
begin
  perform pgmq.acquire_queue_lock(queue_name);
  delete from pgmq.meta m where m.queue_name = drop_queue.queue_name;
  if not found then
    return false;
  end if;
  execute pg_catalog.format('drop table if exists pgmq.%I', pgmq.format_table_name(queue_name, 'q'));
  execute pg_catalog.format('drop table if exists pgmq.%I', pgmq.format_table_name(queue_name, 'a'));
  return true;
end
$$;

create or replace function pgmq.purge_queue(queue_name text)
returns bigint language plpgsql as $$
declare
  v_queue text := pgmq.format_table_name(queue_name, 'q');
  v_count bigint;
begin
  execute pg_catalog.format('lock table pgmq.%I in access exclusive mode', v_queue);
  execute pg_catalog.format('select count(*) from pgmq.%I', v_queue) into v_count;
  execute pg_catalog.format('truncate table pgmq.%I continue identity', v_queue);
  return v_count;
end
$$;

create or replace function pgmq.list_queues()
returns setof pgmq.queue_record language sql stable as $$
  select m.queue_name, m.is_partitioned, m.is_unlogged, m.created_at from pgmq.meta m order by m.queue_name
$$;

-- Sending ---------------------------------------------------------------------

create or replace function pgmq.send(queue_name text, msg jsonb, headers jsonb, delay timestamptz)
returns setof bigint language plpgsql as $$
begin
  return query execute pg_catalog.format(
    'insert into pgmq.%I (vt, message, headers) values ($1, $2, $3) returning msg_id',
    pgmq.format_table_name(queue_name, 'q')) using delay, msg, headers;
end
$$;

create or replace function pgmq.send(queue_name text, msg jsonb, headers jsonb, delay integer)
returns setof bigint language sql as $$
  select pgmq.send(queue_name, msg, headers, pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => delay))
$$;

create or replace function pgmq.send(queue_name text, msg jsonb)
returns setof bigint language sql as $$
  select pgmq.send(queue_name, msg, null::jsonb, pg_catalog.clock_timestamp())
$$;

create or replace function pgmq.send(queue_name text, msg jsonb, headers jsonb)
returns setof bigint language sql as $$
  select pgmq.send(queue_name, msg, headers, pg_catalog.clock_timestamp())
$$;

create or replace function pgmq.send(queue_name text, msg jsonb, delay integer)
returns setof bigint language sql as $$
  select pgmq.send(queue_name, msg, null::jsonb, pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => delay))
$$;

create or replace function pgmq.send(queue_name text, msg jsonb, delay timestamptz)
returns setof bigint language sql as $$
  select pgmq.send(queue_name, msg, null::jsonb, delay)
$$;

-- Identifiers follow the order of the batch: the identity's default is taken
-- after the sort.
create or replace function pgmq.send_batch(queue_name text, msgs jsonb[], headers jsonb[], delay timestamptz)
returns setof bigint language plpgsql as $$
begin
  if pg_catalog.cardinality(headers) > pg_catalog.cardinality(msgs) then
    raise exception '% headers for % messages', pg_catalog.cardinality(headers), pg_catalog.cardinality(msgs)
      using errcode = 'invalid_parameter_value';
  end if;
  return query execute pg_catalog.format(
    'with sent as (
       insert into pgmq.%I (vt, message, headers)
       select $1, given.message, given.headers
         from rows from (pg_catalog.unnest($2), pg_catalog.unnest($3)) with ordinality as given (message, headers, ord)
        order by given.ord
       returning msg_id)
     select sent.msg_id from sent order by sent.msg_id',
    pgmq.format_table_name(queue_name, 'q')) using delay, msgs, headers;
end
$$;

create or replace function pgmq.send_batch(queue_name text, msgs jsonb[], headers jsonb[], delay integer)
returns setof bigint language sql as $$
  select pgmq.send_batch(queue_name, msgs, headers, pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => delay))
$$;

create or replace function pgmq.send_batch(queue_name text, msgs jsonb[])
returns setof bigint language sql as $$
  select pgmq.send_batch(queue_name, msgs, null::jsonb[], pg_catalog.clock_timestamp())
$$;

create or replace function pgmq.send_batch(queue_name text, msgs jsonb[], headers jsonb[])
returns setof bigint language sql as $$
  select pgmq.send_batch(queue_name, msgs, headers, pg_catalog.clock_timestamp())
$$;

create or replace function pgmq.send_batch(queue_name text, msgs jsonb[], delay integer)
returns setof bigint language sql as $$
  select pgmq.send_batch(queue_name, msgs, null::jsonb[], pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => delay))
$$;

create or replace function pgmq.send_batch(queue_name text, msgs jsonb[], delay timestamptz)
returns setof bigint language sql as $$
  select pgmq.send_batch(queue_name, msgs, null::jsonb[], delay)
$$;

-- Receiving -------------------------------------------------------------------

-- The time is a parameter of the inner statement, not a call in it: a volatile
-- function could not be looked up in the index on vt.
create or replace function pgmq.read(queue_name text, vt integer, qty integer, conditional jsonb default '{}')
returns setof pgmq.message_record language plpgsql as $$
declare
  v_queue  text := pgmq.format_table_name(queue_name, 'q');
  v_filter text := '';
begin
  if conditional <> '{}'::jsonb then
    v_filter := ' and c.message @> $4';
  end if;
  return query execute pg_catalog.format(
    'with chosen as materialized (
       select c.msg_id from pgmq.%1$I c
        where c.vt <= $1%2$s
        order by c.msg_id
        limit $2
        for update skip locked),
     taken as (
       update pgmq.%1$I m
          set vt = pg_catalog.clock_timestamp() + $3, read_ct = m.read_ct + 1
         from chosen
        where m.msg_id = chosen.msg_id
       returning m.msg_id, m.read_ct, m.enqueued_at, m.vt, m.message, m.headers)
     select t.msg_id, t.read_ct, t.enqueued_at, t.vt, t.message, t.headers from taken t order by t.msg_id',
    v_queue, v_filter)
    using pg_catalog.clock_timestamp(), qty, pg_catalog.make_interval(secs => vt), conditional;
end
$$;

-- Holds its connection and its transaction while it waits.
create or replace function pgmq.read_with_poll(
  queue_name text, vt integer, qty integer,
  max_poll_seconds integer default 5, poll_interval_ms integer default 100, conditional jsonb default '{}')
returns setof pgmq.message_record language plpgsql as $$
declare
  v_end timestamptz := pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => max_poll_seconds);
begin
  loop
    return query select r.msg_id, r.read_ct, r.enqueued_at, r.vt, r.message, r.headers
                   from pgmq.read(queue_name, vt, qty, conditional) r;
    exit when found or pg_catalog.clock_timestamp() >= v_end;
    perform pg_catalog.pg_sleep(poll_interval_ms / 1000.0);
  end loop;
end
$$;

create or replace function pgmq.pop(queue_name text)
returns setof pgmq.message_record language plpgsql as $$
begin
  return query execute pg_catalog.format(
    'with chosen as materialized (
       select c.msg_id from pgmq.%1$I c where c.vt <= $1 order by c.msg_id limit 1 for update skip locked)
     delete from pgmq.%1$I m using chosen where m.msg_id = chosen.msg_id
     returning m.msg_id, m.read_ct, m.enqueued_at, m.vt, m.message, m.headers',
    pgmq.format_table_name(queue_name, 'q')) using pg_catalog.clock_timestamp();
end
$$;

create or replace function pgmq.set_vt(queue_name text, msg_id bigint, vt integer)
returns setof pgmq.message_record language plpgsql as $$
begin
  return query execute pg_catalog.format(
    'update pgmq.%I m set vt = pg_catalog.clock_timestamp() + $1 where m.msg_id = $2
     returning m.msg_id, m.read_ct, m.enqueued_at, m.vt, m.message, m.headers',
    pgmq.format_table_name(queue_name, 'q')) using pg_catalog.make_interval(secs => vt), msg_id;
end
$$;

-- Settling --------------------------------------------------------------------

create or replace function pgmq.delete(queue_name text, msg_ids bigint[])
returns setof bigint language plpgsql as $$
begin
  return query execute pg_catalog.format(
    'delete from pgmq.%I m where m.msg_id = any ($1) returning m.msg_id',
    pgmq.format_table_name(queue_name, 'q')) using msg_ids;
end
$$;

create or replace function pgmq.delete(queue_name text, msg_id bigint)
returns boolean language sql as $$
  select exists (select from pgmq.delete(queue_name, array[msg_id]))
$$;

create or replace function pgmq.archive(queue_name text, msg_ids bigint[])
returns setof bigint language plpgsql as $$
begin
  return query execute pg_catalog.format(
    'with moved as (
       delete from pgmq.%I m where m.msg_id = any ($1)
       returning m.msg_id, m.read_ct, m.enqueued_at, m.vt, m.message, m.headers)
     insert into pgmq.%I (msg_id, read_ct, enqueued_at, vt, message, headers)
     select msg_id, read_ct, enqueued_at, vt, message, headers from moved
     returning msg_id',
    pgmq.format_table_name(queue_name, 'q'), pgmq.format_table_name(queue_name, 'a')) using msg_ids;
end
$$;

create or replace function pgmq.archive(queue_name text, msg_id bigint)
returns boolean language sql as $$
  select exists (select from pgmq.archive(queue_name, array[msg_id]))
$$;

-- Metrics ---------------------------------------------------------------------

-- Counts the rows of the table: do not call it in a hot loop on a deep queue.
create or replace function pgmq.metrics(queue_name text)
returns pgmq.metrics_result language plpgsql as $$
declare
  v_queue  text := pgmq.format_table_name(queue_name, 'q');
  v_result pgmq.metrics_result;
begin
  execute pg_catalog.format(
    'select $1, count(*),
            extract(epoch from $2 - max(m.enqueued_at))::integer,
            extract(epoch from $2 - min(m.enqueued_at))::integer,
            (select case when s.is_called then s.last_value else 0 end from %2$s s),
            $2,
            count(*) filter (where m.vt <= $2)
       from pgmq.%1$I m',
    v_queue, pg_catalog.pg_get_serial_sequence(pg_catalog.format('pgmq.%I', v_queue), 'msg_id'))
    into v_result using queue_name, pg_catalog.clock_timestamp();
  return v_result;
end
$$;

create or replace function pgmq.metrics_all()
returns setof pgmq.metrics_result language plpgsql as $$
declare
  v_name text;
begin
  for v_name in select m.queue_name from pgmq.meta m order by m.queue_name loop
    return next pgmq.metrics(v_name);
  end loop;
end
$$;

-- PostgreSQL lets everybody execute new functions. Users of the queues need to be
-- granted execution, and usage on the schema.
revoke execute on all functions in schema pgmq from public;
