package pipeline

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/tasker-systems/tasker-host/host/internal/payload"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Submission is a request for a task.
type Submission struct {
	Namespace, Name, Version string
	Asked                    string          // the version as the client asked for it, if another
	Context                  json.RawMessage // a JSON object; nil is {}
	Priority                 *int32          // nil: the template's
	Attributes               json.RawMessage // tags, initiator, source_system, reason, requested_at; nil: none
	IdempotencyKey           string          // empty: none
}

// Submitted is the answer to a [Submission].
type Submitted struct {
	Task    vocab.UUID
	Created bool // false: the idempotency key was used before, for the same request
}

// ErrKeyReused is returned when an idempotency key comes with another request
// than the one it was used for.
var ErrKeyReused = errors.New("the idempotency key was used for another request")

// ContextError says what is wrong with a task's context.
type ContextError struct{ Err error }

// Error returns the fault, with the place it is at.
func (e *ContextError) Error() string { return "context: " + e.Err.Error() }

// Unwrap returns the fault.
func (e *ContextError) Unwrap() error { return e.Err }

// request is a task on its way into the database.
type request struct {
	store.NewTask
	done chan created // receives exactly once
}

type created struct {
	store.Created
	err error
}

// Submit creates a task and returns when it is durable. Errors: those of
// [store.Store.FindPlan], *[ContextError], [ErrKeyReused], [ErrDraining], or the
// database's.
func (e *Engine) Submit(ctx context.Context, s Submission) (Submitted, error) {
	t, err := e.prepare(ctx, s)
	if err != nil {
		return Submitted{}, err
	}
	return e.create(ctx, t)
}

// SubmitAll creates tasks in bulk, in as few transactions as their number allows,
// and returns when all are durable or one was refused. The answers are in the
// order of the submissions; those of a refused or unfinished submission are
// zero. Errors are those of Submit, joined, each with its index.
func (e *Engine) SubmitAll(ctx context.Context, all []Submission) ([]Submitted, error) {
	if e.accept.Err() != nil {
		return nil, ErrDraining
	}
	requests := make([]*request, len(all))
	for i := range all {
		t, err := e.prepare(ctx, all[i])
		if err != nil {
			return nil, fmt.Errorf("submission %d: %w", i, err)
		}
		requests[i] = &request{NewTask: t, done: make(chan created, 1)}
	}
	e.requests.add(requests...)
	answers := make([]Submitted, len(all))
	var errs []error
	for i, r := range requests {
		answer, err := e.await(ctx, r)
		if err != nil {
			errs = append(errs, fmt.Errorf("submission %d: %w", i, err))
		}
		answers[i] = answer
	}
	return answers, errors.Join(errs...)
}

// prepare checks a submission and makes the task it asks for.
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
	schema, err := e.schemas.of(plan)
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
		Identity: identity, Attributes: s.Attributes, Key: s.IdempotencyKey,
	}
	if s.IdempotencyKey != "" {
		t.KeyHash = requestHash(s)
	}
	return t, nil
}

// requestHash is what must agree when an idempotency key is used again: the
// request as it was made, the context by its bytes. A request for the latest
// version stays the same when there is a later one.
func requestHash(s Submission) []byte {
	h := sha256.New()
	for _, part := range []string{s.Namespace, s.Name, cmp.Or(s.Asked, s.Version), string(s.Context)} {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return h.Sum(nil)
}

// newTaskUUID returns a fresh version 7 UUID with the bits of steps zero.
func newTaskUUID() (vocab.UUID, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return vocab.UUID{}, fmt.Errorf("make a task uuid: %w", err)
	}
	return vocab.TaskID(vocab.UUID(id)), nil
}

// create sends a task with the next batch and waits for its commit.
func (e *Engine) create(ctx context.Context, t store.NewTask) (Submitted, error) {
	r := &request{NewTask: t, done: make(chan created, 1)}
	if e.accept.Err() != nil {
		return Submitted{}, ErrDraining
	}
	e.requests.add(r)
	return e.await(ctx, r)
}

