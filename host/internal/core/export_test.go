package core

import (
	"context"
	"errors"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/store"
)

// Registered returns a registry with everything that a host registers, without starting
// anything.
func Registered(cfg *config.Config, plugins ...config.PluginSpec) (*prometheus.Registry, error) {
	c := New(Options{Config: cfg, Plugins: plugins, Log: hclog.NewNullLogger()})
	c.Store = store.New(nil)
	cfg.Telemetry.Traces.Endpoint = "http://localhost:4318" // never contacted
	if err := c.startTraces(context.Background()); err != nil {
		return nil, err
	}
	c.buildEvents()
	return c.registry, errors.Join(c.buildEngine(), c.buildHealth())
}
