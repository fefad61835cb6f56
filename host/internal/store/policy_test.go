package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// What keys and identities guarantee while many submit at once: whatever the answers are,
// there is a serial order of the batches in which the model gives the same answers, and
// the tables then match the model. Between the rounds, retention removes tasks.
func TestIdentityPolicy(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	r := newRush(t, b)
	rapid.Check(t, func(rt *rapid.T) {
		if found := r.play(rt); found != "" {
			rt.Fatal(found)
		}
	})
}

// policyHunt calls rush until something goes wrong.
func policyHunt(t *testing.T, b *bed) (found string) {
	t.Helper()
	r := newRush(t, b)
	for try := 0; try < 3 && found == ""; try++ { // it may take some luck
		rapid.Check(t, func(rt *rapid.T) {
			if found == "" {
				found = r.play(rt)
			}
		})
	}
	return found
}

// rush lets submitters submit at once, round after round.
type rush struct {
	bed   *bed
	plan  *store.Plan
	grant store.Grant
	plays atomic.Int64 // each has its own keys and identities
}

func newRush(t *testing.T, b *bed) *rush {
	t.Helper()
	return &rush{bed: b, plan: b.mustPlan(t, fan(1)...), grant: b.grant(b.host(t), 0)}
}

// play plays some rounds and returns what is wrong afterwards.
func (r *rush) play(rt *rapid.T) string {
	prefix := fmt.Sprintf("%d:", r.plays.Add(1))
	m := newModel()
	made := map[vocab.UUID]bool{}
	for range rapid.IntRange(1, 3).Draw(rt, "rounds") {
		batches := make([][]store.NewTask, rapid.IntRange(1, 4).Draw(rt, "submitters"))
		for i := range batches {
			batches[i] = r.draw(rt, prefix)
		}
		answers, refused := r.submit(rt.Context(), rt, batches)
		if refused != "" {
			return refused
		}
		after := explain(m, batches, answers)
		if after == nil {
			return "no order of the batches explains their answers:\n" + told(batches, answers)
		}
		m = after
		for i := range batches {
			for n, c := range answers[i] {
				if c.Outcome == store.CreateDone {
					made[batches[i][n].UUID] = true
				}
			}
		}
		if wrong := r.compare(rt, prefix, m, made); wrong != "" {
			return wrong + "\n" + told(batches, answers)
		}
		if rapid.IntRange(0, 2).Draw(rt, "retention") == 0 {
			r.forget(rt, m, made)
		}
	}
	return ""
}

func (r *rush) draw(rt *rapid.T, prefix string) []store.NewTask {
	batch := make([]store.NewTask, rapid.IntRange(1, 4).Draw(rt, "batch"))
	for i := range batch {
		batch[i] = newTask(r.plan)
		drawRequest(rt, &batch[i])
		batch[i].Identity = append([]byte(prefix), batch[i].Identity...)
		if batch[i].Key != "" {
			batch[i].Key = prefix + batch[i].Key
		}
	}
	return batch
}

// submit submits all batches at once. If the database refuses one, that is a violation.
func (r *rush) submit(ctx context.Context, rt *rapid.T, batches [][]store.NewTask) (answers [][]store.Created, refused string) {
	answers = make([][]store.Created, len(batches))
	calls := make([]func() error, len(batches))
	for i := range batches {
		calls[i] = func() (err error) {
			answers[i], err = r.bed.store.CreateTasks(ctx, r.grant, batches[i], "")
			return err
		}
	}
	err := together(calls...)
	if _, ok := errors.AsType[*pgconn.PgError](err); ok {
		return nil, err.Error()
	}
	if err != nil {
		rt.Fatalf("%v", err)
	}
	return answers, ""
}

