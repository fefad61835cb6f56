package scaling_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/scaling"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

var epoch = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// says is an algorithm that gives a fixed answer.
func says(d *scaler.Decision) scaler.Scaler {
	return scaler.Func(func(context.Context, scaler.Observation) (scaler.Decision, error) { return *d, nil })
}

func advice(target int) scaler.Decision {
	return scaler.Decision{Target: target, Reason: "the test says so", Confidence: 1}
}

// see returns an observation of a pool of 1 to 20 with one fresh sample.
func see(at time.Duration, target int) scaler.Observation {
	now := epoch.Add(at)
	return scaler.Observation{
		Pool: "p", Now: now, Current: target, Target: target, Min: 1, Max: 20, BudgetLeft: -1,
		Samples: []scaler.Sample{{At: now, Span: time.Second, Size: target}},
	}
}

func governor(t require.TestingT, a scaler.Scaler, change func(*scaling.Policy)) *scaling.Governor {
	p := scaling.Policy{Stale: scaling.Duration(time.Minute)}
	if change != nil {
		change(&p)
	}
	g, err := scaling.NewGovernor("test", a, p)
	require.NoError(t, err)
	return g
}

func TestWhateverIsWrongHoldsThePool(t *testing.T) {
	t.Parallel()
	late, cancel := context.WithCancelCause(context.Background())
	cancel(context.DeadlineExceeded)
	answer := func(d scaler.Decision, err error) scaler.Func {
		return func(context.Context, scaler.Observation) (scaler.Decision, error) { return d, err }
	}
	silent, old := see(0, 4), see(0, 4)
	silent.Samples = nil
	old.Samples[0].At = epoch.Add(-time.Hour)
	for name, c := range map[string]struct {
		ctx       context.Context
		algorithm scaler.Scaler
		seen      scaler.Observation
		reason    string
	}{
		"error":      {algorithm: answer(advice(9), errors.New("no idea")), reason: "held: the algorithm failed: no idea"},
		"verbose":    {algorithm: answer(advice(9), errors.New(strings.Repeat("no ", 1<<20))), reason: "held: the algorithm failed: no no no"},
		"panic":      {algorithm: scaler.Func(func(context.Context, scaler.Observation) (scaler.Decision, error) { panic("boom") }), reason: "held: the algorithm failed: panic: boom"},
		"late":       {ctx: late, algorithm: answer(advice(9), nil), reason: "held: the algorithm did not answer in time"},
		"negative":   {algorithm: answer(advice(-1), nil), reason: "the target is -1"},
		"a million":  {algorithm: answer(advice(1_000_000), nil), reason: "the target is 1000000, more than 100 times the largest allowed"},
		"overflow":   {algorithm: answer(advice(math.MaxInt), nil), reason: "more than 100 times"},
		"no reason":  {algorithm: answer(scaler.Decision{Target: 9, Confidence: 1}, nil), reason: "there is no reason"},
		"NaN":        {algorithm: answer(scaler.Decision{Target: 9, Reason: "x", Confidence: math.NaN()}, nil), reason: "the confidence is NaN"},
		"infinite":   {algorithm: answer(scaler.Decision{Target: 9, Reason: "x", Confidence: math.Inf(1)}, nil), reason: "the confidence is +Inf"},
		"unsure":     {algorithm: answer(scaler.Decision{Target: 9, Reason: "a guess", Confidence: 0.1}, nil), reason: "not sure enough: confidence 0.1, at least 0.5 is needed: a guess"},
		"unmeasured": {algorithm: answer(advice(9), nil), seen: silent, reason: "held: nothing was measured"},
		"stale":      {algorithm: answer(advice(9), nil), seen: old, reason: "held: the latest sample is 1h0m0s old"},
	} {
		if c.ctx == nil {
			c.ctx = context.Background()
		}
		if c.seen.Now.IsZero() {
			c.seen = see(0, 4)
		}
		g := governor(t, c.algorithm, func(p *scaling.Policy) { p.MinConfidence = 0.5 })
		d := g.Decide(c.ctx, c.seen)
		require.Equal(t, 4, d.To, name)
		require.Nil(t, d.Advice, name)
		require.Contains(t, d.Reason, c.reason, name)
		require.True(t, strings.HasPrefix(d.Reason, "held: "), name)
		require.LessOrEqual(t, len(d.Reason), scaler.MaxReasonBytes, name)
	}
}

func TestARatioOfNothingIsZero(t *testing.T) {
	t.Parallel()
	for in, want := range map[float64]int{math.NaN(): 0, -3: 0, 0: 0, 2.0000000001: 2, 2.1: 3, math.Inf(1): math.MaxInt32, 1e300: math.MaxInt32} {
		require.Equal(t, want, scaling.Ceil(in), "%v", in)
	}
}

