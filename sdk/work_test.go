package sdk_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/handler"
	"github.com/tasker-systems/tasker-host/sdk/plugintest"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// open serves one handler, named h, and opens a work stream to it.
func open(t *testing.T, h handler.Func, opts ...sdk.Option) (*wire.Client, pluginv1.Handler_WorkClient) {
	t.Helper()
	client := plugintest.Connect(t, sdk.Handlers("p", "1.0.0", map[string]handler.Handler{"h": h}, opts...))
	answer, err := client.Plugin.Configure(t.Context(), &pluginv1.ConfigureRequest{})
	require.NoError(t, err)
	require.Empty(t, answer.GetErrors())
	stream, err := client.Handler.Work(t.Context())
	require.NoError(t, err)
	return client, stream
}

func send(t *testing.T, stream pluginv1.Handler_WorkClient, ids ...uint64) {
	t.Helper()
	request := &pluginv1.WorkRequest{}
	for _, id := range ids {
		request.Steps = append(request.Steps, &pluginv1.Step{CallId: id, Handler: "h", Context: []byte("{}")})
	}
	require.NoError(t, stream.Send(request))
}

// receive returns the next n outcomes by call, and the number of messages that
// contained them.
func receive(t *testing.T, stream pluginv1.Handler_WorkClient, n int) (outcomes map[uint64]*pluginv1.Outcome, messages int) {
	t.Helper()
	outcomes = map[uint64]*pluginv1.Outcome{}
	for len(outcomes) < n {
		response, err := stream.Recv()
		require.NoError(t, err)
		messages++
		for _, o := range response.GetOutcomes() {
			require.NotContains(t, outcomes, o.GetCallId())
			outcomes[o.GetCallId()] = o
		}
	}
	return outcomes, messages
}

func TestWorkNeedsConfiguration(t *testing.T) {
	t.Parallel()
	client := plugintest.Connect(t, sdk.Handlers("p", "1.0.0", map[string]handler.Handler{"h": handler.Func(echo)}))
	stream, err := client.Handler.Work(t.Context())
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
}

func TestWorkRefusesCallTwice(t *testing.T) {
	t.Parallel()
	_, stream := open(t, func(ctx context.Context, _ handler.Step) (handler.Result, error) {
		<-ctx.Done()
		return handler.Result{}, ctx.Err()
	})
	send(t, stream, 1, 1)
	_, err := stream.Recv()
	require.Equal(t, codes.InvalidArgument, status.Code(err))
}

// TestWorkSlowStepsHoldUpNoOther sends steps that wait among steps that do not, in
// one message: at the beginning, at the end and in between. Those that do not wait
// end.
func TestWorkSlowStepsHoldUpNoOther(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	_, stream := open(t, func(_ context.Context, s handler.Step) (handler.Result, error) {
		if string(s.Context) == "1" {
			<-release
		}
		return handler.Result{}, nil
	})
	request, slow := &pluginv1.WorkRequest{}, map[uint64]bool{1: true, 2: true, 20: true, 39: true, 40: true}
	for id := uint64(1); id <= 40; id++ {
		value := "0"
		if slow[id] {
			value = "1"
		}
		request.Steps = append(request.Steps, &pluginv1.Step{CallId: id, Handler: "h", Context: []byte(value)})
	}
	require.NoError(t, stream.Send(request))
	quick, _ := receive(t, stream, 40-len(slow))
	for id := range quick {
		require.NotContains(t, slow, id)
	}
	close(release)
	receive(t, stream, len(slow))
}

// TestWorkHandlerEndsItsGoroutine: the following steps in the message run.
func TestWorkHandlerEndsItsGoroutine(t *testing.T) {
	t.Parallel()
	_, stream := open(t, func(context.Context, handler.Step) (handler.Result, error) {
		runtime.Goexit()
		return handler.Result{}, nil
	})
	send(t, stream, 1, 2, 3, 4)
	outcomes, _ := receive(t, stream, 4)
	require.Equal(t, "the handler ended its goroutine without returning", outcomes[3].GetFailure().GetMessage())
	send(t, stream, 5) // no other follows that would cause its outcome to be sent
	receive(t, stream, 1)
}

// TestWorkRefusesAStepItCannotRead ends the stream, as any invalid message does.
func TestWorkRefusesAStepItCannotRead(t *testing.T) {
	t.Parallel()
	_, stream := open(t, echo)
	damaged := &pluginv1.PackedWorkRequest{Steps: [][]byte{{0x0a, 0x05, 'x'}}}
	require.NoError(t, stream.SendMsg(damaged))
	_, err := stream.Recv()
	require.Equal(t, codes.Internal, status.Code(err))
}

