package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// An outside worker as a client library would be: the functions for workers and nothing
// else.
type outsider struct {
	db interface {
		Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
		QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	}
}

// job is what a claim returns, with the fields that the tests use.
type job struct {
	store.Lease
	Step, Task                    vocab.UUID
	Name, Key                     string
	Context, Config, Dependencies json.RawMessage
	Until                         time.Time
	Deadline                      *time.Time
}

func (o outsider) claim(ctx context.Context, handlers []string, most int, lease time.Duration) ([]job, error) {
	rows, err := o.db.Query(ctx, `
select step_uuid, lease_id, task_uuid, step_name, attempt, idempotency_key, context, config, dependencies, lease_until, deadline
  from tasker_worker_claim($1, 'ruby-1', $2, $3, $4)`, namespace, handlers, most, lease)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (j job, err error) {
		err = r.Scan(&j.Step, &j.ID, &j.Task, &j.Name, &j.Attempt, &j.Key, &j.Context, &j.Config, &j.Dependencies, &j.Until, &j.Deadline)
		task, number, _ := vocab.SplitStepID(j.Step)
		j.StepKey = store.StepKey{Task: task, Number: int32(number)}
		return j, err
	})
}

func (o outsider) heartbeat(ctx context.Context, k store.StepKey, lease vocab.UUID, progress any) (verdict, reason string, err error) {
	var why *string
	err = o.db.QueryRow(ctx, "select verdict, reason from tasker_worker_heartbeat($1, $2, $3)", k.UUID(), lease, progress).Scan(&verdict, &why)
	if why != nil {
		reason = *why
	}
	return verdict, reason, err
}

func (o outsider) settle(ctx context.Context, k store.StepKey, lease vocab.UUID, outcome string, output, failure any) (verdict, detail string, err error) {
	var why *string
	err = o.db.QueryRow(ctx, "select verdict, detail from tasker_worker_settle($1, $2, $3, $4, $5)", k.UUID(), lease, outcome, output, failure).Scan(&verdict, &why)
	if why != nil {
		detail = *why
	}
	return verdict, detail, err
}

// answer is the answer for one of several steps.
type answer struct{ Step, Verdict, Detail string }

func (o outsider) complete(ctx context.Context, steps, leases []vocab.UUID, outputs []string) ([]answer, error) {
	rows, err := o.db.Query(ctx, "select step_uuid::text, verdict, coalesce(detail, '') from tasker_worker_complete($1, $2, $3)", steps, leases, outputs)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[answer])
}

func (o outsider) release(ctx context.Context, k store.StepKey, lease vocab.UUID, delay time.Duration) (verdict string, err error) {
	err = o.db.QueryRow(ctx, "select verdict from tasker_worker_release($1, $2, $3)", k.UUID(), lease, delay).Scan(&verdict)
	return verdict, err
}

// The machine's moves for outside workers. A worker's lease is one without a host; the
// effect of its outcome is the model's settle.

func (m *machine) workerClaim() {
	served := m.bed.all[:rapid.IntRange(1, 2).Draw(m.T, "serves")]
	most := rapid.IntRange(1, 5).Draw(m.T, "most")
	before := m.messages()
	jobs, err := outsider{m.bed.pool}.claim(m.ctx, handlers[:len(served)], most, time.Hour)
	m.must(err)
	leases := make([]store.Lease, len(jobs))
	for i, j := range jobs {
		leases[i] = j.Lease
		leases[i].Plan, leases[i].Generation = m.model.tasks[j.Lease.Task].plan.ID, int32(m.model.step(j.Lease.StepKey).generation)
	}
	m.takeGranted(leases, store.Grant{Room: most, Served: served})
	m.requireStillQueued(before)
}

// ofWorkers lists the steps that outside workers run.
func (m *machine) ofWorkers() []store.StepKey {
	return m.steps(func(s *modelStep) bool { return s.state == vocab.StepInProgress && s.host == 0 })
}

// workerStep draws a step for a worker's call, most often a running one.
func (m *machine) workerStep() (store.StepKey, vocab.UUID) {
	keys := m.ofWorkers()
	if len(keys) == 0 || rapid.IntRange(0, 3).Draw(m.T, "any") == 0 {
		keys = m.steps(func(*modelStep) bool { return true })
	}
	key := pick(m, "step", keys)
	return key, m.drawLease(key)
}

