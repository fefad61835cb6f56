package store_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/finalizer"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// growing matches the tables that grow with work and history: no statement in the path of
// a step may read one from end to end. The names of partitions end in a day.
var growing = regexp.MustCompile(`^(tasker_(tasks|workflow_steps|task_transitions|workflow_step_transitions)(_\d{8}|_default)?|q_.*|a_.*|` +
	`tasker_idempotency_keys|tasker_task_identities|tasker_dead_letters|tasker_finalization_attempts|tasker_priority_messages)$`)

// node is a node of a plan, with the fields that the test uses.
type node struct {
	Type     string `json:"Node Type"`
	Relation string `json:"Relation Name"`
	Index    string `json:"Index Name"`
	Cond     string `json:"Index Cond"`
	Plans    []node `json:"Plans"`

	// Per loop, if the plan was analyzed.
	Loops    float64 `json:"Actual Loops"`
	Joined   float64 `json:"Rows Removed by Join Filter"`
	Filtered float64 `json:"Rows Removed by Filter"`
}

// waste returns how many rows a plan has read in vain.
func (n node) waste() float64 {
	rows := n.Loops * (n.Joined + n.Filtered)
	for _, p := range n.Plans {
		rows += p.waste()
	}
	return rows
}

// scans returns the growing tables that a plan reads from end to end, and the steps of
// templates if all steps of a template are read to find one.
func (n node) scans() (tables []string) {
	if n.Type == "Seq Scan" && growing.MatchString(n.Relation) || n.Index == "tasker_idempotency_keys_age" || // that is for retention
		n.Relation == "tasker_named_steps" && n.Index != "" && n.Index != "tasker_named_steps_pkey" && !strings.Contains(n.Cond, "name") {
		tables = append(tables, n.Relation)
	}
	for _, p := range n.Plans {
		tables = append(tables, p.scans()...)
	}
	return tables
}

// planWatch listens to auto_explain, which reports the plan of every statement, including
// those in functions.
type planWatch struct {
	mu     sync.Mutex
	seen   int
	bad    map[string][]string // the tables by statement
	waste  map[string]float64  // the rows that an execution read in vain, by statement
	garbed []string            // what could not be parsed
}

func (w *planWatch) notice(_ *pgconn.PgConn, n *pgconn.Notice) {
	_, text, found := strings.Cut(n.Message, "plan:\n")
	if !found {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var told struct {
		Query string `json:"Query Text"`
		Plan  node
	}
	if err := json.Unmarshal([]byte(text), &told); err != nil {
		w.garbed = append(w.garbed, err.Error())
		return
	}
	w.seen++
	if rows := told.Plan.waste(); w.waste != nil && rows > 0 {
		statement := strings.Join(strings.Fields(told.Query), " ")
		w.waste[statement] = max(w.waste[statement], rows)
	}
	if tables := told.Plan.scans(); len(tables) > 0 {
		w.bad[strings.Join(strings.Fields(told.Query), " ")] = tables
	}
}

// analyze opens a session like [planWatch.pool], whose statements also report what they
// read in vain.
func (w *planWatch) analyze(t *testing.T, b *bed) *pgxpool.Pool {
	t.Helper()
	pool := w.pool(t, b.pool.Config().ConnString())
	w.listen(t, pool)
	for _, setting := range []string{"log_analyze = on", "log_timing = off"} {
		_, err := pool.Exec(t.Context(), "set auto_explain."+setting)
		require.NoError(t, err)
	}
	return pool
}

// requireWasteBelow requires that no statement read that many rows in vain.
func (w *planWatch) requireWasteBelow(t *testing.T, most int) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	require.Empty(t, w.garbed)
	require.NotZero(t, w.seen)
	for statement, rows := range w.waste {
		require.Less(t, rows, float64(most), "%.300s", statement)
	}
}

// pool opens one session like a host's, whose plans are watched.
func (w *planWatch) pool(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	cfg, err := store.PoolConfig{URL: url, ConnectTimeout: time.Minute, StatementTimeout: time.Minute, LockTimeout: time.Minute}.PoolConfiguration()
	require.NoError(t, err)
	cfg.MaxConns, cfg.MinIdleConns = 1, 0
	cfg.ConnConfig.OnNotice = w.notice
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	_, err = pool.Exec(t.Context(), "load 'auto_explain'")
	require.NoError(t, err)
	return pool
}

