package core

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/auth"
	"github.com/tasker-systems/tasker-host/host/internal/backend"
	"github.com/tasker-systems/tasker-host/host/internal/pgmq"
	"github.com/tasker-systems/tasker-host/host/internal/telemetry"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
)

// startAPI builds the backend from the parts that are running, and opens the listeners.
func (c *Core) startAPI(ctx context.Context) error {
	if c.opts.NoAPI {
		return nil
	}
	tokens := auth.NewTokens(c.Store, c.cfg.Auth.TokenRefresh, time.Now)
	access, err := newAccess(&c.cfg.Auth, tokens)
	if err != nil {
		return err
	}
	c.answers = backend.New(backend.Parts{
		Store: c.Store, Engine: c.Engine, Repairs: c.Engine, Pulse: c.Engine, Plugins: c.plugins, State: c.state, Health: c.health, Now: time.Now,
		Pools:   c.poolFindings,
		Refused: c.refused, Bearers: tokens, Events: c.events,
	}, c.backendConfig(c.cfg))
	var metrics http.Handler
	if c.cfg.Telemetry.Metrics {
		metrics = telemetry.Handler(c.registry, c.log.Named("metrics"))
	}
	server, err := api.New(api.Config{
		Socket: c.cfg.System.Socket, TCP: c.cfg.System.HTTPListen, MaxPayload: int64(c.cfg.System.MaxContextBytes),
		Tracer: c.tracer(),
		TLS:    api.TLSFiles{Cert: c.cfg.Auth.TLS.CertFile, Key: c.cfg.Auth.TLS.KeyFile}, Access: access,
	}, c.served(), metrics, c.log.Named("api"))
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

// served returns everything the API needs from the host.
func (c *Core) served() api.Backend {
	all := c.answers.All()
	all.Configuration = c.reloader
	all.Operation, all.Breakers = controlAPI{c}, controlAPI{c}
	all.PluginViews, all.PluginChanges = pluginAPI{c}, pluginAPI{c}
	all.Pools, all.PoolRecords = poolAPI{c}, poolAPI{c}
	return all
}

// backendConfig returns the part of a configuration that concerns the backend.
func (c *Core) backendConfig(cfg *config.Config) backend.Config {
	var reserved []string
	for _, inbox := range []string{cfg.Orchestration.TaskRequestsQueue, cfg.Orchestration.StepResultsQueue} {
		if namespace := pgmq.NamespaceOf(inbox); pgmq.QueueOf(namespace) == inbox {
			reserved = append(reserved, namespace)
		}
	}
	return backend.Config{
		Heartbeat: cfg.Orchestration.Heartbeat,
		Templates: workflow.Limits{MaxSteps: cfg.Engine.MaxSteps},
		Reserved:  reserved,
	}
}

// newAccess returns the rules for who may connect over TCP.
func newAccess(cfg *config.Auth, tokens *auth.Tokens) (api.Access, error) {
	a := api.Access{Requests: auth.NewLimiter(cfg.RequestsPerSecond, cfg.Burst, time.Now)}
	if !cfg.Enabled {
		return a, nil
	}
	bearers := auth.Any{Tokens: tokens}
	if j := &cfg.JWT; j.Issuer != "" {
		provider, err := auth.NewJWT(auth.JWTConfig{
			Issuer: j.Issuer, Audience: j.Audience, KeysURL: j.KeysURL, KeysFile: j.KeysFile, KeysRefresh: j.KeysRefresh,
			Algorithms: j.AlgorithmList(), ClockSkew: j.ClockSkew, PermissionsClaim: j.PermissionsClaim,
		}, time.Now)
		if err != nil {
			return a, err
		}
		bearers.JWT = provider
	}
	a.Bearers = bearers
	return a, nil
}

func (c *Core) stopAPI(ctx context.Context) error {
	if c.api == nil {
		return nil
	}
	return c.api.Stop(ctx)
}

// refused returns the plugins that are not allowed to run.
func (c *Core) refused() []backend.Refusal {
	if c.watch == nil {
		return nil
	}
	var all []backend.Refusal
	status := c.watch.Status()
	for _, s := range status.Refused {
		all = append(all, backend.Refusal{Kind: s.Kind, Name: s.Name, SHA256: s.File.SHA256, Message: s.Err.Error()})
	}
	for _, f := range status.Failed {
		all = append(all, backend.Refusal{Kind: f.Kind, Name: f.Name, SHA256: f.To, Message: f.Err.Error()})
	}
	return all
}

// apiFailed returns a channel that receives the error if the API ends on its own.
func (c *Core) apiFailed() <-chan error {
	if c.api == nil {
		return nil
	}
	return c.api.Failed()
}
