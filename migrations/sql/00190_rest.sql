-- Hosts at rest. A host that has had nothing to do for a while asks the database
-- almost nothing, and is roused by a notification when there is work.
--
-- A notification takes a server-wide lock at commit, so it is sent only when some
-- host rests. Two advisory locks tell whether one does, and nobody ever waits for
-- either.
--
-- A host takes the "bed", shared, for as long as it rests, on the connection on
-- which it listens. A sender first takes the "door", shared, until its transaction
-- ends, and then asks whether the bed is taken; if it is, or if the sender could not
-- take the door, it notifies. A host that goes to rest listens, takes the bed, then
-- tries the door exclusively, and releases it at once. If it could not take the
-- door, it rises and tries again later; otherwise it looks at everything once more,
-- and rests.
--
-- So nothing is missed. A sender that asked for the bed before it was taken had the
-- door by then. If it still has the door, the host's attempt fails; if not, the
-- sender has committed, and the host's last look sees what it sent. A sender that
-- asks later finds the bed taken, and the host is listening already.
--
-- A resting host (tasker_hosts.rests) also holds no step, and takes none until it
-- has reported that it rests no more, with a heartbeat that rouses the others: see
-- tasker_may_lease. So when every host rests, no host's death has to be noticed
-- soon.

-- +goose Up

-- Rouses the resting hosts once the transaction has committed.
-- +goose StatementBegin
create function tasker_rouse() returns trigger language plpgsql as $$
begin
  if pg_catalog.pg_try_advisory_xact_lock_shared(pg_catalog.hashtext('tasker_door'), 0) then
    -- A single expression: the call may be cancelled between two statements, and its session would keep the bed.
    if (case when pg_catalog.pg_try_advisory_lock(pg_catalog.hashtext('tasker_bed'), 0)
             then pg_catalog.pg_advisory_unlock(pg_catalog.hashtext('tasker_bed'), 0) else false end) then
      return null;
    end if;   -- a host rests, or another session asks at the moment: a needless notification
  end if;
  perform pg_catalog.pg_notify('tasker_rouse', '');
  return null;
end
$$;
-- +goose StatementEnd

-- Makes messages sent to a queue, and messages made visible early, rouse hosts.
-- Returns false if there is no such queue, if we may not create triggers there, or if
-- somebody has sent to it and not committed: creating a trigger waits for that, and
-- everybody else who sends or reads would wait behind it. The privilege is checked
-- first because the server locks the table before it checks it.
-- +goose StatementBegin
create function tasker_watch_queue(p_queue text)
returns boolean language plpgsql set lock_timeout = '250ms' as $$
declare
  v_table regclass := to_regclass(format('pgmq.%I', 'q_' || p_queue));
begin
  if v_table is null then
    return false;
  elsif tasker_queue_watched(p_queue) then
    return true;
  elsif not has_table_privilege(v_table, 'trigger') then
    return false;
  end if;
  execute format('create or replace trigger tasker_rouse after insert on %s for each statement execute function tasker_rouse()', v_table);
  execute format('create or replace trigger tasker_rouse_early after update of vt on %s for each row when (new.vt < old.vt) execute function tasker_rouse()', v_table);
  return true;
exception when insufficient_privilege or lock_not_available then
  return false;
end
$$;
-- +goose StatementEnd

-- Whether a queue has the triggers of tasker_watch_queue.
-- +goose StatementBegin
create function tasker_queue_watched(p_queue text)
returns boolean language plpgsql stable as $$
begin
  return 2 = (select count(*) from pg_trigger t
               where t.tgrelid = to_regclass(format('pgmq.%I', 'q_' || p_queue))::oid
                 and t.tgname in ('tasker_rouse', 'tasker_rouse_early') and t.tgenabled in ('O', 'A'));
end
$$;
-- +goose StatementEnd

-- What resting hosts must learn of besides messages: new hosts and hosts that rise;
-- steps taken by outside workers, since their leases expire; what templates add; and
-- queues that are resumed.
create trigger tasker_host_rouses after insert on tasker_hosts for each row execute function tasker_rouse();
create trigger tasker_host_rises after update of rests on tasker_hosts
  for each row when (old.rests and not new.rests) execute function tasker_rouse();
