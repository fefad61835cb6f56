package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// next settles a step as a success and returns the next job, or nil.
func (o outsider) next(ctx context.Context, k store.StepKey, lease vocab.UUID, output any, serves []string, lasts time.Duration) (verdict, detail string, j *job, err error) {
	return o.nextAs(ctx, "ruby-1", k, lease, output, serves, lasts)
}

func (o outsider) nextAs(ctx context.Context, worker string, k store.StepKey, lease vocab.UUID, output any, serves []string, lasts time.Duration) (verdict, detail string, j *job, err error) {
	var why, name, key *string
	var step, id, task *vocab.UUID
	var attempt *int32
	var until *time.Time
	j = &job{}
	err = o.db.QueryRow(ctx, `
select verdict, detail, step_uuid, lease_id, task_uuid, step_name, attempt, idempotency_key, context, config, dependencies, lease_until, deadline
  from tasker_worker_next($1, $2, $3, $4, $7, $5, $6)`, k.UUID(), lease, output, namespace, serves, lasts, worker).
		Scan(&verdict, &why, &step, &id, &task, &name, &attempt, &key, &j.Context, &j.Config, &j.Dependencies, &until, &j.Deadline)
	if why != nil {
		detail = *why
	}
	if err != nil || step == nil {
		return verdict, detail, nil, err
	}
	j.Step, j.ID, j.Task, j.Name, j.Attempt, j.Key, j.Until = *step, *id, *task, *name, *attempt, *key, *until
	_, number, _ := vocab.SplitStepID(j.Step)
	j.StepKey = store.StepKey{Task: j.Task, Number: int32(number)}
	return verdict, detail, j, nil
}

func (m *machine) workerNext() {
	served := m.bed.all[:rapid.IntRange(1, 2).Draw(m.T, "serves")]
	key, lease := m.workerStep()
	g := settlement(key, lease, vocab.OutcomeSuccess)
	before := m.messages()
	at := [2]time.Time{0: m.now()}
	got, _, j, err := outsider{m.bed.pool}.next(m.ctx, key, lease, string(g.Result), handlers[:len(served)], time.Hour)
	m.must(err)
	at[1] = m.now()
	want, looks := m.model.settle(g, m.policy, at)
	if store.Verdict(got) != want {
		m.Fatalf("settle %v and go on: %s, want %s", key, got, want)
	}
	if j != nil {
		l := j.Lease
		l.Plan, l.Generation = m.model.tasks[l.Task].plan.ID, int32(m.model.step(l.StepKey).generation)
		m.takeGranted([]store.Lease{l}, store.Grant{Room: 1, Served: served})
	}
	if looks {
		m.model.tasks[key.Task].conclude()
	}
	m.requireStillQueued(before)
}

// nextHunt: a worker continues with a step that someone has locked. It holds locks
// itself, so it must not wait; and the step must not be forgotten.
func nextHunt(t *testing.T, b *bed) string {
	t.Helper()
	p, w := b.mustPlan(t, fan(1)...), outsider{b.pool}
	g := b.grant(b.host(t), 0)
	b.create(t, g, p)
	jobs, err := w.claim(t.Context(), handlers, 1, time.Hour)
	require.NoError(t, err)
	task, _ := b.create(t, g, p)
	locks, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = locks.Exec(t.Context(), "select tasker_lock_movable(array[$1::uuid])", task)
	require.NoError(t, err)
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "set local lock_timeout = '3s'")
	require.NoError(t, err)
	verdict, _, j, err := outsider{tx}.next(t.Context(), jobs[0].StepKey, jobs[0].ID, "1", handlers, time.Hour)
	if err != nil {
		require.NoError(t, tx.Rollback(t.Context()))
		require.NoError(t, locks.Rollback(t.Context()))
		return err.Error()
	}
	require.NoError(t, tx.Commit(t.Context()))
	require.NoError(t, locks.Commit(t.Context()))
	if verdict != "recorded" || j != nil {
		return fmt.Sprintf("%s, and %v is run, which another holds", verdict, j)
	}
	jobs, err = w.claim(t.Context(), handlers, 9, time.Hour)
	require.NoError(t, err)
	if len(jobs) != 1 || jobs[0].Task != task {
		return fmt.Sprintf("the step that was passed by is forgotten: %v", jobs)
	}
	return oracleSays(t, b)
}

