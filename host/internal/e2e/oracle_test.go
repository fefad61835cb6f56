package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/plugins/test/ledger/book"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// The oracle: whether what a run left behind is right.

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// evidence is what the oracle judges by, beside the database.
type evidence struct {
	tasks   []submitted     // what the submitter knows
	entries []book.Entry    // what the steps wrote down
	keys    map[string]bool // the effects that the sink took
	logs    string          // what the hosts said
}

// violation is one thing that is wrong.
type violation struct {
	invariant string // I1 to I12
	detail    string
}

func (v violation) String() string { return v.invariant + ": " + v.detail }

// counts are the figures of a run.
type counts struct {
	tasks, steps, started, cut                      int
	lost, finishedTwice, stuck, early, effectsTwice int
}

// verdict is what the oracle says.
type verdict struct {
	counts
	violations []violation
}

func (v *verdict) add(invariant, format string, args ...any) {
	v.violations = append(v.violations, violation{invariant, fmt.Sprintf(format, args...)})
}

// require fails the test for violations. deploy/gotest.sh knows the word: no second
// run makes up for one of these.
func (v *verdict) require(t testing.TB) {
	t.Helper()
	var lines []string
	for _, x := range v.violations[:min(len(v.violations), 40)] {
		lines = append(lines, x.String())
	}
	require.Empty(t, v.violations, "ORACLE: %d violations:\n%s", len(v.violations), strings.Join(lines, "\n"))
}

// rule is one query whose every row is a violation. It returns one text column.
type rule struct {
	invariant string
	sql       string
	count     func(*counts) *int // the figure it counts into; nil: none
}

