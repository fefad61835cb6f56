package sdk

import (
	"context"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// load counts the work a service has in hand, so that a drain can wait for it to
// end.
type load struct {
	draining *atomic.Bool
	open     *atomic.Int64
	idle     chan struct{} // signalled when open reaches zero while draining
}

func newLoad() load {
	return load{draining: &atomic.Bool{}, open: &atomic.Int64{}, idle: make(chan struct{}, 1)}
}

func (l load) inFlight() int { return int(l.open.Load()) }

func (l load) take(n int) { l.open.Add(int64(n)) }

// settle counts n as done.
func (l load) settle(n int) {
	if l.open.Add(int64(-n)) == 0 && l.draining.Load() {
		l.wakeDrain()
	}
}

func (l load) drain(ctx context.Context) int {
	l.draining.Store(true)
	for l.open.Load() > 0 {
		select {
		case <-l.idle:
		case <-ctx.Done():
			return l.inFlight()
		}
	}
	l.wakeDrain() // another caller may be waiting, too
	return 0
}

func (l load) wakeDrain() {
	select {
	case l.idle <- struct{}{}:
	default:
	}
}

// calls is shared by services without a stream, which answer each call of the
// host separately.
type calls struct {
	load
	plugin *Plugin
	base   context.Context // ends when the calls in progress are cancelled
	end    context.CancelCauseFunc
}

func newCalls(p *Plugin) calls {
	base, end := context.WithCancelCause(context.Background())
	return calls{load: newLoad(), plugin: p, base: base, end: end}
}

func (c *calls) configure(int) {}

func (c *calls) cancel(cause error) { c.end(cause) }

func (c *calls) close() {}

// begin admits a call. The call's context ends with the host's, or when the
// plugin cancels the remaining calls; it carries the logger. The caller calls
// done when the call has ended.
func (c *calls) begin(rpc context.Context) (ctx context.Context, done func(), err error) {
	if !c.plugin.configured.Load() {
		return nil, nil, status.Error(codes.FailedPrecondition, "not configured yet")
	}
	c.take(1)
	if c.draining.Load() {
		c.settle(1)
		return nil, nil, status.Error(codes.Unavailable, errDraining.Error())
	}
	ctx, cancel := context.WithCancelCause(hclog.WithContext(rpc, c.plugin.logger))
	stop := context.AfterFunc(c.base, func() { cancel(context.Cause(c.base)) })
	return ctx, func() {
		stop()
		cancel(nil)
		c.settle(1)
	}, nil
}

// turn admits one call at a time; a wait for it ends with the context.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

func (t turn) give() { <-t }
