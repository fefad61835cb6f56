package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

type explainStepOutput struct{ Body readmodel.Explanation }

type explainTaskOutput struct{ Body readmodel.TaskExplanation }

func (r *routes) explainRoutes() {
	register(r, huma.Operation{
		OperationID: "explain-task", Method: http.MethodGet, Path: "/v1/tasks/{task_uuid}/explain", Tags: []string{"tasks"},
		Summary:     "Explain why a task is not running, or that it is",
		Description: "A sentence for people, and a stable cause for programs; then the same for each of its steps that could move.",
	}, func(ctx context.Context, in *taskPath) (*explainTaskOutput, error) {
		id, err := taskID(in.TaskUUID)
		if err != nil {
			return nil, err
		}
		e, err := r.backend.Explain.ExplainTask(ctx, id)
		if err != nil {
			return nil, err
		}
		return &explainTaskOutput{Body: e}, nil
	})
	register(r, huma.Operation{
		OperationID: "explain-step", Method: http.MethodGet, Path: "/v1/steps/{step_uuid}/explain", Tags: []string{"steps"},
		Summary: "Explain why a step is not running, or that it is",
	}, func(ctx context.Context, in *stepPath) (*explainStepOutput, error) {
		id, err := stepID(in.StepUUID)
		if err != nil {
			return nil, err
		}
		e, err := r.backend.Explain.ExplainStep(ctx, id)
		if err != nil {
			return nil, err
		}
		return &explainStepOutput{Body: e}, nil
	})
}