create trigger tasker_worker_rouses after insert on tasker_worker_leases for each statement execute function tasker_rouse();
create trigger tasker_plan_rouses after insert on tasker_task_plans for each statement execute function tasker_rouse();
create trigger tasker_pause_rouses after update of paused_at on tasker_task_namespaces
  for each row when (old.paused_at is distinct from new.paused_at) execute function tasker_rouse();

-- The heartbeat of a host that has nothing to do, its look at the queues and its
-- sweeps in one call. It reports that the host rests and returns why it must look
-- often all the same; null: it need not. In the null case its lease is extended by
-- p_rest_lease_ms, otherwise by p_lease_ms. p_rises is how many times the host has
-- risen, which exposes a call that comes too late. p_queues with p_handlers, and
-- p_inboxes, are as for tasker_waiting.
--   o_known    false: the host was declared dead, or has risen since
--   o_next_ms  until the next hidden message becomes visible; null: there is none
--   o_active   whether there are tasks that have not ended
--   o_blind    the queues that do not rouse hosts
-- +goose StatementBegin
create function tasker_rest(
  p_host integer, p_rises bigint, p_state text, p_served text[], p_lease_ms bigint, p_rest_lease_ms bigint,
  p_queues text[], p_handlers text[], p_inboxes text[],
  out o_known boolean, out o_why text, out o_next_ms bigint, out o_active boolean, out o_blind text[])
language plpgsql
set enable_seqscan = off set jit = off
as $$
declare
  v_queue text;
  v_next  timestamptz;
  v_first timestamptz;
  v_now   timestamptz;
begin
  o_blind := array(select q from unnest(p_queues || p_inboxes) q where not tasker_queue_watched(q));
  o_active := exists (select from tasker_tasks t where t.state in ('pending', 'in_progress'));
  select case when h.rests then format('host %s has missed its heartbeat', h.host_id)
              when h.state in ('dead', 'stopped') then format('the steps of host %s are not given back yet', h.host_id)
              else format('host %s does not rest', h.host_id) end
    into o_why
    from tasker_hosts h
   where h.host_id <> p_host
     and case when h.state in ('dead', 'stopped') then h.swept_at is null else not h.rests or h.alive_until < clock_timestamp() end
   limit 1;
  if o_why is null then
    o_why := case when o_blind <> '{}' then format('queue %s does not rouse hosts', o_blind[1])
                  when exists (select from tasker_worker_leases) then 'outside workers run steps'
                  when exists (select from tasker_worker_counts) then 'the work of outside workers is not counted yet'
                  when exists (select from tasker_revocations r where r.host_id = p_host) then 'a lease was revoked' end;
  end if;
  v_now := clock_timestamp();
  if o_why is null then
    select format('work waits in queue %s', w) into o_why from tasker_waiting(p_queues, p_handlers, p_inboxes) w limit 1;
  end if;
  if o_why is null then
    foreach v_queue in array p_queues || p_inboxes loop
      continue when tasker_queue_paused(v_queue);
      execute format('select q.vt from pgmq.%I q where q.vt > $1 order by q.vt limit 1', 'q_' || v_queue) into v_next using v_now;
      v_first := least(v_first, v_next);
    end loop;
    o_next_ms := ceil(extract(epoch from v_first - clock_timestamp()) * 1000);
  end if;
  update tasker_hosts h
     set heartbeat_at = clock_timestamp(), state = p_state, served = p_served, rests = true,
         alive_until = clock_timestamp() + case when o_why is null then p_rest_lease_ms else p_lease_ms end * interval '1 millisecond'
   where h.host_id = p_host and h.state <> 'dead' and h.rises = p_rises;
  o_known := found;
end
$$;
-- +goose StatementEnd

-- +goose Down
drop function tasker_rest(integer, bigint, text, text[], bigint, bigint, text[], text[], text[]);
drop trigger tasker_pause_rouses on tasker_task_namespaces;
drop trigger tasker_plan_rouses on tasker_task_plans;
drop trigger tasker_worker_rouses on tasker_worker_leases;
drop trigger tasker_host_rises on tasker_hosts;
drop trigger tasker_host_rouses on tasker_hosts;
drop function tasker_watch_queue(text);
drop function tasker_queue_watched(text);
drop function tasker_rouse() cascade;
