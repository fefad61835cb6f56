package handler

import (
	"fmt"
	"time"

	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Error is a failure the handler has classified. Any other error a handler
// returns is an [vocab.UnexpectedError] and is retried.
type Error struct {
	// Type is PermanentError, RetryableError or ValidationError.
	Type vocab.ErrorType
	// Code is a stable name for programs, such as PAYMENT_DECLINED; may be empty.
	Code string
	// Message is for people.
	Message string
	// RetryAfter asks that the next attempt waits at least this long; it wins
	// over the step's back-off, capped by the host. Zero: the back-off decides.
	RetryAfter time.Duration
	// Context holds more about the failure; it must marshal to JSON.
	Context map[string]any
}

var _ error = (*Error)(nil)

// Error returns the message, led by the code if there is one.
func (e *Error) Error() string {
	if e.Code == "" {
		return e.Message
	}
	return e.Code + ": " + e.Message
}

// Permanent returns an error that fails the step for good.
func Permanent(code, format string, args ...any) *Error {
	return &Error{Type: vocab.PermanentError, Code: code, Message: fmt.Sprintf(format, args...)}
}

// Invalid returns an error that fails the step for good because its input can
// never work.
func Invalid(code, format string, args ...any) *Error {
	return &Error{Type: vocab.ValidationError, Code: code, Message: fmt.Sprintf(format, args...)}
}

// Retryable returns an error that lets the step be tried again, at the earliest
// after the given time; zero leaves the wait to the step's back-off.
func Retryable(after time.Duration, code, format string, args ...any) *Error {
	return &Error{Type: vocab.RetryableError, Code: code, Message: fmt.Sprintf(format, args...), RetryAfter: after}
}
