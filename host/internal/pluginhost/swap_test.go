package pluginhost

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/journal"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/rollout"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// another copies a plugin to a new path with different bytes, so that it is a different artifact
// that does the same.
func another(t testing.TB, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	copied := filepath.Join(t.TempDir(), "plugin")
	require.NoError(t, os.WriteFile(copied, append(raw, []byte("# "+strconv.FormatInt(copies.Add(1), 10)+"\n")...), 0o700))
	return copied
}

var copies atomic.Int64

var (
	chaosSlot = SlotID{Kind: KindHandler, Name: "chaos"}
	ann       = journal.Operator("ann")
)

// load runs steps from many callers until it is stopped. Each must have one outcome, and be
// answered by a plugin.
type load struct {
	lenient  bool // handlers may fail
	stop     chan struct{}
	ended    sync.Once
	callers  sync.WaitGroup
	outcomes atomic.Int64
	bad      atomic.Int64
	seen     sync.Map // generations

	mu    sync.Mutex // guards times
	times rollout.Sample
}

func (b *bench) load(t testing.TB, handler string, callers int) *load {
	return b.loadWith(t, handler, callers, &load{})
}

func (b *bench) loadWith(t testing.TB, handler string, callers int, l *load) *load {
	l.stop = make(chan struct{})
	t.Cleanup(func() { l.end() }) // before the host stops
	for c := range callers {
		l.callers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-l.stop:
					return
				default:
				}
				want := strconv.Itoa(c*1_000_000 + n)
				done := make(chan Outcome, 2)
				began := time.Now()
				b.Dispatch(Call{Handler: handler, Step: &pluginv1.Step{TaskUuid: want, Context: []byte(want)}, Done: func(o Outcome) { done <- o }})
				o := <-done
				l.outcomes.Add(1)
				l.mu.Lock()
				l.times.Add(false, time.Since(began))
				l.mu.Unlock()
				if len(done) > 0 || o.Kind == vocab.OutcomeReleased || !l.lenient && (o.Kind != vocab.OutcomeSuccess || string(o.Result) != want) {
					l.bad.Add(1)
					t.Errorf("outcome %+v (%+v) of step %s", o, o.Failure, want)
					return
				}
				l.seen.Store(o.Generation, true)
			}
		})
	}
	return l
}

// end stops the load. A second call does nothing.
func (l *load) end() (outcomes int64) {
	l.ended.Do(func() { close(l.stop) })
	l.callers.Wait()
	return l.outcomes.Load()
}

// Swaps under load lose nothing and fail nothing, and every generation serves.
func TestSwapUnderLoad(t *testing.T) {
	t.Parallel()
	one := script(t, "sdk")
	b := started(t, nil, spec("chaos", one))
	l := b.load(t, "chaos.echo", 64)
	const swaps = 6
	eventually(t, "the first generation serves", func() bool { return l.outcomes.Load() > 0 })
	for range swaps {
		require.NoError(t, b.Swap(t.Context(), chaosSlot, Source{Path: another(t, one)}, ann, "test"))
		before := l.outcomes.Load()
		eventually(t, "steps run", func() bool { return l.outcomes.Load() > before+200 })
	}
	require.Greater(t, l.end(), int64(swaps*200))
	require.Zero(t, l.bad.Load())
	count := 0
	l.seen.Range(func(any, any) bool { count++; return true })
	require.Equal(t, swaps+1, count)
	e, err := b.Explain(chaosSlot)
	require.NoError(t, err)
	require.Equal(t, Serving, e.State)
	eventually(t, "one is kept warm, the others are gone", func() bool {
		e, _ = b.Explain(chaosSlot)
		warm, over := 0, 0
		for _, g := range e.Generations {
			if g.Phase == journal.Standby {
				warm++
			} else if g.Phase.Over() {
				over++
			}
		}
		return warm == 1 && over == len(e.Generations)-2
	})
	require.NotContains(t, b.log.String(), "illegal change")
}

