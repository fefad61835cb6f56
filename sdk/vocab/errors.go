package vocab

// ErrorType names what kind of failure ended an attempt. The first four are the
// reference's; the others are failures that only a host can see.
type ErrorType string

// The error types of a failed attempt.
const (
	PermanentError  ErrorType = "PermanentError"  // the handler says: never try again
	RetryableError  ErrorType = "RetryableError"  // the handler says: try again
	ValidationError ErrorType = "ValidationError" // the input can never work
	UnexpectedError ErrorType = "UnexpectedError" // an error the handler did not classify: retried
	TimeoutError    ErrorType = "TimeoutError"    // the attempt outlived the step's timeout: retried
	HandlerNotFound ErrorType = "HandlerNotFound" // the plugin does not serve the handler: permanent
	InvalidResult   ErrorType = "InvalidResult"   // the result is not JSON we can store: permanent
	ClaimsExhausted ErrorType = "ClaimsExhausted" // claimed again and again without an outcome: permanent
)

// Outcome is what one attempt of a step came to.
type Outcome string

// The outcomes of an attempt. Released means that the handler gave no verdict
// (its plugin died or was replaced, the host is draining): the step runs again
// and no attempt is charged.
const (
	OutcomeSuccess   Outcome = "success"
	OutcomeRetryable Outcome = "retryable"
	OutcomePermanent Outcome = "permanent"
	OutcomeReleased  Outcome = "released"
)

// Outcomes lists every outcome.
var Outcomes = []Outcome{OutcomeSuccess, OutcomeRetryable, OutcomePermanent, OutcomeReleased}
