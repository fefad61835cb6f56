package config

import (
	"strings"
	"time"
)

// Config is the configuration of one host. Load returns it complete and valid;
// nothing changes it afterwards: a reload makes another one. Ranges stand in the
// field tags, and which keys a running host takes over; defaults in base/*.toml.
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
	// Warnings are findings that do not stop a host, for its log.
	Warnings []string `toml:"-"`

	origins map[string]Origin
}

// Auth says who may use the API over TCP. The unix socket needs no token:
// whoever may open it is an administrator.
type Auth struct {
	// Enabled asks every request over TCP for a bearer token. It may be off only
	// while system.http_listen is a loopback address.
	Enabled bool `toml:"enabled"`
	// TokenRefresh is how long a token that was revoked may still work, and how
	// often each host asks the database for the tokens there are.
	TokenRefresh time.Duration `toml:"token_refresh" min:"100ms" max:"10s"`
	// RequestsPerSecond is how many requests a client may make over TCP, on
	// average. A client is a principal, or an address without authentication.
	RequestsPerSecond int `toml:"requests_per_second" min:"1" max:"1000000"`
	// Burst is how many requests a client that was quiet may make at once.
	Burst int `toml:"burst" min:"1" max:"1000000"`
	// JWT accepts the tokens of an identity provider.
	JWT JWT `toml:"jwt"`
	// TLS encrypts what goes over TCP.
	TLS TLS `toml:"tls"`
}

// JWT says which JSON Web Tokens are accepted.
type JWT struct {
	// Issuer is the iss that a JSON Web Token must carry; empty: none is accepted.
	Issuer string `toml:"issuer"`
	// Audience is the aud that a token must carry, alone or among others.
	Audience string `toml:"audience"`
	// KeysURL is where the issuer publishes its keys (JWKS): https, or http on a
	// loopback address.
	KeysURL string `toml:"keys_url"`
	// KeysFile is a file with the issuer's keys instead: a JWKS, or public keys in
	// PEM form.
	KeysFile string `toml:"keys_file" path:"yes"`
	// KeysRefresh is how long keys that were read are used before they are read
	// again; a key that the issuer has withdrawn may work that long, and four times
	// as long while the issuer does not answer.
	KeysRefresh time.Duration `toml:"keys_refresh" min:"1s" max:"24h"`
	// Algorithms lists the signatures that are accepted, separated by commas, of
	// RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 and EdDSA.
	Algorithms string `toml:"algorithms"`
	// ClockSkew is how far the clocks of issuer and host may be apart.
	ClockSkew time.Duration `toml:"clock_skew" min:"0s" max:"5m"`
	// PermissionsClaim names the claim with the permissions: a list, or one text
	// with spaces between. Entries that are no permissions are ignored.
	PermissionsClaim string `toml:"permissions_claim"`
}

