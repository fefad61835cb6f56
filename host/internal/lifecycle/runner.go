package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
)

// ErrStopped is the cause of a Runner's context once Stop has been called: it
// distinguishes an intended end from a failure.
var ErrStopped = errors.New("stopped")

// Runner is a Service that runs one blocking function on its own goroutine.
type Runner struct {
	name string
	run  func(context.Context) error
	died func(error)

	mu  sync.Mutex // guards now
	now *execution // nil when nothing was started or all was stopped
}

// execution is one life of the function.
type execution struct {
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when the function has returned
	err    error         // readable once done is closed
}

var _ Service = (*Runner)(nil)

// NewRunner returns a service that calls run at Start. Run works until its context ends
// and then returns soon; the context carries the values of the one given to Start, and
// ErrStopped as its cause. If run ends on its own or panics, died is called once with the
// reason, from run's goroutine: the owner of the service decides what that means. Died
// may be nil.
func NewRunner(name string, run func(context.Context) error, died func(error)) *Runner {
	if died == nil {
		died = func(error) {}
	}
	return &Runner{name: name, run: run, died: died}
}

// Start calls the function on a goroutine. It fails only if ctx is over.
func (r *Runner) Start(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("start %s: %w", r.name, err)
	}
	if r.now != nil {
		return nil
	}
	life, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	e := &execution{cancel: cancel, done: make(chan struct{})}
	r.now = e
	go r.execute(life, e)
	return nil
}

func (r *Runner) execute(life context.Context, e *execution) {
	defer close(e.done)
	err := r.guarded(life)
	if errors.Is(context.Cause(life), ErrStopped) {
		if !errors.Is(err, context.Canceled) && !errors.Is(err, ErrStopped) {
			e.err = err
		}
		return
	}
	if err == nil {
		err = errors.New("ended unexpectedly")
	}
	e.err = fmt.Errorf("%s: %w", r.name, err)
	r.died(e.err)
}

// guarded calls the function and turns a panic into an error.
func (r *Runner) guarded(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return r.run(ctx)
}

// Stop ends the function's context and waits until it has returned. It returns the
// function's error, unless that is the cancellation, or ctx's cause if the function takes
// longer: then it continues with nobody waiting, and a later Stop waits again.
func (r *Runner) Stop(ctx context.Context) error {
	r.mu.Lock()
	e := r.now
	r.mu.Unlock()
	if e == nil {
		return nil
	}
	e.cancel(ErrStopped)
	select {
	case <-e.done:
	default:
		select {
		case <-e.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now != e {
		return nil // another Stop has reported it
	}
	r.now = nil
	return e.err
}
