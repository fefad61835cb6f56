package core

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/breaker"
	"github.com/tasker-systems/tasker-host/host/internal/cli"
	"github.com/tasker-systems/tasker-host/host/internal/opstate"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// ErrForced is returned by Run if the host stopped but had to cut off steps that were
// still running. Their leases were given back.
var ErrForced = cli.ErrForced

// halt tells a running host to stop, and how long it may take.
type halt struct {
	asked chan struct{} // closed: shut down
	cut   chan struct{} // closed: do not wait for running steps
	paced chan struct{} // signalled when grace has changed

	mu     sync.Mutex // guards the fields below, and the closing of the channels above
	isCut  bool
	grace  *time.Duration // nil: as configured
	began  time.Time      // when the drain began; zero: not yet
	forced bool           // steps were cut off
}

func newHalt() *halt {
	return &halt{asked: make(chan struct{}), cut: make(chan struct{}), paced: make(chan struct{}, 1)}
}

// ask makes the host shut down. A given grace counts from the beginning of the shutdown.
func (h *halt) ask(grace *time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if grace != nil {
		h.grace = grace
		select {
		case h.paced <- struct{}{}:
		default:
		}
	}
	if h.began.IsZero() {
		h.began = time.Now()
		close(h.asked)
	}
}

// cutShort ends the wait for running steps.
func (h *halt) cutShort() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.isCut {
		h.isCut = true
		close(h.cut)
	}
}

// until returns when the drain ends; zero if none has begun.
func (h *halt) until(configured time.Duration) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.began.IsZero():
		return time.Time{}
	case h.grace != nil:
		return h.began.Add(*h.grace)
	default:
		return h.began.Add(configured)
	}
}

func (h *halt) wasForced() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.forced
}

// drainTime returns a context that ends when ctx does, when the drain is cut short, or
// when its time is over, even if that time changes meanwhile. The service manager is told
// of the change: it would kill the host at the end of the time that it was told of before.
func (c *Core) drainTime(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			over := time.NewTimer(time.Until(c.halt.until(c.inForce().Orchestration.DrainTimeout)))
			select {
			case <-c.halt.paced:
				over.Stop()
				c.manager.stopping()
				continue
			case <-over.C:
			case <-c.halt.cut:
			case <-ctx.Done():
			}
			over.Stop()
			cancel()
			return
		}
	})
	return ctx, func() { cancel(); watching.Wait() }
}

// settable lists the states that a host can enter on request.
var settable = []opstate.State{opstate.GracefulShutdown, opstate.Emergency}

// controlAPI serves the API's requests about the host's state and breakers.
type controlAPI struct{ core *Core }

var (
	_ api.Operation = controlAPI{}
	_ api.Breakers  = controlAPI{}
)

// HostState implements [api.Operation].
func (a controlAPI) HostState(context.Context) readmodel.HostState {
	c := a.core
	change, _ := c.state.Watch()
	s := readmodel.HostState{
		Host: hostName(), State: string(change.To), Since: change.At.UTC(), Reason: change.Reason, Steps: c.Engine.InFlight(), Next: []string{},
	}
	for _, next := range settable {
		if slices.Contains(opstate.Edges[change.To], next) {
			s.Next = append(s.Next, string(next))
		}
	}
	if until := c.halt.until(c.inForce().Orchestration.DrainTimeout); !until.IsZero() && change.To == opstate.GracefulShutdown {
		s.DrainUntil = new(until.UTC())
	}
	return s
}

// MoveHost implements [api.Operation].
func (a controlAPI) MoveHost(ctx context.Context, o api.StateOrder) (readmodel.HostState, error) {
	c, to := a.core, opstate.State(o.State)
	from := c.state.State()
	if !slices.Contains(settable, to) || from != to && !slices.Contains(opstate.Edges[from], to) {
		return readmodel.HostState{}, api.Conflict(api.CodeStateForbidden, "the host is in state %s and cannot enter %s", from, o.State)
	}
	c.enter(to, operatorText(o.Operator))
	if to == opstate.Emergency {
		c.halt.cutShort()
	}
	c.halt.ask(o.Grace)
	return a.HostState(ctx), nil
}

// operatorText describes who does something, and why.
func operatorText(o api.Operator) string {
	text := "by " + orElse(o.By, "an operator")
	if o.Reason != "" {
		text += ": " + o.Reason
	}
	return text
}

// Breakers implements [api.Breakers].
func (a controlAPI) Breakers(context.Context) readmodel.BreakerPage {
	page := readmodel.BreakerPage{Enabled: a.core.breakers.Enabled(), Items: []readmodel.Breaker{}}
	for _, s := range a.core.breakers.Status() {
		page.Items = append(page.Items, breakerOf(&s))
	}
	return page
}

// MoveBreaker implements [api.Breakers].
func (a controlAPI) MoveBreaker(ctx context.Context, name, move string, o api.Operator) (readmodel.Breaker, error) {
	id, err := breaker.Parse(name)
	if err != nil {
		return readmodel.Breaker{}, api.NotFound(api.CodeBreakerNotFound, "%s", err)
	}
	b := a.core.breakers.Of(id)
	if b == nil {
		return readmodel.Breaker{}, api.NotFound(api.CodeBreakerNotFound, "there are too many breakers to add %s", name)
	}
	switch text := operatorText(o); move {
	case api.BreakerOpen:
		b.ForceOpen(text)
	case api.BreakerClose:
		b.Close(text)
	case api.BreakerReset:
		b.Reset(text)
	default:
		return readmodel.Breaker{}, fmt.Errorf("move breaker %s: %q is not a move", name, move)
	}
	s := b.Status()
	return breakerOf(&s), nil
}

func breakerOf(s *breaker.Status) readmodel.Breaker {
	return readmodel.Breaker{
		Name: s.Name, State: string(s.State), Since: s.Since.UTC(), Reason: s.Reason, Failures: s.Failures,
		Refused:      int64(s.Refused),
		RetrySeconds: s.Retry.Seconds(), Threshold: s.Config.Failures, Probes: s.Config.Probes, Timeout: s.Config.Timeout.String(),
	}
}
