package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/artifact"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
)

const (
	recycleDrain  = 5 * time.Second // for the healthy calls of a process that is replaced
	missesAllowed = 3               // health checks in a row
	keepInterval  = time.Hour       // between signs that the stored executable is in use
)

// slot keeps one configured plugin alive. One goroutine, run, owns its life:
//
//	launch ─► serve ─► the process ends, hangs or is to stop
//	   ▲                  │
//	   └──── back-off ◄───┘
type slot struct {
	host    *Host
	spec    Spec
	log     hclog.Logger
	metrics *pluginMetrics

	// Set by reset, before run.
	life    *life
	breaker *crashBreaker
	first   chan error     // what came of the first launch
	retired sync.WaitGroup // replaced generations that still drain

	mu       sync.Mutex // guards the following
	stored   artifact.Artifact
	state    State
	since    time.Time
	now      *generation // that serves; nil: none
	restarts int
	lastErr  string
}

func newSlot(h *Host, spec Spec) *slot {
	return &slot{
		host: h, spec: spec, log: h.log.With("plugin", spec.Name), metrics: h.metrics.of(spec.Name),
		state: Stopped, since: time.Now(),
	}
}

// reset makes the slot ready for a life of the host. A new life takes the
// executable in anew.
func (s *slot) reset(l *life) {
	s.life, s.first = l, make(chan error, 1)
	s.breaker = newCrashBreaker(s.spec.Name, s.host.cfg.Restart, s.log)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stored, s.restarts, s.lastErr = artifact.Artifact{}, 0, ""
}

// run lives until ctx ends and what serves has drained.
func (s *slot) run(ctx context.Context) {
	defer s.enter(Stopped)
	defer s.retired.Wait()
	for {
		s.enter(Starting)
		g, err := s.start(ctx)
		s.report(err)
		reason := restartFailed
		for err == nil {
			if g, reason, err = s.serve(ctx, g); g == nil && err == nil {
				return
			}
		}
		if ctx.Err() != nil {
			return
		}
		s.failed(err)
		s.count(reason)
		if !s.rest(ctx) {
			return
		}
	}
}

// report gives the result of the first launch to Start.
func (s *slot) report(err error) {
	select {
	case s.first <- err:
	default:
	}
}

// start launches a generation and routes it.
func (s *slot) start(ctx context.Context) (*generation, error) {
	if err := s.life.acquire(ctx); err != nil {
		return nil, err
	}
	defer s.life.release()
	g, ran, err := s.launch(ctx)
	if err != nil {
		if ran && ctx.Err() == nil {
			s.breaker.exited()
		}
		return nil, err
	}
	if err := s.host.router.put(g); err != nil {
		g.work.end(ReasonStopping, "never routed")
		return nil, errors.Join(err, g.proc.Stop(killGrace))
	}
	s.host.live.add(g)
	s.serving(g)
	s.enter(Serving)
	s.log.Info("plugin serves", "generation", g.number, "version", g.version, "pid", g.proc.Pid(),
		"sha256", g.artifact.SHA256, "handlers", g.handlers, "max_in_flight", g.window)
	return g, nil
}

// serve watches a generation until it ends, is replaced, or ctx ends. It
// returns the generation that serves next, or why none does; neither if the
// plugin was asked to stop and has stopped.
func (s *slot) serve(ctx context.Context, g *generation) (next *generation, reason string, err error) {
	health, stopHealth := context.WithCancel(ctx)
	var checks sync.WaitGroup
	defer checks.Wait()
	defer stopHealth()
	silent := make(chan error, 1)
	checks.Go(func() { s.watchHealth(health, g, silent) })
	stable := time.NewTimer(s.host.cfg.Restart.Stable)
	defer stable.Stop()
	hanging := g.work.hanging
	var retry <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			s.drain(g)
			return nil, "", nil
		case <-g.work.broken:
			return nil, restartCrash, s.bury(g, nil)
		case <-g.proc.Exited():
			return nil, restartCrash, s.bury(g, nil)
		case err := <-silent:
			return nil, restartNoAnswer, s.bury(g, err)
		case <-stable.C:
			s.breaker.stable()
			continue
		case <-hanging:
		case <-retry:
		}
		if next, err := s.replace(ctx, g); err == nil {
			return next, "", nil
		}
		hanging, retry = nil, time.After(s.breaker.delay())
	}
}

// replace exchanges a process in which calls hang: the new one is started
// beside it and takes over, and the old one gets a moment for the calls that do
// not hang. If the new one does not start the old one stays.
func (s *slot) replace(ctx context.Context, old *generation) (*generation, error) {
	s.log.Warn("calls hang in the plugin: it ignores cancellation; replacing the process", "generation", old.number)
	next, err := s.start(ctx)
	if err != nil {
		s.failed(fmt.Errorf("replace generation %d, in which calls hang: %w", old.number, err))
		return nil, err
	}
	s.count(restartHung)
	s.retired.Go(func() {
		drain, cancel := context.WithTimeout(ctx, recycleDrain)
		defer cancel()
		_, left := old.retire(drain, ReasonReplaced, fmt.Sprintf("the process was replaced by generation %d because calls hang in it", next.number))
		s.host.live.remove(old)
		if left != nil {
			s.log.Error("plugin process not stopped cleanly", "generation", old.number, "error", left)
		}
	})
	return next, nil
}

