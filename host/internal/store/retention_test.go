package store_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

const day = 24 * time.Hour

// past inserts n tasks of two steps that were created the given time ago and ended soon
// after, as rows, since the engine cannot create old tasks.
func (b *bed) past(t testing.TB, p *store.Plan, ago time.Duration, n int) {
	t.Helper()
	b.exec(t, "select tasker_ensure_partitions(clock_timestamp() - $1::interval, 2)", ago)
	b.exec(t, `
with made as (
  insert into tasker_tasks (task_uuid, plan_id, namespace_id, open_sinks, total_steps, sort_key, state, created_at, started_at, completed_at, context, identity_hash)
  select (left(u.id, 13) || '-7' || substr(md5(n::text || random()::text), 1, 3) || '-8' || substr(md5(n::text || random()::text), 1, 3)
          || '-' || substr(md5(n::text || random()::text), 1, 7) || '00000')::uuid,
         $1, p.namespace_id, 0, 2, 3, 'complete', m.at, m.at, m.at + interval '1 minute', '{}', '\x00'
    from generate_series(1, $3::integer) n
    join tasker_task_plans p on p.plan_id = $1
   cross join lateral (select clock_timestamp() - $2::interval + n * interval '10 ms' as at) m
   cross join lateral (select tasker_uuid_floor(m.at)::text as id) u
  returning task_uuid, created_at
), stepped as (
  insert into tasker_workflow_steps (task_uuid, step_no, plan_id, remaining_parents, sort_key, state, updated_at, attempts, claims)
  select m.task_uuid, s.n, $1, 0, 3, 'complete', m.created_at, 1, 1 from made m cross join generate_series(0, 1) s(n)
), logged as (
  insert into tasker_workflow_step_transitions (task_uuid, step_no, sort_key, from_state, to_state, created_at)
  select m.task_uuid, s.n, x.n, case x.n when 2 then 'pending' else 'in_progress' end::tasker_step_state,
         case x.n when 2 then 'in_progress' else 'complete' end::tasker_step_state, m.created_at
    from made m cross join generate_series(0, 1) s(n) cross join generate_series(2, 3) x(n)
)
insert into tasker_task_transitions (task_uuid, sort_key, from_state, to_state, created_at)
select m.task_uuid, x.n, case x.n when 2 then 'pending' else 'in_progress' end::tasker_task_state,
       case x.n when 2 then 'in_progress' else 'complete' end::tasker_task_state, m.created_at
  from made m cross join generate_series(2, 3) x(n)`, p.ID, ago, n)
}

// retain does what a host does in its turns, until nothing is left to do.
func retain(ctx context.Context, s *store.Store, r store.Retention) (dropped, pruned int, err error) {
	days, err := s.OldDays(ctx, r)
	if err != nil {
		return 0, 0, err
	}
	for _, d := range days {
		over, err := s.DayIsOver(ctx, d, r)
		if err != nil {
			return dropped, pruned, err
		}
		for after := (&vocab.UUID{}); !over && after != nil; {
			var n int
			if n, after, err = s.PruneTasks(ctx, &d, *after, r); err != nil {
				return dropped, pruned, err
			}
			pruned += n
		}
		if !over {
			continue
		}
		for tables := 0; tables < 4; {
			n, err := s.DropDay(ctx, d, 250*time.Millisecond, r)
			tables += n
			dropped += n
			if err != nil && store.Classify(err) != store.Retry {
				return dropped, pruned, err
			}
			if n == 0 && err == nil {
				return dropped, pruned, fmt.Errorf("day %v is over and was not dropped", d)
			}
		}
	}
	return dropped, pruned, nil
}

func (b *bed) partitions(t testing.TB, ago time.Duration) int {
	t.Helper()
	return one[int](t, b, `select count(*) from pg_class where relkind = 'r' and relname ~ ('_' || to_char(clock_timestamp() at time zone 'UTC' - $1::interval, 'YYYYMMDD') || '$')`, ago)
}