// rules are the invariants that the database alone can tell. A step's history
// begins with the row itself: "pending", sort_key 1.
var rules = []rule{
	{"I2", `
select format('%s step %s was settled %s times under one lease', h.task_uuid, h.step_no, count(*))
  from tasker_workflow_step_transitions h
 where h.from_state = 'in_progress' and h.to_state in ('complete', 'error')
 group by h.task_uuid, h.step_no, h.lease_id having count(*) > 1`, func(c *counts) *int { return &c.finishedTwice }},
	{"I2", `
select format('%s step %s was completed %s times', h.task_uuid, h.step_no, count(*))
  from tasker_workflow_step_transitions h
 where h.to_state = 'complete'
 group by h.task_uuid, h.step_no having count(*) > 1`, func(c *counts) *int { return &c.finishedTwice }},
	{"I2", `
select format('%s step %s was settled under lease %s while %s held it', h.task_uuid, h.step_no, h.lease_id, h.before)
  from (select h.task_uuid, h.step_no, h.sort_key, h.from_state, h.to_state, h.lease_id, lag(h.lease_id) over (partition by h.task_uuid, h.step_no order by h.sort_key) as before
          from tasker_workflow_step_transitions h) h
 where h.from_state = 'in_progress' and h.to_state in ('complete', 'error', 'enqueued') and h.lease_id is distinct from h.before`, nil},
	{"I3", `
select format('%s step %s was made ready %s times for %s reasons', n.task_uuid, n.step_no, n.ready, n.reasons)
  from (select h.task_uuid, h.step_no,
               count(*) filter (where h.from_state = 'pending' and h.to_state in ('enqueued', 'in_progress')) as ready,
               1 + count(*) filter (where h.from_state = 'error' and h.to_state = 'pending') as reasons
          from tasker_workflow_step_transitions h
         group by h.task_uuid, h.step_no) n
 where n.ready > n.reasons`, nil},
	{"I4", `
select format('%s was finished %s times', h.task_uuid, count(*))
  from tasker_task_transitions h
 where h.to_state in ('complete', 'error', 'cancelled')
 group by h.task_uuid having count(*) > 1`, func(c *counts) *int { return &c.finishedTwice }},
	{
		"I5", `
select format('%s is %s with step %s %s', t.task_uuid, t.state, s.step_no, s.state)
  from tasker_tasks t join tasker_workflow_steps s on s.task_uuid = t.task_uuid
 where t.state = 'complete' and s.state <> 'complete'
    or t.state = 'error' and (s.state in ('enqueued', 'in_progress') or s.state = 'pending' and s.remaining_parents = 0)`,
		func(c *counts) *int { return &c.early },
	},
	{
		"I7", `
select format('%s step %s is in limbo: %s, %s', l.task_uuid, l.step_no, l.state, l.reason) from tasker_limbo l`,
		func(c *counts) *int { return &c.stuck },
	},
	{"I8", `
select format('%s step %s: entry %s goes from %s to %s, after %s', h.task_uuid, h.step_no, h.sort_key, h.from_state, h.to_state, h.before)
  from (select h.task_uuid, h.step_no, h.sort_key, h.from_state, h.to_state,
               coalesce(lag(h.sort_key) over w, 1) as last, coalesce(lag(h.to_state) over w, 'pending') as before
          from tasker_workflow_step_transitions h window w as (partition by h.task_uuid, h.step_no order by h.sort_key)) h
 where h.sort_key <> h.last + 1 or h.from_state <> h.before`, nil},
	{"I8", `
select format('%s step %s is %s (%s), its history ends with %s (%s)', s.task_uuid, s.step_no, s.state, s.sort_key, h.to_state, h.sort_key)
  from tasker_workflow_steps s
  left join (select distinct on (h.task_uuid, h.step_no) h.task_uuid, h.step_no, h.to_state, h.sort_key
               from tasker_workflow_step_transitions h order by h.task_uuid, h.step_no, h.sort_key desc) h
    on h.task_uuid = s.task_uuid and h.step_no = s.step_no
 where (s.state, s.sort_key) is distinct from (coalesce(h.to_state, 'pending'), coalesce(h.sort_key, 1))`, nil},
	{"I8", `
select format('task %s: entry %s goes from %s to %s, after %s', h.task_uuid, h.sort_key, h.from_state, h.to_state, h.before)
  from (select h.task_uuid, h.sort_key, h.from_state, h.to_state,
               coalesce(lag(h.sort_key) over w, 1) as last, coalesce(lag(h.to_state) over w, 'pending') as before
          from tasker_task_transitions h window w as (partition by h.task_uuid order by h.sort_key)) h
 where h.sort_key <> h.last + 1 or h.from_state <> h.before`, nil},
	{"I8", `
select format('task %s is %s (%s), its history ends with %s (%s)', t.task_uuid, t.state, t.sort_key, h.to_state, h.sort_key)
  from tasker_tasks t
  left join (select distinct on (h.task_uuid) h.task_uuid, h.to_state, h.sort_key
               from tasker_task_transitions h order by h.task_uuid, h.sort_key desc) h on h.task_uuid = t.task_uuid
 where (t.state, t.sort_key) is distinct from (coalesce(h.to_state, 'pending'), coalesce(h.sort_key, 1))`, nil},
}

// snapshotRules hold at every moment, also in the middle of trouble.
var snapshotRules = []string{"I2", "I3", "I4", "I5", "I7", "I8"}

// finalRules hold when everything has come to rest.
var finalRules = []rule{
	{
		"I1", `
select format('%s is %s', t.task_uuid, t.state) from tasker_tasks t where t.state in ('pending', 'in_progress')`,
		func(c *counts) *int { return &c.stuck },
	},
	{"I6", `
select format('the queue %s still holds %s', m.queue, m.message)
  from (select 'chaos_queue' as queue, q.message from pgmq.q_chaos_queue q
        union all select 'task_requests_queue', q.message from pgmq.q_task_requests_queue q
        union all select 'orchestration_step_results', q.message from pgmq.q_orchestration_step_results q) m`, nil},
	{"I6", `
select format('a priority lane names message %s, which is gone', p.msg_id) from tasker_priority_messages p`, nil},
	{"I6", `
select format('dead letter: %s %s step %s: %s', d.reason, d.task_uuid, d.step_no, d.detail)
  from tasker_dead_letters d where d.reason <> 'permanent_failure'`, nil},
	{"I11", `
select format('session %s of %s is %s since %s', a.pid, a.application_name, a.state, a.state_change)
  from pg_stat_activity a
 where a.datname = current_database() and a.pid <> pg_backend_pid()
   and a.state like 'idle in transaction%' and a.state_change < clock_timestamp() - interval '3 seconds'`, nil},
}

