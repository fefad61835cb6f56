package store_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// hands are steps that a worker hands in, each with its outcome.
type hands struct {
	steps, leases []vocab.UUID
	outputs       []string
}

func (h *hands) add(j job, output string) {
	h.steps, h.leases, h.outputs = append(h.steps, j.UUID()), append(h.leases, j.ID), append(h.outputs, output)
}

// in hands in jobs that all have the same outcome.
func in(jobs []job) (h hands) {
	for _, j := range jobs {
		h.add(j, "1")
	}
	return h
}

// exchange records successes and returns the answer for each, and the next jobs.
func (o outsider) exchange(ctx context.Context, h hands, serves []string, most int, lasts time.Duration) (said []answer, jobs []job, err error) {
	rows, err := o.db.Query(ctx, `
select verdict, coalesce(detail, ''), verdict_on, step_uuid, lease_id, task_uuid, step_name, attempt, idempotency_key, context, config, dependencies, lease_until, deadline
  from tasker_worker_exchange(coalesce($1::uuid[], '{}'), coalesce($2::uuid[], '{}'), coalesce($3::text[], '{}'), $4, 'ruby-1', $5, $6, $7)`,
		h.steps, h.leases, h.outputs, namespace, serves, most, lasts)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	for n := 0; rows.Next(); n++ {
		var verdict, name, key *string
		var detail string
		var on, step, id, task *vocab.UUID
		var attempt *int32
		var until *time.Time
		var j job
		err := rows.Scan(&verdict, &detail, &on, &step, &id, &task, &name, &attempt, &key, &j.Context, &j.Config, &j.Dependencies, &until, &j.Deadline)
		if err != nil {
			return nil, nil, err
		}
		if verdict != nil {
			if len(said) != n || *on != h.steps[n] {
				return nil, nil, fmt.Errorf("row %d is about %s", n, *on)
			}
			said = append(said, answer{on.String(), *verdict, detail})
		}
		if step == nil {
			continue
		}
		if len(jobs) != n {
			return nil, nil, fmt.Errorf("row %d has a step, the one before has not", n)
		}
		j.Step, j.ID, j.Task, j.Name, j.Attempt, j.Key, j.Until = *step, *id, *task, *name, *attempt, *key, *until
		_, number, _ := vocab.SplitStepID(j.Step)
		j.StepKey = store.StepKey{Task: j.Task, Number: int32(number)}
		jobs = append(jobs, j)
	}
	return said, jobs, rows.Err()
}

// exchanges is exchange for a minute by a worker that serves everything; errors fail the
// test.
func (b *bed) exchanges(t *testing.T, h hands, most int) (verdicts []string, jobs []job) {
	t.Helper()
	said, jobs, err := outsider{b.pool}.exchange(t.Context(), h, handlers, most, time.Minute)
	require.NoError(t, err)
	require.Len(t, said, len(h.steps))
	for _, a := range said {
		verdicts = append(verdicts, a.Verdict)
	}
	return verdicts, jobs
}

// names returns the names of jobs, in order.
func names(jobs []job) (list []string) {
	for _, j := range jobs {
		list = append(list, j.Name)
	}
	return list
}

// all returns the given number of equal verdicts.
func all(verdict string, n int) []string { return slices.Repeat([]string{verdict}, n) }

// workerExchanges is a move of the machine: a worker hands in what it has, and more.
func (m *machine) workerExchanges() {
	served, most := m.bed.all[:rapid.IntRange(1, 2).Draw(m.T, "serves")], rapid.IntRange(1, 4).Draw(m.T, "most")
	var h hands
	var batch []store.Settlement
	for range rapid.IntRange(0, 4).Draw(m.T, "handed in") {
		key, lease := m.workerStep()
		if slices.Contains(h.steps, key.UUID()) {
			continue
		}
		g := settlement(key, lease, vocab.OutcomeSuccess)
		batch = append(batch, g)
		h.add(job{Lease: store.Lease{StepKey: key, ID: lease}}, string(g.Result))
	}
	before, at := m.messages(), [2]time.Time{0: m.now()}
	said, jobs, err := outsider{m.bed.pool}.exchange(m.ctx, h, handlers[:len(served)], most, time.Hour)
	m.must(err)
	at[1] = m.now()
	if len(said) != len(batch) {
		m.Fatalf("%d verdicts on %d steps", len(said), len(batch))
	}
	var look []vocab.UUID
	for i, g := range batch {
		want, looks := m.model.settle(g, m.policy, at)
		if store.Verdict(said[i].Verdict) != want {
			m.Fatalf("exchange %v: %s, want %s", g.StepKey, said[i].Verdict, want)
		}
		if looks {
			look = append(look, g.Task)
		}
	}
	leases := make([]store.Lease, len(jobs))
	for i, j := range jobs {
		leases[i] = j.Lease
		leases[i].Plan, leases[i].Generation = m.model.tasks[j.Lease.Task].plan.ID, int32(m.model.step(j.Lease.StepKey).generation)
	}
	m.takeGranted(leases, store.Grant{Room: most, Served: served})
	for _, id := range look {
		m.model.tasks[id].conclude()
	}
	m.requireStillQueued(before)
}

