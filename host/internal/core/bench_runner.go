package core

import (
	"context"
	"maps"
	"slices"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/plugins/examples/bench"
	"github.com/tasker-systems/tasker-host/sdk/handler"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// benchRunner runs the benchmark's handlers in this process, to measure the cost of
// everything except the plugins. Such a handler does little work.
type benchRunner struct {
	handlers map[string]handler.Handler
}

func newBenchRunner() *benchRunner {
	all := bench.Handlers()
	return &benchRunner{map[string]handler.Handler{bench.Noop: all[bench.Noop], bench.Echo: all[bench.Echo], bench.Clock: all[bench.Clock]}}
}

// Services returns the handlers.
func (r *benchRunner) Services() []pluginhost.Service {
	return []pluginhost.Service{{Name: "bench", Window: benchWindow, Handlers: slices.Sorted(maps.Keys(r.handlers))}}
}

// Changed returns nil: the services never change.
func (r *benchRunner) Changed() <-chan struct{} { return nil }

// Dispatch calls the handler.
func (r *benchRunner) Dispatch(call pluginhost.Call) {
	result, err := r.handlers[call.Handler].Handle(context.Background(), handler.Step{Name: call.Step.StepName})
	if err != nil {
		call.Done(pluginhost.Outcome{Kind: vocab.OutcomePermanent, Failure: &pluginhost.Failure{Type: vocab.PermanentError, Message: err.Error()}})
		return
	}
	call.Done(pluginhost.Outcome{Kind: vocab.OutcomeSuccess, Result: result.Value})
}

// Cancel does nothing: there is nothing to end.
func (r *benchRunner) Cancel(string, string) {}
