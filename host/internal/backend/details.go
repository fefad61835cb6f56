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

// addProgress says of the running ones of a task's steps how far they are.
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

// running is what the running steps of a task say of themselves: those of this
// host, as they are now, and what is written of all others.
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

// maxNote bounds what is shown of what an outside worker tells, in bytes, as
// plugins are bound.
const maxNote = 200

// progressOf reads what an outside worker told, which may be any JSON: a number is
// a percentage, an object has percent and note, and everything else is a note.
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
			ended = nil // it receives once
		case <-timer.C:
			wait = min(2*wait, watchMax)
			timer.Reset(wait)
		case <-ctx.Done():
			return snap, nil
		}
	}
}
