package health

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tasker-systems/tasker-host/host/internal/opstate"
)

// Config are a monitor's settings. Zero values stand for the defaults.
type Config struct {
	// Interval is the time between looks; default 5s.
	Interval time.Duration
	// Timeout bounds one look of a check; default 2s.
	Timeout time.Duration
	// RaiseAfter is how many bad looks in a row raise an event; default 2.
	RaiseAfter int
	// StartupShare scales thresholds while the host is starting; default 0.5.
	StartupShare float64
}

func (c Config) withDefaults() Config {
	c.Interval = cmp.Or(c.Interval, 5*time.Second)
	c.Timeout = cmp.Or(c.Timeout, 2*time.Second)
	c.RaiseAfter = cmp.Or(c.RaiseAfter, 2)
	c.StartupShare = cmp.Or(c.StartupShare, 0.5)
	return c
}

const (
	// staleAfter is the maximum age of a report, in intervals.
	staleAfter = 3
	// keptEvents is how many of the latest events are kept.
	keptEvents = 200
)

// State provides the host's operational state, and reports changes.
type State interface {
	State() opstate.State
	Watch() (opstate.Change, <-chan struct{})
}

// Monitor looks at its checks at intervals. It is safe for concurrent use.
type Monitor struct {
	cfg     Config
	checks  []*watched
	state   State
	sink    Sink
	now     func() time.Time
	metrics *metrics

	mu     sync.Mutex // guards the following
	report Report
	events []Event // the last keptEvents, oldest first
}

// watched is a check and what it has found. Only the monitor's loop uses it, except for
// busy.
type watched struct {
	Check
	standing map[string]*standing // by full name
	found    []Named              // in the last look
	looked   time.Time            // when that was
	busy     chan struct{}        // holds a token while a look is in progress
}

// standing is what is known about one named finding.
type standing struct {
	Item
	raised Status // what the last event reported
	quiet  bool   // the last event reported an expected status
	bad    int    // bad looks in a row
	order  int
}

// New returns a monitor, to be started with Run. Names of checks must be unique.
func New(cfg Config, checks []Check, state State, sink Sink, reg prometheus.Registerer, now func() time.Time) (*Monitor, error) {
	m := &Monitor{cfg: cfg.withDefaults(), state: state, sink: sink, now: now}
	var names []string
	for _, c := range checks {
		if c.Name == "" || c.Look == nil || slices.Contains(names, c.Name) {
			return nil, fmt.Errorf("make health monitor: check %q is unnamed, empty or duplicate", c.Name)
		}
		names = append(names, c.Name)
		m.checks = append(m.checks, &watched{Check: c, standing: map[string]*standing{}, busy: make(chan struct{}, 1)})
	}
	m.metrics = newMetrics(reg, names)
	return m, nil
}

// Run performs looks until ctx ends: at once, at intervals, and whenever the operational
// state changes, since what is expected changes with it. It is meant for a
// [lifecycle.Runner].
func (m *Monitor) Run(ctx context.Context) error {
	tick := time.NewTicker(m.cfg.Interval)
	defer tick.Stop()
	for inTurn := true; ; {
		_, changed := m.state.Watch() // before the look: a change during it causes another look
		m.look(ctx, inTurn)
		select {
		case <-tick.C:
			inTurn = true
		case <-changed:
			inTurn = false
		case <-ctx.Done():
			return nil
		}
	}
}

// Look asks all checks once, concurrently, and reports changes to the sink. It returns
// what it found, or the previous report if ctx ends meanwhile.
func (m *Monitor) Look(ctx context.Context) Report { return m.look(ctx, true) }

// look out of turn does not count as another bad look: a check that is bad twice within a
// moment proves no more than one that is bad once.
func (m *Monitor) look(ctx context.Context, inTurn bool) Report {
	state := m.state.State()
	if state == opstate.Stopped {
		return m.keep(Report{At: m.now(), State: state, Status: Unknown}, nil)
	}
	view := View{State: state, Share: 1}
	if state == opstate.Startup {
		view.Share = m.cfg.StartupShare
	}
	began := m.now()
	var asked sync.WaitGroup
	for _, c := range m.checks {
		if c.Every > 0 && !c.looked.IsZero() && began.Sub(c.looked) < c.Every {
			continue
		}
		c.looked = began
		asked.Go(func() { c.found = c.ask(ctx, view, cmp.Or(c.Timeout, m.cfg.Timeout)) })
	}
	asked.Wait()
	if ctx.Err() != nil { // it was cut short: do not report as bad what it has not seen
		return m.Report()
	}
	report := Report{At: m.now(), State: state, Status: Healthy}
	var events []Event
	for _, c := range m.checks {
		items, told := m.judge(c, look{at: report.At, state: state, fresh: c.looked == began, inTurn: inTurn})
		report.Items = append(report.Items, items...)
		events = append(events, told...)
	}
	for _, item := range report.Items {
		if !item.Expected && item.Status.Worse(report.Status) {
			report.Status = item.Status
		}
	}
	m.keep(report, events)
	m.metrics.note(report, events)
	if len(events) > 0 {
		m.sink.Report(ctx, events)
	}
	return report
}

