package scaling_test

import (
	"context"
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/scaling"
	"github.com/tasker-systems/tasker-host/scaling/builtin"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// pool is what an algorithm sees in an example: one minute of a pool.
type pool struct {
	n                             int
	arrivals, completions, errors int64
	depth                         int64
	utilization                   float64
	latency                       time.Duration
}

func (p pool) observation() scaler.Observation {
	return scaler.Observation{
		Pool: "p", Now: epoch, Current: p.n, Target: p.n, Min: 1, Max: 10, BudgetLeft: -1,
		Samples: []scaler.Sample{{
			At: epoch, Span: time.Minute, Size: p.n, Arrivals: p.arrivals, Completions: p.completions, Errors: p.errors,
			QueueDepth: p.depth, Utilization: p.utilization, LatencyP95: p.latency,
		}},
	}
}

func algorithm(t require.TestingT, name, options string) scaler.Scaler {
	made, err := builtin.New(name, []byte(options))
	require.NoError(t, err)
	return made()
}

// Each example can be computed by hand with the formula in the algorithm's package
// comment. The first ones of threshold are the reference's own.
func TestWorkedExamples(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, algorithm, options string
		pool                     pool
		want                     int
	}{
		{"busy: ⌈3·0.95/0.75⌉", "threshold", "", pool{n: 3, completions: 100, utilization: 0.95}, 4},
		{"idle: 3 - ⌊(3-1)/2⌋", "threshold", "", pool{n: 3, completions: 100, utilization: 0.20}, 2},
		{"errors: 10% > 5%", "threshold", "", pool{n: 3, completions: 100, errors: 10, utilization: 0.5}, 4},
		{"queue: 150/50 more", "threshold", "", pool{n: 3, completions: 100, depth: 150, utilization: 0.5}, 6},
		{"queue, no further than the most", "threshold", "", pool{n: 8, completions: 100, depth: 500, utilization: 0.5}, 10},
		{"errors at the most: the next rule", "threshold", "", pool{n: 10, completions: 100, errors: 10, utilization: 0.2}, 6},
		{"within", "threshold", "", pool{n: 3, completions: 100, utilization: 0.75, depth: 100}, 3},
		{"idle at the least", "threshold", "", pool{n: 1, completions: 1, utilization: 0.01}, 1},

		// 60 a minute are 1 a second; 60 completions in 2·60·0.75 executor seconds are 1.5 s each: 1·1.5/0.75.
		{"as many as are busy", "rate", "", pool{n: 2, arrivals: 60, completions: 60, utilization: 0.75}, 2},
		{"(1 + 60/60)·1.5/0.75", "rate", "", pool{n: 2, arrivals: 60, completions: 60, utilization: 0.75, depth: 60}, 4},
		{"(1 + 240/60)·1.5/0.75 = 10, capped at 2·2", "rate", "", pool{n: 2, arrivals: 60, completions: 60, utilization: 0.75, depth: 240}, 4},
		{"nothing arrives", "rate", "", pool{n: 2, completions: 60, utilization: 0.75}, 0},

		{"4·0.9/0.75 = 4.8", "target", "", pool{n: 4, utilization: 0.9}, 5},
		{"0.8 is within a tenth of 0.75", "target", "", pool{n: 4, utilization: 0.8}, 4},
		{"0.6 is within a quarter", "target", "", pool{n: 4, utilization: 0.6}, 4},
		{"4·0.3/0.75 = 1.6", "target", "", pool{n: 4, utilization: 0.3}, 2},
		{"20 wait for 4, 2 each are wanted", "target", `{"measure":"queue","value":2}`, pool{n: 4, depth: 20}, 10},
		{"3 s, 2 s wanted", "target", `{"measure":"latency","value":2}`, pool{n: 4, latency: 3 * time.Second}, 6},

		// λ = 2, S = 4·60·0.85/120 = 1.7: 2·1.7/0.85 = 4; 10 may wait for 5 s.
		{"nobody waits too long", "latency", "", pool{n: 4, arrivals: 120, completions: 120, utilization: 0.85, depth: 10}, 4},
		{"20 too many: 4 + 20·1.7/5 = 10.8", "latency", "", pool{n: 4, arrivals: 120, completions: 120, utilization: 0.85, depth: 30}, 11},

		// λ = 1, S = 2: with n = 3 of a = 2, C = 4/9 wait at all, and 4/9·exp(-1·8/2) = 0.81% longer than 8 s:
		// 3 + 0.1·0.0081·3600 = 5.9; n = 4: C = 4/23, late 4/23·exp(-8) = 0.0058%, 4 + 0.02; n = 5 costs 5.
		{"3 are 5.9, 4 are 4.02, 5 are 5", "cost", `{"price":1,"penalty":0.1,"latency":"10s"}`, pool{n: 4, arrivals: 60, completions: 60, utilization: 0.5}, 4},
		{"lateness is free: the first that keeps up", "cost", `{"penalty":0,"latency":"10s"}`, pool{n: 4, arrivals: 60, completions: 60, utilization: 0.5}, 3},
		{"more work than executors", "cost", "", pool{n: 4, arrivals: 6000, completions: 60, utilization: 0.5}, 10},

		// Until there is a forecast, as rate, without the cap.
		{"too early: (1 + 240/60)·1.5/0.75", "predictive", "", pool{n: 2, arrivals: 60, completions: 60, utilization: 0.75, depth: 240}, 10},

		{"the largest of 4 and 10", "composite", `{"mode":"max","of":[{"algorithm":"rate"},{"algorithm":"predictive"}]}`, pool{n: 2, arrivals: 60, completions: 60, utilization: 0.75, depth: 240}, 10},
		{"the smallest", "composite", `{"mode":"min","of":[{"algorithm":"rate"},{"algorithm":"predictive"}]}`, pool{n: 2, arrivals: 60, completions: 60, utilization: 0.75, depth: 240}, 4},
		{"the first that knows", "composite", `{"mode":"first","of":[{"algorithm":"rate"},{"algorithm":"target"}]}`, pool{n: 2, utilization: 0.9}, 3},
	} {
		t.Run(c.algorithm+"/"+c.name, func(t *testing.T) {
			t.Parallel()
			d, err := algorithm(t, c.algorithm, c.options).Decide(t.Context(), c.pool.observation())
			require.NoError(t, err)
			require.NoError(t, d.Check())
			require.Equal(t, c.want, d.Target, d.Reason)
		})
	}
}

