package rollout

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// Limits define what counts as worse.
type Limits struct {
	MinSamples   int           // calls of the new generation before it is judged
	ErrorFloor   float64       // a failure rate that is always good enough
	LatencyFloor time.Duration // added to what is allowed
}

// Cause is the respect in which a generation is worse.
type Cause string

// The causes.
const (
	NotWorse Cause = ""
	Errors   Cause = "errors"
	Latency  Cause = "latency"
)

const (
	factor = 1.5  // multiple of the old one's rate and latency that is allowed
	tail   = .99  // fraction of the calls that must not be slower than allowed
	sure   = 1.96 // standard deviations: chance explains one verdict in forty at the limit itself
)

// Judge reports whether the new generation is worse than the old, and why: if more of all
// its calls fail, or if one name fails more often or is slower. The duration of a call is
// compared only with that of the same name: a growing or shrinking share of slow calls
// means nothing.
func Judge(now, old Sums, limits Limits) (Cause, string) {
	if cause, why := failures(&now.All, &old.All, limits); cause != NotWorse {
		return cause, why
	}
	for _, name := range slices.Sorted(maps.Keys(now.Each)) {
		before := old.Each[name]
		if before == nil {
			before = &Sample{}
		}
		if cause, why := compare(now.Each[name], before, limits); cause != NotWorse {
			return cause, name + ": " + why
		}
	}
	return NotWorse, ""
}

// compare judges the calls of one name. If the old one has few calls, only the floors
// count.
func compare(now, old *Sample, limits Limits) (Cause, string) {
	if cause, why := failures(now, old, limits); cause != NotWorse {
		return cause, why
	}
	if now.Calls == 0 || now.Calls < limits.MinSamples || old.Calls < limits.MinSamples {
		return NotWorse, "" // nothing shows how long calls should take
	}
	before := old.Quantile(tail)
	most := time.Duration(factor*float64(before)) + limits.LatencyFloor
	if atLeast(now.slower(most), now.verdicts()) > 1-tail {
		return Latency, fmt.Sprintf("99 %% of its calls take up to %s; before, they took up to %s", now.Quantile(tail), before)
	}
	return NotWorse, ""
}

func failures(now, old *Sample, limits Limits) (Cause, string) {
	if now.Calls == 0 || now.Calls < limits.MinSamples {
		return NotWorse, ""
	}
	allowed := math.Max(old.Rate()*factor, limits.ErrorFloor)
	if least := atLeast(now.Failed+now.Broken, now.Calls); least > allowed {
		return Errors, fmt.Sprintf("%.1f %% of its %d calls fail (%d of them broke or hung); before, %.1f %% of %d failed",
			100*now.Rate(), now.Calls, now.Broken, 100*old.Rate(), old.Calls)
	}
	return NotWorse, ""
}

// atLeast returns the lower bound of the rate that failed of calls suggests (Wilson).
func atLeast(failed, calls int) float64 {
	if failed == 0 {
		return 0
	}
	n := float64(calls)
	p, z2 := float64(failed)/n, sure*sure
	return (p + z2/(2*n) - sure*math.Sqrt(p*(1-p)/n+z2/(4*n*n))) / (1 + z2/n)
}