// passHunt: a worker that hands in a step finds several in the queue: one that someone
// has locked, one that does not wait, one message that says nothing, and one for others.
// It holds locks itself, so it must not wait; and none of the waiting ones must be
// forgotten.
func passHunt(t *testing.T, b *bed) string {
	t.Helper()
	others := fan(1)
	others[0].Handler = handlers[1]
	g, w := b.grant(b.host(t), 0), outsider{b.pool}
	_, j := b.workersStep(t)
	b.create(t, g, b.mustPlan(t, others...))
	p := b.mustPlan(t, fan(1)...)
	var tasks []vocab.UUID
	for range 4 {
		task, _ := b.create(t, g, p)
		tasks = append(tasks, task)
	}
	held := tasks[1]
	b.exec(t, "select tasker_enqueue(array[$1::uuid, $1, $2], '{0, 0, 0}')", held, j.StepKey.Task)
	b.exec(t, "select pgmq.send('"+queue+"', '{}')")
	b.exec(t, "update pgmq.q_"+queue+" set headers = null")
	locks, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = locks.Exec(t.Context(), "select tasker_lock_movable(array[$1::uuid])", held)
	require.NoError(t, err)
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "set local lock_timeout = '3s'")
	require.NoError(t, err)
	said, jobs, err := outsider{tx}.exchange(t.Context(), in([]job{j}), handlers[:1], 50, time.Hour)
	if err != nil {
		require.NoError(t, tx.Rollback(t.Context()))
		require.NoError(t, locks.Rollback(t.Context()))
		return err.Error()
	}
	require.NoError(t, tx.Commit(t.Context()))
	require.NoError(t, locks.Commit(t.Context()))
	if len(said) != 1 || said[0].Verdict != "recorded" || len(jobs) != 3 {
		return fmt.Sprintf("%v, and %d steps are run, of which three could be had", said, len(jobs))
	}
	for _, got := range jobs {
		if !slices.Contains(tasks, got.Task) || got.Task == held {
			return fmt.Sprintf("%v is run", got.StepKey)
		}
	}
	if n := one[int](t, b, "select count(*) from tasker_dead_letters where kind = 'message'"); n != 1 {
		return fmt.Sprintf("%d messages that say nothing were set aside", n)
	}
	if n := one[int](t, b, "select count(*) from pgmq.q_"+queue+" where message ->> 'task_uuid' = $1::text", j.StepKey.Task.String()); n != 0 {
		return "a message for a step that is done was sent again"
	}
	_, jobs, err = w.exchange(t.Context(), hands{}, handlers[:1], 9, time.Hour)
	require.NoError(t, err)
	if len(jobs) != 1 || jobs[0].Task != held {
		return fmt.Sprintf("the step that was passed by is forgotten: %v", jobs)
	}
	_, jobs, err = w.exchange(t.Context(), hands{}, handlers[1:], 9, time.Hour)
	require.NoError(t, err)
	if len(jobs) != 1 {
		return fmt.Sprintf("the step for others is forgotten: %v", jobs)
	}
	return oracleSays(t, b)
}

