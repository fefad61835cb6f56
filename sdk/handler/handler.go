// Package handler defines what the author of a step handler needs: the interface to implement,
// the values it receives, and the errors it may return. There is no machinery, so a handler is
// tested like any other Go code.
//
//	func main() {
//		sdk.Serve(sdk.Handlers("billing", "1.0.0", map[string]handler.Handler{
//			"billing.charge": handler.Func(charge),
//		}))
//	}
//
//	func charge(ctx context.Context, step handler.Step) (handler.Result, error) {
//		var in struct{ Amount json.Number `json:"amount"` }
//		if err := step.DecodeContext(&in); err != nil {
//			return handler.Result{}, handler.Permanent("BAD_AMOUNT", "amount: %v", err)
//		}
//		...
//		return handler.JSON(receipt)
//	}
package handler

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// Handler runs one kind of step.
//
// A step is delivered at least once: usually exactly once, but again after a crash, a lost
// connection or a timeout. Make its effects idempotent, with [Step.IdempotencyKey] as the key.
// The context is cancelled when the step's timeout passes, its task is cancelled, or the host
// gives up the step. An error returned after that counts as a timeout or a cancellation.
//
// Handle is called from many goroutines at once, and the goroutines are reused: do not leave
// one locked to its thread. A panic is caught and reported as an unexpected, retryable error.
type Handler interface {
	Handle(ctx context.Context, step Step) (Result, error)
}

// Func adapts a function to a [Handler].
type Func func(ctx context.Context, step Step) (Result, error)

// Handle calls f.
func (f Func) Handle(ctx context.Context, step Step) (Result, error) { return f(ctx, step) }

// Step is one attempt of one step.
type Step struct {
	TaskUUID  string // the task, a UUID
	StepUUID  string // the step, a UUID: the same for every attempt
	Namespace string // the template's namespace
	Task      string // the template's name
	Version   string // the template's version
	Name      string // the step's name in the template
	Handler   string // the handler's name, as the template gives it

	// Attempt counts from 1. It grows only when an earlier attempt reached the handler and
	// failed; an attempt lost to a crash of the host does not count.
	Attempt int
	// MaxAttempts is the number of attempts after which the step fails for good.
	MaxAttempts int

	// IdempotencyKey is the same for every attempt of the step. It changes only when an
	// operator requests a new run of the step.
	IdempotencyKey string
	// LeaseID is unique to this attempt.
	LeaseID string

	// Context is the task's input, a JSON object.
	Context json.RawMessage
	// Config is the step's configuration from the template, a JSON object.
	Config json.RawMessage
	// Dependencies holds the results of all steps that this one depends on, directly or
	// indirectly, by step name. Each is a JSON value.
	Dependencies map[string]json.RawMessage

	// Traceparent is the W3C trace context of this attempt, for the handler's own spans and
	// calls. It is empty if the task is not traced.
	Traceparent string

	// Deadline is the time at which the attempt times out; zero means never.
	Deadline time.Time
}

// DecodeContext decodes the task's input into v. Numbers stored in an interface value become
// [json.Number], so that no digit is lost.
func (s Step) DecodeContext(v any) error { return decode("context", s.Context, v) }

// DecodeConfig decodes the step's configuration into v, as [Step.DecodeContext]
// does.
func (s Step) DecodeConfig(v any) error { return decode("config", s.Config, v) }

// DecodeDependency decodes the result of the named step into v, as [Step.DecodeContext] does.
// It returns an error if this step does not depend on the named one.
func (s Step) DecodeDependency(name string, v any) error {
	raw, ok := s.Dependencies[name]
	if !ok {
		return fmt.Errorf("step %q does not depend on a step %q", s.Name, name)
	}
	return decode("result of step "+name, raw, v)
}

func decode(what string, raw json.RawMessage, v any) error {
	if len(raw) == 0 {
		raw = json.RawMessage("{}")
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("decode %s: %w", what, err)
	}
	return nil
}

// Result is what a step produced.
type Result struct {
	// Value is any JSON value; empty means null. Integers of any length and decimals are
	// preserved digit by digit.
	Value json.RawMessage
	// Metadata is stored with the value for people and tools; no step reads it.
	Metadata map[string]any
}

// JSON returns a result with v marshalled as its value.
func JSON(v any) (Result, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return Result{}, Permanent("RESULT_NOT_JSON", "marshal result: %v", err)
	}
	return Result{Value: raw}, nil
}