// errStillLooking is returned while the previous look has not ended.
var errStillLooking = errors.New("the previous look has not ended")

// ask performs one look of at most timeout. A look that hangs is abandoned, and the check
// stays unknown until it returns.
func (c *watched) ask(ctx context.Context, v View, timeout time.Duration) []Named {
	unknown := func(why error) []Named {
		return []Named{{Finding: Finding{Status: Unknown, Message: "could not be checked: " + why.Error()}}}
	}
	select {
	case c.busy <- struct{}{}:
	default:
		return unknown(errStillLooking)
	}
	bounded, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %s", timeout))
	answer := make(chan []Named, 1)
	go func() {
		defer cancel()
		defer func() { <-c.busy }()
		defer func() {
			if p := recover(); p != nil {
				answer <- unknown(fmt.Errorf("panic: %v", p))
			}
		}()
		answer <- c.Look(bounded, v)
	}()
	select {
	case named := <-answer:
		return named
	case <-bounded.Done():
		select {
		case named := <-answer: // it answered just in time
			return named
		default:
			return unknown(context.Cause(bounded))
		}
	}
}

// look says when and in which state checks were made.
type look struct {
	at     time.Time
	state  opstate.State
	fresh  bool // this check was asked; else its last answer still counts
	inTurn bool // at the interval; else in between
}

// judge compares what a check found with what was known before. A finding that is not new
// does not count as another bad look.
func (m *Monitor) judge(c *watched, l look) (items []Item, events []Event) {
	seen := map[string]bool{}
	for order, n := range c.found {
		name := c.Name
		if n.Name != "" {
			name += "/" + n.Name
		}
		if seen[name] {
			continue
		}
		seen[name] = true
		s := c.standing[name]
		if s == nil {
			s = &standing{Item: Item{Name: name}, raised: Healthy}
			c.standing[name] = s
		}
		s.order = order
		s.Expected = n.Status != Healthy && expected(l.state, c.Work)
		if !l.fresh {
			continue
		}
		if event, changed := s.update(n.Finding, l, m.cfg.RaiseAfter); changed {
			events = append(events, event)
		}
	}
	for name, s := range c.standing {
		if !seen[name] { // it is no longer checked
			delete(c.standing, name)
			continue
		}
		items = append(items, s.Item)
	}
	slices.SortFunc(items, func(a, b Item) int {
		return cmp.Compare(c.standing[a.Name].order, c.standing[b.Name].order)
	})
	return items, events
}

// update records a finding. It returns an event if the status differs from what the last
// event reported and has held long enough.
func (s *standing) update(f Finding, l look, raiseAfter int) (Event, bool) {
	if f.Status.rank() >= len(Statuses) {
		f = Finding{Status: Unknown, Message: fmt.Sprintf("the check answered with %.40q, which is not a status", string(f.Status))}
	}
	if f.Status != s.Status {
		s.Status, s.Since = f.Status, l.at
	}
	s.Message = f.Message
	switch {
	case s.Status == Healthy:
		s.bad = 0
	case l.inTurn || s.bad == 0:
		s.bad++
	}
	told := s.Status == s.raised && (s.Expected || !s.quiet) // what was expected then may not be now
	if told || s.Status != Healthy && s.bad < raiseAfter {
		return Event{}, false
	}
	e := Event{At: l.at, Check: s.Name, From: s.raised, To: s.Status, Severity: severity(s.Status), State: l.state, Message: s.Message}
	if s.Expected {
		e.Severity = Info
	}
	s.raised, s.quiet = s.Status, s.Expected
	return e, true
}

// expected reports whether the operational state explains a bad status.
func expected(state opstate.State, work bool) bool {
	switch state {
	case opstate.Startup, opstate.GracefulShutdown:
		return work
	case opstate.Emergency, opstate.Stopped:
		return true
	default:
		return false
	}
}

func severity(s Status) Severity {
	switch s {
	case Healthy:
		return Info
	case Unhealthy:
		return Critical
	default:
		return Warning
	}
}

// keep stores a report and its events for later queries.
func (m *Monitor) keep(r Report, events []Event) Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.report = r
	m.events = append(m.events, events...)
	if n := len(m.events) - keptEvents; n > 0 {
		m.events = slices.Delete(m.events, 0, n)
	}
	return r
}

// Report returns what the last look found. If that is too long ago, everything is
// unknown, because the monitor is stuck.
func (m *Monitor) Report() Report {
	m.mu.Lock()
	r := m.report
	m.mu.Unlock()
	r.Items = slices.Clone(r.Items)
	if age := m.now().Sub(r.At); !r.At.IsZero() && age > staleAfter*m.cfg.Interval {
		r.Status = Unknown
		for i := range r.Items {
			r.Items[i].Status = Unknown
			r.Items[i].Message = fmt.Sprintf("was last checked %s ago", age.Round(time.Second))
		}
	}
	if r.At.IsZero() {
		r.State, r.Status = m.state.State(), Unknown
	}
	return r
}

// Events returns up to most of the latest events, newest first.
func (m *Monitor) Events(most int) []Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	events := slices.Clone(m.events)
	slices.Reverse(events)
	return events[:min(most, len(events))]
}
