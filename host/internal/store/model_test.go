package store_test

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// The model is the protocol in plain Go: what the engine promises, but not how it does
// it. One caller at a time; the database's choices (which host gets a ready step, random
// leases, jitter) are adopted after checking that they are allowed.

// none means no lease.
var none vocab.UUID

type modelStep struct {
	state                       vocab.StepState
	remaining, attempts, claims int
	generation                  int
	lease                       vocab.UUID // of the last claim; zero: none, or given back
	host                        int32      // 0: an outside worker's, if it runs
	expired                     bool       // the worker's lease has expired
	doomed                      bool
	dueFrom, dueTo              time.Time // bounds of its earliest start; zero: at once
	hinted                      bool      // there may be superfluous messages for it
	muted                       bool      // it waits, but its message was lost
}

func (s *modelStep) waits() bool {
	return s.state == vocab.StepEnqueued || s.state == vocab.StepPending && s.remaining == 0
}

func (s *modelStep) moves() bool { return s.waits() || s.state == vocab.StepInProgress }

type modelTask struct {
	id    vocab.UUID
	plan  *store.Plan
	state vocab.TaskState
	steps []modelStep
	open  int // unsatisfied sinks

	generation int

	claim          vocab.UUID // for its finalization
	claimBy        string
	claimExpired   bool
	formerClaims   []vocab.UUID
	finalizeClaims int
}

func (t *modelTask) claimed() bool { return t.claim != none && !t.claimExpired }

func (t *modelTask) moving() bool {
	for i := range t.steps {
		if t.steps[i].moves() {
			return true
		}
	}
	return false
}

func (t *modelTask) satisfied() bool {
	for i := range t.steps {
		if !t.steps[i].state.Satisfies() {
			return false
		}
	}
	return true
}

func (t *modelTask) end(state vocab.TaskState) {
	t.state, t.claim, t.claimBy, t.claimExpired = state, none, "", false
}

// conclude finishes the task if nothing in it moves, and reports whether it did.
func (t *modelTask) conclude() bool {
	if t.state != vocab.TaskInProgress || t.moving() {
		return false
	}
	if t.satisfied() {
		t.end(vocab.TaskComplete)
	} else {
		t.end(vocab.TaskError)
	}
	return true
}

type modelHost struct{ dead, swept bool }

type modelKey struct {
	hash string
	task vocab.UUID
}

type model struct {
	tasks   map[vocab.UUID]*modelTask
	order   []vocab.UUID
	hosts   map[int32]*modelHost
	keys    map[string]modelKey
	holders map[string]vocab.UUID // of the identities that may exist only once
	granted []store.Lease         // every lease ever granted
	paused  bool                  // nothing is started
}

func newModel() *model {
	return &model{
		tasks: map[vocab.UUID]*modelTask{}, hosts: map[int32]*modelHost{}, keys: map[string]modelKey{}, holders: map[string]vocab.UUID{},
	}
}

func (m *model) step(k store.StepKey) *modelStep {
	if t := m.tasks[k.Task]; t != nil && int(k.Number) < len(t.steps) {
		return &t.steps[k.Number]
	}
	return nil
}

// ask returns what happens to a batch of requests: first each key is checked, then each
// identity, in the order of the batch.
func (m *model) ask(batch []store.NewTask) []store.Created {
	want := make([]store.Created, len(batch))
	for i, t := range batch {
		want[i] = store.Created{Outcome: store.CreateDone, UUID: t.UUID}
		if t.Key == "" {
			continue
		}
		used, known := m.keys[t.Key]
		switch {
		case !known:
			m.keys[t.Key] = modelKey{string(t.KeyHash), t.UUID}
		case used.hash == string(t.KeyHash):
			want[i] = store.Created{Outcome: store.CreateDuplicate, UUID: used.task}
		default:
			want[i] = store.Created{Outcome: store.CreateConflict, UUID: used.task}
		}
	}
	for i, t := range batch {
		if want[i].Outcome != store.CreateDone || t.Unique == "" || t.Unique == workflow.IdentityAllow {
			continue
		}
		holder, held := m.holders[string(t.Identity)]
		if !held {
			m.holders[string(t.Identity)] = t.UUID
			continue
		}
		m.instead(want, t, holder)
	}
	return want
}