// Days are dropped as a whole; tasks that have not ended, or that their namespace keeps
// longer, stay with everything that belongs to them, and everything else of the same day
// is removed.
func TestRetention(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.mustPlan(t, chain(2)...)
	for _, ago := range []time.Duration{50 * day, 45 * day, 40 * day, 10 * day} {
		b.past(t, p, ago, 600)
	}
	for _, table := range []string{"tasker_tasks", "tasker_workflow_steps"} {
		b.exec(t, "alter table "+table+" disable trigger legal_edge") // so that the test can construct the past
	}
	open := one[vocab.UUID](t, b, `
update tasker_tasks t set state = 'in_progress', completed_at = null, open_sinks = 1
 where t.task_uuid = (select min(x.task_uuid::text)::uuid from tasker_tasks x where x.task_uuid >= tasker_uuid_floor(clock_timestamp() - interval '45 days'))
returning task_uuid`)
	b.exec(t, "update tasker_workflow_steps set state = 'enqueued', attempts = 0, lease_id = null where task_uuid = $1 and step_no = 1", open)
	recent := one[vocab.UUID](t, b, `
update tasker_tasks t set completed_at = clock_timestamp() - interval '1 day'
 where t.task_uuid = (select max(x.task_uuid::text)::uuid from tasker_tasks x where x.task_uuid < tasker_uuid_floor(clock_timestamp() - interval '39 days'))
returning task_uuid`)

	keep := store.Retention{Tasks: 30 * day}
	forever := store.Retention{Tasks: 30 * day, Namespaces: map[string]time.Duration{namespace: 0}}
	dropped, pruned, err := retain(t.Context(), b.store, forever)
	require.NoError(t, err)
	require.Zero(t, dropped+pruned, "a namespace that keeps its tasks for ever")
	dropped, pruned, err = retain(t.Context(), b.store, store.Retention{Tasks: day, Namespaces: map[string]time.Duration{namespace: 60 * day}})
	require.NoError(t, err)
	require.Zero(t, pruned, "a namespace that keeps its tasks for longer than the others")
	require.Zero(t, dropped)

	dropped, pruned, err = retain(t.Context(), b.store, keep)
	require.NoError(t, err)
	require.Zero(t, b.partitions(t, 50*day))
	require.GreaterOrEqual(t, dropped, 4)
	require.Equal(t, 599+599, pruned)
	require.Equal(t, 600+2, one[int](t, b, "select count(*) from tasker_tasks"))
	for _, id := range []vocab.UUID{open, recent} {
		require.Equal(t, "2 4 2", one[string](t, b, `
select concat_ws(' ', (select count(*) from tasker_workflow_steps where task_uuid = $1),
       (select count(*) from tasker_workflow_step_transitions where task_uuid = $1), (select count(*) from tasker_task_transitions where task_uuid = $1))`, id))
	}
	require.Zero(t, one[int](t, b, `select count(*) from tasker_workflow_steps s where not exists (select from tasker_tasks t where t.task_uuid = s.task_uuid)`))

	// The open task ends; in time, its day is dropped with it.
	b.exec(t, "update tasker_workflow_steps set state = 'complete' where task_uuid = $1 and step_no = 1", open)
	b.exec(t, "update tasker_tasks set state = 'complete', open_sinks = 0, completed_at = clock_timestamp() - interval '31 days' where task_uuid = $1", open)
	_, _, err = retain(t.Context(), b.store, keep)
	require.NoError(t, err)
	require.Zero(t, b.partitions(t, 45*day))
	require.Equal(t, 4, b.partitions(t, 40*day))
	require.Equal(t, 4, b.partitions(t, 10*day))
}

// A day is not dropped if one of its tasks was restarted after the check, and the drop
// waits no longer than allowed for other users of the table.
func TestRetentionGivesWay(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.mustPlan(t, chain(2)...)
	b.past(t, p, 40*day, 10)
	keep := store.Retention{Tasks: 30 * day}
	days, err := b.store.OldDays(t.Context(), keep)
	require.NoError(t, err)
	require.NotEmpty(t, days)
	at := slices.IndexFunc(days, func(d time.Time) bool {
		return d.Format(time.DateOnly) == time.Now().UTC().Add(-40*day).Format(time.DateOnly)
	})
	over, err := b.store.DayIsOver(t.Context(), days[at], keep)
	require.NoError(t, err)
	require.True(t, over)

	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "select count(*) from tasker_tasks")
	require.NoError(t, err)
	began := time.Now()
	_, err = b.store.DropDay(t.Context(), days[at], 100*time.Millisecond, keep)
	require.Equal(t, store.Retry, store.Classify(err), err)
	require.Less(t, time.Since(began), time.Minute)
	require.NoError(t, tx.Rollback(t.Context()))

	b.exec(t, "alter table tasker_tasks disable trigger legal_edge")
	b.exec(t, "update tasker_tasks set state = 'pending', completed_at = null where task_uuid = (select min(task_uuid::text)::uuid from tasker_tasks)")
	n, err := b.store.DropDay(t.Context(), days[at], time.Second, keep)
	require.NoError(t, err)
	require.Zero(t, n)
	require.Equal(t, 10, one[int](t, b, "select count(*) from tasker_tasks"))
	require.Equal(t, 20, one[int](t, b, "select count(*) from tasker_workflow_steps"))
}

