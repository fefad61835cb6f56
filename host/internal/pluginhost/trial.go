package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/journal"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/rollout"
)

// trial is the time after a takeover in which the previous generation takes the calls
// back if it did better.
type trial struct {
	of    *generation // nil: none
	until time.Time
	began time.Time
	old   rollout.Sums // of the minute before
}

// beginTrial begins the trial of a generation that takes over from another. The caller
// holds mu.
func (s *slot) beginTrial(g, old *generation) {
	s.trial = trial{}
	length := s.spec.Rollout.Trial
	if length <= 0 || g.runs.same(old.runs) {
		return
	}
	now := time.Now()
	t := trial{of: g, began: now, until: now.Add(length), old: old.recent.Sum(now, now.Add(-time.Hour))}
	s.trial = t
	s.tasks.Go(func() { s.watchTrial(t, length) })
}

// watchTrial compares a generation on trial with the previous one.
func (s *slot) watchTrial(t trial, length time.Duration) {
	tick := time.NewTicker(lookEvery(length))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-t.of.stop:
			return
		case <-s.ctx.Done():
			return
		}
		if !s.onTrial(t.of) {
			return
		}
		now := t.of.recent.Sum(time.Now(), t.began)
		if cause, why := rollout.Judge(now, t.old, s.settings().Rollout.limits()); cause != rollout.NotWorse {
			if err := s.backOut(t.of, string(cause), why); err != nil {
				s.log.Warn("the generation does worse, but the previous one cannot take over", "generation", t.of.number, "error", err, "reason", why)
			}
			return
		}
	}
}

// lookEvery returns how often to check something that lasts the given time.
func lookEvery(length time.Duration) time.Duration {
	return min(max(length/20, 10*time.Millisecond), time.Second)
}

// enroll lets a candidate have a share of the calls, or copies of them, once that is
// recorded.
func (s *slot) enroll(ctx context.Context, g *generation, to Phase, weight int, actor Actor, reason string) error {
	s.mu.Lock()
	e := s.event(g, to, actor, reason)
	e.Weight = weight
	s.mu.Unlock()
	if err := s.host.journal.Must(ctx, e); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.lost || g.cleanup || s.ctx.Err() != nil {
		gone := s.event(g, journal.Crashed, journal.ByHost, errVanished.Error())
		gone.From = to
		s.host.journal.Later(gone)
		return errVanished
	}
	if s.primary == g { // what served has ended meanwhile, and it took over
		return nil
	}
	table := served{primary: s.primary, canary: g, weight: uint32(weight)}
	if to == journal.Shadow {
		table = served{primary: s.primary, shadow: g}
	}
	if err := s.host.router.change(nil, edit{slot: s.label, to: table}); err != nil {
		return err
	}
	s.candidate, g.weight = g, weight
	s.move(g, to, actor, reason) // already recorded
	s.log.Info("plugin rollout", "generation", g.number, "phase", string(to), "percent", weight, "reason", reason)
	return nil
}

// comparison compares a candidate with the serving generation, from a certain moment on.
type comparison struct {
	mine, other   *generation // other: nil if there is nothing to compare with
	began         time.Time
	before, since rollout.Sums // the calls of mine and other until then
}

func compare(mine, other *generation) comparison {
	c := comparison{mine: mine, other: other, began: time.Now(), before: mine.recent.Total()}
	if other != nil {
		c.since = other.recent.Total()
	}
	return c
}

// judge reports whether the candidate is worse, judging by the calls of the last minute,
// and by all since the beginning, because one minute may have too few. It returns how
// many of the candidate's calls have ended since.
func (c *comparison) judge(limits rollout.Limits) (calls int, cause rollout.Cause, why string) {
	now := time.Now()
	recent, all := c.mine.recent.Sum(now, c.began), c.mine.recent.Total().Without(c.before)
	var otherRecent, otherAll rollout.Sums
	if c.other != nil {
		otherRecent, otherAll = c.other.recent.Sum(now, c.began), c.other.recent.Total().Without(c.since)
	}
	if cause, why = rollout.Judge(recent, otherRecent, limits); cause == rollout.NotWorse {
		cause, why = rollout.Judge(all, otherAll, limits)
	}
	return all.All.Calls, cause, why
}

