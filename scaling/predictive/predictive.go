package predictive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/tasker-systems/tasker-host/scaling"
	"github.com/tasker-systems/tasker-host/scaling/forecast"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// New makes the algorithm.
func New(o Options) (scaler.New, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	return func() scaler.Scaler { return &predictive{o: o, arrivals: series{bucket: o.Bucket.D()}} }, nil
}

type predictive struct {
	o        Options
	arrivals series
	history  []float64       // arrivals a second, bucket by bucket
	model    *forecast.Model // nil: too little is known
	age      int             // buckets since the model was fitted
}

var (
	_ scaler.Scaler      = (*predictive)(nil)
	_ scaler.Snapshotter = (*predictive)(nil)
)

const (
	// minHistory is how many buckets there must be before a forecast counts.
	minHistory = 12
	// refitAfter is the number of buckets after which a model without a season
	// is fitted again. One with a season is fitted again after each season.
	refitAfter = 60
	// seasons is how many of the longest seasons are remembered.
	seasons = 3
)

// period returns a time in buckets.
func (p *predictive) period(d scaling.Duration) int { return int(d.D() / p.o.Bucket.D()) }

// longest returns the length of the longest possible season in buckets.
func (p *predictive) longest() int { return max(p.period(p.o.Season), p.period(p.o.MaxSeason)) }

// Decide learns what is new and provides for what is expected.
func (p *predictive) Decide(_ context.Context, o scaler.Observation) (scaler.Decision, error) {
	p.learn(o.Samples)
	load, service, ok := scaling.Demand(o, p.o.Window)
	if !ok {
		return scaling.NoWork(o, load), nil
	}
	rate, confidence := load.ArrivalRate(), 0.5
	reason := fmt.Sprintf("%.3g arrive a second", rate)
	if expected, ok := p.expect(o.Now); ok {
		confidence = 0.8
		if len(p.model.Seasonal) > 1 {
			confidence = 1
		}
		reason += fmt.Sprintf(", at most %.3g are expected within %s (%s)", expected, p.o.Lead, p.about())
		rate = max(rate, expected)
	} else {
		reason += fmt.Sprintf(", too early for a forecast: %d of %d buckets", len(p.history), minHistory)
	}
	want := (rate + float64(load.Depth)/p.o.Drain.Seconds()) * service / p.o.TargetUtilization
	return scaler.Decision{
		Target: scaling.Ceil(want), Confidence: confidence,
		Reason: fmt.Sprintf("%s; each is %.3g s of work, and %d wait", reason, service, load.Depth),
	}, nil
}

// about describes the model.
func (p *predictive) about() string {
	if n := len(p.model.Seasonal); n > 1 {
		return fmt.Sprintf("%s, season %s", p.model.Kind, time.Duration(n)*p.o.Bucket.D())
	}
	return "no season found"
}

// expect returns the largest rate of arrivals that is to be provided for from
// now to the end of the lead time.
func (p *predictive) expect(now time.Time) (rate float64, ok bool) {
	if p.model == nil {
		return 0, false
	}
	ahead := p.arrivals.at(now.Add(p.o.Lead.D())) - p.arrivals.index + 1
	for h := 1; h <= int(min(max(ahead, 1), maxPeriod)); h++ {
		_, high := p.model.Interval(h, p.o.Coverage)
		rate = max(rate, high)
	}
	return rate, true
}

// learn adds the samples that are new.
func (p *predictive) learn(samples []scaler.Sample) {
	ended, anew := p.arrivals.add(samples, p.longest())
	if anew {
		p.history, p.model, p.age = nil, nil, 0
	}
	for _, bucket := range ended {
		rate, known := bucket.rate, bucket.known
		switch {
		case known:
		case p.model != nil: // assume that what was not measured was as expected
			rate = max(0, p.model.Forecast(1))
		case len(p.history) > 0:
			rate = p.history[len(p.history)-1]
		default:
			continue
		}
		p.history = append(p.history, rate)
		if p.model != nil {
			p.model.Update(rate)
		}
		p.age++
	}
	if most := seasons * p.longest(); len(p.history) > most {
		p.history = append(p.history[:0], p.history[len(p.history)-most:]...)
	}
	if len(ended) > 0 {
		p.refit()
	}
}