// A task that an operator has changed between the last check of its day and the drop
// keeps the day, whether it is running again or has ended again: its retention time
// begins with its new end.
func TestOperatorsOvertakeRetention(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(t *testing.T, b *bed, task vocab.UUID) error{
		"retried": func(t *testing.T, b *bed, task vocab.UUID) error {
			r, err := b.store.RetryTask(t.Context(), task, store.Operator{}, 0)
			require.Len(t, r.Steps, 1)
			return err
		},
		"resolved": func(t *testing.T, b *bed, task vocab.UUID) error {
			_, done, err := b.store.ResolveTask(t.Context(), task, store.Operator{}, 0)
			require.True(t, done)
			return err
		},
		"cancelled": func(t *testing.T, b *bed, task vocab.UUID) error {
			_, done, err := b.store.CancelTask(t.Context(), task, store.Operator{}, 0)
			require.True(t, done)
			return err
		},
		"its step resolved, and so complete": func(t *testing.T, b *bed, task vocab.UUID) error {
			_, err := b.store.ResolveStep(t.Context(), store.StepKey{Task: task, Number: 1}, []byte("1"), store.Operator{}, 0)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			p := b.mustPlan(t, chain(2)...)
			b.past(t, p, 40*day, 10)
			keep := store.Retention{Tasks: 30 * day}
			when := time.Now().UTC().Add(-40 * day).Truncate(day)
			task := one[vocab.UUID](t, b, "select min(task_uuid::text)::uuid from tasker_tasks")
			for _, table := range []string{"tasker_tasks", "tasker_workflow_steps"} {
				b.exec(t, "alter table "+table+" disable trigger legal_edge")
			}
			b.exec(t, "update tasker_tasks set state = 'error', open_sinks = 1 where task_uuid = $1", task)
			b.exec(t, "update tasker_workflow_steps set state = 'error' where task_uuid = $1 and step_no = 1", task)
			for _, table := range []string{"tasker_tasks", "tasker_workflow_steps"} {
				b.exec(t, "alter table "+table+" enable trigger legal_edge")
			}
			over, err := b.store.DayIsOver(t.Context(), when, keep)
			require.NoError(t, err)
			require.True(t, over)
			require.NoError(t, change(t, b, task))

			n, err := b.store.DropDay(t.Context(), when, time.Second, keep)
			require.NoError(t, err)
			require.Zero(t, n, "the day is kept")
			var pruned int
			for after := (&vocab.UUID{}); after != nil; {
				var some int
				some, after, err = b.store.PruneTasks(t.Context(), &when, *after, keep)
				require.NoError(t, err)
				pruned += some
			}
			require.Equal(t, 9, pruned, "the others go")
			require.Equal(t, task, one[vocab.UUID](t, b, "select task_uuid from tasker_tasks"))
			require.Equal(t, 2, one[int](t, b, "select count(*) from tasker_workflow_steps"))

			// When it has exceeded its retention time again, it is removed with its day
			// and the note of it.
			b.exec(t, "alter table tasker_tasks disable trigger legal_edge")
			b.exec(t, "update tasker_tasks set state = 'cancelled', completed_at = clock_timestamp() - interval '31 days'")
			n, err = b.store.DropDay(t.Context(), when, time.Second, keep)
			require.NoError(t, err)
			require.Equal(t, 4, n)
			require.Zero(t, one[int](t, b, "select count(*) from tasker_reopened_tasks"))
		})
	}
}