func (e *Engine) await(ctx context.Context, r *request) (Submitted, error) {
	select {
	case c := <-r.done:
		switch {
		case c.err != nil:
			return Submitted{}, c.err
		case c.Outcome == store.CreateConflict:
			return Submitted{}, ErrKeyReused
		default:
			return Submitted{Task: c.UUID, Created: c.Outcome == store.CreateDone}, nil
		}
	case <-ctx.Done():
		return Submitted{}, fmt.Errorf("submit task: %w; it may have been created", ctx.Err())
	case <-e.work.Done():
		return Submitted{}, ErrDraining
	}
}

func (e *Engine) createLoop() {
	for {
		select {
		case <-e.requests.ready:
			if batch := e.requests.take(e.cfg.SubmitBatch); len(batch) > 0 {
				e.createBatch(batch)
			}
		case <-e.work.Done():
			return
		}
	}
}

// createBatch creates the tasks of a batch and starts their roots.
func (e *Engine) createBatch(batch []*request) {
	byID := make(map[vocab.UUID]*request, len(batch))
	tasks := make([]store.NewTask, len(batch))
	for i, r := range batch {
		tasks[i], byID[r.UUID] = r.NewTask, r
	}
	g := e.capacity.reserve(len(batch)*rootsPerTask, 0)
	began := time.Now()
	var out []store.Created
	err := e.insistBatch(e.work, "create tasks", len(batch), func(ctx context.Context) (err error) {
		out, err = e.store.CreateTasks(ctx, g.forStore(e.HostID()), tasks, e.cfg.RequestQueue)
		return err
	})
	if err != nil {
		e.capacity.taken(g, nil)
		if errors.Is(err, errBatchTooLong) {
			e.createBatch(batch[:len(batch)/2])
			e.createBatch(batch[len(batch)/2:])
			return
		}
		if store.Classify(err) == store.BadInput && len(batch) > 1 {
			for _, r := range batch { // one of them is refused: each on its own
				e.createBatch([]*request{r})
			}
			return
		}
		for _, r := range batch {
			r.done <- afterRefusal(r, err)
		}
		return
	}
	e.metrics.createSeconds.Observe(time.Since(began).Seconds())
	var leases []store.Lease
	for i, c := range out {
		r := byID[tasks[i].UUID]
		if c.Outcome == store.CreateDone {
			e.metrics.created.Inc()
			if len(c.Leases) > 0 {
				e.inputs.keepContext(c.UUID, r.Context)
				leases = append(leases, c.Leases...)
			}
		}
		r.done <- created{Created: c}
	}
	e.start(e.work, g, leases)
	e.wake()
}

// rootsPerTask is how many root steps a task is expected to have when room for
// them is reserved; roots beyond the room go through the queue.
const rootsPerTask = 2

// afterRefusal answers a request the database has refused. If the refusal is
// that the task exists, an earlier try of this very call had committed and its
// reply was lost.
func afterRefusal(r *request, err error) created {
	if store.IsDuplicate(err) {
		return created{Created: store.Created{Outcome: store.CreateDone, UUID: r.UUID}}
	}
	return created{err: err}
}

// schemaCache keeps the compiled input schemas of plans.
type schemaCache struct{ byPlan sync.Map }

func (c *schemaCache) of(p *store.Plan) (*workflow.InputSchema, error) {
	if s, ok := c.byPlan.Load(p.ID); ok {
		return s.(*workflow.InputSchema), nil
	}
	s, err := workflow.CompileInput(&p.Plan)
	if err != nil {
		return nil, fmt.Errorf("input schema of %s/%s@%s: %w", p.Namespace, p.Name, p.Version, err)
	}
	c.byPlan.Store(p.ID, s)
	return s, nil
}
