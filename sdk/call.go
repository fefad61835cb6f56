package sdk

import (
	"context"
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
	stream  *stream
	served  *served
	step    handler.Step
	timeout time.Duration // zero: none

	ctx      stepContext
	started  time.Time     // zero: the handler was not called
	took     time.Duration // that the handler ran
	progress progress

	result  handler.Result
	err     error
	outcome pluginv1.Outcome
}

// newCall reads a step. It shares the memory of raw, which must not be changed.
func newCall(w *stream, raw []byte) (*call, error) {
	c := &call{stream: w}
	id, timeoutMS, err := decodeStep(raw, &c.step)
	c.outcome.CallId = id
	c.timeout = time.Duration(timeoutMS) * time.Millisecond
	c.ctx.call, c.ctx.parent = c, w.steps.base
	return c, err
}

// begin sets the deadline. The timeout counts from here, so that time spent
// waiting for room counts too, as it does for the host.
func (c *call) begin(now time.Time) {
	if c.timeout > 0 {
		c.ctx.deadline = now.Add(c.timeout)
		c.step.Deadline = c.ctx.deadline
	}
}

// run calls the handler and creates the outcome, however the handler ends, even
// if it ends the goroutine.
func (c *call) run() {
	defer c.finish()
	if room := c.stream.steps.room; room != nil {
		if !c.enter(room) {
			return
		}
		defer func() { <-room }()
	}
	if c.ctx.Err() != nil {
		c.err = context.Cause(&c.ctx)
		return
	}
	c.err = errGoexit
	c.started = time.Now()
	c.handle()
}

// enter waits for room. It returns false if the context ends first.
func (c *call) enter(room chan<- struct{}) bool {
	select {
	case room <- struct{}{}:
		return true
	default:
	}
	select {
	case room <- struct{}{}:
		return true
	case <-c.ctx.Done():
		c.err = context.Cause(&c.ctx)
		return false
	}
}

func (c *call) handle() {
	defer func() {
		if r := recover(); r != nil {
			c.err = c.panicked(r)
		}
	}()
	c.result, c.err = c.served.handler.Handle(&c.ctx, c.step)
}

func (c *call) panicked(value any) error {
	err := &panicError{value: clean(fmt.Sprint(value), maxMessageBytes), stack: stack()}
	c.served.stats.panics.Add(1)
	c.stream.steps.plugin.logger.Error("handler panicked",
		"handler", c.served.name, "step", c.step.StepUUID, "panic", err.value, "stack", err.stack)
	return err
}

// finish creates the outcome. The caller passes it to the stream.
func (c *call) finish() {
	if !c.started.IsZero() {
		c.took = time.Since(c.started)
	}
	c.outcome.ExecutionUs = uint32(min(c.took.Microseconds(), 1<<32-1))
	c.judge()
	c.served.stats.count(&c.outcome, c.took)
	c.ctx.cancel(nil)
}

// judge creates the outcome. Errors and metadata may run the author's code, so
// a panic is caught here as well.
func (c *call) judge() {
	defer func() {
		if r := recover(); r != nil {
			c.outcome.Result, c.outcome.Metadata = nil, nil
			c.outcome.Failure = failure(c.panicked(r))
		}
	}()
	c.conclude()
}
