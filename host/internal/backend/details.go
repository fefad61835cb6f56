package backend

import (
	"context"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Steps implements [api.TaskDetails].
func (b *Backend) Steps(ctx context.Context, task vocab.UUID, q api.PageQuery) ([]readmodel.Step, error) {
	steps, err := b.Store.ReadSteps(ctx, task, q.After, q.Limit)
	if err != nil {
		return nil, taskFault(task, err)
	}
	return steps, nil
}

// History implements [api.TaskDetails].
func (b *Backend) History(ctx context.Context, task vocab.UUID, q api.PageQuery) ([]readmodel.Transition, error) {
	history, err := b.Store.ReadHistory(ctx, task, q.After, q.Limit)
	if err != nil {
		return nil, taskFault(task, err)
	}
	return history, nil
}

// Between two looks at a watched task. Its end, if this host sees it, is shown at
// once.
const (
	watchMin = 100 * time.Millisecond
	watchMax = time.Second
)

// Watch implements [api.TaskDetails].
func (b *Backend) Watch(ctx context.Context, task vocab.UUID, after string) (readmodel.Snapshot, error) {
	ended, stop := b.Engine.Ended(task) // before the first look: an end in between is not missed
	defer stop()
	wait := watchMin
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		snap, err := b.Store.Snapshot(ctx, task)
		if err != nil {
			return readmodel.Snapshot{}, taskFault(task, err)
		}
		if snap.Revision() != after {
			return snap, nil
		}
		select {
		case <-ended:
			ended = nil // it receives once
		case <-timer.C:
			wait = min(2*wait, watchMax)
			timer.Reset(wait)
		case <-ctx.Done():
			return snap, nil
		}
	}
}
