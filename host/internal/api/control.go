package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// Operation shows and changes the operational state of this host.
type Operation interface {
	// HostState returns the state.
	HostState(ctx context.Context) readmodel.HostState
	// MoveHost makes the host enter another state. It returns at once; what follows from
	// the new state continues. A state that the host cannot enter now is a conflict
	// (CodeStateForbidden).
	MoveHost(ctx context.Context, o StateOrder) (readmodel.HostState, error)
}

// StateOrder is a request that a host enter a state.
type StateOrder struct {
	State string
	Grace *time.Duration // for a graceful shutdown: how long steps may continue; nil: as configured
	Operator
}

// The operations on breakers.
const (
	BreakerOpen  = "open"  // refuse all calls until it is closed or reset
	BreakerClose = "close" // let all calls through again, and reset the count
	BreakerReset = "reset" // leave it to the breaker: probes decide
)

// Breakers shows and moves the circuit breakers of this host.
type Breakers interface {
	Breakers(ctx context.Context) readmodel.BreakerPage
	// MoveBreaker performs an operation. A name of no breaker, or of a queue that does
	// not exist, is a fault (CodeBreakerNotFound).
	MoveBreaker(ctx context.Context, name, move string, o Operator) (readmodel.Breaker, error)
}

type stateRequest struct {
	State        string   `json:"state" enum:"graceful_shutdown,emergency" doc:"graceful_shutdown: finish running steps, take nothing new, then stop. emergency: cancel running steps, give them back, then stop."`
	GraceSeconds *float64 `json:"grace_seconds,omitempty" minimum:"0" maximum:"3600" doc:"For graceful_shutdown: how long steps may go on. Default: orchestration.drain_timeout."`
	Reason       string   `json:"reason,omitempty" maxLength:"1000" doc:"Why."`
	By           string   `json:"by,omitempty" maxLength:"255" doc:"A name recorded beside the principal."`
}

type stateInput struct{ Body stateRequest }

type stateOutput struct{ Body readmodel.HostState }

type breakersOutput struct{ Body readmodel.BreakerPage }

type breakerMoveInput struct {
	Name string `path:"breaker" maxLength:"100"`
	Body *operatorRequest
}

type breakerOutput struct{ Body readmodel.Breaker }

func (r *routes) controlRoutes() {
	register(r, huma.Operation{
		OperationID: "show-state", Method: http.MethodGet, Path: "/v1/system/state", Tags: []string{"system"},
		Summary: "Show the operational state of this host",
	}, func(ctx context.Context, _ *struct{}) (*stateOutput, error) {
		return &stateOutput{Body: r.backend.Operation.HostState(ctx)}, nil
	})
	register(r, huma.Operation{
		OperationID: "move-state", Method: http.MethodPost, Path: "/v1/system/state", Tags: []string{"system"},
		Summary:     "Shut this host down, gracefully or at once",
		Description: "Answers at once. A shutdown in progress gets the new time limit, or becomes an emergency.",
	}, func(ctx context.Context, in *stateInput) (*stateOutput, error) {
		o := StateOrder{State: in.Body.State, Operator: operatorOf(ctx, in.Body.By, in.Body.Reason)}
		if in.Body.GraceSeconds != nil {
			o.Grace = new(time.Duration(*in.Body.GraceSeconds * float64(time.Second)))
		}
		s, err := r.backend.Operation.MoveHost(ctx, o)
		if err != nil {
			return nil, err
		}
		return &stateOutput{Body: s}, nil
	})
	register(r, huma.Operation{
		OperationID: "list-breakers", Method: http.MethodGet, Path: "/v1/breakers", Tags: []string{"system"},
		Summary: "List the circuit breakers of this host",
	}, func(ctx context.Context, _ *struct{}) (*breakersOutput, error) {
		return &breakersOutput{Body: r.backend.Breakers.Breakers(ctx)}, nil
	})
	for move, summary := range map[string]string{
		BreakerOpen:  "Refuse the calls of a circuit breaker until it is closed or reset",
		BreakerClose: "Let the calls of a circuit breaker through again",
		BreakerReset: "Reset a circuit breaker: probes decide whether it closes",
	} {
		register(r, huma.Operation{
			OperationID: move + "-breaker", Method: http.MethodPost, Path: "/v1/breakers/{breaker}/" + move, Tags: []string{"system"},
			Summary: summary,
		}, func(ctx context.Context, in *breakerMoveInput) (*breakerOutput, error) {
			b, err := r.backend.Breakers.MoveBreaker(ctx, in.Name, move, in.Body.operator(ctx))
			if err != nil {
				return nil, err
			}
			return &breakerOutput{Body: b}, nil
		})
	}
}
