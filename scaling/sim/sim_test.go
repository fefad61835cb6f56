package sim_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/scaling"
	"github.com/tasker-systems/tasker-host/scaling/builtin"
	"github.com/tasker-systems/tasker-host/scaling/sim"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

func run(t testing.TB, c sim.Config, trace *sim.Trace, algorithm string) *sim.Result {
	t.Helper()
	made, err := builtin.New(algorithm, nil)
	require.NoError(t, err)
	r, err := sim.Run(t.Context(), c, trace, sim.Algorithm{Name: algorithm, Scaler: made()})
	require.NoError(t, err)
	return r
}

func shipped(t testing.TB, name string) *sim.Trace {
	t.Helper()
	trace, err := sim.LoadTrace(name)
	require.NoError(t, err)
	return trace
}

// The traces in the repository are those that the generator makes.
func TestTracesAreMadeByTheGenerator(t *testing.T) {
	t.Parallel()
	for _, s := range sim.Shapes() {
		trace, err := sim.Generate(s.Name, sim.TraceSeed)
		require.NoError(t, err)
		var made bytes.Buffer
		require.NoError(t, trace.Write(&made))
		kept, err := os.ReadFile("traces/" + s.Name + ".csv")
		require.NoError(t, err, "run: tasker scale generate-trace %s -o scaling/sim/traces/%s.csv", s.Name, s.Name)
		require.Equal(t, string(kept), made.String(), s.Name)
		require.True(t, reflect.DeepEqual(trace, shipped(t, s.Name)), "%s: what is written can be read again", s.Name)
		other, err := sim.Generate(s.Name, 2)
		require.NoError(t, err)
		require.False(t, slices.Equal(trace.Rows, other.Rows))
	}
	_, err := sim.Generate("square", 1)
	require.ErrorContains(t, err, `there is no shape "square"; there are steady, season`)
	_, err = sim.LoadTrace("square")
	require.ErrorContains(t, err, `there is no built-in trace "square"`)
}

func TestTracesAreReadStrictly(t *testing.T) {
	t.Parallel()
	const head = "# a comment\nseconds,arrivals,service_seconds\n"
	for name, c := range map[string]struct{ text, want string }{
		"empty":           {"", "line 1: the file ends too early: want the header"},
		"no header":       {"0,1,2\n", `line 1: "0,1,2": want comments and then the header`},
		"no rows":         {head, "line 3: the file ends too early: want at least two rows"},
		"one row":         {head + "0,1,2\n", "want at least two rows"},
		"comment in rows": {head + "0,1,2\n# hello\n", "line 4: \"# hello\": want three values"},
		"late start":      {head + "10,1,2\n", "line 3: seconds 10: the first row begins at 0"},
		"hole":            {head + "0,1,2\n10,1,2\n30,1,2\n", "line 5: seconds 30: a row is missing, want 20"},
		"disorder":        {head + "0,1,2\n10,1,2\n10,1,2\n", "line 5: seconds 10: out of order, want 20"},
		"standing still":  {head + "0,1,2\n0,1,2\n", "line 4: seconds 0: want a second row after the first"},
		"garbage":         {head + "0,1,2\nten,1,2\n", `line 4: seconds "ten": want a whole number`},
		"too few values":  {head + "0,1\n", "line 3: \"0,1\": want three values"},
		"half an arrival": {head + "0,1.5,2\n", `line 3: arrivals "1.5": want a whole number`},
		"negative":        {head + "0,-1,2\n", `line 3: arrivals "-1"`},
		"too many":        {head + "0,10000001,2\n", `line 3: arrivals "10000001"`},
		"no work":         {head + "0,1,0\n", `line 3: service_seconds "0": want a number above 0`},
		"NaN":             {head + "0,1,NaN\n", `line 3: service_seconds "NaN"`},
		"infinite":        {head + "0,1,+Inf\n", `service_seconds "+Inf"`},
		"binary":          {strings.Repeat("\x00", 5000), "this is not a trace"},
		"long line":       {head + strings.Repeat("1", 300) + "\n", "line 3: it has 300 bytes"},
		"too large":       {head + "0,10000000,1\n" + large(), "the trace is too large"},
	} {
		_, err := sim.ReadTrace("x.csv", strings.NewReader(c.text))
		require.ErrorContains(t, err, "trace x.csv: line ", name)
		require.ErrorContains(t, err, c.want, name)
		_, ok := errors.AsType[*sim.TraceError](err)
		require.True(t, ok)
	}
	trace, err := sim.ReadTrace("x", strings.NewReader("# one\r\n#two\r\nseconds,arrivals,service_seconds\r\n0,0,1\r\n60,3,0.5\r\n"))
	require.NoError(t, err)
	require.Equal(t, &sim.Trace{Name: "x", Comments: []string{"one", "two"}, Interval: time.Minute, Rows: []sim.Row{{0, 1}, {3, 0.5}}}, trace)
	broken := errors.New("unplugged")
	_, err = sim.ReadTrace("x", io.MultiReader(strings.NewReader(head), failing{broken}))
	require.ErrorIs(t, err, broken)
}

