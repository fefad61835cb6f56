package pluginhost

import (
	"encoding/json"
	"time"

	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Call is one attempt of one step.
type Call struct {
	// Handler names the handler that runs the step.
	Handler string
	// Step is what the plugin receives. The host sets its call id and its handler; the
	// caller must not touch it from then on.
	Step *pluginv1.Step
	// Done is called exactly once with the outcome, from any goroutine, and before
	// Dispatch returns if no plugin serves the handler. It must be quick and must not
	// block: other outcomes wait for it.
	Done func(Outcome)
	// Progress, if not nil, is called with what the step reports about its progress, a
	// few times a second at most if the plugin behaves. It must be as quick as Done. It
	// may be called at the same time as Done, and once after it.
	Progress func(Progress)
}

// Progress is how far a step says it is. It comes from a plugin, but is bounded: 0 to
// 100, and a note of valid UTF-8.
type Progress struct {
	Percent int
	Note    string
}

// Outcome is the result of a call.
type Outcome struct {
	// Kind says what to do with the step.
	Kind vocab.Outcome
	// Result is what the handler returned, at most 4 MiB. These bytes come from a plugin:
	// the receiver must check whether they are JSON.
	Result json.RawMessage
	// Metadata is like Result; it may be empty.
	Metadata json.RawMessage
	// Failure is set for every kind but success. For released calls its code is one of
	// the reasons below.
	Failure *Failure
	// Execution is how long the handler ran according to the plugin, or until the call
	// was given up; zero if unknown.
	Execution time.Duration
	// Generation is the number of the process that the call was sent to; zero if none.
	Generation uint64
}

// Failure says why a call did not succeed.
type Failure struct {
	Type       vocab.ErrorType // empty for released calls
	Code       string
	Message    string
	RetryAfter time.Duration   // zero: the step's back-off decides
	Context    json.RawMessage // bytes from a plugin; may be empty
}

// The codes of released calls: why no handler gave a verdict.
const (
	ReasonCrashed   = "plugin_crashed"  // the process ended, or its stream broke
	ReasonReplaced  = "plugin_replaced" // the process was replaced before the call ended
	ReasonDraining  = "plugin_draining" // the plugin handed the step back because it is about to end
	ReasonReturned  = "plugin_returned" // the plugin hands steps back but does not end
	ReasonStopping  = "host_stopping"   // the host shut down before the call ended
	ReasonCancelled = "cancelled"       // Cancel was called for the step
	ReasonNoPlugin  = "no_plugin"       // no plugin serves the handler now
)

// Service is a plugin that is serving now.
type Service struct {
	Name     string   // the plugin's name
	Handlers []string // in order
	Window   int      // steps it runs at once, as agreed at its start; further dispatched steps wait here
}

func released(reason, message string, generation uint64) Outcome {
	return Outcome{
		Kind:       vocab.OutcomeReleased,
		Failure:    &Failure{Code: reason, Message: message},
		Generation: generation,
	}
}
