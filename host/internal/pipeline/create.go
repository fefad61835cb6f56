package pipeline

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"

	"github.com/tasker-systems/tasker-host/host/internal/payload"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Submission is a request for a task.
type Submission struct {
	Namespace, Name, Version string
	Asked                    string          // the version as the client requested it, if different
	Context                  json.RawMessage // a JSON object; nil is {}
	Priority                 *int32          // nil: the template's
	Attributes               json.RawMessage // tags, initiator, source_system, reason, requested_at; nil: none
	IdempotencyKey           string          // empty: none

	trace string // that the task belongs to; empty: it is not traced
}

// Submitted is the answer to a [Submission].
type Submitted struct {
	Task    vocab.UUID
	Created bool // false: the task existed, because the idempotency key was used for the same request or the identity is taken
}

// KeyReusedError is returned when an idempotency key comes with a different request than
// the one it was first used for.
type KeyReusedError struct{ Task vocab.UUID } // of the other request

// Error names the task.
func (e *KeyReusedError) Error() string {
	return fmt.Sprintf("the idempotency key was used for another request, whose task is %s", e.Task)
}

// DuplicateError is returned for a submission whose template rejects it because a task
// with the same identity exists.
type DuplicateError struct{ Task vocab.UUID }

// Error names the task.
func (e *DuplicateError) Error() string {
	return fmt.Sprintf("task %s has the same template and context", e.Task)
}

// ContextError reports what is wrong with a task's context.
type ContextError struct{ Err error }

// Error returns the fault, including its location.
func (e *ContextError) Error() string { return "context: " + e.Err.Error() }

// Unwrap returns the fault.
func (e *ContextError) Unwrap() error { return e.Err }

// Submit creates a task and returns when it is durable. Errors are those of
// [store.Store.FindPlan], *[ContextError], *[KeyReusedError], *[DuplicateError],
// [ErrDraining], [ErrBusy], [ErrUncertain], or the database's.
func (e *Engine) Submit(ctx context.Context, s Submission) (done Submitted, err error) {
	span := e.traceSubmission(ctx, &s)
	defer func() { traceCreated(span, done, err) }()
	t, err := e.prepare(ctx, s)
	if err != nil {
		return Submitted{}, err
	}
	r := newRequest(s.Namespace, t)
	if err := e.queueOne(r); err != nil {
		return Submitted{}, err
	}
	return e.await(ctx, r)
}

// SubmitAll is [Engine.SubmitEach] for callers who want all answers or an error: it joins
// the errors, each with its index. The answers of failed submissions are zero.
func (e *Engine) SubmitAll(ctx context.Context, all []Submission) ([]Submitted, error) {
	answers := make([]Submitted, len(all))
	var errs []error
	for i, a := range e.SubmitEach(ctx, all) {
		answers[i] = a.Submitted
		if a.Err != nil {
			errs = append(errs, fmt.Errorf("submission %d: %w", i, a.Err))
		}
	}
	return answers, errors.Join(errs...)
}

// Answer is the result of one of many submissions.
type Answer struct {
	Submitted
	Err error // as Submit would return it
}

// SubmitEach creates tasks in bulk, in as few transactions as their number allows, and
// returns when all are durable or refused, in the order of the submissions. It waits for
// room, as long as ctx allows, rather than being refused as busy. All submissions are
// held in memory meanwhile, so the caller must bound them.
func (e *Engine) SubmitEach(ctx context.Context, all []Submission) []Answer {
	answers := make([]Answer, len(all))
	requests := make([]*request, len(all))
	spans := make([]trace.Span, len(all))
	for i := range all {
		spans[i] = e.traceSubmission(ctx, &all[i])
		t, err := e.prepare(ctx, all[i])
		if err == nil {
			requests[i] = newRequest(all[i].Namespace, t)
			err = e.queueMany(ctx, requests[i])
		}
		if err != nil {
			requests[i], answers[i].Err = nil, err
		}
	}
	for i, r := range requests {
		if r != nil {
			answers[i].Submitted, answers[i].Err = e.await(ctx, r)
		}
		traceCreated(spans[i], answers[i].Submitted, answers[i].Err)
	}
	return answers
}

// prepare checks a submission and returns the task it asks for.
func (e *Engine) prepare(ctx context.Context, s Submission) (store.NewTask, error) {
	plan, err := e.store.FindPlan(ctx, s.Namespace, s.Name, s.Version, e.cfg.Environment)
	if err != nil {
		return store.NewTask{}, err
	}
	if len(s.Context) == 0 {
		s.Context = json.RawMessage("{}")
	}
	if err := payload.CheckObject(s.Context, e.cfg.Payload); err != nil {
		return store.NewTask{}, &ContextError{err}
	}
	schema, err := plan.Input()
	if err != nil {
		return store.NewTask{}, err
	}
	if err := schema.Validate(s.Context); err != nil {
		return store.NewTask{}, &ContextError{err}
	}
	id, err := newTaskUUID()
	if err != nil {
		return store.NewTask{}, err
	}
	identity, err := hex.DecodeString(payload.Identity(s.Namespace, s.Name, s.Version, s.Context))
	if err != nil {
		return store.NewTask{}, fmt.Errorf("identity of the request: %w", err)
	}
	t := store.NewTask{
		UUID: id, Plan: plan.ID, Context: s.Context, Priority: s.Priority,
		Identity: identity, Attributes: s.Attributes, Trace: s.trace, Key: s.IdempotencyKey,
		Unique: plan.Identity, Roots: plan.RootCount,
	}
	if s.IdempotencyKey != "" {
		t.KeyHash = requestHash(s)
	}
	return t, nil
}

