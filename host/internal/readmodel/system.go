package readmodel

import "time"

// Plugin is one plugin slot and what runs in it.
type Plugin struct {
	Kind       string     `json:"kind" enum:"handler,scaling,health"`
	Name       string     `json:"name"`
	Version    string     `json:"version,omitempty" doc:"As the plugin describes itself."`
	Artifact   string     `json:"artifact,omitempty" doc:"SHA-256 of the binary, in hexadecimal."`
	Generation int64      `json:"generation,omitempty" doc:"The process: unique among all hosts, and never reused."`
	PID        int        `json:"pid,omitempty"`
	State      string     `json:"state" doc:"starting, serving, draining, backing_off, failed, stopped or refused."`
	InFlight   int        `json:"in_flight" doc:"Calls in progress."`
	Restarts   int        `json:"restarts"`
	StartedAt  *time.Time `json:"started_at,omitempty"`
	Since      *time.Time `json:"state_since,omitempty" doc:"When it entered this state."`
	Next       int64      `json:"next,omitempty" doc:"The generation that is being rolled out."`
	Limits     string     `json:"limits,omitempty" doc:"In brief: the user that the process runs as, if not the host's, its limits, and which of them this host does not enforce. Absent if there are none."`
	Message    string     `json:"message,omitempty" doc:"Why it is not serving, and what to do."`
	Handlers   []Handler  `json:"handlers,omitempty"`
	Serves     []string   `json:"serves,omitempty" doc:"The scaling algorithms and health services of its process, as KIND/NAME."`
}

// PluginRefused is the state of a plugin whose binary may not run.
const PluginRefused = "refused"

// Handler is one handler that a plugin serves.
type Handler struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	InFlight    int    `json:"in_flight" doc:"Steps that it is running now."`
}

// Health answers a probe.
type Health struct {
	Status string        `json:"status" enum:"ok,unavailable"`
	State  string        `json:"state,omitempty" doc:"The operational state: startup, normal, graceful_shutdown, emergency or stopped."`
	Checks []HealthCheck `json:"checks,omitempty"`
}

// HealthCheck is one part of a probe's answer.
type HealthCheck struct {
	Name    string `json:"name"`
	OK      bool   `json:"ok"`
	Message string `json:"message,omitempty"`
}

// HealthReport is what the host's checks found when they last looked.
type HealthReport struct {
	Status string        `json:"status" enum:"healthy,degraded,unknown,unhealthy" doc:"The worst result of the checks, apart from what the operational state explains."`
	State  string        `json:"state" doc:"The operational state."`
	At     *time.Time    `json:"at,omitempty" doc:"When the checks last ran; absent before the first time."`
	Items  []HealthItem  `json:"items"`
	Events []HealthEvent `json:"events" doc:"The latest changes, newest first."`
}

// HealthItem is the current state of one check.
type HealthItem struct {
	Name     string    `json:"name"`
	Status   string    `json:"status" enum:"healthy,degraded,unknown,unhealthy"`
	Message  string    `json:"message,omitempty"`
	Since    time.Time `json:"since"`
	Expected bool      `json:"expected,omitempty" doc:"The operational state explains it, so it raises no alarm."`
}

// HealthEvent is one change of a check's state.
type HealthEvent struct {
	At       time.Time `json:"at"`
	Check    string    `json:"check"`
	From     string    `json:"from"`
	To       string    `json:"to"`
	Severity string    `json:"severity" enum:"info,warning,critical"`
	State    string    `json:"state"`
	Message  string    `json:"message,omitempty"`
}

// The values of Health.Status.
const (
	HealthOK          = "ok"
	HealthUnavailable = "unavailable"
)

// DoctorStatus is the verdict of one check.
type DoctorStatus string

// The verdicts, from good to bad.
const (
	DoctorOK   DoctorStatus = "ok"
	DoctorWarn DoctorStatus = "warn"
	DoctorFail DoctorStatus = "fail"
)