// timeoutHunt: a worker exceeds its step's timeout; heartbeats do not help.
func timeoutHunt(t *testing.T, b *bed) string {
	t.Helper()
	steps := fan(1)
	steps[0].Timeout, steps[0].Retry.MaxAttempts = time.Minute, 2
	p := b.mustPlan(t, steps...)
	task, _ := b.create(t, b.grant(b.host(t), 0), p)
	jobs, err := outsider{b.pool}.claim(t.Context(), handlers, 1, time.Hour)
	require.NoError(t, err)
	j := jobs[0]
	if j.Until.After(*j.Deadline) {
		return fmt.Sprintf("the lease lasts until %v, the timeout is at %v", j.Until, j.Deadline)
	}
	if until, look := one[time.Time](t, b, "select lease_until from tasker_workflow_steps"), one[time.Time](t, b, "select look_at from tasker_worker_leases"); !until.Equal(j.Until) || !look.Equal(j.Until) {
		return fmt.Sprintf("the worker is told %v, the step says %v, and the sweep looks at %v", j.Until, until, look)
	}
	for range 2 { // claimed together, by a different statement
		b.create(t, b.grant(b.host(t), 0), p)
	}
	both, err := outsider{b.pool}.claim(t.Context(), handlers, 2, time.Hour)
	require.NoError(t, err)
	for _, o := range both {
		until := one[time.Time](t, b, "select lease_until from tasker_workflow_steps where task_uuid = $1", o.Task)
		if o.Until.After(*o.Deadline) || !until.Equal(o.Until) {
			return fmt.Sprintf("one of two leases lasts until %v, the step says %v, and the timeout is at %v", o.Until, until, o.Deadline)
		}
		_, _, err := outsider{b.pool}.settle(t.Context(), o.StepKey, o.ID, "success", "1", nil)
		require.NoError(t, err)
	}
	b.exec(t, "update tasker_worker_leases set deadline_at = clock_timestamp() - interval '1 ms', look_at = clock_timestamp()")
	verdict, reason, err := outsider{b.pool}.heartbeat(t.Context(), j.StepKey, j.ID, nil)
	require.NoError(t, err)
	if verdict != "cancel_requested" || reason != "timeout" {
		return fmt.Sprintf("heartbeat after the timeout: %s %s", verdict, reason)
	}
	swept, err := b.store.SweepWorkerLeases(t.Context(), policy)
	require.NoError(t, err)
	attempts := one[int](t, b, "select attempts from tasker_workflow_steps where error ->> 'type' = 'TimeoutError' union all select 0 order by 1 desc limit 1")
	if swept.TimedOut != 1 || attempts != 1 || b.stepState(t, task, 0) != vocab.StepPending {
		return fmt.Sprintf("%+v, %d attempts charged, step %s", swept, attempts, b.stepState(t, task, 0))
	}
	for _, outcome := range []string{"success", "permanent"} {
		verdict, _, err := outsider{b.pool}.settle(t.Context(), j.StepKey, j.ID, outcome, nil, nil)
		require.NoError(t, err)
		if verdict != "stale_lease" {
			return fmt.Sprintf("a %s after the timeout was recorded is %s", outcome, verdict)
		}
	}
	return oracleSays(t, b)
}

