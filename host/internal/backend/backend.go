package backend

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/health"
	"github.com/tasker-systems/tasker-host/host/internal/opstate"
	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Submitter creates tasks.
type Submitter interface {
	Submit(ctx context.Context, s pipeline.Submission) (pipeline.Submitted, error)
	SubmitEach(ctx context.Context, all []pipeline.Submission) []pipeline.Answer
}

// Engine moves tasks. TemplatesChanged tells it that a template was added.
type Engine interface {
	Submitter
	Cancel(ctx context.Context, task vocab.UUID, o store.Operator) (vocab.TaskState, bool, error)
	Ended(task vocab.UUID) (ended <-chan vocab.TaskState, stop func())
	Progress(task vocab.UUID) []pipeline.StepProgress
	TemplatesChanged(ctx context.Context) error
}

// Pulse tells when the database last answered the host's heartbeat, and whether the
// engine's loops are running.
type Pulse interface {
	LastHeartbeat() time.Time
	BeatEvery() time.Duration // the longest time between two heartbeats at present
	Loops() []pipeline.Loop
}

// Repairs is told what operators have changed. HostID is the number that identifies this
// host in the history.
type Repairs interface {
	HostID() int32
	Repaired(task vocab.UUID, state vocab.TaskState)
	QueueResumed()
}

// Plugins reports the state of the plugins.
type Plugins interface {
	Status() []pluginhost.Status
}

// Health reports what the host's checks found.
type Health interface {
	Report() health.Report
	Events(most int) []health.Event
}

// State reports the host's operational state.
type State interface {
	State() opstate.State
}

var (
	_ Engine  = (*pipeline.Engine)(nil)
	_ Pulse   = (*pipeline.Engine)(nil)
	_ Repairs = (*pipeline.Engine)(nil)
	_ Plugins = (*pluginhost.Host)(nil)
	_ State   = (*opstate.Machine)(nil)
	_ Health  = (*health.Monitor)(nil)

	_ api.Tasks       = (*Backend)(nil)
	_ api.TaskDetails = (*Backend)(nil)
	_ api.Templates   = (*Backend)(nil)
	_ api.Repair      = (*Backend)(nil)
	_ api.Letters     = (*Backend)(nil)
	_ api.Fleet       = (*Backend)(nil)
	_ api.Explain     = (*Backend)(nil)
	_ api.System      = (*Backend)(nil)
	_ api.Health      = (*Backend)(nil)
	_ api.Tokens      = (*Backend)(nil)
	_ api.Audit       = (*Backend)(nil)
	_ api.Events      = (*Backend)(nil)
)

// Parts are the parts of a backend. All of them must be set, except Refused.
type Parts struct {
	// Refused returns the plugins that may not run; nil: there are none.
	Refused func() []Refusal
	Store   *store.Store
	Engine  Engine
	Pulse   Pulse
	Repairs Repairs
	Plugins Plugins
	State   State
	Health  Health
	// Pools returns the current findings about the pools of executors.
	Pools   func() []health.Named
	Bearers Bearers
	Events  Events
	Now     func() time.Time
}

// Refusal is a plugin whose binary may not run.
type Refusal struct {
	Kind, Name string
	SHA256     string // of the binary; empty: it could not be read
	Message    string // why, and what to do
}

// Config are a backend's settings.
type Config struct {
	Heartbeat time.Duration   // interval of the host's heartbeats
	Templates workflow.Limits // what templates may ask for
	Reserved  []string        // namespaces whose queues would be the host's own
}

// Backend implements everything that the API asks for. It is safe for concurrent use.
type Backend struct {
	Parts
	cfg atomic.Pointer[Config]
}

// New returns a backend of parts that are running.
func New(parts Parts, cfg Config) *Backend {
	b := &Backend{Parts: parts}
	b.cfg.Store(&cfg)
	return b
}

// Reload puts other settings in force, for requests that arrive from now on.
func (b *Backend) Reload(cfg Config) { b.cfg.Store(&cfg) }

// All returns the backend in every role.
func (b *Backend) All() api.Backend {
	return api.Backend{Tasks: b, Details: b, Templates: b, Repair: b, Letters: b, Explain: b, Fleet: b, System: b, Health: b, Tokens: b, Audit: b, Events: b}
}
