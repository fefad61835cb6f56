package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// The protocol of steps under random histories: everything that hosts, messages,
// operators and clocks can do, in any order; each move is compared with the model, after
// which the oracle checks the whole database. At the end of each history all faults stop,
// and every task must end correctly.
//
// By default, two databases go through a hundred histories each; -rapid.checks and
// -rapid.steps make more and longer ones.
func TestProtocol(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"one", "two"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			var histories, moves int
			rapid.Check(t, func(rt *rapid.T) {
				m := newMachine(rt, b)
				m.play()
				histories, moves = histories+1, moves+m.moves
			})
			t.Logf("%d histories, %d moves", histories, moves)
		})
	}
}

// machine plays one history.
type machine struct {
	*rapid.T
	ctx   context.Context
	bed   *bed
	model *model
	plans []*store.Plan
	live  []int32 // hosts, including dead ones
	moves int

	policy store.Policy
	hunts  bool   // looks for a violation, which then does not fail the test
	found  string // the violation
}

// violation stops a hunting machine.
type violation string

// Fatalf reports a violation.
func (m *machine) Fatalf(format string, args ...any) {
	if m.hunts {
		panic(violation(fmt.Sprintf(format, args...)))
	}
	m.T.Helper()
	m.T.Fatalf(format, args...)
}

// unlessFound does a move, unless a violation has been found already.
func (m *machine) unlessFound(move func()) {
	if m.found != "" {
		return
	}
	defer func() {
		switch v := recover().(type) {
		case nil:
		case violation:
			m.found = string(v)
		default:
			panic(v)
		}
	}()
	move()
}

// newMachine starts a history with some plans and two hosts.
func newMachine(rt *rapid.T, b *bed) *machine {
	m := &machine{T: rt, ctx: rt.Context(), bed: b, model: newModel(), policy: policy}
	m.policy.ClaimFactor = rapid.IntRange(1, 2).Draw(rt, "claim factor")
	m.clear()
	for range rapid.IntRange(1, 3).Draw(rt, "plans") {
		p, err := b.plan(m.ctx, drawSteps(rt)...)
		m.must(err)
		m.plans = append(m.plans, p)
	}
	m.addHost()
	m.addHost()
	return m
}

// clear empties the tables, because the oracle and the sweeps look at everything.
func (m *machine) clear() {
	var batch pgx.Batch
	for _, table := range []string{
		"tasker_tasks", "tasker_workflow_steps", "tasker_task_transitions", "tasker_workflow_step_transitions", "tasker_dead_letters",
		"tasker_hosts", "tasker_revocations", "tasker_workers", "tasker_worker_leases", "tasker_worker_counts", "tasker_finalization_attempts", "tasker_idempotency_keys", "tasker_task_identities", "tasker_priority_messages",
		"pgmq.q_" + queue, "pgmq.q_" + posted,
	} {
		batch.Queue("delete from " + table)
	}
	batch.Queue("update tasker_task_namespaces set paused_at = null")
	m.must(m.bed.pool.SendBatch(m.ctx, &batch).Close())
}

// drawSteps draws a small plan.
func drawSteps(rt *rapid.T) []workflow.Step {
	n := rapid.IntRange(1, 6).Draw(rt, "steps")
	steps := make([]workflow.Step, n)
	for i := range steps {
		base, longest := time.Duration(rapid.IntRange(0, 3).Draw(rt, "base"))*time.Millisecond, 6*time.Millisecond
		if rapid.IntRange(0, 1).Draw(rt, "long") == 0 {
			base, longest = 10*time.Second, 15*time.Second
		}
		steps[i] = workflow.Step{
			Name: fmt.Sprintf("step_%d", i), Handler: rapid.SampledFrom(handlers).Draw(rt, "handler"), Config: json.RawMessage("{}"),
			Retry: workflow.Retry{
				Retryable: rapid.IntRange(0, 5).Draw(rt, "retryable") > 0, MaxAttempts: rapid.IntRange(1, 3).Draw(rt, "attempts"),
				Backoff: rapid.SampledFrom(workflow.Backoffs).Draw(rt, "backoff"), Base: base, Cap: longest,
				Jitter: rapid.SampledFrom([]float64{0, 0.5, 1}).Draw(rt, "jitter"),
			},
		}
		steps[i].Skippable = rapid.Bool().Draw(rt, "skippable")
		if rapid.IntRange(0, 3).Draw(rt, "priority") == 0 {
			steps[i].Priority = new(rapid.IntRange(1, 5).Draw(rt, "priority"))
		}
		for p := range i {
			if rapid.IntRange(0, 2).Draw(rt, "edge") == 0 {
				steps[i].Parents = append(steps[i].Parents, int32(p))
				steps[p].Children = append(steps[p].Children, int32(i))
			}
		}
	}
	return steps
}