// TestWorkEndsAfterLastOutcome closes the host's half while steps run: they still
// end, then the stream does.
func TestWorkEndsAfterLastOutcome(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	_, stream := open(t, func(context.Context, handler.Step) (handler.Result, error) {
		<-release
		return handler.Result{}, nil
	})
	send(t, stream, 1, 2, 3)
	require.NoError(t, stream.CloseSend())
	close(release)
	outcomes, _ := receive(t, stream, 3)
	require.Equal(t, "null", string(outcomes[2].GetResult()))
	_, err := stream.Recv()
	require.ErrorIs(t, err, io.EOF)
}

// TestWorkLostConnection drops the stream: the running steps learn of it.
func TestWorkLostConnection(t *testing.T) {
	t.Parallel()
	started, causes := make(chan struct{}), make(chan error, 1)
	client, _ := open(t, func(ctx context.Context, _ handler.Step) (handler.Result, error) {
		close(started)
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return handler.Result{}, ctx.Err()
	})
	ctx, drop := context.WithCancel(t.Context())
	stream, err := client.Handler.Work(ctx)
	require.NoError(t, err)
	send(t, stream, 1)
	<-started
	drop()
	require.ErrorContains(t, <-causes, "lost")
	answer, err := client.Plugin.Drain(t.Context(), &pluginv1.DrainRequest{TimeoutMs: 20_000})
	require.NoError(t, err)
	require.Zero(t, answer.GetInFlight())
}

// TestDrainTwice lets two callers wait for the same step.
func TestDrainTwice(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	client, stream := open(t, func(context.Context, handler.Step) (handler.Result, error) {
		<-release
		return handler.Result{}, nil
	})
	send(t, stream, 1)
	left := make(chan uint32, 2)
	for range 2 {
		go func() {
			answer, err := client.Plugin.Drain(t.Context(), &pluginv1.DrainRequest{TimeoutMs: 60_000})
			if err != nil {
				t.Errorf("drain: %v", err)
			}
			left <- answer.GetInFlight()
		}()
	}
	require.Eventually(t, func() bool {
		health, err := client.Plugin.Health(t.Context(), &pluginv1.HealthRequest{})
		return err == nil && health.GetMessage() == "draining"
	}, patience, tick)
	close(release)
	require.Zero(t, <-left)
	require.Zero(t, <-left)
}

func TestWorkCancelTellsWhy(t *testing.T) {
	t.Parallel()
	started, causes := make(chan struct{}), make(chan error, 1)
	_, stream := open(t, func(ctx context.Context, _ handler.Step) (handler.Result, error) {
		close(started)
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return handler.Result{}, handler.Permanent("GAVE_UP", "%v", ctx.Err())
	})
	send(t, stream, 1)
	<-started
	cancel := []*pluginv1.Cancel{{CallId: 99}, {CallId: 1, Reason: "the task was cancelled"}}
	require.NoError(t, stream.Send(&pluginv1.WorkRequest{Cancels: cancel}))
	require.EqualError(t, <-causes, "cancelled by the host: the task was cancelled")
	outcomes, _ := receive(t, stream, 1)
	require.Equal(t, wire.CodeCancelled, outcomes[1].GetFailure().GetCode(), "the end of the context is not a verdict")
}

// TestWorkDeadline checks what the handler sees of the step's timeout.
func TestWorkDeadline(t *testing.T) {
	t.Parallel()
	_, stream := open(t, func(ctx context.Context, s handler.Step) (handler.Result, error) {
		deadline, ok := ctx.Deadline()
		if !ok || !deadline.Equal(s.Deadline) {
			return handler.Result{}, handler.Permanent("DEADLINE", "context %v, step %v", deadline, s.Deadline)
		}
		<-ctx.Done()
		return handler.Result{}, fmt.Errorf("call the bank: %w", ctx.Err())
	})
	step := &pluginv1.Step{CallId: 1, Handler: "h", TimeoutMs: 500}
	require.NoError(t, stream.Send(&pluginv1.WorkRequest{Steps: []*pluginv1.Step{step}}))
	outcomes, _ := receive(t, stream, 1)
	require.Equal(t, string(vocab.TimeoutError), outcomes[1].GetFailure().GetType())
	require.Equal(t, "timed out after 500 ms: call the bank: context deadline exceeded", outcomes[1].GetFailure().GetMessage())
}