func large() string {
	var b strings.Builder
	for i := 1; i <= 10; i++ {
		fmt.Fprintf(&b, "%d,10000000,1\n", i)
	}
	return b.String()
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func FuzzReadTrace(f *testing.F) {
	f.Add("# a comment\nseconds,arrivals,service_seconds\n0,1,2\n10,3,0.5\n")
	f.Fuzz(func(t *testing.T, text string) {
		trace, err := sim.ReadTrace("fuzz", strings.NewReader(text))
		if err != nil {
			return
		}
		var out bytes.Buffer
		require.NoError(t, trace.Write(&out))
		again, err := sim.ReadTrace("fuzz", &out)
		require.NoError(t, err)
		require.Len(t, again.Rows, len(trace.Rows))
		require.Equal(t, trace.Interval, again.Interval)
	})
}

// fixed keeps the pool as it is.
func fixed(n int) (sim.Config, sim.Algorithm) {
	c := sim.DefaultConfig()
	c.Min, c.Max = n, n
	return c, sim.Algorithm{Name: "fixed", Scaler: scaler.Func(func(_ context.Context, o scaler.Observation) (scaler.Decision, error) {
		return scaler.Decision{Target: n, Reason: "fixed", Confidence: 1}, nil
	})}
}

// poisson is a trace of one rate.
func poisson(perSecond, service float64, rows int) *sim.Trace {
	r := rand.New(rand.NewPCG(7, 7))
	trace := &sim.Trace{Name: "poisson", Interval: time.Minute}
	for range rows {
		n := 0
		for at := r.ExpFloat64() / perSecond; at < 60; at += r.ExpFloat64() / perSecond {
			n++
		}
		trace.Rows = append(trace.Rows, sim.Row{Arrivals: n, Service: service})
	}
	return trace
}

// A pool of fixed size is a queue with known laws. One server (M/M/1): the time
// in the system is exponential with rate μ-λ. Three servers and two erlangs:
// Erlang's C = 4/9 of the work waits, so L = a + C·ρ/(1-ρ) = 2.889 are inside on
// average, of which 0.889 wait.
func TestTheSimulatorObeysQueueingTheory(t *testing.T) {
	t.Parallel()
	c, a := fixed(1)
	c.LatencyTarget = 8 * time.Second
	r, err := sim.Run(t.Context(), c, poisson(0.25, 2, 8_000), a)
	require.NoError(t, err)
	require.InDelta(t, math.Exp(-0.25*8), r.LateShare, 0.01)
	require.InDelta(t, math.Ln2/0.25, r.LatencyP50, 0.1)
	require.InDelta(t, -math.Log(0.01)/0.25, r.LatencyP99, 1)

	c, a = fixed(3)
	r, err = sim.Run(t.Context(), c, poisson(1, 2, 3_000), a)
	require.NoError(t, err)
	require.InDelta(t, 0.889, r.MeanBacklog, 0.1)
	require.InDelta(t, 3, r.MeanSize, 1e-9)
}

func TestWhatTheSimulatorCounts(t *testing.T) {
	t.Parallel()
	// 60 pieces of one second arrive in the first minute, for a pool of one: it
	// is idle when nothing waits, and does no work twice.
	trace := &sim.Trace{Name: "x", Interval: time.Minute, Rows: []sim.Row{{60, 1}, {0, 1}, {0, 1}, {0, 1}}}
	c, a := fixed(1)
	c.Equal, c.LatencyTarget = true, time.Second
	r, err := sim.Run(t.Context(), c, trace, a)
	require.NoError(t, err)
	require.Equal(t, 60, r.Finished)
	require.Zero(t, r.Waiting)
	require.InDelta(t, 240, r.ExecutorSeconds, 1e-6)
	require.Equal(t, 16, r.Decisions)
	require.Zero(t, r.Changes)

	// New executors cost from the start and work after it.
	trace.Rows = []sim.Row{{0, 1}, {0, 1}, {0, 1}}
	c.Max, c.StartDelay, c.Policy = 5, 30*time.Second, scaling.Policy{Stale: scaling.Duration(time.Minute)}
	grow := scaler.Func(func(context.Context, scaler.Observation) (scaler.Decision, error) {
		return scaler.Decision{Target: 5, Reason: "all", Confidence: 1}, nil
	})
	r, err = sim.Run(t.Context(), c, trace, sim.Algorithm{Name: "grow", Scaler: grow})
	require.NoError(t, err)
	require.InDelta(t, 15*1+165*5, r.ExecutorSeconds, 1e-6)
	sizes := map[time.Duration]int{}
	for _, p := range r.Points {
		sizes[p.At] = p.Size
	}
	require.Equal(t, 1, sizes[30*time.Second])
	require.Equal(t, 5, sizes[45*time.Second])
	require.Equal(t, 1, r.Changes)
}

// An algorithm that fails holds the pool, and the result says so.
func TestAFailingAlgorithmHolds(t *testing.T) {
	t.Parallel()
	broken := scaler.Func(func(context.Context, scaler.Observation) (scaler.Decision, error) { panic("no idea") })
	r, err := sim.Run(t.Context(), sim.DefaultConfig(), shipped(t, "spike"), sim.Algorithm{Name: "broken", Scaler: broken})
	require.NoError(t, err)
	require.Equal(t, r.Decisions, r.Held)
	require.Zero(t, r.Changes)
	require.Contains(t, r.LastHeldReason, "panic: no idea")
}

func TestTheBudgetIsNeverExceeded(t *testing.T) {
	t.Parallel()
	c := sim.DefaultConfig()
	c.Budget = 12
	for _, name := range []string{"threshold", "latency", "predictive"} {
		r := run(t, c, shipped(t, "spike"), name)
		require.Equal(t, 12, r.MaxSize, name)
		for _, d := range r.Journal {
			require.LessOrEqual(t, d.To, 12)
		}
	}
}

func TestTheSameRunGivesTheSameResult(t *testing.T) {
	t.Parallel()
	c := sim.DefaultConfig()
	require.Equal(t, run(t, c, shipped(t, "heavytail"), "cost"), run(t, c, shipped(t, "heavytail"), "cost"))
	d := c
	d.Seed++
	require.NotEqual(t, run(t, c, shipped(t, "heavytail"), "cost").Points, run(t, d, shipped(t, "heavytail"), "cost").Points)
}

// What the documentation's table says about the week: where executors are slow to
// start, foresight makes far less work late, at nearly the same cost.
func TestForesightPaysOnASeason(t *testing.T) {
	t.Parallel()
	c := sim.DefaultConfig()
	c.StartDelay = 3 * time.Minute
	days := shipped(t, "season")
	days.Rows = days.Rows[:len(days.Rows)/2] // half a week: enough to see the season, with half the work
	threshold, predictive := run(t, c, days, "threshold"), run(t, c, days, "predictive")
	require.Less(t, predictive.LateShare, threshold.LateShare/2)
	require.Less(t, predictive.ExecutorSeconds, 1.1*threshold.ExecutorSeconds)
	require.Less(t, predictive.MaxBacklog, threshold.MaxBacklog/2)
}

// Under a steady load with noise, no algorithm oscillates.
func TestNoAlgorithmHunts(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"threshold", "target", "rate", "latency", "cost", "predictive"} {
		c := sim.DefaultConfig()
		r := run(t, c, shipped(t, "steady"), name)
		require.Less(t, r.ReversalsPerMinute, 0.15, name)
		require.Less(t, r.LateShare, 0.02, name)
		var turned time.Time
		for i := 1; i < len(r.Journal); i++ {
			d, before := r.Journal[i], r.Journal[i-1]
			if (d.To > d.From) == (before.To > before.From) {
				continue
			}
			require.True(t, turned.IsZero() || d.At.Sub(turned) >= c.Policy.Reversal.D(), name)
			turned = d.At
		}
	}
}

