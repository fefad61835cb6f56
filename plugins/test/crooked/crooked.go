package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// crooked serves the contract without the SDK, with one fault.
type crooked struct {
	pluginv1.UnimplementedPluginServer
	pluginv1.UnimplementedHandlerServer
	pluginv1.UnimplementedScalingServer
	pluginv1.UnimplementedHealthServer
	fault string

	mu         sync.Mutex // guards the fields below
	configured bool
	draining   bool
	decided    map[string]uint32 // by pool
	checked    int
}

func (c *crooked) Register(r grpc.ServiceRegistrar) {
	pluginv1.RegisterPluginServer(r, c)
	pluginv1.RegisterHandlerServer(r, c)
	pluginv1.RegisterScalingServer(r, c)
	pluginv1.RegisterHealthServer(r, c)
}

func (c *crooked) is(fault string) bool { return c.fault == fault }

func (c *crooked) Describe(ctx context.Context, _ *pluginv1.DescribeRequest) (*pluginv1.DescribeResponse, error) {
	d := &pluginv1.DescribeResponse{Name: "crooked", Version: "1.0.0", Slots: []*pluginv1.Slot{
		{Kind: wire.KindHandler, Name: "crooked.echo"},
		{Kind: wire.KindScaling, Name: "one-more"},
		{Kind: wire.KindHealth, Name: "pulse", Abilities: []string{wire.AbilityCheck, wire.AbilityReport}},
	}}
	switch c.fault {
	case "nameless":
		d.Name, d.Version = "", "one"
	case "empty":
		d.Slots = nil
	case "odd-kind":
		d.Slots[1].Kind = "scaler"
	case "unable":
		d.Slots[2].Abilities = nil
	case "twice":
		d.Slots = append(d.Slots, d.Slots[0])
	case "schema":
		d.OptionsSchema = "none"
	case "typeless":
		d.OptionsSchema = `{"type": 7}`
	case "crash":
		// Not os.Stderr, which is a pipe of go-plugin's that ends with the
		// process.
		_, _ = syscall.Write(2, []byte("crooked: I would rather not say\n"))
		os.Exit(3)
	case "frozen":
		if err := syscall.Kill(os.Getpid(), syscall.SIGSTOP); err != nil {
			return nil, err
		}
		<-ctx.Done() // another thread may stop first; this one must not answer meanwhile
	}
	return d, nil
}

func (c *crooked) Configure(_ context.Context, req *pluginv1.ConfigureRequest) (*pluginv1.ConfigureResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.configured && !c.is("reconfigured") {
		return nil, status.Error(codes.FailedPrecondition, "already configured")
	}
	var options map[string]any
	if err := json.Unmarshal(req.GetOptions(), &options); err != nil || (len(options) > 0 && !c.is("any-options")) {
		return &pluginv1.ConfigureResponse{Errors: []*pluginv1.FieldError{{Message: "there are no options"}}}, nil
	}
	c.configured = true
	return &pluginv1.ConfigureResponse{}, nil
}

func (c *crooked) Health(context.Context, *pluginv1.HealthRequest) (*pluginv1.HealthResponse, error) {
	if c.is("unhealthy") {
		return &pluginv1.HealthResponse{Status: pluginv1.HealthResponse_STATUS_UNHEALTHY, Message: "feverish"}, nil
	}
	return &pluginv1.HealthResponse{Status: pluginv1.HealthResponse_STATUS_HEALTHY}, nil
}

func (c *crooked) SelfTest(context.Context, *pluginv1.SelfTestRequest) (*pluginv1.SelfTestResponse, error) {
	return &pluginv1.SelfTestResponse{Ok: !c.is("self-test"), Message: "the bank is closed"}, nil
}

func (c *crooked) Drain(context.Context, *pluginv1.DrainRequest) (*pluginv1.DrainResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = !c.is("undrained")
	if c.is("ghost") {
		return &pluginv1.DrainResponse{InFlight: 7}, nil
	}
	return &pluginv1.DrainResponse{}, nil
}

func (c *crooked) Collect(ctx context.Context, req *pluginv1.CollectRequest) (*pluginv1.CollectResponse, error) {
	if c.is("metrics") {
		return &pluginv1.CollectResponse{Metrics: []byte("# fine so far\nplugin{ 1\n")}, nil
	}
	return c.UnimplementedPluginServer.Collect(ctx, req)
}

// ready returns an error if no work may come.
func (c *crooked) ready() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.configured && !c.is("eager"):
		return status.Error(codes.FailedPrecondition, "not configured yet")
	case c.draining:
		return status.Error(codes.Unavailable, "draining")
	}
	return nil
}

func (c *crooked) Work(stream grpc.BidiStreamingServer[pluginv1.WorkRequest, pluginv1.WorkResponse]) error {
	if err := c.ready(); err != nil {
		return err
	}
	for {
		request, err := stream.Recv()
		if err != nil {
			if c.is("deaf") {
				<-stream.Context().Done()
			}
			if c.is("sore-loser") {
				return errors.New("the host has left")
			}
			return nil
		}
		if c.is("touchy") && slices.ContainsFunc(request.GetCancels(), func(x *pluginv1.Cancel) bool { return x.GetCallId() > 1<<30 }) {
			return errors.New("nothing to cancel")
		}
		response := &pluginv1.WorkResponse{}
		for _, step := range request.GetSteps() {
			if !c.is("mute") {
				response.Outcomes = append(response.Outcomes, c.run(step))
			}
		}
		if err := stream.Send(response); err != nil {
			return err
		}
	}
}

