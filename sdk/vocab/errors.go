package vocab

// ErrorType names the kind of failure that ended an attempt. The first four come from the
// reference system; the others are failures that only a host can see.
type ErrorType string

// The error types of a failed attempt.
const (
	PermanentError  ErrorType = "PermanentError"  // the handler says not to try again
	RetryableError  ErrorType = "RetryableError"  // the handler says to try again
	ValidationError ErrorType = "ValidationError" // the input can never work
	UnexpectedError ErrorType = "UnexpectedError" // an error that the handler did not classify: retried
	TimeoutError    ErrorType = "TimeoutError"    // the attempt outlived the step's timeout: retried
	HandlerNotFound ErrorType = "HandlerNotFound" // the plugin does not serve the handler: permanent
	InvalidResult   ErrorType = "InvalidResult"   // the result is not JSON we can store: permanent
	ClaimsExhausted ErrorType = "ClaimsExhausted" // claimed again and again without an outcome: permanent
)

// Outcome is the result of one attempt of a step.
type Outcome string

// The outcomes of an attempt. Released means that the handler gave no verdict (its plugin died
// or was replaced, or the host is draining): the step runs again, and the attempt does not
// count.
const (
	OutcomeSuccess   Outcome = "success"
	OutcomeRetryable Outcome = "retryable"
	OutcomePermanent Outcome = "permanent"
	OutcomeReleased  Outcome = "released"
)

// Outcomes lists every outcome.
var Outcomes = []Outcome{OutcomeSuccess, OutcomeRetryable, OutcomePermanent, OutcomeReleased}
