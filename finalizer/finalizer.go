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

// Finalizer finishes tasks. Safe for concurrent use.
type Finalizer struct {
	db        DB
	processor string
	timeout   time.Duration
}

// New returns a finalizer. processor names it in the records of its claims;
// timeout is how long a claim holds, in whole seconds, at least one.
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

// Claim is the answer to a try to claim a task.
type Claim struct {
	Claimed   bool
	ClaimedBy string // who holds the claim, if another does
	State     string // the task's execution status, or its state if it is settled
	Message   string
	Lease     vocab.UUID
}

// ErrClaimLost is returned if the claim ran out, or was taken, before the
// decision was applied. Nothing was changed.
var ErrClaimLost = errors.New("the finalization claim was lost")

// Claim tries to claim a task.
func (f *Finalizer) Claim(ctx context.Context, task vocab.UUID) (Claim, error) {
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

// Context reads what a decision is made on.
func (f *Finalizer) Context(ctx context.Context, task vocab.UUID) (Context, error) {
	var c Context
	err := f.db.QueryRow(ctx, sqlContext, task).
		Scan(&c.Total, &c.Pending, &c.Enqueued, &c.InProgress, &c.Completed, &c.Failed, &c.Ready, &c.Status)
	if err != nil {
		return Context{}, fmt.Errorf("read execution context of task %s: %w", task, err)
	}
	return c, nil
}

// Apply finishes a claimed task. The answer is its state then: still in_progress
// if something has begun to move. The error is [ErrClaimLost] if the lease is no
// longer the task's claim.
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

// Release gives a claim up. It reports whether the claim was still held.
func (f *Finalizer) Release(ctx context.Context, task, lease vocab.UUID) (bool, error) {
	var released bool
	if err := f.db.QueryRow(ctx, sqlRelease, task, f.processor, lease).Scan(&released); err != nil {
		return false, fmt.Errorf("release finalization claim of task %s: %w", task, err)
	}
	return released, nil
}

// Finalize claims a task, decides, applies and releases. It returns the state
// the task is in then, which is still active if another holds the claim or if
// the task is not ready to be finished.
func (f *Finalizer) Finalize(ctx context.Context, task vocab.UUID) (state vocab.TaskState, err error) {
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
	found, err := f.Context(ctx, task)
	if err == nil && Decide(vocab.TaskInProgress, found) != Wait {
		state, err = f.Apply(ctx, task, claim.Lease)
		if err == nil && !state.Active() {
			return state, nil // the claim went with the state
		}
	}
	if _, releaseErr := f.Release(ctx, task, claim.Lease); releaseErr != nil {
		err = errors.Join(err, releaseErr)
	}
	if err != nil {
		return "", err
	}
	return vocab.TaskInProgress, nil
}