// Audit entries are removed after their retention time, but none younger than 30 days can
// be removed.
func TestRetentionOfTheAudit(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.exec(t, `insert into tasker_audit (recorded_at, actor, action, subject, request_id, address, outcome, status)
	           select clock_timestamp() - n * interval '10 days', 'a', 'b', 'c', 'd', 'e', 'done', 200 from generate_series(600, 1, -1) n`)
	prune := func(r store.Retention) (all int) {
		for n := 1; n > 0; {
			var err error
			n, err = b.store.PruneRecords(t.Context(), r)
			require.NoError(t, err)
			all += n
		}
		return all
	}
	require.Zero(t, prune(store.Retention{}), "for ever")
	require.Equal(t, 564, prune(store.Retention{Audit: 365 * day}))
	require.Equal(t, 34, prune(store.Retention{Audit: time.Hour}), "30 days at least")
	require.Equal(t, 2, one[int](t, b, "select count(*) from tasker_audit"))
}

// The archive of an inbox that hosts no longer read is pruned like the others.
func TestRetentionOfFormerInboxes(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for _, q := range []string{"former_requests", "somebody_elses"} {
		if q == "former_requests" {
			require.NoError(t, b.store.CreateQueue(t.Context(), q))
			require.NoError(t, b.store.CreateQueue(t.Context(), q))
		} else {
			b.exec(t, "select pgmq.create($1)", q)
		}
		b.exec(t, `select pgmq.send($1, '{}') from generate_series(1, 3)`, q)
		b.exec(t, `select pgmq.archive($1, msg_id) from pgmq.q_`+q, q)
		b.exec(t, `update pgmq.a_`+q+` set archived_at = clock_timestamp() - interval '40 days' where msg_id <> 1`)
	}
	n, err := b.store.PruneRecords(t.Context(), store.Retention{Records: 30 * day})
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.Equal(t, 1, one[int](t, b, "select count(*) from pgmq.a_former_requests"))
	require.Equal(t, 3, one[int](t, b, "select count(*) from pgmq.a_somebody_elses"), "other tables are left alone")
}

// Other records are removed after their retention time, a bounded number at a time.
func TestRetentionOfRecords(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.mustPlan(t, fan(1)...)
	host := b.host(t)
	batch := []store.NewTask{newTask(p), newTask(p)}
	batch[0].Key, batch[0].KeyHash = "kept", []byte("h")
	_, err := b.store.CreateTasks(t.Context(), b.grant(host, 0), batch, "")
	require.NoError(t, err)
	b.exec(t, "update tasker_idempotency_keys set created_at = clock_timestamp() - interval '40 days'")
	b.exec(t, `insert into tasker_idempotency_keys (namespace_id, idempotency_key, task_uuid, request_hash, created_at)
	           select min(namespace_id), 'key ' || n, tasker_uuid_floor(clock_timestamp() - interval '40 days'), '\x00', clock_timestamp() - interval '40 days'
	             from tasker_task_namespaces cross join generate_series(1, 700) n group by n`)
	b.exec(t, `insert into tasker_dead_letters (kind, reason, created_at) select 'message', 'malformed', clock_timestamp() - n * interval '60 days' from generate_series(0, 2) n`)
	b.exec(t, `select pgmq.send($1, '{}') from generate_series(1, 3)`, queue)
	b.exec(t, `select pgmq.archive($1, msg_id) from pgmq.q_`+queue, queue)
	b.exec(t, `update pgmq.a_`+queue+` set archived_at = clock_timestamp() - interval '40 days' where msg_id % 2 = 0`)
	old := one[int](t, b, `select count(*) from pgmq.a_`+queue+` where msg_id % 2 = 0`)
	b.exec(t, `insert into tasker_finalization_attempts (task_uuid, processor_id, claimed, task_state, message, attempted_at)
	           select tasker_uuid_floor(clock_timestamp() - n * interval '1 day'), 'p', false, 'processing', '', clock_timestamp() - (50 - n) * interval '1 day'
	             from generate_series(1, 49) n cross join generate_series(1, 30)`) // of the oldest task the youngest
	gone := b.host(t)
	b.exec(t, "update tasker_hosts set state = 'dead', alive_until = clock_timestamp() - interval '40 days', swept_at = clock_timestamp() - interval '40 days' where host_id = $1", gone)
	keep := store.Retention{Keys: 30 * day, DeadLetters: 90 * day, Records: 30 * day}
	var removed, turns int
	for n := 1; n > 0; turns++ {
		n, err = b.store.PruneRecords(t.Context(), keep)
		require.NoError(t, err)
		removed += n
	}
	require.Equal(t, 700+1+old+1+20*30, removed)
	require.GreaterOrEqual(t, turns, 3) // 500 keys at a time
	require.Equal(t, "kept", one[string](t, b, "select idempotency_key from tasker_idempotency_keys"))
	require.Equal(t, 2, one[int](t, b, "select count(*) from tasker_dead_letters"))
	require.Equal(t, 1, one[int](t, b, "select count(*) from tasker_hosts"))
}

