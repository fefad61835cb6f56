package plugintest

import (
	"context"
	"encoding/json"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/tasker-systems/tasker-host/sdk"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// patience is how long the package waits for what should come at once.
const patience = 20 * time.Second

// Connect serves the parts in process and returns the host's end of the
// connection. The plugin is not configured yet.
func Connect(t testing.TB, parts ...sdk.Part) *wire.Client {
	t.Helper()
	plugin, err := sdk.New(parts...)
	if err != nil {
		t.Fatal(err)
	}
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(wire.ServerOptions()...)
	plugin.Register(server)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(listener); err != nil {
			t.Errorf("serve plugin: %v", err)
		}
	})
	dial := func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }
	conn, err := grpc.NewClient("passthrough:plugin", append(wire.DialOptions(),
		grpc.WithContextDialer(dial), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatalf("connect to plugin: %v", err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		serving.Wait()
	})
	return wire.NewClient(t.Context(), conn)
}

// configure hands over the options; nil stands for none.
func configure(t testing.TB, client *wire.Client, options any) {
	t.Helper()
	answer, err := client.Plugin.Configure(t.Context(), &pluginv1.ConfigureRequest{
		Options: marshal(t, options), Generation: 1, Environment: "test",
	})
	if err != nil {
		t.Fatalf("configure: %v", err)
	}
	for _, e := range answer.GetErrors() {
		t.Errorf("configure: %s: %s", e.GetPath(), e.GetMessage())
	}
	if len(answer.GetErrors()) > 0 {
		t.FailNow()
	}
}

// session is a work stream. One goroutine sorts the outcomes by call.
type session struct {
	stream pluginv1.Handler_WorkClient

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan *pluginv1.Outcome
	ended   chan struct{} // closed when the stream has ended
	err     error         // why; set before ended is closed
}

func openSession(t testing.TB, client *wire.Client) *session {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	stream, err := client.Handler.Work(ctx)
	if err != nil {
		cancel()
		t.Fatalf("open work stream: %v", err)
	}
	s := &session{
		stream:  stream,
		waiting: map[uint64]chan *pluginv1.Outcome{},
		ended:   make(chan struct{}),
	}
	go s.receive()
	t.Cleanup(func() {
		cancel()
		<-s.ended
	})
	return s
}

func (s *session) receive() {
	defer close(s.ended)
	for {
		response, err := s.stream.Recv()
		if err != nil {
			s.err = err
			return
		}
		s.mu.Lock()
		for _, o := range response.GetOutcomes() {
			if ch, ok := s.waiting[o.GetCallId()]; ok {
				delete(s.waiting, o.GetCallId())
				ch <- o
			}
		}
		s.mu.Unlock()
	}
}

// start sends a step and returns its call.
func (s *session) start(t testing.TB, step *pluginv1.Step) (id uint64, outcome <-chan *pluginv1.Outcome) {
	t.Helper()
	ch := make(chan *pluginv1.Outcome, 1)
	s.mu.Lock()
	s.next++
	step.CallId = s.next
	s.waiting[step.CallId] = ch
	s.mu.Unlock()
	if err := s.stream.Send(&pluginv1.WorkRequest{Steps: []*pluginv1.Step{step}}); err != nil {
		t.Fatalf("send step: %v", err)
	}
	return step.CallId, ch
}

func (s *session) cancel(t testing.TB, id uint64) {
	t.Helper()
	request := &pluginv1.WorkRequest{Cancels: []*pluginv1.Cancel{{CallId: id, Reason: "the test says so"}}}
	if err := s.stream.Send(request); err != nil {
		t.Fatalf("send cancel: %v", err)
	}
}

func (s *session) wait(t testing.TB, outcome <-chan *pluginv1.Outcome) *pluginv1.Outcome {
	t.Helper()
	select {
	case o := <-outcome:
		return o
	case <-s.ended:
		t.Fatalf("the work stream ended before the step: %v", s.err)
	case <-time.After(patience):
		t.Fatalf("no outcome after %s", patience)
	}
	return nil
}

func (s *session) run(t testing.TB, step *pluginv1.Step) *pluginv1.Outcome {
	t.Helper()
	_, outcome := s.start(t, step)
	return s.wait(t, outcome)
}

// marshal turns a value into JSON; nil is none at all.
func marshal(t testing.TB, v any) []byte {
	t.Helper()
	if v == nil {
		return nil
	}
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatalf("marshal %T: %v", v, err)
	}
	return raw
}