// A rollback is one change of the route table, because the previous generation is warm.
func TestRollback(t *testing.T) {
	t.Parallel()
	one := script(t, "sdk")
	b := started(t, nil, spec("chaos", one))
	first := b.Status()[0]
	two := another(t, one)
	require.NoError(t, b.Swap(t.Context(), chaosSlot, Source{Path: two}, ann, "test"))
	second := b.Status()[0]
	require.NotEqual(t, first.SHA256, second.SHA256)
	generations := b.explain(t).Generations
	require.Equal(t, one, generations[0].Path)
	require.Equal(t, two, generations[len(generations)-1].Path)
	l := b.load(t, "chaos.echo", 8)
	require.NoError(t, b.Rollback(t.Context(), chaosSlot, ann, "it is slow"))
	require.Equal(t, first.Generation, b.Status()[0].Generation)
	require.Equal(t, first.PID, b.Status()[0].PID)
	l.end()

	// What was rolled back is not run again until it is released.
	err := b.Swap(t.Context(), chaosSlot, Source{SHA256: second.SHA256}, ann, "again")
	require.ErrorIs(t, err, ErrQuarantined)
	require.ErrorContains(t, err, "it is slow")
	require.ErrorContains(t, err, "tasker plugin release handler/chaos --digest "+second.SHA256[:12])
	require.NoError(t, b.Release(t.Context(), chaosSlot, second.SHA256, ann, "fixed"))
	require.NoError(t, b.Swap(t.Context(), chaosSlot, Source{SHA256: second.SHA256}, ann, "again"))
	require.Equal(t, second.SHA256, b.Status()[0].SHA256)
	generations = b.explain(t).Generations
	require.Empty(t, generations[len(generations)-1].Path, "it was in the store")
	require.ErrorIs(t, b.Release(t.Context(), chaosSlot, "", ann, ""), ErrNothingToDo)
	require.NotContains(t, b.log.String(), "illegal change")
}

// quick makes rollouts short. A trial ends by its result, not by time.
func quick(s Spec) Spec {
	s.Rollout.Hold, s.Rollout.Trial, s.Rollout.MinSamples = 100*time.Millisecond, time.Hour, 30
	return s
}

func (b *bench) explain(t testing.TB) Explanation {
	t.Helper()
	e, err := b.Explain(chaosSlot)
	require.NoError(t, err)
	return e
}

// A generation that does worse than the previous one, at once or as a canary, is rolled back and
// not run again.
func TestWorseIsTakenBack(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		mode     string
		strategy Strategy
		reason   string
	}{
		{"fails", Immediate, "calls fail"},
		{"slow", Immediate, "99 % of its calls take"},
		{"fails", CanarySteps, "calls fail"},
	} {
		t.Run(tc.mode+"/"+string(tc.strategy), func(t *testing.T) {
			t.Parallel()
			s := quick(spec("chaos", script(t, "sdk")))
			s.Rollout.Strategy, s.Rollout.Steps, s.Rollout.LatencyFloor = tc.strategy, []int{20}, 0
			b := started(t, nil, s)
			l := b.loadWith(t, "chaos.echo", 16, &load{lenient: true})
			first := b.Status()[0]
			// Enough calls that those slowed by a pause of the machine are less than one in a
			// hundred.
			eventually(t, "there is something to compare with", func() bool { return l.outcomes.Load() > 4000 })
			require.NoError(t, b.Swap(t.Context(), chaosSlot, Source{Path: script(t, tc.mode)}, ann, "test"))
			eventually(t, "it is rolled back", func() bool { return len(b.explain(t).Quarantined) == 1 && b.Status()[0].Next == 0 })
			require.Equal(t, first.Generation, b.Status()[0].Generation)
			require.Contains(t, b.explain(t).Quarantined[0].Reason, tc.reason)
			l.end()
			require.ErrorIs(t, b.Swap(t.Context(), chaosSlot, Source{Path: script(t, tc.mode)}, ann, "test"), ErrQuarantined)
			require.NotContains(t, b.log.String(), "illegal change")
		})
	}
}

