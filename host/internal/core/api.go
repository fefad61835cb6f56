package core

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/backend"
	"github.com/tasker-systems/tasker-host/host/internal/telemetry"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
)

// startAPI makes the backend of the parts that run, and opens the listeners.
func (c *Core) startAPI(ctx context.Context) error {
	if c.opts.NoAPI {
		return nil
	}
	var required []string
	for _, p := range c.opts.Plugins {
		if p.Required {
			required = append(required, p.Name)
		}
	}
	answers := backend.New(backend.Parts{
		Store: c.Store, Engine: c.Engine, Pulse: c.Engine, Plugins: c.plugins, State: c.state, Now: time.Now,
	}, backend.Config{
		Heartbeat: c.cfg.Orchestration.Heartbeat, Required: required,
		Templates: workflow.Limits{MaxSteps: c.cfg.Engine.MaxSteps},
	})
	var metrics http.Handler
	if c.cfg.Telemetry.Metrics {
		metrics = telemetry.Handler(c.registry, c.log.Named("metrics"))
	}
	server, err := api.New(api.Config{
		Socket: c.cfg.System.Socket, TCP: c.cfg.System.HTTPListen, MaxPayload: int64(c.cfg.System.MaxContextBytes),
	}, answers.All(), metrics, c.log.Named("api"))
	if err != nil {
		return err
	}
	if err := server.Start(ctx); err != nil {
		return err
	}
	c.api = server
	for _, a := range server.Addresses() {
		c.log.Info("the API listens", "address", fmt.Sprintf("%s:%s", a.Network(), a))
	}
	return nil
}

func (c *Core) stopAPI(ctx context.Context) error {
	if c.api == nil {
		return nil
	}
	return c.api.Stop(ctx)
}

// apiFailed receives the error with which the API ends by itself.
func (c *Core) apiFailed() <-chan error {
	if c.api == nil {
		return nil
	}
	return c.api.Failed()
}
