package pluginhost

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/journal"
)

const (
	missesAllowed = 3         // consecutive health checks
	keepInterval  = time.Hour // between updates that mark the stored executable as used
	remembered    = 8         // ended generations that are still shown
)

// slot keeps one configured plugin alive, and changes what it runs. Three kinds of
// goroutines work on it, and mu guards what they share:
//
//   - run, the supervisor, starts what should serve but does not;
//   - guard watches one generation and cleans up after it;
//   - the holder of op changes what should serve: a swap, a rollback.
type slot struct {
	host    *Host
	id      SlotID
	label   string // in logs, metrics and messages
	log     hclog.Logger
	metrics *pluginMetrics
	op      chan struct{} // one operation at a time

	// Set by reset, before run.
	ctx     context.Context // ends when the slot does
	end     context.CancelFunc
	bound   context.Context // bounds the last calls; set before ctx ends
	life    *life
	first   chan error    // result of the first launch
	lacking chan struct{} // level-triggered: what should serve does not
	tasks   sync.WaitGroup
	ended   chan struct{} // closed when nothing of it is left

	mu         sync.Mutex // guards the fields below
	spec       Spec
	want       *release    // what should serve; nil: not taken in yet
	good       *release    // what served before
	primary    *generation // serves; nil: none
	candidate  *generation // being rolled out; nil: none
	standby    *generation // served before and is kept warm; nil: none
	shown      []*generation
	state      State
	since      time.Time
	restarts   int
	lastErr    string
	used       time.Duration            // processor time of the processes that have ended
	usedAtMost time.Duration            // the most reported so far: the metric never decreases
	breakers   map[string]*crashBreaker // by digest
	attempts   map[string]tries         // by release: failed starts
	trial      trial
	removed    chan struct{} // set when it is removed for good, and then closed; nil: it is not
}

func newSlot(h *Host, spec Spec) *slot {
	id := spec.ID()
	label := labelOf(id)
	return &slot{
		host: h, id: id, label: label, spec: spec, log: h.log.With("plugin", label), metrics: h.metrics.of(label),
		op: make(chan struct{}, 1), state: Stopped, since: time.Now(),
	}
}

// reset prepares the slot for a life of the host. A new life takes in the executable
// again.
func (s *slot) reset(l *life) {
	s.life, s.first, s.lacking, s.ended = l, make(chan error, 1), make(chan struct{}, 1), make(chan struct{})
	s.ctx, s.end = context.WithCancel(l.ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.breakers, s.attempts, s.trial = make(map[string]*crashBreaker), make(map[string]tries), trial{}
	s.want, s.good, s.restarts, s.lastErr, s.shown, s.bound = nil, nil, 0, "", nil, nil
}

// run keeps what should serve serving until the slot ends and everything in it has
// drained.
func (s *slot) run() {
	defer s.windUp()
	for s.ctx.Err() == nil {
		if !s.lacks() {
			s.report(nil)
			select {
			case <-s.lacking:
				if s.lacks() && !s.fallBack() && !s.rest() { // something has crashed
					return
				}
			case <-s.ctx.Done():
			}
			continue
		}
		err := s.revive(s.ctx)
		s.report(err)
		if err == nil || s.ctx.Err() != nil {
			continue
		}
		s.failed(err)
		s.count(restartFailed)
		if !s.fallBack() && !s.rest() {
			return
		}
	}
}

// windUp ends the slot when everything in it has drained. A change in progress ends
// first, because its context has ended: what it was starting is gone by then or is one of
// the draining generations, and nothing is left for other cleaners.
func (s *slot) windUp() {
	s.end()
	s.op <- struct{}{}
	defer func() { <-s.op }()
	s.drainAll()
	s.tasks.Wait()
	s.enter(Stopped)
	close(s.ended)
}

// lacks reports whether something other than what should serve does, or nothing.
func (s *slot) lacks() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.primary == nil || !s.primary.runs.same(s.want)
}

// wants returns what should serve; nil: it was not taken in yet.
func (s *slot) wants() *release {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.want
}