// A canary that does no worse gets more and more tasks, each task always from
// the same generation, and then takes over.
func TestCanaryTakesOver(t *testing.T) {
	t.Parallel()
	s := quick(spec("chaos", script(t, "sdk")))
	s.Rollout.Strategy, s.Rollout.Steps = CanarySteps, []int{10, 50}
	a := &account{}
	b := started(t, func(c *Config) { c.Journal = a }, s)
	l := b.load(t, "chaos.echo", 16)
	first := b.Status()[0]
	require.NoError(t, b.Swap(t.Context(), chaosSlot, Source{Path: another(t, s.Path)}, ann, "test"))
	next := b.Status()[0].Next
	require.NotZero(t, next)
	eventually(t, "it takes over", func() bool { return b.Status()[0].Generation == next })
	var weights []int
	for _, e := range a.all() { // checking now and then may miss a step
		if e.Generation == next && e.To == journal.Canary {
			weights = append(weights, e.Weight)
		}
	}
	require.Equal(t, []int{10, 50}, weights)
	l.end()
	require.Zero(t, b.Status()[0].Next)
	require.NotEqual(t, first.SHA256, b.Status()[0].SHA256)
	require.NotContains(t, b.log.String(), "illegal change")
}

// A canary whose next step cannot be recorded tries again once for each hold, and takes
// over as soon as it can.
func TestCanaryThatCannotBeRecorded(t *testing.T) {
	t.Parallel()
	const hold = 300 * time.Millisecond
	s := quick(spec("chaos", script(t, "sdk")))
	s.Rollout.Strategy, s.Rollout.Steps, s.Rollout.Hold = CanarySteps, []int{50}, hold
	a := &account{}
	b := started(t, func(c *Config) { c.Journal = a }, s)
	l := b.load(t, "chaos.echo", 16)
	first := b.Status()[0].Generation
	require.NoError(t, b.Swap(t.Context(), chaosSlot, Source{Path: another(t, s.Path)}, ann, "test"))
	next := b.Status()[0].Next
	require.NotZero(t, next)
	a.set(true)
	down := time.Now()
	complaints := func() int { return strings.Count(b.log.String(), "the rollout is not making progress") }
	eventually(t, "it has tried twice", func() bool { return complaints() >= 2 })
	require.LessOrEqual(t, complaints(), int(time.Since(down)/hold)+1)
	require.Equal(t, first, b.Status()[0].Generation)
	a.set(false)
	eventually(t, "it takes over", func() bool { return b.Status()[0].Generation == next })
	l.end()
}

// If few calls come in a minute, exactly those since the canary began are judged.
func TestSeldomCallsAreJudged(t *testing.T) {
	t.Parallel()
	mine, other := &generation{recent: rollout.NewRecord([]string{"a"})}, &generation{recent: rollout.NewRecord([]string{"a"})}
	long := time.Now().Add(-10 * time.Hour)
	for range 100 { // before
		mine.recent.Add("a", long, true, time.Millisecond)
	}
	c := compare(mine, other)
	limits := Rollout{}.withDefaults(KindHandler).limits()
	for n := range limits.MinSamples {
		calls, cause, why := c.judge(limits)
		require.Equal(t, n, calls)
		require.Equal(t, rollout.NotWorse, cause, why)
		at := long.Add(time.Duration(n) * 2 * time.Minute)
		mine.recent.Add("a", at, n%3 == 0, time.Millisecond)
		other.recent.Add("a", at, false, time.Millisecond)
	}
	_, cause, why := c.judge(limits)
	require.Equal(t, rollout.Errors, cause)
	require.Contains(t, why, "of its 50 calls fail")
}

// A step whose share contains no pool is skipped, because it would last forever.
func TestCanaryThatIsNotAsked(t *testing.T) {
	t.Parallel()
	one := law(t, "law")
	one.Rollout.Strategy, one.Rollout.Steps = CanarySteps, []int{1, 50}
	b := started(t, nil, one)
	require.NoError(t, b.Swap(t.Context(), lawSlot, Source{Path: another(t, one.Path)}, ann, "test"))
	next := b.Status()[0].Next
	require.NotZero(t, next)
	eventually(t, "it takes over", func() bool { return b.Status()[0].Generation == next })
	require.Equal(t, []string{"scaling/law.count", "health/law.disk"}, b.Status()[0].Others)
	_, err := b.Explain(SlotID{Kind: KindHandler, Name: "law"})
	require.EqualError(t, err, "handler/law: no such plugin; there is scaling/law")
}

