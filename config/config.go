package config

import (
	"strings"
	"time"
)

// Config is the configuration of one host. Load returns it complete and valid;
// nothing changes it afterwards, since a reload makes another one. Field tags give
// ranges, and the keys that a running host takes over; defaults are in base/*.toml.
type Config struct {
	Auth            Auth            `toml:"auth"`
	Database        Database        `toml:"database"`
	Engine          Engine          `toml:"engine"`
	Orchestration   Orchestration   `toml:"orchestration"`
	PGMQ            PGMQ            `toml:"pgmq"`
	QueryCache      QueryCache      `toml:"query_cache"`
	System          System          `toml:"system"`
	Telemetry       Telemetry       `toml:"telemetry"`
	CircuitBreakers CircuitBreakers `toml:"circuit_breakers"`
	ExecutorPools   ExecutorPools   `toml:"executor_pools"`

	// Environment is the name of the environment that was loaded.
	Environment string `toml:"-"`
	// Dir is the operator's directory, empty if there is none.
	Dir string `toml:"-"`
	// Warnings are problems that do not stop a host, for its log.
	Warnings []string `toml:"-"`

	origins map[string]Origin
}

// Auth says who may use the API over TCP. The unix socket needs no token:
// whoever can open it is an administrator.
type Auth struct {
	// Enabled requires a bearer token for every request over TCP. It may be false
	// only while system.http_listen is a loopback address.
	Enabled bool `toml:"enabled"`
	// TokenRefresh is how often each host reads the tokens from the database, and
	// so how long a revoked token may still work.
	TokenRefresh time.Duration `toml:"token_refresh" min:"100ms" max:"10s"`
	// RequestsPerSecond is how many requests per second a client may make over
	// TCP, on average. A client is a principal, or, without authentication,
	// an address.
	RequestsPerSecond int `toml:"requests_per_second" min:"1" max:"1000000"`
	// Burst is how many requests a client that was idle before may make at once.
	Burst int `toml:"burst" min:"1" max:"1000000"`
	// JWT accepts the tokens of an identity provider.
	JWT JWT `toml:"jwt"`
	// TLS encrypts connections over TCP.
	TLS TLS `toml:"tls"`
}

// JWT says which JSON Web Tokens are accepted.
type JWT struct {
	// Issuer is the iss claim that a JSON Web Token must have; if empty, no JSON
	// Web Token is accepted.
	Issuer string `toml:"issuer"`
	// Audience is the value that the token's aud claim must contain, alone or
	// among others.
	Audience string `toml:"audience"`
	// KeysURL is the URL where the issuer publishes its keys (JWKS): https, or
	// http on a loopback address.
	KeysURL string `toml:"keys_url"`
	// KeysFile is a file with the issuer's keys, used instead of a URL: a JWKS, or
	// public keys in PEM format.
	KeysFile string `toml:"keys_file" path:"yes"`
	// KeysRefresh is how long keys are used before they are read again. A key that
	// the issuer has withdrawn may still work for this long, or for four times as
	// long while the issuer does not answer.
	KeysRefresh time.Duration `toml:"keys_refresh" min:"1s" max:"24h"`
	// Algorithms are the accepted signature algorithms, separated by commas:
	// any of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 and
	// EdDSA.
	Algorithms string `toml:"algorithms"`
	// ClockSkew is how far the clocks of the issuer and the host may differ.
	ClockSkew time.Duration `toml:"clock_skew" min:"0s" max:"5m"`
	// PermissionsClaim is the name of the claim with the permissions: a list, or
	// one string with spaces between them. Entries that are not permissions are
	// ignored.
	PermissionsClaim string `toml:"permissions_claim"`
}

// TLS says how connections over TCP are encrypted.
type TLS struct {
	// CertFile is the file with the certificate and its chain in PEM format. It is
	// read again when it changes. If empty, there is no TLS.
	CertFile string `toml:"cert_file" path:"yes"`
	// KeyFile is the file with the private key of CertFile in PEM format.
	KeyFile string `toml:"key_file" path:"yes"`
	// ByProxy declares that a proxy in front of the host encrypts, so that the
	// host may listen on addresses other than loopback without a certificate.
	ByProxy bool `toml:"by_proxy"`
}

