package e2e_test

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	"github.com/tasker-systems/tasker-host/plugins/test/ledger/book"
)

// mutant is damage of one kind, and what the oracle must call it. {linear} and
// {doomed} are tasks of these shapes.
type mutant struct {
	name, invariant string
	sql             string           // damage to the database; or
	change          func(*evidence)  // damage to what the submitter or the steps wrote
	counted         func(counts) int // the figure that must show it; nil: none
}

var mutants = []mutant{
	{
		name: "a task is lost", invariant: "I1", counted: func(c counts) int { return c.lost },
		sql: `delete from tasker_tasks where task_uuid = {linear}; delete from tasker_workflow_steps where task_uuid = {linear};
		      delete from tasker_idempotency_keys where task_uuid = {linear}; delete from tasker_task_transitions where task_uuid = {linear};
		      delete from tasker_workflow_step_transitions where task_uuid = {linear}`,
	},
	{
		name: "a task has another id than was said", invariant: "I1", counted: func(c counts) int { return c.lost },
		change: func(e *evidence) { e.tasks[0].task = "00000000-0000-7000-8000-000000000000" },
	},
	{
		name: "a refused task exists", invariant: "I1",
		change: func(e *evidence) { e.tasks[0].outcome, e.tasks[0].task = refused, "" },
	},
	{
		name: "a task nobody asked for", invariant: "I1",
		sql: `delete from tasker_idempotency_keys where task_uuid = {linear}`,
	},
	{
		name: "a task is never finished", invariant: "I1", counted: func(c counts) int { return c.stuck },
		sql: `update tasker_tasks set state = 'in_progress', completed_at = null where task_uuid = {linear}`,
	},
	{
		name: "an outcome is recorded twice", invariant: "I2", counted: func(c counts) int { return c.finishedTwice },
		sql: `insert into tasker_workflow_step_transitions (task_uuid, step_no, sort_key, from_state, to_state, created_at, lease_id)
		      select task_uuid, step_no, sort_key + 1, from_state, to_state, created_at, lease_id
		        from tasker_workflow_step_transitions where task_uuid = {linear} and step_no = 0 and to_state = 'complete'`,
	},
	{
		name: "a step is completed under two leases", invariant: "I2", counted: func(c counts) int { return c.finishedTwice },
		sql: `insert into tasker_workflow_step_transitions (task_uuid, step_no, sort_key, from_state, to_state, created_at, lease_id)
		      select task_uuid, step_no, sort_key + 1, from_state, to_state, created_at, gen_random_uuid()
		        from tasker_workflow_step_transitions where task_uuid = {linear} and step_no = 0 and to_state = 'complete'`,
	},
	{
		name: "an outcome comes from a stale lease", invariant: "I2",
		sql: `update tasker_workflow_step_transitions set lease_id = gen_random_uuid() where task_uuid = {linear} and step_no = 2 and to_state = 'complete'`,
	},
	{
		name: "a child is enqueued twice", invariant: "I3",
		sql: `insert into tasker_workflow_step_transitions (task_uuid, step_no, sort_key, from_state, to_state, created_at)
		      values ({linear}, 3, 9, 'pending', 'enqueued', now())`,
	},
	{
		name: "a task is finished twice", invariant: "I4", counted: func(c counts) int { return c.finishedTwice },
		sql: `insert into tasker_task_transitions (task_uuid, sort_key, from_state, to_state, created_at) values ({linear}, 4, 'in_progress', 'complete', now())`,
	},
	{
		name: "a task is finished before its steps", invariant: "I5", counted: func(c counts) int { return c.early },
		sql: `update tasker_workflow_steps set state = 'in_progress' where task_uuid = {linear} and step_no = 3`,
	},
	{
		name: "a task has failed and goes on", invariant: "I5", counted: func(c counts) int { return c.early },
		sql: `update tasker_workflow_steps set state = 'enqueued' where task_uuid = {doomed} and step_no = 3`,
	},
	{
		name: "a failed task counts as complete", invariant: "I5",
		sql: `update tasker_tasks set state = 'complete' where task_uuid = {doomed}`,
	},
	{
		name: "a step of a complete task is left out", invariant: "I5",
		sql: `delete from tasker_workflow_steps where task_uuid = {linear} and step_no = 3`,
	},
	{
		name: "a message is left behind", invariant: "I6",
		sql: `select pgmq.send('chaos_queue', '{"task_uuid": "gone"}')`,
	},
	{
		name: "a lane names a message that is gone", invariant: "I6",
		sql: `insert into tasker_priority_messages values ('chaos_queue', 5, 1)`,
	},
	{
		name: "a step is set aside without need", invariant: "I6",
		sql: `insert into tasker_dead_letters (kind, task_uuid, step_no, reason) values ('step', {linear}, 0, 'claims_exhausted')`,
	},
	{
		name: "a running step has no lease", invariant: "I7", counted: func(c counts) int { return c.stuck },
		sql: `update tasker_tasks set state = 'in_progress', completed_at = null where task_uuid = {linear};
		      update tasker_workflow_steps set state = 'in_progress', lease_id = null, lease_host = null where task_uuid = {linear} and step_no = 3`,
	},
	{
		name: "a step waits for parents that are done", invariant: "I7", counted: func(c counts) int { return c.stuck },
		sql: `update tasker_tasks set state = 'in_progress', completed_at = null where task_uuid = {linear};
		      update tasker_workflow_steps set state = 'pending', remaining_parents = 1 where task_uuid = {linear} and step_no = 3`,
	},
	{
		name: "a step's history has a gap", invariant: "I8",
		sql: `update tasker_workflow_step_transitions set sort_key = sort_key + 1 where task_uuid = {linear} and step_no = 0 and to_state = 'complete'`,
	},
	{
		name: "a step's history jumps", invariant: "I8",
		sql: `delete from tasker_workflow_step_transitions where task_uuid = {linear} and step_no = 1 and to_state = 'in_progress'`,
	},
	{
		name: "a step's last change has no history", invariant: "I8",
		sql: `delete from tasker_workflow_step_transitions where task_uuid = {linear} and step_no = 1 and to_state = 'complete'`,
	},
	{
		name: "a task's history has a gap", invariant: "I8",
		sql: `update tasker_task_transitions set sort_key = sort_key + 1 where task_uuid = {linear} and to_state = 'complete'`,
	},
	{
		name: "a task's last change has no history", invariant: "I8",
		sql: `delete from tasker_task_transitions where task_uuid = {linear} and to_state = 'complete'`,
	},
	{
		name: "a step takes an illegal edge", invariant: "I8",
		sql: `alter table tasker_workflow_step_transitions drop constraint legal_edge;
		      insert into tasker_workflow_step_transitions (task_uuid, step_no, sort_key, from_state, to_state, created_at)
		      select task_uuid, step_no, sort_key + 1, 'complete', 'in_progress', created_at
		        from tasker_workflow_step_transitions where task_uuid = {linear} and step_no = 0 and to_state = 'complete'`,
	},
	{
		name: "a task takes an illegal edge", invariant: "I8",
		sql: `alter table tasker_task_transitions drop constraint legal_edge;
		      insert into tasker_task_transitions (task_uuid, sort_key, from_state, to_state, created_at) values ({linear}, 4, 'complete', 'pending', now())`,
	},
	{
		name: "a step is complete and never ran", invariant: "I9",
		change: func(e *evidence) {
			step := e.entries[0].Step
			e.entries = slices.DeleteFunc(e.entries, func(x book.Entry) bool { return x.Step == step })
		},
	},
	{
		name: "an effect happened twice", invariant: "I9", counted: func(c counts) int { return c.effectsTwice },
		change: func(e *evidence) {
			i := slices.IndexFunc(e.entries, func(x book.Entry) bool { return x.Event == book.Accepted })
			e.entries = append(e.entries, e.entries[i])
		},
	},
	{
		name: "two attempts show two keys", invariant: "I9", counted: func(c counts) int { return c.effectsTwice },
		change: func(e *evidence) { e.entries[0].Key += ".1" },
	},
	{
		name: "an effect is missing", invariant: "I9",
		change: func(e *evidence) { delete(e.keys, e.entries[0].Key) },
	},
	{name: "a panic", invariant: "I12", change: func(e *evidence) { e.logs += "panic: runtime error\n" }},
	{name: "a secret in a log", invariant: "I12", change: func(e *evidence) { e.logs += "postgres://tasker:" + canary + "@db\n" }},
}

