package client

import (
	"context"
	"net/url"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// HostState returns the operational state of the host.
func (c *Client) HostState(ctx context.Context) (readmodel.HostState, error) {
	return get[readmodel.HostState](ctx, c, "/v1/system/state", nil)
}

// StateOrder is a state for a host to enter.
type StateOrder struct {
	State string
	Grace *time.Duration // for a graceful shutdown; nil: as configured
	Operator
}

// MoveHost makes the host enter another state: graceful_shutdown or emergency.
func (c *Client) MoveHost(ctx context.Context, o StateOrder) (readmodel.HostState, error) {
	body := struct {
		State        string   `json:"state"`
		GraceSeconds *float64 `json:"grace_seconds,omitempty"`
		Operator
	}{State: o.State, Operator: o.Operator}
	if o.Grace != nil {
		body.GraceSeconds = new(o.Grace.Seconds())
	}
	return post[readmodel.HostState](ctx, c, "/v1/system/state", body)
}

// Breakers lists the circuit breakers of the host.
func (c *Client) Breakers(ctx context.Context) (readmodel.BreakerPage, error) {
	return get[readmodel.BreakerPage](ctx, c, "/v1/breakers", nil)
}

// OpenBreaker opens a breaker: its calls are refused until it is closed or reset.
func (c *Client) OpenBreaker(ctx context.Context, name string, o Operator) (readmodel.Breaker, error) {
	return post[readmodel.Breaker](ctx, c, breakerPath(name, "/open"), o)
}

// CloseBreaker closes a breaker: its calls are let through again.
func (c *Client) CloseBreaker(ctx context.Context, name string, o Operator) (readmodel.Breaker, error) {
	return post[readmodel.Breaker](ctx, c, breakerPath(name, "/close"), o)
}

// ResetBreaker returns an opened or closed breaker to automatic operation.
func (c *Client) ResetBreaker(ctx context.Context, name string, o Operator) (readmodel.Breaker, error) {
	return post[readmodel.Breaker](ctx, c, breakerPath(name, "/reset"), o)
}

func breakerPath(name, rest string) string { return "/v1/breakers/" + url.PathEscape(name) + rest }