// Database says where PostgreSQL is and how long it may take.
type Database struct {
	// URL is a PostgreSQL connection string, as a URL or in key=value form. If
	// empty, the host starts a private server. A connection string that contains a
	// password may come from DATABASE_URL, TASKER__DATABASE__URL or URLFile, but
	// not from a configuration file or a flag.
	URL Secret `toml:"url"`
	// URLFile is a file that contains the connection string.
	URLFile string `toml:"url_file" path:"yes"`
	// MaxConnections is the size of this host's connection pool.
	MaxConnections int `toml:"max_connections" min:"4" max:"1000"`
	// ConnectTimeout limits how long opening a connection may take.
	ConnectTimeout time.Duration `toml:"connect_timeout" min:"100ms" max:"5m"`
	// StatementTimeout limits how long one SQL statement may take, enforced by the
	// server.
	StatementTimeout time.Duration `toml:"statement_timeout" min:"100ms" max:"5m"`
	// LockTimeout limits how long a statement waits for one lock, enforced by the
	// server.
	LockTimeout time.Duration `toml:"lock_timeout" min:"10ms" max:"5m"`
	// Embedded is the private server that runs when URL is empty.
	Embedded Embedded `toml:"embedded"`
}

// Embedded configures the private PostgreSQL server.
type Embedded struct {
	// StateDir is the directory for the server's data; by default
	// <system.state_dir>/postgres.
	StateDir string `toml:"state_dir" path:"yes"`
	// BinDir is the directory that contains initdb and postgres; if empty, the
	// host searches for them.
	BinDir string `toml:"bin_dir" path:"yes"`
	// Install lets the host install the distribution's package if it finds no
	// server binaries and has permission to install it.
	Install bool `toml:"install"`
}

// Engine limits what a host holds and what a template may ask for.
type Engine struct {
	// MaxInFlight is the maximum number of steps that this host holds leases on.
	MaxInFlight int `toml:"max_in_flight" min:"1" max:"100000" reload:"yes"`
	// MaxSteps is the maximum number of steps in a template.
	MaxSteps int `toml:"max_steps" min:"1" max:"100000" reload:"yes"`
}

// Orchestration times leases, sweeps and shutdown, and names the queues.
type Orchestration struct {
	// Lease is how long a host's claims stay valid after its last heartbeat.
	Lease time.Duration `toml:"lease" min:"1s" max:"1h"`
	// Heartbeat is the interval between two heartbeats of the host.
	Heartbeat time.Duration `toml:"heartbeat" min:"100ms" max:"20m"`
	// DeadHostGrace is how long after the end of its lease a host is considered
	// dead and its steps are given to other hosts.
	DeadHostGrace time.Duration `toml:"dead_host_grace" min:"0s" max:"1h"`
	// SweepInterval is the interval between two sweeps: the time within which
	// work that lost its wake-up is found again.
	SweepInterval time.Duration `toml:"sweep_interval" min:"50ms" max:"10m" reload:"yes"`
	// RestAfter is how long a host must be idle before it rests: it then sends the
	// database one statement every 20 s, until a notification wakes it. 0s: never.
	RestAfter time.Duration `toml:"rest_after" min:"0s" max:"1h" reload:"yes"`
	// FinalizationClaim is how long a claim to finalize a task stays valid.
	FinalizationClaim time.Duration `toml:"finalization_claim" min:"1s" max:"1h"`
	// ClaimCapFactor limits how often a step may be claimed: this factor ×
	// max_attempts.
	ClaimCapFactor int `toml:"claim_cap_factor" min:"1" max:"100" reload:"yes"`
	// RetryAfterCap limits the delay before the next attempt that a handler may
	// ask for.
	RetryAfterCap time.Duration `toml:"retry_after_cap" min:"0s" max:"168h" reload:"yes"`
	// DrainTimeout is how long a stopping host lets running steps finish.
	DrainTimeout time.Duration `toml:"drain_timeout" min:"0s" max:"1h" reload:"yes"`
	// EmergencyTimeout is how long a stopping host may take, after DrainTimeout, to
	// cancel the remaining steps and hand their leases back.
	EmergencyTimeout time.Duration `toml:"emergency_timeout" min:"100ms" max:"10m" reload:"yes"`
	// SupervisorTimeout is how long after SIGTERM the host's supervisor kills it
	// (Kubernetes 30s, systemd 90s). Its only effect is that DrainTimeout and
	// EmergencyTimeout together may not be longer.
	SupervisorTimeout time.Duration `toml:"supervisor_timeout" min:"1s" max:"2h" reload:"yes"`
	// TaskRequestsQueue is the name of the queue for requests to create tasks.
	TaskRequestsQueue string `toml:"task_requests_queue" match:"queue"`
	// StepResultsQueue is the name of the queue to which outside workers post
	// results.
	StepResultsQueue string `toml:"step_results_queue" match:"queue"`

	Retention Retention `toml:"retention"`
}

