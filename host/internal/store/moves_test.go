package store_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/finalizer"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// The moves of the machine: each does one thing to the database and to the model, and
// checks the database's answer.

func (m *machine) create() {
	batch := make([]store.NewTask, rapid.IntRange(1, 3).Draw(m.T, "tasks"))
	for i := range batch {
		p := pick(m, "plan", m.plans)
		batch[i] = newTask(p)
		drawRequest(m.T, &batch[i])
		if rapid.IntRange(0, 3).Draw(m.T, "urgent") == 0 {
			batch[i].Priority = new(int32(4))
		}
	}
	g := m.grant()
	created, err := m.bed.store.CreateTasks(m.ctx, g, batch, "")
	m.must(err)
	leased := 0
	for i, want := range m.model.ask(batch) {
		if c := created[i]; c.Outcome != want.Outcome || c.UUID != want.UUID {
			m.Fatalf("%s: %s %s, want %s %s", askedFor(&batch[i]), c.Outcome, c.UUID, want.Outcome, want.UUID)
		}
		if want.Outcome != store.CreateDone {
			continue
		}
		m.model.create(want.UUID, m.planOf(batch[i].Plan))
		m.takeGranted(created[i].Leases, g)
		leased += len(created[i].Leases)
	}
	m.requireRoomUsed(g, leased, created)
}

// requests are requests for tasks: those with the same hash are the same request, with
// the same identity and policy. Different requests may share an identity.
var requests = []struct {
	hash, identity string
	policy         workflow.IdentityPolicy
}{
	{"h1", "many", workflow.IdentityAllow},
	{"h2", "many", workflow.IdentityAllow},
	{"h3", "one", workflow.IdentityReject},
	{"h4", "one", workflow.IdentityReject},
	{"h5", "other", workflow.IdentityReturnExisting},
	{"h6", "other", workflow.IdentityReturnExisting},
	{"h7", "both", workflow.IdentityReject},
	{"h8", "both", workflow.IdentityReturnExisting},
}

// drawRequest draws a request for a task, often with a key.
func drawRequest(rt *rapid.T, t *store.NewTask) {
	r := requests[rapid.IntRange(0, len(requests)-1).Draw(rt, "request")]
	t.Identity, t.Unique = []byte(r.identity), r.policy
	if t.Key = rapid.SampledFrom([]string{"", "", "k1", "k2"}).Draw(rt, "key"); t.Key != "" {
		t.KeyHash = []byte(r.hash)
	}
}

func askedFor(t *store.NewTask) string {
	return fmt.Sprintf("task %s with key %q of %q and identity %q (%s)", t.UUID, t.Key, t.KeyHash, t.Identity, t.Unique)
}

func (m *machine) planOf(id int32) *store.Plan {
	return m.plans[slices.IndexFunc(m.plans, func(p *store.Plan) bool { return p.ID == id })]
}

// requireRoomUsed requires that roots were leased as far as there was room.
func (m *machine) requireRoomUsed(g store.Grant, leased int, created []store.Created) {
	could := 0
	for _, c := range created {
		if c.Outcome != store.CreateDone {
			continue
		}
		t := m.model.tasks[c.UUID]
		for i := range t.steps {
			if t.steps[i].remaining == 0 && slices.Contains(g.Served, t.plan.HandlerIDs[i]) {
				could++
			}
		}
	}
	want := min(could, g.Room)
	if m.model.hosts[g.Host].dead || m.model.paused {
		want = 0
	}
	if leased != want {
		m.Fatalf("%d roots were leased, want %d", leased, want)
	}
}

// takeGranted records leases that the database granted without a claim: none while the
// queue is paused.
func (m *machine) takeGranted(leases []store.Lease, g store.Grant) {
	if m.model.paused && len(leases) > 0 {
		m.Fatalf("%d steps were started while the queue is paused", len(leases))
	}
	m.take(leases, g)
}

