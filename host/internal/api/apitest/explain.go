package apitest

import (
	"context"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

var _ api.Explain = (*Backend)(nil)

// ExplainTask implements api.Explain.
func (b *Backend) ExplainTask(_ context.Context, id vocab.UUID) (readmodel.TaskExplanation, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, err := b.find(id)
	if err != nil {
		return readmodel.TaskExplanation{}, err
	}
	until := Epoch
	e := readmodel.Explanation{TaskUUID: t.UUID, State: string(t.State), Cause: readmodel.CauseRetryDue, Text: "step linear_step_1 waits until noon", Until: &until}
	s := e
	s.StepUUID, s.Step, s.State, s.Text = t.steps[0].UUID, t.steps[0].Name, string(t.steps[0].State), "it waits until noon"
	return readmodel.TaskExplanation{Explanation: e, Steps: []readmodel.Explanation{s}}, nil
}

// ExplainStep implements api.Explain.
func (b *Backend) ExplainStep(_ context.Context, id api.StepID) (readmodel.Explanation, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, s, err := b.step(id)
	if err != nil {
		return readmodel.Explanation{}, err
	}
	return readmodel.Explanation{
		TaskUUID: t.UUID, StepUUID: s.UUID, Step: s.Name, State: string(s.State), Cause: readmodel.CausePaused, Text: "its queue is paused",
	}, nil
}
