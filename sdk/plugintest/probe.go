package plugintest

import (
	"bytes"
	"context"
	"runtime"

	"github.com/tasker-systems/tasker-host/sdk/handler"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// The handlers that [Conformance] serves beside the plugin's own.
const (
	probeEcho    = "plugintest.echo"    // returns the task's input
	probeWait    = "plugintest.wait"    // waits until it is cancelled
	probePanic   = "plugintest.panic"   // panics
	probeGoexit  = "plugintest.goexit"  // ends its goroutine
	probeInvalid = "plugintest.invalid" // returns what is not JSON
	probeLarge   = "plugintest.large"   // returns the largest result allowed
	probeBig     = "plugintest.big"     // returns one byte more
)

func newProbes() map[string]handler.Handler {
	return map[string]handler.Handler{
		probeEcho: handler.Func(func(_ context.Context, s handler.Step) (handler.Result, error) {
			return handler.Result{Value: s.Context}, nil
		}),
		probeWait: handler.Func(func(ctx context.Context, _ handler.Step) (handler.Result, error) {
			<-ctx.Done()
			return handler.Result{}, ctx.Err()
		}),
		probePanic: handler.Func(func(context.Context, handler.Step) (handler.Result, error) {
			panic("boom")
		}),
		probeGoexit: handler.Func(func(context.Context, handler.Step) (handler.Result, error) {
			runtime.Goexit()
			return handler.Result{}, nil
		}),
		probeInvalid: handler.Func(func(context.Context, handler.Step) (handler.Result, error) {
			return handler.Result{Value: []byte(`{"open": `)}, nil
		}),
		probeLarge: jsonString(wire.MaxResultBytes),
		probeBig:   jsonString(wire.MaxResultBytes + 1),
	}
}

// jsonString returns a string that takes the given number of bytes in JSON.
func jsonString(size int) handler.Handler {
	return handler.Func(func(context.Context, handler.Step) (handler.Result, error) {
		value := bytes.Repeat([]byte("x"), size)
		value[0], value[size-1] = '"', '"'
		return handler.Result{Value: value}, nil
	})
}
