package breaker_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/host/internal/breaker"
	"github.com/tasker-systems/tasker-host/internal/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// bed is a set with its own clock.
type bed struct {
	*breaker.Set
	reg   *prometheus.Registry
	clock atomic.Int64

	mu    sync.Mutex
	moves []string
}

var limits = breaker.Limits{
	Enabled:  true,
	Database: breaker.Config{Failures: 5, Timeout: 30 * time.Second, Probes: 2},
	Queue:    breaker.Config{Failures: 3, Timeout: 15 * time.Second, Probes: 2},
}

func newBed() *bed {
	b := &bed{reg: prometheus.NewRegistry()}
	b.Set = breaker.New(limits, func(c breaker.Change) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.moves = append(b.moves, c.Name+" "+string(c.From)+" "+string(c.To))
	}, b.reg, func() time.Time { return time.Unix(1e9, b.clock.Load()) })
	return b
}

// told returns the state after the latest reported change.
func (b *bed) told() breaker.State {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.moves) == 0 {
		return breaker.Closed
	}
	last := b.moves[len(b.moves)-1]
	return breaker.State(last[strings.LastIndex(last, " ")+1:])
}

func (b *bed) pass(d time.Duration) { b.clock.Add(int64(d)) }

var errDown = errors.New("connection refused")

// call makes a call with the given outcome, and reports whether it was let through.
func call(b *breaker.Breaker, o breaker.Outcome) bool {
	done, err := b.Allow()
	if err != nil {
		return false
	}
	done(o, errDown)
	return true
}

func state(b *breaker.Breaker) breaker.State { return b.Status().State }

func fail(b *breaker.Breaker, n int) {
	for range n {
		call(b, breaker.Failure)
	}
}

func TestOpensAfterFailuresInARow(t *testing.T) {
	t.Parallel()
	bed := newBed()
	b := bed.Of(breaker.Database)
	fail(b, 4)
	require.True(t, call(b, breaker.Success))
	fail(b, 4)
	require.True(t, call(b, breaker.Ignored), "an inconclusive outcome does not end the series")
	require.Equal(t, breaker.Closed, state(b))
	fail(b, 1)
	require.Equal(t, breaker.Open, state(b))
	s := b.Status()
	require.Equal(t, "connection refused", s.Reason)
	require.Equal(t, 30*time.Second, s.Retry)

	_, err := b.Allow()
	require.ErrorIs(t, err, breaker.ErrOpen)
	refusal, ok := errors.AsType[*breaker.OpenError](err)
	require.True(t, ok)
	require.Equal(t, breaker.OpenError{Name: "database", State: breaker.Open, Retry: 30 * time.Second}, *refusal)
	bed.pass(30*time.Second - 1)
	require.False(t, call(b, breaker.Success))
	require.Equal(t, uint64(2), b.Status().Refused)
}

// However many callers there are, no more get through than must succeed.
func TestProbesAreBounded(t *testing.T) {
	t.Parallel()
	bed := newBed()
	b := bed.Of(breaker.ID{Queue: "shop_queue", Class: breaker.Claim})
	fail(b, 3)
	bed.pass(15 * time.Second)
	require.Equal(t, breaker.HalfOpen, state(b))
	var through atomic.Int32
	dones := make(chan func(breaker.Outcome, error), 100)
	var callers sync.WaitGroup
	for range 100 {
		callers.Go(func() {
			if done, err := b.Allow(); err == nil {
				through.Add(1)
				dones <- done
			}
		})
	}
	callers.Wait()
	require.Equal(t, int32(2), through.Load())
	(<-dones)(breaker.Success, nil)
	require.Equal(t, breaker.HalfOpen, state(b), "one of two")
	(<-dones)(breaker.Success, nil)
	require.Equal(t, breaker.Closed, state(b))
	require.Empty(t, b.Status().Reason)
	require.Equal(t, []string{
		"queue.shop_queue.claim closed open", "queue.shop_queue.claim open half_open", "queue.shop_queue.claim half_open closed",
	}, bed.moves)
}

func TestAFailedProbeOpensAgain(t *testing.T) {
	t.Parallel()
	bed := newBed()
	b := bed.Of(breaker.Database)
	fail(b, 5)
	bed.pass(30 * time.Second)
	require.True(t, call(b, breaker.Success))
	require.True(t, call(b, breaker.Failure))
	require.Equal(t, breaker.Open, state(b))
	require.Equal(t, 30*time.Second, b.Status().Retry, "it waits for the whole time again")
	bed.pass(30 * time.Second)
	probe, err := b.Allow()
	require.NoError(t, err)
	require.Equal(t, breaker.HalfOpen, bed.told())
	probe(breaker.Ignored, nil) // an inconclusive outcome gives its place back
	require.True(t, call(b, breaker.Success))
	require.True(t, call(b, breaker.Success))
	require.Equal(t, breaker.Closed, state(b))
}

