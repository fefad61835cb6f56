package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"google.golang.org/grpc"

	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
)

// faulty misbehaves when it is called for the first time in a phase.
type faulty struct {
	raw
	phase, how string
}

func (f *faulty) Register(s grpc.ServiceRegistrar) {
	pluginv1.RegisterPluginServer(s, f)
	pluginv1.RegisterHandlerServer(s, f)
}

func (f *faulty) in(ctx context.Context, phase string) error {
	if phase != f.phase {
		return nil
	}
	switch f.how {
	case "exit":
		os.Exit(7)
	case "stop":
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		<-ctx.Done() // another thread may stop first; this one must not answer meanwhile
	case "hang":
		<-ctx.Done()
	case "shout":
		return errors.New(strings.Repeat("x", 4<<20))
	case "flood":
		go flood()
		if phase != "decide" { // there is no hurry
			<-ctx.Done()
		}
	}
	return errors.New("no, thank you")
}

func (f *faulty) Describe(ctx context.Context, r *pluginv1.DescribeRequest) (*pluginv1.DescribeResponse, error) {
	if err := f.in(ctx, "describe"); err != nil {
		return nil, err
	}
	d, err := f.raw.Describe(ctx, r)
	switch f.phase {
	case "schema":
		d.OptionsSchema = doubling(19)
	case "slots":
		for i := range 100_000 {
			d.Slots = append(d.Slots, &pluginv1.Slot{Kind: "handler", Name: fmt.Sprintf("N%d", i)})
		}
	}
	return d, err
}

// doubling is a small schema that says the same thing 2ⁿ times.
func doubling(n int) string {
	schema := `{"$ref": "#/$defs/0", "$defs": {`
	for i := range n {
		schema += fmt.Sprintf(`"%d": {"allOf": [{"$ref": "#/$defs/%d"}, {"$ref": "#/$defs/%d"}]}, `, i, i+1, i+1)
	}
	return schema + fmt.Sprintf(`"%d": {"type": "string"}}}`, n)
}

func (f *faulty) Configure(ctx context.Context, r *pluginv1.ConfigureRequest) (*pluginv1.ConfigureResponse, error) {
	if err := f.in(ctx, "configure"); err != nil {
		return nil, err
	}
	return f.raw.Configure(ctx, r)
}

func (f *faulty) Health(ctx context.Context, r *pluginv1.HealthRequest) (*pluginv1.HealthResponse, error) {
	if err := f.in(ctx, "health"); err != nil {
		return nil, err
	}
	return f.raw.Health(ctx, r)
}

func (f *faulty) SelfTest(ctx context.Context, r *pluginv1.SelfTestRequest) (*pluginv1.SelfTestResponse, error) {
	if err := f.in(ctx, "selftest"); err != nil {
		return nil, err
	}
	return f.raw.SelfTest(ctx, r)
}

// faultyLaw misbehaves when its algorithm is asked. What comes before goes well.
type faultyLaw struct {
	faulty
	pluginv1.UnimplementedScalingServer
}

func (f *faultyLaw) Register(s grpc.ServiceRegistrar) {
	pluginv1.RegisterPluginServer(s, f)
	pluginv1.RegisterScalingServer(s, f)
}

func (f *faultyLaw) Describe(ctx context.Context, r *pluginv1.DescribeRequest) (*pluginv1.DescribeResponse, error) {
	return (&lawless{}).Describe(ctx, r)
}

func (f *faultyLaw) Decide(ctx context.Context, _ *pluginv1.DecideRequest) (*pluginv1.DecideResponse, error) {
	switch f.how {
	case "few":
		return &pluginv1.DecideResponse{}, nil
	case "big":
		return &pluginv1.DecideResponse{Decisions: []*pluginv1.Decision{{Target: 1, Reason: strings.Repeat("x", 50<<20)}}}, nil
	}
	return nil, f.in(ctx, "decide")
}