// Retention says how long data is kept after its end. 0s: forever.
type Retention struct {
	// Tasks is how long tasks are kept after their end, with their steps and
	// history. Because whole partitions are dropped, they may be kept up to a tenth
	// longer, or a day or two. A task that has not ended is always kept. 0s:
	// forever.
	Tasks time.Duration `toml:"tasks" min:"0s" max:"175200h" reload:"yes"`
	// Namespaces sets a longer or shorter time for the tasks of some namespaces,
	// such as "shop=2160h, lab=24h".
	Namespaces string `toml:"namespaces" reload:"yes"`
	// IdempotencyKeys is how long idempotency keys are kept; a key is never removed
	// before its task. 0s: forever.
	IdempotencyKeys time.Duration `toml:"idempotency_keys" min:"0s" max:"175200h" reload:"yes"`
	// DeadLetters is how long dead letters are kept. 0s: forever.
	DeadLetters time.Duration `toml:"dead_letters" min:"0s" max:"175200h" reload:"yes"`
	// Audit is how long audit entries are kept: at least 720h, or 0s for forever.
	Audit time.Duration `toml:"audit" min:"0s" max:"175200h" reload:"yes"`
	// Records is how long these are kept: queue archives, finalization attempts,
	// hosts that are gone, and outside workers that have not been seen. 0s:
	// forever.
	Records time.Duration `toml:"records" min:"0s" max:"175200h" reload:"yes"`
}

// PGMQ says how queues are read.
type PGMQ struct {
	// VisibilityTimeout is how long a message stays hidden after it was read.
	VisibilityTimeout time.Duration `toml:"visibility_timeout" min:"1s" max:"12h" reload:"yes"`
	// MaxReads is how often a message is read before it is set aside as a dead
	// letter.
	MaxReads int `toml:"max_reads" min:"1" max:"1000" reload:"yes"`
}

// System holds the host's own paths, listeners, logs and payload limits.
type System struct {
	// StateDir is the directory for what the host keeps between runs. The default
	// is $XDG_STATE_HOME/tasker; if that variable is not set, /var/lib/tasker for
	// root and ~/.local/state/tasker for other users.
	StateDir string `toml:"state_dir" path:"yes"`
	// Socket is the path of the API's unix socket, at most 100 bytes long; by
	// default <system.state_dir>/tasker.sock.
	Socket string `toml:"socket" path:"yes"`
	// HTTPListen is an address and port on which the API listens in addition to
	// the socket; if empty, it listens on the socket only. An address other than
	// loopback requires auth.enabled and TLS.
	HTTPListen string `toml:"http_listen"`
	// Plugins is the path of plugins.toml. By default, the host uses the one in
	// the operator's configuration directory, otherwise the one in the working
	// directory.
	Plugins string `toml:"plugins" path:"yes"`
	// LogLevel is the lowest level that is logged.
	LogLevel string `toml:"log_level" oneof:"trace,debug,info,warn,error" reload:"yes"`
	// LogFormat is the format of the log: json, or console for human readers.
	LogFormat string `toml:"log_format" oneof:"json,console"`
	// MaxContextBytes is the maximum size of a task's input, in bytes.
	MaxContextBytes int `toml:"max_context_bytes" min:"1024" max:"67108864"`
	// MaxResultBytes is the maximum size of a step's result, in bytes.
	MaxResultBytes int `toml:"max_result_bytes" min:"1024" max:"67108864" reload:"yes"`
	// MaxDepth is the maximum nesting depth of JSON in inputs and results.
	MaxDepth int `toml:"max_depth" min:"1" max:"1000"`
}