func (m *machine) workerHeartbeat() {
	key, lease := m.workerStep()
	got, _, err := outsider{m.bed.pool}.heartbeat(m.ctx, key, lease, nil)
	m.must(err)
	s, want := m.model.step(key), "stale_lease"
	switch current := s.lease == lease && lease != none; {
	case current && s.state == vocab.StepInProgress && s.host == 0:
		want, s.expired = "ok", false
	case current && s.state == vocab.StepCancelled:
		want = "cancel_requested"
	}
	if got != want {
		m.Fatalf("heartbeat for step %v in state %s: %s, want %s", key, s.state, got, want)
	}
}

func (m *machine) workerSettles() {
	key, lease := m.workerStep()
	g := settlement(key, lease, rapid.SampledFrom(vocab.Outcomes).Draw(m.T, "outcome"))
	at := [2]time.Time{0: m.now()}
	var got string
	var err error
	switch o := (outsider{m.bed.pool}); g.Outcome {
	case vocab.OutcomeReleased:
		g.RetryAfter = time.Duration(rapid.IntRange(0, 3).Draw(m.T, "delay")) * time.Millisecond
		g.Error = excuse
		got, err = o.release(m.ctx, key, lease, g.RetryAfter)
	case vocab.OutcomeSuccess:
		if !rapid.Bool().Draw(m.T, "as one of many") {
			got, _, err = o.settle(m.ctx, key, lease, "success", string(g.Result), nil)
			break
		}
		var all []answer
		if all, err = o.complete(m.ctx, []vocab.UUID{key.UUID()}, []vocab.UUID{lease}, []string{string(g.Result)}); err == nil {
			got = all[0].Verdict
		}
	default:
		got, _, err = o.settle(m.ctx, key, lease, string(g.Outcome), nil, string(g.Error))
	}
	m.must(err)
	at[1] = m.now()
	policy := m.policy
	policy.ClaimFactor = workerClaimFactor
	want, looks := m.model.settle(g, policy, at)
	if store.Verdict(got) != want {
		m.Fatalf("settle %v in state %s as %s: %s, want %s", key, m.model.step(key).state, g.Outcome, got, want)
	}
	if looks {
		m.model.tasks[key.Task].conclude()
	}
}

// workerClaimFactor is the functions' default, unless a host sets another.
const workerClaimFactor = 3

func (m *machine) workerLeaseEnds() {
	key := pick(m, "lease", m.ofWorkers())
	m.exec(`update tasker_workflow_steps set lease_until = clock_timestamp() - interval '1 ms' where task_uuid = $1 and step_no = $2`, key.Task, key.Number)
	m.model.step(key).expired = true
}

func (m *machine) sweepWorkers() {
	m.exec("update tasker_worker_leases set look_at = clock_timestamp() - interval '1 ms'") // all of them: a look must not harm any
	expired := m.steps(func(s *modelStep) bool { return s.state == vocab.StepInProgress && s.host == 0 && s.expired })
	swept, err := m.bed.store.SweepWorkerLeases(m.ctx, m.policy)
	m.must(err)
	if swept.Released != len(expired) || swept.TimedOut != 0 {
		m.Fatalf("%d leases of workers had run out; the sweep says %+v", len(expired), swept)
	}
	var look []vocab.UUID
	for _, k := range expired {
		doomed := m.model.step(k).doomed
		if m.model.release(m.model.tasks[k.Task], k.Number, m.policy.ClaimFactor, false) || doomed {
			look = append(look, k.Task)
		}
	}
	for _, id := range look {
		m.model.tasks[id].conclude()
	}
	if left := m.count("tasker_worker_leases"); left != len(m.ofWorkers()) {
		m.Fatalf("the sweep left %d leases of workers, %d are held", left, len(m.ofWorkers()))
	}
}

func (m *machine) count(table string) (n int) {
	m.must(m.bed.pool.QueryRow(m.ctx, "select count(*) from "+table).Scan(&n))
	return n
}

