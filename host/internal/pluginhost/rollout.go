package pluginhost

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/rollout"
)

// Strategy is how a new generation takes over.
type Strategy string

// The strategies.
const (
	// Immediate lets it take over as soon as it is ready.
	Immediate Strategy = "immediate"
	// CanarySteps gives it a growing share of the tasks, and gives it up if it does worse
	// than the one that serves.
	CanarySteps Strategy = "canary"
	// ShadowFirst sends it copies of calls, whose answers are compared and discarded;
	// when it has answered enough it becomes a canary. Not for plugins of kind handler,
	// whose calls have effects.
	ShadowFirst Strategy = "shadow+canary"
)

// Rollout configures how a new generation takes over.
type Rollout struct {
	Strategy Strategy // default immediate
	// Steps are the percentages of tasks that a canary gets, one after another; after the
	// last it takes over. Default 1, 10, 50.
	Steps []int
	// Hold is the minimum duration of each step, or of the shadowing; default 60s.
	Hold time.Duration
	// MinSamples is how many calls must have ended before two generations are compared,
	// and before a rollout takes its next step; default 50, or 10 for the kinds that are
	// called rarely.
	MinSamples int
	// Probes is how many consecutive health checks and self-tests it must pass; default
	// 2.
	Probes int
	// Trial is how long a generation that took over is compared with the previous one,
	// which takes the calls back if it did better; default 60s, negative: not at all.
	Trial time.Duration
	// ErrorFloor is a failure rate below which nothing counts as worse, and LatencyFloor
	// is added to the latency allowed; default 0.05 and 50ms.
	ErrorFloor   float64
	LatencyFloor time.Duration
}

func (r Rollout) withDefaults(kind string) Rollout {
	setDefault(&r.Strategy, Immediate)
	if len(r.Steps) == 0 {
		r.Steps = []int{1, 10, 50}
	}
	if last := len(r.Steps) - 1; last > 0 && r.Steps[last] == 100 {
		r.Steps = r.Steps[:last] // to take over
	}
	setDefault(&r.Hold, time.Minute)
	if kind == KindHandler {
		setDefault(&r.MinSamples, 50)
	}
	setDefault(&r.MinSamples, 10)
	setDefault(&r.Probes, 2)
	setDefault(&r.Trial, time.Minute)
	setDefault(&r.ErrorFloor, 0.05)
	setDefault(&r.LatencyFloor, 50*time.Millisecond)
	return r
}

func (r Rollout) limits() rollout.Limits {
	return rollout.Limits{MinSamples: r.MinSamples, ErrorFloor: r.ErrorFloor, LatencyFloor: r.LatencyFloor}
}

func (r Rollout) check() error {
	switch {
	case r.Strategy != Immediate && r.Strategy != CanarySteps && r.Strategy != ShadowFirst:
		return fmt.Errorf("rollout strategy %q is not one of immediate, canary, shadow+canary", r.Strategy)
	case slices.ContainsFunc(r.Steps, func(p int) bool { return p < 1 || p > 100 }) || !slices.IsSorted(r.Steps):
		return fmt.Errorf("rollout steps %v are not increasing percentages from 1 to 100", r.Steps)
	case r.Hold < 0 || r.MinSamples < 0 || r.Probes < 0 || r.ErrorFloor < 0 || r.LatencyFloor < 0:
		return errors.New("a number in the rollout settings is negative")
	}
	return nil
}
