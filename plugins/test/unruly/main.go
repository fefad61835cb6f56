package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/go-plugin"

	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/handler"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

func main() {
	mode := "sdk"
	if len(os.Args) > 1 {
		mode = os.Args[1]
	}
	switch mode {
	case "sdk": // well behaved, except for its handlers
		sdk.Serve(sdk.Handlers("chaos", "1.2.3", chaosHandlers(), chaosOptions()))
	case "fails": // as sdk, but every second echo fails
		sdk.Serve(sdk.Handlers("chaos", "1.2.4", withEcho(func(_ context.Context, s handler.Step) (handler.Result, error) {
			if len(s.Context)%2 == 0 {
				return handler.Result{}, handler.Permanent("NO", "a new fault")
			}
			return handler.Result{Value: s.Context}, nil
		}), chaosOptions()))
	case "slow": // as sdk, but slower
		sdk.Serve(sdk.Handlers("chaos", "1.2.5", withEcho(func(ctx context.Context, s handler.Step) (handler.Result, error) {
			select {
			case <-ctx.Done():
			case <-time.After(300 * time.Millisecond):
			}
			return handler.Result{Value: s.Context}, nil
		}), chaosOptions()))
	case "other": // also claims a handler of sdk
		sdk.Serve(sdk.Handlers("other", "1.0.0", map[string]handler.Handler{
			"chaos.echo": handler.Func(echo), "other.echo": handler.Func(echo),
		}))
	case "selftest":
		sdk.Serve(sdk.Handlers("bad", "1.0.0", chaosHandlers(), sdk.SelfTest(func(context.Context) error {
			return errors.New("the database of rates is missing")
		})))
	case "raw": // speaks the protocol without the SDK's checks
		serveRaw(wire.Plugins(&raw{}))
	case "version": // speaks another version of the protocol
		sets := wire.Plugins(&raw{})
		serveRaw(map[int]plugin.PluginSet{99: sets[wire.ProtocolVersion]})
	case "netrpc":
		plugin.Serve(&plugin.ServeConfig{HandshakeConfig: wire.Handshake, Plugins: plugin.PluginSet{}})
	case "loop": // ends soon after it serves
		go func() {
			<-time.After(20 * time.Millisecond)
			os.Exit(9)
		}()
		serveRaw(wire.Plugins(&raw{}))
	case "law": // serves all kinds
		serveLaw(func() scaler.Scaler { return &counter{} })
	case "law-plus": // decides differently, whatever it has missed
		serveLaw(func() scaler.Scaler { return &counter{plus: 1000} })
	case "law-broken": // has an algorithm, and does not know the call
		serveRaw(wire.Plugins(&lawless{}))
	case "dies": // ends soon after it has got its stream
		serveRaw(wire.Plugins(&dying{}))
	case "moody": // is unhealthy while the named file exists
		serveRaw(wire.Plugins(&moody{file: os.Args[2]}))
	case "reporter": // of kind health; misbehaves as specified while the named file exists
		serveRaw(wire.Plugins(&reporter{how: os.Args[2], file: os.Args[3]}))
	case "flood":
		go flood()
		serveRaw(wire.Plugins(&raw{}))
	}
	if phase, how, ok := strings.Cut(strings.TrimPrefix(mode, "bad-"), "-"); ok {
		bad := faulty{phase: phase, how: how}
		if phase == "decide" {
			serveRaw(wire.Plugins(&faultyLaw{faulty: bad}))
		}
		serveRaw(wire.Plugins(&bad))
	}
	os.Exit(99)
}