// handedHunt: a worker continues with the child of its step, which has a timeout and runs
// under a lease of the worker.
func handedHunt(t *testing.T, b *bed) string {
	t.Helper()
	steps := chain(2)
	steps[1].Timeout = time.Minute
	p, w := b.mustPlan(t, steps...), outsider{b.pool}
	b.create(t, b.grant(b.host(t), 0), p)
	jobs, err := w.claim(t.Context(), handlers, 1, time.Hour)
	require.NoError(t, err)
	_, _, j, err := w.next(t.Context(), jobs[0].StepKey, jobs[0].ID, `{"n": 1.10}`, handlers, time.Hour)
	if err != nil {
		return refusedOrWrong(t, err)
	}
	if j == nil || j.Name != "step_1" || j.Attempt != 1 || j.Deadline == nil || string(j.Dependencies) != `{"step_0": {"n": 1.10}}` {
		return fmt.Sprintf("the child is %+v", j)
	}
	until, look := one[time.Time](t, b, "select lease_until from tasker_workflow_steps where step_no = 1"), one[time.Time](t, b, "select look_at from tasker_worker_leases")
	if j.Until.After(*j.Deadline) || !until.Equal(j.Until) || !look.Equal(j.Until) {
		return fmt.Sprintf("the worker is told %v of %v, the step says %v, and the sweep looks at %v", j.Until, *j.Deadline, until, look)
	}
	if by := one[string](t, b, "select coalesce(max(metadata ->> 'worker'), '') from tasker_workflow_step_transitions where step_no = 1 and to_state = 'in_progress'"); by != "ruby-1" {
		return fmt.Sprintf("its history says that %q runs it", by)
	}
	return oracleSays(t, b)
}

// tallyHunt: what workers have done is counted for the right one: while they continue,
// when another one continues in their place, and when their lease expires.
func tallyHunt(t *testing.T, b *bed) string {
	t.Helper()
	g, w := b.grant(b.host(t), 0), outsider{b.pool}
	tallies := func() string {
		return one[string](t, b, `select string_agg(concat_ws(' ', name, done, failed, released, lost), ', ' order by name) from tasker_workers`)
	}
	sweep := func() {
		t.Helper()
		b.exec(t, "update tasker_worker_leases set look_at = clock_timestamp()")
		for range 2 { // leases, then counts
			_, err := b.store.SweepWorkerLeases(t.Context(), policy)
			require.NoError(t, err)
		}
	}
	held := func(worker string, leases, done int) string {
		t.Helper()
		workers, err := b.store.Workers(t.Context())
		require.NoError(t, err)
		for _, k := range workers {
			if k.Name == worker && (int(k.Leases) != leases || int(k.Done) != done) {
				return fmt.Sprintf("%s holds %d leases and has done %d, want %d and %d", worker, k.Leases, k.Done, leases, done)
			}
		}
		return ""
	}
	first := func() (j *job) {
		t.Helper()
		jobs, err := w.claim(t.Context(), handlers, 1, time.Hour)
		require.NoError(t, err)
		require.Len(t, jobs, 1)
		return &jobs[0]
	}
	goOn := func(j *job) *job {
		t.Helper()
		_, _, next, err := w.next(t.Context(), j.StepKey, j.ID, "1", handlers, time.Hour)
		require.NoError(t, err)
		require.NotNil(t, next)
		return next
	}
	p := b.mustPlan(t, chain(5)...)
	b.create(t, g, p)
	j := goOn(goOn(first()))
	if wrong := held("ruby-1", 1, 2); wrong != "" {
		return wrong
	}
	b.create(t, g, b.mustPlan(t, fan(1)...))
	other := first()
	_, err := w.complete(t.Context(), []vocab.UUID{other.UUID(), j.UUID()}, []vocab.UUID{other.ID, j.ID}, []string{"1", "1"})
	require.NoError(t, err)
	if wrong := held("ruby-1", 0, 4); wrong != "" {
		return wrong
	}
	j = goOn(first())
	instead := func(j *job) (verdict string, next *job) {
		t.Helper()
		verdict, _, next, err := w.nextAs(t.Context(), "ruby-2", j.StepKey, j.ID, "1", handlers, time.Hour)
		require.NoError(t, err)
		return verdict, next
	}
	_, none := instead(j)
	require.Nil(t, none)

	b.create(t, g, p)
	j = goOn(first())
	_, j = instead(j)
	_, j = instead(j)
	if wrong := held("ruby-1", 0, 8) + held("ruby-2", 1, 1); wrong != "" {
		return wrong
	}
	b.exec(t, "update tasker_workflow_steps set lease_until = clock_timestamp() where state = 'in_progress'")
	sweep()
	if got, want := tallies(), "ruby-1 8 0 0 0, ruby-2 1 0 0 1"; got != want {
		return fmt.Sprintf("swept: %s, want %s", got, want)
	}
	if verdict, _ := instead(j); verdict != "stale_lease" {
		return fmt.Sprintf("after the lease had run out: %s", verdict)
	}
	return oracleSays(t, b)
}

