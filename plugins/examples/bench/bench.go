// Package bench holds handlers that do nothing, wait, fail or echo. The
// benchmark measures the host with them, and tests use them where they need a
// step whose behaviour is known exactly.
//
// Nothing here is started or stopped: plugins/handlers/bench serves it.
package bench

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/tasker-systems/tasker-host/sdk/handler"
)

// The names of the handlers, as templates give them.
const (
	Noop  = "bench.noop"  // succeeds at once
	Sleep = "bench.sleep" // succeeds after config sleep_ms milliseconds
	Fail  = "bench.fail"  // fails config error_rate of all attempts, 0 to 1
	Echo  = "bench.echo"  // ends with the task's context as its result
	Clock = "bench.clock" // ends with the time at which it was called
)

// The codes of the errors that the handlers return.
const (
	CodeInjected  = "BENCH_FAILURE"       // retryable: bench.fail did what it is for
	CodeBadConfig = "INVALID_STEP_CONFIG" // permanent
)

// Handlers returns the handlers by name.
func Handlers() map[string]handler.Handler {
	return map[string]handler.Handler{
		Noop:  handler.Func(noop),
		Sleep: handler.Func(sleep),
		Fail:  handler.Func(fail),
		Echo:  handler.Func(echo),
		Clock: handler.Func(clock),
	}
}

// noopResult is about as long as the result of a small real step: 50 bytes.
const noopResult = `{"status":"ok","handler":"bench.noop","value":420}`

func noop(context.Context, handler.Step) (handler.Result, error) {
	return handler.Result{Value: json.RawMessage(noopResult)}, nil
}

func sleep(ctx context.Context, step handler.Step) (handler.Result, error) {
	var cfg struct {
		SleepMS int64 `json:"sleep_ms"`
	}
	if err := step.DecodeConfig(&cfg); err != nil {
		return handler.Result{}, handler.Permanent(CodeBadConfig, "step %s: %v", step.Name, err)
	}
	if longest := math.MaxInt64 / time.Millisecond.Nanoseconds(); cfg.SleepMS < 0 || cfg.SleepMS > longest {
		return handler.Result{}, handler.Permanent(CodeBadConfig,
			"step %s: sleep_ms is %d, want 0 to %d", step.Name, cfg.SleepMS, longest)
	}
	timer := time.NewTimer(time.Duration(cfg.SleepMS) * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return handler.JSON(map[string]int64{"slept_ms": cfg.SleepMS})
	case <-ctx.Done():
		return handler.Result{}, fmt.Errorf("sleep %d ms: %w", cfg.SleepMS, context.Cause(ctx))
	}
}

// fail decides by the idempotency key and the attempt, not by chance: the same run fails the
// same way again, and a failed step may succeed when retried.
func fail(_ context.Context, step handler.Step) (handler.Result, error) {
	var cfg struct {
		ErrorRate float64 `json:"error_rate"`
	}
	if err := step.DecodeConfig(&cfg); err != nil {
		return handler.Result{}, handler.Permanent(CodeBadConfig, "step %s: %v", step.Name, err)
	}
	if cfg.ErrorRate < 0 || cfg.ErrorRate > 1 {
		return handler.Result{}, handler.Permanent(CodeBadConfig,
			"step %s: error_rate is %v, want 0 to 1", step.Name, cfg.ErrorRate)
	}
	if draw(step.IdempotencyKey, step.Attempt) < cfg.ErrorRate {
		return handler.Result{}, handler.Retryable(0, CodeInjected, "attempt %d fails as configured", step.Attempt)
	}
	return handler.Result{Value: json.RawMessage(noopResult)}, nil
}

// draw returns a number in [0, 1) that is uniform over keys and attempts.
func draw(key string, attempt int) float64 {
	const mantissa = 53
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d", key, attempt))
	return float64(binary.BigEndian.Uint64(sum[:8])>>(64-mantissa)) / (1 << mantissa)
}

func echo(_ context.Context, step handler.Step) (handler.Result, error) {
	return handler.Result{Value: step.Context}, nil
}

func clock(context.Context, handler.Step) (handler.Result, error) {
	return handler.JSON(map[string]int64{"called_at_us": time.Now().UnixMicro()})
}
