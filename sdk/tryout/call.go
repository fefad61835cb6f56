package tryout

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tasker-systems/tasker-host/sdk/health"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// Configure passes the options to the plugin; empty means none.
func (i *Instance) Configure(ctx context.Context, options json.RawMessage) error {
	if len(options) == 0 {
		options = json.RawMessage("{}")
	}
	answer, err := i.Plugin.Configure(ctx, &pluginv1.ConfigureRequest{
		Options: options, Generation: 1, Environment: "test", MaxInFlight: 64,
	})
	if err != nil {
		return fmt.Errorf("configure: %w", err)
	}
	var problems []string
	for _, e := range answer.GetErrors() {
		problems = append(problems, cmp.Or(e.GetPath(), "/")+": "+e.GetMessage())
	}
	if len(problems) > 0 {
		return fmt.Errorf("it refuses its options: %s", strings.Join(problems, "; "))
	}
	return nil
}

// Step is the input of a step. Fields that are left out are empty; the default is
// the first of three attempts.
type Step struct {
	Name         string                     `json:"name,omitempty"`
	Context      json.RawMessage            `json:"context,omitempty"`
	Config       json.RawMessage            `json:"config,omitempty"`
	Dependencies map[string]json.RawMessage `json:"dependencies,omitempty"`
	Attempt      uint32                     `json:"attempt,omitempty"`
	MaxAttempts  uint32                     `json:"max_attempts,omitempty"`
	TimeoutMs    uint32                     `json:"timeout_ms,omitempty"`
}

// Message returns the step as the handler receives it.
func (s Step) Message(handler string) *pluginv1.Step {
	object := func(raw json.RawMessage) []byte {
		if len(raw) == 0 {
			return []byte("{}")
		}
		return raw
	}
	m := &pluginv1.Step{
		Handler:        handler,
		TaskUuid:       "01926f3c-8a00-7000-8000-000000000000",
		StepUuid:       "01926f3c-8a00-7000-8000-000000000001",
		Namespace:      "tryout",
		TaskName:       "tryout",
		TaskVersion:    "1.0.0",
		StepName:       cmp.Or(s.Name, "step"),
		Attempt:        cmp.Or(s.Attempt, 1),
		MaxAttempts:    cmp.Or(s.MaxAttempts, 3),
		IdempotencyKey: "01926f3c-8a00-7000-8000-000000000001:1",
		LeaseId:        "7d1f0d0e-5d3c-4c0b-9a51-3f8f0a3b7c11",
		Context:        object(s.Context),
		Config:         object(s.Config),
		TimeoutMs:      s.TimeoutMs,
	}
	for name, result := range s.Dependencies {
		m.Dependencies = append(m.Dependencies, &pluginv1.Dependency{StepName: name, Result: result})
	}
	return m
}

// ParseStep decodes a step; unknown keys are an error.
func ParseStep(raw []byte) (Step, error) {
	var s Step
	if err := strict(raw, &s); err != nil {
		return s, fmt.Errorf("read the step: %w", err)
	}
	for name, object := range map[string]json.RawMessage{"context": s.Context, "config": s.Config} {
		if len(object) > 0 && !isObject(object) {
			return s, fmt.Errorf("read the step: %s must be a JSON object", name)
		}
	}
	return s, nil
}

// Step runs one step. It calls progress, which may be nil, with each progress report.
func (i *Instance) Step(ctx context.Context, handler string, step Step, progress func(percent int, note string)) (*pluginv1.Outcome, error) {
	work, err := i.OpenWork(ctx)
	if err != nil {
		return nil, err
	}
	defer work.Close()
	tell := func(p *pluginv1.Progress) {
		if progress != nil {
			progress(int(p.GetPercent()), p.GetNote())
		}
	}
	attempt, err := work.Send(step.Message(handler), tell)
	if err != nil {
		return nil, err
	}
	return attempt.Wait(ctx)
}

