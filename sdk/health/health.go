package health

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// Checker finds out how something outside the host is doing.
//
// Check is called periodically, never concurrently, with a context that ends when the host
// stops waiting. An error, a panic or a late answer is shown as [Unknown], because silence does
// not mean health.
type Checker interface {
	Check(ctx context.Context) ([]Check, error)
}

// CheckFunc adapts a function to a [Checker].
type CheckFunc func(ctx context.Context) ([]Check, error)

var _ Checker = CheckFunc(nil)

// Check calls f.
func (f CheckFunc) Check(ctx context.Context) ([]Check, error) { return f(ctx) }

// Reporter passes events of the host on to people and other systems.
//
// Report is called with one or more events in the order in which they happened, and never
// concurrently. A nil error means that it accepted all of them. After any other error the host
// sends the same events again later, together with those that have happened since, unless the
// error wraps [ErrRejected], which says that there is no use in sending them again. So each
// event arrives at least once, unless it becomes too old; [Event.ID] identifies repeats. Do not
// block for long: try a few times at most, then return the error, and the host keeps the
// events.
type Reporter interface {
	Report(ctx context.Context, events []Event) error
}

// ReportFunc adapts a function to a [Reporter].
type ReportFunc func(ctx context.Context, events []Event) error

var _ Reporter = ReportFunc(nil)

// Report calls f.
func (f ReportFunc) Report(ctx context.Context, events []Event) error { return f(ctx, events) }

// ErrRejected is wrapped by the error of a [Reporter] that will never accept the events,
// however often they are sent.
var ErrRejected = errors.New("events rejected")

// Service is what a plugin offers under one name: checks, reports or both.
type Service struct {
	Checker  Checker
	Reporter Reporter
}

// Status says how something is doing.
type Status string

// The statuses of a check.
const (
	Healthy   Status = "healthy"
	Degraded  Status = "degraded"  // works, but somebody should look
	Unhealthy Status = "unhealthy" // does not work
	Unknown   Status = "unknown"   // could not be determined
)

// Statuses lists every status, from best to worst.
var Statuses = []Status{Healthy, Degraded, Unknown, Unhealthy}

// Check is the result of one check.
type Check struct {
	// Name says what was checked, such as disk:/var. It is the same in every call and unique
	// among the results of one call.
	Name   string
	Status Status
	// Message explains the status to people. It may be empty if all is well.
	Message string
	// Data holds the measured values. It must marshal to JSON.
	Data map[string]any
}

// Limits on the results of a check.
const (
	MaxChecks       = 100 // results of one call
	MaxNameBytes    = 128
	MaxMessageBytes = 1 << 10
	MaxDataBytes    = 16 << 10
)

// Verify returns an error if a host cannot use the result. It does not check whether the data
// marshals to JSON.
func (c Check) Verify() error {
	var problems []error
	switch {
	case c.Name == "":
		problems = append(problems, errors.New("the check has no name"))
	case len(c.Name) > MaxNameBytes || !utf8.ValidString(c.Name):
		problems = append(problems, fmt.Errorf("the name %.40q: want valid UTF-8 of at most %d bytes", c.Name, MaxNameBytes))
	}
	switch c.Status {
	case Healthy, Degraded, Unhealthy, Unknown:
	default:
		problems = append(problems, fmt.Errorf("the status is %.40q: want healthy, degraded, unhealthy or unknown", c.Status))
	}
	if len(c.Message) > MaxMessageBytes || !utf8.ValidString(c.Message) {
		problems = append(problems, fmt.Errorf("the message: want valid UTF-8 of at most %d bytes", MaxMessageBytes))
	}
	if c.Message == "" && c.Status != Healthy {
		problems = append(problems, fmt.Errorf("the status is %.40q and no message says why", c.Status))
	}
	return errors.Join(problems...)
}

// Kind says what an event is about. A reporter should pass on events of kinds it does not know.
type Kind string

// The kinds of events.
const (
	KindHost     Kind = "host"     // the operational state of the host changed
	KindDatabase Kind = "database" // the database became unreachable or reachable again
	KindPlugin   Kind = "plugin"   // a plugin was started or swapped, crashed, or is resting
	KindPool     Kind = "pool"     // a pool was scaled, or cannot be scaled
	KindCheck    Kind = "check"    // the status of a check changed
	KindAlert    Kind = "alert"    // a threshold was crossed
)

// Severity says how much an event matters.
type Severity string

// The severities.
const (
	Info     Severity = "info"     // good to know
	Warning  Severity = "warning"  // somebody should look during working hours
	Critical Severity = "critical" // somebody should look now
)

// Severities lists every severity, from least to most severe.
var Severities = []Severity{Info, Warning, Critical}

// Event is something that happened to a host or that it observed.
type Event struct {
	ID       string // unique; the same each time the event is sent
	Kind     Kind
	Severity Severity
	// Subject is the name of the plugin, pool or check that the event concerns, or of the host
	// for KindHost.
	Subject string
	// From and To are the states or values before and after the change. They are empty if the
	// event is not such a change.
	From, To string
	Time     time.Time
	Message  string // one sentence for people

	Host string // the host that reports the event
	// State is the operational state of the host at that time, such as normal. Events during a
	// shutdown are usually expected.
	State string
	// Labels holds other short names and values that help to find or group events.
	Labels map[string]string
}