// Keys and identities of tasks that never end do not keep later ones whose tasks are
// gone.
func TestRetentionOfKeysBehindThoseThatStay(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.mustPlan(t, fan(1)...)
	host := b.host(t)
	batch := make([]store.NewTask, 1200) // more than two pages
	for i := range batch {
		id := randomUUID()
		batch[i] = newTask(p)
		batch[i].Key, batch[i].KeyHash, batch[i].Unique, batch[i].Identity = id.String(), []byte("h"), "reject", id[:]
		binary.BigEndian.PutUint16(batch[i].UUID[:], 0x0100) // from long ago
	}
	_, err := b.store.CreateTasks(t.Context(), b.grant(host, 0), batch, "")
	require.NoError(t, err)
	b.exec(t, "update tasker_idempotency_keys set created_at = clock_timestamp() - interval '40 days'")
	b.exec(t, `with gone as (select tasker_uuid_floor(clock_timestamp() - interval '39 days') as task_uuid, (select min(namespace_id) from tasker_idempotency_keys) as ns)
	           , keys as (insert into tasker_idempotency_keys (namespace_id, idempotency_key, task_uuid, request_hash, created_at)
	                      select g.ns, 'key ' || n, g.task_uuid, 'h', clock_timestamp() - interval '39 days' from gone g, generate_series(1, 3) n)
	           insert into tasker_task_identities (identity_hash, namespace_id, task_uuid) select convert_to('identity ' || n, 'utf8'), g.ns, g.task_uuid from gone g, generate_series(1, 2) n`)
	removed := 0
	for range 4 {
		n, err := b.store.PruneRecords(t.Context(), store.Retention{Keys: 30 * day})
		require.NoError(t, err)
		removed += n
	}
	require.Equal(t, 3+2, removed)
	require.Equal(t, 1200, one[int](t, b, "select count(*) from tasker_idempotency_keys"))
	require.Equal(t, 1200, one[int](t, b, "select count(*) from tasker_task_identities"))
}

// A worker that has not been seen for long and comes back at the moment when it is
// removed keeps its lease, and loses it when that expires.
func TestAWorkerThatComesBackWhileItIsRemoved(t *testing.T) {
	t.Parallel()
	for first, workers := range map[string]int{"the worker": 1, "retention": 0} {
		t.Run(first, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			p := b.mustPlan(t, fan(1)...)
			task, _ := b.create(t, b.grant(b.host(t), 0), p)
			b.exec(t, `insert into tasker_workers (namespace, name, first_seen_at, last_seen_at)
			           select $1, 'monthly', x.old, x.old from (select clock_timestamp() - interval '40 days' as old) x`, namespace)
			claim := func(db interface {
				QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
			},
			) (lease vocab.UUID) {
				require.NoError(t, db.QueryRow(t.Context(), "select lease_id from tasker_worker_claim($1, 'monthly', $2)", namespace, handlers).Scan(&lease))
				return lease
			}
			var lease vocab.UUID
			tx := b.begin(t)
			if first == "retention" {
				_, err := tx.Exec(t.Context(), "select tasker_prune_records(500, null, null, '30 days', null)")
				require.NoError(t, err)
				lease = claim(b.pool)
				require.NoError(t, tx.Commit(t.Context()))
			} else {
				lease = claim(tx)
				require.NoError(t, blocked(t, b, tx, func(ctx context.Context) error {
					_, err := b.store.PruneRecords(ctx, store.Retention{Records: 30 * day})
					return err
				}))
			}
			require.Equal(t, workers, one[int](t, b, "select count(*) from tasker_workers"))
			require.Equal(t, "ok", one[string](t, b, "select verdict from tasker_worker_heartbeat($1, $2)", vocab.StepID(task, 0), lease))
			b.exec(t, "update tasker_workflow_steps set lease_until = clock_timestamp() - interval '1 s' where lease_id = $1", lease)
			b.exec(t, "update tasker_worker_leases set look_at = clock_timestamp() - interval '1 s'")
			swept, err := b.store.SweepWorkerLeases(t.Context(), policy)
			require.NoError(t, err)
			require.Equal(t, 1, swept.Released)
			b.requireSound(t)
		})
	}
}

