-- The oracle: every row is a violation of an invariant, with the rule and what it
-- concerns. It looks at everything in the database and trusts no function of the
-- engine. Steps settled by hand, bypassing these functions (state
-- resolved_manually, and a history without a reason), count as for the engine:
-- satisfied for their children, open for their task's sinks.
with step as (
  select s.task_uuid, s.step_no, s.state, s.sort_key, s.remaining_parents, s.lease_no, s.claims, s.attempts,
         s.lease_id, s.lease_host, s.doomed, s.due_at, s.generation, n.parents, n.children, t.state as task_state
    from tasker_workflow_steps s
    join tasker_tasks t on t.task_uuid = s.task_uuid
    join tasker_named_steps n on n.plan_id = s.plan_id and n.step_no = s.step_no
), move as (
  select x.task_uuid, x.step_no, x.sort_key, x.from_state, x.to_state, x.lease_id, x.metadata,
         lag(x.to_state) over w as came_to, lag(x.lease_id) over w as came_by, row_number() over w + 1 as place,
         count(*) filter (where x.metadata ? 'generation') over w as generation,
         count(*) filter (where x.metadata ? 'generation') over (partition by x.task_uuid, x.step_no) as generations
    from tasker_workflow_step_transitions x
  window w as (partition by x.task_uuid, x.step_no order by x.sort_key)
), moves as (
  select m.task_uuid, m.step_no, max(m.sort_key) as last, (array_agg(m.to_state order by m.sort_key desc))[1] as now,
         (array_agg(m.metadata order by m.sort_key desc))[1] as note, max(m.generations) as generations,
         count(*) filter (where m.to_state = 'in_progress') as claims,
         count(*) filter (where m.to_state = 'in_progress' and m.generation = m.generations)
           - count(*) filter (where m.generation = m.generations and m.metadata @> '{"excused": true}') as starts,
         count(*) filter (where m.generation = m.generations and m.from_state = 'in_progress' and m.to_state in ('complete', 'error')
                            and coalesce(m.metadata ->> 'reason', '') <> 'claims_exhausted') as charged,
         count(*) filter (where m.to_state = 'complete') as completions,
         count(*) filter (where m.from_state = 'pending' and m.to_state in ('enqueued', 'in_progress')) as awakenings
    from move m group by m.task_uuid, m.step_no
), task as (
  select t.task_uuid, t.state, t.sort_key, t.open_sinks, t.completed_at, t.error, t.finalize_lease, t.generation,
         count(*) filter (where s.children = '{}' and (s.state not in ('complete', 'resolved_manually')
                                                       or s.state = 'resolved_manually' and m.note is null)) as sinks,
         bool_and(s.state in ('complete', 'resolved_manually')) as satisfied,
         bool_or(s.state in ('enqueued', 'in_progress') or s.state = 'pending' and s.remaining_parents = 0) as moving,
         bool_or(s.state = 'error') as failed,
         bool_or(s.state = 'resolved_manually' and m.note is null) as by_hand
    from tasker_tasks t join step s on s.task_uuid = t.task_uuid
    left join moves m on m.task_uuid = s.task_uuid and m.step_no = s.step_no
   group by t.task_uuid, t.state, t.sort_key, t.open_sinks, t.completed_at, t.error, t.finalize_lease, t.generation
), turn as (
  select x.task_uuid, x.sort_key, x.from_state, x.to_state,
         lag(x.to_state) over w as came_to, row_number() over w + 1 as place
    from tasker_task_transitions x
  window w as (partition by x.task_uuid order by x.sort_key)
), turns as (
  select u.task_uuid, max(u.sort_key) as last, (array_agg(u.to_state order by u.sort_key desc))[1] as now,
         count(*) filter (where u.to_state in ('complete', 'error')) as finishes,
         count(*) filter (where u.to_state = 'pending') as reopenings
    from turn u group by u.task_uuid
)
-- I2: an outcome is recorded once, under the current claim.
select 'I2 a step completed more than once' as rule, tasker_step_uuid(m.task_uuid, m.step_no)::text as subject
  from moves m where m.completions > 1