// Decide asks an algorithm for its decision about one pool.
func (i *Instance) Decide(ctx context.Context, algorithm string, o scaler.Observation) (scaler.Decision, error) {
	decisions, err := i.decide(ctx, algorithm, o)
	if err != nil {
		return scaler.Decision{}, err
	}
	return decisions[0], nil
}

// decide asks an algorithm for its decisions about several pools.
func (i *Instance) decide(ctx context.Context, algorithm string, all ...scaler.Observation) ([]scaler.Decision, error) {
	request := &pluginv1.DecideRequest{Algorithm: algorithm}
	for _, o := range all {
		request.Observations = append(request.Observations, wire.EncodeObservation(o))
	}
	answer, err := i.Scaling.Decide(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("decide: %w", err)
	}
	if got, want := len(answer.GetDecisions()), len(all); got != want {
		return nil, fmt.Errorf("decide: %d decisions for %d observations: want one for each, in the same order", got, want)
	}
	decisions := make([]scaler.Decision, len(all))
	for n, m := range answer.GetDecisions() {
		if m.GetError() != "" {
			return nil, fmt.Errorf("decide: the algorithm reports an error: %s", m.GetError())
		}
		decisions[n] = wire.DecodeDecision(m)
		if err := decisions[n].Check(); err != nil {
			return nil, fmt.Errorf("decide: the decision is not usable: %w", err)
		}
	}
	return decisions, nil
}

// CheckHealth runs the checks of a checker.
func (i *Instance) CheckHealth(ctx context.Context, name string) ([]health.Check, error) {
	answer, err := i.Health.Check(ctx, &pluginv1.CheckRequest{Name: name})
	if err != nil {
		return nil, fmt.Errorf("check %s: %w", name, err)
	}
	if answer.GetError() != "" {
		return nil, fmt.Errorf("check %s: it could not find out: %s", name, answer.GetError())
	}
	seen := map[string]bool{}
	checks := make([]health.Check, len(answer.GetResults()))
	for n, m := range answer.GetResults() {
		if checks[n], err = wire.DecodeCheck(m); err != nil {
			return nil, fmt.Errorf("check %s: a result is not usable: %w", name, err)
		}
		if checks[n].Status == health.Unknown && strings.HasPrefix(checks[n].Message, wire.Unusable) { // the SDK has seen it
			return nil, fmt.Errorf("check %s: result %q: %s", name, checks[n].Name, checks[n].Message)
		}
		if seen[checks[n].Name] {
			return nil, fmt.Errorf("check %s: two results are named %q", name, checks[n].Name)
		}
		seen[checks[n].Name] = true
	}
	if len(checks) > health.MaxChecks {
		return nil, fmt.Errorf("check %s: %d results, more than %d", name, len(checks), health.MaxChecks)
	}
	return checks, nil
}

// Report delivers events to a reporter.
func (i *Instance) Report(ctx context.Context, name string, events ...health.Event) error {
	request := &pluginv1.ReportRequest{Name: name}
	for _, e := range events {
		request.Events = append(request.Events, wire.EncodeEvent(e))
	}
	answer, err := i.Health.Report(ctx, request)
	if err != nil {
		return fmt.Errorf("report to %s: %w", name, err)
	}
	if answer.GetError() != "" {
		return fmt.Errorf("report to %s: %s", name, answer.GetError())
	}
	return nil
}

// strict decodes JSON and refuses unknown keys and trailing data.
func strict(raw []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if d.More() {
		return errors.New("there is something after the JSON object")
	}
	return nil
}

// Event returns an event for trying a reporter.
func Event() health.Event {
	return health.Event{
		ID: "tryout-1", Kind: "tryout", Severity: health.Info, Subject: "tryout", From: "before", To: "after",
		Time: time.Now().UTC().Truncate(time.Microsecond), Message: "this event is a test of the reporter", Host: "tryout", State: "normal",
		Labels: map[string]string{"purpose": "test"},
	}
}