// take records leases that the database granted.
func (m *machine) take(leases []store.Lease, g store.Grant) {
	until := m.now()
	for _, l := range leases {
		if err := m.model.lease(l, g.Host, g.Served, until); err != nil {
			m.Fatalf("%v", err)
		}
	}
	if len(leases) > g.Room {
		m.Fatalf("%d leases, room was for %d", len(leases), g.Room)
	}
}

func (m *machine) claim() { m.claimFor(m.grant()) }

func (m *machine) claimFor(g store.Grant) {
	before, from := m.messages(), m.now()
	c, err := m.bed.store.Claim(m.ctx, g, queue, m.served(g), 0)
	m.must(err)
	var due []message // those it had to find
	for _, msg := range before {
		if t := m.model.tasks[msg.Task]; !msg.visible.After(from) && slices.Contains(g.Served, t.plan.HandlerIDs[msg.Number]) {
			due = append(due, msg)
		}
	}
	waited := m.steps(func(s *modelStep) bool { return s.waits() && !s.dueFrom.After(from) })
	m.takeGranted(c.Leases, g)
	if m.model.paused && c.Taken > 0 {
		m.Fatalf("%d messages were taken while the queue is paused", c.Taken)
	}
	if m.model.hosts[g.Host].dead || m.model.paused {
		return
	}
	if c.Taken < min(len(due), g.Room) || c.Taken > g.Room {
		m.Fatalf("claim with room for %d took %d of %d messages", g.Room, c.Taken, len(due))
	}
	for _, msg := range due {
		if g.Room >= len(before) && slices.Contains(waited, msg.StepKey) && m.model.step(msg.StepKey).state != vocab.StepInProgress {
			m.Fatalf("step %v was due, its message %d was there, and it was not claimed", msg.StepKey, msg.id)
		}
	}
	m.requireStillQueued(before)
}

// requireStillQueued requires that no waiting step lost the message that wakes it: only
// premature hints may be dropped.
func (m *machine) requireStillQueued(before []message) {
	after := m.messages()
	for _, msg := range before {
		s := m.model.step(msg.StepKey)
		if !s.waits() || s.muted || msg.visible.Before(s.dueFrom) {
			continue
		}
		if !slices.ContainsFunc(after, func(a message) bool { return a.StepKey == msg.StepKey }) {
			m.Fatalf("step %v waits, and a claim dropped its message %d", msg.StepKey, msg.id)
		}
	}
}

// excuse is a reason to give a step back that is not the step's fault.
var excuse = json.RawMessage(`{"message": "host_stopping", "excused": true}`)

func (m *machine) settle() {
	held := m.steps(func(s *modelStep) bool { return s.state == vocab.StepInProgress })
	all := m.steps(func(*modelStep) bool { return true })
	outcomes := vocab.Outcomes[:1] // a batch contains successes or failures
	if rapid.Bool().Draw(m.T, "fails") {
		outcomes = vocab.Outcomes[1:]
	}
	var batch []store.Settlement
	for range rapid.IntRange(1, 4).Draw(m.T, "settlements") {
		key := pick(m, "step", all)
		if len(held) > 0 && rapid.IntRange(0, 3).Draw(m.T, "running") > 0 {
			key = pick(m, "held", held)
		}
		if slices.ContainsFunc(batch, func(b store.Settlement) bool { return b.StepKey == key }) {
			continue
		}
		s := settlement(key, m.drawLease(key), rapid.SampledFrom(outcomes).Draw(m.T, "outcome"))
		if s.Outcome == vocab.OutcomeReleased && rapid.IntRange(0, 2).Draw(m.T, "excused") == 0 {
			s.Error = excuse
		}
		if rapid.IntRange(0, 4).Draw(m.T, "retry after") == 0 {
			s.RetryAfter = 2 * time.Millisecond
			if st := m.model.step(key); s.Outcome == vocab.OutcomeReleased && st.claims-st.attempts > 1 {
				s.RetryAfter = 0 // the wait grows fast, see TestWaitAfterLostPlugins
			}
		}
		batch = append(batch, s)
	}
	if rapid.IntRange(0, 9).Draw(m.T, "unknown") == 0 {
		batch = append(batch, settlement(store.StepKey{Task: taskUUID()}, randomUUID(), outcomes[0]))
	}
	m.settleBatch(m.grant(), batch)
	if rapid.IntRange(0, 2).Draw(m.T, "repeated") == 0 { // the reply was lost
		m.settleBatch(m.grant(), batch)
	}
}

