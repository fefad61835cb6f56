package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tasker-systems/tasker-host/sdk/handler"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
)

// steps is the service of kind handler.
type steps struct {
	pluginv1.UnimplementedHandlerServer

	plugin *Plugin
	table  map[string]*served // immutable
	base   context.Context    // parent of every step's context; carries the logger
	room   chan struct{}      // one place for each running step; nil: no limit
	closed chan struct{}      // ends the streams

	draining atomic.Bool
	open     atomic.Int64  // steps whose outcome is not sent
	idle     chan struct{} // signalled when open reaches zero while draining

	mu      sync.Mutex
	streams map[*stream]struct{}
}

// served is one handler and what it did.
type served struct {
	name    string
	handler handler.Handler
	stats   stats
}

func newSteps(p *Plugin, handlers map[string]handler.Handler) *steps {
	s := &steps{
		plugin:  p,
		table:   make(map[string]*served, len(handlers)),
		base:    hclog.WithContext(context.Background(), p.logger),
		closed:  make(chan struct{}),
		idle:    make(chan struct{}, 1),
		streams: map[*stream]struct{}{},
	}
	for name, h := range handlers {
		s.table[name] = &served{name: name, handler: h}
	}
	return s
}

func (s *steps) slots() []*pluginv1.Slot {
	slots := make([]*pluginv1.Slot, 0, len(s.table))
	for _, name := range slices.Sorted(maps.Keys(s.table)) {
		slots = append(slots, &pluginv1.Slot{Kind: "handler", Name: name})
	}
	return slots
}

func (s *steps) register(r grpc.ServiceRegistrar) { pluginv1.RegisterHandlerServer(r, s) }

func (s *steps) configure(maxInFlight int) {
	if maxInFlight > 0 {
		s.room = make(chan struct{}, maxInFlight)
	}
}

func (s *steps) inFlight() int { return int(s.open.Load()) }

func (s *steps) drain(ctx context.Context) int {
	s.draining.Store(true)
	for s.open.Load() > 0 {
		select {
		case <-s.idle:
		case <-ctx.Done():
			return s.inFlight()
		}
	}
	s.wakeDrain() // another caller may wait too
	return 0
}

func (s *steps) cancel(cause error) {
	for _, w := range s.live() {
		w.cancelAll(cause)
	}
}

func (s *steps) close() { close(s.closed) }

func (s *steps) live() []*stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.streams))
}

// settle counts n steps as done.
func (s *steps) settle(n int) {
	if s.open.Add(int64(-n)) == 0 && s.draining.Load() {
		s.wakeDrain()
	}
}

func (s *steps) wakeDrain() {
	select {
	case s.idle <- struct{}{}:
	default:
	}
}

// Work runs steps until the host closes the stream.
func (s *steps) Work(rpc grpc.BidiStreamingServer[pluginv1.WorkRequest, pluginv1.WorkResponse]) error {
	if !s.plugin.configured.Load() {
		return status.Error(codes.FailedPrecondition, "not configured yet")
	}
	w := &stream{
		steps: s, rpc: rpc,
		calls: map[uint64]*call{},
		wake:  make(chan struct{}, 1),
	}
	s.mu.Lock()
	s.streams[w] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.streams, w)
		s.mu.Unlock()
	}()
	return w.serve()
}

const (
	// A response is cut after this much: more in one message gains nothing and
	// makes the first outcome in it wait for the last.
	maxBatchBytes    = 256 << 10
	maxBatchOutcomes = 256
)

var (
	errStreamLost = errors.New("the connection to the host is lost")
	errDraining   = errors.New("the plugin is shutting down")
)

// stream is one Work stream. One goroutine receives and starts a goroutine for
// each step; the goroutine of the RPC sends whatever has finished since the
// last send, so that outcomes travel together when there are many and at once
// when there are few.
type stream struct {
	steps *steps
	rpc   grpc.BidiStreamingServer[pluginv1.WorkRequest, pluginv1.WorkResponse]
	wake  chan struct{} // something finished

	mu    sync.Mutex
	calls map[uint64]*call    // running
	done  []*pluginv1.Outcome // finished, not sent
	spare []*pluginv1.Outcome // the batch before, for its memory
	dead  bool                // nothing can be sent any more
}