// workersStep creates a task of one step, which a worker has claimed for an hour.
func (b *bed) workersStep(t *testing.T) (vocab.UUID, job) {
	t.Helper()
	task, _ := b.create(t, b.grant(b.host(t), 0), b.mustPlan(t, fan(1)...))
	jobs, err := outsider{b.pool}.claim(t.Context(), handlers, 1, time.Hour)
	require.NoError(t, err)
	require.Len(t, jobs, 1)
	return task, jobs[0]
}

// extendHunt: the sweep finds an expired lease and waits for the step's row, and
// meanwhile a late heartbeat of the worker extends it.
func extendHunt(t *testing.T, b *bed) string {
	t.Helper()
	task, j := b.workersStep(t)
	b.exec(t, "update tasker_workflow_steps set lease_until = clock_timestamp() - interval '1 ms'")
	b.exec(t, "update tasker_worker_leases set look_at = clock_timestamp() - interval '1 ms'")
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, _, err = outsider{tx}.heartbeat(t.Context(), j.StepKey, j.ID, nil)
	require.NoError(t, err)
	require.NoError(t, blocked(t, b, tx, func(ctx context.Context) error {
		_, err := b.store.SweepWorkerLeases(ctx, policy)
		return err
	}))
	if state := b.stepState(t, task, 0); state != vocab.StepInProgress {
		return fmt.Sprintf("the sweep took a step from a worker that had extended its lease: %s", state)
	}
	return oracleSays(t, b)
}

// extendedHunt: the sweep looks at a lease that was extended after the look became due.
func extendedHunt(t *testing.T, b *bed) string {
	t.Helper()
	task, _ := b.workersStep(t)
	b.exec(t, "update tasker_worker_leases set look_at = clock_timestamp() - interval '1 ms'")
	_, err := b.store.SweepWorkerLeases(t.Context(), policy)
	require.NoError(t, err)
	if state := b.stepState(t, task, 0); state != vocab.StepInProgress {
		return fmt.Sprintf("the sweep took a step from a worker whose lease holds: %s", state)
	}
	return oracleSays(t, b)
}

// lapsedHunt: a worker is gone, and its lease has expired. The sweep gives the step back
// without charging an attempt.
func lapsedHunt(t *testing.T, b *bed) string {
	t.Helper()
	task, _ := b.workersStep(t)
	b.exec(t, "update tasker_workflow_steps set lease_until = clock_timestamp() - interval '1 ms'")
	b.exec(t, "update tasker_worker_leases set look_at = clock_timestamp() - interval '1 ms'")
	swept, err := b.store.SweepWorkerLeases(t.Context(), policy)
	require.NoError(t, err)
	state, attempts := b.stepState(t, task, 0), one[int](t, b, "select attempts from tasker_workflow_steps")
	if swept.Released != 1 || attempts != 0 || state != vocab.StepEnqueued {
		return fmt.Sprintf("%+v, %d attempts charged, step %s", swept, attempts, state)
	}
	return oracleSays(t, b)
}

// heartbeatHunt: a worker continues with leases that have ended, by its own answer or
// because the step was given back and claimed again, before the sweep has run: through
// the functions for workers, and through the queue of results, which does not know
// workers' leases.
func heartbeatHunt(t *testing.T, b *bed) string {
	t.Helper()
	p, w, g := b.mustPlan(t, fan(4)...), outsider{b.pool}, b.grant(b.host(t), 0)
	b.create(t, g, p)
	jobs, err := w.claim(t.Context(), handlers, 4, time.Hour)
	require.NoError(t, err)
	_, _, err = w.settle(t.Context(), jobs[0].StepKey, jobs[0].ID, "success", nil, nil)
	require.NoError(t, err)
	_, err = w.release(t.Context(), jobs[1].StepKey, jobs[1].ID, 0)
	require.NoError(t, err)
	b.settle(t, g, vocab.OutcomeSuccess, jobs[2].Lease)
	b.settle(t, g, vocab.OutcomeReleased, jobs[3].Lease)
	again, err := w.claim(t.Context(), handlers, 4, time.Hour)
	require.NoError(t, err)
	require.Len(t, again, 2)
	for _, j := range jobs {
		verdict, _, err := w.heartbeat(t.Context(), j.StepKey, j.ID, nil)
		require.NoError(t, err)
		if verdict != "stale_lease" {
			return fmt.Sprintf("heartbeat under a lease that has ended: %s", verdict)
		}
	}
	return oracleSays(t, b)
}

