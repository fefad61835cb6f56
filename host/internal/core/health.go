package core

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/tasker-systems/tasker-host/host/internal/breaker"
	"github.com/tasker-systems/tasker-host/host/internal/coordinator"
	"github.com/tasker-systems/tasker-host/host/internal/health"
	"github.com/tasker-systems/tasker-host/host/internal/lifecycle"
	"github.com/tasker-systems/tasker-host/host/internal/opstate"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/reporters"
	sdkhealth "github.com/tasker-systems/tasker-host/sdk/health"
)

// The thresholds from which a check is no longer healthy.
const (
	strainedPool  = time.Minute // at its maximum while the backlog grows
	deepQueue     = 100_000     // waiting messages
	countedAside  = 1000        // dead letters counted; more are no worse
	bloatedQueue  = 1_000_000   // dead rows
	busyPool      = 0.85        // fraction of the connections in use
	drainSlack    = 15 * time.Second
	seldom        = 30 * time.Second // between looks that query the database
	resting       = 10 * time.Minute // likewise, while the host rests and the last look found nothing wrong
	unsweptAllows = 2                // sweep intervals within which the steps of a dead host should have moved
	checkEvery    = 10 * time.Second // between questions to plugins
	checkTimeout  = 3 * time.Second  // for an answer: the other checks wait for it
)

// buildHealth creates the monitor of the parts that have been built.
func (c *Core) buildHealth() error {
	log := c.log.Named("health")
	c.reporters = reporters.New(c.plugins, hostName(), c.registry, log)
	monitor, err := health.New(c.opts.health, c.healthChecks(), c.state, sinks{healthLog{log}, &healthJournal{store: c.Store, log: log}, c.reporters}, c.registry, time.Now)
	if err != nil {
		return err
	}
	c.health = monitor
	died := func(err error) { log.Error("the health checks have stopped", "error", err) }
	c.looking = lifecycle.NewGroup(
		lifecycle.Member{Name: "reporters", Service: lifecycle.NewRunner("reporters", c.reporters.Run, died)},
		lifecycle.Member{Name: "monitor", Service: lifecycle.NewRunner("health monitor", monitor.Run, died)},
	)
	return nil
}

func (c *Core) startHealth(ctx context.Context) error { return c.looking.Start(ctx) }

func (c *Core) stopHealth(ctx context.Context) error { return c.looking.Stop(ctx) }

func (c *Core) healthChecks() []health.Check {
	seldom := cmp.Or(c.opts.health.Interval, seldom)
	return []health.Check{
		{Name: "database", Look: health.One(c.lookAtDatabase)},
		{Name: "connections", Work: true, Look: health.One(c.lookAtConnections)},
		{Name: "loops", Look: health.One(c.lookAtLoops)},
		{Name: "pools", Work: true, Look: c.lookAtPools},
		{Name: "breakers", Look: health.One(c.lookAtBreakers)},
		{Name: "plugins", Work: true, Look: c.lookAtPlugins},
		{Name: "reported", Every: cmp.Or(c.opts.health.Interval, checkEvery), Timeout: checkTimeout, Look: c.reporters.Look},
		{Name: "queues", Every: seldom, Look: unlessResting(c.rests, c.lookAtQueues)},
		{Name: "hosts", Every: seldom, Look: unlessResting(c.rests, health.One(c.lookAtHosts))},
		{Name: "finalization_claims", Every: seldom, Look: unlessResting(c.rests, health.One(c.lookAtClaims))},
		{Name: "drain", Look: health.One(c.lookAtDrain)},
	}
}

func (c *Core) rests() bool { return c.Engine.Resting() }

// unlessResting wraps a look so that it is rarely taken while the host rests, if the last
// one found nothing wrong: whatever it could find then was already there before.
func unlessResting(rests func() bool, look func(context.Context, health.View) []health.Named) func(context.Context, health.View) []health.Named {
	var last []health.Named
	var looked time.Time
	return func(ctx context.Context, v health.View) []health.Named {
		well := !slices.ContainsFunc(last, func(n health.Named) bool { return n.Status != health.Healthy })
		if rests() && well && !looked.IsZero() && time.Since(looked) < resting {
			return last
		}
		last, looked = look(ctx, v), time.Now()
		return last
	}
}

func found(s health.Status, format string, args ...any) health.Finding {
	return health.Finding{Status: s, Message: fmt.Sprintf(format, args...)}
}

var fine = health.Finding{Status: health.Healthy}

