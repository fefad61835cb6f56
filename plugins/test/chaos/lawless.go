package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

const manyBytes = 50 << 20

// lawless serves the contract without the SDK, and breaks it as its fields say.
// Its steps break it, too:
//
//	lawless.echo      nothing wrong
//	lawless.invalid   a result that is not JSON
//	lawless.big       a result of 50 MiB
//	lawless.twice     two outcomes
//	lawless.stranger  an outcome of a step that was never sent, then its own
//	lawless.empty     a failure without a type
//	lawless.silent    no outcome, ever
//	lawless.close     ends the stream
//	lawless.text      a failure whose texts contain NUL and are 1 MiB long
type lawless struct {
	pluginv1.UnimplementedPluginServer
	pluginv1.UnimplementedHandlerServer

	hang, crash, big    string // the call that does
	nameless, unhealthy bool
}

func serveLawless(l *lawless) {
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig:  wire.Handshake,
		VersionedPlugins: wire.Plugins(l),
		GRPCServer:       func(opts []grpc.ServerOption) *grpc.Server { return grpc.NewServer(opts...) },
	})
}

// Register implements [wire.Server].
func (l *lawless) Register(r grpc.ServiceRegistrar) {
	pluginv1.RegisterPluginServer(r, l)
	pluginv1.RegisterHandlerServer(r, l)
}

func (l *lawless) before(call string) {
	switch call {
	case l.hang:
		hang()
	case l.crash:
		fmt.Fprintln(os.Stderr, "chaos: asked one question too many")
		os.Exit(9)
	}
}

func (l *lawless) Describe(context.Context, *pluginv1.DescribeRequest) (*pluginv1.DescribeResponse, error) {
	l.before("Describe")
	d := &pluginv1.DescribeResponse{Name: "chaos", Version: "1.0.0", MaxInFlight: 64}
	for _, name := range []string{"echo", "invalid", "big", "twice", "stranger", "empty", "silent", "close", "text"} {
		d.Slots = append(d.Slots, &pluginv1.Slot{Kind: "handler", Name: "lawless." + name})
	}
	if l.nameless {
		d.Name, d.Version, d.Slots = "", "", nil
	}
	if l.big == "Describe" {
		d.Name = strings.Repeat("x", manyBytes)
	}
	return d, nil
}

func (l *lawless) Configure(context.Context, *pluginv1.ConfigureRequest) (*pluginv1.ConfigureResponse, error) {
	l.before("Configure")
	return &pluginv1.ConfigureResponse{}, nil
}

func (l *lawless) Health(context.Context, *pluginv1.HealthRequest) (*pluginv1.HealthResponse, error) {
	l.before("Health")
	if l.unhealthy {
		return &pluginv1.HealthResponse{Status: pluginv1.HealthResponse_STATUS_UNHEALTHY, Message: "feverish"}, nil
	}
	return &pluginv1.HealthResponse{Status: pluginv1.HealthResponse_STATUS_HEALTHY}, nil
}

func (l *lawless) SelfTest(context.Context, *pluginv1.SelfTestRequest) (*pluginv1.SelfTestResponse, error) {
	l.before("SelfTest")
	return &pluginv1.SelfTestResponse{Ok: true}, nil
}

func (l *lawless) Drain(context.Context, *pluginv1.DrainRequest) (*pluginv1.DrainResponse, error) {
	l.before("Drain")
	return &pluginv1.DrainResponse{}, nil
}

func (l *lawless) Collect(context.Context, *pluginv1.CollectRequest) (*pluginv1.CollectResponse, error) {
	if l.big == "Collect" {
		return &pluginv1.CollectResponse{Metrics: make([]byte, manyBytes)}, nil
	}
	return &pluginv1.CollectResponse{Metrics: []byte("chaos{ 1\n")}, nil
}

func (l *lawless) Work(stream grpc.BidiStreamingServer[pluginv1.WorkRequest, pluginv1.WorkResponse]) error {
	for {
		request, err := stream.Recv()
		if err != nil {
			return err
		}
		response := &pluginv1.WorkResponse{}
		for _, step := range request.GetSteps() {
			if step.GetHandler() == "lawless.close" {
				return nil
			}
			response.Outcomes = append(response.Outcomes, answers(step)...)
		}
		if err := stream.Send(response); err != nil {
			return err
		}
	}
}

func answers(step *pluginv1.Step) []*pluginv1.Outcome {
	own := &pluginv1.Outcome{CallId: step.GetCallId(), Result: step.GetContext()}
	switch step.GetHandler() {
	case "lawless.invalid":
		own.Result = []byte(`{"almost": "JSON"`)
		own.Metadata = []byte("\xff\x00")
	case "lawless.big":
		own.Result = jsonString(manyBytes)
	case "lawless.twice":
		return []*pluginv1.Outcome{own, own}
	case "lawless.stranger":
		return []*pluginv1.Outcome{{CallId: 1 << 60, Result: []byte("1")}, own}
	case "lawless.empty":
		own.Failure = &pluginv1.Failure{}
	case "lawless.silent":
		return nil
	case "lawless.text":
		long := strings.Repeat("a\x00b", 1<<20/3)
		own.Failure = &pluginv1.Failure{Type: long, Code: long, Message: long, Context: []byte("{")}
	}
	return []*pluginv1.Outcome{own}
}