// breaker returns the crash-loop breaker of a release.
func (s *slot) breaker(r *release) *crashBreaker {
	key := ""
	if r != nil {
		key = r.stored.SHA256
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.breakers[key] == nil {
		s.breakers[key] = newCrashBreaker(s.label, s.host.cfg.Restart, s.log)
	}
	return s.breakers[key]
}

// settings returns the current settings: those that need no new process may differ from
// those of the processes.
func (s *slot) settings() Spec {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.spec
}

// report gives the result of the first launch to Start.
func (s *slot) report(err error) {
	select {
	case s.first <- err:
	default:
	}
}

// revive starts what should serve and routes calls to it. It does not wait for the
// journal: calls come first.
func (s *slot) revive(ctx context.Context) error {
	s.mu.Lock()
	if s.primary == nil {
		s.state, s.since = Starting, time.Now()
	}
	s.mu.Unlock()
	want, err := s.wanted(ctx)
	if err != nil {
		return err
	}
	g, err := s.bring(ctx, want, journal.ByHost, "started")
	if err != nil {
		return err
	}
	err = s.host.commit([]promotion{{slot: s, to: g, keep: true, needed: s.missing(want)}}, nil, journal.ByHost, "it is ready", s.host.journal.Later)
	if err != nil {
		s.finish(g, ReasonStopping, "never routed")
	}
	if errors.Is(err, errNotNeeded) {
		return nil
	}
	return err
}

// missing returns a function that reports whether a release should serve but does not.
func (s *slot) missing(r *release) func() bool {
	return func() bool { return r.same(s.want) && (s.primary == nil || !r.same(s.primary.runs)) }
}

// rest waits until the plugin may be restarted; false means that the slot ends.
func (s *slot) rest() bool {
	breaker := s.breaker(s.wants())
	state, delay := BackingOff, breaker.delay()
	if open := breaker.openFor(); open > 0 {
		state, delay = Failed, open
	}
	s.mu.Lock()
	if s.primary == nil {
		s.state, s.since = state, time.Now()
	}
	s.mu.Unlock()
	s.log.Info("plugin will be restarted", "state", string(state), "after", delay.String())
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return true
		case <-s.lacking: // an operation may have removed the need
			if !s.lacks() {
				return true
			}
		case <-s.ctx.Done():
			return false
		}
	}
}

// operate runs one change of what the slot runs, exclusively.
func (s *slot) operate(ctx context.Context, change func(context.Context) error) error {
	if s.host.account.Load() == nil {
		return ErrStopping // it has not started
	}
	select {
	case s.op <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.ctx.Done():
		return ErrStopping
	}
	defer func() { <-s.op }()
	if s.ctx.Err() != nil {
		return ErrStopping
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.ctx, func() { cancel(ErrStopping) })()
	return change(ctx)
}

// move moves a generation to another phase and returns the event to record. The caller
// holds mu.
func (s *slot) move(g *generation, to journal.Phase, actor journal.Actor, reason string) journal.Event {
	if !journal.Can(g.phase, to) {
		s.log.Error("illegal change of a generation", "generation", g.number, "from", string(g.phase), "to", string(to))
	}
	e := s.event(g, to, actor, reason)
	g.phase, g.moved, g.reason = to, e.At, reason
	return e
}

// event describes a transition that a generation is about to make. A generation that left
// the route table because it ended left its phase at that time, however late the move is
// made.
func (s *slot) event(g *generation, to journal.Phase, actor journal.Actor, reason string) journal.Event {
	at := time.Now()
	if g.lost && g.phase.Routed() && g.lostAt.After(g.moved) {
		at = g.lostAt
	}
	e := journal.Event{
		At: at, Slot: s.id, Generation: g.number, From: g.phase, To: to, Actor: actor, Reason: reason,
		Version: g.version, SDKVersion: g.sdk,
	}
	if to == journal.Canary {
		e.Weight = g.weight
	}
	if g.runs != nil {
		e.SHA256, e.Config = g.runs.stored.SHA256, g.runs.config
	}
	return e
}