func (w *planWatch) listen(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	for _, set := range []string{
		"auto_explain.log_min_duration = 0", "auto_explain.log_nested_statements = on", "auto_explain.log_format = json", "client_min_messages = log",
	} {
		_, err := pool.Exec(t.Context(), "set "+set)
		require.NoError(t, err)
	}
}

// daily does once everything that hosts and workers do all day, in one session.
func daily(t *testing.T, pool *pgxpool.Pool, plans [2]*store.Plan, all []int32) {
	t.Helper()
	ctx, s := t.Context(), store.New(pool)
	host, err := s.RegisterHost(ctx, store.HostInfo{Name: "lab", Version: "1", Environment: "test", State: "normal"}, time.Hour)
	require.NoError(t, err)
	g := store.Grant{Host: host, Room: 1, Served: all}
	settle := func(outcome vocab.Outcome, leases ...store.Lease) store.Settled {
		var batch []store.Settlement
		for _, l := range leases {
			batch = append(batch, settlement(l.StepKey, l.ID, outcome))
		}
		done, err := s.Settle(ctx, g, policy, batch)
		require.NoError(t, err)
		return done
	}
	task := newTask(plans[0])
	task.Key, task.KeyHash = task.UUID.String(), []byte{0}
	task.Identity, task.Unique = task.UUID[:], workflow.IdentityReturnExisting
	created, err := s.CreateTasks(ctx, g, []store.NewTask{task, newTask(plans[1]), newTask(plans[0]), newTask(plans[0])}, "")
	require.NoError(t, err)
	again, other := task, task // one has the same key, the other the same identity
	again.UUID, other.UUID, other.Key = taskUUID(), taskUUID(), taskUUID().String()
	known, err := s.CreateTasks(ctx, g, []store.NewTask{again, other}, "")
	require.NoError(t, err)
	for _, c := range known {
		require.Equal(t, store.Created{Outcome: store.CreateDuplicate, UUID: task.UUID}, c)
	}
	var leases []store.Lease
	for _, c := range created {
		leases = append(leases, c.Leases...)
	}
	require.NotEmpty(t, leases)
	next := settle(vocab.OutcomeSuccess, leases...).Leases
	claimed, err := s.Claim(ctx, store.Grant{Host: host, Room: 8, Served: all}, queue, handlers, 0)
	require.NoError(t, err)
	leases = append(next, claimed.Leases...)
	require.GreaterOrEqual(t, len(leases), 3)
	_, err = s.StepInputs(ctx, []vocab.UUID{leases[0].Task}, []store.StepKey{leases[0].StepKey})
	require.NoError(t, err)
	settle(vocab.OutcomeRetryable, leases[0])
	settle(vocab.OutcomePermanent, leases[1])
	settle(vocab.OutcomeReleased, leases[2])
	_, _, err = s.Heartbeat(ctx, host, "normal", handlers, time.Hour, nil)
	require.NoError(t, err)
	_, err = s.HostLeases(ctx, host)
	require.NoError(t, err)
	_, err = s.ReadTask(ctx, task.UUID)
	require.NoError(t, err)
	_, err = s.Snapshot(ctx, task.UUID)
	require.NoError(t, err)
	_, err = s.ReadSteps(ctx, task.UUID, 0, 10)
	require.NoError(t, err)
	_, err = s.ReadHistory(ctx, task.UUID, 0, 10)
	require.NoError(t, err)
	_, err = s.ListTasks(ctx, store.TaskFilter{Limit: 10})
	require.NoError(t, err)
	_, err = s.ListTasks(ctx, store.TaskFilter{Limit: 10, States: []vocab.TaskState{vocab.TaskInProgress}})
	require.NoError(t, err)
	_, err = s.ListTasks(ctx, store.TaskFilter{Limit: 10, Tags: []string{"none has this"}, Namespace: "lab"})
	require.NoError(t, err)
	_, err = s.ListLetters(ctx, store.LetterFilter{Limit: 10})
	require.NoError(t, err)
	_, err = s.WorkerLeases(ctx, time.Minute, time.Minute)
	require.NoError(t, err)
	_, err = s.ClaimHealth(ctx)
	require.NoError(t, err)
	_, err = s.Backlogs(ctx, []string{queue}, handlers)
	require.NoError(t, err)
	_, err = s.Connections(ctx, host, 10)
	require.NoError(t, err)
	_, err = s.QueueDepths(ctx)
	require.NoError(t, err)
	_, err = s.MessagesSetAside(ctx, 1000)
	require.NoError(t, err)
	mark, err := s.EventMark(ctx)
	require.NoError(t, err)
	_, _, err = s.ReadEvents(ctx, store.EventSpan{From: mark.Horizon, To: mark.Next, Since: mark.At.Add(-time.Second), Next: mark.Next, Limit: 10})
	require.NoError(t, err)

	worker := outsider{pool}
	jobs, err := worker.claim(ctx, handlers, 1, time.Minute)
	require.NoError(t, err)
	require.Len(t, jobs, 1)
	_, _, err = worker.heartbeat(ctx, jobs[0].StepKey, jobs[0].ID, nil)
	require.NoError(t, err)
	_, _, follows, err := worker.next(ctx, jobs[0].StepKey, jobs[0].ID, nil, handlers, time.Minute)
	require.NoError(t, err)
	if follows != nil {
		_, _, err = worker.settle(ctx, follows.StepKey, follows.ID, "success", nil, nil)
		require.NoError(t, err)
	}
	_, err = s.CreateTasks(ctx, store.Grant{}, []store.NewTask{newTask(plans[0]), newTask(plans[1]), newTask(plans[0]), newTask(plans[1])}, "")
	require.NoError(t, err)
	_, jobs, err = worker.exchange(ctx, hands{}, handlers, 2, time.Minute)
	require.NoError(t, err)
	require.Len(t, jobs, 2)
	_, jobs, err = worker.exchange(ctx, in(jobs), handlers, 9, time.Minute)
	require.NoError(t, err)
	require.Greater(t, len(jobs), 2)
	_, err = s.SweepWorkerLeases(ctx, policy)
	require.NoError(t, err)
	tasks := []store.NewTask{newTask(plans[0]), newTask(plans[1]), newTask(plans[0]), newTask(plans[1])}
	_, err = s.CreateTasks(ctx, store.Grant{}, tasks, "")
	require.NoError(t, err)
	_, err = s.SettlePosted(ctx, host, posted, policy, postedBy(t, pool, vocab.OutcomeSuccess, tasks[:2]...))
	require.NoError(t, err)
	_, err = s.SettlePosted(ctx, host, posted, policy, postedBy(t, pool, vocab.OutcomeRetryable, tasks[2]))
	require.NoError(t, err)
	_, err = s.SettlePosted(ctx, host, posted, policy, postedBy(t, pool, vocab.OutcomePermanent, tasks[1:]...)) // one of them is stale
	require.NoError(t, err)
	_, err = pool.Exec(ctx, "select pgmq.purge_queue($1)", queue) // as those who post results remove their messages
	require.NoError(t, err)
	_, _, err = s.SweepMessages(ctx, time.Hour)
	require.NoError(t, err)
	_, err = s.SweepHosts(ctx)
	require.NoError(t, err)

	f := finalizer.New(pool, "p", time.Minute)
	_, err = f.Claim(ctx, created[2].UUID)
	require.NoError(t, err)
	_, _, err = s.CancelTask(ctx, created[3].UUID, store.Operator{Reason: "no use"}, host)
	require.NoError(t, err)
	_, err = s.ReleaseHost(ctx, host, "gone", policy.ClaimFactor)
	require.NoError(t, err)
	_, _, err = s.PruneTasks(ctx, nil, vocab.UUID{}, store.Retention{Tasks: 1000 * day})
	require.NoError(t, err)
}

