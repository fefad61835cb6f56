// Command sway is a scaling plugin for tests: one algorithm that advises the size
// it was built with, and others that misbehave, each in the way its name says.
package main

import (
	"context"
	"math"
	"os"
	"strconv"
	"time"

	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// Set by the linker, so that there can be several releases.
var (
	version = "1.0.0"
	size    = "5"
)

func main() { sdk.Serve(part()) }

func part() sdk.Part {
	fixed := func(d scaler.Decision) scaler.New {
		return func() scaler.Scaler {
			return scaler.Func(func(context.Context, scaler.Observation) (scaler.Decision, error) { return d, nil })
		}
	}
	n, err := strconv.Atoi(size)
	if err != nil {
		n = 5
	}
	return sdk.Scaling("sway", version, map[string]scaler.New{
		"sway":           fixed(scaler.Decision{Target: n, Reason: "release " + version + " is for " + size, Confidence: 1}),
		"sway.million":   fixed(scaler.Decision{Target: 1_000_000, Reason: "more", Confidence: 1}),
		"sway.negative":  fixed(scaler.Decision{Target: -7, Reason: "less", Confidence: 1}),
		"sway.nan":       fixed(scaler.Decision{Target: 9, Reason: "not sure at all", Confidence: math.NaN()}),
		"sway.late":      func() scaler.Scaler { return scaler.Func(late) },
		"sway.panic":     func() scaler.Scaler { return scaler.Func(panics) },
		"sway.crash":     func() scaler.Scaler { return scaler.Func(crash) },
		"sway.oscillate": func() scaler.Scaler { return &oscillator{} },
	})
}

func late(_ context.Context, o scaler.Observation) (scaler.Decision, error) {
	time.Sleep(5 * time.Second)
	return scaler.Decision{Target: o.Max, Reason: "at last", Confidence: 1}, nil
}

func panics(context.Context, scaler.Observation) (scaler.Decision, error) { panic("out of range") }

// crash ends the process, except for calls from a self-test, which have no pool
// of the host.
func crash(_ context.Context, o scaler.Observation) (scaler.Decision, error) {
	if o.Kind == "step_execution" {
		os.Exit(3)
	}
	return scaler.Hold(o, "a quiet beginning"), nil
}

// oscillator wants the minimum and the maximum in turn.
type oscillator struct{ up bool }

// Decide implements [scaler.Scaler].
func (s *oscillator) Decide(_ context.Context, o scaler.Observation) (scaler.Decision, error) {
	s.up = !s.up
	if s.up {
		return scaler.Decision{Target: o.Max, Reason: "up", Confidence: 1}, nil
	}
	return scaler.Decision{Target: o.Min, Reason: "down", Confidence: 1}, nil
}
