package backend

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/opstate"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// Plugins implements [api.System].
func (b *Backend) Plugins(context.Context) ([]readmodel.Plugin, error) {
	status := b.Parts.Plugins.Status()
	plugins := make([]readmodel.Plugin, len(status))
	for i := range status {
		plugins[i] = PluginOf(&status[i])
	}
	if b.Refused == nil {
		return plugins, nil
	}
	for _, no := range b.Refused() {
		p := readmodel.Plugin{Kind: no.Kind, Name: no.Name, State: readmodel.PluginRefused, Artifact: no.SHA256, Message: no.Message}
		if i := slices.IndexFunc(plugins, func(r readmodel.Plugin) bool { return r.Kind == p.Kind && r.Name == p.Name }); i < 0 {
			plugins = append(plugins, p)
		} else {
			plugins[i].Message = "the binary that plugins.toml names now is refused: " + p.Message
		}
	}
	slices.SortFunc(plugins, func(a, b readmodel.Plugin) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return plugins, nil
}

// PluginOf converts a plugin's status.
func PluginOf(s *pluginhost.Status) readmodel.Plugin {
	p := readmodel.Plugin{
		Kind: s.Kind, Name: s.Name, Version: s.Version, Artifact: s.SHA256,
		Generation: int64(s.Generation),
		PID:        s.PID, State: string(s.State), Restarts: s.Restarts, InFlight: s.InFlight,
		Next:   int64(s.Next),
		Limits: s.Limits, Serves: s.Others,
	}
	if !s.Since.IsZero() {
		p.Since = new(s.Since.UTC())
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

// Live implements [api.Health].
func (b *Backend) Live(context.Context) readmodel.Health {
	state := b.State.State()
	h := readmodel.Health{Status: readmodel.HealthOK, State: string(state)}
	loops := b.loopHealth()
	if !state.Live() || !loops.OK {
		h.Status, h.Checks = readmodel.HealthUnavailable, []readmodel.HealthCheck{loops}
	}
	return h
}

// Started implements [api.Health].
func (b *Backend) Started(context.Context) readmodel.Health {
	state := b.State.State()
	h := readmodel.Health{Status: readmodel.HealthOK, State: string(state)}
	if state == opstate.Startup || state == opstate.Stopped {
		h.Status = readmodel.HealthUnavailable
	}
	return h
}

// loopHealth is good while every loop of the engine is running. A loop that is not hangs
// for ever, so the process should be restarted.
func (b *Backend) loopHealth() readmodel.HealthCheck {
	for _, l := range b.Pulse.Loops() {
		if l.Stuck > 0 {
			return readmodel.HealthCheck{Name: "loops", Message: fmt.Sprintf("the %s loop is overdue by %s", l.Name, l.Stuck.Round(time.Second))}
		}
	}
	return readmodel.HealthCheck{Name: "loops", OK: true}
}

// HealthReport implements [api.Health].
func (b *Backend) HealthReport(context.Context) readmodel.HealthReport {
	r := b.Health.Report()
	out := readmodel.HealthReport{Status: string(r.Status), State: string(r.State), Items: []readmodel.HealthItem{}, Events: []readmodel.HealthEvent{}}
	if !r.At.IsZero() {
		out.At = new(r.At.UTC())
	}
	for _, i := range r.Items {
		out.Items = append(out.Items, readmodel.HealthItem{
			Name: i.Name, Status: string(i.Status), Message: i.Message, Since: i.Since.UTC(), Expected: i.Expected,
		})
	}
	for _, e := range b.Health.Events(shownHealthEvents) {
		out.Events = append(out.Events, readmodel.HealthEvent{
			At: e.At.UTC(), Check: e.Check, From: string(e.From), To: string(e.To), Severity: string(e.Severity), State: string(e.State), Message: e.Message,
		})
	}
	return out
}

// shownHealthEvents is how many of the last events a report shows.
const shownHealthEvents = 20

// Ready implements [api.Health]. It makes no calls: a probe must be cheap and must not
// wait.
func (b *Backend) Ready(context.Context) readmodel.Health {
	state := b.State.State()
	h := readmodel.Health{
		Status: readmodel.HealthOK, State: string(state),
		Checks: []readmodel.HealthCheck{
			{Name: "state", OK: state.Ready(), Message: "the operational state is " + string(state)},
			b.databaseHealth(),
			b.pluginHealth(),
			b.loopHealth(),
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

// databaseHealth is good while heartbeats are answered. The last answer is never older
// than an interval plus the time that an answer takes, for which another interval is
// allowed.
func (b *Backend) databaseHealth() readmodel.HealthCheck {
	age := b.Now().Sub(b.Pulse.LastHeartbeat())
	return readmodel.HealthCheck{
		Name: "database", OK: age <= 2*max(b.cfg.Load().Heartbeat, b.Pulse.BeatEvery()),
		Message: fmt.Sprintf("the database has not answered a heartbeat for %s", age.Round(100*time.Millisecond)),
	}
}

// pluginHealth is good while every required plugin serves.
func (b *Backend) pluginHealth() readmodel.HealthCheck {
	for _, s := range b.Parts.Plugins.Status() {
		if s.Required && s.State != pluginhost.Serving {
			return readmodel.HealthCheck{Name: "plugins", Message: fmt.Sprintf("required plugin %s is %s", s.Name, s.State)}
		}
	}
	return readmodel.HealthCheck{Name: "plugins", OK: true}
}
