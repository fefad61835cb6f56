package apitest

import (
	"context"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

var (
	_ api.Operation = (*Backend)(nil)
	_ api.Breakers  = (*Backend)(nil)
)

// HostState implements [api.Operation].
func (b *Backend) HostState(context.Context) readmodel.HostState {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := readmodel.HostState{
		Host: "blue", State: "normal", Since: Epoch, Reason: "every part has started",
		Next: []string{"graceful_shutdown", "emergency"}, Steps: 3,
	}
	if o := b.order; o != nil {
		s.State, s.Reason, s.Next = o.State, "by "+o.By+": "+o.Reason, []string{"emergency"}
		if o.Grace != nil {
			s.DrainUntil = new(Epoch.Add(*o.Grace))
		}
		if o.State == "emergency" {
			s.Next = []string{}
		}
	}
	return s
}

// MoveHost implements [api.Operation].
func (b *Backend) MoveHost(ctx context.Context, o api.StateOrder) (readmodel.HostState, error) {
	b.mu.Lock()
	before := b.order
	b.mu.Unlock()
	if before != nil && before.State == "emergency" && o.State != "emergency" {
		return readmodel.HostState{}, api.Conflict(api.CodeStateForbidden, "the host is in state emergency and cannot enter %s", o.State)
	}
	b.mu.Lock()
	b.order = &o
	b.mu.Unlock()
	return b.HostState(ctx), nil
}

// Breakers implements [api.Breakers].
func (b *Backend) Breakers(context.Context) readmodel.BreakerPage {
	return readmodel.BreakerPage{Enabled: true, Items: []readmodel.Breaker{
		{Name: "database", State: "closed", Since: Epoch, Threshold: 5, Probes: 2, Timeout: "30s"},
		{Name: "queue.shop_queue.claim", State: "open", Since: Epoch, Reason: "claim steps of shop_queue: the statement took too long", Failures: 3, Refused: 41, RetrySeconds: 12.5, Threshold: 3, Probes: 2, Timeout: "15s"},
	}}
}

// MoveBreaker implements [api.Breakers].
func (b *Backend) MoveBreaker(ctx context.Context, name, move string, o api.Operator) (readmodel.Breaker, error) {
	states := map[string]string{api.BreakerOpen: "forced_open", api.BreakerClose: "closed", api.BreakerReset: "half_open"}
	for _, k := range b.Breakers(ctx).Items {
		if k.Name == name {
			k.State, k.Since, k.Reason, k.RetrySeconds = states[move], Epoch.Add(time.Minute), "by "+o.By+": "+o.Reason, 0
			return k, b.fail
		}
	}
	return readmodel.Breaker{}, api.NotFound(api.CodeBreakerNotFound, "there is no breaker %q", name)
}
