package plugintest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/tasker-systems/tasker-host/sdk"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// Option tells [Conformance] about the plugin.
type Option func(*suite)

// WithOptions gives the options to configure the plugin with: what its entry in
// plugins.toml would hold. Without it the plugin must work with none.
func WithOptions(options any) Option {
	return func(s *suite) { s.options = options }
}

// Example gives a step that the named handler must succeed with. It is run once
// alone, then many times at once, then cancelled half-way.
func Example(handler string, step Step) Option {
	return func(s *suite) { s.examples = append(s.examples, example{handler, step}) }
}

type suite struct {
	part     sdk.Part
	options  any
	examples []example
}

type example struct {
	handler string
	step    Step
}

// Conformance checks, over a real gRPC connection in memory, that the plugin
// keeps the contract with its host: that it can be described, configured,
// probed and drained, that it runs its examples, and that no misbehaving step
// harms another. For the last, handlers named plugintest.… are served beside
// the plugin's own. The plugin's handlers run only with the examples given.
func Conformance(t *testing.T, part sdk.Part, opts ...Option) {
	t.Helper()
	s := &suite{part: part}
	for _, opt := range opts {
		opt(s)
	}
	t.Run("describe", s.describe)
	t.Run("configure", s.configure)
	t.Run("health and self-test", s.health)
	t.Run("examples", s.runExamples)
	t.Run("misbehaving steps", s.misbehave)
	t.Run("drain", s.drain)
	t.Run("collect", s.collect)
}

// ready returns a configured plugin with the probes beside its own handlers.
func (s *suite) ready(t *testing.T) *wire.Client {
	t.Helper()
	d := s.description(t)
	client := Connect(t, s.part, sdk.Handlers(d.GetName(), d.GetVersion(), newProbes()))
	configure(t, client, s.options)
	return client
}

func (s *suite) description(t *testing.T) *pluginv1.DescribeResponse {
	t.Helper()
	d, err := Connect(t, s.part).Plugin.Describe(t.Context(), &pluginv1.DescribeRequest{})
	if err != nil {
		t.Fatalf("describe: %v", err)
	}
	return d
}

func (s *suite) describe(t *testing.T) {
	d := s.description(t)
	if len(d.GetSlots()) == 0 {
		t.Error("the plugin serves nothing")
	}
	if schema := d.GetOptionsSchema(); schema != "" && !json.Valid([]byte(schema)) {
		t.Errorf("the schema of the options is not JSON: %s", schema)
	}
}

func (s *suite) configure(t *testing.T) {
	client := Connect(t, s.part)
	ctx := t.Context()
	if stream, err := client.Handler.Work(ctx); err == nil {
		if _, err := stream.Recv(); err == nil {
			t.Error("the plugin works without having been configured")
		}
	}
	bad := &pluginv1.ConfigureRequest{Options: []byte(`{"no such option, surely": 1}`)}
	answer, err := client.Plugin.Configure(ctx, bad)
	if err != nil {
		t.Fatalf("configure with an unknown option: %v", err)
	}
	if len(answer.GetErrors()) == 0 {
		t.Error("an unknown option is accepted")
	}
	configure(t, client, s.options)
	if _, err := client.Plugin.Configure(ctx, &pluginv1.ConfigureRequest{}); err == nil {
		t.Error("the plugin lets itself be configured twice")
	}
}

func (s *suite) health(t *testing.T) {
	client := s.ready(t)
	health, err := client.Plugin.Health(t.Context(), &pluginv1.HealthRequest{})
	if err != nil {
		t.Fatalf("health: %v", err)
	}
	if health.GetStatus() != pluginv1.HealthResponse_STATUS_HEALTHY {
		t.Errorf("health: %s %s", health.GetStatus(), health.GetMessage())
	}
	test, err := client.Plugin.SelfTest(t.Context(), &pluginv1.SelfTestRequest{})
	if err != nil {
		t.Fatalf("self-test: %v", err)
	}
	if !test.GetOk() {
		t.Errorf("self-test: %s", test.GetMessage())
	}
}

func (s *suite) runExamples(t *testing.T) {
	const atOnce = 16
	if len(s.examples) == 0 {
		return
	}
	work := openSession(t, s.ready(t))
	for _, e := range s.examples {
		t.Run(e.handler, func(t *testing.T) {
			succeeds(t, work.run(t, e.step.message(t, e.handler)))
			running := make([]<-chan *pluginv1.Outcome, atOnce)
			for i := range running {
				_, running[i] = work.start(t, e.step.message(t, e.handler))
			}
			for _, outcome := range running {
				succeeds(t, work.wait(t, outcome))
			}
			id, outcome := work.start(t, e.step.message(t, e.handler))
			work.cancel(t, id)
			work.wait(t, outcome) // done or not, it must end
		})
	}
}