func (w *stream) serve() (err error) {
	received := make(chan error, 1)
	go func() { received <- w.receive() }()
	defer w.abandon()

	response := &pluginv1.WorkResponse{}
	ended := false // the host has closed its half
	for {
		batch, running := w.take()
		if len(batch) > 0 {
			if err := w.send(batch, response); err != nil {
				return err
			}
			continue
		}
		if ended && running == 0 {
			return nil
		}
		select {
		case <-w.wake:
			runtime.Gosched() // let steps that are about to finish join the batch
		case err := <-received:
			if !errors.Is(err, io.EOF) {
				return err
			}
			ended, received = true, nil
		case <-w.steps.closed:
			return w.flush(response)
		}
	}
}

func (w *stream) receive() error {
	for {
		request, err := w.rpc.Recv()
		if err != nil {
			return err
		}
		for _, step := range request.GetSteps() {
			if err := w.accept(step); err != nil {
				return err
			}
		}
		for _, c := range request.GetCancels() {
			w.cancelOne(c)
		}
	}
}

func (w *stream) accept(step *pluginv1.Step) error {
	w.steps.open.Add(1)
	c := &call{stream: w, step: step}
	c.outcome.CallId = step.GetCallId()
	served, ok := w.steps.table[step.GetHandler()]
	switch {
	case !ok:
		c.outcome.Failure = notFound(step.GetHandler())
		w.finish(&c.outcome)
		return nil
	case w.steps.draining.Load():
		c.outcome.Failure = cancelled(errDraining)
		w.finish(&c.outcome)
		return nil
	}
	c.served = served
	c.begin(w.steps.base)
	w.mu.Lock()
	_, twice := w.calls[c.outcome.CallId]
	if !twice {
		w.calls[c.outcome.CallId] = c
	}
	w.mu.Unlock()
	if twice {
		c.cancel(nil)
		w.steps.settle(1)
		return status.Errorf(codes.InvalidArgument, "call %d is running already", c.outcome.CallId)
	}
	go c.run()
	return nil
}

// finish hands an outcome to the sender.
func (w *stream) finish(o *pluginv1.Outcome) {
	w.mu.Lock()
	delete(w.calls, o.CallId)
	if w.dead {
		w.mu.Unlock()
		w.steps.settle(1)
		return
	}
	w.done = append(w.done, o)
	first := len(w.done) == 1
	w.mu.Unlock()
	if first {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// take returns what has finished and how many steps still run. The batch is
// valid until the next call.
func (w *stream) take() (batch []*pluginv1.Outcome, running int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	batch = w.done
	w.done, w.spare = w.spare[:0], batch
	return batch, len(w.calls)
}

func (w *stream) send(batch []*pluginv1.Outcome, response *pluginv1.WorkResponse) error {
	for len(batch) > 0 {
		n, size := 0, 0
		for n < len(batch) && n < maxBatchOutcomes && (n == 0 || size < maxBatchBytes) {
			size += outcomeSize(batch[n])
			n++
		}
		if n > 1 && size > maxBatchBytes {
			n-- // the last one made it too large
		}
		response.Outcomes = batch[:n]
		if err := w.rpc.Send(response); err != nil {
			w.steps.settle(len(batch))
			return fmt.Errorf("send outcomes: %w", err)
		}
		w.steps.settle(n)
		clear(batch[:n]) // an idle stream must not hold on to results
		batch = batch[n:]
	}
	response.Outcomes = nil
	return nil
}

func (w *stream) flush(response *pluginv1.WorkResponse) error {
	batch, _ := w.take()
	return w.send(batch, response)
}

// abandon ends the steps that still run; their outcomes go nowhere.
func (w *stream) abandon() {
	w.mu.Lock()
	w.dead = true
	unsent := len(w.done)
	w.done = nil
	w.mu.Unlock()
	w.steps.settle(unsent)
	w.cancelAll(errStreamLost)
}

func (w *stream) cancelOne(c *pluginv1.Cancel) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if running, ok := w.calls[c.GetCallId()]; ok {
		running.cancel(fmt.Errorf("cancelled by the host: %s", c.GetReason()))
	}
}

func (w *stream) cancelAll(cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.calls {
		c.cancel(cause)
	}
}
