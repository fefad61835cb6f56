package pluginhost

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/handler"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// pluginMain is the test binary as a plugin. It does not return.
func pluginMain(mode string) {
	switch mode {
	case "sdk": // well behaved, but for its handlers
		sdk.Serve(sdk.Handlers("chaos", "1.2.3", chaosHandlers(), chaosOptions()))
	case "other": // claims a handler of sdk's too
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
	case "flood":
		go flood()
		serveRaw(wire.Plugins(&raw{}))
	}
	os.Exit(99)
}

type chaosSettings struct {
	Greeting string `json:"greeting"`
}

func chaosOptions() sdk.Option {
	return sdk.WithOptions(chaosSettings{}, func(_ context.Context, o chaosSettings) error {
		if o.Greeting == "rude" {
			return &sdk.OptionError{Path: "/greeting", Message: "be polite"}
		}
		return nil
	})
}

func chaosHandlers() map[string]handler.Handler {
	return map[string]handler.Handler{
		"chaos.echo": handler.Func(echo),
		"chaos.fail": handler.Func(func(_ context.Context, s handler.Step) (handler.Result, error) {
			var how string
			_ = s.DecodeContext(&how)
			if how == "retryable" {
				return handler.Result{}, handler.Retryable(3*time.Second, "BUSY", "come back")
			}
			return handler.Result{}, handler.Permanent("NO", "never")
		}),
		"chaos.crash": handler.Func(func(context.Context, handler.Step) (handler.Result, error) {
			fmt.Fprintln(os.Stderr, "last words")
			os.Exit(7)
			return handler.Result{}, nil
		}),
		"chaos.wait": handler.Func(func(ctx context.Context, _ handler.Step) (handler.Result, error) {
			<-ctx.Done()
			return handler.Result{}, ctx.Err()
		}),
		"chaos.hang": handler.Func(func(context.Context, handler.Step) (handler.Result, error) { select {} }),
		"chaos.env": handler.Func(func(context.Context, handler.Step) (handler.Result, error) {
			return handler.JSON(os.Environ())
		}),
		"chaos.proc": handler.Func(func(_ context.Context, s handler.Step) (handler.Result, error) {
			var name string
			_ = s.DecodeContext(&name)
			content, err := os.ReadFile("/proc/self/" + name)
			if err != nil {
				return handler.Result{}, err
			}
			return handler.JSON(string(content))
		}),
		"chaos.fds": handler.Func(func(context.Context, handler.Step) (handler.Result, error) {
			fds := map[string]string{}
			for n := range 256 {
				if target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", n)); err == nil {
					fds[fmt.Sprint(n)] = target
				}
			}
			return handler.JSON(fds)
		}),
		"chaos.child": handler.Func(func(context.Context, handler.Step) (handler.Result, error) {
			child := exec.Command("sleep", "1000")
			child.Stdout, child.Stderr = os.Stdout, os.Stderr // it holds the pipes
			if err := child.Start(); err != nil {
				return handler.Result{}, err
			}
			return handler.JSON(child.Process.Pid)
		}),
		"chaos.big": handler.Func(func(context.Context, handler.Step) (handler.Result, error) {
			return handler.Result{Value: make([]byte, 50<<20)}, nil
		}),
		"chaos.print": handler.Func(func(context.Context, handler.Step) (handler.Result, error) {
			fmt.Println("printed to stdout")
			fmt.Fprintln(os.Stderr, "[WARN] printed to stderr")
			return handler.Result{}, nil
		}),
	}
}

func echo(_ context.Context, s handler.Step) (handler.Result, error) {
	return handler.Result{Value: s.Context}, nil
}

func flood() {
	line := []byte(strings.Repeat("x", 199) + "\n")
	for {
		_, _ = syscall.Write(2, line) // os.Stderr is a pipe of go-plugin's
	}
}

func serveRaw(sets map[int]plugin.PluginSet) {
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: wire.Handshake, VersionedPlugins: sets,
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server { return grpc.NewServer(opts...) },
	})
}

// raw is a plugin without the SDK's care.
type raw struct {
	pluginv1.UnimplementedPluginServer
	pluginv1.UnimplementedHandlerServer
}

func (r *raw) Register(s grpc.ServiceRegistrar) {
	pluginv1.RegisterPluginServer(s, r)
	pluginv1.RegisterHandlerServer(s, r)
}

func (r *raw) Describe(context.Context, *pluginv1.DescribeRequest) (*pluginv1.DescribeResponse, error) {
	d := &pluginv1.DescribeResponse{Name: "raw", Version: "0.1.0"}
	for _, name := range []string{"raw.answer", "raw.end", "raw.twice", "raw.silent", "raw.window"} {
		d.Slots = append(d.Slots, &pluginv1.Slot{Kind: KindHandler, Name: name})
	}
	return d, nil
}

func (r *raw) Configure(context.Context, *pluginv1.ConfigureRequest) (*pluginv1.ConfigureResponse, error) {
	return &pluginv1.ConfigureResponse{}, nil
}

func (r *raw) Health(context.Context, *pluginv1.HealthRequest) (*pluginv1.HealthResponse, error) {
	return &pluginv1.HealthResponse{Status: pluginv1.HealthResponse_STATUS_HEALTHY}, nil
}

func (r *raw) SelfTest(context.Context, *pluginv1.SelfTestRequest) (*pluginv1.SelfTestResponse, error) {
	return &pluginv1.SelfTestResponse{Ok: true}, nil
}

func (r *raw) Drain(context.Context, *pluginv1.DrainRequest) (*pluginv1.DrainResponse, error) {
	return &pluginv1.DrainResponse{}, nil
}

// Work answers at once, as the handler's name says. The input of raw.answer is
// the outcome; a number there makes a result of as many MiB.
func (r *raw) Work(rpc grpc.BidiStreamingServer[pluginv1.WorkRequest, pluginv1.WorkResponse]) error {
	for {
		request, err := rpc.Recv()
		if err != nil {
			return err
		}
		response := &pluginv1.WorkResponse{}
		for _, s := range request.GetSteps() {
			o := &pluginv1.Outcome{CallId: s.GetCallId(), Result: s.GetContext()}
			var mib int
			if json.Unmarshal(s.GetContext(), &mib) == nil && s.GetHandler() == "raw.answer" {
				o.Result = make([]byte, mib<<20)
			}
			switch s.GetHandler() {
			case "raw.end":
				return nil
			case "raw.silent":
				continue
			case "raw.window":
				response.MaxInFlight = 1
			case "raw.twice":
				response.Outcomes = append(response.Outcomes, o,
					&pluginv1.Outcome{CallId: o.CallId + 1<<placeBits}, &pluginv1.Outcome{CallId: 0}, &pluginv1.Outcome{CallId: 1<<64 - 1})
			}
			response.Outcomes = append(response.Outcomes, o)
		}
		if err := rpc.Send(response); err != nil {
			return err
		}
	}
}