// TestOracleSeesDamage: a run that went well is right, and each kind of damage
// to it is found. So a green run of chaos means something.
func TestOracleSeesDamage(t *testing.T) {
	t.Parallel()
	g := newGround(t, pace{1, 5})
	s := newSubmitter(g.sites[0].client(t), g.sites[1].client(t))
	for range 2 * len(mix) {
		s.submit(t.Context())
	}
	v := g.rest(t, s)
	v.require(t)
	require.Equal(t, 2*len(mix), v.tasks)
	g.depart(t)
	whole := g.evidence(t, s)

	ids := strings.NewReplacer("{linear}", "'"+taskOf(t, s, "linear")+"'", "{doomed}", "'"+taskOf(t, s, "doomed")+"'")
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			e := evidence{slices.Clone(whole.tasks), slices.Clone(whole.entries), maps.Clone(whole.keys), whole.logs}
			if m.change != nil {
				m.change(&e)
			}
			tx, err := g.db.Begin(t.Context())
			require.NoError(t, err)
			defer func() { require.NoError(t, tx.Rollback(context.WithoutCancel(t.Context()))) }()
			if m.sql != "" {
				// No guard of the database's own stands in the way.
				_, err := tx.Exec(t.Context(), "set local session_replication_role = replica; "+ids.Replace(m.sql), pgx.QueryExecModeSimpleProtocol)
				require.NoError(t, err)
			}
			found := judge(t, tx, e)
			require.True(t, slices.ContainsFunc(found.violations, func(x violation) bool { return x.invariant == m.invariant }),
				"the oracle found only %v", found.violations)
			if m.counted != nil {
				require.Positive(t, m.counted(found.counts))
			}
		})
	}
	judge(t, g.db, whole).require(t)
	t.Logf("RELIABILITY layer=oracle mutants=%d found=%d", len(mutants), len(mutants))
}

