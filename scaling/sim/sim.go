package sim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tasker-systems/tasker-host/scaling"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// Config says how the pool works and how its size is decided.
type Config struct {
	Policy        scaling.Policy
	Min, Max      int
	Budget        int           // executors that the host allows in all; 0: not known
	Interval      time.Duration // between two decisions
	StartDelay    time.Duration // that a new executor needs
	LatencyTarget time.Duration // work that takes longer is late
	Equal         bool          // all work of a row takes the same time
	Seed          uint64
}

// DefaultConfig is a pool of 1 to 50 that decides every 15 seconds, with
// executors that need half a minute to start.
func DefaultConfig() Config {
	return Config{
		Policy: scaling.DefaultPolicy(), Min: 1, Max: 50, Interval: 15 * time.Second,
		StartDelay: 30 * time.Second, LatencyTarget: 15 * time.Second, Seed: 1,
	}
}

// Check returns everything that is wrong with the configuration.
func (c Config) Check() error {
	var k scaling.Checks
	k.Between("min", float64(c.Min), 1, 10_000)
	k.Between("max", float64(c.Max), float64(max(c.Min, 1)), 10_000)
	k.Require(c.Budget >= 0, "budget", "%d: want 0 or more", c.Budget)
	k.Time("interval", scaling.Duration(c.Interval), time.Second, time.Hour)
	k.Time("start_delay", scaling.Duration(c.StartDelay), 0, time.Hour)
	k.Time("latency_target", scaling.Duration(c.LatencyTarget), time.Millisecond, 24*time.Hour)
	return errors.Join(k.Err(), c.Policy.Check())
}

// Algorithm is an algorithm to simulate.
type Algorithm struct {
	Name   string
	Scaler scaler.Scaler
}

// Point is the state of the pool at one decision.
type Point struct {
	At      time.Duration `json:"at"`
	Load    float64       `json:"load"`    // arrivals per second since the previous point
	Backlog int           `json:"backlog"` // waiting work
	Size    int           `json:"size"`    // executors that have started
	Target  int           `json:"target"`
}

// Result is the outcome of a simulation.
type Result struct {
	Algorithm string `json:"algorithm"`
	Trace     string `json:"trace"`

	Seconds  float64 `json:"seconds"`  // simulated
	Finished int     `json:"finished"` // pieces of work
	Waiting  int     `json:"waiting"`  // pieces that waited at the end

	ExecutorSeconds float64 `json:"executor_seconds"`
	MeanSize        float64 `json:"mean_size"`
	MaxSize         int     `json:"max_size"`
	MeanBacklog     float64 `json:"mean_backlog"`
	MaxBacklog      int     `json:"max_backlog"`

	LatencyP50 float64 `json:"latency_p50_seconds"` // from ready to ended
	LatencyP95 float64 `json:"latency_p95_seconds"`
	LatencyP99 float64 `json:"latency_p99_seconds"`
	Late       int     `json:"late"`       // pieces that took longer than the target, or have waited that long
	LateShare  float64 `json:"late_share"` // of all

	Decisions          int     `json:"decisions"`
	Held               int     `json:"held"` // decisions without usable advice
	Changes            int     `json:"changes"`
	Reversals          int     `json:"reversals"` // changes in the opposite direction to the previous one
	ReversalsPerMinute float64 `json:"reversals_per_minute"`
	// Steps counts the times a backlog arose: more work waited than there were executors.
	// Reaction is how long the pool then took to grow, including the start of the new
	// executors. A backlog that disappeared before that has none.
	Steps          int     `json:"backlog_steps"`
	ReactionMean   float64 `json:"reaction_mean_seconds"`
	ReactionMax    float64 `json:"reaction_max_seconds"`
	LastHeldReason string  `json:"last_held_reason,omitempty"`

	Points  []Point            `json:"-"`
	Journal []scaling.Decision `json:"-"` // the decisions that changed the pool, in order
}

// start is the time of the simulation: a Monday.
var start = time.Date(2026, time.January, 5, 0, 0, 0, 0, time.UTC)

// observed is how far back an algorithm can see.
const observed = 15 * time.Minute

// Run replays a trace through an algorithm. It ends early, with an error, only
// if ctx does or the configuration is wrong.
func Run(ctx context.Context, c Config, t *Trace, a Algorithm) (*Result, error) {
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("simulate: %w", err)
	}
	governor, err := scaling.NewGovernor(a.Name, a.Scaler, c.Policy)
	if err != nil {
		return nil, err
	}
	r := newRun(c, t, a.Name)
	for at := c.Interval; at <= t.Length(); at += c.Interval {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("simulate: %w", context.Cause(ctx))
		}
		r.pool.run(at.Seconds())
		o := r.observe(at)
		r.apply(governor.Decide(ctx, o))
	}
	r.finish()
	return r.result, nil
}

