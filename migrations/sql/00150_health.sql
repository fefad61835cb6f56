-- Finalization claims that take longer than they should. Such a claim loses
-- nothing: it ends by itself, and the sweep finds the task. Many of them, or old
-- ones, show that whoever claims is slow or gone.

-- +goose Up

-- Claims are few, and the index holds no other rows. Its column changes only with
-- a claim, so updates of other columns stay heap-only.
create index tasker_tasks_claimed on tasker_tasks (finalize_until) where finalize_lease is not null;

-- For asking whether a processor still claims other tasks.
create index on tasker_finalization_attempts (processor_id, attempted_at);

-- One row per claim that is older than expected, which is two fifths of its timeout.
-- The levels begin at 1, 1.5 and 2 times that, and at the end of the claim.
create view tasker_stale_claims as
select c.task_uuid, c.claimed_by, c.claimed_at, c.priority,
       extract(epoch from c.age)::double precision                            as claim_age_seconds,
       extract(epoch from c.timeout)::double precision                        as claim_timeout_seconds,
       extract(epoch from c.expected)::double precision                       as expected_duration_seconds,
       greatest(extract(epoch from c.timeout - c.age), 0)::double precision   as seconds_until_timeout,
       case when c.age > c.timeout then 'expired'
            when c.age > 2 * c.expected then 'critical'
            when c.age > 1.5 * c.expected then 'warning'
            else 'slow' end                                                   as staleness_level,
       case when exists (select from tasker_finalization_attempts a
                          where a.processor_id = c.claimed_by and a.task_uuid <> c.task_uuid
                            and a.attempted_at > clock_timestamp() - interval '5 minutes') then 'active'
            when c.age > interval '5 minutes' then 'missing'
            else 'unknown' end                                                as processor_status,
       case when c.age > c.timeout then 'the claim has run out: the next sweep looks at the task again'
            when c.age > interval '2 minutes' then 'whoever claimed it may be gone'
            else null end                                                     as diagnostic_hint
  from (select t.task_uuid, t.finalize_by as claimed_by, t.priority, a.attempted_at as claimed_at,
               clock_timestamp() - a.attempted_at as age,
               t.finalize_until - a.attempted_at as timeout,
               0.4 * (t.finalize_until - a.attempted_at) as expected
          from tasker_tasks t
          join lateral (select x.attempted_at from tasker_finalization_attempts x
                         where x.task_uuid = t.task_uuid and x.lease_id = t.finalize_lease
                         order by x.attempted_at desc limit 1) a on true
         where t.finalize_lease is not null) c
 where c.age > c.expected;

-- The same, summed up in one row. The score falls by 20 for each expired claim, 15
-- for each missing processor, 10 for each critical claim and 5 for each warning.
create view tasker_claim_health_summary as
select s.expired, s.critical, s.warning, s.slow, s.missing, s.oldest_claim_age_seconds, s.average_claim_age_seconds,
       greatest(100 - 20 * s.expired - 10 * s.critical - 5 * s.warning - 15 * s.missing, 0)::integer as health_score,
       case when s.expired > 0 or s.missing > 0 then 'critical'
            when s.critical > 0 then 'warning'
            when s.warning > 2 then 'notice'
            else 'healthy' end as alert_level
  from (select count(*) filter (where c.staleness_level = 'expired')                        as expired,
               count(*) filter (where c.staleness_level = 'critical')                       as critical,
               count(*) filter (where c.staleness_level = 'warning')                        as warning,
               count(*) filter (where c.staleness_level = 'slow')                           as slow,
               count(distinct c.claimed_by) filter (where c.processor_status = 'missing')   as missing,
               coalesce(max(c.claim_age_seconds), 0)                                        as oldest_claim_age_seconds,
               coalesce(avg(c.claim_age_seconds), 0)                                        as average_claim_age_seconds
          from tasker_stale_claims c) s;

-- +goose Down
drop view tasker_claim_health_summary;
drop view tasker_stale_claims;
drop index tasker_tasks_claimed;
drop index tasker_finalization_attempts_processor_id_attempted_at_idx;
