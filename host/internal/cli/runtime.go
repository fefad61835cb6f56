package cli

import (
	"context"
	"io"
	"os"
	"time"

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
	// Migrate brings the database's schema up to date, or only reports its state.
	Migrate func(ctx context.Context, o MigrateOptions) (readmodel.MigrationReport, error)
	// Doctor checks what can be checked without a running host.
	Doctor func(ctx context.Context, c config.Options) readmodel.DoctorReport
	// Bench measures on a separate host.
	Bench func(ctx context.Context, o BenchOptions) (readmodel.BenchReport, error)
	// BenchWorker runs a worker process of the benchmark until ctx ends.
	BenchWorker func(ctx context.Context, o BenchWorkerOptions) error
	// OpenAPI describes the HTTP API.
	OpenAPI func() ([]byte, error)
	// Demo starts a host with the example plugins and templates.
	Demo func(ctx context.Context, c config.Options) (*DemoHost, error)
	// CheckWorker judges an outside worker on a separate host.
	CheckWorker func(ctx context.Context, o WorkerCheckOptions) (readmodel.WorkerReport, error)
}

// WorkerCheckOptions are the options of the command worker check.
type WorkerCheckOptions struct {
	Config   config.Options
	Command  []string
	Progress func(check string) // receives the name of the next check
	Patience time.Duration      // how long the worker may take for what it should do at once
}

// UpOptions are the options of the command up.
type UpOptions struct {
	Config config.Options
	// Abort is closed at the second signal: stop now, cancel what runs.
	Abort <-chan struct{}
	// Reload receives a signal when the configuration must be read again.
	Reload <-chan os.Signal
	// Log is where the host's log goes.
	Log io.Writer
}

// MigrateOptions are the options of the command migrate.
type MigrateOptions struct {
	Config config.Options
	Status bool // change nothing
}

// BenchOptions are the options of the command bench. If the number of tasks or the
// window is zero, the workload decides.
type BenchOptions struct {
	Config   config.Options
	Workload string                              // what to measure, such as linear
	Progress func(phase string, done, total int) // nil: not shown

	Tasks, Window, Repeats, Samples, Width int
	Namespaces, History, Workers, Hosts    int
	Claim                                  int    // steps that each worker takes at once
	Way                                    string // how it takes and settles them
	Payload                                int    // bytes
	Share                                  float64
	Duration, FlushDelay                   time.Duration
	InProcess, Force                       bool
	Profile                                string // the directory for profiles; empty: none
}

// BenchWorkerOptions say how a worker process of the benchmark works.
type BenchWorkerOptions struct {
	Claim   int    // steps that it takes at once
	Way     string // how it takes and settles them
	Results string // the queue on which it posts results
}

// DemoHost is a running host and the tasks that the demo submits to it.
type DemoHost struct {
	About       string // what was started, in one line
	Socket      string
	Submissions []client.Submission
	Swap        *DemoSwap // nil: nothing is swapped
	Stop        func(ctx context.Context) error
}

// DemoSwap is the part of the demo in which a plugin is swapped under load.
type DemoSwap struct {
	Plugin string            // what is replaced by what, in words
	Task   client.Submission // the load
	// Run swaps the plugin by putting another binary in its place.
	Run func(ctx context.Context) error
	// Generations says which generations ran the steps of tasks.
	Generations func(ctx context.Context, tasks []string) ([]DemoGeneration, error)
}

// DemoGeneration is a plugin process that ran steps.
type DemoGeneration struct {
	Generation int64  `json:"generation"`
	Version    string `json:"version"`
	Phase      string `json:"phase"`
	Steps      int    `json:"steps"`
}
