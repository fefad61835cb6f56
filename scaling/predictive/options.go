package predictive

import (
	"time"

	"github.com/tasker-systems/tasker-host/scaling"
	"github.com/tasker-systems/tasker-host/scaling/forecast"
)

// Auto uses the better of the two kinds of models.
const Auto = "auto"

// Options of the algorithm.
type Options struct {
	TargetUtilization float64          `json:"target_utilization" doc:"the share of their time that executors should work"`
	Lead              scaling.Duration `json:"lead" doc:"how far ahead to look: the time a new executor needs to start, plus one interval between decisions"`
	Bucket            scaling.Duration `json:"bucket" doc:"arrivals are added up over this time and forecast in steps of it"`
	Season            scaling.Duration `json:"season" doc:"the time after which the load repeats; 0: detect it"`
	MaxSeason         scaling.Duration `json:"max_season" doc:"the longest season to look for"`
	Model             string           `json:"model" doc:"additive, multiplicative or auto: the one that forecasts better"`
	Coverage          float64          `json:"coverage" doc:"the share of cases in which the load should stay within the forecast"`
	Drain             scaling.Duration `json:"drain" doc:"the time within which a backlog should be worked off"`
	Window            scaling.Duration `json:"window" doc:"how far back to look for the current load"`
}

// Defaults look two minutes ahead and find seasons up to a day.
func Defaults() Options {
	return Options{
		TargetUtilization: 0.75, Lead: scaling.Duration(2 * time.Minute), Bucket: scaling.Duration(time.Minute),
		MaxSeason: scaling.Duration(24 * time.Hour), Model: Auto, Coverage: 0.5,
		Drain: scaling.Duration(time.Minute), Window: scaling.Duration(time.Minute),
	}
}

// maxPeriod is the most buckets a season may have: more would be slow to fit,
// and too large for a snapshot.
const maxPeriod = 2016

// Check returns everything that is wrong with the options.
func (o Options) Check() error {
	var c scaling.Checks
	c.Between("target_utilization", o.TargetUtilization, 0.1, 1)
	c.Time("bucket", o.Bucket, time.Second, time.Hour)
	c.Time("lead", o.Lead, 0, 24*time.Hour)
	bucket := max(o.Bucket.D(), time.Second)
	longest := maxPeriod * bucket
	c.Require(o.Season == 0 || (o.Season.D() >= 2*bucket && o.Season.D() <= longest && o.Season.D()%bucket == 0),
		"season", "%s: want 0, or a multiple of the bucket from %s to %s", o.Season, 2*bucket, longest)
	c.Time("max_season", o.MaxSeason, 2*bucket, longest)
	c.Require(o.Model == Auto || o.Model == string(forecast.Additive) || o.Model == string(forecast.Multiplicative),
		"model", "%q: want auto, additive or multiplicative", o.Model)
	c.Between("coverage", o.Coverage, 0, 0.999)
	c.Time("drain", o.Drain, time.Second, 24*time.Hour)
	c.Time("window", o.Window, time.Second, 24*time.Hour)
	return c.Err()
}
