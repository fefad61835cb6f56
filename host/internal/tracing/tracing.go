package tracing

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Config says where traces are sent and how many.
type Config struct {
	Endpoint    string            // of the collector, such as http://localhost:4318
	Headers     map[string]string // for every request to it; may be secret
	SampleRatio float64           // share of the tasks that are followed; a client's decision takes precedence

	// Attributes of all spans.
	Version, Environment, Host string
}

// Traces creates spans and sends them. It runs from New until Stop.
type Traces struct {
	provider *sdktrace.TracerProvider
	ratio    atomic.Pointer[sdktrace.Sampler]
}

const (
	exportTimeout = 5 * time.Second
	scope         = "github.com/tasker-systems/tasker-host"
)

// New returns traces to a collector, which need not be reachable yet. The caller must
// call Stop.
func New(ctx context.Context, cfg Config, reg prometheus.Registerer, log hclog.Logger) (*Traces, error) {
	endpoint := strings.TrimSuffix(cfg.Endpoint, "/")
	if !strings.HasSuffix(endpoint, "/v1/traces") {
		endpoint += "/v1/traces"
	}
	out, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(endpoint), otlptracehttp.WithHeaders(cfg.Headers),
		otlptracehttp.WithTimeout(exportTimeout), otlptracehttp.WithRetry(otlptracehttp.RetryConfig{}))
	if err != nil {
		return nil, fmt.Errorf("send traces to %s: %w", cfg.Endpoint, err)
	}
	t := &Traces{}
	t.Sample(cfg.SampleRatio)
	t.provider = sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(newCounted(out, reg, log), sdktrace.WithBatchTimeout(time.Second)),
		sdktrace.WithSampler(sdktrace.ParentBased(t)),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "tasker"), attribute.String("service.version", cfg.Version),
			attribute.String("service.instance.id", cfg.Host), attribute.String("deployment.environment.name", cfg.Environment),
		)),
	)
	return t, nil
}

// Tracer returns the tracer of the host's parts.
func (t *Traces) Tracer() trace.Tracer { return t.provider.Tracer(scope) }

// Sample changes the share of tasks that are followed, for future tasks.
func (t *Traces) Sample(ratio float64) {
	sampler := sdktrace.TraceIDRatioBased(ratio)
	t.ratio.Store(&sampler)
}

// ShouldSample implements [sdktrace.Sampler].
func (t *Traces) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	return (*t.ratio.Load()).ShouldSample(p)
}

// Description implements [sdktrace.Sampler].
func (t *Traces) Description() string { return "share of tasks" }

// Stop sends the remaining spans, as long as ctx allows.
func (t *Traces) Stop(ctx context.Context) error {
	if err := t.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("send the last traces: %w", err)
	}
	return nil
}

// counted is an exporter that counts and logs its failures and continues.
type counted struct {
	sdktrace.SpanExporter
	spans *prometheus.CounterVec
	log   hclog.Logger
	down  bool // the last call failed; the processor makes one call at a time
}

var (
	_ sdktrace.SpanExporter = (*counted)(nil)
	_ sdktrace.Sampler      = (*Traces)(nil)
)

func newCounted(out sdktrace.SpanExporter, reg prometheus.Registerer, log hclog.Logger) *counted {
	return &counted{SpanExporter: out, spans: Metrics(reg), log: log}
}

// Metrics registers the metrics of spans.
func Metrics(reg prometheus.Registerer) *prometheus.CounterVec {
	spans := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tasker_trace_spans_total", Help: "Spans sent to the trace collector, by outcome.",
	}, []string{"outcome"})
	for _, outcome := range []string{"sent", "failed"} {
		spans.WithLabelValues(outcome)
	}
	reg.MustRegister(spans)
	return spans
}

// ExportSpans sends spans. A failure is logged only here, and once for several in a row.
func (c *counted) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := c.SpanExporter.ExportSpans(ctx, spans)
	if err != nil {
		c.spans.WithLabelValues("failed").Add(float64(len(spans)))
		if !c.down {
			c.log.Warn("traces cannot be sent; spans are lost until the collector answers", "error", err)
		}
	} else {
		c.spans.WithLabelValues("sent").Add(float64(len(spans)))
		if c.down {
			c.log.Info("traces are sent again")
		}
	}
	c.down = err != nil
	return nil
}