// play performs random moves, then brings everything to rest.
func (m *machine) play() {
	moves := map[string]func(*rapid.T){}
	for name, move := range map[string]func(){
		"create": m.create, "claim": m.claim, "claim more": m.claim, "settle": m.settle, "settle more": m.settle, "settle again": m.settle,
		"results come": m.post, "more results come": m.post, "host joins": m.addHost, "host dies": m.hostDies, "heartbeat": m.heartbeat, "sweep hosts": m.sweepHosts,
		"message lost": m.loseMessage, "message too many": m.hint, "sweep messages": m.sweepMessages, "time passes": m.timePasses,
		"worker claims": m.workerClaim, "worker lives": m.workerHeartbeat, "worker settles": m.workerSettles, "worker settles more": m.workerSettles,
		"worker goes on":      m.workerNext,
		"worker exchanges":    m.workerExchanges,
		"worker's lease ends": m.workerLeaseEnds, "sweep workers": m.sweepWorkers,
		"cancel": m.cancel, "by hand": m.settleByHand, "resolve task": m.resolveTask,
		"retry": m.retry, "resolve step": m.resolveStep, "pause": m.pause,
		"claim finalization": m.claimFinalization, "apply finalization": m.applyFinalization,
		"release finalization": m.releaseFinalization, "finalization expires": m.expireFinalization,
	} {
		moves[name] = func(rt *rapid.T) { m.T = rt; m.unlessFound(move); m.moves++ }
	}
	moves[""] = func(*rapid.T) { m.unlessFound(m.compare) }
	m.unlessFound(m.create)
	m.Repeat(moves)
	m.unlessFound(m.rest)
}

func (m *machine) must(err error) {
	if err == nil {
		return
	}
	if _, refused := errors.AsType[*pgconn.PgError](err); !refused {
		m.T.Fatalf("%v", err)
	}
	m.Fatalf("%v", err)
}

// now reads the database's clock.
func (m *machine) now() (at time.Time) {
	m.must(m.bed.pool.QueryRow(m.ctx, "select clock_timestamp()").Scan(&at))
	return at
}

func (m *machine) exec(sql string, args ...any) int64 {
	tag, err := m.bed.pool.Exec(m.ctx, sql, args...)
	m.must(err)
	return tag.RowsAffected()
}

// Drawing ---------------------------------------------------------------------

// pick draws an element of a list; if the list is empty, the move is not possible now.
func pick[T any](m *machine, label string, list []T) T {
	if len(list) == 0 {
		m.Skip("no " + label)
	}
	return list[rapid.IntRange(0, len(list)-1).Draw(m.T, label)]
}

func (m *machine) task() *modelTask { return m.model.tasks[pick(m, "task", m.model.order)] }

// steps lists the steps for which a condition holds.
func (m *machine) steps(holds func(*modelStep) bool) (keys []store.StepKey) {
	for _, id := range m.model.order {
		for i := range m.model.tasks[id].steps {
			if holds(&m.model.tasks[id].steps[i]) {
				keys = append(keys, store.StepKey{Task: id, Number: int32(i)})
			}
		}
	}
	return keys
}

func (m *machine) grant() store.Grant {
	g := store.Grant{Host: pick(m, "host", m.live), Room: rapid.IntRange(0, 6).Draw(m.T, "room"), Served: m.bed.all}
	if rapid.IntRange(0, 3).Draw(m.T, "serves all") == 0 {
		g.Served = g.Served[:1]
	}
	return g
}

func (m *machine) served(g store.Grant) []string { return handlers[:len(g.Served)] }

// Comparing -------------------------------------------------------------------

// compare requires that the database matches the model, and that the oracle finds nothing
// wrong.
func (m *machine) compare() {
	rows, err := m.bed.pool.Query(m.ctx, `
select s.task_uuid, s.step_no, s.state::text, s.remaining_parents, s.attempts, s.claims, s.lease_id, coalesce(s.lease_host, 0), s.doomed,
       s.generation, s.due_at, t.generation, t.state::text, t.open_sinks, t.finalize_lease, coalesce(t.finalize_by, ''), t.finalize_claims
  from tasker_workflow_steps s join tasker_tasks t on t.task_uuid = s.task_uuid`)
	m.must(err)
	defer rows.Close()
	found := 0
	for ; rows.Next(); found++ {
		var key store.StepKey
		var have modelStep
		var task modelTask
		var lease, claim *vocab.UUID
		var due *time.Time
		m.must(rows.Scan(&key.Task, &key.Number, &have.state, &have.remaining, &have.attempts, &have.claims, &lease, &have.host, &have.doomed,
			&have.generation, &due, &task.generation, &task.state, &task.open, &claim, &task.claimBy, &task.finalizeClaims))
		if lease != nil {
			have.lease = *lease
		}
		if claim != nil {
			task.claim = *claim
		}
		m.compareStep(key, have, due)
		m.compareTask(key.Task, task)
	}
	m.must(rows.Err())
	if want := len(m.steps(func(*modelStep) bool { return true })); found != want {
		m.Fatalf("the database has %d steps, the model %d", found, want)
	}
	m.compareMessages()
	wrong, err := violations(m.ctx, m.bed.pool)
	m.must(err)
	if len(wrong) > 0 {
		m.Fatalf("%s", strings.Join(wrong, "\n"))
	}
}

