package plugintest

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/handler"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/tryout"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Step is the step to run. The zero value is the first of three attempts, with
// empty inputs and no timeout.
type Step struct {
	// Name is the step's name; "step" if empty.
	Name string
	// Context is the task's input: anything that marshals to a JSON object, such as a map, a
	// struct or a [json.RawMessage].
	Context any
	// Config is the step's configuration, in the same forms as Context.
	Config any
	// Dependencies holds the results of the preceding steps, by name.
	Dependencies map[string]any
	// Attempt counts from 1; 0 means 1. MaxAttempts 0 means 3.
	Attempt, MaxAttempts int
	// Timeout is the step's timeout, in whole milliseconds; zero means none.
	Timeout time.Duration
}

// Outcome is what the host would receive.
type Outcome struct {
	Result   json.RawMessage // a JSON value; nil if the step failed
	Metadata json.RawMessage // a JSON object; nil if there is none
	Failure  *Failure        // nil if the step succeeded
}

// Failure describes a failed attempt as the host would see it.
type Failure struct {
	Type       vocab.ErrorType
	Code       string
	Message    string
	Retryable  bool
	RetryAfter time.Duration
	Context    json.RawMessage // a JSON object; nil if there is none
}

// Decode unmarshals the result into v. It fails the test if the step failed.
func (o Outcome) Decode(t testing.TB, v any) {
	t.Helper()
	if o.Failure != nil {
		t.Fatalf("the step failed: %s %s: %s", o.Failure.Type, o.Failure.Code, o.Failure.Message)
	}
	if err := json.Unmarshal(o.Result, v); err != nil {
		t.Fatalf("decode result: %v", err)
	}
}

// Run runs one step as a plugin would, and returns what the host would receive.
func Run(t testing.TB, h handler.Handler, step Step) Outcome {
	t.Helper()
	const name = "under.test"
	client := connect(t, sdk.Handlers("plugintest", "1.0.0", map[string]handler.Handler{name: h}))
	configure(t, client, nil)
	return outcomeOf(openSession(t, client).run(t, step.message(t, name)))
}

func (s Step) message(t testing.TB, handler string) *pluginv1.Step {
	t.Helper()
	m := s.input(t).Message(handler)
	m.Namespace, m.TaskName = "plugintest", "plugintest"
	return m
}

func (s Step) input(t testing.TB) tryout.Step {
	t.Helper()
	in := tryout.Step{
		Name: s.Name, Context: marshal(t, s.Context), Config: marshal(t, s.Config),
		Attempt: uint32(s.Attempt), MaxAttempts: uint32(s.MaxAttempts),
		TimeoutMs:    uint32(s.Timeout.Milliseconds()),
		Dependencies: map[string]json.RawMessage{},
	}
	for name, result := range s.Dependencies {
		in.Dependencies[name] = marshal(t, result)
	}
	return in
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