// serves returns the generation that serves; nil: none does.
func (s *slot) serves() *generation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.primary
}

// watchCanary takes a canary from step to step, and gives it up if it does worse than the
// serving generation.
func (s *slot) watchCanary(g *generation, actor Actor) {
	plan := g.runs.spec.Rollout
	c := compare(g, s.serves())
	for step := 1; s.looks(g, journal.Canary, lookEvery(plan.Hold)); {
		serves := s.serves()
		if serves == nil {
			continue // lose lets the canary take over
		}
		if c.other != serves {
			c = compare(g, serves)
		}
		calls, cause, why := c.judge(plan.limits())
		if cause != rollout.NotWorse {
			s.giveUp(g, string(cause), why)
			return
		}
		g.compared.Store(int64(calls))
		// A plugin that is called rarely, for few pools or checks, may have no calls in
		// its share.
		enough := calls >= plan.MinSamples || calls == 0 && s.id.Kind != KindHandler
		if time.Since(c.began) >= plan.Hold && enough {
			if s.step(g, step, actor) {
				step++
			}
			c = compare(g, serves) // also if it failed: it is tried again after another hold
		}
	}
}

// step gives a canary the next share of the calls or, after the last step, all of them.
func (s *slot) step(g *generation, step int, actor Actor) bool {
	err := s.operate(s.ctx, func(ctx context.Context) error {
		s.mu.Lock()
		gone := s.candidate != g
		s.mu.Unlock()
		if gone {
			return nil
		}
		if steps := g.runs.spec.Rollout.Steps; step < len(steps) {
			reason := "it does no worse"
			if n := g.mirrored.Load(); step == 0 && n > 0 {
				reason = fmt.Sprintf("as a shadow it answered %d calls, %d differently", n, g.differed.Load())
			}
			return s.enroll(ctx, g, journal.Canary, steps[step], actor, reason)
		}
		return s.takeOver(ctx, g, actor, "it does no worse")
	})
	if err != nil {
		s.log.Warn("the rollout is not making progress", "generation", g.number, "error", err)
	}
	return err == nil
}

// watchShadow turns a shadow into a canary when it has answered enough copies. People
// must judge how its answers differ; if it breaks it is given up.
func (s *slot) watchShadow(g *generation, actor Actor) {
	plan := g.runs.spec.Rollout
	c := compare(g, nil)
	for s.looks(g, journal.Shadow, lookEvery(plan.Hold)) {
		if _, cause, why := c.judge(plan.limits()); cause != rollout.NotWorse {
			s.giveUp(g, string(cause), why)
			return
		}
		copies := int(g.mirrored.Load())
		g.compared.Store(int64(copies))
		// Reports are not copied, so a plugin that does nothing else gets none.
		if time.Since(c.began) >= plan.Hold && (copies >= plan.MinSamples || copies == 0) {
			if s.step(g, 0, actor) {
				s.watchCanary(g, actor)
				return
			}
			c.began = time.Now()
		}
	}
}

// looks waits for the next look at a candidate; false means that it no longer is one.
func (s *slot) looks(g *generation, phase Phase, every time.Duration) bool {
	timer := time.NewTimer(every)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-g.stop:
		return false
	case <-s.ctx.Done():
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.candidate == g && g.phase == phase
}

// onTrial reports whether a generation is on trial.
func (s *slot) onTrial(g *generation) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trial.of == g && time.Now().Before(s.trial.until)
}

// backOut reverts the change by which a generation came to serve. It does not wait for
// the journal.
func (s *slot) backOut(g *generation, cause, reason string) error {
	s.mu.Lock()
	old := s.standby
	serves := s.primary == g && old != nil && !old.runs.same(g.runs)
	s.mu.Unlock()
	if !serves {
		return ErrNothingToDo
	}
	back := promotion{slot: s, to: old, needed: func() bool { return s.primary == g }}
	err := s.host.commit([]promotion{back}, nil, journal.ByHost, reason, s.host.journal.Later)
	if err != nil {
		return err
	}
	s.tookBack(g.runs, old.runs, cause, reason)
	return nil
}