// handManyHunt: a worker continues with the children of its steps, which have a timeout
// and run under leases of the worker, and with as many as it requested.
func handManyHunt(t *testing.T, b *bed) string {
	t.Helper()
	steps := chain(2)
	steps[1].Timeout = time.Minute
	p, g, w := b.mustPlan(t, steps...), b.grant(b.host(t), 0), outsider{b.pool}
	for range 5 {
		b.create(t, g, p)
	}
	jobs, err := w.claim(t.Context(), handlers, 2, time.Hour)
	require.NoError(t, err)
	_, jobs, err = w.exchange(t.Context(), in(jobs), handlers, 3, time.Hour)
	if err != nil {
		return refusedOrWrong(t, err)
	}
	if got := strings.Join(names(jobs), " "); got != "step_1 step_1 step_0" {
		return "it goes on with " + got
	}
	for _, j := range jobs {
		until := one[*time.Time](t, b, "select lease_until from tasker_workflow_steps where task_uuid = $1 and step_no = $2", j.StepKey.Task, j.Number)
		look := one[time.Time](t, b, "select look_at from tasker_worker_leases where lease_id = $1", j.ID)
		if until == nil || !until.Equal(j.Until) || !look.Equal(j.Until) || j.Deadline != nil && j.Until.After(*j.Deadline) {
			return fmt.Sprintf("of %s the worker is told %v of %v, the step says %v, and the sweep looks at %v", j.Name, j.Until, j.Deadline, until, look)
		}
	}
	if named := one[int](t, b, "select count(*) from tasker_workflow_step_transitions where to_state = 'in_progress' and metadata ->> 'worker' = 'ruby-1'"); named != 5 {
		return fmt.Sprintf("the history knows who ran %d of 5", named)
	}
	return oracleSays(t, b)
}

// acrossHunt: a worker hands in steps of two namespaces and continues in one of them.
func acrossHunt(t *testing.T, b *bed) string {
	t.Helper()
	ctx, g, w := t.Context(), b.grant(b.host(t), 0), outsider{b.pool}
	b.create(t, g, b.mustPlan(t, chain(2)...))
	_, err := b.store.ApplyTemplate(ctx, []byte("away"), []workflow.Plan{{Namespace: "away", Name: "away", Version: "1.0.0", Steps: chain(2)}})
	require.NoError(t, err)
	away, err := b.store.FindPlan(ctx, "away", "away", "1.0.0", "")
	require.NoError(t, err)
	there, _ := b.create(t, g, away)
	jobs, err := w.claim(ctx, handlers, 9, time.Hour)
	require.NoError(t, err)
	require.Len(t, jobs, 1)
	h := in(jobs)
	var step, lease vocab.UUID
	require.NoError(t, b.pool.QueryRow(ctx, "select step_uuid, lease_id from tasker_worker_claim('away', 'ruby-1', $1)", handlers).Scan(&step, &lease))
	h.steps, h.leases, h.outputs = append(h.steps, step), append(h.leases, lease), append(h.outputs, "2")
	said, jobs, err := w.exchange(ctx, h, handlers, 9, time.Hour)
	if err != nil {
		return refusedOrWrong(t, err)
	}
	if said[0].Verdict != "recorded" || said[1].Verdict != "recorded" || len(jobs) != 1 || jobs[0].Task == there {
		return fmt.Sprintf("%v, and %v are run here", said, jobs)
	}
	if state := b.stepState(t, there, 1); state != vocab.StepEnqueued {
		return fmt.Sprintf("the step over there is %s", state)
	}
	return oracleSays(t, b)
}

