-- What operators can do with queues and with messages and steps that were set aside.

-- +goose Up

-- Waits until every transaction that may have given steps to a host has ended.
-- Called after a namespace was paused, in a transaction of its own: transactions
-- that began before the pause have ended when this returns, and later ones see the
-- pause. The locks are those of tasker_may_lease; 0 is the one of all outside
-- workers. Each is released at once, which only a block with an exception can do, so
-- that nobody who needs it waits while this function waits for the others.
-- +goose StatementBegin
create function tasker_await_grants()
returns void language plpgsql as $$
declare
  v_host integer;
begin
  for v_host in
    select 0 union all (select h.host_id from tasker_hosts h where h.state not in ('dead', 'stopped')) order by 1
  loop
    begin
      perform pg_advisory_xact_lock(hashtext('tasker_hosts'), v_host);
      raise exception 'nobody has it any more' using errcode = 'TK002';
    exception when sqlstate 'TK002' then
      null;
    end;
  end loop;
end
$$;
-- +goose StatementEnd

-- How many messages of a queue are visible now, and how many will be later, each
-- counted up to p_limit, and when the oldest visible one was sent.
-- +goose StatementBegin
create function tasker_queue_facts(p_queue text, p_limit integer, out o_waiting integer, out o_delayed integer, out o_oldest_at timestamptz)
language plpgsql stable as $$
begin
  execute format($q$
    select (select count(*) from (select from pgmq.%1$I q where q.vt <= clock_timestamp() limit $1) x),
           (select count(*) from (select from pgmq.%1$I q where q.vt > clock_timestamp() limit $1) x),
           (select q.enqueued_at from pgmq.%1$I q where q.vt <= clock_timestamp() order by q.msg_id limit 1)
  $q$, 'q_' || p_queue) into o_waiting, o_delayed, o_oldest_at using p_limit;
end
$$;
-- +goose StatementEnd

-- How many of the first p_limit visible messages of a queue come before that of a
-- step; null: it is not among them.
-- +goose StatementBegin
create function tasker_queue_place(p_queue text, p_step uuid, p_limit integer)
returns integer language plpgsql stable as $$
declare
  v_ahead integer;
begin
  execute format($q$
    select min(h.place) - 1
      from (select row_number() over (order by q.msg_id) as place, q.message ->> 'step_uuid' as step
              from pgmq.%I q where q.vt <= clock_timestamp() order by q.msg_id limit $2) h
     where h.step = $1::text
  $q$, 'q_' || p_queue) into v_ahead using p_step, p_limit;
  return v_ahead;
end
$$;
-- +goose StatementEnd

-- Sends a message that was set aside to its queue again, and closes its dead
-- letter. Returns replayed; closed (somebody has dealt with it already); no_queue
-- (its queue is gone); or null: no such message.
-- +goose StatementBegin
create function tasker_replay_message(p_letter bigint, p_reason text, p_by text)
returns text language plpgsql as $$
declare
  v_letter record;
begin
  select d.queue_name, d.body, d.headers, d.closed_at into v_letter
    from tasker_dead_letters d where d.dead_letter_id = p_letter and d.kind = 'message' for update;
  if not found then
    return null;
  elsif v_letter.closed_at is not null then
    return 'closed';
  elsif v_letter.queue_name is null or to_regclass(format('pgmq.%I', 'q_' || lower(v_letter.queue_name))) is null then
    return 'no_queue';
  end if;
  update tasker_dead_letters d
     set closed_at = clock_timestamp(), closed_as = 'replayed', closed_by = nullif(p_by, ''), closed_reason = nullif(p_reason, '')
   where d.dead_letter_id = p_letter;
  perform pgmq.send(v_letter.queue_name, coalesce(v_letter.body, 'null'), v_letter.headers);
  return 'replayed';
end
$$;
-- +goose StatementEnd

-- +goose Down
drop function tasker_replay_message(bigint, text, text);
drop function tasker_queue_place(text, uuid, integer);
drop function tasker_queue_facts(text, integer);
drop function tasker_await_grants();
