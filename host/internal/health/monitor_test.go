package health_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/health"
	"github.com/tasker-systems/tasker-host/host/internal/opstate"
	"github.com/tasker-systems/tasker-host/internal/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// world is what a monitor under test sees.
type world struct {
	mu      sync.Mutex
	state   opstate.State
	changed chan struct{}
	found   map[string]health.Finding
	events  []health.Event
}

func (w *world) State() opstate.State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

func (w *world) enter(s opstate.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = s
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *world) Watch() (opstate.Change, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return opstate.Change{To: w.state}, w.changed
}

func (w *world) set(check string, s health.Status) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.found[check] = health.Finding{Status: s, Message: "it is " + string(s)}
}

func (w *world) Report(_ context.Context, events []health.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, events...)
}

// told returns the severities of the events since the last call.
func (w *world) told() []health.Severity {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []health.Severity
	for _, e := range w.events {
		all = append(all, e.Severity)
	}
	w.events = nil
	return all
}

func (w *world) check(name string, work bool) health.Check {
	w.set(name, health.Healthy)
	return health.Check{Name: name, Work: work, Look: health.One(func(context.Context, health.View) health.Finding {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.found[name]
	})}
}

func newWorld(state opstate.State) *world {
	return &world{state: state, changed: make(chan struct{}), found: map[string]health.Finding{}}
}

func (w *world) monitor(t *testing.T, checks ...health.Check) (*health.Monitor, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	m, err := health.New(health.Config{}, checks, w, w, reg, time.Now)
	require.NoError(t, err)
	return m, reg
}

// A look that is cut short by the end of the monitor does not count as bad.
func TestALookThatIsCutShortTellsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(opstate.GracefulShutdown)
	hangs := false
	check := w.check("database", false)
	look := check.Look
	check.Look = func(ctx context.Context, v health.View) []health.Named {
		if hangs {
			<-ctx.Done()
		}
		return look(ctx, v)
	}
	m, _ := w.monitor(t, check)
	before := m.Look(t.Context())
	require.Equal(t, health.Healthy, before.Status)
	hangs = true
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.Equal(t, before, m.Look(ctx))
	}
	require.Equal(t, before, m.Report())
	require.Empty(t, w.told())
}

func TestEventsComeAfterTwoBadLooksAndOnceWellAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(opstate.Normal)
	m, _ := w.monitor(t, w.check("database", false))
	look := func() []health.Severity { m.Look(t.Context()); return w.told() }

	require.Empty(t, look())
	w.set("database", health.Unhealthy)
	require.Empty(t, look(), "one bad look is not reported")
	require.Equal(t, []health.Severity{health.Critical}, look())
	require.Empty(t, look(), "told once")
	w.set("database", health.Unknown)
	require.Equal(t, []health.Severity{health.Warning}, look())
	w.set("database", health.Healthy)
	require.Equal(t, []health.Severity{health.Info}, look())
	w.set("database", health.Degraded)
	look()
	w.set("database", health.Healthy)
	require.Empty(t, look(), "a bad look that was not reported needs no all-clear")
	require.Len(t, m.Events(10), 3)
	require.Equal(t, health.Healthy, m.Events(10)[0].To, "the newest first")
}

// What a bad status means, for every state and both kinds of checks.
func TestTheStateSaysWhatABadStatusMeans(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		state  opstate.State
		work   bool
		want   health.Severity
		status health.Status // of the report
	}{
		{opstate.Startup, true, health.Info, health.Healthy},
		{opstate.Startup, false, health.Critical, health.Unhealthy},
		{opstate.Normal, true, health.Critical, health.Unhealthy},
		{opstate.Normal, false, health.Critical, health.Unhealthy},
		{opstate.GracefulShutdown, true, health.Info, health.Healthy},
		{opstate.GracefulShutdown, false, health.Critical, health.Unhealthy},
		{opstate.Emergency, true, health.Info, health.Healthy},
		{opstate.Emergency, false, health.Info, health.Healthy},
	} {
		w := newWorld(c.state)
		m, _ := w.monitor(t, w.check("it", c.work))
		w.set("it", health.Unhealthy)
		m.Look(t.Context())
		report := m.Look(t.Context())
		require.Equal(t, []health.Severity{c.want}, w.told(), "%s work=%t", c.state, c.work)
		require.Equal(t, c.status, report.Status, "%s work=%t", c.state, c.work)
		require.Equal(t, c.want == health.Info, report.Items[0].Expected)
	}
	w := newWorld(opstate.Stopped)
	m, _ := w.monitor(t, w.check("it", false))
	w.set("it", health.Unhealthy)
	m.Look(t.Context())
	require.Equal(t, health.Unknown, m.Look(t.Context()).Status, "a stopped host is not checked")
	require.Empty(t, w.told())
}

func TestWhatWasExpectedWhileStartingRaisesAnAlarmIfItStays(t *testing.T) {
	t.Parallel()
	w := newWorld(opstate.Startup)
	m, _ := w.monitor(t, w.check("plugins", true))
	w.set("plugins", health.Unhealthy)
	for range 3 {
		m.Look(t.Context())
	}
	require.Equal(t, []health.Severity{health.Info}, w.told())
	w.enter(opstate.Normal)
	m.Look(t.Context())
	require.Equal(t, []health.Severity{health.Critical}, w.told())
	m.Look(t.Context())
	require.Empty(t, w.told())
}

