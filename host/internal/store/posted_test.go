package store_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// post: outside workers post the outcomes of steps, some without a claim, and a host
// reads them.
func (m *machine) post() {
	outcomes := vocab.Outcomes[:1] // a batch holds successes or failures
	if rapid.Bool().Draw(m.T, "fails") {
		outcomes = []vocab.Outcome{vocab.OutcomeRetryable, vocab.OutcomePermanent}
	}
	all := m.steps(func(*modelStep) bool { return true })
	open := m.steps((*modelStep).moves)
	var batch []store.Posted
	for range rapid.IntRange(1, 4).Draw(m.T, "results") {
		key := pick(m, "step", all)
		if len(open) > 0 && rapid.IntRange(0, 3).Draw(m.T, "open") > 0 {
			key = pick(m, "open step", open)
		}
		var lease vocab.UUID
		if rapid.Bool().Draw(m.T, "claimed") {
			lease = m.drawLease(key)
		}
		if slices.ContainsFunc(batch, func(p store.Posted) bool { return p.StepKey == key && p.Lease == lease && lease != none }) {
			continue // which of two results under one lease counts is undefined
		}
		batch = append(batch, m.posted(settlement(key, lease, rapid.SampledFrom(outcomes).Draw(m.T, "outcome"))))
	}
	if rapid.IntRange(0, 9).Draw(m.T, "unknown") == 0 {
		batch = append(batch, m.posted(settlement(store.StepKey{Task: taskUUID()}, none, outcomes[0])))
	}
	gone := map[int64]bool{}
	if rapid.IntRange(0, 3).Draw(m.T, "judged before") == 0 {
		id := pick(m, "message", batch).Message
		m.exec("delete from pgmq.q_"+posted+" where msg_id = $1", id)
		gone[id] = true
	}
	m.settlePosted(batch, gone)
	if rapid.IntRange(0, 2).Draw(m.T, "repeated") == 0 { // the reply was lost
		for _, p := range batch {
			gone[p.Message] = true
		}
		m.settlePosted(batch, gone)
	}
}

func (m *machine) posted(s store.Settlement) store.Posted {
	p := store.Posted{Settlement: s}
	m.must(m.bed.pool.QueryRow(m.ctx, `select pgmq.send($1, '{"of": "a step"}')`, posted).Scan(&p.Message))
	return p
}

func (m *machine) settlePosted(batch []store.Posted, gone map[int64]bool) {
	letters := m.letters()
	at := [2]time.Time{0: m.now()}
	leases := map[store.StepKey]int{}
	for i := range batch {
		leases[batch[i].StepKey] = m.leases(batch[i].StepKey)
	}
	got, err := m.bed.store.SettlePosted(m.ctx, pick(m, "host", m.live), posted, m.policy, batch)
	m.must(err)
	at[1] = m.now()
	for i := range batch { // first, all that can be leased are leased
		if p := &batch[i]; p.Lease == none && !gone[p.Message] {
			if s := m.model.step(p.StepKey); s != nil && s.waits() && m.wasDue(s, p.StepKey, m.leases(p.StepKey) > leases[p.StepKey], at) {
				p.Lease = m.adopted(p.StepKey)
			}
		}
	}
	verdicts := make([]store.Verdict, len(batch))
	var look []vocab.UUID
	aside := 0
	for i, p := range batch {
		if gone[p.Message] {
			verdicts[i] = store.AlreadyRecorded
			continue
		}
		v, looks := m.model.settle(p.Settlement, m.policy, at)
		if verdicts[i] = v; looks {
			look = append(look, p.Task)
		}
		if v == store.StaleLease || v == store.UnknownStep {
			aside++
		}
	}
	m.requireSettled(got, verdicts, look)
	if now := m.letters(); now != letters+aside {
		m.Fatalf("%d messages were set aside, want %d", now-letters, aside)
	}
	if left := m.exec("delete from pgmq.q_" + posted); left > 0 {
		m.Fatalf("%d messages outlive the results they brought", left)
	}
	for i, p := range batch {
		if verdicts[i] == store.Recorded && m.exec("delete from tasker_worker_leases where lease_id = $1", p.Lease) > 0 {
			m.Fatalf("the lease of step %v outlives it", p.StepKey)
		}
	}
}

