package api

import (
	"errors"
	"fmt"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// The kinds of errors that a backend distinguishes. An error may wrap one of them
// directly: then its whole text is shown to the client. A Fault gives more detail.
var (
	ErrNotFound    = errors.New("not found")
	ErrConflict    = errors.New("conflict")
	ErrInvalid     = errors.New("invalid")
	ErrUnavailable = errors.New("unavailable")
	ErrGone        = errors.New("gone")
)

// Stable codes of problems: clients branch on them.
const (
	CodeMalformedRequest     = "malformed_request"          // 400: not the JSON or the parameters we expect
	CodePayloadInvalid       = "payload_invalid"            // 400: JSON that cannot be stored exactly
	CodeValidationFailed     = "validation_failed"          // 422: well formed, but a value is not allowed
	CodeContextInvalid       = "context_invalid"            // 422: the context breaks the template's schema
	CodeTemplateInvalid      = "template_invalid"           // 422
	CodeTemplateNotFound     = "template_not_found"         // 404, at submission 422
	CodeTemplateExists       = "template_version_exists"    // 409: the same version with other content
	CodeTaskNotFound         = "task_not_found"             // 422: the context violates the template's schema
	CodeTaskNotCancellable   = "task_not_cancellable"       // 409
	CodeTaskNotRetryable     = "task_not_retryable"         // 409: none of its steps has failed for good
	CodeTaskNotResolvable    = "task_not_resolvable"        // 409: it is complete, cancelled or resolved
	CodeStepNotFound         = "step_not_found"             // 404
	CodeStepNotRetryable     = "step_not_retryable"         // 409: it has not failed for good
	CodeStepNotResolvable    = "step_not_resolvable"        // 409: it runs, waits for parents or is settled
	CodeStepNotSkippable     = "step_not_skippable"         // 409: its template does not allow it
	CodeLetterNotFound       = "dead_letter_not_found"      // 404
	CodeLetterClosed         = "dead_letter_closed"         // 409: it is already closed
	CodeLetterNotReplayable  = "dead_letter_not_replayable" // 409
	CodeQueueNotFound        = "queue_not_found"            // 404
	CodeBreakerNotFound      = "breaker_not_found"          // 404
	CodeStateForbidden       = "state_forbidden"            // 409: the host cannot enter this state now
	CodeIdempotencyKeyReused = "idempotency_key_reused"     // 409
	CodeDuplicateIdentity    = "duplicate_identity"         // 409: a task with the same template and context exists
	CodeConfigurationRefused = "configuration_refused"      // 409: the previous one stays in force
	CodePluginNotFound       = "plugin_not_found"           // 404
	CodePluginRefused        = "plugin_refused"             // 409: what ran before continues
	CodePluginsInvalid       = "plugins_invalid"            // 422: plugins.toml or plugins.lock; what ran before continues
	CodePoolNotFound         = "pool_not_found"             // 404
	CodePoolRefused          = "pool_refused"               // 409: bounds or resources forbid it; nothing has changed
	CodeNotFound             = "not_found"                  // 404: no such route or thing
	CodeConflict             = "conflict"                   // 409
	CodeMethodNotAllowed     = "method_not_allowed"         // 405
	CodeRequestTimeout       = "request_timeout"            // 408: the body came too slowly
	CodePayloadTooLarge      = "payload_too_large"          // 413
	CodeUnsupportedMediaType = "unsupported_media_type"     // 415
	CodeForbidden            = "forbidden"                  // 403: a browser request from another origin
	CodePermissionDenied     = "permission_denied"          // 403: the principal may not do this
	CodeUnauthenticated      = "unauthenticated"            // 401: no token, or an invalid one
	CodeTooManyRequests      = "too_many_requests"          // 429: try again later
	CodeTokenExists          = "token_exists"               // 409: the name is in use
	CodeTokenNotFound        = "token_not_found"            // 404
	CodeEventsExpired        = "events_expired"             // 410: start again without an id
	CodeInternal             = "internal_error"             // 500
	CodeUnavailable          = "unavailable"                // 503: nothing was done; try again later
	CodeOverloaded           = "overloaded"                 // 503: more requests than the database can take; nothing was done
	CodeOutcomeUnknown       = "outcome_unknown"            // 503: it may have been done; repeat it with the same idempotency key
)

// Issue is one thing that is wrong with a request.
type Issue = readmodel.Issue

// Fault is an error that a client may see: Detail and Issues are shown, Cause is only
// logged.
type Fault struct {
	Kind       error  // ErrNotFound, ErrConflict, ErrInvalid, ErrUnavailable or ErrGone
	Code       string // one of the Code constants
	Detail     string // one sentence: what, where, and what to do
	Issues     []Issue
	TaskUUID   string        // ErrConflict only: the task that stands in the way
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

// Conflict returns a Fault for a request that the current state forbids.
func Conflict(code, format string, args ...any) *Fault {
	return &Fault{Kind: ErrConflict, Code: code, Detail: fmt.Sprintf(format, args...)}
}

// ConflictWith is [Conflict] for the case that a task stands in the way.
func ConflictWith(taskUUID, code, format string, args ...any) *Fault {
	f := Conflict(code, format, args...)
	f.TaskUUID = taskUUID
	return f
}

// Invalid returns a Fault for a request that cannot succeed unchanged.
func Invalid(code, detail string, issues ...Issue) *Fault {
	return &Fault{Kind: ErrInvalid, Code: code, Detail: detail, Issues: issues}
}

// Overloaded returns a Fault for a request that arrived when there were too many.
func Overloaded(detail string, retryAfter time.Duration, cause error) *Fault {
	return &Fault{Kind: ErrUnavailable, Code: CodeOverloaded, Detail: detail, RetryAfter: retryAfter, Cause: cause}
}

// OutcomeUnknown returns a Fault for a request that may have been carried out.
func OutcomeUnknown(detail string, retryAfter time.Duration, cause error) *Fault {
	return &Fault{Kind: ErrUnavailable, Code: CodeOutcomeUnknown, Detail: detail, RetryAfter: retryAfter, Cause: cause}
}

// Unavailable returns a Fault for a request that may succeed later. detail is shown, and
// cause is only logged.
func Unavailable(detail string, retryAfter time.Duration, cause error) *Fault {
	return &Fault{Kind: ErrUnavailable, Code: CodeUnavailable, Detail: detail, RetryAfter: retryAfter, Cause: cause}
}
