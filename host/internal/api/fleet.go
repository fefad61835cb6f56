package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

type hostsOutput struct{ Body readmodel.HostPage }

type workersOutput struct{ Body readmodel.WorkerPage }

type queuesOutput struct{ Body readmodel.QueuePage }

type queuePath struct {
	Namespace string `path:"namespace" maxLength:"63"`
}

type queueMoveInput struct {
	Namespace string `path:"namespace" maxLength:"63"`
	Body      *operatorRequest
}

type queueOutput struct{ Body readmodel.Queue }

func (r *routes) fleetRoutes() {
	register(r, huma.Operation{
		OperationID: "list-hosts", Method: http.MethodGet, Path: "/v1/hosts", Tags: []string{"system"},
		Summary: "List the hosts on the database that were alive within the last day, newest first",
	}, func(ctx context.Context, _ *struct{}) (*hostsOutput, error) {
		hosts, err := r.backend.Fleet.Hosts(ctx)
		if err != nil {
			return nil, err
		}
		items, _ := trim(hosts, len(hosts))
		return &hostsOutput{Body: readmodel.HostPage{Items: items}}, nil
	})
	register(r, huma.Operation{
		OperationID: "list-workers", Method: http.MethodGet, Path: "/v1/workers", Tags: []string{"system"},
		Summary: "List the outside workers that claimed steps, most recently seen first, at most 500",
	}, func(ctx context.Context, _ *struct{}) (*workersOutput, error) {
		workers, err := r.backend.Fleet.Workers(ctx)
		if err != nil {
			return nil, err
		}
		items, _ := trim(workers, len(workers))
		return &workersOutput{Body: readmodel.WorkerPage{Items: items}}, nil
	})
	register(r, huma.Operation{
		OperationID: "list-queues", Method: http.MethodGet, Path: "/v1/queues", Tags: []string{"queues"},
		Summary: "List the queues of all namespaces",
	}, func(ctx context.Context, _ *struct{}) (*queuesOutput, error) {
		queues, err := r.backend.Fleet.Queues(ctx)
		if err != nil {
			return nil, err
		}
		items, _ := trim(queues, len(queues))
		return &queuesOutput{Body: readmodel.QueuePage{Items: items}}, nil
	})
	register(r, huma.Operation{
		OperationID: "show-queue", Method: http.MethodGet, Path: "/v1/queues/{namespace}", Tags: []string{"queues"},
		Summary: "Show the queue of a namespace",
	}, func(ctx context.Context, in *queuePath) (*queueOutput, error) {
		q, err := r.backend.Fleet.Queue(ctx, in.Namespace)
		if err != nil {
			return nil, err
		}
		return &queueOutput{Body: q}, nil
	})
	register(r, huma.Operation{
		OperationID: "pause-queue", Method: http.MethodPost, Path: "/v1/queues/{namespace}/pause", Tags: []string{"queues"},
		Summary:     "Stop starting steps of a namespace, on any host",
		Description: "Running steps finish. The pause lasts until the namespace is resumed. Pausing again replaces who paused it and why.",
	}, r.queueMove(true))
	register(r, huma.Operation{
		OperationID: "resume-queue", Method: http.MethodPost, Path: "/v1/queues/{namespace}/resume", Tags: []string{"queues"},
		Summary: "Resume a paused namespace",
	}, r.queueMove(false))
}

func (r *routes) queueMove(pause bool) func(context.Context, *queueMoveInput) (*queueOutput, error) {
	return func(ctx context.Context, in *queueMoveInput) (*queueOutput, error) {
		q, err := r.backend.Fleet.PauseQueue(ctx, in.Namespace, pause, in.Body.operator(ctx))
		if err != nil {
			return nil, err
		}
		return &queueOutput{Body: q}, nil
	}
}