// TestPlansUseIndexes: everyday statements find their rows by an index, however large the
// tables have become: with plans made when the tables were empty (and known to be empty),
// without statistics, and with fresh ones.
func TestPlansUseIndexes(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	retried := chain(2)
	for i := range retried {
		retried[i].Retry.MaxAttempts = 5
	}
	plans := [2]*store.Plan{b.mustPlan(t, retried...), b.mustPlan(t, diamond()...)}
	b.exec(t, "vacuum analyze")
	w := &planWatch{bad: map[string][]string{}}
	url := b.pool.Config().ConnString()
	old := w.pool(t, url)
	for range 6 { // a statement has its generic plan after five executions
		daily(t, old, plans, b.all)
	}
	b.past(t, plans[0], time.Hour, 20_000)
	b.fillAside(t, 20_000)
	for _, c := range []struct {
		name string
		pool func() *pgxpool.Pool
	}{
		{"plans of empty tables", func() *pgxpool.Pool { return old }},
		{"no statistics", func() *pgxpool.Pool { return w.pool(t, url) }},
		{"fresh statistics", func() *pgxpool.Pool {
			b.exec(t, "analyze")
			return w.pool(t, url)
		}},
	} {
		pool := c.pool()
		w.listen(t, pool)
		w.seen = 0
		for range 6 {
			daily(t, pool, plans, b.all)
		}
		require.Empty(t, w.garbed)
		require.Greater(t, w.seen, 300, "auto_explain reports plans")
		var bad []string
		for statement, tables := range w.bad {
			bad = append(bad, fmt.Sprintf("%s: %.300s", strings.Join(tables, ", "), statement))
		}
		slices.Sort(bad)
		require.Empty(t, bad, "%s: these read tables from end to end", c.name)
	}
}

