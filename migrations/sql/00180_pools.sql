-- What hosts need to know to size their pools of executors.

-- +goose Up

-- How many connections a host may have at once; null: it has not reported it.
alter table tasker_hosts add column connections integer check (connections > 0);

-- For each queue: how many messages are visible now, and for how many seconds one of
-- them has been visible already. Of the queue of a namespace, only messages for the
-- handlers in p_handlers count: no host can do the work of outside workers. The first
-- p_limit messages are looked at in the order in which they became visible. The index on
-- vt has that order, so hidden messages, however many, are not looked at. A paused queue
-- counts as empty; one that does not exist is left out. o_hosts is how many hosts share
-- the work.
-- +goose StatementBegin
create function tasker_backlogs(p_queues text[], p_limit integer, p_handlers text[])
returns table (o_queue text, o_waiting integer, o_oldest_seconds double precision, o_hosts integer)
language plpgsql stable as $$
declare
  v_queue  text;
  v_paused boolean;
begin
  select greatest(count(*), 1) into o_hosts
    from tasker_hosts h where h.alive_until > clock_timestamp() and h.state = 'normal';
  foreach v_queue in array p_queues loop
    continue when to_regclass(format('pgmq.%I', 'q_' || v_queue)) is null;
    o_queue := v_queue;
    select n.paused_at is not null into v_paused from tasker_task_namespaces n where n.name || '_queue' = v_queue;
    if v_paused then
      o_waiting := 0;
      o_oldest_seconds := 0;
    else
      execute format($q$
        select count(*), coalesce(extract(epoch from $2 - min(x.vt)), 0)
          from (select q.vt, q.headers ->> 'handler' as handler from pgmq.%I q where q.vt <= $2 order by q.vt limit $1) x
         where $3 is null or x.handler is null or x.handler = any($3)
      $q$, 'q_' || v_queue) into o_waiting, o_oldest_seconds
        using p_limit, clock_timestamp(), case when v_paused is not null then p_handlers end;
    end if;
    return next;
  end loop;
end
$$;
-- +goose StatementEnd

-- Which of the queues hold a message that is visible now: of p_queues, the queues of
-- namespaces, a message for a handler in p_handlers; of p_inboxes, any message. Paused
-- queues count as empty. A queue that does not exist is returned, so that whoever reads
-- it is told what is wrong.
-- +goose StatementBegin
create function tasker_waiting(p_queues text[], p_handlers text[], p_inboxes text[])
returns setof text language plpgsql stable
set enable_seqscan = off set jit = off
as $$
declare
  v_queue text;
  v_found boolean;
begin
  foreach v_queue in array p_queues || p_inboxes loop
    continue when tasker_queue_paused(v_queue);
    if to_regclass(format('pgmq.%I', 'q_' || v_queue)) is null then
      return next v_queue;
      continue;
    end if;
    execute format($q$
      select exists (
        select from pgmq.%I q
         where q.vt <= $1 and ($2 is null or q.headers ->> 'handler' is null or q.headers ->> 'handler' = any($2)))
    $q$, 'q_' || v_queue)
    into v_found using clock_timestamp(), case when v_queue = any(p_queues) then p_handlers end;
    if v_found then
      return next v_queue;
    end if;
  end loop;
end
$$;
-- +goose StatementEnd

-- +goose Down
drop function tasker_waiting(text[], text[], text[]);
drop function tasker_backlogs(text[], integer, text[]);
alter table tasker_hosts drop column connections;