// DoctorCheck is one thing that the doctor checked.
type DoctorCheck struct {
	Name    string       `json:"name" doc:"A stable name in lower_snake_case."`
	Status  DoctorStatus `json:"status" enum:"ok,warn,fail"`
	Message string       `json:"message" doc:"What was found."`
	Fix     string       `json:"fix,omitempty" doc:"What to do about it."`
}

// DoctorReport is everything that the doctor found.
type DoctorReport struct {
	Status DoctorStatus  `json:"status" enum:"ok,warn,fail" doc:"The worst of the checks."`
	Checks []DoctorCheck `json:"checks"`
}

// NewDoctorReport sums up checks.
func NewDoctorReport(checks ...DoctorCheck) DoctorReport {
	r := DoctorReport{Status: DoctorOK, Checks: make([]DoctorCheck, 0, len(checks))}
	r.Add(checks...)
	return r
}

// Add appends checks and keeps Status the worst of all.
func (r *DoctorReport) Add(checks ...DoctorCheck) {
	for _, c := range checks {
		r.Checks = append(r.Checks, c)
		if r.Status == "" || c.Status.rank() > r.Status.rank() {
			r.Status = c.Status
		}
	}
}

func (s DoctorStatus) rank() int {
	switch s {
	case DoctorFail:
		return 2
	case DoctorWarn:
		return 1
	default:
		return 0
	}
}

// BenchReport holds the measurements of a benchmark. The names are stable; a figure that
// a workload does not measure is missing or zero. Rates and costs are medians of the
// repetitions.
type BenchReport struct {
	Name           string  `json:"name"`
	Tasks          int     `json:"tasks"`
	Steps          int     `json:"steps"`
	Repeats        int     `json:"repeats,omitempty"`
	Seconds        float64 `json:"seconds"`
	TasksPerSecond float64 `json:"tasks_per_second"`
	StepsPerSecond float64 `json:"steps_per_second"`
	// The slowest and the fastest repetition.
	StepsPerSecondLeast float64 `json:"steps_per_second_least,omitempty"`
	StepsPerSecondMost  float64 `json:"steps_per_second_most,omitempty"`

	LatencyMS         Quantiles  `json:"latency_ms" doc:"From submission to completion of a task."`
	FullLoadLatencyMS *Quantiles `json:"full_load_latency_ms,omitempty"` // mostly the wait for the other tasks in progress
	FirstCallMS       *Quantiles `json:"first_call_ms,omitempty"`        // from the creation of a task to the first call of a handler
	Share             float64    `json:"share,omitempty"`                // of the maximum load, at which the latency was measured

	WALBytesPerStep        float64   `json:"wal_bytes_per_step"`
	PageImagesPerStep      float64   `json:"page_images_per_step"`
	CommitsPerStep         float64   `json:"commits_per_step"`
	DeadTuplesPerStep      float64   `json:"dead_tuples_per_step"`
	HotUpdateShare         float64   `json:"hot_update_share"` // of the updates of step rows, those that touched no index
	CPUMicrosecondsPerStep *BenchCPU `json:"cpu_us_per_step,omitempty"`
	AllocationsPerStep     float64   `json:"allocations_per_step"` // of the host and the load generator
	AllocatedBytesPerStep  float64   `json:"allocated_bytes_per_step"`
	PeakMemoryBytes        int64     `json:"peak_memory_bytes,omitempty"` // physical, of the host and the load generator, since their start

	// For workloads that compare: the first measurement, and the ratio of the second to the first.
	BaselineStepsPerSecond float64 `json:"baseline_steps_per_second,omitempty"`
	Ratio                  float64 `json:"ratio,omitempty"`
	History                int     `json:"history_steps,omitempty"` // finished steps in the tables during the second one
	Namespaces             int     `json:"namespaces,omitempty"`
	ReadRatio              float64 `json:"read_ratio,omitempty"` // the same ratio while another session reads everything as well
	Scans                  int     `json:"scans,omitempty"`      // how often that session read all steps

	// For a sustained load: its first and its last sixth, and their ratio.
	FirstStepsPerSecond float64 `json:"first_steps_per_second,omitempty"`
	LastStepsPerSecond  float64 `json:"last_steps_per_second,omitempty"`
	// For slower flushes: by how much, and the latency without the delay.
	FlushDelayMS      float64    `json:"flush_delay_ms,omitempty"`
	BaselineLatencyMS *Quantiles `json:"baseline_latency_ms,omitempty"`

	// For memory: physical memory of a host in a separate process.
	RestMemoryBytes     int64 `json:"rest_memory_bytes,omitempty"`
	InFlightMemoryBytes int64 `json:"in_flight_memory_bytes,omitempty"` // the peak while that many tasks were in flight
	InFlight            int   `json:"in_flight,omitempty"`

	IdleTransactionsPerSecond *float64 `json:"idle_transactions_per_second,omitempty"`

	Limits *BenchLimits `json:"limits,omitempty"`

	Setting BenchSetting `json:"setting"`
}