// TestWorkerExchanges: one call ends many steps and begins others.
func TestWorkerExchanges(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	g := b.grant(b.host(t), 0)
	p := b.mustPlan(t, chain(2)...)
	_, jobs := b.exchanges(t, hands{}, 9)
	require.Empty(t, jobs)
	for range 3 {
		b.create(t, g, p)
	}
	verdicts, jobs := b.exchanges(t, hands{}, 2)
	require.Empty(t, verdicts)
	require.Equal(t, []string{"step_0", "step_0"}, names(jobs), "without a step it is a claim")
	require.Equal(t, 2, one[int](t, b, "select count(*) from tasker_worker_leases"))

	verdicts, next := b.exchanges(t, in(jobs), 9)
	require.Equal(t, all("recorded", 2), verdicts)
	require.Equal(t, []string{"step_1", "step_1", "step_0"}, names(next), "the steps that it made ready come first, then the queue")
	require.Equal(t, jobs[0].StepKey.Task, next[0].StepKey.Task)
	require.JSONEq(t, `{"step_0": 1}`, string(next[0].Dependencies))
	require.Zero(t, one[int](t, b, "select count(*) from pgmq.q_"+queue), "none of them went through the queue")

	// The reply is lost: the verdicts can be requested again, the steps when their leases
	// end.
	verdicts, none := b.exchanges(t, in(jobs), 9)
	require.Equal(t, all("already_recorded", 2), verdicts)
	require.Empty(t, none)
	b.exec(t, "update tasker_workflow_steps set lease_until = clock_timestamp() where state = 'in_progress'")
	b.exec(t, "update tasker_worker_leases set look_at = clock_timestamp()")
	_, err := b.store.SweepWorkerLeases(t.Context(), policy)
	require.NoError(t, err)
	verdicts, again := b.exchanges(t, in(next), 9)
	require.Equal(t, all("stale_lease", 3), verdicts)
	require.ElementsMatch(t, names(next), names(again))

	// One that failed is settled separately.
	verdict, _, err := outsider{b.pool}.settle(t.Context(), again[0].StepKey, again[0].ID, "permanent", nil, `{"message": "no luck"}`)
	require.NoError(t, err)
	require.Equal(t, "recorded", verdict)
	verdicts, jobs = b.exchanges(t, in(again), 9)
	require.Equal(t, []string{"stale_lease", "recorded", "recorded"}, verdicts)
	for len(jobs) > 0 {
		verdicts, jobs = b.exchanges(t, in(jobs), 9)
		require.NotContains(t, verdicts, "stale_lease")
	}
	require.Equal(t, 3, one[int](t, b, "select count(*) from tasker_tasks where state <> 'in_progress'"))
	_, err = b.store.SweepWorkerLeases(t.Context(), policy)
	require.NoError(t, err)
	require.Equal(t, "ruby-1 5 1 3", one[string](t, b, "select concat_ws(' ', name, done, failed, lost) from tasker_workers"))
	require.Zero(t, one[int](t, b, "select count(*) from tasker_worker_leases"))
	b.requireSound(t)
}

// TestWorkerExchangesShapes: joins, steps for others, and more than the worker wants.
func TestWorkerExchangesShapes(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	g, w := b.grant(b.host(t), 0), outsider{b.pool}
	b.mustPlan(t, fan(1)...)
	task, _ := b.create(t, g, b.mustPlan(t, diamond()...))
	_, jobs := b.exchanges(t, hands{}, 9)
	_, jobs = b.exchanges(t, in(jobs), 9)
	require.Equal(t, []string{"left", "right"}, names(jobs))
	verdicts, jobs := b.exchanges(t, in(jobs), 9)
	require.Equal(t, all("recorded", 2), verdicts)
	require.Equal(t, []string{"merge"}, names(jobs), "ready once, though both have made it so")
	require.JSONEq(t, `{"left": 1, "right": 1, "root": 1}`, string(jobs[0].Dependencies))
	_, jobs = b.exchanges(t, in(jobs), 9)
	require.Empty(t, jobs)
	require.Equal(t, vocab.TaskComplete, b.taskState(t, task))

	steps := diamond()
	steps[1].Handler = handlers[1]
	p := b.mustPlan(t, steps...)
	for range 3 {
		b.create(t, g, p)
	}
	_, jobs = b.exchanges(t, hands{}, 9)
	require.Len(t, jobs, 3)
	_, mine, err := w.exchange(t.Context(), in(jobs), handlers[:1], 2, time.Minute)
	require.NoError(t, err)
	require.Equal(t, all("right", 2), names(mine), "as many as it wants, and none meant for others")
	require.Equal(t, 4, one[int](t, b, "select count(*) from tasker_workflow_steps where state = 'enqueued'"))
	require.Equal(t, 4, one[int](t, b, "select count(*) from pgmq.q_"+queue), "the others wait")
	_, rest := b.exchanges(t, hands{}, 9)
	require.ElementsMatch(t, []string{"left", "left", "left", "right"}, names(rest))
	verdicts, jobs = b.exchanges(t, in(append(mine, rest...)), 9)
	require.Equal(t, all("recorded", 6), verdicts)
	require.Equal(t, all("merge", 3), names(jobs))

	wide := []workflow.Step{step("root", nil, nil)}
	for i := range int32(20) {
		wide[0].Children = append(wide[0].Children, i+1)
		wide = append(wide, step(fmt.Sprintf("leaf_%d", i), []int32{0}, nil))
	}
	b.create(t, g, b.mustPlan(t, wide...))
	_, jobs = b.exchanges(t, in(jobs), 1)
	require.Equal(t, []string{"root"}, names(jobs))
	_, jobs = b.exchanges(t, in(jobs), 12)
	require.Len(t, jobs, 12)
	_, jobs = b.exchanges(t, in(jobs), 12)
	require.Len(t, jobs, 8)
	_, jobs = b.exchanges(t, in(jobs), 12)
	require.Empty(t, jobs)
	require.Zero(t, one[int](t, b, "select count(*) from tasker_tasks where state <> 'complete'"))
	b.requireSound(t)
}