// drawLease usually draws the step's own lease, else a former one, one of another step,
// or one that never existed.
func (m *machine) drawLease(key store.StepKey) vocab.UUID {
	var former, foreign []vocab.UUID
	for _, l := range m.model.granted {
		if l.StepKey == key {
			former = append(former, l.ID)
		} else {
			foreign = append(foreign, l.ID)
		}
	}
	own := m.model.step(key).lease
	switch kind := rapid.IntRange(0, 9).Draw(m.T, "lease"); {
	case kind == 0 && len(former) > 0:
		return pick(m, "former lease", former)
	case kind == 1 && len(foreign) > 0:
		return pick(m, "foreign lease", foreign)
	case kind == 2 || own == none:
		return randomUUID()
	default:
		return own
	}
}

func (m *machine) settleBatch(g store.Grant, batch []store.Settlement) {
	if len(batch) == 0 {
		return
	}
	at := [2]time.Time{0: m.now()}
	got, err := m.bed.store.Settle(m.ctx, g, m.policy, batch)
	m.must(err)
	at[1] = m.now()
	verdicts := make([]store.Verdict, len(batch))
	var look []vocab.UUID
	for i, s := range batch {
		v, looks := m.model.settle(s, m.policy, at)
		if verdicts[i] = v; looks {
			look = append(look, s.Task)
		}
	}
	m.takeGranted(got.Leases, g)
	m.requireSettled(got, verdicts, look)
}

// requireSettled requires the verdicts, and that the tasks in which nothing moves any
// more have ended.
func (m *machine) requireSettled(got store.Settled, verdicts []store.Verdict, look []vocab.UUID) {
	if !slices.Equal(verdicts, got.Verdicts) {
		m.Fatalf("verdicts %v, want %v", got.Verdicts, verdicts)
	}
	var ended []vocab.UUID
	for _, id := range look {
		if m.model.tasks[id].conclude() {
			ended = append(ended, id)
		}
	}
	if len(ended) != len(got.Finished) {
		m.Fatalf("finished %v, want %v", got.Finished, ended)
	}
	for _, f := range got.Finished {
		if !slices.Contains(ended, f.UUID) || m.model.tasks[f.UUID].state != f.State {
			m.Fatalf("finished %v, want %v", got.Finished, ended)
		}
	}
}

// Hosts -------------------------------------------------------------------------

func (m *machine) addHost() {
	if len(m.live) > 5 {
		m.Skip("enough hosts")
	}
	id, err := m.bed.newHost(m.ctx)
	m.must(err)
	m.live = append(m.live, id)
	m.model.hosts[id] = &modelHost{}
}

// hostDies lets a host's lease expire. It may continue to make calls, as a zombie.
func (m *machine) hostDies() {
	m.exec("update tasker_hosts set alive_until = clock_timestamp() - interval '1 ms' where host_id = $1", pick(m, "host", m.live))
}

func (m *machine) heartbeat() {
	host := pick(m, "host", m.live)
	alive, _, err := m.bed.store.Heartbeat(m.ctx, host, "normal", handlers, time.Hour, nil)
	m.must(err)
	if alive == m.model.hosts[host].dead {
		m.Fatalf("heartbeat of host %d: alive %v", host, alive)
	}
}