func TestPlotIsAPictureOfEverything(t *testing.T) {
	t.Parallel()
	trace := shipped(t, "onoff")
	trace.Name = `a "<trace>" & more`
	results := []*sim.Result{run(t, sim.DefaultConfig(), trace, "rate"), run(t, sim.DefaultConfig(), trace, "latency")}
	var out bytes.Buffer
	require.NoError(t, sim.Plot(&out, trace, results))
	elements := map[string]int{}
	for d := xml.NewDecoder(&out); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if start, ok := token.(xml.StartElement); ok {
			elements[start.Name.Local]++
			for _, a := range start.Attr {
				require.NotContains(t, a.Value, "NaN")
			}
		}
	}
	require.Equal(t, 5, elements["path"], "the load, two backlogs, two sizes")
	require.Greater(t, elements["text"], 30)
	require.ErrorContains(t, sim.Plot(full{}, trace, results), "write plot: the disk is full")
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("the disk is full") }

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	c := sim.DefaultConfig()
	c.Min, c.Max, c.Interval = 9, 3, 0
	_, err := sim.Run(t.Context(), c, shipped(t, "steady"), sim.Algorithm{})
	require.ErrorContains(t, err, "/max: 3: want 9 to 10000")
	require.ErrorContains(t, err, "/interval: 0s: want 1s to 1h0m0s")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, a := fixed(1)
	_, err = sim.Run(gone, sim.DefaultConfig(), shipped(t, "steady"), a)
	require.ErrorIs(t, err, context.Canceled)
}