// snapshot checks what must hold at every moment.
func snapshot(t testing.TB, db querier) *verdict {
	t.Helper()
	v := &verdict{}
	for _, r := range rules {
		if slices.Contains(snapshotRules, r.invariant) {
			v.apply(t, db, r)
		}
	}
	return v
}

// judge checks everything, once all has come to rest.
func judge(t testing.TB, db querier, e evidence) *verdict {
	t.Helper()
	v := &verdict{}
	for _, r := range slices.Concat(rules, finalRules) {
		v.apply(t, db, r)
	}
	v.judgeEdges(t, db)
	v.judgeTasks(t, db, e)
	v.judgeEffects(t, db, e)
	v.judgeLogs(e.logs)
	return v
}

func (v *verdict) apply(t testing.TB, db querier, r rule) {
	t.Helper()
	found := column[string](t, db, r.sql)
	for _, text := range found {
		v.add(r.invariant, "%s", text)
	}
	if r.count != nil {
		*r.count(&v.counts) += len(found)
	}
}

// judgeEdges compares every transition with the tables of package vocab, which
// the database does not know.
func (v *verdict) judgeEdges(t testing.TB, db querier) {
	t.Helper()
	type edge struct{ From, To string }
	for _, e := range structs[edge](t, db, `select distinct h.from_state::text as from, h.to_state::text as to from tasker_workflow_step_transitions h`) {
		if !vocab.CanStep(vocab.StepState(e.From), vocab.StepState(e.To)) {
			v.add("I8", "a step went from %s to %s", e.From, e.To)
		}
	}
	for _, e := range structs[edge](t, db, `select distinct h.from_state::text as from, h.to_state::text as to from tasker_task_transitions h`) {
		if !vocab.CanTask(vocab.TaskState(e.From), vocab.TaskState(e.To)) {
			v.add("I8", "a task went from %s to %s", e.From, e.To)
		}
	}
}

// taskRow is a task and its steps as the database has them.
type taskRow struct {
	UUID, Template, State, Key string
	Steps                      []string // "name=state", by number
}

const sqlTasks = `
select t.task_uuid::text as uuid, m.name as template, t.state::text as state, coalesce(k.idempotency_key, '') as key,
       array(select n.name || '=' || s.state from tasker_workflow_steps s
               join tasker_named_steps n on n.plan_id = s.plan_id and n.step_no = s.step_no
              where s.task_uuid = t.task_uuid order by n.name) as steps
  from tasker_tasks t
  join tasker_task_plans p on p.plan_id = t.plan_id
  join tasker_named_tasks m on m.named_task_uuid = p.named_task_uuid
  left join tasker_idempotency_keys k on k.task_uuid = t.task_uuid`

// judgeTasks: what the submitter was told is so, nothing else exists, and every
// task and step came to the end that its template leads to.
func (v *verdict) judgeTasks(t testing.TB, db querier, e evidence) {
	t.Helper()
	found := map[string]taskRow{}
	for _, row := range structs[taskRow](t, db, sqlTasks) {
		if first, twice := found[row.Key]; twice {
			v.add("I1", "key %s made two tasks, %s and %s", row.Key, first.UUID, row.UUID)
		}
		found[row.Key] = row
		v.tasks++
		v.steps += len(row.Steps)
	}
	for _, s := range e.tasks {
		row, exists := found[s.key]
		delete(found, s.key)
		switch {
		case s.outcome == refused && exists:
			v.add("I1", "key %s was refused, but made task %s", s.key, row.UUID)
		case s.outcome == accepted && !exists:
			v.lost++
			v.add("I1", "task %s of key %s was acknowledged and does not exist", s.task, s.key)
		case s.outcome == accepted && row.UUID != s.task:
			v.lost++
			v.add("I1", "key %s was acknowledged as task %s and is %s", s.key, s.task, row.UUID)
		}
		if exists {
			v.judgeEnd(row)
		}
	}
	for key, row := range found {
		v.add("I1", "task %s of key %q was never submitted", row.UUID, key)
	}
}

