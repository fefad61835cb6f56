package finalizer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// DB is the part of a pgx pool that the finalizer uses.
type DB interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Finalizer finishes tasks. It is safe for concurrent use.
type Finalizer struct {
	db        DB
	processor string
	timeout   time.Duration
	observer  Observer // nil: nobody is told
}

// Observer is notified of every claim, release and result. It must be quick and safe for
// concurrent use.
type Observer interface {
	// Claimed is called after an attempt to claim a task. If err is nil, the claim says whether
	// it was granted, and if not, why.
	Claimed(c Claim, err error, took time.Duration)
	// Released is called after an attempt to release a claim. If err is nil, released says
	// whether the claim was still held.
	Released(released bool, err error, took time.Duration)
	// Concluded reports what became of a task whose claim Finalize was granted: its state, or
	// an error, which is [ErrClaimLost] if the claim did not hold.
	Concluded(state vocab.TaskState, err error)
}

// Observed returns the finalizer with an observer.
func (f *Finalizer) Observed(o Observer) *Finalizer {
	observed := *f
	observed.observer = o
	return &observed
}

// New returns a finalizer. processor names it in the records of its claims; timeout is how long
// a claim holds, in whole seconds, at least one.
func New(db DB, processor string, timeout time.Duration) *Finalizer {
	return &Finalizer{db: db, processor: processor, timeout: max(timeout, time.Second)}
}

const (
	sqlClaim = `
select claimed, coalesce(already_claimed_by, ''), task_state, message, lease_id
  from claim_task_for_finalization($1::uuid, $2::text, $3::integer)`

	sqlContext = `
select total_steps, pending_steps, enqueued_steps, in_progress_steps, completed_steps, failed_steps, ready_steps, execution_status
  from get_task_execution_context($1::uuid)`

	sqlApply = `select tasker_apply_finalization($1::uuid, $2::uuid, null)::text`

	sqlRelease = `select release_finalization_claim($1::uuid, $2::text, $3::uuid)`
)

// Claim is the answer to an attempt to claim a task.
type Claim struct {
	Claimed   bool
	ClaimedBy string // who holds the claim, if another does
	State     string // the task's execution status, or its state if it is settled
	Message   string
	Lease     vocab.UUID
}

// Refusal says why a claim was not granted.
type Refusal string

// The refusals. Their names are those of the reference, except for AlreadySettled, which the
// reference did not distinguish.
const (
	AlreadyClaimed  Refusal = "already_claimed"  // another holds the claim
	AlreadyComplete Refusal = "already_complete" // the task is complete
	AlreadySettled  Refusal = "already_settled"  // the task has ended otherwise
	NotReady        Refusal = "not_ready"        // no step of it has ended
	OtherRefusal    Refusal = "other"            // there is no such task
)

// Refusals lists all refusals.
var Refusals = []Refusal{AlreadyClaimed, AlreadyComplete, AlreadySettled, NotReady, OtherRefusal}

// Refusal says why the claim was not granted. Call it only for a claim that was not.
func (c Claim) Refusal() Refusal {
	switch c.Message { // the texts of claim_task_for_finalization
	case "Task already claimed for finalization":
		return AlreadyClaimed
	case "Task already complete":
		return AlreadyComplete
	case "Task already settled":
		return AlreadySettled
	case "Task has no completed or failed steps":
		return NotReady
	default:
		return OtherRefusal
	}
}

// ErrClaimLost means that the claim ran out, or was taken, before the decision was applied.
// Nothing was changed.
var ErrClaimLost = errors.New("the finalization claim was lost")

// Claim tries to claim a task.
func (f *Finalizer) Claim(ctx context.Context, task vocab.UUID) (Claim, error) {
	began := time.Now()
	c, err := f.claim(ctx, task)
	if f.observer != nil {
		f.observer.Claimed(c, err, time.Since(began))
	}
	return c, err
}

func (f *Finalizer) claim(ctx context.Context, task vocab.UUID) (Claim, error) {
	var c Claim
	var lease *vocab.UUID
	err := f.db.QueryRow(ctx, sqlClaim, task, f.processor, int(f.timeout/time.Second)).
		Scan(&c.Claimed, &c.ClaimedBy, &c.State, &c.Message, &lease)
	if err != nil {
		return Claim{}, fmt.Errorf("claim task %s for finalization: %w", task, err)
	}
	if lease != nil {
		c.Lease = *lease
	}
	return c, nil
}

// Context reads the basis of a decision.
func (f *Finalizer) Context(ctx context.Context, task vocab.UUID) (Context, error) {
	var c Context
	err := f.db.QueryRow(ctx, sqlContext, task).
		Scan(&c.Total, &c.Pending, &c.Enqueued, &c.InProgress, &c.Completed, &c.Failed, &c.Ready, &c.Status)
	if err != nil {
		return Context{}, fmt.Errorf("read execution context of task %s: %w", task, err)
	}
	return c, nil
}

// Apply finishes a claimed task and returns its state afterwards, which is still in_progress if
// something has begun to move. The error is [ErrClaimLost] if the lease is no longer the task's
// claim.
func (f *Finalizer) Apply(ctx context.Context, task, lease vocab.UUID) (vocab.TaskState, error) {
	var state *vocab.TaskState
	if err := f.db.QueryRow(ctx, sqlApply, task, lease).Scan(&state); err != nil {
		return "", fmt.Errorf("finalize task %s: %w", task, err)
	}
	if state == nil {
		return "", fmt.Errorf("finalize task %s: %w", task, ErrClaimLost)
	}
	return *state, nil
}

// Release gives up a claim. It reports whether the claim was still held.
func (f *Finalizer) Release(ctx context.Context, task, lease vocab.UUID) (bool, error) {
	var released bool
	began := time.Now()
	err := f.db.QueryRow(ctx, sqlRelease, task, f.processor, lease).Scan(&released)
	if f.observer != nil {
		f.observer.Released(released, err, time.Since(began))
	}
	if err != nil {
		return false, fmt.Errorf("release finalization claim of task %s: %w", task, err)
	}
	return released, nil
}

// Finalize claims a task, decides, applies the decision and releases the claim. It returns the
// state of the task afterwards, which is still active if another holds the claim or if the task
// is not ready to be finished.
func (f *Finalizer) Finalize(ctx context.Context, task vocab.UUID) (vocab.TaskState, error) {
	claim, err := f.Claim(ctx, task)
	if err != nil {
		return "", err
	}
	if !claim.Claimed {
		if s := vocab.TaskState(claim.State); slices.Contains(vocab.TaskStates, s) {
			return s, nil // settled already
		}
		return vocab.TaskInProgress, nil
	}
	state, err := f.conclude(ctx, task, claim.Lease)
	if f.observer != nil {
		f.observer.Concluded(state, err)
	}
	if err == nil && !state.Active() {
		return state, nil // the claim went with the state
	}
	if _, releaseErr := f.Release(ctx, task, claim.Lease); releaseErr != nil {
		err = errors.Join(err, releaseErr)
	}
	if err != nil {
		return "", err
	}
	return vocab.TaskInProgress, nil
}

// conclude inspects a claimed task, decides and applies the decision. It returns the state of
// the task afterwards.
func (f *Finalizer) conclude(ctx context.Context, task, lease vocab.UUID) (vocab.TaskState, error) {
	found, err := f.Context(ctx, task)
	if err != nil {
		return "", err
	}
	if Decide(vocab.TaskInProgress, found) == Wait {
		return vocab.TaskInProgress, nil
	}
	return f.Apply(ctx, task, lease)
}