// A call that began before the breaker opened and fails when it is half-open says nothing
// about the present.
func TestLateFailure(t *testing.T) {
	t.Parallel()
	bed := newBed()
	b := bed.Of(breaker.Database)
	late, err := b.Allow()
	require.NoError(t, err)
	later, err := b.Allow()
	require.NoError(t, err)
	fail(b, 5)
	b.Recovered()
	require.Equal(t, breaker.HalfOpen, state(b))
	late(breaker.Failure, errDown)
	require.Equal(t, breaker.HalfOpen, state(b))
	require.Equal(t, 5, b.Status().Failures)
	require.True(t, call(b, breaker.Success))
	require.True(t, call(b, breaker.Success))
	require.Equal(t, breaker.Closed, state(b))
	later(breaker.Failure, errDown)
	require.Zero(t, b.Status().Failures)
}

// Neither do calls from before an operator closed or reset it.
func TestLateFailuresDoNotOpenWhatAnOperatorClosed(t *testing.T) {
	t.Parallel()
	for name, anew := range map[string]func(*breaker.Breaker){
		"closed": func(b *breaker.Breaker) { b.Close("x") },
		"reset":  func(b *breaker.Breaker) { b.Reset("x") },
		"held":   func(*breaker.Breaker) {},
	} {
		b := newBed().Of(breaker.Database)
		var late []func(breaker.Outcome, error)
		for range limits.Database.Failures {
			done, err := b.Allow()
			require.NoError(t, err)
			late = append(late, done)
		}
		b.ForceOpen("x")
		anew(b)
		before := b.Status()
		for _, done := range late {
			done(breaker.Failure, errDown)
		}
		after := b.Status()
		require.Equal(t, before.State, after.State, name)
		require.Equal(t, before.Reason, after.Reason, name)
	}
}

func TestRecoveredEndsTheWait(t *testing.T) {
	t.Parallel()
	bed := newBed()
	b := bed.Of(breaker.Database)
	b.Recovered()
	require.Equal(t, breaker.Closed, state(b), "nothing to recover from")
	fail(b, 5)
	require.False(t, call(b, breaker.Success))
	b.Recovered()
	require.True(t, call(b, breaker.Success))
	require.True(t, call(b, breaker.Success))
	require.Equal(t, breaker.Closed, state(b))
}

// TestCallsThatBypassABreakerAreNotRefused: their outcomes move the breaker like others
// while it lets calls through; otherwise they change nothing, since they were made.
func TestCallsThatBypassABreakerAreNotRefused(t *testing.T) {
	t.Parallel()
	b := newBed()
	db := b.Of(breaker.Database)
	for range limits.Database.Failures {
		require.Equal(t, breaker.Closed, state(db))
		db.Report(breaker.Failure, errDown)
	}
	require.Equal(t, breaker.Open, state(db))
	require.Equal(t, errDown.Error(), db.Status().Reason)
	db.Report(breaker.Failure, errDown)
	db.Report(breaker.Success, nil)
	require.Equal(t, breaker.Open, state(db), "its time is not over")
	b.pass(limits.Database.Timeout)
	db.Report(breaker.Failure, errDown)
	require.Equal(t, breaker.Open, state(db), "a probe that failed")
	b.pass(limits.Database.Timeout)
	for range limits.Database.Probes {
		_, err := db.Allow()
		require.NoError(t, err)
	}
	db.Report(breaker.Failure, errDown)
	require.Equal(t, breaker.HalfOpen, state(db), "there are enough probes")
	db.ForceOpen("")
	db.Report(breaker.Success, nil)
	require.Equal(t, breaker.ForcedOpen, state(db))
	require.Zero(t, db.Status().Refused)
	require.False(t, call(db, breaker.Success))
	require.EqualValues(t, 1, db.Status().Refused)
}