// workerRole creates a role that may work in the namespaces, with its own pool.
func workerRole(t *testing.T, b *bed, namespaces ...string) (string, *pgxpool.Pool) {
	t.Helper()
	role := "worker_" + strings.ReplaceAll(randomUUID().String()[:13], "-", "")
	b.exec(t, "create role "+role+" login")
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		_, err := b.pool.Exec(ctx, "drop owned by "+role+"; drop role "+role)
		require.NoError(t, err)
	})
	if len(namespaces) > 0 {
		b.exec(t, "select tasker_grant_worker($1, variadic $2::text[])", role, namespaces)
	}
	cfg := b.pool.Config().Copy()
	cfg.MaxConns = 2
	cfg.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, "set session authorization "+role)
		return err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return role, pool
}

// A worker's role can do its work and nothing else.
func TestWorkersRole(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.mustPlan(t, chain(2)...)
	b.create(t, b.grant(b.host(t), 0), p)
	role, pool := workerRole(t, b, namespace)
	w := outsider{pool}
	jobs, err := w.claim(t.Context(), handlers, 9, time.Minute)
	require.NoError(t, err)
	require.Len(t, jobs, 1)
	verdict, _, err := w.heartbeat(t.Context(), jobs[0].StepKey, jobs[0].ID, `{"rows": 12}`)
	require.NoError(t, err)
	require.Equal(t, "ok", verdict)
	verdict, detail, err := w.settle(t.Context(), jobs[0].StepKey, jobs[0].ID, "success", "340282366920938463463374607431768211456", nil)
	require.NoError(t, err)
	require.Equal(t, "recorded", verdict, detail)
	jobs, err = w.claim(t.Context(), handlers, 9, time.Minute)
	require.NoError(t, err)
	require.JSONEq(t, `{"step_0": 340282366920938463463374607431768211456}`, string(jobs[0].Dependencies))
	require.Contains(t, string(jobs[0].Dependencies), "340282366920938463463374607431768211456") // every digit
	verdict, err = w.release(t.Context(), jobs[0].StepKey, jobs[0].ID, 0)
	require.NoError(t, err)
	require.Equal(t, "recorded", verdict)

	var open []string
	require.NoError(t, b.pool.QueryRow(t.Context(), `
select coalesce(array_agg(c.oid::regclass::text), '{}') from pg_class c
 where c.relnamespace::regnamespace::text in ('public', 'pgmq') and c.relkind in ('r', 'p', 'v', 'S')
   and case when c.relkind = 'S' then has_sequence_privilege($1, c.oid, 'usage, select, update')
            else has_table_privilege($1, c.oid, 'select, insert, update, delete, truncate, references, trigger') end`, role).Scan(&open))
	require.Empty(t, open, "a worker may touch these")
	require.NoError(t, b.pool.QueryRow(t.Context(), `
select array_agg(p.proname order by p.proname) from pg_proc p
 where p.pronamespace = 'public'::regnamespace and p.prosecdef and has_function_privilege($1, p.oid, 'execute')`, role).Scan(&open))
	require.Equal(t, []string{"tasker_worker_claim", "tasker_worker_complete", "tasker_worker_exchange", "tasker_worker_heartbeat", "tasker_worker_next", "tasker_worker_release", "tasker_worker_settle"}, open)
	require.NoError(t, b.pool.QueryRow(t.Context(), `
select coalesce(array_agg(p.proname), '{}') from pg_proc p
 where p.pronamespace = 'pgmq'::regnamespace and has_function_privilege($1, p.oid, 'execute')`, role).Scan(&open))
	require.Empty(t, open)
	for _, sql := range []string{
		"select pgmq.send('" + queue + "', '{}')", "select msg_id from pgmq.read('" + queue + "', 1, 1)", "delete from tasker_tasks",
		"select tasker_worker_record($1, $1, 'success', null, null, null, 0)", "select tasker_grant_worker('" + role + "', '*')",
		"select o_state from tasker_cancel_task($1, 'no', null)", "create table mine (n integer)",
	} {
		args := []any{}
		if strings.Contains(sql, "$1") {
			args = append(args, jobs[0].Task)
		}
		_, err := pool.Exec(t.Context(), sql, args...)
		requireCode(t, "42501", err, sql)
	}
	b.requireSound(t)
}

