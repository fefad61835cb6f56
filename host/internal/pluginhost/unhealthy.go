package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/journal"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/process"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
)

// How many consecutive health checks, missed or answered with "unhealthy", cost a
// generation its calls. One that misses missesAllowed is killed; one that answers is left
// to recover.
const checksAllowed = 2

// ail takes the calls from an unhealthy generation. The one that is kept warm gets them,
// or nobody, so that steps wait in their queues rather than in a process that does not
// run them. The unhealthy one may finish what it has begun, and gets the calls back when
// it has recovered.
func (s *slot) ail(g *generation, why string) {
	s.mu.Lock()
	if s.primary != g || g.phase != journal.Active || g.lost || g.cleanup {
		s.mu.Unlock()
		return
	}
	next := s.standby
	s.host.router.remove(g, next)
	s.forget(g)
	if next != nil {
		s.takeover(next, fmt.Sprintf("it takes over because generation %d is unhealthy", g.number))
	}
	s.host.journal.Later(s.move(g, journal.Unhealthy, journal.ByHost, why))
	s.lastErr = fmt.Sprintf("generation %d: %s", g.number, why)
	if next == nil {
		s.state, s.since = BackingOff, g.moved
	}
	s.mu.Unlock()
	s.log.Warn("the generation is unhealthy and gets no calls", "generation", g.number, "reason", why, "takes_over", next != nil)
	s.passOn(g)
}

// takeover makes a generation serve that has already replaced another in the route table.
// The caller holds mu.
func (s *slot) takeover(next *generation, reason string) {
	s.forget(next)
	s.primary = next
	if next.phase == journal.Canary {
		s.good, s.want = s.want, next.current()
		s.spec = s.want.spec
	}
	next.weight = 0
	s.warm(next)
	s.host.journal.Later(s.move(next, journal.Active, journal.ByHost, reason))
	s.metrics.failovers.Inc()
	s.log.Warn("a warm generation takes over", "generation", next.number, "reason", reason)
}

// well returns the calls to a recovered generation, on trial as when it took them over;
// it ends if something else serves that is just as good.
func (s *slot) well(g *generation) {
	s.mu.Lock()
	if g.phase != journal.Unhealthy || g.lost || g.cleanup {
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	back := promotion{slot: s, to: g, keep: true, needed: s.missing(g.runs)}
	err := s.host.commit([]promotion{back}, nil, journal.ByHost, "it is healthy again", s.host.journal.Later)
	switch {
	case err == nil, errors.Is(err, errVanished), errors.Is(err, ErrStopping):
		return
	case !errors.Is(err, errNotNeeded):
		s.failed(fmt.Errorf("return the calls to generation %d: %w", g.number, err))
	}
	s.mu.Lock()
	if g.phase != journal.Unhealthy || g.lost || g.cleanup {
		s.mu.Unlock()
		return
	}
	e := s.move(g, journal.Draining, journal.ByHost, "it is healthy again, but was replaced")
	successor := uint64(0)
	if s.primary != nil {
		successor = s.primary.number
	}
	s.mu.Unlock()
	s.host.journal.Later(e)
	s.tasks.Go(func() { s.drain(g, promotion{}, successor, e.At) })
}

const (
	stopCheck    = 400 * time.Millisecond // between checks whether the process is stopped; two in a row count
	missInterval = time.Second            // to the next health check after a bad one
)

// watchHealth checks the plugin's health. It reports once if the plugin fails to answer
// several times in a row, or is stopped: it is of no use then.
func (s *slot) watchHealth(ctx context.Context, g *generation, silent chan<- error) {
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	check := time.NewTimer(s.host.cfg.HealthInterval)
	defer check.Stop()
	look := time.NewTicker(stopCheck)
	defer look.Stop()
	answers := make(chan answered, 1)
	p := pulse{slot: s, of: g}
	kept := time.Now()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-look.C: // also while waiting for an answer
			err = p.look()
		case <-check.C:
			if time.Since(kept) > keepInterval {
				kept = time.Now()
				if err := s.life.store.Keep(g.runs.stored); err != nil {
					s.log.Warn("a restart may have to store the executable again", "error", err)
				}
			}
			asking.Go(func() { answers <- s.askHealth(ctx, g) })
		case a := <-answers:
			if ctx.Err() != nil {
				return
			}
			err = p.heard(a)
			check.Reset(p.every(s.host.cfg.HealthInterval))
		}
		if err != nil {
			silent <- err
			return
		}
	}
}

