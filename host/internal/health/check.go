package health

import (
	"context"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/opstate"
)

// Status is what a check found. The zero value is no status.
type Status string

// What checks find, from good to bad. Unknown is worse than degraded: it may
// hide anything.
const (
	Healthy   Status = "healthy"
	Degraded  Status = "degraded"
	Unknown   Status = "unknown"
	Unhealthy Status = "unhealthy"
)

// Statuses lists all statuses, from good to bad.
var Statuses = []Status{Healthy, Degraded, Unknown, Unhealthy}

// Worse reports whether s is worse than other.
func (s Status) Worse(other Status) bool { return s.rank() > other.rank() }

func (s Status) rank() int {
	for i, known := range Statuses {
		if s == known {
			return i
		}
	}
	return len(Statuses) // not a status: worse than all
}

// Finding is the result of a check.
type Finding struct {
	Status  Status
	Message string // for people; empty if there is nothing to say
}

// Named is a finding about one of the things that a check looked at.
type Named struct {
	Name string // lower-case letters, digits, _, - and /
	Finding
}

// View is what a check may take into account.
type View struct {
	State opstate.State
	// Share scales thresholds that are shares of something: 1 in normal operation, less
	// while the host is starting.
	Share float64
}

// Check looks at one thing.
type Check struct {
	// Name is unique among the checks.
	Name string
	// Work says that the check looks at the host's own work, which is expected to
	// be bad while the host starts and drains. Others look at what the host
	// depends on.
	Work bool
	// Every is the minimum time between two looks; zero: every interval.
	Every time.Duration
	// Timeout bounds one look; zero is [Config.Timeout].
	Timeout time.Duration
	// Look performs the check. It must end when ctx does. Several findings are shown
	// separately, under names that begin with the check's.
	Look func(ctx context.Context, v View) []Named
}

// One turns a function with a single finding into a Look.
func One(look func(ctx context.Context, v View) Finding) func(context.Context, View) []Named {
	return func(ctx context.Context, v View) []Named { return []Named{{Finding: look(ctx, v)}} }
}

// Item is the standing of one check in a report.
type Item struct {
	Name    string
	Status  Status
	Message string
	// Since is when the status was first found.
	Since time.Time
	// Expected says that the operational state explains a bad status.
	Expected bool
}

// Report is what the last look found.
type Report struct {
	At     time.Time // of the look; zero: none yet
	State  opstate.State
	Status Status // the worst of the items that are not expected
	Items  []Item // in the order of the checks
}

// Severity says how serious an event is.
type Severity string

// The severities of events.
const (
	Info     Severity = "info"     // healthy again, or the bad status is expected
	Warning  Severity = "warning"  // degraded or unknown
	Critical Severity = "critical" // unhealthy
)

// Severities lists all severities.
var Severities = []Severity{Info, Warning, Critical}

// Event reports that the status of a check has changed.
type Event struct {
	At       time.Time
	Check    string
	From, To Status
	Severity Severity
	State    opstate.State
	Message  string
}

// Sink receives events. Report must not block for long: the monitor waits for it before
// the next look.
type Sink interface {
	Report(ctx context.Context, events []Event)
}