// If the serving process ends, the previous one takes over at once; during a trial it stays,
// later the ended one is restarted.
func TestCrashFailsOver(t *testing.T) {
	t.Parallel()
	for _, onTrial := range []bool{true, false} {
		t.Run("on trial "+strconv.FormatBool(onTrial), func(t *testing.T) {
			t.Parallel()
			s := quick(spec("chaos", script(t, "sdk")))
			if !onTrial {
				s.Rollout.Trial = -1
			}
			s.MaxInFlight = 1
			b := started(t, nil, s)
			first := b.Status()[0]
			require.NoError(t, b.Swap(t.Context(), chaosSlot, Source{Path: another(t, s.Path)}, ann, "test"))
			second := b.Status()[0]
			crash, waits := b.call("chaos.crash", nil), b.call("chaos.echo", nil)
			require.Equal(t, ReasonCrashed, outcome(t, crash).Failure.Code)
			require.Equal(t, first.Generation, outcome(t, waits).Generation, "calls that were not sent to the dead process run")
			require.Equal(t, vocab.OutcomeSuccess, b.run(t, "chaos.echo", "1").Kind, "the route changes before the caller gets the outcome")
			if onTrial {
				eventually(t, "it is in quarantine", func() bool { return len(b.explain(t).Quarantined) == 1 })
				require.Equal(t, first.Generation, b.Status()[0].Generation)
				return
			}
			eventually(t, "the same release is restarted", func() bool { return b.Status()[0].Generation > second.Generation })
			require.Equal(t, second.SHA256, b.Status()[0].SHA256)
			require.Empty(t, b.explain(t).Quarantined)
			eventually(t, "the previous one is warm again", func() bool { return !b.explain(t).StandbyUntil.IsZero() })
			require.NotContains(t, b.log.String(), "illegal change")
		})
	}
}

// A release that keeps crashing after it has replaced another goes to quarantine.
func TestCrashLoopFallsBack(t *testing.T) {
	t.Parallel()
	s := quick(spec("raw", script(t, "raw")))
	s.Rollout.Trial, s.RollbackWindow = -1, -1
	b := started(t, func(c *Config) { c.Restart.Exits = 3 }, s)
	first := b.Status()[0]
	id := SlotID{Kind: KindHandler, Name: "raw"}
	require.NoError(t, b.Swap(t.Context(), id, Source{Path: script(t, "dies")}, ann, "test"))
	eventually(t, "the last good release serves", func() bool {
		s := b.Status()[0]
		return s.SHA256 == first.SHA256 && s.State == Serving && s.Generation > first.Generation
	})
	e, err := b.Explain(id)
	require.NoError(t, err)
	require.Len(t, e.Quarantined, 1)
	require.Contains(t, e.Quarantined[0].Reason, "it keeps crashing")
	require.Equal(t, "null", string(b.run(t, "raw.answer", "").Result))
}

// What does not start leaves the old one serving.
func TestBadSwapsChangeNothing(t *testing.T) {
	t.Parallel()
	b := started(t, nil, spec("chaos", script(t, "sdk")))
	first := b.Status()[0]
	l := b.load(t, "chaos.echo", 4)
	for path, want := range map[string]string{
		"/nowhere/plugin":                  "no such file",
		shell(t, "exit 3"):                 "exit code 3",
		shell(t, "echo hello; sleep 1000"): "before the handshake",
		script(t, "selftest"):              "self-test: it fails",
		script(t, "version"):               "incompatible API version",
		"relative":                         "is not absolute",
	} {
		err := b.Swap(t.Context(), chaosSlot, Source{Path: path}, ann, "test")
		require.ErrorContains(t, err, want)
		require.NotContains(t, b.log.String(), want, "it is returned, and so for who asked to log")
	}
	require.ErrorIs(t, b.Swap(t.Context(), SlotID{Kind: KindHandler, Name: "nobody"}, Source{Path: "/x"}, ann, ""), ErrNoSlot)
	require.ErrorIs(t, b.Promote(t.Context(), chaosSlot, ann, ""), ErrNothingToDo)
	require.ErrorIs(t, b.Rollback(t.Context(), chaosSlot, ann, ""), ErrNothingToDo)
	l.end()
	require.Equal(t, first.Generation, b.Status()[0].Generation)
	require.NotContains(t, b.log.String(), "illegal change")
}