func TestForcedOpen(t *testing.T) {
	t.Parallel()
	bed := newBed()
	b := bed.Of(breaker.Database)
	b.ForceOpen("by kim: the disk is exchanged")
	bed.pass(time.Hour)
	b.Recovered()
	require.False(t, call(b, breaker.Success))
	s := b.Status()
	require.Equal(t, breaker.ForcedOpen, s.State)
	require.Equal(t, "by kim: the disk is exchanged", s.Reason)
	_, err := b.Allow()
	require.EqualError(t, err, "circuit breaker database was opened by an operator")

	b.ForceOpen("by kim: the disk is checked")
	require.Equal(t, "by kim: the disk is checked", b.Status().Reason)
	b.Close("by kim: the disk is checked")
	require.Equal(t, "by kim: the disk is checked", b.Status().Reason)
	require.True(t, call(b, breaker.Success))
	require.Equal(t, breaker.Closed, state(b))

	b.ForceOpen("")
	require.Equal(t, "by an operator", b.Status().Reason)
	b.Reset("by kim")
	require.Equal(t, breaker.HalfOpen, state(b), "probes decide")
	require.True(t, call(b, breaker.Failure))
	require.Equal(t, breaker.Open, state(b))
	b.Reset("by kim")
	require.True(t, call(b, breaker.Success))
	require.True(t, call(b, breaker.Success))
	require.Equal(t, breaker.Closed, state(b))
	fail(b, 4)
	b.Reset("by kim")
	require.Equal(t, breaker.Closed, state(b), "one that is closed stays so")
	fail(b, 4)
	require.Equal(t, breaker.Closed, state(b), "and its count starts again")
}

// One queue, or one class of its operations, does not affect another.
func TestIsolation(t *testing.T) {
	t.Parallel()
	bed := newBed()
	fail(bed.Of(breaker.ID{Queue: "a_queue", Class: breaker.Claim}), 3)
	for _, id := range []breaker.ID{breaker.Database, {Queue: "a_queue", Class: breaker.Settle}, {Queue: "b_queue", Class: breaker.Claim}} {
		require.True(t, call(bed.Of(id), breaker.Success), id)
	}
	require.False(t, call(bed.Of(breaker.ID{Queue: "a_queue", Class: breaker.Claim}), breaker.Success))
	var names []string
	for _, s := range bed.Status() {
		names = append(names, s.Name+" "+string(s.State))
	}
	require.Equal(t, []string{"database closed", "queue.a_queue.claim open", "queue.a_queue.settle closed", "queue.b_queue.claim closed"}, names)
	require.NotNil(t, bed.Of(breaker.ID{Queue: "c_queue", Class: breaker.Claim}))
}

func TestReload(t *testing.T) {
	t.Parallel()
	bed := newBed()
	b := bed.Of(breaker.Database)
	fail(b, 4)
	l := limits
	l.Database.Failures, l.Database.Timeout = 2, time.Second
	bed.Reload(l)
	fail(b, 1)
	require.Equal(t, time.Second, b.Status().Retry)
	l.Enabled = false
	bed.Reload(l)
	require.True(t, call(b, breaker.Failure), "the plain transport")
	require.False(t, bed.Enabled())
	l.Enabled = true
	bed.Reload(l)
	require.False(t, call(b, breaker.Success))
}

func TestMostBreakers(t *testing.T) {
	t.Parallel()
	bed := newBed()
	for i := range 1200 {
		bed.Of(breaker.ID{Queue: strings.Repeat("q", 1+i%60) + string(rune('a'+i/60)) + "_queue", Class: breaker.Claim})
	}
	require.Nil(t, bed.Of(breaker.ID{Queue: "another_queue", Class: breaker.Read}))
	require.NotNil(t, bed.Of(breaker.Database))
	require.Len(t, bed.Status(), 1000)
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, id := range []breaker.ID{breaker.Database, {Queue: "shop_queue", Class: breaker.Claim}, {Queue: "_x9", Class: breaker.Settle}} {
		got, err := breaker.Parse(id.String())
		require.NoError(t, err)
		require.Equal(t, id, got)
	}
	for _, name := range []string{"", "Database", "queue", "queue.shop_queue", "queue.shop queue.claim", "queue.shop_queue.drop", "queue..claim", "queue.a.claim.x", "queue.A.claim", "table.shop_queue.claim", "database.x"} {
		_, err := breaker.Parse(name)
		require.ErrorContains(t, err, "want database, or queue.NAME.CLASS", name)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	bed := newBed()
	b := bed.Of(breaker.Database)
	fail(b, 5)
	call(b, breaker.Success)
	bed.Of(breaker.ID{Queue: "a_queue", Class: breaker.Claim}).ForceOpen("x")
	families, err := bed.reg.Gather()
	require.NoError(t, err)
	series, values := map[string]int{}, map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			series[f.GetName()]++
			l := []string{f.GetName()}
			for _, p := range m.GetLabel() {
				l = append(l, p.GetValue())
			}
			if v := m.GetGauge().GetValue() + m.GetCounter().GetValue(); v > 0 {
				values[strings.Join(l, " ")] = v
			}
		}
	}
	require.Equal(t, map[string]int{
		"tasker_breakers": 16, "tasker_breaker_calls_total": 12, "tasker_breaker_refused_total": 4, "tasker_breaker_transitions_total": 16,
	}, series, "labels come from closed sets, and all are there from the start")
	require.Equal(t, map[string]float64{
		"tasker_breakers all database open":                        1,
		"tasker_breakers claim queue forced_open":                  1,
		"tasker_breaker_calls_total all database failure":          5,
		"tasker_breaker_refused_total all database":                1,
		"tasker_breaker_transitions_total all database open":       1,
		"tasker_breaker_transitions_total claim queue forced_open": 1,
	}, values)
}

