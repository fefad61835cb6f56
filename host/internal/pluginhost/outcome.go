package pluginhost

import (
	"fmt"
	"strings"
	"time"

	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// How much of a failure is kept, in bytes; the SDK sends less.
const (
	maxFailureText    = 64 << 10
	maxFailureContext = 256 << 10
)

// outcomeOf turns a plugin's answer into an outcome. If the step was cancelled, a success
// still counts, but a failure is no verdict.
func outcomeOf(o *pluginv1.Outcome, cancelled cancellation, generation uint64) Outcome {
	out := Outcome{
		Kind: vocab.OutcomeSuccess, Result: o.GetResult(), Metadata: o.GetMetadata(),
		Execution:  time.Duration(o.GetExecutionUs()) * time.Microsecond,
		Generation: generation,
	}
	failure := o.GetFailure()
	switch {
	case failure == nil:
		return succeed(out)
	case cancelled.code != "":
		return released(cancelled.code, cancelled.reason, generation)
	case wire.HandsBack(failure):
		return released(ReasonDraining, clip(failure.GetMessage(), maxFailureText), generation)
	case failure.GetRetryable():
		out.Kind = vocab.OutcomeRetryable
	default:
		out.Kind = vocab.OutcomePermanent
	}
	out.Result, out.Metadata = nil, nil
	out.Failure = &Failure{
		Type:       errorType(failure.GetType()),
		Code:       clip(failure.GetCode(), maxFailureText),
		Message:    clip(failure.GetMessage(), maxFailureText),
		RetryAfter: time.Duration(failure.GetRetryAfterMs()) * time.Millisecond,
	}
	if len(failure.GetContext()) <= maxFailureContext {
		out.Failure.Context = failure.GetContext()
	}
	return out
}

func succeed(out Outcome) Outcome {
	if n := len(out.Result) + len(out.Metadata); n > wire.MaxResultBytes {
		out.Kind, out.Result, out.Metadata = vocab.OutcomePermanent, nil, nil
		out.Failure = &Failure{
			Type: vocab.InvalidResult, Code: "RESULT_TOO_LARGE",
			Message: fmt.Sprintf("the result has %d bytes, more than the %d a step may return; store it elsewhere and return a reference", n, wire.MaxResultBytes),
		}
		return out
	}
	if len(out.Result) == 0 {
		out.Result = []byte("null")
	}
	return out
}

// errorType restricts a plugin to the error types that plugins may report.
func errorType(s string) vocab.ErrorType {
	switch t := vocab.ErrorType(s); t {
	case vocab.PermanentError, vocab.RetryableError, vocab.ValidationError, vocab.UnexpectedError,
		vocab.TimeoutError, vocab.HandlerNotFound, vocab.InvalidResult:
		return t
	default:
		return vocab.UnexpectedError
	}
}

func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "")
}