// Telemetry says what is measured and exported.
type Telemetry struct {
	// Metrics serves Prometheus metrics at /metrics.
	Metrics bool `toml:"metrics"`
	// Traces follows tasks from their submission to their end.
	Traces Traces `toml:"traces"`
}

// Traces says where spans go and how many tasks are followed.
type Traces struct {
	// Endpoint is the URL of an OpenTelemetry collector (OTLP over HTTP), such as
	// http://localhost:4318. If empty, nothing is traced, at no cost.
	Endpoint string `toml:"endpoint" match:"http"`
	// SampleRatio is the share of tasks that are traced. If a client sends a
	// traceparent, the client's decision applies instead.
	SampleRatio float64 `toml:"sample_ratio" min:"0" max:"1" reload:"yes"`
	// Headers are the headers sent with every request to the collector, in the
	// form name=value,name=value. They are secret, and may come from
	// TASKER__TELEMETRY__TRACES__HEADERS or HeadersFile.
	Headers Secret `toml:"headers" match:"headers"`
	// HeadersFile is a file that contains the headers.
	HeadersFile string `toml:"headers_file" path:"yes"`
}

// HeaderMap returns the headers by name.
func (t Traces) HeaderMap() map[string]string {
	headers := map[string]string{}
	for _, pair := range strings.Split(t.Headers.Reveal(), ",") {
		if name, value, ok := strings.Cut(pair, "="); ok {
			headers[name] = value
		}
	}
	return headers
}

// QueryCache limits what a host caches.
type QueryCache struct {
	// MaxPlans is the maximum number of plans (of template versions, with their
	// compiled input schemas) that a host keeps; others are read again when they
	// are needed.
	MaxPlans int `toml:"max_plans" min:"16" max:"1000000"`
}

// CircuitBreakers sets the limits at which the host stops trying.
type CircuitBreakers struct {
	// Enabled turns the circuit breakers of the database and the queues on; if
	// false, every call is made.
	Enabled bool `toml:"enabled"`
	// Database is the breaker of the database as a whole. Only a database that
	// does not answer opens it, never one that refuses.
	Database CallBreaker `toml:"database"`
	// PGMQ is for the breakers of the queues: one for each queue and class of
	// operations (claim, read, settle).
	PGMQ CallBreaker `toml:"pgmq"`
	// PluginCrashLoop stops the restarts of a plugin that keeps crashing.
	PluginCrashLoop Breaker `toml:"plugin_crash_loop"`
}

// CallBreaker opens after Failures in a row, and closes after as many successful
// Probes.
type CallBreaker struct {
	// Failures is how many calls in a row must fail to open the breaker.
	Failures int `toml:"failures" min:"1" max:"100" reload:"yes"`
	// Timeout is the longest time for which an open breaker refuses calls before
	// it tries some. The database's breaker does so sooner if the database answers
	// a heartbeat; heartbeats pass an open breaker.
	Timeout time.Duration `toml:"timeout" min:"100ms" max:"300s" reload:"yes"`
	// Probes is the maximum number of calls let through at once after Timeout, and
	// the number that must succeed to close the breaker.
	Probes int `toml:"probes" min:"1" max:"50"`
}

// Breaker opens after Failures within Window and tries again after Timeout.
type Breaker struct {
	// Failures is how many failures within Window open the breaker.
	Failures int `toml:"failures" min:"1" max:"1000"`
	// Window is the time over which failures are counted.
	Window time.Duration `toml:"window" min:"1s" max:"24h"`
	// Timeout is the pause before the next try.
	Timeout time.Duration `toml:"timeout" min:"1s" max:"24h"`
}