// TestWorkerExchangesRefused: an error in one step affects neither the others nor what is
// handed out.
func TestWorkerExchangesRefused(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	g, w := b.grant(b.host(t), 0), outsider{b.pool}
	p := b.mustPlan(t, chain(2)...)
	for range 5 {
		b.create(t, g, p)
	}
	_, jobs := b.exchanges(t, hands{}, 5)
	require.Len(t, jobs, 5)
	stale, nobody := jobs[2], job{Lease: store.Lease{StepKey: store.StepKey{Task: taskUUID()}, ID: randomUUID()}}
	stale.ID = randomUUID()
	var h hands
	h.add(jobs[0], `{"a": 1.10}`)
	h.add(jobs[1], `{`)
	h.add(stale, `1`)
	h.add(nobody, `1`)
	h.add(jobs[0], `3`)
	h.add(jobs[3], `"\u0000"`)
	h.add(jobs[3], `4`) // the same again, now correct
	said, next, err := w.exchange(t.Context(), h, handlers, 9, time.Minute)
	require.NoError(t, err)
	for i, want := range []string{"recorded", "invalid", "stale_lease", "unknown", "already_recorded", "invalid", "recorded"} {
		require.Equal(t, want, said[i].Verdict, "%d", i)
		require.Equal(t, slices.Contains([]string{"recorded", "already_recorded"}, want), said[i].Detail == "", "%d: %s", i, said[i].Detail)
	}
	require.Contains(t, said[1].Detail, "output is not JSON")
	require.Equal(t, `{"a": 1.10}`, one[string](t, b, "select result::text from tasker_workflow_steps where task_uuid = $1 and step_no = 0", jobs[0].Task))
	require.Equal(t, vocab.StepInProgress, b.stepState(t, jobs[1].Task, 0), "what was refused is still the worker's")
	require.Equal(t, all("step_1", 2), names(next))

	_, err = b.store.PauseQueue(t.Context(), namespace, true, store.Operator{By: "test"})
	require.NoError(t, err)
	for _, handed := range [][]job{jobs[1:2], jobs[2:5:5]} {
		verdicts, none := b.exchanges(t, in(handed), 9)
		require.Equal(t, "recorded", verdicts[0])
		require.Empty(t, none, "the namespace is paused")
	}
	require.Equal(t, 3, one[int](t, b, "select count(*) from tasker_workflow_steps where step_no = 1 and state = 'enqueued'"))
	_, err = b.store.PauseQueue(t.Context(), namespace, false, store.Operator{By: "test"})
	require.NoError(t, err)
	verdicts, rest := b.exchanges(t, in(next), 9)
	require.Equal(t, all("recorded", 2), verdicts)
	require.Equal(t, all("step_1", 3), names(rest))
	verdicts, _ = b.exchanges(t, in(rest), 9)
	require.Equal(t, all("recorded", 3), verdicts)
	b.requireSound(t)
}

