package plugintest

import (
	"cmp"
	"encoding/json"
	"testing"
	"time"

	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/handler"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Step is the step to run. The zero value is the first of three attempts, with
// empty inputs and no timeout.
type Step struct {
	// Name is the step's name; "step" if empty.
	Name string
	// Context is the task's input: whatever marshals to a JSON object, such as
	// a map, a struct or a [json.RawMessage].
	Context any
	// Config is the step's configuration, as Context.
	Config any
	// Dependencies holds the results of the steps before, by name.
	Dependencies map[string]any
	// Attempt counts from 1; 0 is 1. MaxAttempts 0 is 3.
	Attempt, MaxAttempts int
	// Timeout is the step's, in whole milliseconds; zero is none.
	Timeout time.Duration
}

// Outcome is what the host would get.
type Outcome struct {
	Result   json.RawMessage // a JSON value; nil if the step failed
	Metadata json.RawMessage // a JSON object; nil if there is none
	Failure  *Failure        // nil if the step succeeded
}

// Failure says how the host would see a failed attempt.
type Failure struct {
	Type       vocab.ErrorType
	Code       string
	Message    string
	Retryable  bool
	RetryAfter time.Duration
	Context    json.RawMessage // a JSON object; nil if there is none
}

// Decode unmarshals the result into v. It ends the test if the step failed.
func (o Outcome) Decode(t testing.TB, v any) {
	t.Helper()
	if o.Failure != nil {
		t.Fatalf("the step failed: %s %s: %s", o.Failure.Type, o.Failure.Code, o.Failure.Message)
	}
	if err := json.Unmarshal(o.Result, v); err != nil {
		t.Fatalf("decode result: %v", err)
	}
}

// Run runs one step as a plugin would, and returns what the host would get.
func Run(t testing.TB, h handler.Handler, step Step) Outcome {
	t.Helper()
	const name = "under.test"
	client := Connect(t, sdk.Handlers("plugintest", "1.0.0", map[string]handler.Handler{name: h}))
	configure(t, client, nil)
	return outcomeOf(openSession(t, client).run(t, step.message(t, name)))
}

func (s Step) message(t testing.TB, handler string) *pluginv1.Step {
	t.Helper()
	m := &pluginv1.Step{
		Handler:        handler,
		TaskUuid:       "01926f3c-8a00-7000-8000-000000000000",
		StepUuid:       "01926f3c-8a00-7000-8000-000000000001",
		Namespace:      "plugintest",
		TaskName:       "plugintest",
		TaskVersion:    "1.0.0",
		StepName:       cmp.Or(s.Name, "step"),
		Attempt:        uint32(cmp.Or(s.Attempt, 1)),     //nolint:gosec // a test's number
		MaxAttempts:    uint32(cmp.Or(s.MaxAttempts, 3)), //nolint:gosec // a test's number
		IdempotencyKey: "01926f3c-8a00-7000-8000-000000000001:1",
		LeaseId:        "7d1f0d0e-5d3c-4c0b-9a51-3f8f0a3b7c11",
		Context:        object(t, s.Context),
		Config:         object(t, s.Config),
		TimeoutMs:      uint32(s.Timeout.Milliseconds()), //nolint:gosec // a test's number
	}
	for name, result := range s.Dependencies {
		m.Dependencies = append(m.Dependencies, &pluginv1.Dependency{StepName: name, Result: marshal(t, result)})
	}
	return m
}

// object marshals a value; none is the empty object.
func object(t testing.TB, v any) []byte {
	t.Helper()
	if v == nil {
		return []byte("{}")
	}
	return marshal(t, v)
}

func outcomeOf(o *pluginv1.Outcome) Outcome {
	out := Outcome{Result: o.GetResult(), Metadata: o.GetMetadata()}
	if f := o.GetFailure(); f != nil {
		out.Failure = &Failure{
			Type:       vocab.ErrorType(f.GetType()),
			Code:       f.GetCode(),
			Message:    f.GetMessage(),
			Retryable:  f.GetRetryable(),
			RetryAfter: time.Duration(f.GetRetryAfterMs()) * time.Millisecond,
			Context:    f.GetContext(),
		}
	}
	return out
}