// lookAtDatabase relies on the heartbeats, which happen anyway; before the first one it
// queries the database.
func (c *Core) lookAtDatabase(ctx context.Context, _ health.View) health.Finding {
	if c.Engine.HostID() == 0 {
		if err := c.pool.Ping(ctx); err != nil {
			return found(health.Unhealthy, "it does not answer: %v", err)
		}
		return fine
	}
	age, every := time.Since(c.Engine.LastHeartbeat()), max(c.inForce().Orchestration.Heartbeat, c.Engine.BeatEvery())
	if age > 2*every {
		return found(health.Unhealthy, "it has not answered a heartbeat for %s", age.Round(100*time.Millisecond))
	}
	return fine
}

func (c *Core) lookAtConnections(_ context.Context, v health.View) health.Finding {
	s := c.pool.Stat()
	used, most := s.AcquiredConns(), s.MaxConns()
	if float64(used) >= min(1, busyPool/v.Share)*float64(most) {
		return found(health.Degraded, "%d of %d connections of this host are in use", used, most)
	}
	return fine
}

// lookAtLoops looks for a loop of the engine that hangs: only a restart of the process
// helps then.
func (c *Core) lookAtLoops(context.Context, health.View) health.Finding {
	var stuck []string
	for _, l := range c.Engine.Loops() {
		if l.Stuck > 0 {
			stuck = append(stuck, fmt.Sprintf("%s is overdue by %s", l.Name, l.Stuck.Round(time.Second)))
		}
	}
	if len(stuck) > 0 {
		return found(health.Unhealthy, "%s", strings.Join(stuck, ", "))
	}
	return fine
}

func (c *Core) lookAtPlugins(context.Context, health.View) []health.Named {
	var all []health.Named
	for _, s := range c.plugins.Status() {
		n := health.Named{Name: s.Name, Finding: fine}
		if s.State != pluginhost.Serving {
			n.Finding = found(health.Degraded, "it is %s: %s", s.State, firstLine(s.LastError))
			if s.Required {
				n.Status = health.Unhealthy
			}
		}
		all = append(all, n)
	}
	return all
}

// lookAtPools reports what keeps pools of executors from doing their work.
func (c *Core) lookAtPools(_ context.Context, v health.View) []health.Named {
	var all []health.Named
	for _, s := range c.pools.Pools() {
		all = append(all, health.Named{Name: strings.ReplaceAll(s.Name, ".", "/"), Finding: poolFinding(&s, time.Now(), v.Share)})
	}
	return all
}

// poolFindings returns the findings for people who ask now.
func (c *Core) poolFindings() []health.Named {
	return c.lookAtPools(context.Background(), health.View{State: c.state.State(), Share: 1})
}

func poolFinding(s *coordinator.Status, now time.Time, share float64) health.Finding {
	strained := now.Sub(s.StrainedSince)
	switch {
	case s.Lost > 0:
		return found(health.Degraded, "executors that are stuck and were replaced: %d", s.Lost)
	case s.Pause != nil && s.Waiting > 0:
		return found(health.Degraded, "%s, and %d pieces of work wait in this host", pauseText(s.Pause), s.Waiting)
	case s.Pause != nil:
		return found(health.Healthy, "%s", pauseText(s.Pause))
	case !s.StrainedSince.IsZero() && float64(strained) >= float64(strainedPool)/share:
		limit := fmt.Sprintf("its maximum is %d", s.Max)
		if s.Useful > 0 && s.Useful < s.Max {
			limit = fmt.Sprintf("more than %d would not help, as its plugins take no more steps at once", max(s.Useful, s.Min))
		}
		return found(health.Degraded, "it has been at its limit for %s (%s), and its backlog has grown to %d",
			strained.Round(time.Second), limit, s.Backlog)
	case s.Problem != "":
		return found(health.Degraded, "its size is held: %s", firstLine(s.Problem))
	default:
		return fine
	}
}

func pauseText(p *coordinator.Pause) string {
	text := fmt.Sprintf("paused since %s by %s", p.Since.UTC().Format(time.RFC3339), p.By)
	if p.Reason != "" {
		text += ": " + p.Reason
	}
	return text
}

