package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// Pools shows and changes the pools of executors of this host. A pool that does not exist
// is a fault (CodePoolNotFound).
type Pools interface {
	// Pools lists all pools by name.
	Pools(ctx context.Context) ([]readmodel.Pool, error)
	// Pool returns one pool.
	Pool(ctx context.Context, name string) (readmodel.Pool, error)
	// SetPool changes settings of a pool, until the configuration changes them or the
	// host ends. Fault: CodePoolRefused (conflict); then nothing has changed.
	SetPool(ctx context.Context, name string, change PoolChange) (readmodel.Pool, error)
	// PausePool stops the executors from beginning anything new, or lets them go on.
	PausePool(ctx context.Context, name string, pause bool, o Operator) (readmodel.Pool, error)
}

// PoolRecords returns the records of pools. Faults are those of [Pools].
type PoolRecords interface {
	// PoolHistory returns up to limit decisions, newest first: all of them, or those
	// that changed the pool.
	PoolHistory(ctx context.Context, name string, limit int, changes bool) ([]readmodel.PoolDecision, error)
	// PoolSamples returns up to limit samples that ended after a time, oldest first.
	PoolSamples(ctx context.Context, name string, after time.Time, limit int) ([]readmodel.PoolSample, error)
}

// PoolChange is a change to a pool; nil fields stay as they are.
type PoolChange struct {
	Min, Max                 *int
	Batch                    *int
	PollMin, PollMax         *time.Duration
	TurnTimeout, StopTimeout *time.Duration
	Algorithm, Shadow        *string
}

// PoolPath names a pool in a path.
type PoolPath struct {
	Pool string `path:"pool" maxLength:"100" pattern:"^[a-z][a-z0-9_.]*$" patternDescription:"lower-case letters, digits, _ and ."`
}

// PoolRequest changes a pool. Omitted fields stay as they are.
type PoolRequest struct {
	Min         *whole  `json:"min,omitempty" minimum:"1" maximum:"100000"`
	Max         *whole  `json:"max,omitempty" minimum:"1" maximum:"100000"`
	Batch       *whole  `json:"batch,omitempty" minimum:"1" maximum:"10000" doc:"Maximum pieces of work in an executor's turn."`
	PollMin     *string `json:"poll_min,omitempty" maxLength:"20" doc:"Pause before the next look at queues that had work, such as 50ms."`
	PollMax     *string `json:"poll_max,omitempty" maxLength:"20" doc:"Longest pause between two looks at idle queues, such as 1s."`
	TurnTimeout *string `json:"turn_timeout,omitempty" maxLength:"20" doc:"An executor whose turn takes longer is considered stuck and is replaced; such as 1m."`
	StopTimeout *string `json:"stop_timeout,omitempty" maxLength:"20" doc:"How long a stopping host waits for the executors, such as 3s."`
	Algorithm   *string `json:"algorithm,omitempty" minLength:"1" maxLength:"4096" doc:"A name that a scaling plugin serves, or else a built-in one, with its options as JSON after an equals sign."`
	Shadow      *string `json:"shadow,omitempty" maxLength:"4096" doc:"As algorithm; empty for none."`
}

func (r *PoolRequest) change() (PoolChange, error) {
	c := PoolChange{Min: (*int)(r.Min), Max: (*int)(r.Max), Batch: (*int)(r.Batch), Algorithm: r.Algorithm, Shadow: r.Shadow}
	var issues []Issue
	duration := func(name string, text *string, to **time.Duration) {
		if text == nil {
			return
		}
		d, err := time.ParseDuration(*text)
		if err != nil {
			issues = append(issues, Issue{Location: "body." + name, Detail: "expected a duration with its unit, such as 50ms or 1m"})
			return
		}
		*to = &d
	}
	duration("poll_min", r.PollMin, &c.PollMin)
	duration("poll_max", r.PollMax, &c.PollMax)
	duration("turn_timeout", r.TurnTimeout, &c.TurnTimeout)
	duration("stop_timeout", r.StopTimeout, &c.StopTimeout)
	if issues != nil {
		return PoolChange{}, Invalid(CodeValidationFailed, "the request has values that are not allowed", issues...)
	}
	return c, nil
}

type (
	poolOutput    struct{ Body readmodel.Pool }
	poolsOutput   struct{ Body readmodel.PoolPage }
	poolMoveInput struct {
		PoolPath
		Body *operatorRequest
	}
)

