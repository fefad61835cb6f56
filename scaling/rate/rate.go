package rate

import (
	"context"
	"fmt"
	"time"

	"github.com/tasker-systems/tasker-host/scaling"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// Options of the algorithm.
type Options struct {
	TargetUtilization float64          `json:"target_utilization" doc:"the share of their time that executors should work"`
	Drain             scaling.Duration `json:"drain" doc:"the time within which a backlog should be worked off"`
	MaxFactor         float64          `json:"max_factor" doc:"grow to at most this many times the current size at once"`
	Window            scaling.Duration `json:"window" doc:"how far back to look at samples"`
}

// Defaults are the reference's target, and its cap of twice the size.
func Defaults() Options {
	return Options{
		TargetUtilization: 0.75, Drain: scaling.Duration(time.Minute),
		MaxFactor: 2, Window: scaling.Duration(time.Minute),
	}
}

// Check returns everything that is wrong with the options.
func (o Options) Check() error {
	var c scaling.Checks
	c.Between("target_utilization", o.TargetUtilization, 0.1, 1)
	c.Time("drain", o.Drain, time.Second, 24*time.Hour)
	c.Between("max_factor", o.MaxFactor, 1.1, 100)
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
	load, service, ok := scaling.Demand(seen, o.Window)
	if !ok {
		return scaling.NoWork(seen, load), nil
	}
	arrivals := load.ArrivalRate()
	want := scaling.Ceil((arrivals + float64(load.Depth)/o.Drain.Seconds()) * service / o.TargetUtilization)
	reason := fmt.Sprintf("%.3g arrive a second, each %.3g s of work, and %d wait", arrivals, service, load.Depth)
	if most := scaling.Ceil(o.MaxFactor * float64(max(seen.Current, 1))); want > most {
		want, reason = most, fmt.Sprintf("%s; %d are wanted, at most %g times %d at once", reason, want, o.MaxFactor, seen.Current)
	}
	return scaler.Decision{Target: want, Confidence: 1, Reason: reason}, nil
}
