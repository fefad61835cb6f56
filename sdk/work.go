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
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tasker-systems/tasker-host/sdk/handler"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// steps is the service of kind handler.
type steps struct {
	pluginv1.UnimplementedHandlerServer
	load // steps whose outcome has not been sent

	plugin *Plugin
	table  map[string]*served // immutable
	base   context.Context    // parent of every step's context; carries the logger
	room   chan struct{}      // one place for each running step; nil: no limit
	closed chan struct{}      // ends the streams

	mu      sync.Mutex
	streams map[*stream]struct{}
}

// served is one handler with its statistics.
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
		load:    newLoad(),
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
		slots = append(slots, &pluginv1.Slot{Kind: wire.KindHandler, Name: name})
	}
	return slots
}

func (s *steps) register(r grpc.ServiceRegistrar) { pluginv1.RegisterHandlerServer(r, s) }

func (s *steps) configure(maxInFlight int) {
	if maxInFlight > 0 {
		s.room = make(chan struct{}, maxInFlight)
	}
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

// stream is one Work stream. One goroutine receives; the goroutine of the RPC
// sends whatever has finished since the last send, so that outcomes travel
// together when there are many and at once when there are few.
//
// Steps are run by workers, which take them one after the other. While steps wait,
// one worker that runs no step is always about to take them. So a long step holds
// up no others, and a single worker runs all quick ones.
type stream struct {
	steps *steps
	rpc   grpc.BidiStreamingServer[pluginv1.WorkRequest, pluginv1.WorkResponse]
	wake  chan struct{} // something finished

	mu      sync.Mutex
	calls   map[uint64]*call    // waiting or running
	waiting []*call             // in order, from next on
	next    int                 // of waiting
	coming  bool                // a worker was started that has not taken a step yet
	done    []*pluginv1.Outcome // finished, not sent
	spare   []*pluginv1.Outcome // the previous batch, for its memory
	reports []*call             // whose progress is to be sent
	dead    bool                // nothing can be sent any more
}

func (w *stream) serve() (err error) {
	received := make(chan error, 1)
	go func() { received <- w.receive() }()
	defer w.abandon()

	response := &pluginv1.WorkResponse{}
	ended := false // the host has closed its half
	for {
		batch, reports, running := w.take()
		if len(batch)+len(reports) > 0 {
			if err := w.send(batch, reports, response); err != nil {
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
		var request pluginv1.PackedWorkRequest
		if err := w.rpc.RecvMsg(&request); err != nil {
			return err
		}
		if err := w.accept(request.GetSteps()); err != nil {
			return err
		}
		for _, c := range request.GetCancels() {
			w.cancelOne(c)
		}
	}
}

// accept takes the steps of a message.
func (w *stream) accept(steps [][]byte) error {
	if len(steps) == 0 {
		return nil
	}
	calls := make([]*call, len(steps))
	for i, raw := range steps {
		c, err := newCall(w, raw)
		if err != nil {
			return status.Errorf(codes.Internal, "a step cannot be read: %v", err)
		}
		calls[i] = c
	}
	w.steps.take(len(calls))
	draining := w.steps.draining.Load()
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.next > len(w.waiting)/2 {
		w.waiting, w.next = slices.Delete(w.waiting, 0, w.next), 0
	}
	for i, c := range calls {
		if err := w.admit(c, draining, now); err != nil {
			w.steps.settle(len(calls) - i)
			return err
		}
	}
	if len(w.done) > 0 {
		w.signal()
	}
	w.call()
	return nil
}

// admit queues a step for a worker, or answers it. The caller holds the lock.
func (w *stream) admit(c *call, draining bool, now time.Time) error {
	served, ok := w.steps.table[c.step.Handler]
	switch {
	case !ok:
		c.outcome.Failure = notFound(c.step.Handler)
		w.done = append(w.done, &c.outcome)
		return nil
	case draining:
		c.outcome.Failure = cancelled(errDraining)
		w.done = append(w.done, &c.outcome)
		return nil
	}
	if _, twice := w.calls[c.outcome.CallId]; twice {
		return status.Errorf(codes.InvalidArgument, "call %d is running already", c.outcome.CallId)
	}
	c.served = served
	c.begin(now)
	w.calls[c.outcome.CallId] = c
	w.waiting = append(w.waiting, c)
	return nil
}

// call starts a worker if steps wait and none is about to take them. The caller
// holds the lock.
func (w *stream) call() {
	if w.next < len(w.waiting) && !w.coming {
		w.coming = true
		go w.work()
	}
}

// patience is how long a step may take before its worker ends and leaves the rest
// to another one, which the scheduler runs when it sees fit: the outcome should be
// sent first, and others may be waiting for the processor.
const patience = 100 * time.Microsecond

// work runs steps until none are waiting.
func (w *stream) work() {
	var c *call
	defer func() {
		if c != nil { // its handler has ended this goroutine
			w.mu.Lock()
			defer w.mu.Unlock()
			w.finish(c)
			w.signal()
		}
	}()
	for c = w.begin(); c != nil; c = w.proceed(c) {
		c.run()
	}
}

// begin gives a new worker its first step; nil: none is waiting any more.
func (w *stream) begin() *call {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.coming = false
	if len(w.done) > 0 {
		w.signal() // the previous worker may be held up by its next step
	}
	return w.first()
}

// proceed accepts a step that has ended and gives its worker the next one; nil:
// the worker must end.
func (w *stream) proceed(ended *call) *call {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.finish(ended)
	if ended.took > patience {
		w.call()
		w.signal()
		return nil
	}
	return w.first()
}

// first takes the first waiting step. If it is the last, it may take long, so the
// outcomes of earlier ones are sent without waiting for it. The caller holds the
// lock.
func (w *stream) first() (c *call) {
	if w.next < len(w.waiting) {
		c = w.waiting[w.next]
		w.waiting[w.next] = nil
		w.next++
	}
	if w.next == len(w.waiting) {
		w.waiting, w.next = w.waiting[:0], 0
		if len(w.done) > 0 {
			w.signal()
		}
	}
	w.call()
	return c
}

// finish passes the outcome of a step to the sender. The caller holds the lock,
// and then signals.
func (w *stream) finish(c *call) {
	delete(w.calls, c.outcome.CallId)
	if w.dead {
		w.steps.settle(1)
		return
	}
	w.done = append(w.done, &c.outcome)
}

// signal wakes the sender.
func (w *stream) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// take returns what has finished, how far others are, and how many steps still
// run. The batch is valid until the next call.
func (w *stream) take() (batch []*pluginv1.Outcome, reports []*pluginv1.Progress, running int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	batch = w.done
	w.done, w.spare = w.spare[:0], batch
	return batch, w.takeReports(), len(w.calls)
}

func (w *stream) send(batch []*pluginv1.Outcome, reports []*pluginv1.Progress, response *pluginv1.WorkResponse) error {
	for len(batch)+len(reports) > 0 {
		n, size := 0, 0
		for n < len(batch) && n < maxBatchOutcomes && (n == 0 || size < maxBatchBytes) {
			size += outcomeSize(batch[n])
			n++
		}
		if n > 1 && size > maxBatchBytes {
			n-- // the last one made it too large
		}
		response.Outcomes, response.Progress = batch[:n], reports
		if err := w.rpc.Send(response); err != nil {
			w.steps.settle(len(batch))
			return fmt.Errorf("send outcomes: %w", err)
		}
		w.steps.settle(n)
		clear(batch[:n]) // an idle stream must not hold on to results
		batch, reports = batch[n:], nil
	}
	response.Outcomes, response.Progress = nil, nil
	return nil
}

func (w *stream) flush(response *pluginv1.WorkResponse) error {
	batch, _, _ := w.take()
	return w.send(batch, nil, response)
}

// abandon ends the steps that still run; their outcomes are discarded.
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
		running.ctx.cancel(fmt.Errorf("cancelled by the host: %s", c.GetReason()))
	}
}

func (w *stream) cancelAll(cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.calls {
		c.ctx.cancel(cause)
	}
}
