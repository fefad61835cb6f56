package breaker_test

import (
	"errors"
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

// bed is a set with a clock of its own.
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

func (b *bed) pass(d time.Duration) { b.clock.Add(int64(d)) }

var errDown = errors.New("connection refused")

// call makes a call that comes to an outcome, and reports whether it was let
// through.
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
	require.True(t, call(b, breaker.Ignored), "what tells nothing does not end the row")
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

// Of any number of callers no more get through than must succeed.
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
	require.True(t, call(b, breaker.Ignored), "what tells nothing gives its place back")
	require.True(t, call(b, breaker.Success))
	require.True(t, call(b, breaker.Success))
	require.Equal(t, breaker.Closed, state(b))
}

// A call that began before the breaker opened and fails after it is half-open
// says nothing of how things are now.
func TestLateFailure(t *testing.T) {
	t.Parallel()
	bed := newBed()
	b := bed.Of(breaker.Database)
	late, err := b.Allow()
	require.NoError(t, err)
	fail(b, 5)
	b.Recovered()
	require.Equal(t, breaker.HalfOpen, state(b))
	late(breaker.Failure, errDown)
	require.Equal(t, breaker.HalfOpen, state(b))
	require.True(t, call(b, breaker.Success))
	require.True(t, call(b, breaker.Success))
	require.Equal(t, breaker.Closed, state(b))
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

	b.Close("by kim")
	require.True(t, call(b, breaker.Success))
	require.Equal(t, breaker.Closed, state(b))

	b.ForceOpen("")
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
	require.Equal(t, breaker.Closed, state(b), "and counts anew")
}

// One queue, or one class of operations on it, does not touch another.
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
	for _, name := range []string{"", "Database", "queue", "queue.shop_queue", "queue.shop queue.claim", "queue.shop_queue.drop", "queue..claim", "queue.a.claim.x", "queue.A.claim", "database.x"} {
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
	open := map[string]float64{}
	series := 0
	for _, f := range families {
		if f.GetName() == "tasker_breaker_refused_total" {
			require.Len(t, f.GetMetric(), 4)
			require.InDelta(t, 1, f.GetMetric()[0].GetCounter().GetValue(), 0)
		}
		if f.GetName() != "tasker_breakers" {
			continue
		}
		for _, m := range f.GetMetric() {
			series++
			if m.GetGauge().GetValue() > 0 {
				var l []string
				for _, p := range m.GetLabel() {
					l = append(l, p.GetValue())
				}
				open[strings.Join(l, " ")] = m.GetGauge().GetValue()
			}
		}
	}
	require.Equal(t, 16, series, "labels come from closed sets")
	require.Equal(t, map[string]float64{"all database open": 1, "claim queue forced_open": 1}, open)
}

// Whatever happens in whatever order, what is let through agrees with a simple
// model: closed lets through, open refuses until its time is over, and no more
// probes are under way than must succeed.
func TestModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		bed := newBed()
		b := bed.Of(breaker.ID{Queue: "q", Class: breaker.Read})
		const failures, probes, timeout = 3, 2, 15 * time.Second
		model := struct {
			state       breaker.State
			row, passed int
			inFlight    int
			left        time.Duration
		}{state: breaker.Closed}
		for range rapid.IntRange(1, 60).Draw(rt, "moves") {
			switch rapid.SampledFrom([]string{"success", "failure", "ignored", "time", "force", "close", "reset", "recovered"}).Draw(rt, "move") {
			case "time":
				d := time.Duration(rapid.IntRange(1, 20).Draw(rt, "seconds")) * time.Second
				bed.pass(d)
				if model.state == breaker.Open {
					if model.left -= d; model.left <= 0 {
						model.state, model.passed = breaker.HalfOpen, 0
					}
				}
			case "force":
				b.ForceOpen("x")
				model.state = breaker.ForcedOpen
			case "close":
				b.Close("x")
				model.state, model.row = breaker.Closed, 0
			case "reset":
				b.Reset("x")
				model.row, model.passed = 0, 0
				if model.state != breaker.Closed {
					model.state = breaker.HalfOpen
				}
			case "recovered":
				b.Recovered()
				if model.state == breaker.Open {
					model.state, model.passed = breaker.HalfOpen, 0
				}
			case "success":
				let := call(b, breaker.Success)
				require.Equal(rt, model.state == breaker.Closed || model.state == breaker.HalfOpen, let)
				if model.state == breaker.Closed {
					model.row = 0
				}
				if model.state == breaker.HalfOpen {
					if model.passed++; model.passed == probes {
						model.state, model.row = breaker.Closed, 0
					}
				}
			case "failure":
				let := call(b, breaker.Failure)
				require.Equal(rt, model.state == breaker.Closed || model.state == breaker.HalfOpen, let)
				if model.state == breaker.Closed {
					if model.row++; model.row == failures {
						model.state, model.left = breaker.Open, timeout
					}
				} else if model.state == breaker.HalfOpen {
					model.state, model.left = breaker.Open, timeout
				}
			case "ignored":
				require.Equal(rt, model.state == breaker.Closed || model.state == breaker.HalfOpen, call(b, breaker.Ignored))
			}
			require.Equal(rt, model.state, state(b))
		}
	})
}
