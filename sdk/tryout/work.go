package tryout

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
)

// Work is a work stream, with one goroutine that assigns answers to calls.
type Work struct {
	stream pluginv1.Handler_WorkClient
	cancel context.CancelFunc
	ended  chan struct{} // closed when the stream has ended
	err    error         // why; set before ended is closed

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]*Attempt
}

// Attempt is a step that was sent to the plugin.
type Attempt struct {
	ID       uint64
	outcome  chan *pluginv1.Outcome
	progress func(*pluginv1.Progress) // may be nil
	work     *Work
}

// OpenWork opens a work stream to a configured plugin. The caller closes it.
func (i *Instance) OpenWork(ctx context.Context) (*Work, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := i.Handler.Work(ctx)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("open the work stream: %w", err)
	}
	w := &Work{stream: stream, cancel: cancel, ended: make(chan struct{}), waiting: map[uint64]*Attempt{}}
	go w.receive()
	return w, nil
}

// Close closes the stream.
func (w *Work) Close() {
	w.cancel()
	<-w.ended
}

func (w *Work) receive() {
	defer close(w.ended)
	for {
		response, err := w.stream.Recv()
		if err != nil {
			w.err = err
			return
		}
		w.mu.Lock()
		for _, p := range response.GetProgress() {
			if a := w.waiting[p.GetCallId()]; a != nil && a.progress != nil {
				a.progress(p)
			}
		}
		for _, o := range response.GetOutcomes() {
			if a := w.waiting[o.GetCallId()]; a != nil {
				delete(w.waiting, o.GetCallId())
				a.outcome <- o
			}
		}
		w.mu.Unlock()
	}
}

// Send sends a step and sets its call ID. progress may be nil.
func (w *Work) Send(step *pluginv1.Step, progress func(*pluginv1.Progress)) (*Attempt, error) {
	a := &Attempt{outcome: make(chan *pluginv1.Outcome, 1), progress: progress, work: w}
	w.mu.Lock()
	w.next++
	a.ID, step.CallId = w.next, w.next
	w.waiting[a.ID] = a
	w.mu.Unlock()
	if err := w.stream.Send(&pluginv1.WorkRequest{Steps: []*pluginv1.Step{step}}); err != nil {
		return nil, fmt.Errorf("send a step: %w", w.why(err))
	}
	return a, nil
}

// why prefers the reason for the stream's end to the mere fact that it ended.
func (w *Work) why(err error) error {
	select {
	case <-w.ended:
		return w.err
	case <-time.After(time.Second):
		return err
	}
}

// Cancel cancels the call with the given ID.
func (w *Work) Cancel(id uint64) error {
	request := &pluginv1.WorkRequest{Cancels: []*pluginv1.Cancel{{CallId: id, Reason: "the test says so"}}}
	if err := w.stream.Send(request); err != nil {
		return fmt.Errorf("send a cancel: %w", w.why(err))
	}
	return nil
}

// Wait waits for the outcome and returns it.
func (a *Attempt) Wait(ctx context.Context) (*pluginv1.Outcome, error) {
	select {
	case o := <-a.outcome:
		return o, nil
	case <-a.work.ended:
		select {
		case o := <-a.outcome: // it came last
			return o, nil
		default:
			return nil, fmt.Errorf("the work stream ended before the step: %w", a.work.err)
		}
	case <-ctx.Done():
		return nil, errors.New("the step's outcome did not come in time")
	}
}

// run sends a step and waits for its outcome.
func (w *Work) run(ctx context.Context, step *pluginv1.Step) (*pluginv1.Outcome, error) {
	a, err := w.Send(step, nil)
	if err != nil {
		return nil, err
	}
	return a.Wait(ctx)
}
