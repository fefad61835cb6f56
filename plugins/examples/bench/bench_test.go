package bench_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/plugins/examples/bench"
	"github.com/tasker-systems/tasker-host/plugins/examples/internal/dagtest"
	"github.com/tasker-systems/tasker-host/sdk/handler"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

func TestNoopThroughTheTemplate(t *testing.T) {
	t.Parallel()
	run := dagtest.Load(t, "templates/linear.yaml").Execute(t, bench.Handlers(), "", `{}`)
	require.NoError(t, run.Err)
	require.Len(t, run.Results, 4)
	for _, result := range run.Results {
		require.True(t, json.Valid(result))
		require.Len(t, result, 50)
	}
}

func TestEchoKeepsEveryDigit(t *testing.T) {
	t.Parallel()
	const in = `{"n":340282366920938463463374607431768211456,"d":0.10}`
	result, err := bench.Handlers()[bench.Echo].Handle(t.Context(), handler.Step{Context: json.RawMessage(in)})
	require.NoError(t, err)
	require.Equal(t, in, string(result.Value))
}

func TestSleep(t *testing.T) {
	t.Parallel()
	step := handler.Step{Name: "s", Config: json.RawMessage(`{"sleep_ms":1500}`)}
	t.Run("to the end", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			result, err := bench.Handlers()[bench.Sleep].Handle(t.Context(), step)
			require.NoError(t, err)
			require.Equal(t, `{"slept_ms":1500}`, string(result.Value))
			require.Equal(t, 1500*time.Millisecond, time.Since(start))
		})
	})
	t.Run("until cancelled", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			cause := errors.New("task cancelled")
			ctx, cancel := context.WithCancelCause(t.Context())
			start := time.Now()
			time.AfterFunc(time.Second, func() { cancel(cause) })
			_, err := bench.Handlers()[bench.Sleep].Handle(ctx, step)
			require.ErrorIs(t, err, cause)
			require.Equal(t, time.Second, time.Since(start))
		})
	})
}

func TestFailHoldsItsRate(t *testing.T) {
	t.Parallel()
	const keys = 4000
	failed := func(rate string, attempt int) map[string]bool {
		set := map[string]bool{}
		for i := range keys {
			key := fmt.Sprintf("key-%d", i)
			_, err := bench.Handlers()[bench.Fail].Handle(t.Context(), handler.Step{
				IdempotencyKey: key, Attempt: attempt, Config: json.RawMessage(`{"error_rate":` + rate + `}`),
			})
			if err != nil {
				require.Equal(t, vocab.RetryableError, dagtest.RequireError(t, err, bench.CodeInjected).Type)
				set[key] = true
			}
		}
		return set
	}
	require.Empty(t, failed("0", 1))
	require.Len(t, failed("1", 1), keys)
	first := failed("0.25", 1)
	require.InDelta(t, keys/4, len(first), keys/40)
	require.Equal(t, first, failed("0.25", 1), "the same attempt fails again")
	require.NotEqual(t, first, failed("0.25", 2), "another attempt is another draw")
}

func TestBadConfig(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ handler, config string }{
		{bench.Sleep, `{"sleep_ms":-1}`},
		{bench.Sleep, `{"sleep_ms":9223372036854775807}`},
		{bench.Sleep, `{"sleep_ms":"1"}`},
		{bench.Fail, `{"error_rate":-0.1}`},
		{bench.Fail, `{"error_rate":1.1}`},
		{bench.Fail, `{"error_rate":"0.1"}`},
	} {
		_, err := bench.Handlers()[tt.handler].Handle(t.Context(), handler.Step{Config: json.RawMessage(tt.config)})
		require.Equal(t, vocab.PermanentError, dagtest.RequireError(t, err, bench.CodeBadConfig).Type, tt.config)
	}
}