func (r *routes) poolRoutes() {
	register(r, huma.Operation{
		OperationID: "list-pools", Method: http.MethodGet, Path: "/v1/pools", Tags: []string{"pools"},
		Summary: "List the pools of executors of this host",
	}, func(ctx context.Context, _ *struct{}) (*poolsOutput, error) {
		pools, err := r.backend.Pools.Pools(ctx)
		if err != nil {
			return nil, err
		}
		items, _ := trim(pools, len(pools))
		return &poolsOutput{Body: readmodel.PoolPage{Items: items}}, nil
	})
	register(r, huma.Operation{
		OperationID: "show-pool", Method: http.MethodGet, Path: "/v1/pools/{pool}", Tags: []string{"pools"},
		Summary: "Show a pool: its size, what was measured, and the latest decision",
	}, func(ctx context.Context, in *PoolPath) (*poolOutput, error) {
		p, err := r.backend.Pools.Pool(ctx, in.Pool)
		return &poolOutput{Body: p}, err
	})
	register(r, huma.Operation{
		OperationID: "set-pool", Method: http.MethodPatch, Path: "/v1/pools/{pool}", Tags: []string{"pools"},
		Summary:     "Change the bounds, the pace or the algorithm of a pool at once",
		Description: "The change is checked against the resources and lasts until the configuration changes the pool or the host stops.",
	}, func(ctx context.Context, in *struct {
		PoolPath
		Body PoolRequest
	},
	) (*poolOutput, error) {
		change, err := in.Body.change()
		if err != nil {
			return nil, err
		}
		p, err := r.backend.Pools.SetPool(ctx, in.Pool, change)
		return &poolOutput{Body: p}, err
	})
	register(r, huma.Operation{
		OperationID: "pause-pool", Method: http.MethodPost, Path: "/v1/pools/{pool}/pause", Tags: []string{"pools"},
		Summary:     "Stop a pool's executors from starting work, on this host",
		Description: "Running work finishes; steps that were claimed but not started are given back. The pause ends at the latest with the host.",
	}, r.poolMove(true))
	register(r, huma.Operation{
		OperationID: "resume-pool", Method: http.MethodPost, Path: "/v1/pools/{pool}/resume", Tags: []string{"pools"},
		Summary: "Resume a paused pool",
	}, r.poolMove(false))
	r.poolHistoryRoutes()
}

func (r *routes) poolHistoryRoutes() {
	register(r, huma.Operation{
		OperationID: "pool-history", Method: http.MethodGet, Path: "/v1/pools/{pool}/history", Tags: []string{"pools"},
		Summary: "List the decisions about a pool with their reasons, newest first",
	}, func(ctx context.Context, in *struct {
		PoolPath
		Limit   int  `query:"limit" minimum:"1" maximum:"500" default:"50"`
		Changes bool `query:"changes" doc:"Only those that changed the pool; they are kept longer."`
	},
	) (*struct{ Body readmodel.PoolHistory }, error) {
		all, err := r.backend.PoolRecords.PoolHistory(ctx, in.Pool, in.Limit, in.Changes)
		if err != nil {
			return nil, err
		}
		items, _ := trim(all, len(all))
		return &struct{ Body readmodel.PoolHistory }{readmodel.PoolHistory{Items: items}}, nil
	})
	register(r, huma.Operation{
		OperationID: "pool-samples", Method: http.MethodGet, Path: "/v1/pools/{pool}/samples", Tags: []string{"pools"},
		Summary: "List the measurements of a pool, oldest first; about an hour is kept",
	}, func(ctx context.Context, in *struct {
		PoolPath
		After time.Time `query:"after" doc:"Only samples that ended later."`
		Limit int       `query:"limit" minimum:"1" maximum:"2000" default:"1000"`
	},
	) (*struct{ Body readmodel.PoolSamples }, error) {
		all, err := r.backend.PoolRecords.PoolSamples(ctx, in.Pool, in.After, in.Limit)
		if err != nil {
			return nil, err
		}
		items, _ := trim(all, len(all))
		return &struct{ Body readmodel.PoolSamples }{readmodel.PoolSamples{Items: items}}, nil
	})
}

func (r *routes) poolMove(pause bool) func(context.Context, *poolMoveInput) (*poolOutput, error) {
	return func(ctx context.Context, in *poolMoveInput) (*poolOutput, error) {
		p, err := r.backend.Pools.PausePool(ctx, in.Pool, pause, in.Body.operator(ctx))
		return &poolOutput{Body: p}, err
	}
}
