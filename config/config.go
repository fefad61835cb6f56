package config

import (
	"time"
)

// Config is the configuration of one host. Load returns it complete and valid;
// nothing changes it afterwards. Ranges stand in the field tags, defaults in
// base/*.toml.
type Config struct {
	Database        Database        `toml:"database"`
	Engine          Engine          `toml:"engine"`
	Orchestration   Orchestration   `toml:"orchestration"`
	PGMQ            PGMQ            `toml:"pgmq"`
	System          System          `toml:"system"`
	Telemetry       Telemetry       `toml:"telemetry"`
	CircuitBreakers CircuitBreakers `toml:"circuit_breakers"`

	// Environment is the name of the environment that was loaded.
	Environment string `toml:"-"`
	// Dir is the operator's directory, empty if there is none.
	Dir string `toml:"-"`
	// Warnings are findings that do not stop a host, for its log.
	Warnings []string `toml:"-"`

	origins map[string]Origin
}

// Database says where PostgreSQL is and how long it may take.
type Database struct {
	// URL is a connection string of PostgreSQL, URL or key=value form. Empty
	// starts a private server. One that contains a password may come from
	// DATABASE_URL, TASKER__DATABASE__URL or URLFile, not from a file or flag.
	URL Secret `toml:"url"`
	// URLFile names a file that contains the connection string.
	URLFile string `toml:"url_file" path:"yes"`
	// MaxConnections is the size of this host's connection pool.
	MaxConnections int `toml:"max_connections" min:"4" max:"1000"`
	// ConnectTimeout bounds the making of one connection.
	ConnectTimeout time.Duration `toml:"connect_timeout" min:"100ms" max:"5m"`
	// StatementTimeout bounds one SQL statement, on the server.
	StatementTimeout time.Duration `toml:"statement_timeout" min:"100ms" max:"5m"`
	// LockTimeout bounds the wait for one lock, on the server.
	LockTimeout time.Duration `toml:"lock_timeout" min:"10ms" max:"5m"`
	// Embedded is the private server that runs when URL is empty.
	Embedded Embedded `toml:"embedded"`
}

// Embedded configures the private PostgreSQL server.
type Embedded struct {
	// StateDir holds the server's data; by default <system.state_dir>/postgres.
	StateDir string `toml:"state_dir" path:"yes"`
	// BinDir holds initdb and postgres; empty: found by itself.
	BinDir string `toml:"bin_dir" path:"yes"`
	// Install lets the host install the distribution's package when it finds
	// no server binaries and may do so.
	Install bool `toml:"install"`
}

// Engine sizes the batches of the hot path.
type Engine struct {
	// SubmitBatch is the most tasks that one statement creates.
	SubmitBatch int `toml:"submit_batch" min:"1" max:"10000"`
	// SettleBatch is the most results that one transaction settles.
	SettleBatch int `toml:"settle_batch" min:"1" max:"10000"`
	// Committers is the number of transactions that settle results at a time.
	Committers int `toml:"committers" min:"1" max:"64"`
	// MaxInFlight is the most steps that this host holds leases on.
	MaxInFlight int `toml:"max_in_flight" min:"1" max:"100000"`
	// MaxSteps is the most steps that a template may have.
	MaxSteps int `toml:"max_steps" min:"1" max:"100000"`
}

// Orchestration times leases, sweeps and shutdown, and names the queues.
type Orchestration struct {
	// Lease is how long a host's claims hold after its last heartbeat.
	Lease time.Duration `toml:"lease" min:"1s" max:"1h"`
	// Heartbeat is the time between two heartbeats of the host.
	Heartbeat time.Duration `toml:"heartbeat" min:"100ms" max:"20m"`
	// DeadHostGrace is how long after the end of its lease a host is taken for
	// dead and its steps are given to others.
	DeadHostGrace time.Duration `toml:"dead_host_grace" min:"0s" max:"1h"`
	// SweepInterval is the time between two sweeps: the bound within which work
	// that lost its wake-up is found again.
	SweepInterval time.Duration `toml:"sweep_interval" min:"50ms" max:"10m"`
	// PollMin is the wait before a queue that had work is read again.
	PollMin time.Duration `toml:"poll_min" min:"1ms" max:"1m"`
	// PollMax is the longest wait between two reads of an idle queue.
	PollMax time.Duration `toml:"poll_max" min:"1ms" max:"1m"`
	// FinalizationClaim is how long a claim for finalization holds.
	FinalizationClaim time.Duration `toml:"finalization_claim" min:"1s" max:"1h"`
	// ClaimCapFactor bounds the claims of a step: factor × max_attempts.
	ClaimCapFactor int `toml:"claim_cap_factor" min:"1" max:"100"`
	// RetryAfterCap bounds the wait that a handler may ask for.
	RetryAfterCap time.Duration `toml:"retry_after_cap" min:"0s" max:"168h"`
	// DrainTimeout is how long a stopping host lets its running steps finish.
	DrainTimeout time.Duration `toml:"drain_timeout" min:"0s" max:"1h"`
	// EmergencyTimeout is how long it then takes to hand leases back.
	EmergencyTimeout time.Duration `toml:"emergency_timeout" min:"100ms" max:"10m"`
	// SupervisorTimeout is how long after SIGTERM whoever started the host kills
	// it (Kubernetes 30s, systemd 90s). It acts by bounding the two above.
	SupervisorTimeout time.Duration `toml:"supervisor_timeout" min:"1s" max:"2h"`
	// TaskRequestsQueue is the queue on which tasks are requested.
	TaskRequestsQueue string `toml:"task_requests_queue" match:"queue"`
	// StepResultsQueue is the queue on which outside workers put results.
	StepResultsQueue string `toml:"step_results_queue" match:"queue"`
}