union all
select 'I2 an outcome was recorded twice under one lease', m.lease_id::text
  from move m where m.from_state = 'in_progress' and m.to_state in ('complete', 'error', 'enqueued') and m.lease_id is not null
 group by m.lease_id having count(*) > 1
union all
select 'I2 an outcome was recorded under another lease than the claim''s', tasker_step_uuid(m.task_uuid, m.step_no)::text
  from move m where m.from_state = 'in_progress' and m.to_state in ('complete', 'error', 'enqueued') and m.lease_id is distinct from m.came_by
union all
select 'I2 a lease was granted twice', m.lease_id::text
  from move m where m.to_state = 'in_progress' group by m.lease_id having count(*) > 1
union all
select 'I2 a claim was not counted, or one that was excused', tasker_step_uuid(s.task_uuid, s.step_no)::text
  from step s left join moves m on m.task_uuid = s.task_uuid and m.step_no = s.step_no
 where s.claims <> coalesce(m.starts, 0) or s.lease_no <> coalesce(m.claims, 0)
union all
select 'I2 an attempt was not counted, or one that did not happen', tasker_step_uuid(s.task_uuid, s.step_no)::text
  from step s left join moves m on m.task_uuid = s.task_uuid and m.step_no = s.step_no
 where s.attempts <> coalesce(m.charged, 0)
union all
select 'I2 the generation is not the number of times it was had run anew', tasker_step_uuid(s.task_uuid, s.step_no)::text
  from step s left join moves m on m.task_uuid = s.task_uuid and m.step_no = s.step_no
 where s.generation <> coalesce(m.generations, 0)
union all
select 'I2 a step runs under a lease its history does not know', tasker_step_uuid(s.task_uuid, s.step_no)::text
  from step s
 where s.state = 'in_progress'
   and not exists (select from move m where m.task_uuid = s.task_uuid and m.step_no = s.step_no and m.sort_key = s.sort_key
                      and m.to_state = 'in_progress' and m.lease_id = s.lease_id)
-- I3: children are woken once per readiness, and not before it.
union all
select 'I3 remaining_parents is not the number of unsatisfied parents', tasker_step_uuid(s.task_uuid, s.step_no)::text
  from step s
 where s.remaining_parents <> (select count(*) from unnest(s.parents) p(n)
                                 join step o on o.task_uuid = s.task_uuid and o.step_no = p.n
                                where o.state not in ('complete', 'resolved_manually'))
union all
select 'I3 a step was woken before its parents were satisfied', tasker_step_uuid(s.task_uuid, s.step_no)::text
  from step s join moves m on m.task_uuid = s.task_uuid and m.step_no = s.step_no
 where s.remaining_parents > 0 and (m.awakenings > 0 or s.state in ('enqueued', 'in_progress'))
union all
select 'I3 a step is ready and was not woken', tasker_step_uuid(s.task_uuid, s.step_no)::text
  from step s where s.state = 'pending' and s.remaining_parents = 0 and s.due_at is null
-- I4, I5: a task is finished once, not early, and not late.
union all
select 'I4 a task finished more than once', u.task_uuid::text from turns u where u.finishes > 1 + u.reopenings
union all
select 'I4 the generation is not the number of times the task was opened again', t.task_uuid::text
  from task t left join turns u on u.task_uuid = t.task_uuid where t.generation <> coalesce(u.reopenings, 0)
union all
select 'I4 open_sinks is not the number of open sinks', t.task_uuid::text from task t where t.open_sinks <> t.sinks
union all
select 'I4 completed_at does not tell whether the task ended', t.task_uuid::text
  from task t where (t.completed_at is null) <> (t.state in ('pending', 'in_progress'))
union all
select 'I5 a task is complete but a step is not satisfied', t.task_uuid::text from task t where t.state = 'complete' and not t.satisfied
union all
select 'I5 a task ended while a step can move', t.task_uuid::text
  from task t where t.state not in ('pending', 'in_progress') and t.moving
