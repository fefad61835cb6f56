package tryout

import (
	"fmt"
	"time"

	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/health"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// observation is the JSON form of an observation. Fields that are left out are
// empty, except those that newObservation sets.
type observation struct {
	Pool       string    `json:"pool"`
	Kind       string    `json:"kind"`
	Namespace  string    `json:"namespace"`
	Now        time.Time `json:"now"`
	State      string    `json:"state"`
	Current    int       `json:"current"`
	Target     *int      `json:"target"` // current
	Min        int       `json:"min"`
	Max        int       `json:"max"`
	BudgetLeft int       `json:"budget_left"`
	Samples    []sample  `json:"samples"`
}

// sample is one sample of an observation. The spans are consecutive, and the last
// one ends now.
type sample struct {
	Span        *sdk.Duration `json:"span"` // ten seconds
	Size        *int          `json:"size"` // current
	Arrivals    int64         `json:"arrivals"`
	Completions int64         `json:"completions"`
	Errors      int64         `json:"errors"`
	QueueDepth  int64         `json:"queue_depth"`
	OldestAge   sdk.Duration  `json:"oldest_age"`
	LatencyP50  sdk.Duration  `json:"latency_p50"`
	LatencyP95  sdk.Duration  `json:"latency_p95"`
	LatencyP99  sdk.Duration  `json:"latency_p99"`
	Utilization float64       `json:"utilization"`
}

// ParseObservation decodes an observation; unknown keys are an error.
func ParseObservation(raw []byte) (scaler.Observation, error) {
	in := observation{Pool: "tryout", Kind: "handler", State: "normal", Current: 1, Min: 1, Max: 10, BudgetLeft: -1, Now: time.Now()}
	if err := strict(raw, &in); err != nil {
		return scaler.Observation{}, fmt.Errorf("read the observation: %w", err)
	}
	o := scaler.Observation{
		Pool: in.Pool, Kind: in.Kind, Namespace: in.Namespace, Now: in.Now.UTC().Truncate(time.Microsecond), State: in.State,
		Current: in.Current, Target: in.Current, Min: in.Min, Max: in.Max, BudgetLeft: in.BudgetLeft,
		Samples: make([]scaler.Sample, len(in.Samples)),
	}
	if in.Target != nil {
		o.Target = *in.Target
	}
	at := o.Now
	for i := len(in.Samples) - 1; i >= 0; i-- {
		s := in.Samples[i]
		o.Samples[i] = scaler.Sample{
			At: at, Span: 10 * time.Second, Size: o.Current, Arrivals: s.Arrivals, Completions: s.Completions, Errors: s.Errors,
			QueueDepth: s.QueueDepth, OldestAge: time.Duration(s.OldestAge), LatencyP50: time.Duration(s.LatencyP50),
			LatencyP95: time.Duration(s.LatencyP95), LatencyP99: time.Duration(s.LatencyP99), Utilization: s.Utilization,
		}
		if s.Span != nil {
			o.Samples[i].Span = time.Duration(*s.Span)
		}
		if s.Size != nil {
			o.Samples[i].Size = *s.Size
		}
		if o.Samples[i].Span <= 0 {
			return o, fmt.Errorf("read the observation: samples[%d]: span must be more than zero", i)
		}
		at = at.Add(-o.Samples[i].Span)
	}
	return o, nil
}

// event is the JSON form of an event.
type event struct {
	ID       *string           `json:"id"`
	Kind     *health.Kind      `json:"kind"`
	Severity *health.Severity  `json:"severity"`
	Subject  *string           `json:"subject"`
	From     *string           `json:"from"`
	To       *string           `json:"to"`
	Time     *time.Time        `json:"time"`
	Message  *string           `json:"message"`
	Host     *string           `json:"host"`
	State    *string           `json:"state"`
	Labels   map[string]string `json:"labels"`
}

// ParseEvent decodes an event; unknown keys are an error. Fields that are left out
// are as in [Event].
func ParseEvent(raw []byte) (health.Event, error) {
	e := Event()
	in := event{
		ID: &e.ID, Kind: &e.Kind, Severity: &e.Severity, Subject: &e.Subject, From: &e.From, To: &e.To, Time: &e.Time,
		Message: &e.Message, Host: &e.Host, State: &e.State, Labels: e.Labels,
	}
	if err := strict(raw, &in); err != nil {
		return e, fmt.Errorf("read the event: %w", err)
	}
	e.Labels = in.Labels
	return e, nil
}
