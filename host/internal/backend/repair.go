package backend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

func keyOf(id api.StepID) store.StepKey {
	return store.StepKey{Task: id.Task, Number: int32(id.Number)} // at most vocab.MaxSteps
}

// stepFault is fault for a call about one step.
func stepFault(id api.StepID, err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return api.NotFound(api.CodeStepNotFound, "there is no step %s", id)
	}
	return inputFault(err)
}

// Step implements [api.TaskDetails].
func (b *Backend) Step(ctx context.Context, id api.StepID) (readmodel.Step, error) {
	step, err := b.Store.ReadStep(ctx, keyOf(id))
	if err != nil {
		return readmodel.Step{}, stepFault(id, err)
	}
	one := []readmodel.Step{step}
	if err := b.addProgress(ctx, id.Task, one); err != nil {
		return readmodel.Step{}, stepFault(id, err)
	}
	return one[0], nil
}

// RetryTask implements [api.Repair].
func (b *Backend) RetryTask(ctx context.Context, task vocab.UUID, o api.Operator) (readmodel.Task, error) {
	r, err := b.Store.RetryTask(ctx, task, store.Operator(o), b.Repairs.HostID())
	if err != nil {
		return readmodel.Task{}, taskFault(task, err)
	}
	if len(r.Steps) == 0 {
		return readmodel.Task{}, api.Conflict(api.CodeTaskNotRetryable, "task %s is %s and %s", task, r.Task, whyNothingFailed(r.Task))
	}
	b.Repairs.Repaired(task, r.Task)
	return b.Task(ctx, task)
}

func whyNothingFailed(state vocab.TaskState) string {
	if state.Active() {
		return "no step of it has failed for good: there is nothing to retry"
	}
	return "stays so: only failed steps of a task in state in_progress or error can be retried"
}

// ResolveTask implements [api.Repair].
func (b *Backend) ResolveTask(ctx context.Context, task vocab.UUID, o api.Operator) (readmodel.Task, error) {
	state, resolved, err := b.Store.ResolveTask(ctx, task, store.Operator(o), b.Repairs.HostID())
	if err != nil {
		return readmodel.Task{}, taskFault(task, err)
	}
	if !resolved {
		return readmodel.Task{}, api.Conflict(api.CodeTaskNotResolvable, "task %s is %s: there is nothing to resolve", task, state)
	}
	b.Repairs.Repaired(task, state)
	return b.Task(ctx, task)
}

// RetryStep implements [api.Repair].
func (b *Backend) RetryStep(ctx context.Context, id api.StepID, o api.Operator) (readmodel.Step, error) {
	r, err := b.Store.RetryStep(ctx, keyOf(id), store.Operator(o), b.Repairs.HostID())
	if err != nil {
		return readmodel.Step{}, stepFault(id, err)
	}
	if len(r.Steps) == 0 {
		return readmodel.Step{}, api.Conflict(api.CodeStepNotRetryable, "step %s is %s in a task that is %s: only a failed step of a task in state in_progress or error can be retried", id, r.Step, r.Task)
	}
	b.Repairs.Repaired(id.Task, r.Task)
	return b.Step(ctx, id)
}

// ResolveStep implements [api.Repair].
func (b *Backend) ResolveStep(ctx context.Context, id api.StepID, result json.RawMessage, o api.Operator) (readmodel.Step, error) {
	r, err := b.Store.ResolveStep(ctx, keyOf(id), result, store.Operator(o), b.Repairs.HostID())
	return b.resolved(ctx, id, r, err)
}

// SkipStep implements [api.Repair].
func (b *Backend) SkipStep(ctx context.Context, id api.StepID, o api.Operator) (readmodel.Step, error) {
	r, err := b.Store.SkipStep(ctx, keyOf(id), store.Operator(o), b.Repairs.HostID())
	return b.resolved(ctx, id, r, err)
}

func (b *Backend) resolved(ctx context.Context, id api.StepID, r store.Resolution, err error) (readmodel.Step, error) {
	if err != nil {
		return readmodel.Step{}, stepFault(id, err)
	}
	if r.Verdict == store.Resolved {
		b.Repairs.Repaired(id.Task, r.Task)
		return b.Step(ctx, id)
	}
	code, why := api.CodeStepNotResolvable, ""
	switch r.Verdict {
	case store.StepRunning:
		why = "is running and its outcome decides: wait for it, or cancel the task"
	case store.StepWaiting:
		why = "waits for its parents: resolve those first"
	case store.TaskEnded:
		why = fmt.Sprintf("belongs to a task that is %s", r.Task)
	case store.StepUnskippable:
		code, why = api.CodeStepNotSkippable, "may not be skipped: its template does not say 'skippable: true'; resolve it with a result instead"
	default:
		why = fmt.Sprintf("is already %s", r.Step)
	}
	return readmodel.Step{}, api.Conflict(code, "step %s %s", id, why)
}