func taskOf(t *testing.T, s *submitter, shape string) string {
	t.Helper()
	i := slices.IndexFunc(s.tasks, func(x submitted) bool { return x.shape == shape })
	require.GreaterOrEqual(t, i, 0)
	return s.tasks[i].task
}

// TestOracleSeesIdleTransactions: a session that holds its transaction open.
func TestOracleSeesIdleTransactions(t *testing.T) {
	t.Parallel()
	db := oraclePool(t, pgtest.DSN(t))
	tx, err := db.Begin(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, tx.Rollback(context.WithoutCancel(t.Context()))) }()
	i := slices.IndexFunc(finalRules, func(r rule) bool { return r.invariant == "I11" })
	eventually(t, patience, "the open transaction is found", func() bool {
		v := &verdict{}
		v.apply(t, db, finalRules[i])
		return len(v.violations) == 1
	})
}

// TestOracleSeesProcesses: one that is left over, and one that nobody buried.
func TestOracleSeesProcesses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.Empty(t, processesOf(t, dir))
	sleep := filepath.Join(dir, "sleep")
	path, err := exec.LookPath("sleep")
	require.NoError(t, err)
	out, err := exec.Command("cp", path, sleep).CombinedOutput()
	require.NoError(t, err, string(out))

	orphan := exec.Command(sleep, "60")
	require.NoError(t, launch(orphan))
	defer func() { _ = orphan.Wait() }()
	require.Equal(t, map[int]string{orphan.Process.Pid: sleep}, processesOf(t, dir))
	require.NoError(t, orphan.Process.Kill())
	eventually(t, patience, "the dead process is found", func() bool { return zombiesOf(t, os.Getpid()) > 0 })
	require.Empty(t, processesOf(t, dir))
}