// requestHash hashes what must be the same when an idempotency key is used again: the
// request as it was made, with the bytes of its context. A request for the latest version
// keeps its hash when a later version appears.
func requestHash(s Submission) []byte {
	h := sha256.New()
	for _, part := range []string{s.Namespace, s.Name, cmp.Or(s.Asked, s.Version), string(s.Context)} {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return h.Sum(nil)
}

// newTaskUUID returns a new version 7 UUID whose step bits are zero.
func newTaskUUID() (vocab.UUID, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return vocab.UUID{}, fmt.Errorf("make a task uuid: %w", err)
	}
	return vocab.TaskID(vocab.UUID(id)), nil
}

// create sends a task with the next batch and waits for its commit. It also waits for
// room.
func (e *Engine) create(ctx context.Context, namespace string, t store.NewTask) (Submitted, error) {
	r := newRequest(namespace, t)
	if err := e.queueMany(ctx, r); err != nil {
		return Submitted{}, err
	}
	return e.await(ctx, r)
}

// sending is a batch on its way to the database, and those of its requests whose
// submitters were still waiting when it was last sent.
type sending struct {
	batch []*request
	tasks []store.NewTask
	byID  map[vocab.UUID]*request
	// maybe says that an attempt may have committed although its reply was lost. From
	// then on nobody is left out, so that everybody gets an answer.
	maybe bool
}

// begin collects the requests whose submitters are still waiting.
func (s *sending) begin() {
	s.tasks, s.byID = s.tasks[:0], make(map[vocab.UUID]*request, len(s.batch))
	for _, r := range s.batch {
		if r.hold() {
			s.tasks = append(s.tasks, r.NewTask)
			s.byID[r.UUID] = r
		}
	}
}

// end notes the result of an attempt. Requests that were rolled back may be given up
// again.
func (s *sending) end(err error) {
	switch store.Classify(err) {
	case store.Unknown, store.Cancelled:
		s.maybe = true
	case store.Retry, store.Unavailable:
		if s.maybe {
			return
		}
		for _, r := range s.byID {
			r.release()
		}
	}
}

// createBatch creates the tasks of a batch and starts their root steps. maybe says that
// they may have been created already.
func (e *Engine) createBatch(batch []*request, maybe bool) {
	s := sending{batch: batch, maybe: maybe}
	g := e.reserve(e.roots(batch)...)
	began := time.Now()
	var call ticket
	var out []store.Created
	err := e.insistBatch(e.work, "create tasks", len(batch), func(ctx context.Context) (err error) {
		if s.begin(); len(s.tasks) == 0 {
			return nil
		}
		call = e.grants.begin()
		out, err = e.store.CreateTasks(ctx, g.forStore(e.HostID()), s.tasks, e.cfg.RequestQueue)
		if err != nil {
			e.grants.end(call)
			s.end(err)
		}
		return err
	})
	if err != nil {
		e.capacity.taken(g, nil)
		e.createRefused(&s, err)
		return
	}
	e.metrics.createSeconds.Observe(time.Since(began).Seconds())
	var leases []store.Lease
	var queued []*request // requests with root steps that wait in a queue
	for i, c := range out {
		r := s.byID[s.tasks[i].UUID]
		if c.Outcome == store.CreateDuplicate && c.UUID == r.UUID {
			c.Outcome = store.CreateDone // by an earlier attempt of this very call, whose reply was lost
		}
		if c.Outcome == store.CreateDone {
			e.metrics.created.Inc()
			if len(c.Leases) > 0 {
				e.inputs.keepContext(c.UUID, r.Context, r.Trace)
				leases = append(leases, c.Leases...)
			}
			if len(c.Leases) < r.Roots {
				queued = append(queued, r)
			}
		}
		r.done <- created{Created: c}
	}
	e.start(e.work, g, call, leases)
	e.lookout.put(queuesOf(queued, func(r *request) string { return r.namespace })...)
}

// roots returns how many root steps of each namespace a batch makes ready.
func (e *Engine) roots(batch []*request) []want {
	var wants []want
	for _, r := range batch {
		at := slices.IndexFunc(wants, func(w want) bool { return w.namespace == r.namespace })
		if at < 0 {
			at = len(wants)
			wants = append(wants, want{namespace: e.steps.of(r.namespace).namespace})
		}
		wants[at].take += r.Roots
	}
	return wants
}

// createRefused continues with a batch that could not be created as a whole.
func (e *Engine) createRefused(s *sending, err error) {
	batch := s.batch
	switch {
	case errors.Is(err, errBatchTooLong):
		e.createBatch(batch[:len(batch)/2], s.maybe)
		e.createBatch(batch[len(batch)/2:], s.maybe)
	case (store.Classify(err) == store.BadInput || store.Classify(err) == store.Permanent) && len(batch) > 1 && e.work.Err() == nil:
		for _, r := range batch { // one of them is refused: send each on its own
			e.createBatch([]*request{r}, s.maybe)
		}
	default:
		if s.maybe {
			err = fmt.Errorf("%w: %w", ErrUncertain, err)
		}
		for _, r := range s.byID {
			r.done <- afterRefusal(r, err)
		}
	}
}

// afterRefusal answers a request that the database has refused. If it was refused because
// the task exists, an earlier attempt of this very call committed and its reply was lost.
func afterRefusal(r *request, err error) created {
	if store.IsDuplicate(err) {
		return created{Created: store.Created{Outcome: store.CreateDone, UUID: r.UUID}}
	}
	return created{err: err}
}