// Whatever happens in whatever order, what is let through agrees with a simple model:
// closed lets everything through, open refuses until its time is over, and half-open lets
// through no more probes than must succeed. The outcome of a call that was let through in
// another state no longer counts. Every change is reported at once, except those caused
// by time, which are reported when somebody looks.
func TestModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		bed := newBed()
		b := bed.Of(breaker.ID{Queue: "q", Class: breaker.Read})
		m := model{state: breaker.Closed}
		for range rapid.IntRange(1, 60).Draw(rt, "moves") {
			move := rapid.SampledFrom([]string{"begin", "success", "failure", "ignored", "late", "time", "force", "close", "reset", "recovered"}).Draw(rt, "move")
			outcome := map[string]breaker.Outcome{"success": breaker.Success, "failure": breaker.Failure, "ignored": breaker.Ignored}
			switch move {
			case "time":
				d := time.Duration(rapid.IntRange(1, 20).Draw(rt, "seconds")) * time.Second
				bed.pass(d)
				if m.left -= d; m.state == breaker.Open && m.left <= 0 {
					m.to(breaker.HalfOpen)
				}
				require.Equal(rt, m.state, state(b))
			case "force":
				b.ForceOpen("x")
				m.to(breaker.ForcedOpen)
			case "close":
				b.Close("x")
				m.to(breaker.Closed)
			case "reset":
				b.Reset("x")
				if m.state != breaker.Closed {
					m.to(breaker.HalfOpen)
				} else {
					m.to(breaker.Closed)
				}
			case "recovered":
				b.Recovered()
				if m.state == breaker.Open {
					m.to(breaker.HalfOpen)
				}
			case "late":
				if len(m.calls) > 0 {
					o := rapid.SampledFrom([]breaker.Outcome{breaker.Success, breaker.Failure, breaker.Ignored}).Draw(rt, "outcome")
					m.end(rapid.IntRange(0, len(m.calls)-1).Draw(rt, "call"), o)
				}
			default:
				done, err := b.Allow()
				require.Equal(rt, m.begin(done), err == nil)
				if err != nil {
					refusal, ok := errors.AsType[*breaker.OpenError](err)
					require.True(rt, ok)
					require.Equal(rt, breaker.OpenError{Name: "queue.q.read", State: m.state, Retry: m.retry()}, *refusal)
				} else if o, ends := outcome[move]; ends {
					m.end(len(m.calls)-1, o)
				}
			}
			require.Equal(rt, m.state, bed.told())
			s := b.Status()
			require.Equal(rt, m.state, s.State)
			require.Equal(rt, m.retry(), s.Retry)
			if m.state == breaker.Closed {
				require.Equal(rt, m.row, s.Failures)
			}
		}
	})
}

// model is a breaker of a queue.
type model struct {
	state  breaker.State
	era    int // how often the state was entered
	row    int // consecutive failures, while closed
	probes int // let through, while half-open
	passed int // successful ones
	left   time.Duration
	calls  []modelCall // in progress
}

type modelCall struct {
	era  int
	done func(breaker.Outcome, error)
}

func (m *model) to(s breaker.State) { m.state, m.row, m.probes, m.passed, m.era = s, 0, 0, 0, m.era+1 }

func (m *model) retry() time.Duration {
	if m.state == breaker.Open {
		return m.left
	}
	return 0
}

func (m *model) begin(done func(breaker.Outcome, error)) bool {
	if m.state != breaker.Closed && (m.state != breaker.HalfOpen || m.probes == limits.Queue.Probes) {
		return false
	}
	m.probes++
	m.calls = append(m.calls, modelCall{m.era, done})
	return true
}

func (m *model) end(i int, o breaker.Outcome) {
	c := m.calls[i]
	m.calls = slices.Delete(m.calls, i, i+1)
	c.done(o, errDown)
	switch {
	case c.era != m.era || m.state == breaker.ForcedOpen:
	case o == breaker.Ignored:
		m.probes--
	case m.state == breaker.Closed && o == breaker.Success:
		m.row = 0
	case m.state == breaker.Closed:
		if m.row++; m.row == limits.Queue.Failures {
			m.to(breaker.Open)
			m.left = limits.Queue.Timeout
		}
	case o == breaker.Success:
		if m.passed++; m.passed == limits.Queue.Probes {
			m.to(breaker.Closed)
		}
	default:
		m.to(breaker.Open)
		m.left = limits.Queue.Timeout
	}
}