func BenchmarkSimulate(b *testing.B) {
	trace := shipped(b, "ramp")
	made, err := builtin.New("rate", nil)
	require.NoError(b, err)
	pieces := 0
	for b.Loop() {
		r, err := sim.Run(b.Context(), sim.DefaultConfig(), trace, sim.Algorithm{Name: "rate", Scaler: made()})
		require.NoError(b, err)
		pieces += r.Finished
	}
	b.ReportMetric(float64(pieces)/b.Elapsed().Seconds(), "pieces/s")
	b.ReportMetric(trace.Length().Seconds()*float64(b.N)/b.Elapsed().Seconds(), "simulated_s/s")
}

// BenchmarkDecide measures one decision: the algorithm, and the policy with its
// record.
func BenchmarkDecide(b *testing.B) {
	for _, name := range []string{"threshold", "target", "rate", "latency", "cost", "predictive"} {
		b.Run(name, func(b *testing.B) {
			made, err := builtin.New(name, nil)
			require.NoError(b, err)
			g, err := scaling.NewGovernor(name, made(), scaling.DefaultPolicy())
			require.NoError(b, err)
			w := scaling.NewWindow(15 * time.Minute)
			now := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
			for b.Loop() {
				now = now.Add(15 * time.Second)
				w.Add(scaler.Sample{At: now, Span: 15 * time.Second, Size: 8, Arrivals: 60 + now.Unix()%13, Completions: 60, Utilization: 0.7})
				d := g.Decide(b.Context(), scaler.Observation{
					Now: now, Current: 8, Target: 8, Min: 1, Max: 50, BudgetLeft: -1, Samples: w.Samples(),
				})
				if d.Advice == nil {
					b.Fatal(d.Reason)
				}
			}
		})
	}
}
