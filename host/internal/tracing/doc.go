// Package tracing provides the tracer that follows tasks from submission to end, and
// sends the spans to an OpenTelemetry collector (OTLP over HTTP). Core creates one
// [Traces] if an endpoint is configured, and none otherwise; parts without a tracer do
// nothing and pay nothing. There are no globals.
//
// If the collector does not answer, spans are lost, but work is never held up: spans wait
// in a bounded queue, those that do not fit are dropped, and failures are logged and
// counted.
package tracing