// explain finds an order of the batches in which the model gives the same answers, and
// returns the resulting model, or nil if there is none.
func explain(before *model, batches [][]store.NewTask, answers [][]store.Created) *model {
	if len(batches) == 0 {
		return before
	}
	for i := range batches {
		m := &model{keys: maps.Clone(before.keys), holders: maps.Clone(before.holders)}
		same := slices.EqualFunc(m.ask(batches[i]), answers[i], func(want, got store.Created) bool {
			return want.Outcome == got.Outcome && want.UUID == got.UUID
		})
		if !same {
			continue
		}
		rest, told := slices.Delete(slices.Clone(batches), i, i+1), slices.Delete(slices.Clone(answers), i, i+1)
		if m := explain(m, rest, told); m != nil {
			return m
		}
	}
	return nil
}

func told(batches [][]store.NewTask, answers [][]store.Created) string {
	var b strings.Builder
	for i := range batches {
		for n := range batches[i] {
			fmt.Fprintf(&b, "submitter %d, %s: %s %s\n", i, askedFor(&batches[i][n]), answers[i][n].Outcome, answers[i][n].UUID)
		}
	}
	return b.String()
}

// compare returns how the tables differ from the model and the answers.
func (r *rush) compare(rt *rapid.T, prefix string, m *model, made map[vocab.UUID]bool) string {
	keys := r.read(rt, `select k.idempotency_key, k.task_uuid from tasker_idempotency_keys k where starts_with(k.idempotency_key, $1)`, prefix)
	want := map[string]vocab.UUID{}
	for key, used := range m.keys {
		want[key] = used.task
	}
	if !maps.Equal(keys, want) {
		return fmt.Sprintf("the keys are %v, want %v", keys, want)
	}
	holders := r.read(rt, `select convert_from(i.identity_hash, 'utf8'), i.task_uuid from tasker_task_identities i
	                        where starts_with(convert_from(i.identity_hash, 'utf8'), $1)`, prefix)
	maps.DeleteFunc(holders, func(_ string, task vocab.UUID) bool { return !made[task] }) // removed by retention
	if !maps.Equal(holders, m.holders) {
		return fmt.Sprintf("the identities are held by %v, want %v", holders, m.holders)
	}
	tasks := r.read(rt, `select t.task_uuid::text, t.task_uuid from tasker_tasks t where starts_with(convert_from(t.identity_hash, 'utf8'), $1)`, prefix)
	for _, task := range tasks {
		if !made[task] {
			return fmt.Sprintf("nobody was told of task %s", task)
		}
	}
	if len(tasks) != len(made) {
		return fmt.Sprintf("there are %d tasks, %d were told", len(tasks), len(made))
	}
	return ""
}

func (r *rush) read(rt *rapid.T, sql, prefix string) map[string]vocab.UUID {
	rows, err := r.bed.pool.Query(rt.Context(), sql, prefix)
	if err != nil {
		rt.Fatalf("%v", err)
	}
	found := map[string]vocab.UUID{}
	var name string
	var task vocab.UUID
	if _, err := pgx.ForEachRow(rows, []any{&name, &task}, func() error {
		found[name] = task
		return nil
	}); err != nil {
		rt.Fatalf("%v", err)
	}
	return found
}

// forget removes all tasks, like retention: their keys and identities are removed later.
func (r *rush) forget(rt *rapid.T, m *model, made map[vocab.UUID]bool) {
	gone := slices.Collect(maps.Keys(made))
	for _, table := range []string{"tasker_tasks", "tasker_workflow_steps", "tasker_task_transitions", "tasker_workflow_step_transitions"} {
		if _, err := r.bed.pool.Exec(rt.Context(), "delete from "+table+" where task_uuid = any($1)", gone); err != nil {
			rt.Fatalf("%v", err)
		}
	}
	clear(made)
	clear(m.holders)
}