// One host at a time, and another one when the first is gone.
func TestDuties(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	take := func(host int32, lease time.Duration) bool {
		mine, err := b.store.TakeDuty(t.Context(), "retention", host, lease)
		require.NoError(t, err)
		return mine
	}
	require.True(t, take(1, time.Hour))
	require.False(t, take(2, time.Hour))
	require.True(t, take(1, 0))
	require.True(t, take(2, time.Hour))
	require.False(t, take(1, time.Hour))
}

// Old tasks are removed while others work: what that costs them.
func TestRetentionUnderLoad(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.mustPlan(t, chain(2)...)
	b.past(t, p, 41*day, retainedTasks) // a day that is dropped as a whole
	b.past(t, p, 39*day, retainedTasks/4)
	b.exec(t, `update tasker_tasks set completed_at = clock_timestamp()
	            where task_uuid = (select max(task_uuid::text)::uuid from tasker_tasks)`) // … and one that does not
	b.exec(t, "analyze")

	idle, calls := b.load(t, p, func() { <-time.After(retentionBaseline) })
	var dropped, pruned int
	var took time.Duration
	busy, more := b.load(t, p, func() {
		began := time.Now()
		var err error
		dropped, pruned, err = retain(t.Context(), b.store, store.Retention{Tasks: 30 * day})
		took = time.Since(began)
		require.NoError(t, err)
	})
	rows := 9 * (retainedTasks + retainedTasks/4)
	t.Logf("%d rows went in %v (%d partitions dropped, %d tasks deleted)", rows, took.Round(time.Millisecond), dropped, pruned)
	t.Logf("load without: %s", describe(idle, calls, retentionBaseline))
	t.Logf("load beside:  %s", describe(busy, more, took))
	require.GreaterOrEqual(t, dropped, 4)
	require.Equal(t, retainedTasks/4-1, pruned)
	require.Less(t, busy[len(busy)-1], time.Minute, "someone waited for a long time")
}

// load lets two hosts create and settle tasks while do runs. It returns how long each
// round took, sorted, and how many there were.
func (b *bed) load(t *testing.T, p *store.Plan, do func()) ([]time.Duration, int) {
	t.Helper()
	var mu sync.Mutex
	var rounds []time.Duration
	ctx, cancel := context.WithCancel(t.Context())
	var hosts sync.WaitGroup
	for range 2 {
		g := b.grant(b.host(t), 2)
		hosts.Go(func() {
			for more := true; more; more = ctx.Err() == nil { // at least one, however late it begins
				began := time.Now()
				_, leases := b.create(t, g, p)
				for len(leases) > 0 {
					leases = b.settle(t, g, vocab.OutcomeSuccess, leases...).Leases
				}
				mu.Lock()
				rounds = append(rounds, time.Since(began))
				mu.Unlock()
			}
		})
	}
	do()
	cancel()
	hosts.Wait()
	slices.Sort(rounds)
	return rounds, len(rounds)
}

func describe(rounds []time.Duration, n int, took time.Duration) string {
	at := func(q float64) time.Duration { return rounds[int(q*float64(n-1))].Round(100 * time.Microsecond) }
	return fmt.Sprintf("%.0f tasks/s, a task of two steps p50 %v, p99 %v, slowest %v", float64(n)/took.Seconds(), at(0.5), at(0.99), at(1))
}

// TestPartitionsThatAreNotThere: this is noticed before tasks go to the wrong place.
func TestPartitionsThatAreNotThere(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	require.NoError(t, b.store.EnsurePartitions(t.Context(), 3, time.Minute))
	f, err := b.store.Partitions(t.Context(), 10)
	require.NoError(t, err)
	require.Equal(t, store.PartitionFacts{}, f)
	b.exec(t, `do $$ begin execute 'drop table tasker_tasks_' || to_char(clock_timestamp() at time zone 'UTC', 'YYYYMMDD'); end $$`)
	b.exec(t, "select tasker_ensure_partitions(clock_timestamp(), 1, 'tasker_tasks')") // but not tomorrow's
	f, err = b.store.Partitions(t.Context(), 10)
	require.NoError(t, err)
	require.Equal(t, 1, f.Missing)
}
