// Package telemetry creates the root logger and the metrics registry. Core creates both
// before everything else and hands out named loggers and the registry; there are no
// globals. The package starts nothing and does not know the other parts.
package telemetry

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// LogOptions configures the root logger.
type LogOptions struct {
	Level  string    // trace, debug, info, warn or error
	Format string    // json, or console for people
	Output io.Writer // nil: standard error
}

// NewLogger returns the root logger. Each component gets its own with Named; keys are
// lower_snake and the same everywhere: task, step, plugin, generation, attempt. Times are
// in UTC.
func NewLogger(opts LogOptions) (hclog.Logger, error) {
	level := hclog.LevelFromString(opts.Level)
	if level == hclog.NoLevel {
		return nil, fmt.Errorf("log level %q is not one of trace, debug, info, warn, error", opts.Level)
	}
	if opts.Format != "json" && opts.Format != "console" {
		return nil, fmt.Errorf("log format %q is not json or console", opts.Format)
	}
	if opts.Output == nil {
		opts.Output = os.Stderr
	}
	return hclog.New(&hclog.LoggerOptions{
		Name:       "tasker",
		Level:      level,
		Output:     opts.Output,
		JSONFormat: opts.Format == "json",
		Color:      hclog.ColorOff,
		TimeFormat: "2006-01-02T15:04:05.000Z07:00",
		TimeFn:     func() time.Time { return time.Now().UTC() },
	}), nil
}

// NewRegistry returns a new metrics registry with the collectors of the process, the Go
// runtime and the build.
func NewRegistry(build Build) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "tasker_build_info",
		Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{
			"version": build.Version, "revision": build.Revision, "go": build.Go,
		},
	})
	info.Set(1)
	registry.MustRegister(
		info,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return registry
}

// Handler serves a registry's metrics in the Prometheus format. A collector that fails is
// logged; the others are still served.
func Handler(registry *prometheus.Registry, log hclog.Logger) http.Handler {
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog:      log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Error}),
		ErrorHandling: promhttp.ContinueOnError,
		Registry:      registry,
	})
}
