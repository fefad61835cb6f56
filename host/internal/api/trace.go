package api

import (
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// traced is the middleware that creates a span for every request that may change
// something, as part of the trace that its traceparent names. Read-only requests are not
// traced: watchers and probes would bury the rest.
func traced(tracer trace.Tracer) func(ctx huma.Context, next func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		op := ctx.Operation()
		if op.Method == http.MethodGet {
			next(ctx)
			return
		}
		parent := propagation.TraceContext{}.Extract(ctx.Context(), propagation.MapCarrier{"traceparent": ctx.Header("traceparent")})
		inner, span := tracer.Start(parent, op.OperationID, trace.WithSpanKind(trace.SpanKindServer),
			trace.WithAttributes(attribute.String("http.request.method", op.Method), attribute.String("http.route", op.Path)))
		defer span.End()
		next(huma.WithContext(ctx, inner))
		span.SetAttributes(attribute.Int("http.response.status_code", ctx.Status()))
		if ctx.Status() >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, http.StatusText(ctx.Status()))
		}
	}
}
