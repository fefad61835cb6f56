package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

const (
	sqlRetrySteps = `
select o_task_state::text, coalesce(o_step_state::text, ''), o_steps
  from tasker_retry_steps($1::uuid, $2::integer, $3::text, $4::text, $5::integer)`

	sqlResolveStep = `
select o_verdict, o_task_state::text, o_step_state::text
  from tasker_resolve_step($1::uuid, $2::integer, $3::text, $4::boolean, $5::text, $6::text, $7::integer)`

	sqlResolveTask = `select o_state::text, o_resolved from tasker_resolve_task($1::uuid, $2::text, $3::text, $4::integer)`
)

// Operator is the person who makes a change, and the reason. Both may be empty; both
// are recorded.
type Operator struct{ By, Reason string }

// Retried is the result of a retry.
type Retried struct {
	Task  vocab.TaskState
	Step  vocab.StepState // of the step named; empty for all of a task
	Steps []int32         // the steps that run again
}

// RetryTask runs all failed steps of a task again. The error is [ErrNotFound] if
// there is no such task.
func (s *Store) RetryTask(ctx context.Context, task vocab.UUID, o Operator, host int32) (Retried, error) {
	r, err := s.retry(ctx, task, nil, o, host)
	if err != nil {
		return Retried{}, fmt.Errorf("retry task %s: %w", task, err)
	}
	return r, nil
}

// RetryStep runs a failed step again. The error is [ErrNotFound] if there is no such
// step.
func (s *Store) RetryStep(ctx context.Context, step StepKey, o Operator, host int32) (Retried, error) {
	r, err := s.retry(ctx, step.Task, &step.Number, o, host)
	if err != nil {
		return Retried{}, fmt.Errorf("retry step %s: %w", step.UUID(), err)
	}
	return r, nil
}

func (s *Store) retry(ctx context.Context, task vocab.UUID, step *int32, o Operator, host int32) (r Retried, err error) {
	err = insist(func() error {
		return orNotFound(s.pool.QueryRow(ctx, sqlRetrySteps, task, step, o.Reason, o.By, host).Scan(&r.Task, &r.Step, &r.Steps))
	})
	return r, err
}

// insistTries bounds how often a repair is tried that the database rolls back
// because of a deadlock.
const insistTries = 5

func insist(call func() error) (err error) {
	for range insistTries {
		if err = call(); err == nil || Classify(err) != Retry {
			return err
		}
	}
	return err
}

// ResolveVerdict is the result of resolving a step; see tasker_resolve_step.
type ResolveVerdict string

// The verdicts. Only "resolved" means that anything changed.
const (
	Resolved        ResolveVerdict = "resolved"
	StepRunning     ResolveVerdict = "running"
	StepWaiting     ResolveVerdict = "waiting"
	StepSettled     ResolveVerdict = "settled"
	TaskEnded       ResolveVerdict = "ended"
	StepUnskippable ResolveVerdict = "not_skippable"
)

// Resolution is the result of resolving a step, with the resulting states.
type Resolution struct {
	Verdict ResolveVerdict
	Task    vocab.TaskState
	Step    vocab.StepState
}

// ResolveStep declares a step done with a result, which is a JSON value. The error is
// [ErrNotFound] if there is no such step.
func (s *Store) ResolveStep(ctx context.Context, step StepKey, result json.RawMessage, o Operator, host int32) (Resolution, error) {
	r, err := s.resolve(ctx, step, result, false, o, host)
	if err != nil {
		return Resolution{}, fmt.Errorf("resolve step %s: %w", step.UUID(), err)
	}
	return r, nil
}

// SkipStep declares a step done without a result, if its plan allows that. The
// error is [ErrNotFound] if there is no such step.
func (s *Store) SkipStep(ctx context.Context, step StepKey, o Operator, host int32) (Resolution, error) {
	r, err := s.resolve(ctx, step, nil, true, o, host)
	if err != nil {
		return Resolution{}, fmt.Errorf("skip step %s: %w", step.UUID(), err)
	}
	return r, nil
}

func (s *Store) resolve(ctx context.Context, k StepKey, result json.RawMessage, skip bool, o Operator, host int32) (r Resolution, err error) {
	err = insist(func() error {
		return orNotFound(s.pool.QueryRow(ctx, sqlResolveStep, k.Task, k.Number, text(result), skip, o.Reason, o.By, host).
			Scan(&r.Verdict, &r.Task, &r.Step))
	})
	return r, err
}

// ResolveTask declares a task done and cancels what is left of it. resolved is false
// if the task had ended otherwise; state is its resulting state.
func (s *Store) ResolveTask(ctx context.Context, task vocab.UUID, o Operator, host int32) (state vocab.TaskState, resolved bool, err error) {
	err = insist(func() error {
		return s.pool.QueryRow(ctx, sqlResolveTask, task, o.Reason, o.By, host).Scan(&state, &resolved)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return "", false, fmt.Errorf("resolve task %s: %w", task, err)
	}
	return state, resolved, nil
}