func (m *machine) sweepHosts() {
	var late []int32
	rows, err := m.bed.pool.Query(m.ctx, "select host_id from tasker_hosts where alive_until < clock_timestamp()")
	m.must(err)
	for rows.Next() {
		var id int32
		m.must(rows.Scan(&id))
		late = append(late, id)
	}
	m.must(rows.Err())
	gone, err := m.bed.store.SweepHosts(m.ctx)
	m.must(err)
	for _, id := range late {
		m.model.hosts[id].dead = true
		if swept := !slices.ContainsFunc(gone, func(g store.GoneHost) bool { return g.ID == id }); swept != m.model.hosts[id].swept {
			m.Fatalf("host %d is late and the sweep does not see it", id)
		}
	}
	for _, g := range gone {
		factor := m.policy.ClaimFactor
		if rapid.Bool().Draw(m.T, "stopped") {
			factor = 0
		}
		n, err := m.bed.store.ReleaseHost(m.ctx, g.ID, "its host is gone", factor)
		m.must(err)
		held := m.steps(func(s *modelStep) bool { return s.state == vocab.StepInProgress && s.host == g.ID })
		if n != len(held) {
			m.Fatalf("host %d held %d steps, %d were given back", g.ID, len(held), n)
		}
		for _, k := range held {
			m.model.release(m.model.tasks[k.Task], k.Number, m.policy.ClaimFactor, factor == 0)
		}
		for _, k := range held {
			m.model.tasks[k.Task].conclude()
		}
		m.model.hosts[g.ID].swept = true
	}
}

// Messages ----------------------------------------------------------------------

func (m *machine) loseMessage() {
	msg := pick(m, "message", m.messages())
	m.exec("delete from pgmq.q_"+queue+" where msg_id = $1", msg.id)
	m.model.step(msg.StepKey).muted = true
}

// hint sends a message for a step, whether it waits for one or not.
func (m *machine) hint() {
	k := pick(m, "step", m.steps(func(*modelStep) bool { return true }))
	m.model.step(k).hinted = true
	m.exec("select tasker_enqueue(array[$1::uuid], array[$2::integer])", k.Task, k.Number)
	if rapid.Bool().Draw(m.T, "bare") { // as others may send it
		m.exec("update pgmq.q_" + queue + " set headers = null where msg_id = (select max(msg_id) from pgmq.q_" + queue + ")")
	}
}

func (m *machine) sweepMessages() {
	messages, from := m.messages(), m.now()
	n, stalled, err := m.bed.store.SweepMessages(m.ctx, 0)
	m.must(err)
	until, lost, perhaps := m.now(), 0, 0
	for _, k := range m.steps((*modelStep).waits) {
		if slices.ContainsFunc(messages, func(g message) bool { return g.StepKey == k }) {
			continue
		}
		switch due := m.model.step(k).dueTo; {
		case due.Before(from):
			lost++
		case due.Before(until):
			perhaps++
		}
	}
	if n < lost || n > lost+perhaps {
		m.Fatalf("%d messages were lost, %d were sent anew", lost, n)
	}
	for _, g := range m.messages() {
		m.model.step(g.StepKey).muted = false
	}
	for _, id := range m.model.order {
		t := m.model.tasks[id]
		if left := t.state.Active() && !t.moving(); left != slices.Contains(stalled, id) {
			m.Fatalf("task %s has nothing that moves: %v; the sweep says %v", id, left, stalled)
		}
	}
	f := finalizer.New(m.bed.pool, "sweep", time.Minute)
	for _, id := range stalled {
		t := m.model.tasks[id]
		state, err := f.Finalize(m.ctx, id)
		m.must(err)
		if !t.claimed() {
			t.finalizeClaims++
			t.conclude()
		}
		if state != t.state {
			m.Fatalf("finalize task %s: %s, want %s", id, state, t.state)
		}
	}
}

// timePasses makes everything due that waits for a time.
func (m *machine) timePasses() {
	m.exec("update pgmq.q_" + queue + " set vt = clock_timestamp() - interval '1 ms' where vt > clock_timestamp() - interval '1 ms'")
	m.exec("update tasker_workflow_steps set due_at = clock_timestamp() - interval '2 ms' where due_at > clock_timestamp() - interval '2 ms'")
	now := m.now()
	for _, k := range m.steps(func(s *modelStep) bool { return !s.dueFrom.IsZero() }) {
		m.model.step(k).dueFrom = time.Unix(1, 0)
		m.model.step(k).dueTo = now
	}
	m.compare() // adopts the new times
}

