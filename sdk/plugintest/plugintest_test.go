package plugintest_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/internal/leaks"
	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/handler"
	"github.com/tasker-systems/tasker-host/sdk/plugintest"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

func TestMain(m *testing.M) { leaks.Main(m) }

func add(_ context.Context, s handler.Step) (handler.Result, error) {
	var in struct{ A, B json.Number }
	if err := s.DecodeContext(&in); err != nil {
		return handler.Result{}, handler.Invalid("BAD_INPUT", "%v", err)
	}
	if in.A == "" {
		return handler.Result{}, handler.Retryable(1500*time.Microsecond, "NO_A", "a is not there yet")
	}
	return handler.JSON(map[string]any{"a": in.A, "attempt": s.Attempt})
}

func TestRun(t *testing.T) {
	t.Parallel()
	got := plugintest.Run(t, handler.Func(add), plugintest.Step{
		Context: map[string]any{"a": json.Number("18446744073709551616")}, Attempt: 2,
	})
	require.Nil(t, got.Failure)
	require.JSONEq(t, `{"a": 18446744073709551616, "attempt": 2}`, string(got.Result))
	var out struct{ A json.Number }
	got.Decode(t, &out)
	require.Equal(t, json.Number("18446744073709551616"), out.A)
}

func TestRunFailure(t *testing.T) {
	t.Parallel()
	got := plugintest.Run(t, handler.Func(add), plugintest.Step{})
	require.Equal(t, &plugintest.Failure{
		Type: vocab.RetryableError, Code: "NO_A", Message: "a is not there yet",
		Retryable: true, RetryAfter: 2 * time.Millisecond,
	}, got.Failure)

	got = plugintest.Run(t, handler.Func(add), plugintest.Step{Context: map[string]any{"a": "x"}})
	require.Equal(t, vocab.ValidationError, got.Failure.Type)
	require.False(t, got.Failure.Retryable)
}

func TestRunDependencies(t *testing.T) {
	t.Parallel()
	sum := handler.Func(func(_ context.Context, s handler.Step) (handler.Result, error) {
		var n int
		if err := s.DecodeDependency("first", &n); err != nil {
			return handler.Result{}, err
		}
		return handler.Result{Value: s.Dependencies["first"], Metadata: map[string]any{"n": n}}, nil
	})
	got := plugintest.Run(t, sum, plugintest.Step{Dependencies: map[string]any{"first": 7}})
	require.Equal(t, "7", string(got.Result))
	require.JSONEq(t, `{"n": 7}`, string(got.Metadata))

	got = plugintest.Run(t, sum, plugintest.Step{})
	require.Equal(t, vocab.UnexpectedError, got.Failure.Type)
	require.True(t, got.Failure.Retryable)
}

type options struct {
	Region string `json:"region" doc:"where to work"`
}

func TestConformance(t *testing.T) {
	t.Parallel()
	handlers := map[string]handler.Handler{"math.add": handler.Func(add)}
	plugintest.Conformance(t, sdk.Handlers("math", "1.2.3", handlers),
		plugintest.Example("math.add", plugintest.Step{Context: map[string]any{"a": 1}}))

	needsRegion := sdk.WithOptions(options{}, func(_ context.Context, o options) error {
		if o.Region == "" {
			return &sdk.OptionError{Path: "/region", Message: "is required"}
		}
		return nil
	})
	plugintest.Conformance(t, sdk.Handlers("math", "1.2.3", handlers, needsRegion,
		sdk.MaxInFlight(32), sdk.SelfTest(func(context.Context) error { return nil })),
		plugintest.WithOptions(options{Region: "north"}))
}

// TestRunReportsErrors shows that an unclassified error is retried.
func TestRunReportsErrors(t *testing.T) {
	t.Parallel()
	broken := handler.Func(func(context.Context, handler.Step) (handler.Result, error) {
		return handler.Result{}, errors.New("the socket is wet")
	})
	got := plugintest.Run(t, broken, plugintest.Step{})
	require.Equal(t, &plugintest.Failure{
		Type: vocab.UnexpectedError, Message: "the socket is wet", Retryable: true,
	}, got.Failure)
}

// Tests also refuse what a host cannot store.
func TestRunRefusesNUL(t *testing.T) {
	t.Parallel()
	returning := func(r handler.Result) plugintest.Outcome {
		return plugintest.Run(t, handler.Func(func(context.Context, handler.Step) (handler.Result, error) { return r, nil }), plugintest.Step{})
	}
	for _, r := range []handler.Result{
		{Value: json.RawMessage(`["a\u0000"]`)},
		{Value: json.RawMessage(`["\\\u0000"]`)},
		{Value: json.RawMessage(`{"\u0000":1}`)},
		{Metadata: map[string]any{"name": "a\x00"}},
	} {
		got := returning(r)
		require.NotNil(t, got.Failure, "%s", r.Value)
		require.Equal(t, vocab.InvalidResult, got.Failure.Type)
		require.Contains(t, got.Failure.Message, "NUL")
	}
	require.Nil(t, returning(handler.Result{Value: json.RawMessage(`["\\u0000"]`)}).Failure, "a backslash and letters")
}
