package pipeline

import (
	"context"
	"errors"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// sweepLoop finds what others left behind. Every SweepInterval it looks for steps of dead
// hosts and of outside workers whose leases have expired; every LostAfter for steps
// without a message, tasks nobody finished, and leases of this host that it does not know
// of.
func (e *Engine) sweepLoop(t *turns) {
	tick := time.NewTicker(e.live().SweepInterval)
	defer tick.Stop()
	looked := time.Now()
	var unknown suspects
	var lane store.Lane
	for {
		select {
		case <-tick.C:
		case <-e.paced: // at once, since a resting host sweeps nothing
			tick.Reset(e.live().SweepInterval)
			e.turn(t, func() { e.tellOfChange(t) })
			continue
		case <-e.work.Done():
			return
		}
		due := time.Since(looked) >= e.live().LostAfter
		resting := e.Resting()
		if resting && (!due || !e.rest.active.Load() && time.Since(looked) < partitionsEvery) {
			continue // restLoop looks for whatever this could find
		}
		e.turn(t, func() {
			if !resting {
				e.sweepHosts(t)
				e.sweepWorkers(t)
				lane = e.sweepLanes(t, lane)
			}
			if due {
				looked = time.Now()
				e.sweepMessages(t)
				e.ensurePartitions(t)
			}
			if due || e.lost.Load() || len(unknown) > 0 {
				e.lost.Store(false)
				unknown = e.reconcile(t, unknown)
				e.rest.suspects.Store(len(unknown) > 0)
			}
		})
	}
}

// ask makes one call to the database, in a turn that makes any number of them.
func (e *Engine) ask(t *turns, call func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(e.work, callTimeout)
	defer cancel()
	defer t.again(e)
	return call(ctx)
}

// inPages returns the context for a call that looks at everything there is, in a turn
// that makes any number of them.
func (e *Engine) inPages(t *turns) context.Context {
	return store.InPages(e.work, callTimeout, func() { t.again(e) })
}

func (e *Engine) sweepHosts(t *turns) {
	var gone []store.GoneHost
	err := e.ask(t, func(ctx context.Context) (err error) {
		gone, err = e.store.SweepHosts(ctx)
		return err
	})
	if err != nil {
		e.log.Warn("sweep of hosts failed", "error", err)
		return
	}
	for _, g := range gone {
		n, err := e.store.ReleaseHost(e.inPages(t), g.ID, "host_lost", e.live().Policy.ClaimFactor)
		if err != nil && !errors.Is(err, store.ErrOthers) {
			e.log.Warn("steps of a dead host could not be given back", "host", g.ID, "error", err)
			return
		}
		if n > 0 {
			e.metrics.swept.WithLabelValues("host").Add(float64(n))
			e.log.Warn("took over the steps of a dead host", "host", g.ID, "name", g.Name, "steps", n, "late", g.Late)
			e.wake()
		}
	}
}

// sweepWorkers ends the expired leases of outside workers.
func (e *Engine) sweepWorkers(t *turns) {
	e.tellOfChange(t)
	swept, err := e.store.SweepWorkerLeases(e.inPages(t), e.live().Policy)
	if n := swept.Released + swept.TimedOut; n > 0 {
		e.metrics.swept.WithLabelValues("worker").Add(float64(n))
		e.log.Warn("ended expired leases of outside workers", "given_back", swept.Released, "timed_out", swept.TimedOut)
		e.wake()
	}
	for _, f := range swept.Finished {
		e.metrics.finished.WithLabelValues(string(f.State)).Inc()
		e.hub.finished(f.UUID, f.State)
	}
	if err != nil {
		e.log.Warn("sweep of outside workers failed", "error", err)
	}
}

// tellOfChange is tellWorkers for a running host: if it fails, the next sweep tries
// again.
func (e *Engine) tellOfChange(t *turns) {
	if err := e.ask(t, e.tellWorkers); err != nil {
		e.log.Warn("outside workers still follow an earlier configuration", "error", err)
	}
}

// tellWorkers writes the policy for outside workers to the database when it changes.
func (e *Engine) tellWorkers(ctx context.Context) error {
	cfg := e.live()
	p := store.WorkerPolicy{Policy: cfg.Policy, MaxResultBytes: cfg.Results.MaxBytes, MaxDepth: cfg.Results.MaxDepth}
	if told := e.told.Load(); told != nil && *told == p {
		return nil
	}
	err := e.store.SetWorkerPolicy(ctx, p)
	if err == nil {
		e.told.Store(&p)
	}
	return err
}

// sweepLanes checks some of the entries that lead to messages with a priority, and
// removes those whose message somebody took without going through us. It returns where to
// continue.
func (e *Engine) sweepLanes(t *turns, after store.Lane) (last store.Lane) {
	var n int
	err := e.ask(t, func(ctx context.Context) (err error) {
		n, last, err = e.store.SweepLanes(ctx, after)
		return err
	})
	if err != nil {
		e.log.Warn("sweep of priorities failed", "error", err)
		return store.Lane{}
	}
	if n > 0 {
		e.metrics.swept.WithLabelValues("priority").Add(float64(n))
	}
	return last
}

func (e *Engine) sweepMessages(t *turns) {
	n, stalled, err := e.store.SweepMessages(e.inPages(t), e.live().LostAfter)
	if err != nil {
		e.log.Warn("sweep of messages failed", "error", err)
		return
	}
	if n > 0 {
		e.metrics.swept.WithLabelValues("message").Add(float64(n))
		e.log.Warn("enqueued steps that had lost their message", "steps", n)
		e.wake()
	}
	for _, task := range stalled {
		if err := e.finalize(t, task); silence(err) {
			return // the next sweep finds the others again
		}
	}
}

// silence reports whether a call failed since the database does not answer: others would
// fail the same way, each after as long a wait.
func silence(err error) bool {
	if err == nil || store.IsTimeout(err) {
		return false
	}
	c := store.Classify(err)
	return c == store.Unavailable || c == store.Unknown || c == store.Cancelled
}

func (e *Engine) finalize(t *turns, task vocab.UUID) error {
	var state vocab.TaskState
	err := e.ask(t, func(ctx context.Context) (err error) {
		state, err = e.finalizer.Finalize(ctx, task)
		return err
	})
	if err != nil {
		e.log.Warn("finalization failed; it will be tried again", "task", task.String(), "error", err)
		return err
	}
	if !state.Active() {
		e.metrics.swept.WithLabelValues("task").Inc()
		e.log.Warn("finished a task that was left behind", "task", task.String(), "state", state)
		e.hub.finished(task, state)
	}
	return nil
}

// partitionsEvery is the longest time between two creations of partitions.
const partitionsEvery = time.Hour

func (e *Engine) ensurePartitions(t *turns) {
	if err := e.store.EnsurePartitions(e.inPages(t), store.PartitionDays, e.live().Retention.Tasks); err != nil {
		e.log.Warn("partitions could not be created; rows go to the default ones", "error", err)
	}
}

// suspects are leases that the database says this host holds but that the host did not
// know of, each with the last call that could have brought it.
type suspects map[store.Held]ticket

// reconcile gives back leases that the database says this host holds but that it does not
// know of, because the reply that brought them was lost. One look that finds a lease
// unknown is not proof, since its reply may still be on its way, for however long. The
// lease is lost if the host does not know of it once every call that could have brought
// it has ended, and the database still shows it after that: a lease that was brought is
// held by then, and stays held until the database no longer shows it.
func (e *Engine) reconcile(t *turns, before suspects) suspects {
	// This must come before the database is asked: leases brought from now on, or
	// recorded between its answer and the comparison, cannot be among these.
	lost := map[store.Held]bool{}
	for l, last := range before {
		if e.grants.ended(last) && !e.held.knows(l) {
			lost[l] = true
		}
	}
	leases, err := e.store.HostLeases(e.inPages(t), e.HostID())
	if err != nil {
		e.log.Warn("leases could not be compared with the database", "error", err)
		e.lost.Store(true)
		return before
	}
	last := e.grants.mark() // whatever the answer shows was leased by this call or an earlier one
	after := suspects{}
	for _, l := range leases {
		since, suspect := before[l]
		switch {
		case e.held.knows(l):
		case lost[l]:
			e.metrics.swept.WithLabelValues("lease").Inc()
			e.giveBack(l, &pluginhost.Failure{Code: replyLost, Message: replyLost}, 0)
		case suspect:
			after[l] = since
		default:
			after[l] = last
		}
	}
	return after
}

// replyLost is the reason for giving back a lease that the host never heard of.
const replyLost = "reply_lost"

// giveBack gives back a lease that no longer has an attempt; the step waits for the given
// time.
func (e *Engine) giveBack(l store.Held, why *pluginhost.Failure, wait time.Duration) {
	e.held.keep(l) // the next look may come before it is recorded
	e.outcomes.add(settlement{Settlement: store.Settlement{
		StepKey: l.StepKey, Lease: l.Lease, Outcome: vocab.OutcomeReleased, Error: releaseOf(why), RetryAfter: wait,
	}})
}
