-- The vocabulary of tasks and steps, equal to package sdk/vocab (a test compares
-- the two), and the arithmetic of identifiers.

-- +goose Up
create type tasker_task_state as enum
  ('pending', 'in_progress', 'complete', 'error', 'cancelled', 'resolved_manually');

create type tasker_step_state as enum
  ('pending', 'enqueued', 'in_progress', 'complete', 'error', 'cancelled', 'resolved_manually');

create type tasker_backoff as enum ('exponential', 'linear', 'fixed', 'none');

create type tasker_outcome as enum ('success', 'retryable', 'permanent', 'released');

-- The tables of legal edges. The guards of the tables are built from them, so
-- that an illegal edge is refused no matter who writes it: the host, a worker or
-- psql. The server reads a guard anew in each statement that meets it, and reads
-- an array that is a single constant twice as fast as "in" with a constant for
-- each state.

-- +goose StatementBegin
create function tasker_legal_task_edge(p_from tasker_task_state, p_to tasker_task_state)
returns boolean language sql immutable parallel safe as $$
  select p_to = any (case p_from
    when 'pending' then '{in_progress,error,cancelled,resolved_manually}'::tasker_task_state[]
    when 'in_progress' then '{complete,error,cancelled,resolved_manually}'
    when 'error' then '{pending,cancelled,resolved_manually}'
    else '{}' end)
$$;
-- +goose StatementEnd

-- +goose StatementBegin
create function tasker_legal_step_edge(p_from tasker_step_state, p_to tasker_step_state)
returns boolean language sql immutable parallel safe as $$
  select p_to = any (case p_from
    when 'pending' then '{enqueued,in_progress,error,cancelled,resolved_manually}'::tasker_step_state[]
    when 'enqueued' then '{in_progress,error,cancelled,resolved_manually}'
    when 'in_progress' then '{enqueued,complete,error,cancelled,resolved_manually}'
    when 'error' then '{pending,cancelled,resolved_manually}'
    else '{}' end)
$$;
-- +goose StatementEnd

-- +goose StatementBegin
create function tasker_refuse_edge() returns trigger language plpgsql as $$
begin
  raise exception 'illegal transition of % % from % to %',
      case tg_argv[0] when 'task' then 'task' else 'a step of task' end, new.task_uuid, old.state, new.state
    using errcode = 'check_violation',
          hint = 'See tasker_legal_' || tg_argv[0] || '_edge for the legal transitions.';
end
$$;
-- +goose StatementEnd

-- A task's UUID is a version 7 UUID whose low 20 bits are zero. The UUID of its
-- step n is the same with n + 1 in those bits. So one key finds the row, one
-- index serves tasks and steps, and both sort by time.

-- +goose StatementBegin
create function tasker_step_uuid(p_task uuid, p_step_no integer)
returns uuid language sql immutable strict parallel safe as $$
  select (left(p_task::text, 31) || lpad(to_hex(p_step_no + 1), 5, '0'))::uuid
$$;
-- +goose StatementEnd

-- +goose StatementBegin
create function tasker_task_of(p_step uuid)
returns uuid language sql immutable strict parallel safe as $$
  select (left(p_step::text, 31) || '00000')::uuid
$$;
-- +goose StatementEnd

-- The number of the step that a UUID names; -1 if it names a task.
-- +goose StatementBegin
create function tasker_step_no(p_step uuid)
returns integer language sql immutable strict parallel safe as $$
  select ('x' || lpad(right(p_step::text, 5), 8, '0'))::bit(32)::integer - 1
$$;
-- +goose StatementEnd

-- The lowest version 7 UUID of a point in time: the bound of a partition.
-- +goose StatementBegin
create function tasker_uuid_floor(p_at timestamptz)
returns uuid language sql immutable strict parallel safe as $$
  select (lpad(to_hex((extract(epoch from p_at) * 1000)::bigint), 12, '0') || '00000000000000000000')::uuid
$$;
-- +goose StatementEnd

-- When the object that a version 7 UUID names was created.
-- +goose StatementBegin
create function tasker_uuid_time(p_uuid uuid)
returns timestamptz language sql immutable strict parallel safe as $$
  select to_timestamp(('x' || lpad(left(replace(p_uuid::text, '-', ''), 12), 16, '0'))::bit(64)::bigint / 1000.0)
$$;
-- +goose StatementEnd

-- A new task UUID, for callers that create tasks in SQL.
-- +goose StatementBegin
create function tasker_new_task_uuid()
returns uuid language sql volatile parallel safe as $$
  select (lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0')
          || '7' || substr(r, 2, 3) || to_hex(8 + (get_byte(decode(left(r, 2), 'hex'), 0) & 3)) || substr(r, 6, 10)
          || '00000')::uuid
    from replace(gen_random_uuid()::text, '-', '') r
$$;
-- +goose StatementEnd

-- The priority of a step in the queue: its own, which grows with the age of its
-- task so that nothing waits for ever behind priorities 0 to 4. The bands are those of
-- the reference.
-- +goose StatementBegin
create function tasker_computed_priority(p_priority integer, p_age_seconds double precision)
returns double precision language sql immutable strict parallel safe as $$
  select case
    when p_priority >= 4 then p_priority + least(p_age_seconds / 300, 2)
    when p_priority = 3 then 3 + least(p_age_seconds / 180, 3)
    when p_priority = 2 then 2 + least(p_age_seconds / 120, 4)
    when p_priority = 1 then 1 + least(p_age_seconds / 60, 5)
    else least(p_age_seconds / 30, 6)
  end
$$;
-- +goose StatementEnd

-- The wait in milliseconds after failed attempt n of a step, before jitter:
-- exponential base·2^(n-1), linear base·n, fixed base, none 0; at most the cap.
-- Equal to workflow.Retry.Delay.
-- +goose StatementBegin
create function tasker_backoff_ms(p_kind tasker_backoff, p_base_ms bigint, p_cap_ms bigint, p_attempt integer)
returns bigint language sql immutable strict parallel safe as $$
  select least(p_cap_ms, case p_kind
    when 'exponential' then p_base_ms * power(2::numeric, least(greatest(p_attempt, 1) - 1, 62))
    when 'linear' then p_base_ms::numeric * greatest(p_attempt, 1)
    when 'fixed' then p_base_ms
    else 0
  end)::bigint
$$;
-- +goose StatementEnd

-- +goose Down
drop function tasker_backoff_ms(tasker_backoff, bigint, bigint, integer);
drop function tasker_computed_priority(integer, double precision);
drop function tasker_new_task_uuid();
drop function tasker_uuid_time(uuid);
drop function tasker_uuid_floor(timestamptz);
drop function tasker_step_no(uuid);
drop function tasker_task_of(uuid);
drop function tasker_step_uuid(uuid, integer);
drop function tasker_refuse_edge();
drop function tasker_legal_step_edge(tasker_step_state, tasker_step_state);
drop function tasker_legal_task_edge(tasker_task_state, tasker_task_state);
drop type tasker_outcome;
drop type tasker_backoff;
drop type tasker_step_state;
drop type tasker_task_state;
