package pluginhost

import (
	"context"
	"fmt"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/journal"
)

// swap gives the slot something else to run. The caller holds op.
func (s *slot) swap(ctx context.Context, spec Spec, actor Actor, reason string) error {
	g, err := s.ready(ctx, spec, actor, reason)
	if err == nil {
		err = s.roll(ctx, g, actor, reason)
	}
	return s.swapped(g, err)
}

// ready takes in an executable, starts it and makes it ready.
func (s *slot) ready(ctx context.Context, spec Spec, actor Actor, reason string) (*generation, error) {
	next, err := s.take(spec)
	if err != nil {
		s.host.journal.Later(Event{
			At: time.Now(), Slot: s.id, From: journal.Discovered, To: journal.Rejected, Actor: actor, Reason: err.Error(), SHA256: spec.SHA256,
		})
		return nil, err
	}
	s.host.quarantine.refresh(ctx)
	if err := s.host.quarantine.check(s.id, next); err != nil {
		return nil, err
	}
	if err := s.futile(next, actor); err != nil {
		return nil, err
	}
	s.giveUpRollout(actor, "another change was requested")
	began := time.Now()
	g, err := s.bring(ctx, next, actor, reason)
	s.tried(next, err)
	if err == nil {
		s.metrics.starts.Observe(time.Since(began).Seconds())
	}
	return g, err
}

// maxTries is how often the configuration may ask for the same thing if it does not
// start: otherwise a watched file would cause endless attempts.
const maxTries = 2

// tries counts consecutive failed starts of something, with the last error.
type tries struct {
	failed int
	last   error
}

// futile returns an error if the configuration asks for something that has failed too
// often. People may try as often as they like.
func (s *slot) futile(r *release, actor Actor) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.attempts[r.key()]
	if actor.IsOperator() || t.failed < maxTries {
		return nil
	}
	return fmt.Errorf("it failed to start %d times with these settings and is not tried again: change it, or swap by hand; last error: %w", t.failed, t.last)
}

// tried notes the result of a start.
func (s *slot) tried(r *release, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil || len(s.attempts) > 100 {
		clear(s.attempts)
	}
	if err != nil && s.ctx.Err() == nil {
		s.attempts[r.key()] = tries{s.attempts[r.key()].failed + 1, err}
	}
}

// roll lets a ready generation take over as the rollout specifies.
func (s *slot) roll(ctx context.Context, g *generation, actor Actor, reason string) error {
	s.mu.Lock()
	serves := s.primary
	s.mu.Unlock()
	rollout := g.runs.spec.Rollout
	if serves == nil || rollout.Strategy == Immediate {
		return s.takeOver(ctx, g, actor, reason)
	}
	s.carryOver(ctx, serves, g)
	if rollout.Strategy == ShadowFirst {
		if err := s.enroll(ctx, g, journal.Shadow, 0, actor, reason); err != nil {
			return err
		}
		s.tasks.Go(func() { s.watchShadow(g, actor) })
		return nil
	}
	if err := s.enroll(ctx, g, journal.Canary, rollout.Steps[0], actor, reason); err != nil {
		return err
	}
	s.tasks.Go(func() { s.watchCanary(g, actor) })
	return nil
}

// takeOver lets a ready generation serve at once.
func (s *slot) takeOver(ctx context.Context, g *generation, actor Actor, reason string) error {
	s.mu.Lock()
	serves, fresh := s.primary, g.phase == journal.Probing
	s.mu.Unlock()
	if serves != nil && fresh {
		s.carryOver(ctx, serves, g)
	}
	return s.host.promote(ctx, []promotion{{slot: s, to: g, keep: true}}, actor, reason)
}

// swapped counts a swap, and ends the new generation if the swap failed.
func (s *slot) swapped(g *generation, err error) error {
	if err == nil {
		s.metrics.swaps["done"].Inc()
		return nil
	}
	result := "refused"
	if g != nil {
		result = "failed"
		_ = s.finish(g, ReasonStopping, "it never took over: "+err.Error()) // finish reports errors
	}
	s.metrics.swaps[result].Inc()
	return err
}

// rollback reverts the last change. The caller holds op.
func (s *slot) rollback(ctx context.Context, actor Actor, reason string) error {
	s.mu.Lock()
	next, serves := s.candidate, s.want
	s.mu.Unlock()
	if next != nil {
		if err := s.host.journal.Must(ctx, s.host.quarantine.add(s.id, next.runs, serves, actor, reason)); err != nil {
			s.host.quarantine.forget(s.id, next.runs)
			return err
		}
		if s.abandon(next, actor, reason) || !next.runs.same(s.wants()) { // it is gone; otherwise it has taken over
			s.metrics.rollbacks[causeOperator].Inc()
			return nil
		}
	}
	s.mu.Lock()
	bad, warm, good, settings := s.want, s.standby, s.good, s.spec
	s.mu.Unlock()
	if warm != nil && !warm.runs.same(bad) {
		if err := s.backTo(ctx, warm, bad, actor, reason); err == nil {
			s.metrics.rollbacks[causeOperator].Inc()
			return nil
		}
	}
	if good == nil {
		var err error
		if good, err = s.before(ctx, settings, bad); err != nil {
			return err
		}
	}
	g, err := s.bring(ctx, good, actor, reason)
	if err != nil {
		return err
	}
	if err := s.backTo(ctx, g, bad, actor, reason); err != nil {
		_ = s.finish(g, ReasonStopping, "it never took over: "+err.Error()) // finish reports errors
		return err
	}
	s.metrics.rollbacks[causeOperator].Inc()
	return nil
}

// before looks up in the journal what served before a release.
func (s *slot) before(ctx context.Context, settings Spec, bad *release) (*release, error) {
	if bad == nil {
		return nil, fmt.Errorf("%w: nothing has served yet", ErrNothingToDo)
	}
	sum, err := s.host.cfg.Journal.LastGood(ctx, s.id, bad.stored.SHA256)
	if err != nil {
		return nil, fmt.Errorf("find the previous executable: %w", err)
	}
	if sum == "" {
		return nil, fmt.Errorf("%w: nothing else has served before", ErrNothingToDo)
	}
	settings.Path, settings.SHA256 = "", sum
	return s.take(settings)
}

// backTo makes a generation serve instead of a release, which is quarantined.
func (s *slot) backTo(ctx context.Context, g *generation, bad *release, actor Actor, reason string) error {
	if err := s.host.promote(ctx, []promotion{{slot: s, to: g}}, actor, reason); err != nil {
		return err
	}
	s.mu.Lock()
	s.good = nil
	s.trial = trial{}
	s.mu.Unlock()
	if bad != nil {
		s.host.journal.Later(s.host.quarantine.add(s.id, bad, g.runs, actor, reason))
	}
	return nil
}
