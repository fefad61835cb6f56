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

// benchRunner runs the benchmark's handlers in this process, for the price of
// everything but the plugins. What such a handler does is quick.
type benchRunner struct {
	handlers map[string]handler.Handler
}

func newBenchRunner() *benchRunner {
	all := bench.Handlers()
	return &benchRunner{map[string]handler.Handler{bench.Noop: all[bench.Noop], bench.Echo: all[bench.Echo], bench.Clock: all[bench.Clock]}}
}

// Services are the handlers.
func (r *benchRunner) Services() []pluginhost.Service {
	return []pluginhost.Service{{Name: "bench", Window: benchWindow, Handlers: slices.Sorted(maps.Keys(r.handlers))}}
}

// Changed never is.
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

// Cancel has nothing to end.
func (r *benchRunner) Cancel(string, string) {}