// Before the host has started and after it has stopped, nothing changes and nothing breaks.
func TestChangesNeedARunningHost(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil, spec("chaos", script(t, "sdk")))
	refused := func() {
		for _, err := range []error{
			b.Swap(t.Context(), chaosSlot, Source{Path: "/x"}, ann, ""), b.Rollback(t.Context(), chaosSlot, ann, ""),
			b.Promote(t.Context(), chaosSlot, ann, ""),
		} {
			require.ErrorIs(t, err, ErrStopping)
		}
		_, err := b.Apply(t.Context(), nil, ann, "")
		require.ErrorIs(t, err, ErrStopping)
		b.explain(t)
	}
	refused()
	require.ErrorIs(t, b.Release(t.Context(), chaosSlot, "", ann, ""), ErrNothingToDo)
	require.NoError(t, b.Start(t.Context()))
	require.NoError(t, b.Stop(t.Context()))
	refused()
}

// Two swaps and a rollback within the time of one step do not disturb it.
func TestLongStepsOutliveQuickSwaps(t *testing.T) {
	t.Parallel()
	one := spec("chaos", script(t, "sdk"))
	one.DrainTimeout, one.Rollout.Trial = 8*time.Second, -1 // a rollback comes in time even if the machine pauses for a while
	b := started(t, nil, one)
	first := b.Status()[0].Generation
	swap := func() {
		require.NoError(t, b.Swap(t.Context(), chaosSlot, Source{Path: another(t, one.Path)}, ann, "test"))
	}
	// It begins in the first, which drains, serves again, and is not cut when the
	// time of that drain is over.
	long := b.call("chaos.wait", &pluginv1.Step{TimeoutMs: 11_000})
	eventually(t, "it runs", func() bool { return b.Room("chaos.wait") == 63 })
	swap()
	require.NoError(t, b.Rollback(t.Context(), chaosSlot, ann, "test"))
	require.Equal(t, first, b.Status()[0].Generation)
	o := outcome(t, long)
	require.Equal(t, vocab.TimeoutError, o.Failure.Type, "%+v", o.Failure)

	// It begins in the first; two swaps later it may still end there.
	long = b.call("chaos.wait", &pluginv1.Step{TimeoutMs: 600})
	eventually(t, "it runs", func() bool { return b.Room("chaos.wait") == 63 })
	swap()
	swap()
	o = outcome(t, long)
	require.Equal(t, vocab.TimeoutError, o.Failure.Type, "%+v", o.Failure)
	require.Equal(t, first, o.Generation)

	// What does not end in its time is handed back, and no attempt is charged.
	long = b.call("chaos.wait", nil)
	hangs := b.call("chaos.hang", nil)
	eventually(t, "both run", func() bool { return b.Room("chaos.wait") == 62 })
	one.Path, one.DrainTimeout = another(t, one.Path), 700*time.Millisecond
	changes, err := b.Apply(t.Context(), []Spec{one}, ann, "test")
	require.NoError(t, err)
	require.Equal(t, SwapTo, changes[0].Action)
	for _, call := range []<-chan Outcome{long, hangs} {
		o = outcome(t, call)
		require.Equal(t, vocab.OutcomeReleased, o.Kind)
		require.Equal(t, ReasonReplaced, o.Failure.Code)
	}
	require.NotContains(t, b.log.String(), "illegal change")
}