// instead notes that a task is not created because another has its identity; this also
// applies to requests in the batch whose key would have referred to it.
func (m *model) instead(want []store.Created, t store.NewTask, holder vocab.UUID) {
	outcome := store.CreateExists
	if t.Unique == workflow.IdentityReturnExisting {
		outcome = store.CreateDuplicate
	}
	for i := range want {
		if want[i].UUID != t.UUID {
			continue
		}
		want[i].UUID = holder
		if want[i].Outcome != store.CreateConflict {
			want[i].Outcome = outcome
		}
	}
	switch {
	case t.Key == "":
	case outcome == store.CreateDuplicate:
		m.keys[t.Key] = modelKey{string(t.KeyHash), holder}
	default:
		delete(m.keys, t.Key)
	}
}

// create adds a task whose roots wait.
func (m *model) create(id vocab.UUID, plan *store.Plan) {
	t := &modelTask{id: id, plan: plan, state: vocab.TaskInProgress, steps: make([]modelStep, len(plan.Steps))}
	for i := range plan.Steps {
		t.steps[i] = modelStep{state: vocab.StepPending, remaining: len(plan.Steps[i].Parents)}
		if t.steps[i].remaining == 0 {
			t.steps[i].state = vocab.StepEnqueued
		}
		if len(plan.Steps[i].Children) == 0 {
			t.open++
		}
	}
	m.tasks[id], m.order = t, append(m.order, id)
}

// lease records a lease granted by the database, or says why it must not have been
// granted.
func (m *model) lease(l store.Lease, host int32, served []int32, until time.Time) error {
	s := m.step(l.StepKey)
	switch {
	case s == nil:
		return fmt.Errorf("lease of a step nobody made: %v", l.StepKey)
	case !s.waits():
		return fmt.Errorf("lease of step %d in state %s, remaining parents %d", l.Number, s.state, s.remaining)
	case s.dueFrom.After(until):
		return fmt.Errorf("lease of step %d %s before it is due", l.Number, s.dueFrom.Sub(until))
	case host != 0 && m.hosts[host].dead:
		return fmt.Errorf("lease of step %d to a dead host", l.Number)
	case !slices.Contains(served, m.tasks[l.Task].plan.HandlerIDs[l.Number]):
		return fmt.Errorf("lease of step %d to a host that does not serve it", l.Number)
	case int(l.Attempt) != s.attempts+1:
		return fmt.Errorf("lease of step %d says attempt %d after %d", l.Number, l.Attempt, s.attempts)
	case l.Plan != m.tasks[l.Task].plan.ID || int(l.Generation) != s.generation:
		return fmt.Errorf("lease of step %d names plan %d generation %d", l.Number, l.Plan, l.Generation)
	}
	if l.ID == none || slices.ContainsFunc(m.granted, func(g store.Lease) bool { return g.ID == l.ID }) {
		return fmt.Errorf("lease id %s was granted before", l.ID)
	}
	m.granted = append(m.granted, l)
	s.state, s.lease, s.host, s.claims, s.expired = vocab.StepInProgress, l.ID, host, s.claims+1, false
	s.dueFrom, s.dueTo = time.Time{}, time.Time{}
	return nil
}

// settle applies one settlement; at holds the bounds of the database's clock. looks
// reports whether the task must be inspected, because nothing may move any more.
func (m *model) settle(g store.Settlement, p store.Policy, at [2]time.Time) (v store.Verdict, looks bool) {
	s := m.step(g.StepKey)
	current := s != nil && s.state == vocab.StepInProgress && s.lease == g.Lease
	switch {
	case s == nil:
		return store.UnknownStep, false
	case current:
	case s.lease == g.Lease && g.Lease != none && s.state != vocab.StepCancelled && s.state != vocab.StepResolvedManually &&
		(g.Outcome != vocab.OutcomeSuccess || s.state == vocab.StepComplete):
		return store.AlreadyRecorded, false
	default:
		return store.StaleLease, false
	}
	t := m.tasks[g.Task]
	retry := t.plan.Steps[g.Number].Retry
	switch {
	case g.Outcome == vocab.OutcomeSuccess:
		return store.Recorded, m.complete(t, g.Number)
	case g.Outcome == vocab.OutcomeReleased:
		excused := bytes.Equal(g.Error, excuse)
		unclaimable := m.release(t, g.Number, p.ClaimFactor, excused)
		if !unclaimable && g.RetryAfter > 0 {
			s.dueFrom, s.dueTo = at[0].Add(g.RetryAfter), at[1].Add(g.RetryAfter)
		}
		return store.Recorded, unclaimable || s.doomed
	case g.Outcome == vocab.OutcomePermanent || !retry.Allows(s.attempts+1):
		s.attempts++
		m.bury(t, g.Number)
		return store.Recorded, true
	}
	s.attempts++
	s.state = vocab.StepPending
	shortest, longest := retry.NextDelay(s.attempts, g.RetryAfter, p.RetryAfterCap)
	s.dueFrom, s.dueTo = at[0].Add(shortest), at[1].Add(longest)
	return store.Recorded, false
}

