// Package threshold implements the algorithm of the reference system: rules with fixed
// thresholds; the first that applies decides. The rules and the worked examples are those of
// its pool manager (orchestration/coordinator/scaling.rs). The inputs are what they were
// meant to be there: the share of the executors' time spent working, the depth of the queue,
// and the share of failures, each over a window.
package threshold

import (
	"context"
	"fmt"
	"time"

	"github.com/tasker-systems/tasker-host/scaling"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// Options holds the thresholds.
type Options struct {
	TargetUtilization float64          `json:"target_utilization" doc:"the share of their time that executors should work"`
	Upper             float64          `json:"upper" doc:"grow above this many times the target"`
	Lower             float64          `json:"lower" doc:"shrink below this many times the target"`
	MaxErrorRate      float64          `json:"max_error_rate" doc:"add one executor above this share of failures; 1: never"`
	MaxDepth          int64            `json:"max_depth" doc:"grow above this many pieces of work that wait"`
	DepthStep         int64            `json:"depth_step" doc:"add one executor for every so many pieces of waiting work"`
	Window            scaling.Duration `json:"window" doc:"how far back to look at samples"`
}

// Defaults are the reference's.
func Defaults() Options {
	return Options{
		TargetUtilization: 0.75, Upper: 1.2, Lower: 0.5, MaxErrorRate: 0.05,
		MaxDepth: 100, DepthStep: 50, Window: scaling.Duration(time.Minute),
	}
}

// Check returns everything that is wrong with the options.
func (o Options) Check() error {
	var c scaling.Checks
	c.Between("target_utilization", o.TargetUtilization, 0.1, 1)
	c.Between("upper", o.Upper, 1, 10)
	c.Require(o.TargetUtilization*o.Upper < 1, "upper", "%g times the target of %g is never exceeded: utilization ends at 1", o.Upper, o.TargetUtilization)
	c.Between("lower", o.Lower, 0, 1)
	c.Between("max_error_rate", o.MaxErrorRate, 0, 1)
	c.Require(o.MaxDepth >= 0, "max_depth", "%d: want 0 or more", o.MaxDepth)
	c.Require(o.DepthStep >= 1, "depth_step", "%d: want 1 or more", o.DepthStep)
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
	n, load := seen.Target, scaling.Sum(samples)
	to := func(target int, format string, args ...any) (scaler.Decision, error) {
		return scaler.Decision{Target: target, Confidence: 1, Reason: fmt.Sprintf(format, args...)}, nil
	}
	utilization := load.Utilization()
	if rate := load.ErrorRate(); rate > o.MaxErrorRate && n < seen.Max {
		return to(n+1, "errors %.3g above %g", rate, o.MaxErrorRate)
	}
	if load.Depth > o.MaxDepth && n < seen.Max {
		more := min(max(1, load.Depth/o.DepthStep), int64(seen.Max-n))
		return to(n+int(more), "%d wait, above %d", load.Depth, o.MaxDepth)
	}
	if utilization > o.Upper*o.TargetUtilization && n < seen.Max {
		want := scaling.Ceil(load.Busy / load.Span.Seconds() / o.TargetUtilization)
		return to(min(max(want, n), seen.Max), "utilization %.2f above %g", utilization, o.Upper*o.TargetUtilization)
	}
	if utilization < o.Lower*o.TargetUtilization && n > seen.Min {
		return to(n-max(1, (n-seen.Min)/2), "utilization %.2f below %g", utilization, o.Lower*o.TargetUtilization)
	}
	return to(n, "utilization %.2f, %d wait: within the thresholds", utilization, load.Depth)
}
