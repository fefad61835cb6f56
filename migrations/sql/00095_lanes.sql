-- The priority lanes, and what is left over in them.

-- +goose Up

-- Removes from tasker_priority_messages the rows whose message is gone. A worker
-- that reads the queue itself deletes the message but does not know of the row,
-- and every later claim would have to walk over it. Looks at up to p_limit rows
-- after the given one, all of one queue, and returns the last of them; null: it
-- has seen all. Rows that another session works on are left for the next time.
-- +goose StatementBegin
create function tasker_sweep_lanes(
  p_queue text, p_priority smallint, p_msg bigint, p_limit integer,
  out o_removed integer, out o_queue text, out o_priority smallint, out o_msg bigint)
language plpgsql
set plan_cache_mode = force_generic_plan set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
#variable_conflict use_column
declare
  v_queue      text;
  v_priorities smallint[];
  v_ids        bigint[];
begin
  o_removed := 0;
  select m.queue_name into v_queue from tasker_priority_messages m
   where (m.queue_name, m.priority, m.msg_id) > (p_queue, p_priority, p_msg)
   order by m.queue_name, m.priority, m.msg_id limit 1;
  if not found then
    return;
  end if;
  select array_agg(x.priority order by x.priority, x.msg_id), array_agg(x.msg_id order by x.priority, x.msg_id) into v_priorities, v_ids
    from (select m.priority, m.msg_id from tasker_priority_messages m
           where m.queue_name = v_queue and (m.queue_name, m.priority, m.msg_id) > (p_queue, p_priority, p_msg)
           order by m.queue_name, m.priority, m.msg_id limit p_limit) x;
  o_queue := v_queue; o_priority := v_priorities[cardinality(v_ids)]; o_msg := v_ids[cardinality(v_ids)];
  execute format($q$
    with gone as (
      select m.queue_name, m.priority, m.msg_id
        from unnest($1, $2) u(priority, msg_id)
        join tasker_priority_messages m on m.queue_name = $3 and m.priority = u.priority and m.msg_id = u.msg_id
       where not exists (select from pgmq.%I q where q.msg_id = u.msg_id)
         for update of m skip locked)
    delete from tasker_priority_messages m using gone g
     where m.queue_name = g.queue_name and m.priority = g.priority and m.msg_id = g.msg_id
  $q$, 'q_' || v_queue) using v_priorities, v_ids, v_queue;
  get diagnostics o_removed = row_count;
end
$$;
-- +goose StatementEnd

-- +goose Down
drop function tasker_sweep_lanes(text, smallint, bigint, integer);