// TestWorkKeepsResultAfterDeadline: the host decides whether a late result still
// counts.
func TestWorkKeepsResultAfterDeadline(t *testing.T) {
	t.Parallel()
	_, stream := open(t, func(ctx context.Context, _ handler.Step) (handler.Result, error) {
		<-ctx.Done()
		return handler.JSON("done all the same")
	})
	step := &pluginv1.Step{CallId: 1, Handler: "h", TimeoutMs: 500}
	require.NoError(t, stream.Send(&pluginv1.WorkRequest{Steps: []*pluginv1.Step{step}}))
	outcomes, _ := receive(t, stream, 1)
	require.Nil(t, outcomes[1].GetFailure())
	require.Positive(t, outcomes[1].GetExecutionUs())
}

// TestWorkInFlightIsBounded sends more steps than allowed: the rest waits.
func TestWorkInFlightIsBounded(t *testing.T) {
	t.Parallel()
	const limit, steps = 3, 50
	var running, most atomic.Int64
	_, stream := open(t, func(context.Context, handler.Step) (handler.Result, error) {
		n := running.Add(1)
		defer running.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(time.Millisecond) // what the handler does, not a wait for something
		return handler.Result{}, nil
	}, sdk.MaxInFlight(limit))
	ids := make([]uint64, steps)
	for i := range ids {
		ids[i] = uint64(i)
	}
	send(t, stream, ids...)
	receive(t, stream, steps)
	require.LessOrEqual(t, most.Load(), int64(limit))
}

// TestWorkCancelsWaitingStep cancels a step that waits for room: the handler
// never sees it.
func TestWorkCancelsWaitingStep(t *testing.T) {
	t.Parallel()
	started, release := make(chan struct{}), make(chan struct{})
	_, stream := open(t, func(context.Context, handler.Step) (handler.Result, error) {
		close(started)
		<-release
		return handler.Result{}, nil
	}, sdk.MaxInFlight(1))
	send(t, stream, 1)
	<-started
	send(t, stream, 2)
	cancels := []*pluginv1.Cancel{{CallId: 2, Reason: "enough"}}
	require.NoError(t, stream.Send(&pluginv1.WorkRequest{Cancels: cancels}))
	outcomes, _ := receive(t, stream, 1)
	require.Equal(t, wire.CodeCancelled, outcomes[2].GetFailure().GetCode())
	require.Zero(t, outcomes[2].GetExecutionUs())
	close(release)
	outcomes, _ = receive(t, stream, 1)
	require.Nil(t, outcomes[1].GetFailure())
}

// TestWorkCutsLargeBatches lets many large results finish together: no message may
// exceed the limit, and all arrive.
func TestWorkCutsLargeBatches(t *testing.T) {
	t.Parallel()
	const steps = 12
	release := make(chan struct{})
	value := []byte(`"` + strings.Repeat("x", wire.MaxResultBytes-2) + `"`)
	_, stream := open(t, func(context.Context, handler.Step) (handler.Result, error) {
		<-release
		return handler.Result{Value: value}, nil
	})
	for id := range uint64(steps) {
		send(t, stream, id)
	}
	close(release)
	outcomes, messages := receive(t, stream, steps)
	require.Equal(t, steps, messages)
	for _, o := range outcomes {
		require.Len(t, o.GetResult(), wire.MaxResultBytes)
	}
}

// TestWorkBatchesOutcomes lets many steps end at once: far fewer messages carry
// their outcomes.
func TestWorkBatchesOutcomes(t *testing.T) {
	t.Parallel()
	const steps = 500
	release := make(chan struct{})
	var started atomic.Int64
	_, stream := open(t, func(context.Context, handler.Step) (handler.Result, error) {
		if started.Add(1) == steps {
			close(release)
		}
		<-release
		return handler.Result{}, nil
	})
	ids := make([]uint64, steps)
	for i := range ids {
		ids[i] = uint64(i)
	}
	send(t, stream, ids...)
	_, messages := receive(t, stream, steps)
	require.Less(t, messages, steps/2)
}

// brokenError panics where a nil pointer would: in its method.
type brokenError struct{}

func (*brokenError) Error() string { panic("no message") }