// BenchLimits are what a machine and its database achieve without any host.
type BenchLimits struct {
	HashMBPerSecond       float64 `json:"hash_mb_per_second"`     // SHA-256, by one thread
	HashMBPerSecondAll    float64 `json:"hash_mb_per_second_all"` // by one thread per CPU: less than the multiple if CPUs share cores
	CommitsPerSecond      float64 `json:"commits_per_second"`     // of one row each, over one connection
	CommitsPerSecondMany  float64 `json:"commits_per_second_many"`
	MessagesPerSecondMany float64 `json:"messages_per_second_many"` // read and deleted one by one, over 16 connections as the commits
}

// BenchCPU is CPU time in microseconds.
type BenchCPU struct {
	Host   float64 `json:"host"` // with the load generator
	Plugin float64 `json:"plugin"`
	Server float64 `json:"server"` // zero if it is on another machine
}

// BenchSetting describes what the measurements were made on.
type BenchSetting struct {
	CPUs        int               `json:"cpus"`
	CPU         string            `json:"cpu,omitempty"`
	MemoryBytes int64             `json:"memory_bytes,omitempty"`
	System      string            `json:"system"`
	Go          string            `json:"go"`
	Hosts       int               `json:"hosts"`
	InProcess   bool              `json:"in_process"`
	Window      int               `json:"window"`
	Database    map[string]string `json:"database"`
}

// Quantiles are the quantiles of a distribution, in the unit that the field's name gives.
type Quantiles struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// MigrationReport describes the state of a database's schema.
type MigrationReport struct {
	Version int64       `json:"version" doc:"The newest applied migration; 0 for an empty database."`
	Latest  int64       `json:"latest" doc:"The newest migration in this binary."`
	PGMQ    string      `json:"pgmq" doc:"Where the queue functions come from: extension, compatible, foreign or none."`
	Applied []Migration `json:"applied,omitempty" doc:"What this command applied."`
	Pending []Migration `json:"pending,omitempty"`
}

// Migration is one numbered change of the schema.
type Migration struct {
	Version int64  `json:"version"`
	Name    string `json:"name"`
}

// Pause says since when a queue is paused, by whom and why.
type Pause struct {
	Since  time.Time `json:"since"`
	By     string    `json:"by,omitempty" doc:"Who paused it."`
	Reason string    `json:"reason,omitempty"`
}

// WorkerReport is the result of checking an outside worker.
type WorkerReport struct {
	Command []string      `json:"command"`
	Checks  []WorkerCheck `json:"checks"`
}

// Passed reports whether the worker did everything right.
func (r *WorkerReport) Passed() bool {
	for i := range r.Checks {
		if !r.Checks[i].Passed {
			return false
		}
	}
	return true
}

// WorkerCheck is one thing that a worker must do right.
type WorkerCheck struct {
	Name      string  `json:"name"`
	Wants     string  `json:"wants"`
	Passed    bool    `json:"passed"`
	Complaint string  `json:"complaint,omitempty"` // what it did instead
	Seconds   float64 `json:"seconds"`
}
