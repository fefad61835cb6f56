// Package target keeps one measure of a pool at a given value, as the horizontal
// pod autoscaler of Kubernetes does:
//
//	n = current · measured / value
//
// Hysteresis keeps it from hunting: it grows only when the measure is above the
// value by more than one tolerance, and shrinks only when it is below by more
// than another, larger one.
package target

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tasker-systems/tasker-host/scaling"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// What can be tracked.
const (
	Utilization = "utilization" // the share of the executors' time spent at work
	Queue       = "queue"       // pieces of work that wait, for each executor
	Latency     = "latency"     // seconds from ready to ended, 95th percentile
)

// Measures lists what can be tracked.
var Measures = []string{Utilization, Queue, Latency}

// Options of the algorithm.
type Options struct {
	Measure       string           `json:"measure" doc:"utilization, queue (waiting for each executor) or latency (95th percentile, seconds)"`
	Value         float64          `json:"value" doc:"where the measure should be"`
	ToleranceUp   float64          `json:"tolerance_up" doc:"grow when the measure is above the value by more than this share"`
	ToleranceDown float64          `json:"tolerance_down" doc:"shrink when the measure is below the value by more than this share"`
	Window        scaling.Duration `json:"window" doc:"how far back to look at samples"`
}

// Defaults track a utilization of 0.75.
func Defaults() Options {
	return Options{
		Measure: Utilization, Value: 0.75, ToleranceUp: 0.1, ToleranceDown: 0.25,
		Window: scaling.Duration(time.Minute),
	}
}

// Check returns everything that is wrong with the options.
func (o Options) Check() error {
	var c scaling.Checks
	c.Require(slices.Contains(Measures, o.Measure), "measure", "%q: want one of %s", o.Measure, strings.Join(Measures, ", "))
	c.Require(o.Value > 0 && o.Value <= 1e6, "value", "%g: want more than 0", o.Value)
	if o.Measure == Utilization {
		c.Require(o.Value*(1+o.ToleranceUp) < 1, "value", "%g with the tolerance of %g is never exceeded: utilization ends at 1", o.Value, o.ToleranceUp)
	}
	c.Between("tolerance_up", o.ToleranceUp, 0, 1)
	c.Between("tolerance_down", o.ToleranceDown, 0, 0.9)
	c.Time("window", o.Window, time.Second, 24*time.Hour)
	return c.Err()
}

// New makes the algorithm.
func New(o Options) (scaler.New, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	return func() scaler.Scaler { return scaler.Func(o.decide) }, nil
}

func (o Options) decide(_ context.Context, seen scaler.Observation) (scaler.Decision, error) {
	samples := seen.Within(o.Window.D())
	if len(samples) == 0 {
		return scaler.Hold(seen, "nothing was measured within "+o.Window.String()), nil
	}
	measured, size := o.measure(samples)
	ratio := measured / o.Value
	d := scaler.Decision{Target: seen.Target, Confidence: 1}
	d.Reason = fmt.Sprintf("%s %.3g, wanted %g", o.Measure, measured, o.Value)
	if ratio > 1+o.ToleranceUp || ratio < 1-o.ToleranceDown {
		d.Target = scaling.Ceil(size * ratio)
		return d, nil
	}
	d.Reason += ": within the tolerance"
	return d, nil
}

// measure returns the measure over the samples and the size it was measured at.
func (o Options) measure(samples []scaler.Sample) (value, size float64) {
	load := scaling.Sum(samples)
	size = load.Available / load.Span.Seconds()
	switch o.Measure {
	case Queue:
		return float64(load.Depth) / max(size, 1), max(size, 1)
	case Latency:
		worst := time.Duration(0)
		for _, s := range samples {
			worst = max(worst, s.LatencyP95)
		}
		return worst.Seconds(), max(size, 1)
	default:
		return load.Utilization(), size
	}
}