// People --------------------------------------------------------------------------

func (m *machine) cancel() {
	if rapid.IntRange(0, 2).Draw(m.T, "seldom") > 0 {
		m.Skip("seldom")
	}
	t := m.task()
	state, took, err := m.bed.store.CancelTask(m.ctx, t.id, store.Operator{Reason: "no longer needed"}, m.live[0])
	m.must(err)
	if took != m.model.stop(t, vocab.TaskCancelled) || state != t.state {
		m.Fatalf("cancel task %s: %s %v, want %s", t.id, state, took, t.state)
	}
}

// resolveTask declares a task done.
func (m *machine) resolveTask() {
	if rapid.IntRange(0, 2).Draw(m.T, "seldom") > 0 {
		m.Skip("seldom")
	}
	t := m.task()
	state, took, err := m.bed.store.ResolveTask(m.ctx, t.id, operator, m.live[0])
	m.must(err)
	if took != m.model.stop(t, vocab.TaskResolvedManually) || state != t.state {
		m.Fatalf("resolve task %s: %s %v, want %s", t.id, state, took, t.state)
	}
}

var operator = store.Operator{By: "ops", Reason: "the night shift"}

// pickRepairable usually draws a step in a state that repairs are for.
func (m *machine) pickRepairable() store.StepKey {
	all := m.steps(func(*modelStep) bool { return true })
	failed := m.steps(func(s *modelStep) bool { return s.state == vocab.StepError })
	if len(failed) > 0 && rapid.IntRange(0, 3).Draw(m.T, "failed") > 0 {
		return pick(m, "failed step", failed)
	}
	return pick(m, "step", all)
}

// retry retries a failed step, or all failed steps of its task.
func (m *machine) retry() {
	if rapid.Bool().Draw(m.T, "all") {
		m.retryTask()
	} else {
		m.retryStep()
	}
}

func (m *machine) retryTask() {
	t := m.model.tasks[m.pickRepairable().Task]
	got, err := m.bed.store.RetryTask(m.ctx, t.id, operator, m.live[0])
	m.must(err)
	if want := m.model.retry(t, -1); !slices.Equal(got.Steps, want) || got.Task != t.state {
		m.Fatalf("retry task %s: %+v, want %s and steps %v", t.id, got, t.state, want)
	}
}

func (m *machine) retryStep() {
	k := m.pickRepairable()
	t := m.model.tasks[k.Task]
	got, err := m.bed.store.RetryStep(m.ctx, k, operator, m.live[0])
	m.must(err)
	if want := m.model.retry(t, k.Number); !slices.Equal(got.Steps, want) || got.Task != t.state || got.Step != m.model.step(k).state {
		m.Fatalf("retry step %v: %+v, want %s, %s", k, got, t.state, m.model.step(k).state)
	}
}

func (m *machine) resolveStep() {
	k := m.pickRepairable()
	t := m.model.tasks[k.Task]
	var got store.Resolution
	var err error
	skip := rapid.Bool().Draw(m.T, "skip")
	if skip {
		got, err = m.bed.store.SkipStep(m.ctx, k, operator, m.live[0])
	} else {
		got, err = m.bed.store.ResolveStep(m.ctx, k, json.RawMessage(`{"by": "hand"}`), operator, m.live[0])
	}
	m.must(err)
	if want := m.model.resolve(t, k.Number, skip); got.Verdict != want || got.Task != t.state || got.Step != m.model.step(k).state {
		m.Fatalf("resolve step %v (skip %v): %+v, want %s, %s, %s", k, skip, got, want, t.state, m.model.step(k).state)
	}
}

// pause pauses the queue, or resumes it.
func (m *machine) pause() {
	paused := !m.model.paused && rapid.IntRange(0, 2).Draw(m.T, "seldom") == 0
	m.setPaused(paused)
}