// ExecutorPools says how many executors of each kind there are, and what decides
// their number.
type ExecutorPools struct {
	// Coordinator decides about all pools.
	Coordinator Coordinator `toml:"coordinator"`
	// StepExecution runs the steps; each namespace has a pool.
	StepExecution StepExecution `toml:"step_execution"`
	// TaskRequestProcessor reads requests for tasks from their queue.
	TaskRequestProcessor Readers `toml:"task_request_processor"`
	// TaskClaimer claims steps from the namespaces' queues.
	TaskClaimer Readers `toml:"task_claimer"`
	// StepEnqueuer creates tasks and sends out their first steps.
	StepEnqueuer Executors `toml:"step_enqueuer"`
	// StepResultProcessor reads the results that outside workers post.
	StepResultProcessor Readers `toml:"step_result_processor"`
	// TaskFinalizer records outcomes, sends out the next steps, and finalizes tasks.
	TaskFinalizer Executors `toml:"task_finalizer"`
}

// Executors configures a pool whose executors each process a batch in a transaction,
// and are woken when there is one.
type Executors struct {
	// Min is the minimum number of executors.
	Min int `toml:"min" min:"1" max:"64" reload:"yes"`
	// Max is the maximum number of executors; each needs a database connection.
	Max int `toml:"max" min:"1" max:"64" reload:"yes"`
	// Batch is the maximum number of pieces of work in one transaction.
	Batch int `toml:"batch" min:"1" max:"10000" reload:"yes"`
	// TurnTimeout is how long one batch may take while the database answers. An
	// executor that takes longer is stuck and is replaced.
	TurnTimeout time.Duration `toml:"turn_timeout" min:"1s" max:"1h" reload:"yes"`
	// StopTimeout is how long a stopping host waits for the executors to finish
	// their last batch. Pools do not wait for each other.
	StopTimeout time.Duration `toml:"stop_timeout" min:"100ms" max:"1m" reload:"yes"`
	// Algorithm decides how many executors there are, as in step_execution.
	Algorithm string `toml:"algorithm" match:"algorithm" reload:"yes"`
	// Shadow is an algorithm whose advice is only recorded, for comparison; if
	// empty, there is none.
	Shadow string `toml:"shadow" match:"shadow" reload:"yes"`
}

// Readers configures a pool whose executors each read a batch of messages, and poll
// for more at intervals.
type Readers struct {
	// Min is the minimum number of executors.
	Min int `toml:"min" min:"1" max:"64" reload:"yes"`
	// Max is the maximum number of executors; each needs a database connection.
	Max int `toml:"max" min:"1" max:"64" reload:"yes"`
	// Batch is the maximum number of messages in one read.
	Batch int `toml:"batch" min:"1" max:"10000" reload:"yes"`
	// PollMin is the wait before the pool's queues are polled again after a poll
	// that found work.
	PollMin time.Duration `toml:"poll_min" min:"1ms" max:"1m" reload:"yes"`
	// PollMax is the longest wait between two polls of idle queues. One poll covers
	// all queues, and all pools with the same waits.
	PollMax time.Duration `toml:"poll_max" min:"1ms" max:"1m" reload:"yes"`
	// TurnTimeout is how long one turn may take while the database answers. An
	// executor that takes longer is stuck and is replaced.
	TurnTimeout time.Duration `toml:"turn_timeout" min:"1s" max:"1h" reload:"yes"`
	// StopTimeout is how long a stopping host waits for the executors to finish
	// their last turn. Pools do not wait for each other.
	StopTimeout time.Duration `toml:"stop_timeout" min:"100ms" max:"1m" reload:"yes"`
	// Algorithm decides how many executors there are, as in step_execution.
	Algorithm string `toml:"algorithm" match:"algorithm" reload:"yes"`
	// Shadow is an algorithm whose advice is only recorded, for comparison; if
	// empty, there is none.
	Shadow string `toml:"shadow" match:"shadow" reload:"yes"`
}

