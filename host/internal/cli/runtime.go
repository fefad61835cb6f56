package cli

import (
	"context"
	"io"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// Runtime holds what needs the core. A command whose function is nil does not
// exist.
type Runtime struct {
	// Up runs a host in the foreground until ctx ends; then it stops in good
	// order and returns nil.
	Up func(ctx context.Context, o UpOptions) error
	// Migrate brings the database's schema up to date, or only says where it
	// stands.
	Migrate func(ctx context.Context, o MigrateOptions) (readmodel.MigrationReport, error)
	// Doctor checks what can be checked without a running host.
	Doctor func(ctx context.Context, c config.Options) readmodel.DoctorReport
	// Bench measures on a host of its own.
	Bench func(ctx context.Context, o BenchOptions) (readmodel.BenchReport, error)
	// OpenAPI describes the HTTP API.
	OpenAPI func() ([]byte, error)
	// Demo starts a host with the example plugins and templates.
	Demo func(ctx context.Context, c config.Options) (*DemoHost, error)
}

// UpOptions are those of the command up.
type UpOptions struct {
	Config config.Options
	// Abort is closed at the second signal: stop now, cancel what runs.
	Abort <-chan struct{}
	// Log is where the host's log goes.
	Log io.Writer
}

// MigrateOptions are those of the command migrate.
type MigrateOptions struct {
	Config config.Options
	Status bool // change nothing
}

// BenchOptions are those of the command bench.
type BenchOptions struct {
	Config   config.Options
	Shape    string // what to measure, such as linear
	Tasks    int
	Progress func(phase string, done, total int) // nil: nobody looks
}

// DemoHost is a running host and the tasks that the demo submits to it.
type DemoHost struct {
	About       string // what was started, in one line
	Socket      string
	Submissions []client.Submission
	Stop        func(ctx context.Context) error
}
