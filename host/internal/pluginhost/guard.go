package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/journal"
)

// guard watches a generation until it is told to end or ends on its own.
func (s *slot) guard(g *generation) {
	watch, stop := context.WithCancel(s.ctx)
	var checks sync.WaitGroup
	defer checks.Wait()
	defer stop()
	silent := make(chan error, 1)
	checks.Go(func() { s.watchHealth(watch, g, silent) })
	stable := time.NewTimer(s.host.cfg.Restart.Stable)
	defer stable.Stop()
	var hanging <-chan struct{}
	if g.work != nil {
		hanging = g.work.hanging
	}
	var retry <-chan time.Time
	for {
		select {
		case <-g.stop:
			return
		case <-g.broken():
			s.bury(g, nil)
			return
		case <-g.proc.Exited():
			s.bury(g, nil)
			return
		case err := <-silent:
			s.bury(g, err)
			return
		case <-stable.C:
			s.stable(g)
			continue
		case <-g.tripped:
			s.trip(g)
			continue
		case <-hanging:
		case <-retry:
		}
		s.recycle(g)
		hanging, retry = nil, time.After(s.breaker(g.runs).delay())
	}
}

// stable notes that a generation has served for a while.
func (s *slot) stable(g *generation) {
	s.mu.Lock()
	serves := s.primary == g
	s.mu.Unlock()
	if serves {
		s.breaker(g.runs).stable()
	}
}

// trip reverts a change after which calls began to time out or to break.
func (s *slot) trip(g *generation) {
	const reason = "its call breaker opened: calls time out or break"
	s.log.Error("call breaker of the plugin opened", "generation", g.number)
	s.giveUp(g, causeErrors, reason)
	if err := s.backOut(g, causeErrors, reason); err != nil && !errors.Is(err, ErrNothingToDo) {
		s.failed(fmt.Errorf("roll the change back: %w", err))
	}
}

// recycle replaces a process in which calls hang. The slot falls back to what served
// before, or a new process of the same release is started and takes over. The old one
// gets a moment for the calls that do not hang. If no other starts, it stays, and is
// checked again.
func (s *slot) recycle(g *generation) {
	s.mu.Lock()
	phase, want := g.phase, s.want
	s.mu.Unlock()
	switch {
	case phase == journal.Canary:
		s.giveUp(g, causeHealth, "its calls hang and ignore cancellation")
		return
	case phase != journal.Active || !g.runs.same(want):
		return // it is already being retired
	}
	s.log.Warn("calls hang in the plugin and ignore cancellation; replacing the process", "generation", g.number)
	if s.onTrial(g) && s.backOut(g, causeHealth, "its calls hang and ignore cancellation") == nil {
		return
	}
	why := fmt.Sprintf("calls hang in generation %d", g.number)
	next, err := s.bring(s.ctx, want, journal.ByHost, why)
	if err == nil {
		needed := func() bool { return s.primary == g && want.same(s.want) }
		err = s.host.commit([]promotion{{slot: s, to: next, hung: true, needed: needed}}, nil, journal.ByHost, why, s.host.journal.Later)
		if err != nil {
			_ = s.finish(next, ReasonStopping, "never routed") // finish reports errors
		}
	}
	if err != nil {
		if s.ctx.Err() == nil && !errors.Is(err, errNotNeeded) {
			s.failed(fmt.Errorf("replace generation %d, in which calls hang: %w", g.number, err))
		}
		return
	}
	s.count(restartHung)
}

// broken is called by a generation's stream when nothing can be received any more, before
// its calls are released: it removes the route, so that no more calls arrive, and ends
// the process. It returns what to tell the callers.
func (s *slot) broken(g *generation, cause error) string {
	if s.lose(g) {
		s.passOn(g)
	}
	ended := g.proc.Ended()
	g.proc.Kill()
	if ended {
		return fmt.Sprintf("plugin %s, generation %d: the process ended: %s", g.plugin, g.number, g.proc.Exit())
	}
	return fmt.Sprintf("plugin %s, generation %d: the stream broke: %v", g.plugin, g.number, cause)
}

// lose takes a generation that has ended out of service. If it was the serving one, the
// one that is kept warm takes its place in the same moment, or else the one that was
// about to. It reports whether another serves now.
func (s *slot) lose(g *generation) (another bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.lost {
		return false
	}
	g.lost, g.lostAt = true, time.Now()
	var next *generation
	if s.primary == g {
		if next = s.standby; next == nil && s.candidate != nil && s.candidate.phase == journal.Canary {
			next = s.candidate
		}
	}
	s.host.router.remove(g, next)
	s.forget(g)
	if next == nil {
		if s.primary == nil && s.state == Serving {
			s.state, s.since = BackingOff, g.lostAt
		}
		return s.primary != nil
	}
	s.takeover(next, fmt.Sprintf("it takes over because generation %d ended", g.number))
	return true
}

// lastWords is how long the answers of an ended process are still read: anything later
// could only come from something that it has left behind.
const lastWords = 2 * time.Second

// bury cleans up after a generation that has ended on its own, or is ended for the given
// reason.
func (s *slot) bury(g *generation, why error) {
	reason := restartCrash
	if why != nil {
		reason = restartNoAnswer
		if errors.Is(why, errGreedy) {
			reason = restartMemory
		}
		g.proc.Kill()
	}
	select {
	case <-g.broken(): // the process is dead or soon will be, and its calls are released
	case <-time.After(lastWords):
		if g.work != nil { // the calls to anything else end with its connection
			g.work.cancel() // another process answers instead
			<-g.broken()
		}
	}
	s.lose(g)
	if g.work != nil {
		g.work.end(ReasonCrashed, "")
	}
	s.host.live.remove(g)
	s.mu.Lock()
	mine := !g.cleanup
	g.cleanup = true
	was := g.phase
	s.mu.Unlock()
	left := g.proc.Stop(0)
	if !mine {
		return // it was told to end
	}
	exit := g.proc.Exit()
	if why == nil {
		why = fmt.Errorf("plugin %s, generation %d: the process ended: %s", g.plugin, g.number, exit)
		if g.work != nil {
			why = errors.New(g.work.obituary)
		}
	}
	to := journal.Crashed
	if !was.Running() {
		to = journal.Failed // it was not ready yet
	}
	s.over(g, to, why.Error(), g.lostAt)
	err := fmt.Errorf("%w; it ran for %s and used up to %d MiB", why, time.Since(g.since).Round(time.Millisecond), exit.MaxRSS>>20)
	if exit.Stderr != "" {
		err = fmt.Errorf("%w; its standard error ends with:\n%s", err, strings.TrimRight(exit.Stderr, "\n"))
	}
	s.failed(errors.Join(err, left))
	if was == journal.Active || was == journal.Unhealthy {
		s.count(reason)
	}
	s.breaker(g.runs).exited()
	s.crashed(g, was, why.Error())
	signal(s.lacking)
}