func (m *machine) compareStep(key store.StepKey, have modelStep, due *time.Time) {
	want := m.model.step(key)
	if want == nil {
		m.Fatalf("the database has step %v, the model does not", key)
	}
	switch {
	case due == nil:
		if !want.dueFrom.IsZero() {
			m.Fatalf("step %v has no due time", key)
		}
	case due.Before(want.dueFrom) || due.After(want.dueTo):
		m.Fatalf("step %v is due at %v, want %v to %v", key, due, want.dueFrom, want.dueTo)
	default:
		want.dueFrom, want.dueTo = *due, *due
	}
	have.dueFrom, have.dueTo, have.hinted, have.muted, have.expired = want.dueFrom, want.dueTo, want.hinted, want.muted, want.expired
	if have != *want {
		m.Fatalf("step %v is\n%+v, want\n%+v", key, have, *want)
	}
}

func (m *machine) compareTask(id vocab.UUID, have modelTask) {
	want := m.model.tasks[id]
	if have.state != want.state || have.open != want.open || have.claim != want.claim || have.claimBy != want.claimBy ||
		have.finalizeClaims != want.finalizeClaims || have.generation != want.generation {
		m.Fatalf("task %s is %s of generation %d with %d open sinks, claimed %d times, now %s by %q; want %s, %d, %d, %d, %s, %q",
			id, have.state, have.generation, have.open, have.finalizeClaims, have.claim, have.claimBy,
			want.state, want.generation, want.open, want.finalizeClaims, want.claim, want.claimBy)
	}
}

// message is a message in the queue.
type message struct {
	id int64
	store.StepKey
	visible time.Time
}

func (m *machine) messages() []message {
	rows, err := m.bed.pool.Query(m.ctx, `
select q.msg_id, tasker_task_of((q.message ->> 'step_uuid')::uuid), tasker_step_no((q.message ->> 'step_uuid')::uuid), q.vt
  from pgmq.q_`+queue+` q order by q.msg_id`)
	m.must(err)
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (g message, err error) {
		err = row.Scan(&g.id, &g.Task, &g.Number, &g.visible)
		return g, err
	})
	m.must(err)
	return list
}

// compareMessages requires that only hints are superfluous (I6), and that what waits has
// a message unless it was lost.
func (m *machine) compareMessages() {
	queued := map[store.StepKey]bool{}
	for _, g := range m.messages() {
		queued[g.StepKey] = true
		if s := m.model.step(g.StepKey); s == nil || !s.waits() && !s.hinted {
			m.Fatalf("message %d is for step %v, which does not wait", g.id, g.StepKey)
		}
	}
	for _, k := range m.steps(func(*modelStep) bool { return true }) {
		s := m.model.step(k)
		s.muted = s.muted && s.waits()
		if s.waits() && !s.muted && !queued[k] {
			m.Fatalf("step %v waits without a message", k)
		}
	}
}

// rest ends all faults and requires that every task ends.
func (m *machine) rest() {
	m.setPaused(false)
	m.addHost()
	host := m.live[len(m.live)-1]
	for round := 0; slices.ContainsFunc(m.model.order, func(id vocab.UUID) bool { return m.model.tasks[id].state.Active() }); round++ {
		if round > 60 {
			m.Fatalf("work is left after %d rounds", round)
		}
		m.timePasses()
		m.sweepHosts()
		m.expireFinalization()
		m.sweepMessages()
		m.claimFor(m.bed.grant(host, 50))
		var batch []store.Settlement
		for _, k := range m.steps(func(s *modelStep) bool { return s.state == vocab.StepInProgress }) {
			batch = append(batch, settlement(k, m.model.step(k).lease, vocab.OutcomeSuccess))
		}
		m.settleBatch(m.bed.grant(host, 3), batch)
		m.compare()
	}
	for len(m.messages()) > 0 { // hints: they must do nothing
		m.timePasses()
		m.claimFor(m.bed.grant(host, 50))
	}
	m.compare()
}