// answered is the result of a health check.
type answered struct {
	health *pluginv1.HealthResponse
	err    error
}

func (s *slot) askHealth(ctx context.Context, g *generation) answered {
	ctx, cancel := context.WithTimeout(ctx, s.host.cfg.HealthTimeout)
	defer cancel()
	h, err := g.proc.Plugin.Health(ctx, &pluginv1.HealthRequest{})
	return answered{h, err}
}

// pulse is what is known about the health of one generation.
type pulse struct {
	slot *slot
	of   *generation

	misses    int  // consecutive checks without an answer
	complaint int  // consecutive checks in which it reported that it is unhealthy
	stopped   bool // at the last look
	greedy    bool // it exceeded its memory limit at the last look
	ailing    bool // it has lost its calls
}

var (
	errSuspended = errors.New("the process is stopped (SIGSTOP)")
	errGreedy    = errors.New("it uses more memory than max_memory allows")
)

// look checks whether the process is stopped, or uses too much memory. It returns an
// error if that was also so at the last look.
func (p *pulse) look() error {
	if most := p.of.runs.spec.Limits.Memory; most > 0 {
		has, _ := process.Resident(p.of.proc.Pid())
		if p.greedy && has > most {
			return fmt.Errorf("%w: %d MiB, more than %d", errGreedy, has>>20, most>>20)
		}
		p.greedy = has > most
	}
	before := p.stopped
	switch p.stopped = p.of.proc.Suspended(); {
	case p.stopped && before:
		return errSuspended
	case p.stopped:
		p.ailing = true
		p.slot.ail(p.of, errSuspended.Error())
	case before && p.misses+p.complaint == 0:
		p.ailing = false
		p.slot.well(p.of)
	}
	return nil
}

// heard handles the result of a check. It returns an error if there were too many without
// an answer.
func (p *pulse) heard(a answered) error {
	const unhealthy = pluginv1.HealthResponse_STATUS_UNHEALTHY
	switch {
	case a.err != nil:
		if p.misses++; p.misses >= missesAllowed {
			return fmt.Errorf("no answer to %d health checks, last error: %w", p.misses, a.err)
		}
		if p.misses >= checksAllowed {
			p.ailing = true
			p.slot.ail(p.of, fmt.Sprintf("no answer to %d health checks", p.misses))
		}
	case a.health.GetStatus() == unhealthy:
		p.misses = 0
		p.complains("it reports that it is unhealthy: " + clip(a.health.GetMessage(), maxShown))
	default:
		if p.complaint > 0 {
			p.slot.log.Info("the plugin reports that it is healthy again", "generation", p.of.number)
		}
		p.misses, p.complaint = 0, 0
		if p.ailing && !p.stopped {
			p.ailing = false
			p.slot.well(p.of)
		}
	}
	return nil
}

// complains handles a generation's report that it is unhealthy.
func (p *pulse) complains(why string) {
	p.complaint++
	if p.complaint == 1 {
		p.slot.log.Warn("the plugin is unhealthy", "generation", p.of.number, "reason", why)
		if p.slot.onTrial(p.of) {
			_ = p.slot.backOut(p.of, causeHealth, why) // backOut reports errors
		}
	}
	if p.complaint < checksAllowed {
		return
	}
	if p.complaint == checksAllowed {
		p.slot.giveUp(p.of, causeHealth, why)
	}
	p.ailing = true
	p.slot.ail(p.of, why)
}

// every returns the time to the next check: sooner while something is wrong.
func (p *pulse) every(usual time.Duration) time.Duration {
	if p.misses > 0 || p.complaint > 0 {
		return min(usual, missInterval)
	}
	return usual
}