// lookAtBreakers reports what the host currently does not call. That the database does
// not answer is reported by another check.
func (c *Core) lookAtBreakers(context.Context, health.View) health.Finding {
	var open []string
	for _, b := range c.breakers.Status() {
		if b.State == breaker.Open || b.State == breaker.ForcedOpen {
			open = append(open, fmt.Sprintf("%s is %s (%s)", b.Name, b.State, b.Reason))
		}
	}
	if len(open) > 0 {
		return found(health.Degraded, "%s", strings.Join(open, ", "))
	}
	return fine
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// lookAtQueues reads the server's statistics, but no message.
func (c *Core) lookAtQueues(ctx context.Context, v health.View) []health.Named {
	depths, err := c.Store.QueueDepths(ctx)
	if err != nil {
		return []health.Named{{Finding: found(health.Unknown, "could not be read: %v", err)}}
	}
	aside, err := c.Store.MessagesSetAside(ctx, countedAside)
	if err != nil {
		return []health.Named{{Finding: found(health.Unknown, "could not be read: %v", err)}}
	}
	c.aside.Set(float64(aside))
	all := make([]health.Named, len(depths))
	var waiting int64
	for i, d := range depths {
		waiting += d.Live
		all[i] = health.Named{Name: d.Queue, Finding: fine}
		switch {
		case float64(d.Live) >= deepQueue/v.Share:
			all[i].Finding = found(health.Degraded, "about %d messages wait", d.Live)
		case d.Dead >= bloatedQueue:
			all[i].Finding = found(health.Degraded, "about %d dead rows wait for vacuum", d.Dead)
		}
	}
	c.backlog.Set(float64(waiting))
	return all
}

// lookAtHosts looks for dead hosts whose steps nobody has taken over.
func (c *Core) lookAtHosts(ctx context.Context, _ health.View) health.Finding {
	hosts, err := c.Store.HostFacts(ctx)
	if err != nil {
		return found(health.Unknown, "could not be read: %v", err)
	}
	var left []string
	for i := range hosts {
		h := &hosts[i]
		if !h.Alive() && !h.Swept && -h.LeaseLeft > unsweptAllows*c.inForce().Orchestration.SweepInterval {
			left = append(left, h.Name)
		}
	}
	if len(left) > 0 {
		return found(health.Degraded, "gone, with steps not yet given back: %s", strings.Join(left, ", "))
	}
	return fine
}

func (c *Core) lookAtClaims(ctx context.Context, _ health.View) health.Finding {
	h, err := c.Store.ClaimHealth(ctx)
	if err != nil {
		return found(health.Unknown, "could not be read: %v", err)
	}
	text := fmt.Sprintf("%d expired, %d critical, %d old; the oldest is %s old", h.Expired, h.Critical, h.Warning, h.Oldest.Round(time.Second))
	switch h.Level {
	case "critical":
		return found(health.Unhealthy, "%s", text)
	case "warning", "notice":
		return found(health.Degraded, "%s", text)
	default:
		return fine
	}
}

// lookAtDrain looks for a shutdown that takes longer than allowed: it no longer goes as
// planned, so it raises an alarm.
func (c *Core) lookAtDrain(_ context.Context, v health.View) health.Finding {
	if v.State != opstate.GracefulShutdown {
		return fine
	}
	change, _ := c.state.Watch()
	o := c.inForce().Orchestration
	if over := time.Since(change.At) - o.DrainTimeout - o.EmergencyTimeout - drainSlack; over > 0 {
		return found(health.Unhealthy, "the shutdown is overdue by %s", over.Round(time.Second))
	}
	return fine
}

// sinks reports to each of several sinks.
type sinks []health.Sink

// Report implements [health.Sink].
func (s sinks) Report(ctx context.Context, events []health.Event) {
	for _, one := range s {
		one.Report(ctx, events)
	}
}

// tellState reports a change of the operational state to the reporters.
func (c *Core) tellState(change opstate.Change) {
	severity := sdkhealth.Info
	if change.To == opstate.Emergency {
		severity = sdkhealth.Warning
	}
	c.reporters.Tell(sdkhealth.Event{
		Kind: sdkhealth.KindHost, Severity: severity, Subject: hostName(), From: string(change.From), To: string(change.To),
		Time: change.At, Message: change.Reason, State: string(change.To),
	})
}

// healthLog writes events to the log.
type healthLog struct{ log hclog.Logger }

// Report implements [health.Sink].
func (l healthLog) Report(_ context.Context, events []health.Event) {
	for _, e := range events {
		level := hclog.Info
		switch {
		case e.Severity == health.Critical && e.State != opstate.Emergency:
			level = hclog.Error
		case e.Severity == health.Warning:
			level = hclog.Warn
		}
		l.log.Log(level, "health", "check", e.Check, "from", e.From, "to", e.To, "severity", e.Severity, "state", e.State, "message", e.Message)
	}
}