// fillAside fills the tables besides those of tasks: messages that are not due, keys,
// dead letters, finalization attempts.
func (b *bed) fillAside(t *testing.T, n int) {
	t.Helper()
	for _, sql := range []string{
		`insert into pgmq.q_` + queue + ` (vt, message) select clock_timestamp() + interval '1 day', '{}'`,
		`insert into tasker_idempotency_keys (namespace_id, idempotency_key, task_uuid, request_hash) select 1, 'old-' || n, gen_random_uuid(), '\x00'`,
		`insert into tasker_task_identities (identity_hash, namespace_id, task_uuid) select sha256(n::text::bytea), 1, gen_random_uuid()`,
		`insert into tasker_dead_letters (kind, queue_name, msg_id, reason) select 'message', 'q', n, 'malformed'`,
		`insert into tasker_finalization_attempts (task_uuid, processor_id, claimed, task_state, message) select gen_random_uuid(), 'p', true, 'complete', ''`,
	} {
		b.exec(t, sql+" from generate_series(1, $1::integer) n", n)
	}
}

// wide returns a root, a number of children, and one step that depends on all of them.
func wide(width int32) []workflow.Step {
	children := make([]int32, width)
	steps := []workflow.Step{step("root", nil, children)}
	for i := range width {
		children[i] = i + 1
		steps = append(steps, step(fmt.Sprintf("step_%d", i), []int32{0}, []int32{width + 1}))
	}
	return append(steps, step("join", children, nil))
}

// TestWideTasksWasteNothing: operations on a task with many steps look each of them up; a
// plan that reads all steps for each of them would work in small tests and never end with
// large tasks. The database has no statistics, like one that a host has just created.
func TestWideTasksWasteNothing(t *testing.T) {
	t.Parallel()
	const width = 800
	b := newBed(t)
	plan := b.mustPlan(t, wide(width)...)
	w := &planWatch{bad: map[string][]string{}, waste: map[string]float64{}}
	pool := w.analyze(t, b)
	ctx, s := t.Context(), store.New(pool)
	host, err := s.RegisterHost(ctx, store.HostInfo{Name: "wide", Version: "1", Environment: "test", State: "normal"}, time.Hour)
	require.NoError(t, err)
	task, g := newTask(plan), store.Grant{Host: host, Room: 100, Served: b.all}
	created, err := s.CreateTasks(ctx, g, []store.NewTask{task}, "")
	require.NoError(t, err)
	root := created[0].Leases[0]
	settled, err := s.Settle(ctx, g, policy, []store.Settlement{settlement(root.StepKey, root.ID, vocab.OutcomeSuccess)})
	require.NoError(t, err)
	require.Len(t, settled.Leases, 100)
	require.Equal(t, width-100, settled.Enqueued)
	g.Room = 300
	claimed, err := s.Claim(ctx, g, queue, handlers, 0)
	require.NoError(t, err)
	require.Len(t, claimed.Leases, 300)
	jobs, err := outsider{pool}.claim(ctx, handlers, 100, time.Minute)
	require.NoError(t, err)
	require.Len(t, jobs, 100)
	_, jobs, err = outsider{pool}.exchange(ctx, in(jobs), handlers, 100, time.Minute)
	require.NoError(t, err)
	require.Len(t, jobs, 100)
	var batch []store.Settlement
	for _, l := range append(settled.Leases, claimed.Leases...) {
		batch = append(batch, settlement(l.StepKey, l.ID, vocab.OutcomeSuccess))
	}
	_, err = s.Settle(ctx, g, policy, batch)
	require.NoError(t, err)
	results := postedBy(t, pool, vocab.OutcomeSuccess, slices.Repeat([]store.NewTask{task}, 150)...)
	for i := range results {
		results[i].Number = int32(width - i)
	}
	_, err = s.SettlePosted(ctx, host, posted, policy, results)
	require.NoError(t, err)
	_, err = s.ReadSteps(ctx, task.UUID, 0, width)
	require.NoError(t, err)
	_, _, err = s.CancelTask(ctx, task.UUID, store.Operator{Reason: "no use"}, host)
	require.NoError(t, err)

	w.requireWasteBelow(t, 5*width)
}

