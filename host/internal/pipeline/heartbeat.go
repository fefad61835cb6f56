package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

type hostStore interface {
	RegisterHost(ctx context.Context, h store.HostInfo, lease time.Duration) (int32, error)
	Heartbeat(ctx context.Context, host int32, state string, served []string, lease time.Duration) (bool, []store.Revoked, error)
	HostLeases(ctx context.Context, host int32) ([]store.Held, error)
	SweepHosts(ctx context.Context) ([]store.GoneHost, error)
	ReleaseHost(ctx context.Context, host int32, reason string, claimFactor int) (int, error)
	SweepMessages(ctx context.Context, age time.Duration) (int, []vocab.UUID, error)
	EnsurePartitions(ctx context.Context, days int) error
}

func (e *Engine) register(ctx context.Context) error {
	began := time.Now()
	id, err := e.store.RegisterHost(ctx, e.cfg.Host, e.cfg.Lease)
	if err != nil {
		return err
	}
	e.host.Store(id)
	e.lastBeat.Store(int64(began.Sub(e.base)))
	e.log.Info("registered", "host", id)
	return nil
}

// heartbeatLoop keeps the host's leases alive. If it cannot, the steps are
// stopped before others may start them: by this host's monotonic clock, counted
// from before the last heartbeat that worked was sent.
func (e *Engine) heartbeatLoop() {
	tick := time.NewTicker(e.cfg.Heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-e.beatNow:
		case <-e.work.Done():
			return
		}
		err := e.beat()
		if err != nil && e.work.Err() == nil {
			e.log.Warn("heartbeat failed", "error", err, "lease_left", e.leaseLeft())
			e.loops.Go(e.beatSoon)
		}
		if e.leaseLeft() < e.cfg.SelfStop && e.held.len() > 0 {
			e.log.Error("the lease of this host is about to end: its steps are stopped", "steps", e.held.len())
			e.cancelAll("host_lease_lost")
		}
	}
}

// beatSoon asks for another heartbeat before the next is due.
func (e *Engine) beatSoon() {
	select {
	case <-time.After(min(e.cfg.Heartbeat/10, time.Second)):
		e.beatAtOnce()
	case <-e.work.Done():
	}
}

func (e *Engine) beatAtOnce() {
	select {
	case e.beatNow <- struct{}{}:
	default:
	}
}

func (e *Engine) leaseLeft() time.Duration {
	return e.cfg.Lease - (time.Since(e.base) - time.Duration(e.lastBeat.Load()))
}

// LastHeartbeat returns when the last heartbeat that worked was sent.
func (e *Engine) LastHeartbeat() time.Time { return e.base.Add(time.Duration(e.lastBeat.Load())) }

// errDeclaredDead is logged when other hosts have given this one up.
var errDeclaredDead = errors.New("this host was declared dead and its steps were given to others")

func (e *Engine) beat() error {
	ctx, cancel := context.WithTimeout(e.work, e.cfg.Heartbeat)
	defer cancel()
	began := time.Now()
	state := "normal"
	if e.accept.Err() != nil {
		state = "graceful_shutdown"
	}
	var names []string
	if p := e.servedNames.Load(); p != nil {
		names = *p
	}
	alive, revoked, err := e.store.Heartbeat(ctx, e.HostID(), state, names, e.cfg.Lease)
	if err != nil {
		return err
	}
	if !alive {
		e.log.Error("registering anew", "error", errDeclaredDead, "host", e.HostID())
		e.cancelAll("host_declared_dead")
		if err := e.register(ctx); err != nil {
			return fmt.Errorf("register anew: %w", err)
		}
		return nil
	}
	e.lastBeat.Store(int64(began.Sub(e.base)))
	for _, r := range revoked {
		if a := e.held.find(r.StepKey, r.Lease); a != nil {
			e.runner.Cancel(a.UUID().String(), r.Reason)
		}
	}
	return nil
}

// cancelAll ends every running step. Their outcomes come in as usual and are
// refused as stale if the leases are void.
func (e *Engine) cancelAll(reason string) {
	for _, a := range e.held.all() {
		e.runner.Cancel(a.UUID().String(), reason)
	}
}

// Cancel cancels a task, and at once what this host runs of it.
func (e *Engine) Cancel(ctx context.Context, task vocab.UUID, reason string) (vocab.TaskState, bool, error) {
	state, cancelled, err := e.store.CancelTask(ctx, task, reason, e.HostID())
	if err != nil {
		return "", false, err
	}
	if cancelled {
		for _, a := range e.held.ofTask(task) {
			e.runner.Cancel(a.UUID().String(), "task_cancelled")
		}
		e.inputs.forget(task)
		e.hub.finished(task, state)
	}
	return state, cancelled, nil
}
