package main

import (
	"context"
	"errors"

	"github.com/tasker-systems/tasker-host/scaling"
	"github.com/tasker-systems/tasker-host/scaling/cost"
	"github.com/tasker-systems/tasker-host/scaling/latency"
	"github.com/tasker-systems/tasker-host/scaling/predictive"
	"github.com/tasker-systems/tasker-host/scaling/rate"
	"github.com/tasker-systems/tasker-host/scaling/target"
	"github.com/tasker-systems/tasker-host/scaling/threshold"
	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// options has a table for each algorithm.
type options struct {
	Threshold  threshold.Options  `json:"threshold"`
	Target     target.Options     `json:"target"`
	Rate       rate.Options       `json:"rate"`
	Latency    latency.Options    `json:"latency"`
	Cost       cost.Options       `json:"cost"`
	Predictive predictive.Options `json:"predictive"`
}

// part returns the plugin. Configure comes before any other call, so by then the algorithms
// are made from the options.
func part() sdk.Part {
	made := map[string]scaler.New{}
	defaults := options{
		Threshold: threshold.Defaults(), Target: target.Defaults(), Rate: rate.Defaults(),
		Latency: latency.Defaults(), Cost: cost.Defaults(), Predictive: predictive.Defaults(),
	}
	apply := func(_ context.Context, o options) error {
		return errors.Join(
			use(made, "threshold", o.Threshold, threshold.New),
			use(made, "target", o.Target, target.New),
			use(made, "rate", o.Rate, rate.New),
			use(made, "latency", o.Latency, latency.New),
			use(made, "cost", o.Cost, cost.New),
			use(made, "predictive", o.Predictive, predictive.New),
		)
	}
	algorithms := map[string]scaler.New{}
	for _, name := range []string{"threshold", "target", "rate", "latency", "cost", "predictive"} {
		algorithms[name] = func() scaler.Scaler { return made[name]() }
	}
	return sdk.Scaling("algorithms", "1.0.0", algorithms, sdk.WithOptions(defaults, apply))
}

// use creates an algorithm; problems with its options are reported with their full paths.
func use[T any](made map[string]scaler.New, name string, o T, build func(T) (scaler.New, error)) error {
	algorithm, err := build(o)
	if err == nil {
		made[name] = algorithm
		return nil
	}
	var problems []error
	for _, p := range scaling.Problems(err) {
		problems = append(problems, &sdk.OptionError{Path: "/" + name + p.Path, Message: p.Message})
	}
	return errors.Join(problems...)
}
