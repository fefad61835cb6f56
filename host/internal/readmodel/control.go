package readmodel

import "time"

// HostState is the operational state of the host that answers.
type HostState struct {
	Host       string     `json:"host" doc:"The name under which it is in the list of hosts."`
	State      string     `json:"state" enum:"startup,normal,graceful_shutdown,emergency,stopped"`
	Since      time.Time  `json:"since"`
	Reason     string     `json:"reason" doc:"Why it is in this state."`
	Next       []string   `json:"next" doc:"The states it can be told to enter now."`
	Steps      int        `json:"steps" doc:"The steps it holds a lease on."`
	DrainUntil *time.Time `json:"drain_until,omitempty" doc:"While it shuts down: when the steps that still run are cancelled and handed back."`
}

// Breaker is a circuit breaker of the host that answers.
type Breaker struct {
	Name         string    `json:"name" doc:"database, or queue.NAME.CLASS with a class of claim, read, settle."`
	State        string    `json:"state" enum:"closed,half_open,open,forced_open"`
	Since        time.Time `json:"since"`
	Reason       string    `json:"reason,omitempty" doc:"What opened it, or who and why."`
	Failures     int       `json:"failures" doc:"Failures in a row while it was closed: of one that opened, those that opened it."`
	Refused      int64     `json:"refused" format:"int64" doc:"Calls that it refused since the host started."`
	RetrySeconds float64   `json:"retry_seconds,omitempty" doc:"Of one that is open: when calls are tried again, at the latest."`
	Threshold    int       `json:"threshold" doc:"Failures in a row that open it."`
	Probes       int       `json:"probes" doc:"Successes that close it when it is half open."`
	Timeout      string    `json:"timeout" doc:"How long it stays open at most."`
}

// BreakerPage lists all breakers on one page, and whether they act.
type BreakerPage struct {
	Enabled bool      `json:"enabled" doc:"circuit_breakers.enabled: else every call is made."`
	Items   []Breaker `json:"items"`
}