union all
select 'I5 a task failed without a failed step or a reason', t.task_uuid::text
  from task t where t.state = 'error' and (t.satisfied or not t.failed or t.error is null)
union all
select 'I5 nothing moves in a task and nobody finished it', t.task_uuid::text
  from task t where t.state = 'in_progress' and not t.moving and not t.by_hand
union all
select 'I5 a step of a failing task is not marked', tasker_step_uuid(s.task_uuid, s.step_no)::text
  from step s join task t on t.task_uuid = s.task_uuid
 where t.failed and t.state = 'in_progress' and not s.doomed
   and (s.state in ('enqueued', 'in_progress') or s.state = 'pending' and s.remaining_parents = 0)
union all
select 'I4 a finalization claim outlived its task', t.task_uuid::text
  from task t where t.state <> 'in_progress' and t.finalize_lease is not null
-- I7: everything has something that will wake it.
union all
select 'I7 limbo: ' || l.reason, tasker_step_uuid(l.task_uuid, l.step_no)::text from tasker_limbo l
union all
select 'I7 a dead letter is missing or there is one too many', tasker_step_uuid(s.task_uuid, s.step_no)::text
  from step s
 where (select count(*) from tasker_dead_letters d where d.kind = 'step' and d.task_uuid = s.task_uuid and d.step_no = s.step_no)
       <> (select count(*) from move m where m.task_uuid = s.task_uuid and m.step_no = s.step_no
              and m.to_state = 'error' and m.metadata ? 'reason')
union all
select 'I7 the dead letter of a step that did not stay failed is open', d.dead_letter_id::text
  from tasker_dead_letters d join step s on s.task_uuid = d.task_uuid and s.step_no = d.step_no
 where d.kind = 'step' and d.closed_at is null and s.state <> 'error'
union all
select 'I7 a step failed, its task goes on, and its dead letter is closed', tasker_step_uuid(s.task_uuid, s.step_no)::text
  from step s
 where s.state = 'error' and s.task_state = 'in_progress'
   and not exists (select from tasker_dead_letters d where d.kind = 'step' and d.task_uuid = s.task_uuid and d.step_no = s.step_no
                      and d.generation = s.generation and d.closed_at is null)
-- I9: keys and identities refer to tasks that were created, and to the right
-- ones.
union all
select 'I9 a key stands for a task that was not made', k.idempotency_key
  from tasker_idempotency_keys k where not exists (select from tasker_tasks t where t.task_uuid = k.task_uuid)
union all
select 'I9 an identity is held by a task that has another', i.task_uuid::text
  from tasker_task_identities i join tasker_tasks t on t.task_uuid = i.task_uuid where t.identity_hash <> i.identity_hash
-- I8: legal edges, histories without gaps.
union all
select 'I8 a step''s history has a gap or a break', tasker_step_uuid(m.task_uuid, m.step_no)::text
  from move m where m.sort_key <> m.place or m.from_state <> coalesce(m.came_to, 'pending')
union all
select 'I8 a step''s history does not end in its state', tasker_step_uuid(s.task_uuid, s.step_no)::text
  from step s left join moves m on m.task_uuid = s.task_uuid and m.step_no = s.step_no
 where s.sort_key <> coalesce(m.last, 1) or s.state <> coalesce(m.now, 'pending')
union all
select 'I8 a task''s history has a gap or a break', u.task_uuid::text
  from turn u where u.sort_key <> u.place or u.from_state <> coalesce(u.came_to, 'pending')
union all
select 'I8 a task''s history does not end in its state', t.task_uuid::text
  from task t left join turns u on u.task_uuid = t.task_uuid
 where t.sort_key <> coalesce(u.last, 1) or t.state <> coalesce(u.now, 'pending')
union all
select 'I8 an illegal edge of a step', tasker_step_uuid(m.task_uuid, m.step_no)::text
  from move m where not tasker_legal_step_edge(m.from_state, m.to_state)
union all
select 'I8 an illegal edge of a task', u.task_uuid::text
  from turn u where not tasker_legal_task_edge(u.from_state, u.to_state)
