package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

type hostStore interface {
	RegisterHost(ctx context.Context, h store.HostInfo, lease time.Duration) (int32, error)
	Heartbeat(ctx context.Context, host int32, state string, served []string, lease time.Duration, heard []vocab.UUID) (bool, []store.Revoked, error)
	Rise(ctx context.Context, host int32, rises int64, state string, served []string, lease time.Duration, heard []vocab.UUID) (bool, []store.Revoked, error)
	Rest(ctx context.Context, r store.Resting) (store.Rest, error)
	LieDown(ctx context.Context) (*store.Bed, error)
	WatchQueues(ctx context.Context, queues []string) (bool, error)
	HostLeases(ctx context.Context, host int32) ([]store.Held, error)
	SweepHosts(ctx context.Context) ([]store.GoneHost, error)
	ReleaseHost(ctx context.Context, host int32, reason string, claimFactor int) (int, error)
	SweepMessages(ctx context.Context, age time.Duration) (int, []vocab.UUID, error)
	SetHostPlugins(ctx context.Context, host int32, plugins []readmodel.HostPlugin) error
	SetWorkerPolicy(ctx context.Context, p store.WorkerPolicy) error
	SweepWorkerLeases(ctx context.Context, p store.Policy) (store.SweptLeases, error)
	SweepLanes(ctx context.Context, after store.Lane) (int, store.Lane, error)
	EnsurePartitions(ctx context.Context, days int, keep time.Duration) error
}

func (e *Engine) register(ctx context.Context) error {
	began := time.Now()
	id, err := e.store.RegisterHost(ctx, e.cfg.Host, e.cfg.Lease)
	if err != nil {
		return err
	}
	e.host.Store(id)
	e.rest.rises = 0
	e.lastBeat.Store(int64(began.Sub(e.base)))
	e.log.Info("registered", "host", id)
	return nil
}

// heartbeatLoop keeps the host's leases alive. If it cannot, it stops the steps before
// others may start them. That time is measured with this host's monotonic clock, from
// before the last successful heartbeat was sent.
func (e *Engine) heartbeatLoop(t *turns) {
	tick := time.NewTicker(e.cfg.Heartbeat)
	defer tick.Stop()
	var again <-chan time.Time // after a failure; a single one, however many fail
	for {
		select {
		case <-tick.C:
			if e.Resting() {
				continue // see restLoop
			}
		case <-again:
		case <-e.beatNow:
		case <-e.work.Done():
			return
		}
		var err error
		e.turn(t, func() { err = e.beat() })
		again = nil
		if err != nil && e.work.Err() == nil {
			e.log.Warn("heartbeat failed", "error", err, "lease_left", e.leaseLeft())
			again = time.After(min(e.cfg.Heartbeat/10, time.Second))
		}
		if e.leaseLeft() < e.cfg.SelfStop && e.held.len() > 0 {
			e.log.Error("the lease of this host is about to expire: its steps are stopped", "steps", e.held.len())
			e.cancelAll("host_lease_lost")
		}
	}
}

// Announce sends a heartbeat at once: the others see this host's state, and this host
// sees whether the database answers.
func (e *Engine) Announce() { e.beatAtOnce() }

func (e *Engine) beatAtOnce() {
	select {
	case e.beatNow <- struct{}{}:
	default:
	}
}

func (e *Engine) leaseLeft() time.Duration {
	lease := e.cfg.Lease
	if e.Resting() {
		lease = e.restLease()
	}
	return lease - (time.Since(e.base) - time.Duration(e.lastBeat.Load()))
}

// LastHeartbeat returns when the last successful heartbeat was sent.
func (e *Engine) LastHeartbeat() time.Time { return e.base.Add(time.Duration(e.lastBeat.Load())) }

// errDeclaredDead is logged when other hosts have declared this one dead.
var errDeclaredDead = errors.New("this host was declared dead and its steps were given to others")

// beatTimeout bounds a heartbeat, so that one that hangs and the wait after it end within
// SelfStop: the lease must not expire between two checks of it.
func (e *Engine) beatTimeout() time.Duration {
	if e.cfg.SelfStop == 0 {
		return e.cfg.Heartbeat
	}
	return min(e.cfg.Heartbeat, e.cfg.SelfStop/2)
}

func (e *Engine) beat() error {
	e.rest.mu.Lock()
	defer e.rest.mu.Unlock()
	return e.beatAs(e.rest.rises)
}

// beatAs sends a heartbeat of a host that has risen from rest the given number of times.
// The caller holds the lock of rest.
func (e *Engine) beatAs(rises int64) error {
	ctx, cancel := context.WithTimeout(e.work, e.beatTimeout())
	defer cancel()
	lease := e.cfg.Lease
	if e.Resting() && rises == e.rest.rises {
		lease = e.restLease() // something is to be reported, but the next beat is far away
	}
	began := time.Now()
	alive, revoked, err := e.store.Rise(ctx, e.HostID(), rises, e.cfg.State(), e.Served(), lease, e.heard)
	if err != nil {
		return err
	}
	e.rest.rises = rises
	if !alive {
		e.log.Error("registering again", "error", errDeclaredDead, "host", e.HostID())
		e.cancelAll("host_declared_dead")
		if err := e.register(ctx); err != nil {
			return fmt.Errorf("register again: %w", err)
		}
		return nil
	}
	e.lastBeat.Store(int64(began.Sub(e.base)))
	e.heard = e.heard[:0]
	for _, r := range revoked {
		e.heard = append(e.heard, r.Lease)
		if a := e.held.find(r.StepKey, r.Lease); a != nil {
			e.cancel(a, r.Reason)
		}
	}
	return nil
}

// Served returns the handlers that the runner serves now.
func (e *Engine) Served() []string {
	if p := e.servedNames.Load(); p != nil {
		return *p
	}
	return nil
}

// cancelAll ends every running step. Their outcomes arrive as usual and are refused as
// stale if the leases are void.
func (e *Engine) cancelAll(reason string) {
	for _, a := range e.held.all() {
		e.cancel(a, reason)
	}
}

// Cancel cancels a task, and at once those of its steps that this host runs.
func (e *Engine) Cancel(ctx context.Context, task vocab.UUID, o store.Operator) (vocab.TaskState, bool, error) {
	state, cancelled, err := e.store.CancelTask(ctx, task, o, e.HostID())
	if store.IsTimeout(err) {
		state, cancelled, err = e.store.CancelTask(store.Patiently(ctx), task, o, e.HostID())
	}
	if err != nil {
		return "", false, err
	}
	if cancelled {
		for _, a := range e.held.ofTask(task) {
			e.cancel(a, "task_cancelled")
		}
		e.inputs.forget(task)
		e.hub.finished(task, state)
	}
	return state, cancelled, nil
}