// TestWorkerExchangeInput: calls that make no sense, or that the role may not make.
func TestWorkerExchangeInput(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	_, j := b.workersStep(t)
	for sql, want := range map[string]string{
		"select from tasker_worker_exchange('{}', '{}', '{}', 'no_such', 'w', '{a}')":                                              "there is no namespace no_such",
		"select from tasker_worker_exchange('{}', '{}', '{}', $1, '', '{a}')":                                                      "needs a name",
		"select from tasker_worker_exchange('{}', '{}', '{}', $1, 'w', '{}')":                                                      "handlers",
		"select from tasker_worker_exchange('{}', '{}', '{}', $1, 'w', '{a}', 101)":                                                "1 to 100 steps, not for 101",
		"select from tasker_worker_exchange('{}', '{}', '{}', $1, 'w', '{a}', 0)":                                                  "1 to 100 steps, not for 0",
		"select from tasker_worker_exchange('{}', '{}', '{}', $1, 'w', '{a}', 1, '0 s')":                                           "1 second to 1 day",
		"select from tasker_worker_exchange('{}', array[gen_random_uuid()], '{}', $1, 'w', '{a}')":                                 "its lease and its output",
		"select from tasker_worker_exchange(array[gen_random_uuid()], '{}', '{1}', $1, 'w', '{a}')":                                "its lease and its output",
		"select from tasker_worker_exchange(array[gen_random_uuid()], array[null::uuid], '{1}', $1, 'w', '{a}')":                   "a step and its lease",
		"select from tasker_worker_exchange(array_fill(gen_random_uuid(), array[501]), '{}', '{}', $1, 'w', '{a}')":                "up to 500 steps, not for 501",
		"select from tasker_worker_exchange('{}', '{}', '{}', $1, 'w', '{a}', p_metadata => '{1}')":                                "its lease and its output",
		"select 1 / count(*) from tasker_worker_exchange(null, null, null, $1, 'w', '{a}', p_metadata => null) where verdict = ''": "division by zero", // nothing handed in is a claim
	} {
		var args []any
		if strings.Contains(sql, "$1") {
			args = append(args, namespace)
		}
		_, err := b.pool.Exec(t.Context(), sql, args...)
		require.ErrorContains(t, err, want, sql)
	}
	var verdict, detail string
	require.NoError(t, b.pool.QueryRow(t.Context(), `
select verdict, detail from tasker_worker_exchange(array[$1::uuid], array[$2::uuid], array[null], $3, 'w', '{a}', p_metadata => '{7}')`,
		j.UUID(), j.ID, namespace).Scan(&verdict, &detail))
	require.Equal(t, "invalid metadata is not a JSON object", verdict+" "+detail)

	_, err := b.store.ApplyTemplate(t.Context(), []byte("there"), []workflow.Plan{{Namespace: "elsewhere", Name: "there", Version: "1.0.0", Steps: chain(2)}})
	require.NoError(t, err)
	_, stranger := workerRole(t, b, "elsewhere")
	_, _, err = outsider{stranger}.exchange(t.Context(), hands{}, handlers, 1, time.Minute)
	requireCode(t, "42501", err, "in another's namespace")
	_, err = stranger.Exec(t.Context(), "select from tasker_worker_exchange(array[$1::uuid], array[$2::uuid], '{1}', 'elsewhere', 'w', '{a}')", j.UUID(), j.ID)
	requireCode(t, "42501", err, "another's step")
	require.Equal(t, vocab.StepInProgress, b.stepState(t, j.StepKey.Task, 0))
	_, pool := workerRole(t, b, namespace)
	said, _, err := outsider{pool}.exchange(t.Context(), in([]job{j}), handlers, 1, time.Minute)
	require.NoError(t, err)
	require.Equal(t, "recorded", said[0].Verdict)
	b.requireSound(t)
}

// TestWorkersExchangeTogether: many workers at once end all tasks, without deadlocks.
func TestWorkersExchangeTogether(t *testing.T) {
	t.Parallel()
	const tasks, workers = 60, 4
	b := newBed(t)
	g := b.grant(b.host(t), 0)
	b.mustPlan(t, fan(1)...)
	p := b.mustPlan(t, diamond()...)
	for range tasks {
		b.create(t, g, p)
	}
	var done, again atomic.Int64
	work := func() error {
		var jobs []job
		for done.Load() < tasks*4 {
			err := insist(&again, func() error {
				said, next, err := outsider{b.pool}.exchange(t.Context(), in(jobs), handlers, 7, time.Hour)
				if err != nil {
					return err
				}
				for _, a := range said {
					if a.Verdict != "recorded" {
						return fmt.Errorf("%s: %s", a.Step, a.Verdict)
					}
				}
				done.Add(int64(len(said)))
				jobs = next
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	}
	require.NoError(t, together(slices.Repeat([]func() error{work}, workers)...))
	require.Zero(t, again.Load(), "deadlocks")
	require.Equal(t, tasks, one[int](t, b, "select count(*) from tasker_tasks where state = 'complete'"))
	require.Zero(t, one[int](t, b, "select count(*) from tasker_worker_leases"))
	b.requireSound(t)
}

// TestWorkerExchangeWaitsToClaim: with nothing handed in, and so without locks, a claim
// may wait like tasker_worker_claim.
func TestWorkerExchangeWaitsToClaim(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	task, _ := b.create(t, b.grant(b.host(t), 0), b.mustPlan(t, fan(2)...))
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "select tasker_lock_movable(array[$1::uuid])", task)
	require.NoError(t, err)
	var jobs []job
	require.NoError(t, blocked(t, b, tx, func(ctx context.Context) (err error) {
		_, jobs, err = outsider{b.pool}.exchange(ctx, hands{}, handlers, 9, time.Minute)
		return err
	}))
	require.Len(t, jobs, 2)
	b.requireSound(t)
}