// TLS says how what goes over TCP is encrypted.
type TLS struct {
	// CertFile is the certificate with its chain in PEM form; it is read again
	// when it changes. Empty: no TLS.
	CertFile string `toml:"cert_file" path:"yes"`
	// KeyFile is the private key of CertFile in PEM form.
	KeyFile string `toml:"key_file" path:"yes"`
	// ByProxy says that a proxy in front encrypts, so that the host may listen
	// beyond loopback without a certificate.
	ByProxy bool `toml:"by_proxy"`
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

// Engine bounds what a host holds and what a template may ask.
type Engine struct {
	// MaxInFlight is the most steps that this host holds leases on.
	MaxInFlight int `toml:"max_in_flight" min:"1" max:"100000" reload:"yes"`
	// MaxSteps is the most steps that a template may have.
	MaxSteps int `toml:"max_steps" min:"1" max:"100000" reload:"yes"`
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
	SweepInterval time.Duration `toml:"sweep_interval" min:"50ms" max:"10m" reload:"yes"`
	// RestAfter is how long a host has had nothing to do before it rests: it asks
	// the database one thing in 20 s then, until a notification rouses it. 0s: never.
	RestAfter time.Duration `toml:"rest_after" min:"0s" max:"1h" reload:"yes"`
	// FinalizationClaim is how long a claim for finalization holds.
	FinalizationClaim time.Duration `toml:"finalization_claim" min:"1s" max:"1h"`
	// ClaimCapFactor bounds the claims of a step: factor × max_attempts.
	ClaimCapFactor int `toml:"claim_cap_factor" min:"1" max:"100" reload:"yes"`
	// RetryAfterCap bounds the wait that a handler may ask for.
	RetryAfterCap time.Duration `toml:"retry_after_cap" min:"0s" max:"168h" reload:"yes"`
	// DrainTimeout is how long a stopping host lets its running steps finish.
	DrainTimeout time.Duration `toml:"drain_timeout" min:"0s" max:"1h" reload:"yes"`
	// EmergencyTimeout is how long it then takes to hand leases back.
	EmergencyTimeout time.Duration `toml:"emergency_timeout" min:"100ms" max:"10m" reload:"yes"`
	// SupervisorTimeout is how long after SIGTERM whoever started the host kills
	// it (Kubernetes 30s, systemd 90s). It acts by bounding the two above.
	SupervisorTimeout time.Duration `toml:"supervisor_timeout" min:"1s" max:"2h" reload:"yes"`
	// TaskRequestsQueue is the queue on which tasks are requested.
	TaskRequestsQueue string `toml:"task_requests_queue" match:"queue"`
	// StepResultsQueue is the queue on which outside workers put results.
	StepResultsQueue string `toml:"step_results_queue" match:"queue"`

	Retention Retention `toml:"retention"`
}

// Retention says how long what has ended is kept. 0s: for ever.
type Retention struct {
	// Tasks is how long tasks are kept after their end, with steps and history; up to a
	// tenth longer, or a day or two, since they go by partitions.
	// One that has not ended is kept however old it is.
	Tasks time.Duration `toml:"tasks" min:"0s" max:"175200h" reload:"yes"`
	// Namespaces names those that keep their tasks longer or shorter, such as
	// "shop=2160h, lab=24h".
	Namespaces string `toml:"namespaces" reload:"yes"`
	// IdempotencyKeys is how long keys are kept; they stay as long as their task.
	IdempotencyKeys time.Duration `toml:"idempotency_keys" min:"0s" max:"175200h" reload:"yes"`
	// DeadLetters is how long dead letters are kept.
	DeadLetters time.Duration `toml:"dead_letters" min:"0s" max:"175200h" reload:"yes"`
	// Audit is how long entries of the audit are kept; at least 720h, or 0s.
	Audit time.Duration `toml:"audit" min:"0s" max:"175200h" reload:"yes"`
	// Records is how long archives of queues, tries of finalization, hosts that
	// are gone and outside workers that were not seen are kept.
	Records time.Duration `toml:"records" min:"0s" max:"175200h" reload:"yes"`
}

// PGMQ tells how queues are read.
type PGMQ struct {
	// VisibilityTimeout is how long a message that was read stays hidden.
	VisibilityTimeout time.Duration `toml:"visibility_timeout" min:"1s" max:"12h" reload:"yes"`
	// MaxReads is how often a message is read before it is set aside as a dead
	// letter.
	MaxReads int `toml:"max_reads" min:"1" max:"1000" reload:"yes"`
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
	// HTTPListen is an address and port on which the API listens too; empty: on
	// the socket only. Beyond loopback it needs auth.enabled and TLS.
	HTTPListen string `toml:"http_listen"`
	// Plugins is the path of plugins.toml; by default the one in the operator's
	// directory, else in the working directory.
	Plugins string `toml:"plugins" path:"yes"`
	// LogLevel is the least level that is logged.
	LogLevel string `toml:"log_level" oneof:"trace,debug,info,warn,error" reload:"yes"`
	// LogFormat is json, or console for people.
	LogFormat string `toml:"log_format" oneof:"json,console"`
	// MaxContextBytes bounds the input of a task.
	MaxContextBytes int `toml:"max_context_bytes" min:"1024" max:"67108864"`
	// MaxResultBytes bounds the result of a step.
	MaxResultBytes int `toml:"max_result_bytes" min:"1024" max:"67108864" reload:"yes"`
	// MaxDepth bounds the nesting of JSON in both.
	MaxDepth int `toml:"max_depth" min:"1" max:"1000"`
}

// Telemetry says what is measured and shown.
type Telemetry struct {
	// Metrics serves Prometheus metrics at /metrics.
	Metrics bool `toml:"metrics"`
	// Traces follows tasks from their submission to their end.
	Traces Traces `toml:"traces"`
}

// Traces says where spans go and how many tasks are followed.
type Traces struct {
	// Endpoint is the URL of a collector of OpenTelemetry (OTLP over HTTP), such
	// as http://localhost:4318. Empty: nothing is traced, and nothing it costs.
	Endpoint string `toml:"endpoint" match:"http"`
	// SampleRatio is the share of tasks that are followed; a client that has
	// decided, by a traceparent, goes before.
	SampleRatio float64 `toml:"sample_ratio" min:"0" max:"1" reload:"yes"`
	// Headers go with every request to the collector: name=value,name=value. A
	// secret: it may come from TASKER__TELEMETRY__TRACES__HEADERS or HeadersFile.
	Headers Secret `toml:"headers" match:"headers"`
	// HeadersFile names a file that contains the headers.
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

// QueryCache bounds what a host keeps of what it has read.
type QueryCache struct {
	// MaxPlans is the most plans of template versions, with their compiled input
	// schemas, that a host keeps; others are read again when they are needed.
	MaxPlans int `toml:"max_plans" min:"16" max:"1000000"`
}

// CircuitBreakers holds the limits at which the host stops trying.
type CircuitBreakers struct {
	// Enabled puts the breakers of the database and of the queues in force; else
	// every call is made.
	Enabled bool `toml:"enabled"`
	// Database is the breaker of the database as a whole. Only a database that
	// does not answer opens it, never one that refuses.
	Database CallBreaker `toml:"database"`
	// PGMQ is for the breakers of the queues: one for each queue and class of
	// operations (claim, read, settle).
	PGMQ CallBreaker `toml:"pgmq"`
	// PluginCrashLoop stops the restarts of a plugin that keeps dying.
	PluginCrashLoop Breaker `toml:"plugin_crash_loop"`
}

// CallBreaker opens after Failures in a row, and closes after as many successful
// Probes.
type CallBreaker struct {
	// Failures is how many calls in a row must fail.
	Failures int `toml:"failures" min:"1" max:"100" reload:"yes"`
	// Timeout is how long calls are refused at most until the next are tried. That
	// of the database ends sooner when it answers a heartbeat, which asks nobody.
	Timeout time.Duration `toml:"timeout" min:"100ms" max:"300s" reload:"yes"`
	// Probes is how many calls are tried then at once at most, and must succeed.
	Probes int `toml:"probes" min:"1" max:"50"`
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

// ExecutorPools says how many executors there are of each kind, and what decides
// how many.
type ExecutorPools struct {
	// Coordinator decides about all pools.
	Coordinator Coordinator `toml:"coordinator"`
	// StepExecution runs the steps, a pool for each namespace.
	StepExecution StepExecution `toml:"step_execution"`
	// TaskRequestProcessor reads requests for tasks from their queue.
	TaskRequestProcessor Readers `toml:"task_request_processor"`
	// TaskClaimer claims steps from the namespaces' queues.
	TaskClaimer Readers `toml:"task_claimer"`
	// StepEnqueuer creates tasks: their first steps go out.
	StepEnqueuer Executors `toml:"step_enqueuer"`
	// StepResultProcessor reads what outside workers post.
	StepResultProcessor Readers `toml:"step_result_processor"`
	// TaskFinalizer records outcomes: the next steps go out, tasks are finalized.
	TaskFinalizer Executors `toml:"task_finalizer"`
}

// Executors sets a pool whose executors each work on a batch, in a transaction,
// and are woken when there is one.
type Executors struct {
	// Min is the least executors.
	Min int `toml:"min" min:"1" max:"64" reload:"yes"`
	// Max is the most executors; each needs a connection to the database.
	Max int `toml:"max" min:"1" max:"64" reload:"yes"`
	// Batch is the most pieces of work in one transaction.
	Batch int `toml:"batch" min:"1" max:"10000" reload:"yes"`
	// TurnTimeout is how long one batch may take while the database answers; an
	// executor that takes longer is stuck and is replaced.
	TurnTimeout time.Duration `toml:"turn_timeout" min:"1s" max:"1h" reload:"yes"`
	// StopTimeout is how long a stopping host waits for the executors to end
	// their last batch; the other pools do not wait for this one.
	StopTimeout time.Duration `toml:"stop_timeout" min:"100ms" max:"1m" reload:"yes"`
	// Algorithm decides how many there are, as in step_execution.
	Algorithm string `toml:"algorithm" match:"algorithm" reload:"yes"`
	// Shadow is an algorithm whose advice is recorded beside; empty: none.
	Shadow string `toml:"shadow" match:"shadow" reload:"yes"`
}

// Readers sets a pool whose executors each read a batch of messages, and look for
// more at intervals.
type Readers struct {
	// Min is the least executors.
	Min int `toml:"min" min:"1" max:"64" reload:"yes"`
	// Max is the most executors; each needs a connection to the database.
	Max int `toml:"max" min:"1" max:"64" reload:"yes"`
	// Batch is the most messages that one read takes.
	Batch int `toml:"batch" min:"1" max:"10000" reload:"yes"`
	// PollMin is the rest before the next look at the pool's queues, after one that
	// found work.
	PollMin time.Duration `toml:"poll_min" min:"1ms" max:"1m" reload:"yes"`
	// PollMax is the longest rest between two looks at idle queues; one look is for
	// all queues, and for all pools whose rests are alike.
	PollMax time.Duration `toml:"poll_max" min:"1ms" max:"1m" reload:"yes"`
	// TurnTimeout is how long one turn may take while the database answers; an
	// executor that takes longer is stuck and is replaced.
	TurnTimeout time.Duration `toml:"turn_timeout" min:"1s" max:"1h" reload:"yes"`
	// StopTimeout is how long a stopping host waits for the executors to end
	// their last turn; the other pools do not wait for this one.
	StopTimeout time.Duration `toml:"stop_timeout" min:"100ms" max:"1m" reload:"yes"`
	// Algorithm decides how many there are, as in step_execution.
	Algorithm string `toml:"algorithm" match:"algorithm" reload:"yes"`
	// Shadow is an algorithm whose advice is recorded beside; empty: none.
	Shadow string `toml:"shadow" match:"shadow" reload:"yes"`
}

// Coordinator decides how large pools are. What the rules mean is in
// docs/scaling.md.
type Coordinator struct {
	// AutoScaling lets the algorithms decide; otherwise a pool has the size it
	// was given, within its bounds.
	AutoScaling bool `toml:"auto_scaling" reload:"yes"`
	// Interval is the time between two decisions about a pool.
	Interval time.Duration `toml:"interval" min:"100ms" max:"1h" reload:"yes"`
	// Timeout is how long an algorithm may think before its pool stays as it is.
	Timeout time.Duration `toml:"timeout" min:"10ms" max:"5s" reload:"yes"`
	// StepUp is how many executors are added at once at most; 0: no limit.
	StepUp int `toml:"step_up" min:"0" max:"100000" reload:"yes"`
	// StepDown is how many executors are removed at once at most; 0: no limit.
	StepDown int `toml:"step_down" min:"0" max:"100000" reload:"yes"`
	// CooldownUp is for how long a pool does not grow after a change.
	CooldownUp time.Duration `toml:"cooldown_up" min:"0s" max:"1h" reload:"yes"`
	// CooldownDown is for how long a pool does not shrink after a change.
	CooldownDown time.Duration `toml:"cooldown_down" min:"0s" max:"24h" reload:"yes"`
	// DeadBand is the share of its size by which a pool does not change.
	DeadBand float64 `toml:"dead_band" min:"0" max:"0.5" reload:"yes"`
	// Stabilization is the time whose largest advice a pool does not shrink below.
	Stabilization time.Duration `toml:"stabilization" min:"0s" max:"24h" reload:"yes"`
	// Reversal is the time in which a pool turns from growing to shrinking or back
	// at most once.
	Reversal time.Duration `toml:"reversal" min:"0s" max:"1h" reload:"yes"`
	// Stale is how old the latest measurement may be that a decision rests on.
	Stale time.Duration `toml:"stale" min:"1s" max:"1h" reload:"yes"`
	// MinConfidence is how sure an algorithm must be for its advice to count.
	MinConfidence float64 `toml:"min_confidence" min:"0" max:"1" reload:"yes"`
	// Resources says what becomes of bounds that connections and memory do not
	// bear: enforce refuses them, warn tells of them.
	Resources string `toml:"resources" oneof:"enforce,warn" reload:"yes"`
	// MemoryShare is the share of the free memory that more executors may take.
	MemoryShare float64 `toml:"memory_share" min:"0.05" max:"1" reload:"yes"`
}

// StepExecution bounds how many steps of a namespace run at once on a host.
type StepExecution struct {
	// Min is the least executors of a namespace.
	Min int `toml:"min" min:"1" max:"100000" reload:"yes"`
	// Max is the most executors of a namespace.
	Max int `toml:"max" min:"1" max:"100000" reload:"yes"`
	// Namespaces names those with other bounds, such as "shop=8..64, lab=1..4".
	Namespaces string `toml:"namespaces" reload:"yes"`
	// Algorithm decides how many there are: a name that a scaling plugin serves,
	// or else a built-in, with options behind it: 'rate={"drain":"2m"}'.
	Algorithm string `toml:"algorithm" match:"algorithm" reload:"yes"`
	// Shadow is an algorithm whose advice is recorded beside, to compare; empty:
	// none.
	Shadow string `toml:"shadow" match:"shadow" reload:"yes"`
	// Memory is what a step that runs takes of the host's memory, about.
	Memory Bytes `toml:"memory" min:"1KiB" max:"1TiB" reload:"yes"`
}

// Origin says where a value came from.
type Origin struct {
	Source string // a file, "environment variable NAME" or "command line"
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
