package readmodel

import "time"

// Plugin is one plugin slot and what runs in it.
type Plugin struct {
	Kind       string     `json:"kind" enum:"handler,scaling,health"`
	Name       string     `json:"name"`
	Version    string     `json:"version,omitempty" doc:"As the plugin describes itself."`
	Artifact   string     `json:"artifact,omitempty" doc:"SHA-256 of the binary, in hexadecimal."`
	Generation int64      `json:"generation,omitempty" doc:"The started process, unique over hosts and for ever."`
	PID        int        `json:"pid,omitempty"`
	State      string     `json:"state" doc:"starting, serving, draining, backing_off, failed or stopped."`
	Restarts   int        `json:"restarts"`
	StartedAt  *time.Time `json:"started_at,omitempty"`
	Message    string     `json:"message,omitempty" doc:"Why it is not serving, and what to do."`
	Handlers   []Handler  `json:"handlers,omitempty"`
}

// Handler is one handler that a plugin serves.
type Handler struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	InFlight    int    `json:"in_flight" doc:"Steps that it runs now."`
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

// The words of Health.Status.
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

// DoctorCheck is one thing that the doctor looked at.
type DoctorCheck struct {
	Name    string       `json:"name" doc:"Stable, lower_snake."`
	Status  DoctorStatus `json:"status" enum:"ok,warn,fail"`
	Message string       `json:"message" doc:"What was found."`
	Fix     string       `json:"fix,omitempty" doc:"What to do about it."`
}

// DoctorReport is all that the doctor found.
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

// BenchReport is what a benchmark measured.
type BenchReport struct {
	Name            string    `json:"name"`
	Tasks           int       `json:"tasks"`
	Steps           int       `json:"steps"`
	Seconds         float64   `json:"seconds"`
	TasksPerSecond  float64   `json:"tasks_per_second"`
	StepsPerSecond  float64   `json:"steps_per_second"`
	LatencyMS       Quantiles `json:"latency_ms" doc:"From submission to completion of a task."`
	WALBytesPerStep float64   `json:"wal_bytes_per_step"`
	CommitsPerStep  float64   `json:"commits_per_step"`
	// Extra holds measures beside the stable ones, by name.
	Extra map[string]float64 `json:"extra,omitempty"`
}

// Quantiles are those of a distribution, in the unit of the field's name.
type Quantiles struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// MigrationReport says where a database's schema stands.
type MigrationReport struct {
	Version int64       `json:"version" doc:"The newest migration in place; 0 for an empty database."`
	Latest  int64       `json:"latest" doc:"The newest migration this binary brings."`
	PGMQ    string      `json:"pgmq" doc:"Where the queue functions come from: extension, compatible, foreign or none."`
	Applied []Migration `json:"applied,omitempty" doc:"What this command applied."`
	Pending []Migration `json:"pending,omitempty"`
}

// Migration is one numbered change of the schema.
type Migration struct {
	Version int64  `json:"version"`
	Name    string `json:"name"`
}