func (s *suite) misbehave(t *testing.T) {
	work := openSession(t, s.ready(t))
	step := func(handler string) *pluginv1.Step { return Step{}.message(t, handler) }

	t.Run("unknown handler", func(t *testing.T) {
		fails(t, work.run(t, step("plugintest.nobody")), vocab.HandlerNotFound, false)
	})
	t.Run("panic", func(t *testing.T) {
		o := work.run(t, step(probePanic))
		fails(t, o, vocab.UnexpectedError, true)
		if !strings.Contains(o.GetFailure().GetMessage(), "boom") {
			t.Errorf("the panic's value is lost: %s", o.GetFailure().GetMessage())
		}
		if !bytes.Contains(o.GetFailure().GetContext(), []byte("probe.go")) {
			t.Errorf("the panic's stack is lost: %s", o.GetFailure().GetContext())
		}
	})
	t.Run("goroutine ended", func(t *testing.T) {
		fails(t, work.run(t, step(probeGoexit)), vocab.UnexpectedError, true)
	})
	t.Run("invalid JSON", func(t *testing.T) {
		fails(t, work.run(t, step(probeInvalid)), vocab.InvalidResult, false)
	})
	t.Run("result too big", func(t *testing.T) {
		fails(t, work.run(t, step(probeBig)), vocab.InvalidResult, false)
	})
	t.Run("largest result", func(t *testing.T) {
		o := work.run(t, step(probeLarge))
		succeeds(t, o)
		if len(o.GetResult()) != wire.MaxResultBytes {
			t.Errorf("the result has %d bytes, want %d", len(o.GetResult()), wire.MaxResultBytes)
		}
	})
	t.Run("every digit kept", func(t *testing.T) {
		const number = "340282366920938463463374607431768211456.000000000000000000001"
		echo := step(probeEcho)
		echo.Context = []byte(`{"n":` + number + `}`)
		if got := string(work.run(t, echo).GetResult()); got != `{"n":`+number+`}` {
			t.Errorf("got %s", got)
		}
	})
	t.Run("timeout", func(t *testing.T) {
		slow := step(probeWait)
		slow.TimeoutMs = 20
		fails(t, work.run(t, slow), vocab.TimeoutError, true)
	})
	t.Run("cancel", func(t *testing.T) {
		id, outcome := work.start(t, step(probeWait))
		work.cancel(t, id)
		o := work.wait(t, outcome)
		fails(t, o, vocab.UnexpectedError, true)
		if o.GetFailure().GetCode() != wire.CodeCancelled {
			t.Errorf("the code is %q, want %q", o.GetFailure().GetCode(), wire.CodeCancelled)
		}
	})
	t.Run("a slow step holds nothing back", func(t *testing.T) {
		id, slow := work.start(t, step(probeWait))
		for range 100 {
			succeeds(t, work.run(t, step(probeEcho)))
		}
		select {
		case o := <-slow:
			t.Errorf("the slow step ended by itself: %v", o)
		default:
		}
		work.cancel(t, id)
		work.wait(t, slow)
	})
}

func (s *suite) drain(t *testing.T) {
	client := s.ready(t)
	work := openSession(t, client)
	id, running := work.start(t, Step{}.message(t, probeWait))
	succeeds(t, work.run(t, Step{}.message(t, probeEcho))) // so the one before has begun

	answer, err := client.Plugin.Drain(t.Context(), &pluginv1.DrainRequest{TimeoutMs: 1})
	if err != nil {
		t.Fatalf("drain: %v", err)
	}
	if answer.GetInFlight() != 1 {
		t.Errorf("drain with a step in hand says %d are left, want 1", answer.GetInFlight())
	}
	late := work.run(t, Step{}.message(t, probeEcho))
	if late.GetFailure().GetCode() != wire.CodeCancelled {
		t.Errorf("a step sent after drain is not handed back: %v", late)
	}
	work.cancel(t, id)
	work.wait(t, running)
	answer, err = client.Plugin.Drain(t.Context(), &pluginv1.DrainRequest{TimeoutMs: uint32(patience.Milliseconds())})
	if err != nil {
		t.Fatalf("drain: %v", err)
	}
	if answer.GetInFlight() != 0 {
		t.Errorf("drain says %d steps are left, want none", answer.GetInFlight())
	}
}

var sample = regexp.MustCompile(`^[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [0-9.e+\-]+$`)

func (s *suite) collect(t *testing.T) {
	client := s.ready(t)
	succeeds(t, openSession(t, client).run(t, Step{}.message(t, probeEcho)))
	answer, err := client.Plugin.Collect(t.Context(), &pluginv1.CollectRequest{})
	if err != nil {
		t.Fatalf("collect: %v", err)
	}
	counted := false
	lines := bufio.NewScanner(bytes.NewReader(answer.GetMetrics()))
	for lines.Scan() {
		line := lines.Text()
		if !strings.HasPrefix(line, "#") && !sample.MatchString(line) {
			t.Errorf("not a sample in the Prometheus text format: %s", line)
		}
		counted = counted || line == `plugin_steps_total{handler="`+probeEcho+`",outcome="success"} 1`
	}
	if !counted {
		t.Errorf("the step was not counted:\n%s", answer.GetMetrics())
	}
}

func succeeds(t *testing.T, o *pluginv1.Outcome) {
	t.Helper()
	if f := o.GetFailure(); f != nil {
		t.Errorf("the step failed: %s %s: %s", f.GetType(), f.GetCode(), f.GetMessage())
	} else if !json.Valid(o.GetResult()) {
		t.Errorf("the result is not JSON: %.100q", o.GetResult())
	}
}

func fails(t *testing.T, o *pluginv1.Outcome, kind vocab.ErrorType, retryable bool) {
	t.Helper()
	f := o.GetFailure()
	switch {
	case f == nil:
		t.Errorf("the step succeeded with %.100q, want %s", o.GetResult(), kind)
	case f.GetType() != string(kind) || f.GetRetryable() != retryable:
		t.Errorf("got %s (retryable %t): %s; want %s (retryable %t)",
			f.GetType(), f.GetRetryable(), f.GetMessage(), kind, retryable)
	}
}