// PGMQ tells how queues are read.
type PGMQ struct {
	// Batch is the most messages that one read takes.
	Batch int `toml:"batch" min:"1" max:"10000"`
	// VisibilityTimeout is how long a message that was read stays hidden.
	VisibilityTimeout time.Duration `toml:"visibility_timeout" min:"1s" max:"12h"`
	// MaxReads is how often a message is read before it is set aside as a dead
	// letter.
	MaxReads int `toml:"max_reads" min:"1" max:"1000"`
}

// System holds the host's own paths, listeners, logs and payload limits.
type System struct {
	// StateDir holds what the host keeps between runs; by default
	// $XDG_STATE_HOME/tasker, else /var/lib/tasker for root and
	// ~/.local/state/tasker for others.
	StateDir string `toml:"state_dir" path:"yes"`
	// Socket is the path of the API's unix socket; by default
	// <system.state_dir>/tasker.sock. At most 100 bytes.
	Socket string `toml:"socket" path:"yes"`
	// HTTPListen is a loopback address and port on which the API listens too;
	// empty: on the socket only.
	HTTPListen string `toml:"http_listen"`
	// Plugins is the path of plugins.toml; by default the one in the operator's
	// directory, else in the working directory.
	Plugins string `toml:"plugins" path:"yes"`
	// LogLevel is the least level that is logged.
	LogLevel string `toml:"log_level" oneof:"trace,debug,info,warn,error"`
	// LogFormat is json, or console for people.
	LogFormat string `toml:"log_format" oneof:"json,console"`
	// MaxContextBytes bounds the input of a task.
	MaxContextBytes int `toml:"max_context_bytes" min:"1024" max:"67108864"`
	// MaxResultBytes bounds the result of a step.
	MaxResultBytes int `toml:"max_result_bytes" min:"1024" max:"67108864"`
	// MaxDepth bounds the nesting of JSON in both.
	MaxDepth int `toml:"max_depth" min:"1" max:"1000"`
}

// Telemetry says what is measured and shown.
type Telemetry struct {
	// Metrics serves Prometheus metrics at /metrics.
	Metrics bool `toml:"metrics"`
}

// CircuitBreakers holds the limits at which the host stops trying.
type CircuitBreakers struct {
	// PluginCrashLoop stops the restarts of a plugin that keeps dying.
	PluginCrashLoop Breaker `toml:"plugin_crash_loop"`
}

// Breaker opens after Failures within Window and tries again after Timeout.
type Breaker struct {
	// Failures is how many failures within Window are too many.
	Failures int `toml:"failures" min:"1" max:"1000"`
	// Window is the time in which failures are counted.
	Window time.Duration `toml:"window" min:"1s" max:"24h"`
	// Timeout is the rest until the next try.
	Timeout time.Duration `toml:"timeout" min:"1s" max:"24h"`
}

// Origin says where a value came from.
type Origin struct {
	Source string // a file, "environment variable NAME" or "override"
	Line   int    // the line in the file, 0 if there is none
}

// String returns the origin as file:line, or the source alone.
func (o Origin) String() string { return place(o.Source, o.Line) }

// Origin returns where the value of a dotted key came from. ok is false if no
// layer set it: the key is unknown, or its value derived from another.
func (c *Config) Origin(key string) (origin Origin, ok bool) {
	origin, ok = c.origins[key]
	return origin, ok
}
