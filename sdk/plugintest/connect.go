package plugintest

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/tasker-systems/tasker-host/sdk"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/tryout"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// patience is how long the package waits for what should happen at once.
const patience = 20 * time.Second

// Connect serves the parts in process and returns the host's end of the connection. The plugin
// is not yet configured.
func Connect(t testing.TB, parts ...sdk.Part) *wire.Client {
	t.Helper()
	return connect(t, parts...).Client
}

func connect(t testing.TB, parts ...sdk.Part) *tryout.Instance {
	t.Helper()
	i, err := tryout.InMemory(func() (wire.Server, error) { return sdk.New(parts...) })(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Close)
	return i
}

// configure passes the options to the plugin; nil means none.
func configure(t testing.TB, i *tryout.Instance, options any) {
	t.Helper()
	if err := i.Configure(t.Context(), marshal(t, options)); err != nil {
		t.Fatal(err)
	}
}

// session is a work stream whose failures end the test.
type session struct{ work *tryout.Work }

func openSession(t testing.TB, i *tryout.Instance) *session {
	t.Helper()
	work, err := i.OpenWork(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(work.Close)
	return &session{work}
}

// start sends a step.
func (s *session) start(t testing.TB, step *pluginv1.Step) *tryout.Attempt {
	t.Helper()
	attempt, err := s.work.Send(step, nil)
	if err != nil {
		t.Fatal(err)
	}
	return attempt
}

func (s *session) cancel(t testing.TB, attempt *tryout.Attempt) {
	t.Helper()
	if err := s.work.Cancel(attempt.ID); err != nil {
		t.Fatal(err)
	}
}

func (s *session) wait(t testing.TB, attempt *tryout.Attempt) *pluginv1.Outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	o, err := attempt.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func (s *session) run(t testing.TB, step *pluginv1.Step) *pluginv1.Outcome {
	t.Helper()
	return s.wait(t, s.start(t, step))
}

// marshal turns a value into JSON; nil becomes no JSON at all.
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