var configured = map[string]string{
	"threshold": "", "target": "", "rate": "", "latency": "", "cost": "", "predictive": `{"bucket":"10s","max_season":"5m"}`,
	"composite": `{"of":[{"algorithm":"predictive","options":{"bucket":"5s","max_season":"2m"}},{"algorithm":"cost"}]}`,
}

// For any observation, however absurd, an algorithm gives an answer that a host
// can use and does not panic.
func TestAlgorithmsAnswerToAnything(t *testing.T) {
	t.Parallel()
	count := func(t *rapid.T, name string) int64 {
		return rapid.SampledFrom([]int64{0, 0, 1, 7, 60, 5000, math.MaxInt64, math.MinInt64}).Draw(t, name)
	}
	for name, options := range configured {
		t.Run(name, rapid.MakeCheck(func(t *rapid.T) {
			s := algorithm(t, name, options)
			o := scaler.Observation{Pool: "p", Now: epoch, Min: 1, Max: rapid.SampledFrom([]int{1, 50, math.MaxInt32}).Draw(t, "max")}
			o.Current = rapid.SampledFrom([]int{0, 1, 9, math.MaxInt32}).Draw(t, "current")
			o.Target = o.Current
			if name == "cost" || name == "composite" {
				o.Max = min(o.Max, 100_000) // it looks at every size
			}
			for range rapid.IntRange(0, 12).Draw(t, "decisions") {
				span := rapid.SampledFrom([]time.Duration{time.Nanosecond, time.Second, time.Minute, 24 * time.Hour}).Draw(t, "span")
				o.Now = o.Now.Add(span)
				o.Samples = append(o.Samples, scaler.Sample{
					At: o.Now, Span: span, Size: o.Current, Arrivals: count(t, "arrivals"), Completions: count(t, "completions"),
					Errors: count(t, "errors"), QueueDepth: count(t, "depth"),
					Utilization: rapid.SampledFrom([]float64{0, 0.5, 1, -1, 1e9, math.NaN(), math.Inf(1)}).Draw(t, "utilization"),
				})
				d, err := s.Decide(context.Background(), o)
				if err == nil {
					require.NoError(t, d.Check())
				}
			}
		}))
	}
}