// Coordinator decides how large pools are. docs/scaling.md explains the rules.
type Coordinator struct {
	// AutoScaling lets the algorithms decide; if false, a pool keeps the size it
	// was given, within its bounds.
	AutoScaling bool `toml:"auto_scaling" reload:"yes"`
	// Interval is the interval between two decisions about a pool.
	Interval time.Duration `toml:"interval" min:"100ms" max:"1h" reload:"yes"`
	// Timeout is how long an algorithm may take to decide; after that, the pool
	// keeps its size.
	Timeout time.Duration `toml:"timeout" min:"10ms" max:"5s" reload:"yes"`
	// StepUp is the maximum number of executors added at once; 0: no limit.
	StepUp int `toml:"step_up" min:"0" max:"100000" reload:"yes"`
	// StepDown is the maximum number of executors removed at once; 0: no limit.
	StepDown int `toml:"step_down" min:"0" max:"100000" reload:"yes"`
	// CooldownUp is how long a pool does not grow after a change.
	CooldownUp time.Duration `toml:"cooldown_up" min:"0s" max:"1h" reload:"yes"`
	// CooldownDown is how long a pool does not shrink after a change.
	CooldownDown time.Duration `toml:"cooldown_down" min:"0s" max:"24h" reload:"yes"`
	// DeadBand is the share of a pool's size up to which differences are ignored.
	DeadBand float64 `toml:"dead_band" min:"0" max:"0.5" reload:"yes"`
	// Stabilization is a window of time: a pool does not shrink below the largest
	// advice in it.
	Stabilization time.Duration `toml:"stabilization" min:"0s" max:"24h" reload:"yes"`
	// Reversal is a window of time in which a pool switches between growing and
	// shrinking at most once.
	Reversal time.Duration `toml:"reversal" min:"0s" max:"1h" reload:"yes"`
	// Stale is how old the latest measurement may be; if it is older, the pool
	// keeps its size.
	Stale time.Duration `toml:"stale" min:"1s" max:"1h" reload:"yes"`
	// MinConfidence is the confidence below which an algorithm's advice is
	// ignored.
	MinConfidence float64 `toml:"min_confidence" min:"0" max:"1" reload:"yes"`
	// Resources is what happens if connections and memory are too few for the
	// bounds of the pools: enforce refuses the bounds, warn only warns.
	Resources string `toml:"resources" oneof:"enforce,warn" reload:"yes"`
	// MemoryShare is the share of the free memory that additional executors may
	// use.
	MemoryShare float64 `toml:"memory_share" min:"0.05" max:"1" reload:"yes"`
}

// StepExecution limits how many steps of a namespace run at once on a host.
type StepExecution struct {
	// Min is the minimum number of executors of a namespace.
	Min int `toml:"min" min:"1" max:"100000" reload:"yes"`
	// Max is the maximum number of executors of a namespace.
	Max int `toml:"max" min:"1" max:"100000" reload:"yes"`
	// Namespaces sets other bounds for some namespaces, such as
	// "shop=8..64, lab=1..4".
	Namespaces string `toml:"namespaces" reload:"yes"`
	// Algorithm decides how many executors there are: a name that a scaling plugin
	// serves, otherwise a built-in algorithm, optionally with options:
	// 'rate={"drain":"2m"}'.
	Algorithm string `toml:"algorithm" match:"algorithm" reload:"yes"`
	// Shadow is an algorithm whose advice is only recorded, for comparison; if
	// empty, there is none.
	Shadow string `toml:"shadow" match:"shadow" reload:"yes"`
	// Memory is roughly how much of the host's memory a running step uses.
	Memory Bytes `toml:"memory" min:"1KiB" max:"1TiB" reload:"yes"`
}

// Origin says where a value comes from.
type Origin struct {
	Source string // a file, "environment variable NAME" or "command line"
	Line   int    // the line in the file, 0 if there is none
}

// String returns the origin as file:line, or the source alone.
func (o Origin) String() string { return place(o.Source, o.Line) }

// Origin returns where the value of a dotted key comes from. ok is false if no
// layer set it: the key is unknown, or its value is derived from another.
func (c *Config) Origin(key string) (origin Origin, ok bool) {
	origin, ok = c.origins[key]
	return origin, ok
}