// Each rule alone, with its record.
func TestRules(t *testing.T) {
	t.Parallel()
	minute := scaling.Duration(time.Minute)
	type step struct {
		at         time.Duration
		advice, to int
		rules      string
	}
	for name, c := range map[string]struct {
		policy func(*scaling.Policy)
		steps  []step
	}{
		"bounds": {nil, []step{{0, 0, 1, "bounds"}, {1, 99, 20, "bounds"}, {2, 7, 7, ""}}},
		"step": {func(p *scaling.Policy) { p.StepUp, p.StepDown = 3, 2 }, []step{
			{0, 9, 7, "step"}, {1, 9, 9, ""}, {2, 1, 7, "step"}, {3, 6, 6, ""},
		}},
		"dead band": {func(p *scaling.Policy) { p.DeadBand = 0.25 }, []step{
			{0, 5, 4, "dead_band"}, {1, 3, 4, "dead_band"}, {2, 6, 6, ""}, {3, 5, 6, "dead_band"}, {4, 4, 4, ""},
		}},
		"cooldown": {func(p *scaling.Policy) { p.CooldownUp, p.CooldownDown = minute, 2*minute }, []step{
			{0, 5, 5, ""},
			{59 * time.Second, 6, 5, "cooldown"},
			{60 * time.Second, 6, 6, ""},
			{179 * time.Second, 5, 6, "cooldown"},
			{180 * time.Second, 5, 5, ""},
		}},
		"stabilization": {func(p *scaling.Policy) { p.Stabilization = minute }, []step{
			{0, 6, 6, ""},
			{30 * time.Second, 5, 6, "stabilization"},
			{59 * time.Second, 2, 6, "stabilization"},
			{61 * time.Second, 2, 5, "stabilization"},
			{125 * time.Second, 2, 2, ""},
		}},
		"stabilization does not keep it from growing": {func(p *scaling.Policy) { p.Stabilization, p.StepUp = minute, 3 }, []step{
			{0, 20, 7, "step"}, {1 * time.Second, 9, 9, ""}, {2 * time.Second, 9, 9, ""}, {3 * time.Second, 5, 9, "stabilization"},
		}},
		"reversal, then cooldown": {func(p *scaling.Policy) { p.Reversal, p.CooldownUp, p.CooldownDown, p.StepUp = minute, 10*minute, 0, 1 }, []step{
			{0, 5, 5, ""}, {1 * time.Second, 4, 4, ""}, {2 * time.Second, 9, 4, "reversal"}, {61 * time.Second, 9, 4, "cooldown"},
		}},
		"reversal": {func(p *scaling.Policy) { p.Reversal = minute }, []step{
			{0, 6, 6, ""},
			{1 * time.Second, 5, 5, ""}, // direction changed
			{2 * time.Second, 4, 4, ""},
			{30 * time.Second, 6, 4, "reversal"},
			{61 * time.Second, 6, 6, ""},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answer, target := advice(0), 4
			g := governor(t, says(&answer), c.policy)
			for _, s := range c.steps {
				answer = advice(s.advice)
				d := g.Decide(t.Context(), see(s.at, target))
				var rules []string
				for _, clamp := range d.Clamps {
					rules = append(rules, string(clamp.Rule))
					require.NotEmpty(t, clamp.Reason)
				}
				require.Equal(t, s.to, d.To, "%+v", d)
				require.Equal(t, s.rules, strings.Join(rules, " "), "%+v", d)
				require.Equal(t, s.advice, d.Advice.Target)
				require.Equal(t, epoch.Add(s.at), d.Last.At)
				target = d.To
			}
		})
	}
}

func TestBudgetWinsOverTheLeast(t *testing.T) {
	t.Parallel()
	answer := advice(9)
	o := see(0, 6)
	o.Current, o.Min, o.BudgetLeft = 3, 5, 1
	d := governor(t, says(&answer), nil).Decide(t.Context(), o)
	require.Equal(t, 4, d.To)
	require.Equal(t, []scaling.Clamp{{Rule: scaling.RuleBudget, From: 9, To: 4, Reason: "the host's resources allow 1 more than the current 3"}}, d.Clamps)
}

func policies() *rapid.Generator[scaling.Policy] {
	return rapid.Custom(func(t *rapid.T) scaling.Policy {
		seconds := func(name string) scaling.Duration {
			return scaling.Duration(rapid.IntRange(0, 300).Draw(t, name)) * scaling.Duration(time.Second)
		}
		return scaling.Policy{
			StepUp: rapid.IntRange(0, 5).Draw(t, "step up"), StepDown: rapid.IntRange(0, 5).Draw(t, "step down"),
			CooldownUp: seconds("cooldown up"), CooldownDown: seconds("cooldown down"),
			DeadBand:      rapid.Float64Range(0, 0.5).Draw(t, "dead band"),
			Stabilization: seconds("stabilization"), Reversal: seconds("reversal"), Stale: scaling.Duration(time.Minute),
		}
	})
}

