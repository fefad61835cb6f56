package backend

import (
	"context"
	"fmt"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// Plugins implements [api.System].
func (b *Backend) Plugins(context.Context) ([]readmodel.Plugin, error) {
	status := b.Parts.Plugins.Status()
	plugins := make([]readmodel.Plugin, len(status))
	for i := range status {
		plugins[i] = pluginOf(&status[i])
	}
	return plugins, nil
}

func pluginOf(s *pluginhost.Status) readmodel.Plugin {
	p := readmodel.Plugin{
		Kind: s.Kind, Name: s.Name, Version: s.Version, Artifact: s.SHA256,
		Generation: int64(s.Generation), //nolint:gosec // from a bigint sequence
		PID:        s.PID, State: string(s.State), Restarts: s.Restarts,
	}
	if !s.StartedAt.IsZero() {
		p.StartedAt = new(s.StartedAt.UTC())
	}
	if s.State != pluginhost.Serving {
		p.Message = s.LastError
	}
	for _, name := range s.Handlers {
		p.Handlers = append(p.Handlers, readmodel.Handler{Name: name})
	}
	return p
}

// Live implements [api.System].
func (b *Backend) Live(context.Context) readmodel.Health {
	state := b.State.State()
	h := readmodel.Health{Status: readmodel.HealthOK, State: string(state)}
	if !state.Live() {
		h.Status = readmodel.HealthUnavailable
	}
	return h
}

// Ready implements [api.System]. It asks nobody: a probe must be cheap and must
// not wait.
func (b *Backend) Ready(context.Context) readmodel.Health {
	state := b.State.State()
	h := readmodel.Health{
		Status: readmodel.HealthOK, State: string(state),
		Checks: []readmodel.HealthCheck{
			{Name: "state", OK: state.Ready(), Message: "the operational state is " + string(state)},
			b.databaseHealth(),
			b.pluginHealth(),
		},
	}
	for i := range h.Checks {
		if c := &h.Checks[i]; c.OK {
			c.Message = ""
		} else {
			h.Status = readmodel.HealthUnavailable
		}
	}
	return h
}

// databaseHealth is good while heartbeats are answered: the last one is never
// older than an interval and the time that an answer takes, for which another
// interval is allowed.
func (b *Backend) databaseHealth() readmodel.HealthCheck {
	age := b.Now().Sub(b.Pulse.LastHeartbeat())
	return readmodel.HealthCheck{
		Name: "database", OK: age <= 2*b.cfg.Heartbeat,
		Message: fmt.Sprintf("the database has not answered a heartbeat for %s", age.Round(100*time.Millisecond)),
	}
}

// pluginHealth is good while every required plugin serves.
func (b *Backend) pluginHealth() readmodel.HealthCheck {
	states := map[string]pluginhost.State{}
	for _, s := range b.Parts.Plugins.Status() {
		states[s.Name] = s.State
	}
	for _, name := range b.cfg.Required {
		state, ok := states[name]
		if !ok {
			state = pluginhost.Stopped
		}
		if state != pluginhost.Serving {
			return readmodel.HealthCheck{Name: "plugins", Message: fmt.Sprintf("required plugin %s is %s", name, state)}
		}
	}
	return readmodel.HealthCheck{Name: "plugins", OK: true}
}