// A role works where it was granted access, and only as long as it has it.
func TestWorkersNamespaces(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.mustPlan(t, fan(2)...)
	b.create(t, b.grant(b.host(t), 0), p)
	role, pool := workerRole(t, b, "elsewhere")
	w := outsider{pool}
	_, err := w.claim(t.Context(), handlers, 1, time.Minute)
	requireCode(t, "42501", err, "claim")
	require.ErrorContains(t, err, "may not work in namespace "+namespace)
	jobs, err := outsider{b.pool}.claim(t.Context(), handlers, 1, time.Minute)
	require.NoError(t, err)
	_, _, err = w.heartbeat(t.Context(), jobs[0].StepKey, jobs[0].ID, nil)
	requireCode(t, "42501", err, "heartbeat with another's lease")
	_, _, err = w.settle(t.Context(), jobs[0].StepKey, jobs[0].ID, "success", nil, nil)
	requireCode(t, "42501", err, "settle with another's lease")
	_, err = w.release(t.Context(), jobs[0].StepKey, jobs[0].ID, 0)
	requireCode(t, "42501", err, "release with another's lease")
	_, err = pool.Exec(t.Context(), "select from tasker_worker_next($1, $2, '1', 'elsewhere', 'w', '{a}')", jobs[0].Step, jobs[0].ID)
	requireCode(t, "42501", err, "settle with another's lease and go on elsewhere")
	_, _, _, err = w.next(t.Context(), jobs[0].StepKey, jobs[0].ID, "1", handlers, time.Minute)
	requireCode(t, "42501", err, "go on in another's namespace")

	b.exec(t, "select tasker_grant_worker($1, '*')", role)
	_, err = w.claim(t.Context(), handlers, 1, time.Minute)
	require.NoError(t, err)
	b.exec(t, "select tasker_revoke_worker($1)", role)
	_, err = w.claim(t.Context(), handlers, 1, time.Minute)
	requireCode(t, "42501", err, "claim")

	for sql, want := range map[string]string{
		"select tasker_grant_worker('nobody_there', 'shop')": "there is no role nobody_there",
		"select tasker_grant_worker(current_user, 'shop')":   "is a superuser",
		"select tasker_grant_worker($1, variadic '{}')":      "no namespaces are given",
		"select tasker_grant_worker($1, 'Shop')":             "namespace",
	} {
		var args []any
		if strings.Contains(sql, "$1") {
			args = append(args, role)
		}
		_, err := b.pool.Exec(t.Context(), sql, args...)
		require.ErrorContains(t, err, want)
	}
}

func requireCode(t *testing.T, code string, err error, what string) {
	t.Helper()
	var pg *pgconn.PgError
	require.ErrorAs(t, err, &pg, what)
	require.Equal(t, code, pg.Code, what)
}