// Whatever an algorithm says, the rules hold: bounds and budget always; nothing
// within a cooldown; no step too large; at most one turn in a window.
func TestPolicyHoldsAgainstAnyAdvice(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := policies().Draw(t, "policy")
		var answer scaler.Decision
		g := governor(t, says(&answer), func(q *scaling.Policy) { *q = p })
		least := rapid.IntRange(1, 5).Draw(t, "min")
		most := rapid.IntRange(least, 30).Draw(t, "max")
		budget := rapid.IntRange(least, 40).Draw(t, "budget")
		target := rapid.IntRange(least, min(most, budget)).Draw(t, "size")
		var at time.Duration
		changed, turned, up := time.Duration(-1), time.Duration(-1), false
		for range rapid.IntRange(1, 60).Draw(t, "decisions") {
			at += time.Duration(rapid.IntRange(1, 120).Draw(t, "wait")) * time.Second
			answer = advice(rapid.IntRange(-2, 60).Draw(t, "advice"))
			o := see(at, target)
			o.Min, o.Max, o.BudgetLeft = least, most, budget-target
			d := g.Decide(context.Background(), o)

			require.GreaterOrEqual(t, d.To, least)
			require.LessOrEqual(t, d.To, min(most, budget))
			require.NotEmpty(t, d.Reason)
			if d.Advice != nil {
				size := d.Advice.Target
				for _, c := range d.Clamps { // the record explains every change from the advice to the result
					require.Equal(t, size, c.From)
					require.NotEqual(t, size, c.To)
					size = c.To
				}
				require.Equal(t, d.To, size)
			}
			if !d.Changed() {
				continue
			}
			grows := d.To > target
			step, cooldown := p.StepDown, p.CooldownDown
			if grows {
				step, cooldown = p.StepUp, p.CooldownUp
			}
			if step > 0 {
				require.LessOrEqual(t, max(d.To-target, target-d.To), step)
			}
			if changed >= 0 {
				require.GreaterOrEqual(t, at-changed, cooldown.D())
				if grows != up {
					if turned >= 0 {
						require.GreaterOrEqual(t, at-turned, p.Reversal.D())
					}
					turned = at
				}
			}
			changed, up, target = at, grows, d.To
		}
	})
}

// With constant advice, a pool settles at the advised size or within the dead
// band around it.
func TestConstantAdviceSettles(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := policies().Draw(t, "policy")
		answer := advice(rapid.IntRange(1, 20).Draw(t, "advice"))
		g := governor(t, says(&answer), func(q *scaling.Policy) { *q = p })
		target := rapid.IntRange(1, 20).Draw(t, "size")
		last := 0
		for i := range 400 {
			d := g.Decide(context.Background(), see(time.Duration(i)*15*time.Second, target))
			if d.Changed() {
				last = i
			}
			target = d.To
		}
		require.Less(t, last, 399)
		require.LessOrEqual(t, math.Abs(float64(answer.Target-target)), p.DeadBand*float64(target)+1e-9)
	})
}

func TestPolicyRefusesNonsense(t *testing.T) {
	t.Parallel()
	require.NoError(t, scaling.DefaultPolicy().Check())
	err := scaling.Policy{
		StepUp: -1, StepDown: -2, DeadBand: math.NaN(), CooldownUp: -1, CooldownDown: -1, Stabilization: -1, Reversal: -1, MinConfidence: 2,
	}.Check()
	for _, want := range []string{"/step_up: -1: want 0 or more", "/step_down: -2: want 0 or more", "/cooldown_down", "/stabilization", "/reversal", "/dead_band: NaN: want 0 to 0.5", "/cooldown_up", "/stale: 0s", "/min_confidence: 2"} {
		require.ErrorContains(t, err, want)
	}
	_, err = scaling.NewGovernor("x", says(nil), scaling.Policy{})
	require.ErrorContains(t, err, "scaling policy: /stale")
}

func TestJournalKeepsChangesLonger(t *testing.T) {
	t.Parallel()
	j := scaling.NewJournal(3)
	require.Empty(t, j.Latest(5))
	for i := range 10 {
		to := 4
		if i == 1 || i == 2 {
			to = i
		}
		j.Add(scaling.Decision{Samples: i, From: 4, To: to})
	}
	numbers := func(list []scaling.Decision) (n []int) {
		for _, d := range list {
			n = append(n, d.Samples)
		}
		return n
	}
	require.Equal(t, []int{9, 8, 7}, numbers(j.Latest(5)))
	require.Equal(t, []int{9}, numbers(j.Latest(1)))
	require.Empty(t, j.Latest(-1))
	require.Equal(t, []int{2, 1}, numbers(j.Changes(5)))
	for i := 10; i < 15; i++ {
		j.Add(scaling.Decision{Samples: i, From: 4, To: 5})
	}
	require.Equal(t, []int{14, 13, 12}, numbers(j.Changes(5)))
}