// watchHealth asks the plugin how it is. It reports once if the plugin does not
// answer several times in a row: it is stopped or stuck.
func (s *slot) watchHealth(ctx context.Context, g *generation, silent chan<- error) {
	tick := time.NewTicker(s.host.cfg.HealthInterval)
	defer tick.Stop()
	misses, unhealthy := 0, false
	kept := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if time.Since(kept) > keepInterval {
			kept = time.Now()
			if err := s.life.store.Keep(g.artifact); err != nil {
				s.log.Warn("a restart may have to take the executable in again", "error", err)
			}
		}
		call, cancel := context.WithTimeout(ctx, s.host.cfg.HealthTimeout)
		h, err := g.proc.Plugin.Health(call, &pluginv1.HealthRequest{})
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			if misses++; misses >= missesAllowed {
				silent <- fmt.Errorf("no answer to %d health checks, the last: %w", misses, err)
				return
			}
			continue
		}
		misses = 0
		if now := h.GetStatus() == pluginv1.HealthResponse_STATUS_UNHEALTHY; now != unhealthy {
			unhealthy = now
			s.log.Warn("health of the plugin changed", "generation", g.number, "status", h.GetStatus().String(), "message", clip(h.GetMessage(), maxShown))
		}
	}
}

// broken is called by the stream of a generation when nothing can be received
// any more, before its calls are released: the route goes, so that no more come,
// and the process with it. It returns what to tell the callers.
func (s *slot) broken(g *generation, cause error) string {
	s.host.router.remove(g)
	ended := g.proc.Ended()
	g.proc.Kill()
	if ended {
		return fmt.Sprintf("plugin %s, generation %d: the process ended: %s", g.plugin, g.number, g.proc.Exit())
	}
	return fmt.Sprintf("plugin %s, generation %d: the stream broke: %v", g.plugin, g.number, cause)
}

// bury cleans up behind a generation that has ended by itself, or is ended for
// the reason given. It returns what happened.
func (s *slot) bury(g *generation, why error) error {
	if why != nil {
		g.proc.Kill()
	}
	<-g.work.broken // the process is dead or soon will be: its calls are released
	g.work.end(ReasonCrashed, "")
	s.host.router.remove(g)
	s.host.live.remove(g)
	s.serving(nil)
	s.breaker.exited()
	left := g.proc.Stop(0)
	exit := g.proc.Exit()
	if why == nil {
		why = errors.New(g.work.obituary)
	}
	err := fmt.Errorf("%w; it ran %s and used at most %d MiB", why, time.Since(g.since).Round(time.Millisecond), exit.MaxRSS>>20)
	if exit.Stderr != "" {
		err = fmt.Errorf("%w; its standard error ends with:\n%s", err, strings.TrimRight(exit.Stderr, "\n"))
	}
	return errors.Join(err, left)
}

// drain ends the generation because the host stops.
func (s *slot) drain(g *generation) {
	s.enter(Draining)
	s.host.router.remove(g)
	cut, left := g.retire(s.life.bound, ReasonStopping, "the host shuts down")
	s.host.live.remove(g)
	s.serving(nil)
	s.life.failed(cut, left)
	s.log.Info("plugin stopped", "generation", g.number, "exit", g.proc.Exit().String(), "calls_cut", cut != nil)
}

// rest waits until the plugin may be started again; false means that ctx ended.
func (s *slot) rest(ctx context.Context) bool {
	state, delay := BackingOff, s.breaker.delay()
	if open := s.breaker.openFor(); open > 0 {
		state, delay = Failed, open
	}
	s.enter(state)
	s.log.Info("plugin will be started again", "state", string(state), "after", delay.String())
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *slot) enter(state State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.since = state, time.Now()
}

func (s *slot) serving(g *generation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = g
}

func (s *slot) failed(err error) {
	s.mu.Lock()
	s.lastErr = err.Error()
	s.mu.Unlock()
	s.log.Error("plugin failed", "error", err)
}

func (s *slot) count(reason string) {
	s.metrics.restarts[reason].Inc()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restarts++
}

func (s *slot) status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{
		Kind: s.spec.Kind, Name: s.spec.Name, State: s.state, Since: s.since,
		SHA256: s.stored.SHA256, Restarts: s.restarts, LastError: s.lastErr,
	}
	if g := s.now; g != nil {
		st.Version, st.Generation, st.PID, st.StartedAt = g.version, g.number, g.proc.Pid(), g.since
		st.Handlers, st.InFlight, st.Window = g.handlers, int(g.leases.Load()), g.window
	}
	return st
}