func TestOptionsAreStrict(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ algorithm, options, want string }{
		{"nope", "", `there is no algorithm "nope"; there are threshold, target`},
		{"rate", `{"drian":"1m"}`, `unknown field "drian"`},
		{"rate", `{"drain":"soon"}`, `invalid duration`},
		{"rate", `{} {}`, "something after the JSON object"},
		{"rate", `{"drain":"0s","max_factor":1}`, "/drain: 0s: want 1s to 24h0m0s"},
		{"rate", `{"drain":"0s","max_factor":1}`, "/max_factor: 1: want 1.1 to 100"},
		{"threshold", `{"upper":2}`, "/upper: 2 times the target of 0.75 is never exceeded"},
		{"target", `{"measure":"mood"}`, `/measure: "mood": want one of utilization, queue, latency`},
		{"target", `{"value":0.95}`, "is never exceeded"},
		{"latency", `{"wait":"0s"}`, "/wait"},
		{"cost", `{"price":0}`, "/price: 0: want more than 0"},
		{"predictive", `{"season":"90s"}`, "/season: 1m30s: want 0, or a multiple of the bucket"},
		{"predictive", `{"model":"crystal ball"}`, "/model"},
		{"composite", ``, "/of: there are no algorithms"},
		{"composite", `{"of":[{"algorithm":"composite"}]}`, "/of/0: composite cannot combine itself"},
		{"composite", `{"of":[{"algorithm":"rate"},{"algorithm":"rate"}]}`, "rate is used twice"},
		{"composite", `{"of":[{"algorithm":"rate","options":{"x":1}}]}`, `/of/0: options of algorithm rate`},
		{"composite", `{"mode":"mean","of":[{"algorithm":"rate"}]}`, `/mode: "mean"`},
	} {
		_, err := builtin.New(c.algorithm, []byte(c.options))
		require.ErrorContains(t, err, c.want, c)
	}
	problems := scaling.Problems(scaling.Policy{StepUp: -1}.Check())
	require.Len(t, problems, 2)
	require.Equal(t, "/step_up", problems[0].Path)
}

// Every default is valid, and is what the schema of a plugin shows.
func TestDefaults(t *testing.T) {
	t.Parallel()
	for _, a := range builtin.All() {
		if a.Name != "composite" {
			require.NotNil(t, algorithm(t, a.Name, ""))
		}
	}
	raw, err := json.Marshal(scaling.DefaultPolicy())
	require.NoError(t, err)
	require.Contains(t, string(raw), `"cooldown_up":"15s"`)
}

// The duration of a piece of work comes from the samples in which work was
// completed and time was spent on it; those of the window take precedence over
// older ones.
func TestDemand(t *testing.T) {
	t.Parallel()
	worked := func(ago time.Duration, completions int64, utilization float64) scaler.Sample {
		return scaler.Sample{At: epoch.Add(-ago), Span: time.Second, Size: 2, Completions: completions, Utilization: utilization}
	}
	for name, c := range map[string]struct {
		samples []scaler.Sample
		service float64
		ok      bool
	}{
		"in the window":                     {[]scaler.Sample{worked(time.Hour, 1, 1), worked(0, 4, 0.5)}, 0.25, true},
		"longer ago":                        {[]scaler.Sample{worked(time.Hour, 4, 0.5), worked(0, 0, 0)}, 0.25, true},
		"longer ago: no time was spent now": {[]scaler.Sample{worked(time.Hour, 1, 1), worked(0, 3, 0)}, 0.5, true},
		"never: no time was spent":          {[]scaler.Sample{worked(0, 3, 0)}, 0, false},
		"never: nothing was completed":      {[]scaler.Sample{worked(0, 0, 1)}, 0, false},
		"nothing was measured":              {nil, 0, false},
	} {
		_, service, ok := scaling.Demand(scaler.Observation{Now: epoch, Samples: c.samples}, scaling.Duration(time.Minute))
		require.Equal(t, c.ok, ok, name)
		if ok {
			require.InDelta(t, c.service, service, 1e-9, name)
		}
	}
}

// A pool that is seen to have nothing to do needs no executors. While anything arrives, waits or
// runs, or if nothing was measured, it keeps its size until it is known how long work takes.
func TestNoWork(t *testing.T) {
	t.Parallel()
	nothing := pool{n: 8}.observation()
	nothing.Samples = nil
	old := pool{n: 8}.observation()
	old.Now = old.Now.Add(time.Hour)
	for name, c := range map[string]struct {
		seen scaler.Observation
		want int
	}{
		"idle":                  {pool{n: 8}.observation(), 0},
		"busy":                  {pool{n: 8, utilization: 0.01}.observation(), 8},
		"work arrived":          {pool{n: 8, arrivals: 1}.observation(), 8},
		"work waits":            {pool{n: 8, depth: 1}.observation(), 8},
		"done in no time":       {pool{n: 8, completions: 1}.observation(), 8},
		"nothing was measured":  {nothing, 8},
		"idle, but an hour ago": {old, 8},
	} {
		for _, a := range []string{"rate", "latency", "cost", "predictive"} {
			d, err := algorithm(t, a, "").Decide(t.Context(), c.seen)
			require.NoError(t, err)
			require.NoError(t, d.Check())
			require.Equal(t, c.want, d.Target, "%s: %s: %s", a, name, d.Reason)
		}
	}
}