// The arguments of a worker are checked, with understandable errors.
func TestWorkersInput(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.mustPlan(t, fan(1)...)
	task, _ := b.create(t, b.grant(b.host(t), 0), p)
	w := outsider{b.pool}
	ctx := t.Context()
	for sql, want := range map[string]string{
		"select from tasker_worker_claim('no_such', 'w', '{a}')":                                              "there is no namespace no_such",
		"select from tasker_worker_claim($1, '', '{a}')":                                                      "needs a name",
		"select from tasker_worker_claim($1, 'w', '{}')":                                                      "handlers",
		"select from tasker_worker_claim($1, 'w', '{a}', 101)":                                                "1 to 100 steps, not for 101",
		"select from tasker_worker_claim($1, 'w', '{a}', 1, '0 s')":                                           "1 second to 1 day",
		"select from tasker_worker_claim($1, 'w', '{a}', 1, '1000 years -360000 days 1 minute')":              "1 second to 1 day",
		"select from tasker_worker_heartbeat(null, null)":                                                     "a step and its lease",
		"select from tasker_worker_settle(gen_random_uuid(), null, 'success')":                                "a step and its lease",
		"select from tasker_worker_complete('{}', '{}', '{}')":                                                "1 to 500 steps, not for 0",
		"select from tasker_worker_complete(array[gen_random_uuid()], array[gen_random_uuid()], '{1,2}')":     "its lease and its output",
		"select from tasker_worker_complete(array[gen_random_uuid()], array[null::uuid], '{1}')":              "a step and its lease",
		"select from tasker_worker_complete(array[gen_random_uuid()], array[gen_random_uuid()], '{1}', '{}')": "its lease and its output",
	} {
		var args []any
		if strings.Contains(sql, "$1") {
			args = append(args, namespace)
		}
		_, err := b.pool.Exec(ctx, sql, args...)
		require.ErrorContains(t, err, want, sql)
	}
	jobs, err := w.claim(ctx, handlers, 1, time.Minute)
	require.NoError(t, err)
	j := jobs[0]
	require.NoError(t, b.store.SetWorkerPolicy(ctx, store.WorkerPolicy{Policy: policy, MaxResultBytes: 1000, MaxDepth: 4}))
	for _, bad := range []struct {
		outcome         string
		output, failure any
		want            string
	}{
		{"done", nil, nil, "outcome 'done' is not success, retryable or permanent"},
		{"success", "{", nil, "output is not JSON that can be stored"},
		{"success", `"\u0000"`, nil, "output is not JSON that can be stored"},
		{"success", `"` + strings.Repeat("x", 1000) + `"`, nil, "output is 1002 bytes long: at most 1000 are allowed"},
		{"success", "1e9999", nil, "output takes more than 2000 bytes when its numbers are written out"},
		{"success", "[[[[[1]]]]]", nil, "nested deeper than 4 levels"},
		{"success", "1", "{}", "a success has no error"},
		{"retryable", "1", nil, "a failure has an error"},
		{"permanent", nil, `"broken"`, "error is not a JSON object"},
	} {
		verdict, detail, err := w.settle(ctx, j.StepKey, j.ID, bad.outcome, bad.output, bad.failure)
		require.NoError(t, err)
		require.Equal(t, "invalid", verdict, bad)
		require.Contains(t, detail, bad.want)
	}
	verdict, reason, err := w.heartbeat(ctx, j.StepKey, j.ID, "half")
	require.NoError(t, err)
	require.Equal(t, "invalid", verdict)
	require.Contains(t, reason, "progress is not JSON")
	require.NoError(t, b.pool.QueryRow(ctx, "select verdict, detail from tasker_worker_release($1, $2, '1000 years -360000 days')", j.UUID(), j.ID).Scan(&verdict, &reason))
	require.Equal(t, "invalid", verdict)
	require.Contains(t, reason, "is not between 0 and 1 day")
	verdict, _, err = w.settle(ctx, store.StepKey{Task: taskUUID()}, j.ID, "success", nil, nil)
	require.NoError(t, err)
	require.Equal(t, "unknown", verdict)

	verdict, _, err = w.settle(ctx, j.StepKey, j.ID, "success", `[[[["ünïcødé 😀"]]], {"n": 0.10}]`, nil)
	require.NoError(t, err)
	require.Equal(t, "recorded", verdict)
	verdict, _, err = w.settle(ctx, j.StepKey, j.ID, "success", "2", nil)
	require.NoError(t, err)
	require.Equal(t, "already_recorded", verdict)
	require.Equal(t, `[[[["ünïcødé 😀"]]], {"n": 0.10}]`, one[string](t, b, "select result::text from tasker_workflow_steps where task_uuid = $1", task))
	b.requireSound(t)
}

