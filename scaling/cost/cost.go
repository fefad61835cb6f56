package cost

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/tasker-systems/tasker-host/scaling"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// Options holds the options of the algorithm.
type Options struct {
	Price   float64          `json:"price" doc:"what an executor costs per hour"`
	Penalty float64          `json:"penalty" doc:"what a piece of work that ends too late costs"`
	Latency scaling.Duration `json:"latency" doc:"work that ends later than this after it became ready is too late"`
	Drain   scaling.Duration `json:"drain" doc:"the time within which a backlog should be worked off"`
	Window  scaling.Duration `json:"window" doc:"how far back to look at samples"`
}

// Defaults makes a thousand late pieces of work cost as much as ten executors for an hour.
func Defaults() Options {
	return Options{
		Price: 1, Penalty: 0.01, Latency: scaling.Duration(5 * time.Second),
		Drain: scaling.Duration(time.Minute), Window: scaling.Duration(time.Minute),
	}
}

// Check returns everything that is wrong with the options.
func (o Options) Check() error {
	var c scaling.Checks
	c.Require(o.Price > 0 && o.Price <= 1e9, "price", "%g: want more than 0", o.Price)
	c.Between("penalty", o.Penalty, 0, 1e9)
	c.Time("latency", o.Latency, time.Millisecond, 24*time.Hour)
	c.Time("drain", o.Drain, time.Second, 24*time.Hour)
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
	arrivals := load.ArrivalRate() + float64(load.Depth)/o.Drain.Seconds()
	n, hour, late := o.cheapest(arrivals, service, seen.Min, seen.Max)
	return scaler.Decision{
		Target: n, Confidence: 1,
		Reason: fmt.Sprintf("%.3g arrive a second, each %.3g s of work: %d executors cost %.3g an hour, with %.2g%% of the work too late",
			arrivals, service, n, hour, 100*late),
	}, nil
}

// cheapest returns the size with the lowest cost per hour, and the share of the work that is
// late at that size. Costs fall and then rise with the size, so the search ends where they
// rise.
func (o Options) cheapest(arrivals, service float64, least, most int) (n int, hour, late float64) {
	offered := arrivals * service
	n = max(least, int(offered)+1) // the first that keeps up
	if n >= most {
		return most, o.Price * float64(most), 1
	}
	blocked := erlangB(n-1, offered)
	hour = math.Inf(1)
	for size := n; size <= most; size++ {
		blocked = offered * blocked / (float64(size) + offered*blocked)
		share := o.late(size, offered, service, blocked)
		total := o.Price*float64(size) + o.Penalty*share*arrivals*3600
		if total >= hour {
			break
		}
		n, hour, late = size, total, share
	}
	return n, hour, late
}

// late returns the share of the work that takes longer than the latency target.
func (o Options) late(n int, offered, service, blocked float64) float64 {
	spare := float64(n) - offered
	waits := float64(n) * blocked / (spare + offered*blocked) // Erlang's second formula, from the first
	patience := max(0, o.Latency.Seconds()-service)
	return waits * math.Exp(-spare*patience/service)
}

// erlangB is Erlang's first formula: the share of calls that find n lines busy.
func erlangB(n int, offered float64) float64 {
	b := 1.0
	for k := 1; k <= n; k++ {
		b = offered * b / (float64(k) + offered*b)
	}
	return b
}