// TestTasksBesideAWideTemplateWasteNothing: tasks of a short template do not read the
// steps of a long one either, once statistics say that templates are long.
func TestTasksBesideAWideTemplateWasteNothing(t *testing.T) {
	t.Parallel()
	const many, width = 100, 10000
	b := newBed(t)
	short := b.mustPlan(t, chain(3)...)
	b.mustPlan(t, wide(width)...)
	b.exec(t, "analyze tasker_named_steps")
	w := &planWatch{bad: map[string][]string{}, waste: map[string]float64{}}
	pool := w.analyze(t, b)
	_, err := pool.Exec(t.Context(), "set cpu_index_tuple_cost = 0.05") // the planner's choice depends on many other things
	require.NoError(t, err)
	ctx, s := t.Context(), store.New(pool)
	host, err := s.RegisterHost(ctx, store.HostInfo{Name: "short", Version: "1", Environment: "test", State: "normal"}, time.Hour)
	require.NoError(t, err)
	tasks := make([]store.NewTask, many)
	for i := range tasks {
		tasks[i] = newTask(short)
	}
	g := store.Grant{Host: host, Room: many, Served: b.all}
	created, err := s.CreateTasks(ctx, g, tasks, "")
	require.NoError(t, err)
	var batch []store.Settlement
	for _, c := range created {
		require.Len(t, c.Leases, 1)
		batch = append(batch, settlement(c.Leases[0].StepKey, c.Leases[0].ID, vocab.OutcomeSuccess))
	}
	settled, err := s.Settle(ctx, g, policy, batch)
	require.NoError(t, err)
	require.Len(t, settled.Leases, many)
	batch = batch[:0]
	for _, l := range settled.Leases {
		batch = append(batch, settlement(l.StepKey, l.ID, vocab.OutcomeReleased))
	}
	_, err = s.Settle(ctx, store.Grant{Host: host}, policy, batch)
	require.NoError(t, err)
	leases, err := s.Claim(ctx, g, queue, handlers, 0)
	require.NoError(t, err)
	require.Len(t, leases.Leases, many)
	for i := range tasks {
		tasks[i] = newTask(short)
	}
	_, err = s.CreateTasks(ctx, store.Grant{}, tasks, "")
	require.NoError(t, err)
	_, jobs, err := outsider{pool}.exchange(ctx, hands{}, handlers, many, time.Minute)
	require.NoError(t, err)
	require.Len(t, jobs, many)
	_, jobs, err = outsider{pool}.exchange(ctx, in(jobs), handlers, many, time.Minute)
	require.NoError(t, err)
	require.Len(t, jobs, many)
	w.requireWasteBelow(t, 10*many)
}

