package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tasker-systems/tasker-host/sdk/handler"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// Limits of an outcome's other parts, in bytes.
const (
	maxMessageBytes  = 8 << 10
	maxCodeBytes     = 128
	maxStackBytes    = 8 << 10
	maxMetadataBytes = 256 << 10
	maxContextBytes  = 64 << 10
)

// panicError is what a handler's panic becomes.
type panicError struct{ value, stack string }

func (e *panicError) Error() string { return "panic: " + e.value }

// conclude turns what the handler returned into the outcome. An error after the
// context has ended does not count as the handler's verdict: it usually just
// reports the end of the context.
func (c *call) conclude() {
	switch {
	case c.err == nil:
		c.accept()
	case c.ctx.Err() == nil:
		c.outcome.Failure = failure(c.err)
	case errors.Is(context.Cause(&c.ctx), errTimeout):
		c.outcome.Failure = &pluginv1.Failure{
			Type:      string(vocab.TimeoutError),
			Message:   clean(fmt.Sprintf("timed out after %d ms: %v", c.timeout.Milliseconds(), c.err), maxMessageBytes),
			Retryable: true,
		}
	default:
		c.outcome.Failure = cancelled(context.Cause(&c.ctx))
	}
}

// accept checks what the handler produced and puts it into the outcome.
func (c *call) accept() {
	value := c.result.Value
	switch {
	case len(value) > wire.MaxResultBytes:
		c.outcome.Failure = invalid("the result has %d bytes, more than the %d a step may return; store it elsewhere and return a reference", len(value), wire.MaxResultBytes)
		return
	case len(value) == 0:
		value = json.RawMessage("null")
	case !json.Valid(value):
		c.outcome.Failure = invalid("the result is not valid JSON: %s", jsonProblem(value))
		return
	case !utf8.Valid(value):
		c.outcome.Failure = invalid("the result is not valid UTF-8")
		return
	case wire.HasNUL(value):
		c.outcome.Failure = invalid("the result has the NUL character in a string, which cannot be stored: remove it, or encode the string")
		return
	}
	if len(c.result.Metadata) > 0 {
		metadata, err := json.Marshal(c.result.Metadata)
		if err != nil {
			c.outcome.Failure = invalid("the metadata is not JSON: %v", err)
			return
		}
		if len(metadata) > maxMetadataBytes {
			c.outcome.Failure = invalid("the metadata has %d bytes, more than the %d a step may return", len(metadata), maxMetadataBytes)
			return
		}
		if wire.HasNUL(metadata) {
			c.outcome.Failure = invalid("the metadata has the NUL character in a string, which cannot be stored")
			return
		}
		c.outcome.Metadata = metadata
	}
	c.outcome.Result = value
}

// failure classifies an error of a handler.
func failure(err error) *pluginv1.Failure {
	if e, ok := errors.AsType[*handler.Error](err); ok && e != nil {
		return classified(e, err)
	}
	f := &pluginv1.Failure{
		Type:      string(vocab.UnexpectedError),
		Message:   clean(err.Error(), maxMessageBytes),
		Retryable: true,
	}
	if p, ok := errors.AsType[*panicError](err); ok {
		f.Code = "PANIC"
		f.Context = failureContext(map[string]any{"stack": p.stack})
	}
	return f
}

func classified(e *handler.Error, err error) *pluginv1.Failure {
	kind := e.Type
	switch kind {
	case vocab.PermanentError, vocab.RetryableError, vocab.ValidationError:
	default:
		kind = vocab.UnexpectedError
	}
	message := e.Message
	if wrapped, outer := error(e), err; wrapped != outer {
		message = err.Error() // what wraps it tells where
	}
	code := clean(e.Code, maxCodeBytes)
	if code == wire.CodeCancelled {
		code = wire.CodeHandlerCancelled
	}
	f := &pluginv1.Failure{
		Type:      string(kind),
		Code:      code,
		Message:   clean(message, maxMessageBytes),
		Retryable: kind == vocab.RetryableError || kind == vocab.UnexpectedError,
		Context:   failureContext(e.Context),
	}
	if f.Retryable && e.RetryAfter > 0 {
		ms := (e.RetryAfter + time.Millisecond - 1) / time.Millisecond
		f.RetryAfterMs = uint32(min(ms, 1<<32-1))
	}
	return f
}

func notFound(name string) *pluginv1.Failure {
	return &pluginv1.Failure{
		Type:    string(vocab.HandlerNotFound),
		Message: clean(fmt.Sprintf("the plugin does not serve a handler %q", name), maxMessageBytes),
	}
}

func invalid(format string, args ...any) *pluginv1.Failure {
	return &pluginv1.Failure{
		Type:    string(vocab.InvalidResult),
		Message: clean(fmt.Sprintf(format, args...), maxMessageBytes),
	}
}

func cancelled(cause error) *pluginv1.Failure {
	return &pluginv1.Failure{
		Type:      string(vocab.UnexpectedError),
		Code:      wire.CodeCancelled,
		Message:   clean(cause.Error(), maxMessageBytes),
		Retryable: true,
	}
}

// failureContext marshals the context of a failure. A context that cannot be
// marshalled must not hide the failure itself.
func failureContext(values map[string]any) []byte {
	if len(values) == 0 {
		return nil
	}
	raw, err := json.Marshal(values)
	switch {
	case err != nil:
		raw, _ = json.Marshal(map[string]string{"context_dropped": clean(err.Error(), maxMessageBytes)})
	case len(raw) > maxContextBytes:
		raw, _ = json.Marshal(map[string]string{
			"context_dropped": fmt.Sprintf("it had %d bytes, more than %d", len(raw), maxContextBytes),
		})
	}
	return raw
}

// jsonProblem says where and why a value is not JSON.
func jsonProblem(value []byte) string {
	var v any
	err := json.Unmarshal(value, &v)
	if s, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Sprintf("%v at byte %d", s, s.Offset)
	}
	return fmt.Sprint(err)
}

// clean makes a text safe for a protobuf string and a text column: valid UTF-8
// without NUL, at most limit bytes.
func clean(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit]
	}
	s = strings.ToValidUTF8(s, "")
	return strings.ReplaceAll(s, "\x00", "\uFFFD")
}

// stack returns the calling goroutine's stack, cut to a bounded size.
func stack() string {
	buf := make([]byte, maxStackBytes)
	return string(buf[:runtime.Stack(buf, false)])
}

// outcomeSize returns the approximate size of an outcome on the wire.
func outcomeSize(o *pluginv1.Outcome) int {
	const frame = 32
	n := frame + len(o.GetResult()) + len(o.GetMetadata())
	if f := o.GetFailure(); f != nil {
		n += frame + len(f.GetMessage()) + len(f.GetContext())
	}
	return n
}