// takeoverHunt: two submitters find that the task of an identity is gone; one waits until
// the other has put its own task in its place.
func takeoverHunt(t *testing.T, b *bed) string {
	t.Helper()
	p, g := b.mustPlan(t, fan(1)...), b.grant(b.host(t), 0)
	b.exec(t, `insert into tasker_task_identities (identity_hash, namespace_id, task_uuid)
	           select 'a', namespace_id, gen_random_uuid() from tasker_task_plans limit 1`)
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "select from tasker_task_identities for update")
	require.NoError(t, err)
	first := taskUUID()
	var created []store.Created
	err = blocked(t, b, faster{tx, g.Host, first, p.ID}, func(ctx context.Context) (err error) {
		created, err = b.store.CreateTasks(ctx, g, []store.NewTask{uniqueTask(p, "a", workflow.IdentityReject)}, "")
		return err
	})
	if err != nil {
		return refusedOrWrong(t, err)
	}
	if c := created[0]; c.Outcome != store.CreateExists || c.UUID != first {
		return fmt.Sprintf("the second is told %s %s, the first made %s", c.Outcome, c.UUID, first)
	}
	return oracleSays(t, b)
}

// faster creates a task with the identity before the other one commits.
type faster struct {
	pgx.Tx
	host int32
	task vocab.UUID
	plan int32
}

func (f faster) Commit(ctx context.Context) error {
	_, err := f.Exec(ctx, `select tasker_create_tasks($1, 0, '{}', array[$2::uuid], array[$3::int], array['{}'], '{null}', '{a}', '{null}',
	                         p_key => '{null}', p_unique => '{reject}')`, f.host, f.task, f.plan)
	if err != nil {
		return fmt.Errorf("create task %s: %w", f.task, err)
	}
	return f.Tx.Commit(ctx)
}

// orderHunt: two submitters have the same new identities in opposite order, and a third
// transaction holds the one in the middle until both wait.
func orderHunt(t *testing.T, b *bed) string {
	t.Helper()
	return otherWayRound(t, b, `insert into tasker_task_identities (identity_hash, namespace_id, task_uuid)
	                            select 'z', p.namespace_id, gen_random_uuid() from tasker_task_plans p where p.plan_id = $1`,
		func(p *store.Plan, name string) store.NewTask {
			return uniqueTask(p, name, workflow.IdentityReturnExisting)
		})
}

// keyOrderHunt: the same with new keys.
func keyOrderHunt(t *testing.T, b *bed) string {
	t.Helper()
	return otherWayRound(t, b, `insert into tasker_idempotency_keys (namespace_id, idempotency_key, task_uuid, request_hash)
	                            select p.namespace_id, 'z', gen_random_uuid(), '' from tasker_task_plans p where p.plan_id = $1`,
		func(p *store.Plan, name string) store.NewTask {
			task := newTask(p)
			task.Key, task.KeyHash = name, []byte(name)
			return task
		})
}

func otherWayRound(t *testing.T, b *bed, hold string, request func(p *store.Plan, name string) store.NewTask) string {
	t.Helper()
	p, g := b.mustPlan(t, fan(1)...), b.grant(b.host(t), 0)
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), hold, p.ID)
	require.NoError(t, err)
	calls := []func() error{func() error { // releases it when both wait
		for waiting := 0; waiting < 2; {
			if err := b.pool.QueryRow(t.Context(), `select count(*) from pg_stat_activity a
			                                         where a.datname = current_database() and a.wait_event_type = 'Lock'`).Scan(&waiting); err != nil {
				return fmt.Errorf("wait for both to wait: %w", errors.Join(err, tx.Rollback(t.Context())))
			}
		}
		return tx.Rollback(t.Context())
	}}
	for _, names := range []string{"azb", "bza"} {
		ids := []vocab.UUID{taskUUID(), taskUUID(), taskUUID()}
		slices.SortFunc(ids, func(a, b vocab.UUID) int { return bytes.Compare(a[:], b[:]) }) // the batch is in this order
		var batch []store.NewTask
		for i, name := range names {
			batch = append(batch, request(p, string(name)))
			batch[i].UUID = ids[i]
		}
		calls = append(calls, func() error {
			_, err := b.store.CreateTasks(t.Context(), g, batch, "")
			return err
		})
	}
	if err := together(calls...); err != nil {
		return refusedOrWrong(t, err)
	}
	return oracleSays(t, b)
}
