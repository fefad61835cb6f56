package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tasker-systems/tasker-host/sdk/handler"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
)

var (
	errTimeout = errors.New("the step's timeout has passed")
	errGoexit  = errors.New("the handler ended its goroutine without returning")
)

// call is one attempt of one step.
type call struct {
	stream *stream
	served *served
	step   *pluginv1.Step

	ctx      context.Context
	cancel   context.CancelCauseFunc
	stop     context.CancelFunc // of the deadline; nil without one
	deadline time.Time          // zero: none
	started  time.Time          // zero: the handler was not called

	result  handler.Result
	err     error
	outcome pluginv1.Outcome
}

// begin makes the context. The timeout counts from here, so that time spent
// waiting for room counts too, as it does for the host.
func (c *call) begin(parent context.Context) {
	if ms := c.step.GetTimeoutMs(); ms > 0 {
		c.deadline = time.Now().Add(time.Duration(ms) * time.Millisecond)
		parent, c.stop = context.WithDeadlineCause(parent, c.deadline, errTimeout)
	}
	c.ctx, c.cancel = context.WithCancelCause(parent)
}

// run calls the handler and hands on the outcome, whichever way the handler
// ends.
func (c *call) run() {
	defer c.finish()
	if room := c.stream.steps.room; room != nil {
		select {
		case room <- struct{}{}:
			defer func() { <-room }()
		case <-c.ctx.Done():
		}
	}
	if c.ctx.Err() != nil {
		c.err = context.Cause(c.ctx)
		return
	}
	c.err = errGoexit
	c.started = time.Now()
	c.handle()
}

func (c *call) handle() {
	defer func() {
		if r := recover(); r != nil {
			c.err = c.panicked(r)
		}
	}()
	c.result, c.err = c.served.handler.Handle(c.ctx, c.input())
}

func (c *call) panicked(value any) error {
	err := &panicError{value: clean(fmt.Sprint(value), maxMessageBytes), stack: stack()}
	c.served.stats.panics.Add(1)
	c.stream.steps.plugin.logger.Error("handler panicked",
		"handler", c.served.name, "step", c.step.GetStepUuid(), "panic", err.value, "stack", err.stack)
	return err
}

// finish makes the outcome and hands it to the stream.
func (c *call) finish() {
	var took time.Duration
	if !c.started.IsZero() {
		took = time.Since(c.started)
	}
	c.outcome.ExecutionUs = uint32(min(took.Microseconds(), 1<<32-1)) //nolint:gosec // bounded
	c.judge()
	c.served.stats.count(&c.outcome, took)
	c.cancel(nil)
	if c.stop != nil {
		c.stop()
	}
	c.stream.finish(&c.outcome)
}

// judge makes the outcome. It runs code of the author too, in errors and
// metadata, so a panic is caught here as well.
func (c *call) judge() {
	defer func() {
		if r := recover(); r != nil {
			c.outcome.Result, c.outcome.Metadata = nil, nil
			c.outcome.Failure = failure(c.panicked(r))
		}
	}()
	c.conclude()
}

// input is the step as the handler sees it. It shares the memory of the
// message, which is the call's own.
func (c *call) input() handler.Step {
	s := c.step
	in := handler.Step{
		TaskUUID:       s.GetTaskUuid(),
		StepUUID:       s.GetStepUuid(),
		Namespace:      s.GetNamespace(),
		Task:           s.GetTaskName(),
		Version:        s.GetTaskVersion(),
		Name:           s.GetStepName(),
		Handler:        s.GetHandler(),
		Attempt:        int(s.GetAttempt()),
		MaxAttempts:    int(s.GetMaxAttempts()),
		IdempotencyKey: s.GetIdempotencyKey(),
		LeaseID:        s.GetLeaseId(),
		Context:        s.GetContext(),
		Config:         s.GetConfig(),
		Deadline:       c.deadline,
	}
	if deps := s.GetDependencies(); len(deps) > 0 {
		in.Dependencies = make(map[string]json.RawMessage, len(deps))
		for _, d := range deps {
			in.Dependencies[d.GetStepName()] = d.GetResult()
		}
	}
	return in
}
