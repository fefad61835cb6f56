package scaling

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// Governor decides for one pool: it asks the algorithm and applies the policy.
type Governor struct {
	name      string
	algorithm scaler.Scaler
	policy    Policy

	advised  []advised // the targets advised within the stabilization window, oldest first
	changed  time.Time // when the target last changed; zero: never
	up       bool      // in which direction
	reversed time.Time // when a change last reversed the one before; zero: never
}

type advised struct {
	at     time.Time
	target int
}

// NewGovernor returns a governor for one pool; name is that of the algorithm it asks.
func NewGovernor(name string, algorithm scaler.Scaler, policy Policy) (*Governor, error) {
	if err := policy.Check(); err != nil {
		return nil, fmt.Errorf("scaling policy: %w", err)
	}
	return &Governor{name: name, algorithm: algorithm, policy: policy}, nil
}

// Decide asks the algorithm for advice on an observation and applies the rules to the answer.
// It always reaches a decision; if something goes wrong, the reason says so. The caller brings
// the pool to Decision.To.
func (g *Governor) Decide(ctx context.Context, o scaler.Observation) Decision {
	d := Decision{
		At: o.Now, Pool: o.Pool, Algorithm: g.name,
		Current: o.Current, Min: o.Min, Max: o.Max, BudgetLeft: o.BudgetLeft,
		Samples: len(o.Samples), From: o.Target, To: o.Target,
	}
	if last, ok := o.Last(); ok {
		d.Last = &last
	}
	advice, err := g.ask(ctx, o)
	if err != nil {
		d.Reason = "held: " + err.Error() // it may be long, and decisions are kept
		d.Reason = strings.ToValidUTF8(d.Reason[:min(len(d.Reason), scaler.MaxReasonBytes)], "")
	} else {
		d.Advice = &Advice{Target: advice.Target, Reason: advice.Reason, Confidence: advice.Confidence}
		d.Reason = advice.Reason
		d.To = advice.Target
		g.smooth(&d)
	}
	bound(&d)
	g.note(d)
	return d
}

// ask returns advice that can be used, or why there is none.
func (g *Governor) ask(ctx context.Context, o scaler.Observation) (scaler.Decision, error) {
	last, ok := o.Last()
	if !ok {
		return scaler.Decision{}, errors.New("nothing was measured")
	}
	if age := o.Now.Sub(last.At); age > g.policy.Stale.D() {
		return scaler.Decision{}, fmt.Errorf("the latest sample is %s old, more than the allowed %s", age, g.policy.Stale)
	}
	advice, err := decide(ctx, g.algorithm, o)
	if late := ctx.Err(); late != nil {
		return advice, fmt.Errorf("the algorithm did not answer in time: %w", late)
	}
	if err != nil {
		return advice, fmt.Errorf("the algorithm failed: %w", err)
	}
	if err := advice.Check(); err != nil {
		return advice, fmt.Errorf("the algorithm's answer makes no sense: %w", err)
	}
	if most := absurd * max(o.Max, 1); advice.Target > most {
		return advice, fmt.Errorf("the algorithm's answer makes no sense: the target is %d, more than %d times the largest allowed", advice.Target, absurd)
	}
	if advice.Confidence < g.policy.MinConfidence {
		return advice, fmt.Errorf("the algorithm is not sure enough: confidence %g, at least %g is needed: %s", advice.Confidence, g.policy.MinConfidence, advice.Reason)
	}
	return advice, nil
}

// absurd is how many times the largest size an advice may ask for before it counts as a fault.
const absurd = 100

// decide calls an algorithm; a panic is its error.
func decide(ctx context.Context, algorithm scaler.Scaler, o scaler.Observation) (d scaler.Decision, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return algorithm.Decide(ctx, o)
}

// smooth applies the rules that delay and dampen changes.
func (g *Governor) smooth(d *Decision) {
	g.stabilize(d)
	if diff := abs(d.To - d.From); diff > 0 && float64(diff) <= g.policy.DeadBand*float64(d.From) {
		d.clamp(RuleDeadBand, d.From, "the difference is within %g of the size", g.policy.DeadBand)
	}
	if d.To == d.From {
		return
	}
	up := d.To > d.From
	if wait := g.reversed.Add(g.policy.Reversal.D()).Sub(d.At); up != g.up && !g.reversed.IsZero() && wait > 0 {
		d.clamp(RuleReversal, d.From, "it changed direction recently: %s to wait", wait)
		return
	}
	cooldown := g.policy.CooldownDown
	if up {
		cooldown = g.policy.CooldownUp
	}
	if wait := g.changed.Add(cooldown.D()).Sub(d.At); !g.changed.IsZero() && wait > 0 {
		d.clamp(RuleCooldown, d.From, "it changed recently: %s to wait", wait)
		return
	}
	if most := g.policy.StepUp; most > 0 && d.To-d.From > most {
		d.clamp(RuleStep, d.From+most, "at most %d are added at once", most)
	}
	if most := g.policy.StepDown; most > 0 && d.From-d.To > most {
		d.clamp(RuleStep, d.From-most, "at most %d are removed at once", most)
	}
}

// stabilize records the advice, and keeps the pool from shrinking below what was advised
// within the window.
func (g *Governor) stabilize(d *Decision) {
	g.advised = append(g.advised, advised{at: d.At, target: d.To})
	oldest := d.At.Add(-g.policy.Stabilization.D())
	for len(g.advised) > 1 && !g.advised[0].at.After(oldest) {
		g.advised = g.advised[1:]
	}
	largest := 0
	for _, a := range g.advised {
		largest = max(largest, a.target)
	}
	if d.To < d.From && largest > d.To {
		d.clamp(RuleStabilization, min(largest, d.From), "%d was advised within the last %s", largest, g.policy.Stabilization)
	}
}

// bound applies the rules that always hold.
func bound(d *Decision) {
	if d.To < d.Min {
		d.clamp(RuleBounds, d.Min, "the minimum is %d", d.Min)
	}
	if d.To > d.Max {
		d.clamp(RuleBounds, d.Max, "the maximum is %d", d.Max)
	}
	if most := d.Current + d.BudgetLeft; d.BudgetLeft >= 0 && d.To > most {
		d.clamp(RuleBudget, most, "the host's resources allow %d more than the current %d", d.BudgetLeft, d.Current)
	}
}

func (d *Decision) clamp(rule Rule, to int, format string, args ...any) {
	d.Clamps = append(d.Clamps, Clamp{Rule: rule, From: d.To, To: to, Reason: fmt.Sprintf(format, args...)})
	d.To = to
}

// note records a change for the rules of later decisions.
func (g *Governor) note(d Decision) {
	if !d.Changed() {
		return
	}
	up := d.To > d.From
	if !g.changed.IsZero() && up != g.up {
		g.reversed = d.At
	}
	g.changed, g.up = d.At, up
}

func abs(n int) int { return max(n, -n) }