func TestFailures(t *testing.T) {
	t.Parallel()
	failed := func(err error) handler.Func {
		return func(context.Context, handler.Step) (handler.Result, error) { return handler.Result{}, err }
	}
	returned := func(r handler.Result) handler.Func {
		return func(context.Context, handler.Step) (handler.Result, error) { return r, nil }
	}
	declined := handler.Permanent("DECLINED", "no money")
	for name, test := range map[string]struct {
		handler handler.Func
		want    plugintest.Failure
		message string // contained in the message
	}{
		"permanent":             {failed(declined), plugintest.Failure{Type: vocab.PermanentError, Code: "DECLINED"}, "no money"},
		"wrapped":               {failed(fmt.Errorf("charge card: %w", declined)), plugintest.Failure{Type: vocab.PermanentError, Code: "DECLINED"}, "charge card: DECLINED: no money"},
		"retryable":             {failed(handler.Retryable(time.Second, "BUSY", "later")), plugintest.Failure{Type: vocab.RetryableError, Code: "BUSY", Retryable: true, RetryAfter: time.Second}, "later"},
		"code of a hand-back":   {failed(handler.Permanent("CANCELLED\xff", "the order")), plugintest.Failure{Type: vocab.PermanentError, Code: "HANDLER_CANCELLED"}, "the order"},
		"hand-back, later":      {failed(handler.Retryable(0, "CANCELLED", "the order")), plugintest.Failure{Type: vocab.RetryableError, Code: "HANDLER_CANCELLED", Retryable: true}, "the order"},
		"permanent never waits": {failed(&handler.Error{Type: vocab.PermanentError, RetryAfter: time.Second}), plugintest.Failure{Type: vocab.PermanentError}, ""},
		"longest wait":          {failed(handler.Retryable(1<<62, "", "")), plugintest.Failure{Type: vocab.RetryableError, Retryable: true, RetryAfter: (1<<32 - 1) * time.Millisecond}, ""},
		"type not given":        {failed(&handler.Error{Message: "x"}), plugintest.Failure{Type: vocab.UnexpectedError, Retryable: true}, "x"},
		"type made up":          {failed(&handler.Error{Type: "Oops"}), plugintest.Failure{Type: vocab.UnexpectedError, Retryable: true}, ""},
		"plain":                 {failed(errors.New("x")), plugintest.Failure{Type: vocab.UnexpectedError, Retryable: true}, "x"},
		"not UTF-8":             {failed(errors.New("a\xffb\x00c")), plugintest.Failure{Type: vocab.UnexpectedError, Retryable: true}, "ab\uFFFDc"},
		"nil error value":       {failed((*handler.Error)(nil)), plugintest.Failure{Type: vocab.UnexpectedError, Code: "PANIC", Retryable: true}, "nil pointer"},
		"error that panics":     {failed(&brokenError{}), plugintest.Failure{Type: vocab.UnexpectedError, Code: "PANIC", Retryable: true}, "no message"},
		"result not JSON":       {returned(handler.Result{Value: []byte(`{"a":1,}`)}), plugintest.Failure{Type: vocab.InvalidResult}, "at byte 8"},
		"result not UTF-8":      {returned(handler.Result{Value: []byte("\"\xff\"")}), plugintest.Failure{Type: vocab.InvalidResult}, "UTF-8"},
		"metadata not JSON":     {returned(handler.Result{Metadata: map[string]any{"f": func() {}}}), plugintest.Failure{Type: vocab.InvalidResult}, "metadata"},
		"metadata too big":      {returned(handler.Result{Metadata: map[string]any{"f": strings.Repeat("x", 1<<20)}}), plugintest.Failure{Type: vocab.InvalidResult}, "metadata"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := plugintest.Run(t, test.handler, plugintest.Step{})
			require.NotNil(t, got.Failure)
			require.Contains(t, got.Failure.Message, test.message)
			got.Failure.Message, got.Failure.Context = "", nil
			require.Equal(t, test.want, *got.Failure)
			require.Nil(t, got.Result)
			require.Nil(t, got.Metadata)
		})
	}
}

func TestFailureContext(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		context map[string]any
		want    string
	}{
		"given":    {map[string]any{"balance": 3}, `{"balance": 3}`},
		"too big":  {map[string]any{"x": strings.Repeat("x", 1<<20)}, `{"context_dropped": "it had 1048584 bytes, more than 65536"}`},
		"not JSON": {map[string]any{"x": make(chan int)}, `{"context_dropped": "json: unsupported type: chan int"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := plugintest.Run(t, handler.Func(func(context.Context, handler.Step) (handler.Result, error) {
				return handler.Result{}, &handler.Error{Type: vocab.PermanentError, Context: test.context}
			}), plugintest.Step{})
			require.JSONEq(t, test.want, string(got.Failure.Context))
		})
	}
}

// TestFailureIsBounded: a long message is cut, and the stream survives.
func TestFailureIsBounded(t *testing.T) {
	t.Parallel()
	got := plugintest.Run(t, handler.Func(func(context.Context, handler.Step) (handler.Result, error) {
		panic(strings.Repeat("é", 5<<20))
	}), plugintest.Step{})
	require.LessOrEqual(t, len(got.Failure.Message), 8<<10)
	require.LessOrEqual(t, len(got.Failure.Context), 20<<10)
}
