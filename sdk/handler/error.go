package handler

import (
	"fmt"
	"time"

	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Error is a failure that the handler has classified. Any other error that a handler returns
// counts as a [vocab.UnexpectedError] and is retried.
type Error struct {
	// Type is PermanentError, RetryableError or ValidationError.
	Type vocab.ErrorType
	// Code is a stable name for programs, such as PAYMENT_DECLINED. It may be empty. CANCELLED
	// becomes HANDLER_CANCELLED: the host uses it for attempts that it has cancelled itself.
	Code string
	// Message is for people.
	Message string
	// RetryAfter is the minimum wait before the next attempt. It overrides the step's back-off,
	// up to a limit of the host. Zero means that the back-off decides.
	RetryAfter time.Duration
	// Context holds details of the failure. It must marshal to JSON.
	Context map[string]any
}

var _ error = (*Error)(nil)

// Error returns the message, preceded by the code if there is one.
func (e *Error) Error() string {
	if e.Code == "" {
		return e.Message
	}
	return e.Code + ": " + e.Message
}

// Permanent returns an error that fails the step for good. About the code, see [Error].
func Permanent(code, format string, args ...any) *Error {
	return &Error{Type: vocab.PermanentError, Code: code, Message: fmt.Sprintf(format, args...)}
}

// Invalid returns an error that fails the step for good because its input can
// never work.
func Invalid(code, format string, args ...any) *Error {
	return &Error{Type: vocab.ValidationError, Code: code, Message: fmt.Sprintf(format, args...)}
}

// Retryable returns an error that lets the step be retried after at least the given time. Zero
// leaves the wait to the step's back-off.
func Retryable(after time.Duration, code, format string, args ...any) *Error {
	return &Error{Type: vocab.RetryableError, Code: code, Message: fmt.Sprintf(format, args...), RetryAfter: after}
}