// stopHunt: a worker continues in a namespace that was paused.
func stopHunt(t *testing.T, b *bed) string {
	t.Helper()
	w := outsider{b.pool}
	b.create(t, b.grant(b.host(t), 0), b.mustPlan(t, chain(2)...))
	jobs, err := w.claim(t.Context(), handlers, 1, time.Hour)
	require.NoError(t, err)
	_, err = b.store.PauseQueue(t.Context(), namespace, true, store.Operator{By: "test"})
	require.NoError(t, err)
	_, _, j, err := w.next(t.Context(), jobs[0].StepKey, jobs[0].ID, "1", handlers, time.Hour)
	require.NoError(t, err)
	if j != nil {
		return fmt.Sprintf("%s is run while the namespace is paused", j.Name)
	}
	return oracleSays(t, b)
}

// TestWorkerGoesOn: one call ends a step and begins the next.
func TestWorkerGoesOn(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	w := outsider{b.pool}
	g := b.grant(b.host(t), 0)
	next := func(j job, output any, serves []string) (string, string, *job) {
		t.Helper()
		verdict, detail, n, err := w.next(t.Context(), j.StepKey, j.ID, output, serves, time.Minute)
		require.NoError(t, err)
		return verdict, detail, n
	}
	first, _ := b.create(t, g, b.mustPlan(t, chain(2)...))
	second, _ := b.create(t, g, b.mustPlan(t, fan(1)...))
	jobs, err := w.claim(t.Context(), handlers, 1, time.Minute)
	require.NoError(t, err)
	require.Equal(t, first, jobs[0].Task)

	verdict, detail, j := next(jobs[0], "{", handlers)
	require.Equal(t, "invalid", verdict)
	require.Contains(t, detail, "output is not JSON")
	require.Nil(t, j, "there is one to settle first")
	verdict, _, j = next(jobs[0], nil, handlers)
	require.Equal(t, "recorded", verdict)
	require.Equal(t, first, j.Task, "the step that it made ready comes first")
	require.JSONEq(t, `{"step_0": null}`, string(j.Dependencies))
	child := *j
	verdict, _, j = next(child, "1", handlers)
	require.Equal(t, "recorded", verdict)
	require.Equal(t, second, j.Task, "then the queue")
	verdict, detail, none := next(child, "1", handlers)
	require.Equal(t, "already_recorded", verdict)
	require.Empty(t, detail)
	require.Nil(t, none)
	other := *j
	other.ID = randomUUID()
	verdict, detail, none = next(other, "1", handlers)
	require.Equal(t, "stale_lease", verdict)
	require.Contains(t, detail, "no longer")
	require.Nil(t, none)

	third, _ := b.create(t, g, b.mustPlan(t, fan(1)...))
	verdict, _, last := next(job{Lease: store.Lease{StepKey: store.StepKey{Task: taskUUID()}, ID: randomUUID()}}, "1", handlers)
	require.Equal(t, "unknown", verdict)
	require.Equal(t, third, last.Task)

	b.create(t, g, b.mustPlan(t, chain(2)...))
	_, err = b.store.PauseQueue(t.Context(), namespace, true, store.Operator{By: "test"})
	require.NoError(t, err)
	verdict, _, none = next(*j, "1", handlers)
	require.Equal(t, "recorded", verdict)
	require.Nil(t, none, "the namespace is paused")
	_, err = b.store.PauseQueue(t.Context(), namespace, false, store.Operator{By: "test"})
	require.NoError(t, err)
	verdict, _, j = next(*last, "1", handlers)
	require.Equal(t, "recorded", verdict)
	require.Equal(t, "step_0", j.Name)
	verdict, _, none = next(*j, "1", []string{"lab.gamma"})
	require.Equal(t, "recorded", verdict)
	require.Nil(t, none, "the child is for others")
	require.Equal(t, vocab.StepEnqueued, b.stepState(t, j.Task, 1))

	_, err = b.store.SweepWorkerLeases(t.Context(), policy)
	require.NoError(t, err)
	require.Equal(t, 5, one[int](t, b, "select sum(done)::integer from tasker_workers"))
	require.Zero(t, one[int](t, b, "select count(*) from tasker_worker_leases"))
	b.requireSound(t)
}