// leases counts the leases that a step has had; 0 also for a step that does not exist.
func (m *machine) leases(key store.StepKey) (n int) {
	m.must(m.bed.pool.QueryRow(m.ctx, "select coalesce(sum(s.lease_no), 0) from tasker_workflow_steps s where s.task_uuid = $1 and s.step_no = $2",
		key.Task, key.Number).Scan(&n))
	return n
}

// wasDue reports whether a step that waits could be claimed. Only if it became due
// meanwhile does that depend on what was seen.
func (m *machine) wasDue(s *modelStep, key store.StepKey, leased bool, at [2]time.Time) bool {
	switch {
	case s.state == vocab.StepEnqueued || !s.dueTo.After(at[0]):
		return true
	case s.dueFrom.After(at[1]):
		if leased {
			m.Fatalf("step %v was leased %s before it was due", key, s.dueFrom.Sub(at[1]))
		}
		return false
	default:
		return leased
	}
}

// letters counts the messages that were set aside.
func (m *machine) letters() (n int) {
	m.must(m.bed.pool.QueryRow(m.ctx, "select count(*) from tasker_dead_letters where queue_name = $1", posted).Scan(&n))
	return n
}

// adopted records the lease that a step was given for a result without one.
func (m *machine) adopted(key store.StepKey) (lease vocab.UUID) {
	m.must(m.bed.pool.QueryRow(m.ctx, "select lease_id from tasker_workflow_steps where task_uuid = $1 and step_no = $2", key.Task, key.Number).Scan(&lease))
	if slices.ContainsFunc(m.model.granted, func(g store.Lease) bool { return g.ID == lease }) {
		m.Fatalf("lease %s was granted before", lease)
	}
	s := m.model.step(key)
	m.model.granted = append(m.model.granted, store.Lease{StepKey: key, ID: lease})
	s.state, s.lease, s.host, s.claims, s.expired, s.hinted = vocab.StepInProgress, lease, 0, s.claims+1, false, true
	s.dueFrom, s.dueTo = time.Time{}, time.Time{}
	return lease
}

// post sends a message for a result and returns both.
func (b *bed) post(t *testing.T, s store.Settlement) store.Posted {
	t.Helper()
	return store.Posted{Settlement: s, Message: one[int64](t, b, `select pgmq.send($1, '{"of": "a step"}')`, posted)}
}

// postedBy sends a message for the first step of each task, with an outcome that names
// no lease.
func postedBy(t *testing.T, pool *pgxpool.Pool, outcome vocab.Outcome, tasks ...store.NewTask) []store.Posted {
	t.Helper()
	batch := make([]store.Posted, len(tasks))
	for i := range batch {
		batch[i] = (&bed{pool: pool}).post(t, settlement(store.StepKey{Task: tasks[i].UUID}, none, outcome))
	}
	return batch
}

// twiceHunt: two workers have run the same step without a claim.
func twiceHunt(t *testing.T, b *bed) string {
	t.Helper()
	host := b.host(t)
	task, _ := b.create(t, b.grant(host, 0), b.mustPlan(t, fan(1)...))
	batch := make([]store.Posted, 3)
	for i := range batch {
		s := settlement(store.StepKey{Task: task}, none, vocab.OutcomeSuccess)
		s.Result = fmt.Appendf(nil, "%d", i)
		batch[i] = b.post(t, s)
	}
	got, err := b.store.SettlePosted(t.Context(), host, posted, policy, batch)
	require.NoError(t, err)
	if want := []store.Verdict{store.Recorded, store.StaleLease, store.StaleLease}; !slices.Equal(want, got.Verdicts) {
		return fmt.Sprintf("verdicts %v, want %v", got.Verdicts, want)
	}
	if result := one[string](t, b, "select result::text from tasker_workflow_steps"); result != "0" {
		return fmt.Sprintf("the result is %s, want that of the first", result)
	}
	return oracleSays(t, b)
}