func (m *machine) setPaused(paused bool) {
	_, err := m.bed.store.PauseQueue(m.ctx, namespace, paused, operator)
	m.must(err)
	m.model.paused = paused
}

// settleByHand resolves a waiting sink bypassing the engine, as with psql: nothing is
// counted, nothing is concluded.
func (m *machine) settleByHand() {
	sinks := m.steps(func(s *modelStep) bool { return s.waits() })
	sinks = slices.DeleteFunc(sinks, func(k store.StepKey) bool { return len(m.model.tasks[k.Task].plan.Steps[k.Number].Children) > 0 })
	k := pick(m, "sink", sinks)
	m.exec(`
with done as (
  update tasker_workflow_steps set state = 'resolved_manually', sort_key = sort_key + 1, due_at = null
   where task_uuid = $1 and step_no = $2 returning sort_key)
insert into tasker_workflow_step_transitions (task_uuid, step_no, sort_key, from_state, to_state, created_at)
select $1, $2, d.sort_key, $3::tasker_step_state, 'resolved_manually', clock_timestamp() from done d`, k.Task, k.Number, string(m.model.step(k).state))
	s := m.model.step(k)
	s.state, s.hinted, s.dueFrom, s.dueTo = vocab.StepResolvedManually, true, time.Time{}, time.Time{}
}

// Finalization ----------------------------------------------------------------------

func (m *machine) claimFinalization() {
	t, by := m.task(), rapid.SampledFrom([]string{"p1", "p2"}).Draw(m.T, "processor")
	c, err := finalizer.New(m.bed.pool, by, time.Hour).Claim(m.ctx, t.id)
	m.must(err)
	settled := slices.ContainsFunc(t.steps, func(s modelStep) bool { return s.state.Settled() })
	if want := t.state == vocab.TaskInProgress && !t.claimed() && settled; c.Claimed != want {
		m.Fatalf("claim task %s in state %s for finalization: %+v", t.id, t.state, c)
	}
	if c.Claimed {
		if c.Lease == none || c.Lease == t.claim || slices.Contains(t.formerClaims, c.Lease) {
			m.Fatalf("claim %s of task %s is not new", c.Lease, t.id)
		}
		t.claim, t.claimBy, t.claimExpired = c.Lease, by, false
		t.formerClaims = append(t.formerClaims, c.Lease)
		t.finalizeClaims++
	}
}

func (m *machine) applyFinalization() {
	t := m.task()
	lease := pick(m, "lease", append(t.formerClaims, randomUUID(), none))
	var state *vocab.TaskState
	m.must(m.bed.pool.QueryRow(m.ctx, "select tasker_apply_finalization($1, nullif($2, $3::uuid), null)::text", t.id, lease, none).Scan(&state))
	held := lease == t.claim && t.claimed()
	if held {
		t.conclude()
	}
	if held != (state != nil) || held && *state != t.state {
		m.Fatalf("apply to task %s with the current lease: %v; got %v, want %s", t.id, held, state, t.state)
	}
}

func (m *machine) releaseFinalization() {
	t, by := m.task(), rapid.SampledFrom([]string{"p1", "p2"}).Draw(m.T, "processor")
	lease := pick(m, "lease", append(t.formerClaims, randomUUID()))
	released, err := finalizer.New(m.bed.pool, by, time.Hour).Release(m.ctx, t.id, lease)
	m.must(err)
	if want := lease == t.claim && by == t.claimBy; released != want {
		m.Fatalf("release by %s of the claim of %q: %v", by, t.claimBy, released)
	}
	if released {
		t.claim, t.claimBy, t.claimExpired = none, "", false
	}
}

func (m *machine) expireFinalization() {
	m.exec("update tasker_tasks set finalize_until = clock_timestamp() - interval '1 ms' where finalize_lease is not null")
	for _, t := range m.model.tasks {
		t.claimExpired = t.claim != none
	}
}
