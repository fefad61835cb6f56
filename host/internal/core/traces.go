package core

import (
	"context"

	"go.opentelemetry.io/otel/trace"

	"github.com/tasker-systems/tasker-host/host/internal/tracing"
)

// startTraces creates the tracer, if a collector is configured.
func (c *Core) startTraces(ctx context.Context) (err error) {
	t := c.cfg.Telemetry.Traces
	if t.Endpoint == "" {
		return nil
	}
	c.traces, err = tracing.New(ctx, tracing.Config{
		Endpoint: t.Endpoint, Headers: t.HeaderMap(), SampleRatio: t.SampleRatio,
		Version: c.build.Version, Environment: c.cfg.Environment, Host: hostName(),
	}, c.registry, c.log.Named("traces"))
	return err
}

// stopTraces sends the remaining spans. If the collector does not answer, the last spans
// are lost, but the host still stops cleanly.
func (c *Core) stopTraces(ctx context.Context) error {
	if c.traces == nil {
		return nil
	}
	if err := c.traces.Stop(ctx); err != nil {
		c.log.Warn("the last traces are lost", "error", err)
	}
	return nil
}

// tracer returns the tracer, or nil if tracing is off.
func (c *Core) tracer() trace.Tracer {
	if c.traces == nil {
		return nil
	}
	return c.traces.Tracer()
}