// completeHunt: a worker has six steps and completes them carelessly: one under the lease
// of another, one with a result that cannot be stored, one twice.
func completeHunt(t *testing.T, b *bed) string {
	t.Helper()
	g, w := b.grant(b.host(t), 0), outsider{b.pool}
	p := b.mustPlan(t, fan(1)...)
	for range 6 {
		b.create(t, g, p)
	}
	jobs, err := w.claim(t.Context(), handlers, 6, time.Hour)
	require.NoError(t, err)
	require.Len(t, jobs, 6)
	slices.SortFunc(jobs, func(a, b job) int { return store.CompareKeys(b.StepKey, a.StepKey) })
	var steps, leases []vocab.UUID
	var want []string
	outputs := []string{`1`, `1`, `"\u0000"`, `1`, `1`, `{`, `1`}
	for _, j := range jobs {
		steps, leases, want = append(steps, j.UUID()), append(leases, j.ID), append(want, "recorded")
	}
	steps, leases, want = append(steps, steps[0]), append(leases, leases[0]), append(want, "already_recorded")
	leases[1], want[1], want[2], want[5] = jobs[2].ID, "stale_lease", "invalid", "invalid"
	all, err := w.complete(t.Context(), steps, leases, outputs)
	if err != nil {
		return refusedOrWrong(t, err)
	}
	for i, got := range all {
		if got.Step != steps[i].String() || got.Verdict != want[i] {
			return fmt.Sprintf("step %d is %s, not %s: %s", i, got.Verdict, want[i], got.Detail)
		}
	}
	swollen := "[" + strings.Repeat("1e131071,", 69) + "1e131071]" // 9 MB when stored
	huge := "[" + strings.Repeat("1e131071,", 8200) + "1]"         // more than a text can have
	deep := strings.Repeat("[", 65) + strings.Repeat("]", 65)
	all, err = w.complete(t.Context(), []vocab.UUID{steps[2], steps[2], steps[5]}, []vocab.UUID{leases[2], leases[2], leases[5]}, []string{swollen, huge, deep})
	if err != nil {
		return refusedOrWrong(t, err)
	}
	if all[0].Verdict != "invalid" || all[1].Verdict != "invalid" || all[2].Verdict != "invalid" {
		return fmt.Sprintf("what is too large and what is too deep: %v", all)
	}
	workers, err := b.store.Workers(t.Context())
	require.NoError(t, err)
	if held, done := workers[0].Leases, workers[0].Done; held != 3 || done != 3 {
		return fmt.Sprintf("the worker holds %d leases and has done %d steps", held, done)
	}
	return oracleSays(t, b)
}

// strangerHunt: a role completes a step in a namespace to which it has no access.
func strangerHunt(t *testing.T, b *bed) string {
	t.Helper()
	_, j := b.workersStep(t)
	_, pool := workerRole(t, b, "elsewhere")
	all, err := outsider{pool}.complete(t.Context(), []vocab.UUID{j.UUID()}, []vocab.UUID{j.ID}, []string{"1"})
	if err == nil {
		return fmt.Sprintf("a stranger was answered: %v", all)
	}
	require.ErrorContains(t, err, "may not work in namespace")
	return ""
}

// countsHunt: what workers have done is counted once, however often the sweep runs.
func countsHunt(t *testing.T, b *bed) string {
	t.Helper()
	g, w := b.grant(b.host(t), 0), outsider{b.pool}
	p := b.mustPlan(t, fan(1)...)
	for range 3 {
		b.create(t, g, p)
		jobs, err := w.claim(t.Context(), handlers, 1, time.Hour)
		require.NoError(t, err)
		_, err = w.complete(t.Context(), []vocab.UUID{jobs[0].UUID()}, []vocab.UUID{jobs[0].ID}, []string{"1"})
		require.NoError(t, err)
		for range 2 {
			_, err = b.store.SweepWorkerLeases(t.Context(), policy)
			require.NoError(t, err)
		}
	}
	workers, err := b.store.Workers(t.Context())
	require.NoError(t, err)
	if left := one[int](t, b, "select count(*) from tasker_worker_counts"); left != 0 || workers[0].Done != 3 {
		return fmt.Sprintf("%d done of 3, %d counts left", workers[0].Done, left)
	}
	return oracleSays(t, b)
}

