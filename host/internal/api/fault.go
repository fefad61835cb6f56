package api

import (
	"errors"
	"fmt"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// The kinds of errors that a backend tells apart. An error may wrap one of
// them directly: then its whole text is shown to the client. A Fault says
// more.
var (
	ErrNotFound    = errors.New("not found")
	ErrConflict    = errors.New("conflict")
	ErrInvalid     = errors.New("invalid")
	ErrUnavailable = errors.New("unavailable")
)

// Stable codes of problems: clients branch on them.
const (
	CodeMalformedRequest     = "malformed_request"       // 400: not the JSON or the parameters we expect
	CodePayloadInvalid       = "payload_invalid"         // 400: JSON that cannot be stored exactly
	CodeValidationFailed     = "validation_failed"       // 422: well formed, but a value is not allowed
	CodeContextInvalid       = "context_invalid"         // 422: the context breaks the template's schema
	CodeTemplateInvalid      = "template_invalid"        // 422
	CodeTemplateNotFound     = "template_not_found"      // 404, at submission 422
	CodeTemplateExists       = "template_version_exists" // 409: the same version with other content
	CodeTaskNotFound         = "task_not_found"          // 404
	CodeTaskNotCancellable   = "task_not_cancellable"    // 409
	CodeIdempotencyKeyReused = "idempotency_key_reused"  // 409
	CodeNotFound             = "not_found"               // 404: no such route or thing
	CodeConflict             = "conflict"                // 409
	CodeMethodNotAllowed     = "method_not_allowed"      // 405
	CodeRequestTimeout       = "request_timeout"         // 408: the body came too slowly
	CodePayloadTooLarge      = "payload_too_large"       // 413
	CodeUnsupportedMediaType = "unsupported_media_type"  // 415
	CodeForbidden            = "forbidden"               // 403: a browser from elsewhere
	CodeInternal             = "internal_error"          // 500
	CodeUnavailable          = "unavailable"             // 503: try again later
)

// Issue is one thing that is wrong with a request.
type Issue = readmodel.Issue

// Fault is an error that a client may see: Detail and Issues are shown, Cause
// is only logged.
type Fault struct {
	Kind       error  // ErrNotFound, ErrConflict, ErrInvalid or ErrUnavailable
	Code       string // one of the Code constants
	Detail     string // one sentence: what, where, what to do
	Issues     []Issue
	RetryAfter time.Duration // ErrUnavailable only; 0: a second
	Cause      error
}

// Error returns the detail and the cause, for logs.
func (f *Fault) Error() string {
	if f.Cause != nil {
		return f.Detail + ": " + f.Cause.Error()
	}
	return f.Detail
}

// Unwrap returns the kind and the cause.
func (f *Fault) Unwrap() []error {
	if f.Cause != nil {
		return []error{f.Kind, f.Cause}
	}
	return []error{f.Kind}
}

// NotFound returns a Fault for a thing that does not exist.
func NotFound(code, format string, args ...any) *Fault {
	return &Fault{Kind: ErrNotFound, Code: code, Detail: fmt.Sprintf(format, args...)}
}

// Conflict returns a Fault for a request that the state of things forbids.
func Conflict(code, format string, args ...any) *Fault {
	return &Fault{Kind: ErrConflict, Code: code, Detail: fmt.Sprintf(format, args...)}
}

// Invalid returns a Fault for a request that can never work as it is.
func Invalid(code, detail string, issues ...Issue) *Fault {
	return &Fault{Kind: ErrInvalid, Code: code, Detail: detail, Issues: issues}
}

// Unavailable returns a Fault for a request that may work later. detail is
// shown, cause only logged.
func Unavailable(detail string, retryAfter time.Duration, cause error) *Fault {
	return &Fault{Kind: ErrUnavailable, Code: CodeUnavailable, Detail: detail, RetryAfter: retryAfter, Cause: cause}
}
