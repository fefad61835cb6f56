package sdk_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/handler"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// BenchmarkWork measures a step's way from the host through the plugin and
// back, over a unix socket but with both ends in this process: they share the
// processors, so the result is the cost of both. One operation is one step; 512
// are outstanding.
func BenchmarkWork(b *testing.B) {
	for _, batch := range []int{1, 16, 64} {
		for _, timeout := range []uint32{0, 30_000} {
			b.Run(fmt.Sprintf("batch=%d/timeout=%dms", batch, timeout), func(b *testing.B) {
				benchmarkWork(b, batch, timeout)
			})
		}
	}
}

func benchmarkWork(b *testing.B, batch int, timeout uint32) {
	const window = 512
	client := connectUnix(b, sdk.Handlers("bench", "1.0.0", map[string]handler.Handler{"bench.echo": handler.Func(echo)}))
	_, err := client.Plugin.Configure(b.Context(), &pluginv1.ConfigureRequest{MaxInFlight: window})
	require.NoError(b, err)
	stream, err := client.Handler.Work(b.Context())
	require.NoError(b, err)
	b.ReportAllocs()
	b.ResetTimer()

	credit := make(chan struct{}, window/batch)
	messages := (b.N + batch - 1) / batch
	sent := make(chan error, 1)
	go func() { sent <- sendBatches(stream, messages, batch, timeout, credit) }()
	received, responses := 0, 0
	for received < messages*batch {
		response, err := stream.Recv()
		require.NoError(b, err)
		before := received / batch
		received += len(response.GetOutcomes())
		responses++
		for range received/batch - before {
			<-credit
		}
	}
	require.NoError(b, <-sent)
	b.ReportMetric(float64(received)/float64(responses), "outcomes/message")
}

// sendBatches sends the same steps repeatedly, as far as the credit allows.
func sendBatches(stream pluginv1.Handler_WorkClient, messages, batch int, timeout uint32, credit chan<- struct{}) error {
	steps := make([]*pluginv1.Step, batch)
	for i := range steps {
		steps[i] = benchStep(timeout)
	}
	request := &pluginv1.WorkRequest{Steps: steps}
	for m := range messages {
		credit <- struct{}{}
		for i, s := range steps {
			s.CallId = uint64(m*batch + i)
		}
		if err := stream.Send(request); err != nil {
			return err
		}
	}
	return stream.CloseSend()
}

func echo(_ context.Context, s handler.Step) (handler.Result, error) {
	return handler.Result{Value: s.Context}, nil
}

func benchStep(timeout uint32) *pluginv1.Step {
	return &pluginv1.Step{
		Handler:        "bench.echo",
		TaskUuid:       "0190a1b2-c3d4-7e5f-8a6b-7c8d9e000000",
		StepUuid:       "0190a1b2-c3d4-7e5f-8a6b-7c8d9e000001",
		Namespace:      "bench",
		TaskName:       "linear",
		TaskVersion:    "1.0.0",
		StepName:       "step_1",
		Attempt:        1,
		MaxAttempts:    3,
		IdempotencyKey: "0190a1b2-c3d4-7e5f-8a6b-7c8d9e000001:1",
		LeaseId:        "5f1e0d7c-1111-4222-8333-444455556666",
		Context:        []byte(`{"even_number": 12345678901234567890, "note": "some text"}`),
		Config:         []byte(`{}`),
		Dependencies:   []*pluginv1.Dependency{{StepName: "step_0", Result: []byte(`152399025`)}},
		TimeoutMs:      timeout,
	}
}

// connectUnix serves a part over a unix socket, as a plugin process does.
func connectUnix(b *testing.B, part sdk.Part) *wire.Client {
	b.Helper()
	p, err := sdk.New(part)
	require.NoError(b, err)
	path := filepath.Join(b.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	require.NoError(b, err)
	server := grpc.NewServer(wire.ServerOptions()...)
	p.Register(server)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	options := append(wire.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn, err := grpc.NewClient("unix://"+path, options...)
	require.NoError(b, err)
	b.Cleanup(func() {
		require.NoError(b, conn.Close())
		server.Stop()
		require.NoError(b, <-served)
	})
	return wire.NewClient(b.Context(), conn)
}
