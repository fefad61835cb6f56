package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// rollbackTime is the time that started members get to stop when a later one fails to
// start.
const rollbackTime = 10 * time.Second

// errStopping is the cause that ends a Start when Stop is called.
var errStopping = errors.New("stopped while starting")

// Member is a service and its name in errors.
type Member struct {
	Name    string
	Service Service
}

// Group starts its members in order and stops them in reverse. It is a Service itself, so
// groups nest.
type Group struct {
	members []Member

	mu      sync.Mutex // held while Start or Stop is in progress
	running int        // members[:running] run

	abortMu sync.Mutex
	abort   context.CancelCauseFunc // ends the Start in progress, if any
}

var _ Service = (*Group)(nil)

// NewGroup returns a group of members in the order in which they start.
func NewGroup(members ...Member) *Group { return &Group{members: slices.Clone(members)} }

// Start starts the members one after another. If one fails, those that run are stopped in
// reverse and the errors of both are returned together.
func (g *Group) Start(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	g.setAbort(cancel)
	defer g.setAbort(nil)

	for g.running < len(g.members) {
		member := g.members[g.running]
		err := context.Cause(ctx)
		if err == nil {
			err = member.Service.Start(ctx)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("start %s: %w", member.Name, err), g.rollback(ctx))
		}
		g.running++
	}
	return nil
}

// rollback stops what runs after a failed start. It has its own time limit, since the
// start's context may be over.
func (g *Group) rollback(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), rollbackTime,
		fmt.Errorf("stopping after a failed start took longer than %s", rollbackTime))
	defer cancel()
	return g.stopRunning(ctx)
}

// Stop stops the running members in reverse order. Each gets an equal share of the time
// left until the context's deadline, and what it does not need goes to the others. Every
// member is stopped, whatever the ones before it returned. A Start in progress is ended
// first.
func (g *Group) Stop(ctx context.Context) error {
	g.abortMu.Lock()
	if g.abort != nil {
		g.abort(errStopping)
	}
	g.abortMu.Unlock()

	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stopRunning(ctx)
}

func (g *Group) stopRunning(ctx context.Context) error {
	var errs []error
	for ; g.running > 0; g.running-- {
		member := g.members[g.running-1]
		if err := stopWithin(ctx, member.Service, g.running); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", member.Name, err))
		}
	}
	return errors.Join(errs...)
}

// stopWithin stops a service in its share of the time: one part of as many as there are
// members left.
func stopWithin(ctx context.Context, service Service, left int) error {
	if deadline, ok := ctx.Deadline(); ok && left > 1 {
		share := time.Until(deadline) / time.Duration(left)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, share, fmt.Errorf("not done within its share of %s", share.Round(time.Millisecond)))
		defer cancel()
	}
	return service.Stop(ctx)
}

func (g *Group) setAbort(abort context.CancelCauseFunc) {
	g.abortMu.Lock()
	defer g.abortMu.Unlock()
	g.abort = abort
}
