package apitest

import (
	"context"
	"encoding/json"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

var _ api.Repair = (*Backend)(nil)

// Step implements api.TaskDetails.
func (b *Backend) Step(_ context.Context, id api.StepID) (readmodel.Step, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, s, err := b.step(id)
	if err != nil {
		return readmodel.Step{}, err
	}
	return *s, nil
}

// The caller of step holds the lock.
func (b *Backend) step(id api.StepID) (*task, *readmodel.Step, error) {
	t, err := b.find(id.Task)
	if err == nil && id.Number >= len(t.steps) {
		err = api.NotFound(api.CodeStepNotFound, "there is no step %s", id)
	}
	if err != nil {
		return nil, nil, err
	}
	return t, &t.steps[id.Number], nil
}

// again runs a failed step again. The caller holds the lock.
func (b *Backend) again(t *task, s *readmodel.Step) {
	b.record(t, s, string(s.State), string(vocab.StepPending))
	s.State, s.Error, s.Attempts, s.Claims, s.FinishedAt = vocab.StepPending, nil, 0, 0, nil
	s.Generation++
	b.reopen(t)
}

func (b *Backend) reopen(t *task) {
	if t.State == vocab.TaskError {
		b.record(t, nil, string(t.State), string(vocab.TaskPending))
		b.record(t, nil, string(vocab.TaskPending), string(vocab.TaskInProgress))
		t.State, t.StateReason, t.Error, t.CompletedAt = vocab.TaskInProgress, "", nil, nil
	}
	b.update(t)
}

// RetryTask implements api.Repair.
func (b *Backend) RetryTask(_ context.Context, id vocab.UUID, _ api.Operator) (readmodel.Task, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, err := b.find(id)
	if err != nil {
		return readmodel.Task{}, err
	}
	failed := false
	for i := range t.steps {
		if t.steps[i].State == vocab.StepError {
			failed = true
			b.again(t, &t.steps[i])
		}
	}
	if !failed {
		return readmodel.Task{}, api.Conflict(api.CodeTaskNotRetryable, "task %s is %s: there is nothing to retry", id, t.State)
	}
	return t.Task, nil
}

// ResolveTask implements api.Repair.
func (b *Backend) ResolveTask(_ context.Context, id vocab.UUID, _ api.Operator) (readmodel.Task, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, err := b.find(id)
	if err != nil {
		return readmodel.Task{}, err
	}
	if !vocab.CanTask(t.State, vocab.TaskResolvedManually) {
		return readmodel.Task{}, api.Conflict(api.CodeTaskNotResolvable, "task %s is %s: there is nothing to resolve", id, t.State)
	}
	b.settle(t, vocab.TaskResolvedManually, "resolved by an operator")
	b.update(t)
	return t.Task, nil
}

// RetryStep implements api.Repair.
func (b *Backend) RetryStep(_ context.Context, id api.StepID, _ api.Operator) (readmodel.Step, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, s, err := b.step(id)
	if err != nil {
		return readmodel.Step{}, err
	}
	if s.State != vocab.StepError {
		return readmodel.Step{}, api.Conflict(api.CodeStepNotRetryable, "step %s is %s", id, s.State)
	}
	b.again(t, s)
	return *s, nil
}

// ResolveStep implements api.Repair.
func (b *Backend) ResolveStep(_ context.Context, id api.StepID, result json.RawMessage, _ api.Operator) (readmodel.Step, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, s, err := b.step(id)
	if err != nil {
		return readmodel.Step{}, err
	}
	if s.State != vocab.StepError {
		return readmodel.Step{}, api.Conflict(api.CodeStepNotResolvable, "step %s is %s", id, s.State)
	}
	b.record(t, s, string(s.State), string(vocab.StepResolvedManually))
	s.State, s.Result, s.Error = vocab.StepResolvedManually, result, nil
	b.reopen(t)
	return *s, nil
}

// SkipStep implements api.Repair. No step of the fake is skippable.
func (b *Backend) SkipStep(_ context.Context, id api.StepID, _ api.Operator) (readmodel.Step, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, _, err := b.step(id); err != nil {
		return readmodel.Step{}, err
	}
	return readmodel.Step{}, api.Conflict(api.CodeStepNotSkippable, "step %s may not be skipped", id)
}