// The counts of workers reflect what happened to their leases.
func TestWorkersCounts(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.mustPlan(t, fan(5)...)
	b.create(t, b.grant(b.host(t), 0), p)
	w := outsider{b.pool}
	jobs, err := w.claim(t.Context(), handlers, 5, time.Minute)
	require.NoError(t, err)
	slices.SortFunc(jobs, func(a, b job) int { return store.CompareKeys(a.StepKey, b.StepKey) })
	for i, outcome := range []string{"success", "success", "permanent"} {
		verdict, _, err := w.settle(t.Context(), jobs[i].StepKey, jobs[i].ID, outcome, nil, nil)
		require.NoError(t, err)
		require.Equal(t, "recorded", verdict)
	}
	_, err = w.release(t.Context(), jobs[3].StepKey, jobs[3].ID, time.Hour)
	require.NoError(t, err)
	workers, err := b.store.Workers(t.Context())
	require.NoError(t, err)
	require.Equal(t, []int64{1, 2, 1, 1, 0}, []int64{int64(workers[0].Leases), workers[0].Done, workers[0].Failed, workers[0].Released, workers[0].Lost})
	b.exec(t, "update tasker_workflow_steps set lease_until = clock_timestamp() where step_no = 4")
	b.exec(t, "update tasker_worker_leases set look_at = clock_timestamp()")
	_, err = b.store.SweepWorkerLeases(t.Context(), policy)
	require.NoError(t, err)
	workers, err = b.store.Workers(t.Context())
	require.NoError(t, err)
	require.Len(t, workers, 1)
	require.Equal(t, "ruby-1 "+namespace+" 0 2 1 1 1", fmt.Sprint(workers[0].Name, " ", workers[0].Namespace, " ", workers[0].Leases, workers[0].Done, workers[0].Failed, workers[0].Released, workers[0].Lost))
	require.Equal(t, "ruby-1 2 1 1 1", one[string](t, b, "select concat_ws(' ', name, done, failed, released, lost) from tasker_workers"))
	require.Zero(t, one[int](t, b, "select count(*) from tasker_worker_leases"))
}

// TestWorkerCompletesMany: many successes in one call, each with its own verdict.
func TestWorkerCompletesMany(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	w := outsider{b.pool}
	p := b.mustPlan(t, chain(2)...)
	for range 4 {
		b.create(t, b.grant(b.host(t), 0), p)
	}
	jobs, err := w.claim(t.Context(), handlers, 4, time.Minute)
	require.NoError(t, err)
	require.Len(t, jobs, 4)
	complete := func(steps, leases []vocab.UUID, outputs []string) []answer {
		t.Helper()
		all, err := w.complete(t.Context(), steps, leases, outputs)
		require.NoError(t, err)
		return all
	}
	nobody := vocab.UUID{15: 1}
	steps := []vocab.UUID{jobs[2].UUID(), jobs[0].UUID(), nobody, jobs[1].UUID(), jobs[2].UUID(), jobs[3].UUID()}
	leases := []vocab.UUID{jobs[2].ID, jobs[0].ID, jobs[0].ID, jobs[0].ID, jobs[2].ID, jobs[3].ID}
	outputs := []string{`{"a": 1.10}`, `{`, `1`, `2`, `3`, `null`}
	got := complete(steps, leases, outputs)
	require.Len(t, got, 6)
	for i, want := range []string{"recorded", "invalid", "unknown", "stale_lease", "already_recorded", "recorded"} {
		require.Equal(t, steps[i].String(), got[i].Step)
		require.Equal(t, want, got[i].Verdict, "%d", i)
	}
	require.Contains(t, got[1].Detail, "output is not JSON")
	require.Equal(t, `{"a": 1.10}`, one[string](t, b, "select result::text from tasker_workflow_steps where task_uuid = $1 and step_no = 0", jobs[2].Task))
	require.Equal(t, vocab.StepEnqueued, b.stepState(t, jobs[2].Task, 1), "its child may run")
	require.Equal(t, vocab.StepInProgress, b.stepState(t, jobs[0].Task, 0), "what was refused is still the worker's")
	require.Equal(t, "already_recorded", complete(steps[:1], leases[:1], outputs[:1])[0].Verdict)

	_, err = b.store.SweepWorkerLeases(t.Context(), policy)
	require.NoError(t, err)
	require.Equal(t, 2, one[int](t, b, "select sum(done)::integer from tasker_workers"))
	require.Empty(t, oracleSays(t, b))

	role, pool := workerRole(t, b, "elsewhere")
	_, err = pool.Exec(t.Context(), "select from tasker_worker_complete($1, $2, $3)", steps[1:2], leases[1:2], []string{"1"})
	require.ErrorContains(t, err, "role "+role+" may not work in namespace")
}