// tookBack notes that a release was reverted in favor of another.
func (s *slot) tookBack(bad, good *release, cause, reason string) {
	s.mu.Lock()
	s.good, s.trial = nil, trial{}
	s.lastErr = reason
	s.mu.Unlock()
	s.host.journal.Later(s.host.quarantine.add(s.id, bad, good, journal.ByHost, reason))
	s.metrics.rollbacks[cause].Inc()
	s.log.Error("the change was rolled back: the previous executable serves again", "sha256", good.stored.SHA256, "quarantined", bad.stored.SHA256, "reason", reason)
}

// giveUp ends a rollout because the new generation does badly.
func (s *slot) giveUp(g *generation, cause, reason string) {
	s.mu.Lock()
	good := s.want
	s.mu.Unlock()
	if s.abandon(g, journal.ByHost, reason) {
		s.tookBack(g.runs, good, cause, reason)
	}
}

// giveUpRollout ends the rollout in progress, if any.
func (s *slot) giveUpRollout(actor Actor, reason string) {
	s.mu.Lock()
	g := s.candidate
	s.mu.Unlock()
	if g != nil {
		s.abandon(g, actor, reason)
	}
}

// abandon takes a candidate out of service and ends it when its calls have ended. If it
// is no longer a candidate, abandon does nothing and reports false: it may have taken
// over meanwhile because the serving generation ended.
func (s *slot) abandon(g *generation, actor Actor, reason string) bool {
	s.mu.Lock()
	if s.candidate != g {
		s.mu.Unlock()
		return false
	}
	s.host.router.remove(g, nil)
	s.forget(g)
	if g.phase == journal.Canary {
		s.host.journal.Later(s.move(g, journal.Draining, actor, reason))
	}
	s.mu.Unlock()
	s.tasks.Go(func() {
		s.passOn(g)
		ctx, cancel := context.WithTimeout(s.ctx, s.settings().DrainTimeout)
		defer cancel()
		_ = g.wait(ctx)                                      // or the rest is released
		_ = s.finish(g, ReasonReplaced, "given up: "+reason) // finish reports errors
	})
	return true
}

// crashed decides what a crash means besides a restart: on trial, or during its rollout,
// it is the end of a release.
func (s *slot) crashed(g *generation, was Phase, why string) {
	s.mu.Lock()
	instead := s.want
	onTrial := s.trial.of == g && g.lostAt.Before(s.trial.until) && s.primary != nil && !s.primary.runs.same(g.runs)
	if onTrial {
		instead = s.primary.current()
		s.want, s.spec = instead, instead.spec
	}
	s.mu.Unlock()
	if onTrial || (was == journal.Canary || was == journal.Shadow) && instead != nil && !instead.same(g.runs) {
		s.tookBack(g.runs, instead, causeCrash, "it crashed on trial: "+why)
	}
}

// fallBack quarantines what crashes in a loop, if something else has served before: that
// is started instead. It reports whether something else is wanted now.
func (s *slot) fallBack() bool {
	s.mu.Lock()
	bad, good, settings := s.want, s.good, s.spec
	if now := s.primary; now != nil && !now.runs.same(bad) {
		good = now.current()
	}
	s.mu.Unlock()
	if bad == nil || s.breaker(bad).openFor() == 0 {
		return false
	}
	if good == nil {
		var err error
		if good, err = s.before(s.ctx, settings, bad); err != nil {
			if !errors.Is(err, ErrNothingToDo) {
				s.log.Warn("the previous executable cannot be started", "error", err)
			}
			return false
		}
	}
	if s.host.quarantine.check(s.id, good) != nil {
		return false
	}
	s.mu.Lock()
	wanted := bad.same(s.want)
	if wanted {
		s.want, s.spec = good, good.spec
	}
	s.mu.Unlock()
	if wanted { // otherwise an operator was quicker
		s.tookBack(bad, good, causeCrash, "it keeps crashing")
	}
	return true
}