// run is a simulation in progress.
type run struct {
	c      Config
	pool   *pool
	window *scaling.Window
	result *Result
	tally  tally
	target int
	since  time.Time // of the target

	up      bool // the direction of the latest change
	step    backlog
	answers int     // backlogs after which the pool grew
	waiting float64 // sum of the backlogs of all decisions
}

// backlog is more work than executors.
type backlog struct {
	there, answered bool
	since           time.Duration
	size            int // executors when it arose
}

func newRun(c Config, t *Trace, algorithm string) *run {
	r := &run{c: c, window: scaling.NewWindow(observed), result: &Result{Algorithm: algorithm, Trace: t.Name}}
	r.pool = &pool{source: newSource(t, c.Seed, c.Equal), meter: scaling.NewMeter(start), ended: func(latency float64) {
		r.result.Finished++
		r.tally.add(latency)
		if latency > c.LatencyTarget.Seconds() {
			r.result.Late++
		}
	}}
	// The pool begins with the size that the beginning of the trace needs.
	first := scaling.Ceil(float64(t.Rows[0].Arrivals) / t.Interval.Seconds() * t.Rows[0].Service / 0.75)
	r.target = min(max(first, c.Min), c.Max)
	r.pool.resize(r.target)
	r.pool.delay = c.StartDelay.Seconds()
	return r
}

func (r *run) observe(at time.Duration) scaler.Observation {
	now, size := start.Add(at), r.pool.started()
	sample, _ := r.pool.meter.Cut(now, size, int64(r.pool.depth()), seconds(r.pool.oldest()))
	r.window.Add(sample)
	r.watch(sample, at)
	left := -1
	if r.c.Budget > 0 {
		left = max(0, r.c.Budget-size)
	}
	return scaler.Observation{
		Pool: "simulated", Kind: "simulated", Now: now, State: "normal",
		Current: size, Target: r.target, Min: r.c.Min, Max: r.c.Max, BudgetLeft: left,
		ChangedAt: r.since, Samples: r.window.Samples(),
	}
}

// watch records the state, and how long a backlog waits for more executors.
func (r *run) watch(s scaler.Sample, at time.Duration) {
	res, depth := r.result, int(s.QueueDepth)
	res.MaxBacklog, res.MaxSize = max(res.MaxBacklog, depth), max(res.MaxSize, s.Size)
	r.waiting += float64(depth)
	res.Points = append(res.Points, Point{At: at, Load: s.Rate(s.Arrivals), Backlog: depth, Size: s.Size, Target: r.target})
	b := &r.step
	if depth <= s.Size {
		*b = backlog{} // there is none, or it disappeared
		return
	}
	if !b.there {
		*b = backlog{there: true, since: at, size: s.Size}
		res.Steps++
	}
	if !b.answered && s.Size > b.size {
		took := (at - b.since).Seconds()
		res.ReactionMax, res.ReactionMean = max(res.ReactionMax, took), res.ReactionMean+took
		b.answered = true
		r.answers++
	}
}

func (r *run) apply(d scaling.Decision) {
	res := r.result
	res.Decisions++
	if d.Advice == nil {
		res.Held++
		res.LastHeldReason = d.Reason
	}
	if !d.Changed() {
		return
	}
	up := d.To > d.From
	if res.Changes > 0 && up != r.up {
		res.Reversals++
	}
	res.Changes++
	res.Journal = append(res.Journal, d)
	r.up, r.target, r.since = up, d.To, d.At
	r.pool.resize(d.To)
}

func (r *run) finish() {
	res := r.result
	res.Seconds, res.ExecutorSeconds, res.Waiting = r.pool.now, r.pool.cost, r.pool.depth()
	for _, w := range r.pool.queue[r.pool.head:] {
		if r.pool.now-w.arrived > r.c.LatencyTarget.Seconds() {
			res.Late++
		}
	}
	if all := res.Finished + res.Waiting; all > 0 {
		res.LateShare = float64(res.Late) / float64(all)
	}
	res.LatencyP50, res.LatencyP95, res.LatencyP99 = r.tally.at(0.5), r.tally.at(0.95), r.tally.at(0.99)
	if res.Seconds > 0 {
		res.MeanSize = res.ExecutorSeconds / res.Seconds
		res.ReversalsPerMinute = float64(res.Reversals) / (res.Seconds / 60)
	}
	if res.Decisions > 0 {
		res.MeanBacklog = r.waiting / float64(res.Decisions)
	}
	if r.answers > 0 {
		res.ReactionMean /= float64(r.answers)
	}
}