func (v *verdict) judgeEnd(row taskRow) {
	want := shapes[row.Template]
	if row.State != want.state {
		v.add("I5", "task %s (%s) is %s, want %s", row.UUID, row.Template, row.State, want.state)
	}
	if !slices.Equal(row.Steps, want.steps) {
		v.add("I5", "steps of task %s (%s) are %v, want %v", row.UUID, row.Template, row.Steps, want.steps)
	}
}

// judgeEffects compares the ledger with the database: every step that succeeded
// has run and had its effect once, whatever happened in between; all attempts
// of a step showed the same key; and the attempt whose result counts did run.
func (v *verdict) judgeEffects(t testing.TB, db querier, e evidence) {
	t.Helper()
	keyOf, taken, leases, returned := map[string]string{}, map[string]int{}, map[string]bool{}, map[string]bool{}
	for _, x := range e.entries {
		if key, seen := keyOf[x.Step]; seen && key != x.Key {
			v.effectsTwice++
			v.add("I9", "step %s ran with the keys %s and %s", x.Step, key, x.Key)
		}
		keyOf[x.Step] = x.Key
		switch x.Event {
		case book.Started:
			v.started++
			leases[x.Lease] = true
		case book.Accepted:
			if taken[x.Key]++; taken[x.Key] > 1 {
				v.effectsTwice++
				v.add("I9", "the effect of key %s was taken %d times", x.Key, taken[x.Key])
			}
		case book.Returned:
			returned[x.Lease] = true
		}
	}
	for lease := range leases {
		if !returned[lease] {
			v.cut++
		}
	}
	type done struct{ Step, Lease string }
	for _, s := range structs[done](t, db, `
select tasker_step_uuid(h.task_uuid, h.step_no)::text as step, h.lease_id::text as lease
  from tasker_workflow_step_transitions h where h.to_state = 'complete'`) {
		if !leases[s.Lease] {
			v.add("I9", "step %s is complete under lease %s, which never ran", s.Step, s.Lease)
		}
		if !e.keys[keyOf[s.Step]] {
			v.add("I9", "step %s is complete, but its effect was not taken", s.Step)
		}
	}
}

// judgeLogs: no panics, no data races, no secrets.
func (v *verdict) judgeLogs(logs string) {
	for _, word := range []string{"panic:", "goroutine ", "DATA RACE", canary} {
		if i := strings.Index(logs, word); i >= 0 {
			v.add("I12", "a log says %q: …%s…", word, logs[max(0, i-200):min(len(logs), i+400)])
		}
	}
}

// figures is the one line that a run is remembered by.
func (v *verdict) figures(fault string, rounds int, recovery, bound time.Duration) string {
	return fmt.Sprintf("RELIABILITY layer=chaos fault=%s rounds=%d tasks=%d steps=%d attempts=%d cut=%d lost=%d finished_twice=%d stuck=%d early=%d effects_twice=%d max_recovery_s=%.2f bound_s=%.2f",
		fault, rounds, v.tasks, v.steps, v.started, v.cut, v.lost, v.finishedTwice, v.stuck, v.early, v.effectsTwice, recovery.Seconds(), bound.Seconds())
}

func column[T any](t testing.TB, db querier, sql string, args ...any) []T {
	t.Helper()
	rows, err := db.Query(t.Context(), sql, args...)
	require.NoError(t, err)
	all, err := pgx.CollectRows(rows, pgx.RowTo[T])
	require.NoError(t, err)
	return all
}

func structs[T any](t testing.TB, db querier, sql string, args ...any) []T {
	t.Helper()
	rows, err := db.Query(t.Context(), sql, args...)
	require.NoError(t, err)
	all, err := pgx.CollectRows(rows, pgx.RowToStructByName[T])
	require.NoError(t, err)
	return all
}
