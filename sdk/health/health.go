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
// Check is called every so often, never twice at once, with a context that ends
// when the host waits no longer. An error, a panic or a late answer is shown as
// [Unknown]: nobody takes silence for health.
type Checker interface {
	Check(ctx context.Context) ([]Check, error)
}

// CheckFunc makes a function a [Checker].
type CheckFunc func(ctx context.Context) ([]Check, error)

var _ Checker = CheckFunc(nil)

// Check calls f.
func (f CheckFunc) Check(ctx context.Context) ([]Check, error) { return f(ctx) }

// Reporter carries events of the host to people and to other systems.
//
// Report is called with one or more events in the order in which they happened,
// never twice at once. Nil means that all of them were taken over. After an
// error the host sends the same events again, later and with more that have
// happened since; an error that wraps [ErrRejected] says that sending these
// again is of no use. So an event comes at least once, unless it becomes too
// old: [Event.ID] tells whether it came before. Do not block for long: try a few
// times at most and return the error, and the host keeps the events.
type Reporter interface {
	Report(ctx context.Context, events []Event) error
}

// ReportFunc makes a function a [Reporter].
type ReportFunc func(ctx context.Context, events []Event) error

var _ Reporter = ReportFunc(nil)

// Report calls f.
func (f ReportFunc) Report(ctx context.Context, events []Event) error { return f(ctx, events) }

// ErrRejected is wrapped by the errors of a [Reporter] that will not take the
// events, however often they are sent.
var ErrRejected = errors.New("events rejected")

// Service is what a plugin offers under one name: checks, reports, or both.
type Service struct {
	Checker  Checker
	Reporter Reporter
}

// Status is how something is.
type Status string

// The statuses of a check.
const (
	Healthy   Status = "healthy"
	Degraded  Status = "degraded"  // works, but somebody should look
	Unhealthy Status = "unhealthy" // does not work
	Unknown   Status = "unknown"   // could not be found out
)

// Statuses lists every status, the best first.
var Statuses = []Status{Healthy, Degraded, Unknown, Unhealthy}

// Check is the result of one check.
type Check struct {
	// Name says what was checked, such as disk:/var. It is the same every time,
	// and unique among the results of one call.
	Name   string
	Status Status
	// Message says why, for people; it may be empty if all is well.
	Message string
	// Data holds what was measured; it must marshal to JSON.
	Data map[string]any
}

// Limits of what a check may answer.
const (
	MaxChecks       = 100 // results of one call
	MaxNameBytes    = 128
	MaxMessageBytes = 1 << 10
	MaxDataBytes    = 16 << 10
)

// Verify returns what is wrong with a result; nil if a host can use it. Whether
// the data marshals to JSON is not looked at.
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

// Kind says what an event is about. There may be more kinds than a reporter
// knows: it passes them on.
type Kind string

// The kinds of events.
const (
	KindHost     Kind = "host"     // the operational state of the host changed
	KindDatabase Kind = "database" // the database was lost or found
	KindPlugin   Kind = "plugin"   // a plugin was started, swapped, crashed or rests
	KindPool     Kind = "pool"     // a pool was scaled, or cannot be
	KindCheck    Kind = "check"    // the status of a check changed
	KindAlert    Kind = "alert"    // a threshold was crossed
)

// Severity is how much an event matters.
type Severity string

// The severities.
const (
	Info     Severity = "info"     // good to know
	Warning  Severity = "warning"  // somebody should look, by day
	Critical Severity = "critical" // somebody should look now
)

// Severities lists every severity, the least first.
var Severities = []Severity{Info, Warning, Critical}

// Event is something that has happened to a host or was seen by it.
type Event struct {
	ID       string // unique; the same however often the event is sent
	Kind     Kind
	Severity Severity
	// Subject is the thing it happened to: a plugin's, pool's or check's name;
	// the host's for kind host.
	Subject string
	// From and To are the states or values between which the subject changed;
	// empty if it did not change from one to another.
	From, To string
	Time     time.Time
	Message  string // one sentence for people

	Host string // the host that says so
	// State is the operational state of the host at that time, such as normal:
	// what happens while it shuts down is usually expected.
	State string
	// Labels hold what else may help to find or group events; names and values
	// are short.
	Labels map[string]string
}
