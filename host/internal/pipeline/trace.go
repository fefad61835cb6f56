package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// A traced task carries the W3C trace context of its creation in its attributes, so that
// whichever host runs its steps adds to one trace. Tasks that are not traced carry
// nothing, and cost nothing.

// traceparent is the name of the W3C header, of the attribute, of the header of queue
// messages and of the key in the step that a plugin receives.
const traceparent = "traceparent"

// traceSubmission begins the span of a task's creation and notes it in the submission.
// The caller must end the span.
func (e *Engine) traceSubmission(ctx context.Context, s *Submission) trace.Span {
	if e.cfg.Tracer == nil {
		return trace.SpanFromContext(context.Background())
	}
	ctx, span := e.cfg.Tracer.Start(ctx, "create task", trace.WithAttributes(
		attribute.String("tasker.namespace", s.Namespace), attribute.String("tasker.task", s.Name), attribute.String("tasker.version", s.Version)))
	if span.SpanContext().IsSampled() {
		s.trace = inject(ctx)
		s.Attributes = withTrace(s.Attributes, s.trace)
	}
	return span
}

// traceCreated ends the span of a creation.
func traceCreated(span trace.Span, done Submitted, err error) {
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	} else {
		span.SetAttributes(attribute.String("tasker.task_uuid", done.Task.String()), attribute.Bool("tasker.created", done.Created))
	}
	span.End()
}

// withTrace adds the trace to attributes, a JSON object or nothing.
func withTrace(attributes json.RawMessage, value string) json.RawMessage {
	entry := `"` + traceparent + `":"` + value + `"}` // hexadecimal digits and dashes
	if inner := bytes.TrimSpace(attributes); len(inner) > 2 {
		return json.RawMessage(string(inner[:len(inner)-1]) + "," + entry)
	}
	return json.RawMessage("{" + entry)
}

// traceStep begins the span of an attempt of a traced task, and returns what the plugin
// is told of it.
func (e *Engine) traceStep(a *attempt, parent string) map[string]string {
	if e.cfg.Tracer == nil || parent == "" {
		return nil
	}
	a.trace = parent
	s := &a.plan.Steps[a.Number]
	ctx, span := e.cfg.Tracer.Start(extract(parent), "step "+s.Name, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("tasker.task_uuid", a.Task.String()), attribute.String("tasker.step_uuid", a.UUID().String()),
		attribute.String("tasker.step", s.Name), attribute.String("tasker.handler", s.Handler), attribute.Int("tasker.attempt", int(a.Attempt))))
	a.span = span
	return map[string]string{traceparent: inject(ctx)}
}

// traceOutcome notes the outcome of an attempt; its span ends when the outcome is
// recorded.
func traceOutcome(a *attempt, o pluginhost.Outcome) {
	if a.span == nil {
		return
	}
	a.span.SetAttributes(attribute.String("tasker.outcome", string(o.Kind)), attribute.Int64("tasker.generation", int64(o.Generation)))
	a.span.AddEvent("answered")
	if o.Kind != vocab.OutcomeSuccess && o.Failure != nil {
		a.span.SetStatus(codes.Error, string(o.Failure.Type)+" "+o.Failure.Code)
	}
}

// traceSettled ends the spans of a batch, and adds those of the tasks that it finished.
func (e *Engine) traceSettled(batch []settlement, out store.Settled) {
	if e.cfg.Tracer == nil {
		return
	}
	parents := map[vocab.UUID]string{}
	for i := range batch {
		a := batch[i].attempt
		if a == nil || a.span == nil {
			continue
		}
		a.span.SetAttributes(attribute.String("tasker.verdict", string(out.Verdicts[i])))
		a.span.End()
		parents[a.Task] = a.trace
	}
	for _, f := range out.Finished {
		if parent := parents[f.UUID]; parent != "" {
			e.traceFinished(parent, f.UUID, f.State)
		}
	}
}

func (e *Engine) traceFinished(parent string, task vocab.UUID, state vocab.TaskState) {
	_, span := e.cfg.Tracer.Start(extract(parent), "finish task", trace.WithTimestamp(time.Now()), trace.WithAttributes(
		attribute.String("tasker.task_uuid", task.String()), attribute.String("tasker.state", string(state))))
	if state != vocab.TaskComplete {
		span.SetStatus(codes.Error, string(state))
	}
	span.End()
}

// traceLost ends the span of an attempt whose outcome is not recorded.
func traceLost(a *attempt, err error) {
	if a.span != nil {
		a.span.SetStatus(codes.Error, "not recorded: "+err.Error())
		a.span.End()
	}
}

// inject encodes the trace of a context.
func inject(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier[traceparent]
}

// extract decodes what inject, or another program, encoded; invalid input yields no
// trace.
func extract(parent string) context.Context {
	return propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{traceparent: parent})
}

// headerTrace returns the trace in the headers of a message.
func headerTrace(headers json.RawMessage) string {
	var h struct {
		Traceparent string `json:"traceparent"`
	}
	if len(headers) == 0 || json.Unmarshal(headers, &h) != nil {
		return ""
	}
	return h.Traceparent
}