func (c *crooked) run(step *pluginv1.Step) *pluginv1.Outcome {
	o := &pluginv1.Outcome{CallId: step.GetCallId(), Result: step.GetContext()}
	switch {
	case c.ready() != nil:
		o.Failure = &pluginv1.Failure{Type: "UnexpectedError", Code: wire.CodeCancelled, Message: "draining", Retryable: true}
	case step.GetHandler() != "crooked.echo" && !c.is("obliging"):
		o.Failure = &pluginv1.Failure{Type: "HandlerNotFound", Message: "no such handler"}
	case c.is("garbled"):
		o.Result = []byte(`{"almost":`)
	case c.is("metadata"):
		o.Metadata = []byte(`[1]`)
	}
	return o
}

func (c *crooked) Decide(ctx context.Context, req *pluginv1.DecideRequest) (*pluginv1.DecideResponse, error) {
	if err := c.ready(); err != nil {
		return nil, err
	}
	if req.GetAlgorithm() != "one-more" && !c.is("any-algorithm") {
		return nil, status.Error(codes.NotFound, "no such algorithm")
	}
	if c.is("slow") {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	answer := &pluginv1.DecideResponse{}
	for _, o := range req.GetObservations() {
		answer.Decisions = append(answer.Decisions, c.decide(o))
	}
	if c.is("short") {
		answer.Decisions = answer.Decisions[:0]
	}
	return answer, nil
}

// decide wants one more executor for each sample it has seen.
func (c *crooked) decide(o *pluginv1.Observation) *pluginv1.Decision {
	if c.decided == nil {
		c.decided = map[string]uint32{}
	}
	pool := o.GetPool()
	if c.is("mixed-up") {
		pool = "all"
	}
	c.decided[pool] += uint32(len(o.GetSamples()))
	d := &pluginv1.Decision{Target: 1 + c.decided[pool], Reason: "one more", Confidence: 1}
	switch {
	case c.is("wordless"):
		d.Reason = ""
	case c.is("too-sure"):
		d.Confidence = 100
	case c.is("helpless") && len(o.GetSamples()) == 0:
		d.Error = "division by zero"
	}
	return d
}

func (c *crooked) Snapshot(_ context.Context, req *pluginv1.SnapshotRequest) (*pluginv1.SnapshotResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.decided[req.GetPool()]
	if c.is("forgetful") {
		n /= 2
	}
	if c.is("hoarder") {
		return &pluginv1.SnapshotResponse{Snapshot: make([]byte, 2<<20)}, nil
	}
	snapshot, err := json.Marshal(n)
	return &pluginv1.SnapshotResponse{Snapshot: snapshot}, err
}

func (c *crooked) Restore(_ context.Context, req *pluginv1.RestoreRequest) (*pluginv1.RestoreResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var n uint32
	err := json.Unmarshal(req.GetSnapshot(), &n)
	switch {
	case err != nil && c.is("brittle"):
		return nil, err
	case err != nil || c.is("stubborn"):
		return &pluginv1.RestoreResponse{Error: "not mine"}, nil
	}
	c.decided = map[string]uint32{req.GetPool(): n}
	return &pluginv1.RestoreResponse{}, nil
}

func (c *crooked) Check(_ context.Context, req *pluginv1.CheckRequest) (*pluginv1.CheckResponse, error) {
	if err := c.ready(); err != nil {
		return nil, err
	}
	if req.GetName() != "pulse" && !c.is("any-check") {
		return nil, status.Error(codes.NotFound, "no such check")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.checked++
	result := &pluginv1.CheckResult{Name: "pulse", Status: pluginv1.CheckResult_STATUS_HEALTHY}
	answer := &pluginv1.CheckResponse{Results: []*pluginv1.CheckResult{result}}
	switch c.fault {
	case "shifty":
		result.Name = fmt.Sprint("pulse ", c.checked)
	case "vague":
		result.Status = pluginv1.CheckResult_STATUS_UNSPECIFIED
	case "secretive":
		result.Status = pluginv1.CheckResult_STATUS_DEGRADED
	case "silent":
		answer.Results = nil
	case "double":
		answer.Results = append(answer.Results, result)
	case "blind":
		answer.Error = "no such patient"
	}
	return answer, nil
}

func (c *crooked) Report(_ context.Context, req *pluginv1.ReportRequest) (*pluginv1.ReportResponse, error) {
	switch {
	case req.GetName() != "pulse":
		return nil, status.Error(codes.NotFound, "no such reporter")
	case len(req.GetEvents()) == 0 && c.is("bored"):
		return &pluginv1.ReportResponse{Error: "nothing to report"}, nil
	case len(req.GetEvents()) > 0 && c.is("choosy"):
		return &pluginv1.ReportResponse{Error: "unknown event"}, nil
	}
	return &pluginv1.ReportResponse{}, nil
}
