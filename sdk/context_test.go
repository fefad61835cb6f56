package sdk

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

type contextKey struct{}

// pair returns a step's context and the ordinary context that it stands for.
func pair(timeout time.Duration) (step *stepContext, plain context.Context, cancel func(error)) {
	base := context.WithValue(context.Background(), contextKey{}, "value")
	step = &stepContext{call: &call{}, parent: base}
	stop := context.CancelFunc(func() {})
	if timeout > 0 {
		step.deadline = time.Now().Add(timeout)
		base, stop = context.WithDeadlineCause(base, step.deadline, errTimeout)
	}
	plain, end := context.WithCancelCause(base)
	return step, plain, func(cause error) { step.cancel(cause); end(cause); stop() }
}

// Whatever happens to a step's context, and whenever it is first used, it behaves
// like one that was created in full at once.
func TestStepContextIsAContext(t *testing.T) {
	t.Parallel()
	cause := errors.New("cancelled by the host")
	for name, tc := range map[string]struct {
		timeout time.Duration
		happens func(cancel func(error))
	}{
		"nothing":                 {0, func(func(error)) {}},
		"nothing yet":             {time.Minute, func(func(error)) {}},
		"timeout":                 {time.Second, func(func(error)) { time.Sleep(2 * time.Second) }},
		"end":                     {time.Minute, func(cancel func(error)) { cancel(nil) }},
		"cancelled":               {0, func(cancel func(error)) { cancel(cause) }},
		"cancelled, then timeout": {time.Second, func(cancel func(error)) { cancel(cause); time.Sleep(2 * time.Second) }},
		"timeout, then cancelled": {time.Second, func(cancel func(error)) { time.Sleep(2 * time.Second); cancel(cause) }},
		"cancelled, then ended":   {time.Minute, func(cancel func(error)) { cancel(cause); cancel(nil) }},
	} {
		for _, look := range []struct {
			name string
			at   func(context.Context)
		}{
			{"never", func(context.Context) {}},
			{"err", func(ctx context.Context) { _ = ctx.Err() }},
			{"done", func(ctx context.Context) { _ = ctx.Done() }},
			{"value", func(ctx context.Context) { _ = ctx.Value("of nobody") }},
		} {
			t.Run(name+"/looked at before: "+look.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					step, plain, cancel := pair(tc.timeout)
					defer cancel(nil)
					look.at(step)
					child, stop := context.WithTimeout(plain, time.Hour)
					defer stop()
					var stepChild context.Context
					if look.name != "never" {
						stepChild, stop = context.WithTimeout(step, time.Hour)
						defer stop()
					}
					tc.happens(cancel)
					synctest.Wait()
					requireAlike(t, plain, step)
					if stepChild != nil {
						requireAlike(t, child, stepChild)
					}
				})
			})
		}
	}
}

func requireAlike(t *testing.T, plain, step context.Context) {
	t.Helper()
	require.Equal(t, plain.Err(), step.Err())
	require.Equal(t, context.Cause(plain), context.Cause(step))
	require.Equal(t, plain.Err(), step.Err(), "whoever has asked")
	require.Equal(t, over(plain), over(step))
	want, has := plain.Deadline()
	deadline, ok := step.Deadline()
	require.Equal(t, has, ok)
	require.True(t, want.Equal(deadline))
	require.Equal(t, "value", step.Value(contextKey{}))
	require.Nil(t, step.Value("of nobody"))
}

func over(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return true
	default:
		return false
	}
}
