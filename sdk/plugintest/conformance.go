package plugintest

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/tasker-systems/tasker-host/sdk"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/tryout"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// Option configures [Conformance] for the plugin.
type Option func(*suite)

// WithOptions sets the options to configure the plugin with, as its entry in plugins.toml
// would. Without it the plugin must work without options.
func WithOptions(options any) Option {
	return func(s *suite) { s.options = options }
}

// Example adds a step that the named handler must complete. The step runs once alone, then many
// times at once, and then once more, cancelled half-way.
func Example(handler string, step Step) Option {
	return func(s *suite) { s.examples = append(s.examples, example{handler, step}) }
}

// Report makes Conformance hand an event to the plugin's reporters, twice. Without it they get
// none, because the event might reach people.
func Report() Option {
	return func(s *suite) { s.report = true }
}

type suite struct {
	parts    []sdk.Part
	options  any
	examples []example
	report   bool
}

type example struct {
	handler string
	step    Step
}

// Conformance checks, over a real gRPC connection in memory, that the plugin keeps its contract
// with the host: that it can be described, configured, probed and drained, that it runs its
// examples, decides and checks as its kind requires, and that no misbehaving step harms
// another. For the last check, handlers named plugintest.… are served beside the plugin's own.
// The plugin's handlers run only with the given examples. `tasker plugin check` makes the same
// checks on an executable, except for the misbehaving steps.
func Conformance(t *testing.T, part sdk.Part, opts ...Option) {
	t.Helper()
	ConformanceOf(t, []sdk.Part{part}, opts...)
}

// ConformanceOf is [Conformance] for a plugin with several parts.
func ConformanceOf(t *testing.T, parts []sdk.Part, opts ...Option) {
	t.Helper()
	s := &suite{parts: parts}
	for _, opt := range opts {
		opt(s)
	}
	start := tryout.InMemory(func() (wire.Server, error) { return sdk.New(parts...) })
	cfg := tryout.Config{Options: marshal(t, s.options), Report: s.report, Patience: patience}
	for _, e := range s.examples {
		cfg.Examples = append(cfg.Examples, tryout.Example{Handler: e.handler, Step: e.step.input(t)})
	}
	for _, r := range tryout.Check(t.Context(), start, cfg, func(tryout.Result) {}) {
		t.Run(r.Name, func(t *testing.T) {
			if r.Problem != "" {
				t.Error(r.Problem)
			}
		})
	}
	if s.servesHandlers(t) {
		t.Run("misbehaving steps", s.misbehave)
		t.Run("drain with a step in hand", s.drain)
		t.Run("steps are counted", s.collect)
	}
}

// ready returns a configured plugin with the probes beside its own handlers.
func (s *suite) ready(t *testing.T) *tryout.Instance {
	t.Helper()
	d := s.description(t)
	client := connect(t, append(slices.Clone(s.parts), sdk.Handlers(d.GetName(), d.GetVersion(), newProbes()))...)
	configure(t, client, s.options)
	return client
}

func (s *suite) description(t *testing.T) *pluginv1.DescribeResponse {
	t.Helper()
	d, err := Connect(t, s.parts...).Plugin.Describe(t.Context(), &pluginv1.DescribeRequest{})
	if err != nil {
		t.Fatalf("describe: %v", err)
	}
	return d
}

func (s *suite) servesHandlers(t *testing.T) bool {
	t.Helper()
	return slices.ContainsFunc(s.description(t).GetSlots(), func(slot *pluginv1.Slot) bool { return slot.GetKind() == wire.KindHandler })
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
		waits := work.start(t, step(probeWait))
		work.cancel(t, waits)
		o := work.wait(t, waits)
		fails(t, o, vocab.UnexpectedError, true)
		if o.GetFailure().GetCode() != wire.CodeCancelled {
			t.Errorf("the code is %q, want %q", o.GetFailure().GetCode(), wire.CodeCancelled)
		}
	})
	t.Run("a slow step holds nothing back", func(t *testing.T) {
		slow := work.start(t, step(probeWait))
		for range 100 {
			succeeds(t, work.run(t, step(probeEcho)))
		}
		over, cancel := context.WithCancel(t.Context())
		cancel()
		if o, err := slow.Wait(over); err == nil {
			t.Errorf("the slow step ended by itself: %v", o)
		}
		work.cancel(t, slow)
		work.wait(t, slow)
	})
}

func (s *suite) drain(t *testing.T) {
	client := s.ready(t)
	work := openSession(t, client)
	running := work.start(t, Step{}.message(t, probeWait))
	succeeds(t, work.run(t, Step{}.message(t, probeEcho))) // so the step before it has begun

	answer, err := client.Plugin.Drain(t.Context(), &pluginv1.DrainRequest{TimeoutMs: 1})
	if err != nil {
		t.Fatalf("drain: %v", err)
	}
	if answer.GetInFlight() != 1 {
		t.Errorf("drain with a step in hand says %d are left, want 1", answer.GetInFlight())
	}
	late := work.run(t, Step{}.message(t, probeEcho))
	if !wire.HandsBack(late.GetFailure()) {
		t.Errorf("a step sent after drain is not handed back: %v", late)
	}
	work.cancel(t, running)
	work.wait(t, running)
	answer, err = client.Plugin.Drain(t.Context(), &pluginv1.DrainRequest{TimeoutMs: uint32(patience.Milliseconds())})
	if err != nil {
		t.Fatalf("drain: %v", err)
	}
	if answer.GetInFlight() != 0 {
		t.Errorf("drain says %d steps are left, want none", answer.GetInFlight())
	}
}

func (s *suite) collect(t *testing.T) {
	client := s.ready(t)
	succeeds(t, openSession(t, client).run(t, Step{}.message(t, probeEcho)))
	answer, err := client.Plugin.Collect(t.Context(), &pluginv1.CollectRequest{})
	if err != nil {
		t.Fatalf("collect: %v", err)
	}
	if !bytes.Contains(answer.GetMetrics(), []byte(`plugin_steps_total{handler="`+probeEcho+`",outcome="success"} 1`+"\n")) {
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