// refit makes a model if there is none, and a new one when there is enough new
// data.
func (p *predictive) refit() {
	switch {
	case len(p.history) < minHistory:
		return
	case p.model == nil:
	case p.age < max(len(p.model.Seasonal), refitAfter):
		return
	}
	season := p.season()
	var model *forecast.Model
	var err error
	if p.o.Model == Auto {
		model, err = forecast.Best(p.history, season)
	} else if model, err = forecast.Fit(p.history, season, forecast.Kind(p.o.Model)); err != nil {
		model, err = forecast.Fit(p.history, season, forecast.Additive) // a load of zero has no multiplicative model
	}
	if err != nil { // the measurements cannot be fitted: continue with the current model
		return
	}
	p.model, p.age = model, 0
}

// season returns the length of the season in buckets, 1 if there is none.
func (p *predictive) season() int {
	if given := p.period(p.o.Season); given > 0 {
		if len(p.history) < 2*given {
			return 1
		}
		return given
	}
	season, _ := forecast.Season(p.history, p.period(p.o.MaxSeason))
	return season
}

// learned is the content of a snapshot.
type learned struct {
	Version int              `json:"version"`
	Bucket  scaling.Duration `json:"bucket"`
	Seen    time.Time        `json:"seen"`
	Index   int64            `json:"index"`
	Sum     float64          `json:"sum"`
	Covered scaling.Duration `json:"covered"`
	History []float64        `json:"history"`
	Model   *forecast.Model  `json:"model,omitempty"`
	Age     int              `json:"age"`
}

const snapshotVersion = 1

// Snapshot returns the history and the model.
func (p *predictive) Snapshot(context.Context) ([]byte, error) {
	raw, err := json.Marshal(learned{
		Version: snapshotVersion, Bucket: p.o.Bucket, Seen: p.arrivals.seen, Index: p.arrivals.index,
		Sum: p.arrivals.sum, Covered: scaling.Duration(p.arrivals.covered),
		History: p.history, Model: p.model, Age: p.age,
	})
	if err != nil {
		return nil, fmt.Errorf("write snapshot: %w", err)
	}
	return raw, nil
}

// Restore loads a snapshot, if it is of the same kind.
func (p *predictive) Restore(_ context.Context, snapshot []byte) error {
	if len(snapshot) == 0 {
		return nil
	}
	var l learned
	if err := json.Unmarshal(snapshot, &l); err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	if err := p.fits(l); err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	p.arrivals = series{bucket: p.o.Bucket.D(), seen: l.Seen, index: l.Index, sum: l.Sum, covered: l.Covered.D()}
	p.history, p.model, p.age = l.History, l.Model, l.Age
	if p.model != nil && p.period(p.o.Season) > 1 && len(p.model.Seasonal) != p.period(p.o.Season) {
		p.model = nil // the season has changed: the history makes a new model
		p.refit()
	}
	return nil
}

func (p *predictive) fits(l learned) error {
	switch {
	case l.Version != snapshotVersion:
		return fmt.Errorf("it has version %d, this is version %d", l.Version, snapshotVersion)
	case l.Bucket != p.o.Bucket:
		return fmt.Errorf("its buckets are %s long, these are %s", l.Bucket, p.o.Bucket)
	case len(l.History) > seasons*maxPeriod || l.Age < 0 || l.Index < 0 || l.Covered < 0 || l.Covered > l.Bucket:
		return errors.New("it is out of bounds")
	}
	for _, v := range append([]float64{l.Sum}, l.History...) {
		if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
			return fmt.Errorf("it holds a rate of %v", v)
		}
	}
	if l.Model == nil {
		return nil
	}
	return l.Model.Check()
}
