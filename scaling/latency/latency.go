package latency

import (
	"context"
	"fmt"
	"time"

	"github.com/tasker-systems/tasker-host/scaling"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// Options holds the options of the algorithm.
type Options struct {
	Wait     scaling.Duration `json:"wait" doc:"how long work may wait before it starts"`
	Headroom float64          `json:"headroom" doc:"the share of their time that executors should work when nothing waits too long"`
	Window   scaling.Duration `json:"window" doc:"how far back to look at samples"`
}

// Defaults let work wait for five seconds.
func Defaults() Options {
	return Options{
		Wait: scaling.Duration(5 * time.Second), Headroom: 0.85,
		Window: scaling.Duration(time.Minute),
	}
}

// Check returns everything that is wrong with the options.
func (o Options) Check() error {
	var c scaling.Checks
	c.Time("wait", o.Wait, time.Millisecond, 24*time.Hour)
	c.Between("headroom", o.Headroom, 0.1, 1)
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
	allowed := arrivals * o.Wait.Seconds()
	excess := max(0, float64(load.Depth)-allowed)
	want := arrivals*service/o.Headroom + excess*service/o.Wait.Seconds()
	return scaler.Decision{
		Target: scaling.Ceil(want), Confidence: 1,
		Reason: fmt.Sprintf("%.3g arrive a second, each %.3g s of work; %d wait, %.3g may", arrivals, service, load.Depth, allowed),
	}, nil
}
