package api

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tasker-systems/tasker-host/host/internal/auth"
	"github.com/tasker-systems/tasker-host/host/internal/payload"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// operatorRequest is what an operator says about a change.
type operatorRequest struct {
	Reason string `json:"reason,omitempty" maxLength:"1000" doc:"Why; kept in the history."`
	By     string `json:"by,omitempty" maxLength:"255" doc:"A name recorded beside the principal in the history if that is a user of the socket or anonymous; ignored for tokens."`
}

func (o *operatorRequest) operator(ctx context.Context) Operator {
	if o == nil {
		return operatorOf(ctx, "", "")
	}
	return operatorOf(ctx, o.By, o.Reason)
}

// operatorOf says who makes a change: the principal of the request, whatever its body says.
// Only if several people may be behind the principal, on the socket or without
// authentication, the name that they give is added.
func operatorOf(ctx context.Context, by, reason string) Operator {
	p := auth.From(ctx)
	who := p.String()
	if by != "" && (p.Kind == auth.Local || p.Kind == auth.Anonymous) {
		who += " (" + by + ")"
	}
	return Operator{By: payload.Text(who, maxActor), Reason: reason}
}

// maxActor bounds, in bytes, what is recorded about who did something.
const maxActor = 300

type taskMoveInput struct {
	TaskUUID string `path:"task_uuid" format:"uuid"`
	Body     *operatorRequest
}

type stepPath struct {
	StepUUID string `path:"step_uuid" format:"uuid"`
}

type stepMoveInput struct {
	StepUUID string `path:"step_uuid" format:"uuid"`
	Body     *operatorRequest
}

type resolveRequest struct {
	Result jsonValue `json:"result,omitempty" doc:"Any JSON value, with every digit kept: what the step's children see as its result. Default: null."`
	Reason string    `json:"reason,omitempty" maxLength:"1000" doc:"Why; kept in the history."`
	By     string    `json:"by,omitempty" maxLength:"255" doc:"A name recorded beside the principal in the history if that is a user of the socket or anonymous; ignored for tokens."`
}

type resolveInput struct {
	StepUUID string `path:"step_uuid" format:"uuid"`
	Body     resolveRequest
}

type stepOutput struct{ Body readmodel.Step }

func (r *routes) repairRoutes() {
	register(r, huma.Operation{
		OperationID: "show-step", Method: http.MethodGet, Path: "/v1/steps/{step_uuid}", Tags: []string{"steps"},
		Summary: "Show a step with its result",
	}, r.showStep)
	register(r, huma.Operation{
		OperationID: "retry-step", Method: http.MethodPost, Path: "/v1/steps/{step_uuid}/retry", Tags: []string{"steps"},
		Summary: "Retry a failed step",
		Description: "The step starts a new generation: attempts and claims start at zero, the idempotency key is new, the history is kept. " +
			"A failed task continues.",
	}, r.stepMove(Repair.RetryStep))
	register(r, huma.Operation{
		OperationID: "resolve-step", Method: http.MethodPost, Path: "/v1/steps/{step_uuid}/resolve", Tags: []string{"steps"},
		Summary:     "Declare a step done, with a result",
		Description: "For a step that has failed, is enqueued or waits for its next attempt. Its task continues, or ends if nothing is left.",
	}, r.resolveStep)
	register(r, huma.Operation{
		OperationID: "skip-step", Method: http.MethodPost, Path: "/v1/steps/{step_uuid}/skip", Tags: []string{"steps"},
		Summary: "Declare a step done without a result, if its template says skippable",
	}, r.stepMove(Repair.SkipStep))
	register(r, huma.Operation{
		OperationID: "retry-task", Method: http.MethodPost, Path: "/v1/tasks/{task_uuid}/retry", Tags: []string{"tasks"},
		Summary: "Retry all failed steps of a task",
	}, r.taskMove(Repair.RetryTask))
	register(r, huma.Operation{
		OperationID: "resolve-task", Method: http.MethodPost, Path: "/v1/tasks/{task_uuid}/resolve", Tags: []string{"tasks"},
		Summary:     "Declare a task done, regardless of its steps",
		Description: "Its remaining steps are cancelled; running steps are told through their context.",
	}, r.taskMove(Repair.ResolveTask))
}

// taskMove makes the handler of an operator's change to a task.
func (r *routes) taskMove(move func(Repair, context.Context, vocab.UUID, Operator) (readmodel.Task, error)) func(context.Context, *taskMoveInput) (*taskOutput, error) {
	return func(ctx context.Context, in *taskMoveInput) (*taskOutput, error) {
		id, err := taskID(in.TaskUUID)
		if err != nil {
			return nil, err
		}
		task, err := move(r.backend.Repair, ctx, id, in.Body.operator(ctx))
		if err != nil {
			return nil, err
		}
		return &taskOutput{Body: task}, nil
	}
}

// stepMove makes the handler of an operator's change to a step.
func (r *routes) stepMove(move func(Repair, context.Context, StepID, Operator) (readmodel.Step, error)) func(context.Context, *stepMoveInput) (*stepOutput, error) {
	return func(ctx context.Context, in *stepMoveInput) (*stepOutput, error) {
		id, err := stepID(in.StepUUID)
		if err != nil {
			return nil, err
		}
		step, err := move(r.backend.Repair, ctx, id, in.Body.operator(ctx))
		if err != nil {
			return nil, err
		}
		return &stepOutput{Body: step}, nil
	}
}

func (r *routes) resolveStep(ctx context.Context, in *resolveInput) (*stepOutput, error) {
	id, err := stepID(in.StepUUID)
	if err != nil {
		return nil, err
	}
	result := json.RawMessage("null")
	if raw := in.Body.Result.RawMessage; raw != nil {
		if p := checkJSON(raw, "/result", payload.ResultLimits()); p != nil {
			return nil, p
		}
		result = raw
	}
	step, err := r.backend.Repair.ResolveStep(ctx, id, result, operatorOf(ctx, in.Body.By, in.Body.Reason))
	if err != nil {
		return nil, err
	}
	return &stepOutput{Body: step}, nil
}

func (r *routes) showStep(ctx context.Context, in *stepPath) (*stepOutput, error) {
	id, err := stepID(in.StepUUID)
	if err != nil {
		return nil, err
	}
	step, err := r.backend.Details.Step(ctx, id)
	if err != nil {
		return nil, err
	}
	return &stepOutput{Body: step}, nil
}

// stepID reads a step's UUID from a path.
func stepID(s string) (StepID, error) {
	u, err := vocab.ParseUUID(s)
	detail := ""
	if err != nil {
		detail = err.Error()
	}
	task, n, ok := vocab.SplitStepID(u)
	if err == nil && !ok {
		detail = "it names a task, not a step: see the task's list of steps"
	}
	if detail != "" {
		return StepID{}, newProblem(http.StatusUnprocessableEntity, CodeValidationFailed,
			"the request has values that are not allowed", Issue{Location: "path.step_uuid", Detail: detail})
	}
	return StepID{Task: task, Number: n}, nil
}
