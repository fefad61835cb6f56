package backend

import (
	"context"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/opstate"
	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Engine moves tasks. TemplatesChanged tells it that a template was added.
type Engine interface {
	Submit(ctx context.Context, s pipeline.Submission) (pipeline.Submitted, error)
	Cancel(ctx context.Context, task vocab.UUID, reason string) (vocab.TaskState, bool, error)
	Ended(task vocab.UUID) (ended <-chan vocab.TaskState, stop func())
	TemplatesChanged(ctx context.Context) error
}

// Pulse tells when the database last answered the host's heartbeat.
type Pulse interface {
	LastHeartbeat() time.Time
}

// Plugins tells what the plugins do.
type Plugins interface {
	Status() []pluginhost.Status
}

// State tells the host's operational state.
type State interface {
	State() opstate.State
}

var (
	_ Engine  = (*pipeline.Engine)(nil)
	_ Pulse   = (*pipeline.Engine)(nil)
	_ Plugins = (*pluginhost.Host)(nil)
	_ State   = (*opstate.Machine)(nil)

	_ api.Tasks       = (*Backend)(nil)
	_ api.TaskDetails = (*Backend)(nil)
	_ api.Templates   = (*Backend)(nil)
	_ api.System      = (*Backend)(nil)
)

// Parts are what a backend is made of. All must be set.
type Parts struct {
	Store   *store.Store
	Engine  Engine
	Pulse   Pulse
	Plugins Plugins
	State   State
	Now     func() time.Time
}

// Config are a backend's settings.
type Config struct {
	Heartbeat time.Duration   // interval of the host's heartbeats
	Required  []string        // names of the plugins without which the host is not ready
	Templates workflow.Limits // what templates may ask for
}

// Backend implements all that the API asks for. Safe for concurrent use.
type Backend struct {
	Parts
	cfg Config
}

// New returns a backend of parts that run.
func New(parts Parts, cfg Config) *Backend { return &Backend{Parts: parts, cfg: cfg} }

// All returns the backend in every role.
func (b *Backend) All() api.Backend {
	return api.Backend{Tasks: b, Details: b, Templates: b, System: b}
}