// TestManyTasksWasteNothing: operations on many tasks at once do not search all of them
// for each one either.
func TestManyTasksWasteNothing(t *testing.T) {
	t.Parallel()
	const many = 400
	b := newBed(t)
	plan := b.mustPlan(t, chain(2)...)
	short := b.mustPlan(t, chain(1)...)
	w := &planWatch{bad: map[string][]string{}, waste: map[string]float64{}}
	pool := w.analyze(t, b)

	ctx, s := t.Context(), store.New(pool)
	host, err := s.RegisterHost(ctx, store.HostInfo{Name: "many", Version: "1", Environment: "test", State: "normal"}, time.Hour)
	require.NoError(t, err)
	tasks := make([]store.NewTask, many)
	for i := range tasks {
		tasks[i] = newTask(plan)
		switch i % 4 {
		case 0:
			tasks[i].Key, tasks[i].KeyHash = fmt.Sprintf("key-%d", i), []byte{1}
		case 1:
			tasks[i] = uniqueTask(short, fmt.Sprint(i), workflow.IdentityReject)
		}
	}
	g := store.Grant{Host: host, Room: many / 2, Served: b.all}
	created, err := s.CreateTasks(ctx, g, tasks, "")
	require.NoError(t, err)
	var batch []store.Settlement
	settle := func(leases []store.Lease) {
		for _, l := range leases {
			batch = append(batch, settlement(l.StepKey, l.ID, vocab.OutcomeSuccess))
		}
	}
	for _, c := range created {
		require.Equal(t, store.CreateDone, c.Outcome)
		settle(c.Leases)
	}
	require.Len(t, batch, many/2)
	g.Room = many
	claimed, err := s.Claim(ctx, g, queue, handlers, 0)
	require.NoError(t, err)
	require.Len(t, claimed.Leases, many/2)
	settle(claimed.Leases)
	settled, err := s.Settle(ctx, g, policy, batch)
	require.NoError(t, err)
	require.Len(t, settled.Finished, many/4)
	batch = nil
	settle(settled.Leases)
	settled, err = s.Settle(ctx, g, policy, batch)
	require.NoError(t, err)
	require.Len(t, settled.Finished, many-many/4)
	for _, outcome := range []vocab.Outcome{vocab.OutcomeSuccess, vocab.OutcomePermanent} {
		for i := range tasks {
			tasks[i] = newTask(plan)
		}
		_, err = s.CreateTasks(ctx, store.Grant{}, tasks, "")
		require.NoError(t, err)
		settled, err = s.SettlePosted(ctx, host, posted, policy, postedBy(t, pool, outcome, tasks...))
		require.NoError(t, err)
		require.Equal(t, slices.Repeat([]store.Verdict{store.Recorded}, many), settled.Verdicts)
	}
	w.requireWasteBelow(t, 8*many)
}

// TestRareTagsAreFoundWithoutHistory: a list by tag reads some of the newest tasks, and
// then only those with the tag, however many others there are.
func TestRareTagsAreFoundWithoutHistory(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	plan := b.mustPlan(t, chain(2)...)
	for _, days := range []time.Duration{1, 3} {
		b.past(t, plan, days*day, 10_000)
	}
	b.exec(t, `
update tasker_tasks set attributes = '{"tags": ["rare"]}'
 where task_uuid in ((select task_uuid from tasker_tasks order by task_uuid limit 1), (select task_uuid from tasker_tasks order by task_uuid offset 12000 limit 1))`)
	for _, name := range []string{"no statistics", "fresh statistics"} {
		w := &planWatch{bad: map[string][]string{}, waste: map[string]float64{}}
		pool := w.pool(t, b.pool.Config().ConnString())
		w.listen(t, pool)
		for _, set := range []string{"auto_explain.log_analyze = on", "auto_explain.log_timing = off"} {
			_, err := pool.Exec(t.Context(), "set "+set)
			require.NoError(t, err)
		}
		s := store.New(pool)
		for range 6 {
			got, err := s.ListTasks(t.Context(), store.TaskFilter{Tags: []string{"rare"}, Limit: 50})
			require.NoError(t, err)
			require.Len(t, got, 2)
		}
		require.Empty(t, w.garbed)
		require.Empty(t, w.bad, name)
		require.NotEmpty(t, w.waste, "the newest are read")
		for statement, rows := range w.waste {
			require.LessOrEqual(t, rows, 2100.0, "%s: %.300s", name, statement)
		}
		b.exec(t, "vacuum analyze")
	}
}

// TestWorkersFunctionsAreNotCompiled: a worker's session has the server's settings, not a
// host's. The estimated costs grow with the tables until the server compiles the
// functions to machine code, which takes a second per call for what takes milliseconds.
func TestWorkersFunctionsAreNotCompiled(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	rows, err := b.pool.Query(t.Context(), `
select p.proname || ' ' || coalesce(array_to_string(p.proconfig, ' '), '') from pg_proc p
 where p.prosecdef and p.pronamespace = current_schema()::regnamespace and p.proname ~ '^tasker_worker_' order by 1`)
	require.NoError(t, err)
	functions, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(functions), 4)
	for _, f := range functions {
		require.Contains(t, f, "jit=off")
	}
	// Nor does a worker's session read and sort a long queue to find its head.
	require.Contains(t, one[string](t, b, "select array_to_string(p.proconfig, ' ') from pg_proc p where p.proname = 'tasker_claim_steps'"), "enable_bitmapscan=off")
}