// TestWorkerGoesOnWide: a step with many children is settled in a different way, and the
// worker continues with one of them nevertheless.
func TestWorkerGoesOnWide(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	const width = 20
	steps := []workflow.Step{step("root", nil, nil)}
	for i := range int32(width) {
		steps[0].Children = append(steps[0].Children, i+1)
		steps = append(steps, step(fmt.Sprintf("leaf_%d", i), []int32{0}, nil))
	}
	task, _ := b.create(t, b.grant(b.host(t), 0), b.mustPlan(t, steps...))
	w := outsider{b.pool}
	jobs, err := w.claim(t.Context(), handlers, 1, time.Minute)
	require.NoError(t, err)
	for j := &jobs[0]; j != nil; {
		var verdict string
		verdict, _, j, err = w.next(t.Context(), j.StepKey, j.ID, "1", handlers, time.Minute)
		require.NoError(t, err)
		require.Equal(t, "recorded", verdict)
	}
	require.Equal(t, width+1, one[int](t, b, "select count(*) from tasker_workflow_steps where state = 'complete'"))
	require.Equal(t, "complete", one[string](t, b, "select state::text from tasker_tasks where task_uuid = $1", task))
	b.requireSound(t)
}

// TestWorkersBesideTheSweep: a worker's call and a sweep that looks at the same lease and
// counts for the same worker do not deadlock.
func TestWorkersBesideTheSweep(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(ctx context.Context, w outsider, j job) error{
		"heartbeat": func(ctx context.Context, w outsider, j job) error {
			_, _, err := w.heartbeat(ctx, j.StepKey, j.ID, `{"done": 1}`)
			return err
		},
		"exchange": func(ctx context.Context, w outsider, j job) error {
			_, _, err := w.exchange(ctx, in([]job{j}), handlers, 9, time.Hour)
			return err
		},
		"next": func(ctx context.Context, w outsider, j job) error {
			_, _, _, err := w.next(ctx, j.StepKey, j.ID, "1", handlers, time.Hour)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			_, j := b.workersStep(t)
			b.exec(t, "insert into tasker_worker_counts (worker_id, outcome, steps) select worker_id, 'success', 1 from tasker_workers")
			b.exec(t, "update tasker_workers set last_seen_at = clock_timestamp() - interval '1 h'")
			sweep, err := b.pool.Begin(t.Context())
			require.NoError(t, err)
			defer func() { _ = sweep.Rollback(context.WithoutCancel(t.Context())) }()
			_, err = sweep.Exec(t.Context(), "update tasker_worker_leases set look_at = look_at where lease_id = $1", j.ID) // the sweep up to the point where it counts
			require.NoError(t, err)
			called := make(chan error, 1)
			go func() { called <- call(t.Context(), outsider{b.pool}, j) }()
			require.Eventually(t, func() bool {
				return one[int](t, b, "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'") == 1
			}, time.Minute, time.Millisecond, "the call waits for the lease")
			_, err = sweep.Exec(t.Context(), "select tasker_sweep_worker_counts(100)")
			require.NoError(t, err)
			require.NoError(t, sweep.Commit(t.Context()))
			require.NoError(t, <-called)
			require.Equal(t, 1, one[int](t, b, "select done::integer from tasker_workers"))
		})
	}
}
