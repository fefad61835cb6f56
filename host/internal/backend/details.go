package backend

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/payload"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Steps implements [api.TaskDetails].
func (b *Backend) Steps(ctx context.Context, task vocab.UUID, q api.PageQuery) ([]readmodel.Step, error) {
	steps, err := b.Store.ReadSteps(ctx, task, q.After, q.Limit)
	if err != nil {
		return nil, taskFault(task, err)
	}
	if err := b.addProgress(ctx, task, steps); err != nil {
		return nil, taskFault(task, err)
	}
	return steps, nil
}

// addProgress adds the progress of the running ones among a task's steps.
func (b *Backend) addProgress(ctx context.Context, task vocab.UUID, steps []readmodel.Step) error {
	runs := func(s readmodel.Step) bool { return s.State == vocab.StepInProgress }
	if !slices.ContainsFunc(steps, runs) {
		return nil
	}
	told, err := b.running(ctx, task)
	if err != nil {
		return err
	}
	for _, p := range told {
		for i := range steps {
			if steps[i].Number == p.Number && runs(steps[i]) {
				steps[i].Progress = &p.StepProgress
			}
		}
	}
	return nil
}

// running returns the progress of a task's running steps: for steps of this host the
// current state, for all others what was written to the database.
func (b *Backend) running(ctx context.Context, task vocab.UUID) ([]readmodel.RunningStep, error) {
	var steps []readmodel.RunningStep
	here := map[int]bool{}
	for _, p := range b.Engine.Progress(task) {
		here[p.Number] = true
		steps = append(steps, readmodel.RunningStep{
			Number: p.Number, Step: p.Step, StepProgress: readmodel.StepProgress{Percent: p.Percent, Note: p.Note},
		})
	}
	written, err := b.Store.Progress(ctx, task)
	if err != nil {
		return nil, err
	}
	for _, p := range written {
		if !here[p.Number] {
			steps = append(steps, readmodel.RunningStep{Number: p.Number, Step: p.Step, StepProgress: progressOf(p.Told)})
		}
	}
	slices.SortStableFunc(steps, func(a, b readmodel.RunningStep) int { return cmp.Compare(a.Number, b.Number) })
	return steps, nil
}

// maxNote bounds how much is shown of a note from an outside worker, in bytes, as for
// plugins.
const maxNote = 200

// progressOf reads the progress that an outside worker reported, which may be any JSON:
// a number is a percentage, an object has percent and note, and anything else is a note.
func progressOf(told json.RawMessage) readmodel.StepProgress {
	var p struct {
		Percent *float64 `json:"percent"`
		Note    string   `json:"note"`
	}
	var percent float64
	var note string
	switch {
	case json.Unmarshal(told, &percent) == nil:
	case json.Unmarshal(told, &note) == nil:
	case json.Unmarshal(told, &p) == nil && (p.Percent != nil || p.Note != ""):
		note = p.Note
		if p.Percent != nil {
			percent = *p.Percent
		}
	default:
		note = string(told)
	}
	return readmodel.StepProgress{Percent: int(min(max(percent, 0), 100)), Note: payload.Text(note, maxNote)}
}

// History implements [api.TaskDetails].
func (b *Backend) History(ctx context.Context, task vocab.UUID, q api.PageQuery) ([]readmodel.Transition, error) {
	history, err := b.Store.ReadHistory(ctx, task, q.After, q.Limit)
	if err != nil {
		return nil, taskFault(task, err)
	}
	return history, nil
}

// The times between two looks at a watched task. If this host sees the end of the task,
// it is shown at once.
const (
	watchMin = 100 * time.Millisecond
	watchMax = time.Second
)

// Watch implements [api.TaskDetails].
func (b *Backend) Watch(ctx context.Context, task vocab.UUID, after string) (readmodel.Snapshot, error) {
	ended, stop := b.Engine.Ended(task) // before the first look, so that an end in between is not missed
	defer stop()
	wait := watchMin
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		snap, err := b.Store.Snapshot(ctx, task)
		if err != nil {
			return readmodel.Snapshot{}, taskFault(task, err)
		}
		if snap.Progress.InProgress > 0 && !snap.Settled() {
			if snap.Running, err = b.running(ctx, task); err != nil {
				return readmodel.Snapshot{}, taskFault(task, err)
			}
		}
		if snap.Revision() != after {
			return snap, nil
		}
		select {
		case <-ended:
			ended = nil // it is received only once
		case <-timer.C:
			wait = min(2*wait, watchMax)
			timer.Reset(wait)
		case <-ctx.Done():
			return snap, nil
		}
	}
}