// note moves a generation on the host's own initiative, and has that recorded.
func (s *slot) note(g *generation, to journal.Phase, reason string) {
	s.mu.Lock()
	e := s.move(g, to, journal.ByHost, reason)
	s.mu.Unlock()
	s.host.journal.Later(e)
}

// show keeps a generation visible in the status. The caller holds mu.
func (s *slot) show(g *generation) {
	s.shown = append(s.shown, g)
	for i := 0; len(s.shown) > remembered && i < len(s.shown); {
		if s.shown[i].phase.Over() {
			s.shown = append(s.shown[:i], s.shown[i+1:]...)
		} else {
			i++
		}
	}
}

func (s *slot) enter(state State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.since = state, time.Now()
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

// stop ends the slot: its calls have until bound ends.
func (s *slot) stop(bound context.Context) {
	s.mu.Lock()
	s.bound = bound
	s.mu.Unlock()
	s.end()
}

// drainAll ends all generations because the slot ends.
func (s *slot) drainAll() {
	s.mu.Lock()
	s.state, s.since = Draining, time.Now()
	bound := s.bound
	all := make([]*generation, 0, len(s.shown))
	for _, g := range s.shown {
		switch g.phase {
		case journal.Discovered, journal.Verified, journal.Starting:
			// A guard is launching it. It has no process that could be asked to end: the
			// launch fails, and cleans up.
		default:
			if !g.phase.Over() {
				all = append(all, g)
			}
		}
	}
	s.mu.Unlock()
	if bound == nil {
		var cancel context.CancelFunc
		bound, cancel = context.WithCancel(context.Background())
		cancel()
	}
	var ends sync.WaitGroup
	for _, g := range all {
		ends.Go(func() {
			s.leave(g)
			cut := g.wait(bound)
			left := s.finish(g, ReasonStopping, "the host shuts down")
			s.life.failed(cut, left)
			s.log.Info("plugin stopped", "generation", g.number, "exit", g.proc.Exit().String(), "calls_cut", cut != nil)
		})
	}
	ends.Wait()
}

// leave takes a generation out of service.
func (s *slot) leave(g *generation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.host.router.remove(g, nil)
	s.forget(g)
	switch g.phase {
	case journal.Active, journal.Canary, journal.Unhealthy:
		s.host.journal.Later(s.move(g, journal.Draining, journal.ByHost, "the slot ends"))
	}
}

// forget clears the slot's references to a generation. The caller holds mu.
func (s *slot) forget(g *generation) {
	for _, place := range []**generation{&s.primary, &s.candidate, &s.standby} {
		if *place == g {
			*place = nil
		}
	}
}

// finish ends the process of a generation that is out of service, once; a serving one is
// left alone. Calls that have not ended in it are released with the reason.
func (s *slot) finish(g *generation, reason, message string) error {
	s.mu.Lock()
	mine := !g.cleanup && !g.phase.Over() && g != s.primary // it has just got the calls back
	if mine {
		g.cleanup = true
		s.forget(g)
		s.host.journal.Later(s.move(g, journal.Stopping, journal.ByHost, message))
	}
	s.mu.Unlock()
	if !mine {
		return nil
	}
	left := g.end(reason, message)
	s.host.live.remove(g)
	s.over(g, journal.Stopped, message, time.Now())
	if left != nil {
		s.log.Error("plugin process not stopped cleanly", "generation", g.number, "error", left)
	}
	return left
}

// over records how the process of a generation ended.
func (s *slot) over(g *generation, to journal.Phase, reason string, at time.Time) {
	exit := g.proc.Exit()
	s.mu.Lock()
	if at.Before(g.moved) {
		at = g.moved // somebody moved it meanwhile without knowing
	}
	e := s.move(g, to, journal.ByHost, reason)
	s.used += exit.CPU
	s.mu.Unlock()
	e.At = at
	e.End = &journal.End{ExitCode: exit.Code, Signal: int(exit.Signal), MaxRSS: exit.MaxRSS, CPU: exit.CPU}
	s.host.journal.Later(e)
}
