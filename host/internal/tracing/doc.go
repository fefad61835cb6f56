// Package tracing makes the tracer that follows tasks from their submission to
// their end, and sends what it saw to a collector of OpenTelemetry (OTLP over
// HTTP). Core makes one [Traces] if an endpoint is configured and none
// otherwise; who gets no tracer does nothing and pays nothing. There are no
// globals.
//
// A collector that does not answer costs spans, never work: spans wait in a
// bounded queue, what does not fit is dropped, and failures are logged and
// counted.
package tracing