// attemptHunt: a step without a claim fails, and its next attempt ends before it is due
// and after.
func attemptHunt(t *testing.T, b *bed) string {
	t.Helper()
	host := b.host(t)
	for _, last := range []vocab.Outcome{vocab.OutcomeSuccess, vocab.OutcomeRetryable} {
		steps := fan(1)
		steps[0].Retry.MaxAttempts = 2
		task, _ := b.create(t, b.grant(host, 0), b.mustPlan(t, steps...))
		step := store.StepKey{Task: task}
		for i, attempt := range []struct {
			due     string
			outcome vocab.Outcome
			verdict store.Verdict
		}{
			{"null", vocab.OutcomeRetryable, store.Recorded},
			{"clock_timestamp() + interval '1 hour'", vocab.OutcomeSuccess, store.StaleLease},
			{"clock_timestamp()", last, store.Recorded},
		} {
			b.exec(t, "update tasker_workflow_steps set due_at = "+attempt.due+" where task_uuid = $1", task)
			got, err := b.store.SettlePosted(t.Context(), host, posted, policy, []store.Posted{b.post(t, settlement(step, none, attempt.outcome))})
			require.NoError(t, err)
			if got.Verdicts[0] != attempt.verdict {
				return fmt.Sprintf("result %d is %s, want %s", i, got.Verdicts[0], attempt.verdict)
			}
		}
		if tries := one[int](t, b, "select attempts from tasker_workflow_steps where task_uuid = $1", task); tries != 2 {
			return fmt.Sprintf("%d attempts are counted, want 2", tries)
		}
		if state := b.taskState(t, task); (state == vocab.TaskComplete) != (last == vocab.OutcomeSuccess) || state == vocab.TaskInProgress {
			return fmt.Sprintf("the task is %s after a %s", state, last)
		}
	}
	return oracleSays(t, b)
}

// postedOrderHunt: one result names the lease of a step, another is for a later step of
// the same task and without a claim; both kinds of steps are settled in order.
func postedOrderHunt(t *testing.T, b *bed) string {
	t.Helper()
	host := b.host(t)
	task, leases := b.create(t, b.grant(host, 1), b.mustPlan(t, fan(2)...))
	own, other := leases[0].Number, 1-leases[0].Number
	first, second := settlement(store.StepKey{Task: task, Number: own}, leases[0].ID, vocab.OutcomeSuccess),
		settlement(store.StepKey{Task: task, Number: other}, none, vocab.OutcomeSuccess)
	require.Less(t, own, other)
	return b.postInOrder(t, host, task, b.post(t, first), b.post(t, second))
}

// buryOrderHunt: a step fails for good without a claim, while others wait.
func buryOrderHunt(t *testing.T, b *bed) string {
	t.Helper()
	host := b.host(t)
	task, _ := b.create(t, b.grant(host, 0), b.mustPlan(t, fan(3)...))
	return b.postInOrder(t, host, task, b.post(t, settlement(store.StepKey{Task: task, Number: 1}, none, vocab.OutcomePermanent)))
}

func (b *bed) postInOrder(t *testing.T, host int32, task vocab.UUID, batch ...store.Posted) string {
	t.Helper()
	return locksInOrder(t, b, task, func(ctx context.Context) error {
		_, err := b.store.SettlePosted(ctx, host, posted, policy, batch)
		return err
	})
}

func TestPostedResults(t *testing.T) {
	t.Parallel()
	for name, hunt := range map[string]func(*testing.T, *bed) string{
		"twice": twiceHunt, "attempt": attemptHunt, "order": postedOrderHunt, "bury": buryOrderHunt,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Empty(t, hunt(t, newBed(t)))
		})
	}
}
