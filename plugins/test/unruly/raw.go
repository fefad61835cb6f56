package main

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

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

// raw is a plugin without the SDK's checks.
type raw struct {
	pluginv1.UnimplementedPluginServer
	pluginv1.UnimplementedHandlerServer
}

func (r *raw) Register(s grpc.ServiceRegistrar) {
	pluginv1.RegisterPluginServer(s, r)
	pluginv1.RegisterHandlerServer(s, r)
}

// dying ends soon after it could work.
type dying struct{ raw }

func (d *dying) Register(s grpc.ServiceRegistrar) {
	pluginv1.RegisterPluginServer(s, d)
	pluginv1.RegisterHandlerServer(s, d)
}

func (d *dying) Work(rpc grpc.BidiStreamingServer[pluginv1.WorkRequest, pluginv1.WorkResponse]) error {
	go func() {
		<-time.After(50 * time.Millisecond)
		os.Exit(9)
	}()
	return d.raw.Work(rpc)
}

// moody reports the health that a file says.
type moody struct {
	raw
	file string
}

func (m *moody) Register(s grpc.ServiceRegistrar) {
	pluginv1.RegisterPluginServer(s, m)
	pluginv1.RegisterHandlerServer(s, m)
}

func (m *moody) Health(ctx context.Context, r *pluginv1.HealthRequest) (*pluginv1.HealthResponse, error) {
	if _, err := os.Stat(m.file); err == nil {
		return &pluginv1.HealthResponse{Status: pluginv1.HealthResponse_STATUS_UNHEALTHY, Message: "not today"}, nil
	}
	return m.raw.Health(ctx, r)
}

// lawless claims to have an algorithm.
type lawless struct{ raw }

func (l *lawless) Register(s grpc.ServiceRegistrar) {
	pluginv1.RegisterPluginServer(s, l)
	pluginv1.RegisterScalingServer(s, pluginv1.UnimplementedScalingServer{})
}

func (l *lawless) Describe(context.Context, *pluginv1.DescribeRequest) (*pluginv1.DescribeResponse, error) {
	return &pluginv1.DescribeResponse{Name: "law", Version: "2.0.0", Slots: []*pluginv1.Slot{{Kind: "scaling", Name: "law.count"}}}, nil
}

func (r *raw) Describe(context.Context, *pluginv1.DescribeRequest) (*pluginv1.DescribeResponse, error) {
	d := &pluginv1.DescribeResponse{Name: "raw", Version: "0.1.0"}
	for _, name := range []string{"raw.answer", "raw.end", "raw.twice", "raw.silent", "raw.window", "raw.progress", "raw.many"} {
		d.Slots = append(d.Slots, &pluginv1.Slot{Kind: "handler", Name: name})
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
// the outcome; a number there makes a result of that many MiB.
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
			case "raw.many":
				for range 300_000 {
					response.Outcomes = append(response.Outcomes, &pluginv1.Outcome{})
				}
			case "raw.window":
				response.MaxInFlight = 1
			case "raw.progress":
				response.Progress = []*pluginv1.Progress{
					{CallId: 1 << 60, Percent: 1}, {CallId: 0, Percent: 2}, {CallId: o.CallId, Percent: 400, Note: strings.Repeat("é", 1000)},
				}
			case "raw.twice":
				response.Outcomes = append(response.Outcomes, o,
					&pluginv1.Outcome{CallId: o.CallId + 1<<24}, &pluginv1.Outcome{CallId: 0}, &pluginv1.Outcome{CallId: 1<<64 - 1})
			}
			response.Outcomes = append(response.Outcomes, o)
		}
		if err := rpc.Send(response); err != nil {
			return err
		}
	}
}