func TestACheckThatHangsPanicsOrLiesIsUnknown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(opstate.Normal)
		let := make(chan struct{})
		var looks atomic.Int32
		m, _ := w.monitor(
			t,
			health.Check{Name: "hangs", Look: health.One(func(context.Context, health.View) health.Finding {
				looks.Add(1)
				<-let // ignores its deadline
				return health.Finding{Status: health.Healthy}
			})},
			health.Check{Name: "panics", Look: func(context.Context, health.View) []health.Named { panic("no") }},
			health.Check{Name: "lies", Look: health.One(func(context.Context, health.View) health.Finding { return health.Finding{Status: "splendid"} })},
		)
		report := m.Look(t.Context())
		require.Equal(t, health.Unknown, report.Status)
		require.Contains(t, report.Items[0].Message, "no answer within 2s")
		require.Contains(t, report.Items[1].Message, "panic: no")
		require.Contains(t, report.Items[2].Message, `"splendid"`)
		report = m.Look(t.Context())
		require.Contains(t, report.Items[0].Message, "the previous look has not ended")
		require.EqualValues(t, 1, looks.Load(), "it is not asked again while it hangs")
		close(let)
		synctest.Wait()
		require.Equal(t, health.Healthy, m.Look(t.Context()).Items[0].Status)
	})
}

func TestAReportThatHasGrownOldIsUnknown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(opstate.Normal)
		m, _ := w.monitor(t, w.check("database", false))
		require.Equal(t, health.Unknown, m.Report().Status, "nobody has looked yet")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = m.Run(ctx) }()
		synctest.Wait()
		require.Equal(t, health.Healthy, m.Report().Status)
		cancel()
		<-done
		<-time.After(16 * time.Second)
		require.Equal(t, health.Unknown, m.Report().Status)
		require.Contains(t, m.Report().Items[0].Message, "16s ago")
	})
}

// A report must not show a host as starting until the next look is due. What is bad at
// that moment counts as bad once, however many looks see it.
func TestAChangeOfStateIsSeenAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(opstate.Startup)
		m, _ := w.monitor(t, w.check("plugins", true))
		w.set("plugins", health.Unhealthy)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = m.Run(ctx) }()
		synctest.Wait()
		require.Equal(t, opstate.Startup, m.Report().State)
		require.Equal(t, health.Healthy, m.Report().Status, "expected while it starts")

		<-time.After(time.Second)
		w.enter(opstate.Normal)
		synctest.Wait()
		require.Equal(t, opstate.Normal, m.Report().State)
		require.Equal(t, health.Unhealthy, m.Report().Status)
		require.Empty(t, w.told(), "one regular bad look is not reported")
		w.set("plugins", health.Healthy)
		w.enter(opstate.GracefulShutdown)
		synctest.Wait()
		require.Equal(t, opstate.GracefulShutdown, m.Report().State)
		require.Equal(t, health.Healthy, m.Report().Items[0].Status)
		w.set("plugins", health.Unhealthy)
		w.enter(opstate.Normal)
		<-time.After(4 * time.Second) // the next regular look is due
		synctest.Wait()
		require.Equal(t, []health.Severity{health.Critical}, w.told())
		cancel()
		<-done
	})
}

func TestASeldomCheckIsAskedSeldom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(opstate.Normal)
		looks := 0
		m, _ := w.monitor(t, health.Check{Name: "queues", Every: 30 * time.Second, Look: func(context.Context, health.View) []health.Named {
			looks++
			return []health.Named{
				{Name: "a", Finding: health.Finding{Status: health.Degraded}},
				{Name: "b", Finding: health.Finding{Status: health.Healthy}},
			}
		}})
		for range 10 { // 50 seconds
			require.Len(t, m.Look(t.Context()).Items, 2)
			<-time.After(5 * time.Second)
		}
		require.Equal(t, 2, looks)
		require.Equal(t, []health.Severity{health.Warning}, w.told(), "the second bad look is reported, not the second report of the first")
	})
}

func TestThresholdsAreHalvedWhileTheHostStarts(t *testing.T) {
	t.Parallel()
	w := newWorld(opstate.Startup)
	var share float64
	m, _ := w.monitor(t, health.Check{Name: "pools", Look: health.One(func(_ context.Context, v health.View) health.Finding {
		share = v.Share
		return health.Finding{Status: health.Healthy}
	})})
	m.Look(t.Context())
	require.InDelta(t, 0.5, share, 0)
	w.enter(opstate.Normal)
	m.Look(t.Context())
	require.InDelta(t, 1, share, 0)
}

func TestMetricsHaveTheWorstOfEachCheck(t *testing.T) {
	t.Parallel()
	w := newWorld(opstate.Normal)
	m, reg := w.monitor(t, health.Check{Name: "plugins", Look: func(context.Context, health.View) []health.Named {
		return []health.Named{
			{Name: "a", Finding: health.Finding{Status: health.Degraded}},
			{Name: "b", Finding: health.Finding{Status: health.Unhealthy}},
		}
	}})
	m.Look(t.Context())
	m.Look(t.Context())
	series, highest := gauges(t, reg, "tasker_health_status")
	require.Equal(t, 2, series, "no series for findings below a check")
	require.InDelta(t, 3, highest, 0)
}

// gauges returns how many series a metric has, and the highest value.
func gauges(t *testing.T, reg *prometheus.Registry, name string) (series int, highest float64) {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		series = len(f.GetMetric())
		for _, m := range f.GetMetric() {
			highest = max(highest, m.GetGauge().GetValue())
		}
	}
	return series, highest
}

func TestNamesOfChecksAreUnique(t *testing.T) {
	t.Parallel()
	w := newWorld(opstate.Normal)
	_, err := health.New(health.Config{}, []health.Check{w.check("a", false), w.check("a", true)}, w, w, prometheus.NewRegistry(), time.Now)
	require.ErrorContains(t, err, `check "a"`)
}