// complete reports whether the task must be inspected.
func (m *model) complete(t *modelTask, n int32) bool {
	s := &t.steps[n]
	s.state = vocab.StepComplete
	s.attempts++
	for _, c := range t.plan.Steps[n].Children {
		t.steps[c].remaining--
		t.steps[c].doomed = t.steps[c].doomed || s.doomed
		if t.steps[c].remaining == 0 {
			t.steps[c].state = vocab.StepEnqueued
		}
	}
	if len(t.plan.Steps[n].Children) == 0 {
		t.open--
	}
	return t.open == 0 || s.doomed
}

func (m *model) bury(t *modelTask, n int32) {
	t.steps[n].state, t.steps[n].doomed = vocab.StepError, false
	for i := range t.steps {
		t.steps[i].doomed = t.steps[i].doomed || t.steps[i].moves()
	}
}

// release gives a step back, and reports whether that was once too often; excused
// releases never are.
func (m *model) release(t *modelTask, n int32, factor int, excused bool) bool {
	s := &t.steps[n]
	if excused {
		s.claims--
	} else if s.claims >= factor*t.plan.Steps[n].Retry.MaxAttempts {
		m.bury(t, n)
		return true
	}
	s.state, s.lease, s.host = vocab.StepEnqueued, none, 0
	return false
}

// stop ends a task on behalf of an operator: cancelled or resolved.
func (m *model) stop(t *modelTask, as vocab.TaskState) (took bool) {
	if !vocab.CanTask(t.state, as) {
		return false
	}
	for i := range t.steps {
		if vocab.CanStep(t.steps[i].state, vocab.StepCancelled) && (as == vocab.TaskCancelled || t.steps[i].state != vocab.StepError) {
			t.steps[i].hinted = t.steps[i].hinted || t.steps[i].waits()
			t.steps[i].state, t.steps[i].dueFrom, t.steps[i].dueTo = vocab.StepCancelled, time.Time{}, time.Time{}
		}
	}
	t.end(as)
	return true
}

// reopen makes a failed task continue.
func (t *modelTask) reopen() {
	if t.state == vocab.TaskError {
		t.state = vocab.TaskInProgress
		t.generation++
	}
}

// remark sets the mark of doom where it belongs: on everything that can move, as long as
// a step has failed.
func (t *modelTask) remark() {
	failing := slices.ContainsFunc(t.steps, func(s modelStep) bool { return s.state == vocab.StepError })
	for i := range t.steps {
		if s := &t.steps[i]; !failing || s.moves() {
			s.doomed = failing
		}
	}
}

// retry retries failed steps, one or all (-1), and returns which.
func (m *model) retry(t *modelTask, n int32) (anew []int32) {
	if t.state != vocab.TaskInProgress && t.state != vocab.TaskError {
		return nil
	}
	for i := range t.steps {
		if s := &t.steps[i]; s.state == vocab.StepError && (n < 0 || int(n) == i) {
			anew = append(anew, int32(i))
			*s = modelStep{state: vocab.StepEnqueued, generation: s.generation + 1, hinted: s.hinted, doomed: s.doomed}
		}
	}
	if len(anew) > 0 {
		t.reopen()
		t.remark()
	}
	return anew
}

// resolve declares a step done.
func (m *model) resolve(t *modelTask, n int32, skip bool) store.ResolveVerdict {
	s := &t.steps[n]
	switch {
	case t.state != vocab.TaskInProgress && t.state != vocab.TaskError:
		return store.TaskEnded
	case s.state == vocab.StepInProgress:
		return store.StepRunning
	case s.state.Settled() && s.state != vocab.StepError:
		return store.StepSettled
	case s.remaining > 0:
		return store.StepWaiting
	case skip && !t.plan.Steps[n].Skippable:
		return store.StepUnskippable
	}
	t.reopen()
	s.hinted = s.hinted || s.waits()
	s.state, s.dueFrom, s.dueTo = vocab.StepResolvedManually, time.Time{}, time.Time{}
	for _, c := range t.plan.Steps[n].Children {
		if t.steps[c].remaining--; t.steps[c].remaining == 0 && t.steps[c].state == vocab.StepPending {
			t.steps[c].state = vocab.StepEnqueued
		}
	}
	if len(t.plan.Steps[n].Children) == 0 {
		t.open--
	}
	t.remark()
	t.conclude()
	return store.Resolved
}
