package readmodel

import "time"

// HostState is the operational state of the responding host.
type HostState struct {
	Host       string     `json:"host" doc:"Its name in the list of hosts."`
	State      string     `json:"state" enum:"startup,normal,graceful_shutdown,emergency,stopped"`
	Since      time.Time  `json:"since"`
	Reason     string     `json:"reason" doc:"Why it is in this state."`
	Next       []string   `json:"next" doc:"The states that it can be moved to now."`
	Steps      int        `json:"steps" doc:"The steps it holds a lease on."`
	DrainUntil *time.Time `json:"drain_until,omitempty" doc:"During a shutdown: when the steps that are still running are cancelled and given back."`
}

// Breaker is a circuit breaker of the responding host.
type Breaker struct {
	Name         string    `json:"name" doc:"database, or queue.NAME.CLASS with a class of claim, read or settle."`
	State        string    `json:"state" enum:"closed,half_open,open,forced_open"`
	Since        time.Time `json:"since"`
	Reason       string    `json:"reason,omitempty" doc:"What opened it, or who and why."`
	Failures     int       `json:"failures" doc:"Consecutive failures while it was closed; for an open breaker, those that opened it."`
	Refused      int64     `json:"refused" format:"int64" doc:"Calls that it refused since the host started."`
	RetrySeconds float64   `json:"retry_seconds,omitempty" doc:"For an open breaker: when calls are tried again, at the latest."`
	Threshold    int       `json:"threshold" doc:"Consecutive failures that open it."`
	Probes       int       `json:"probes" doc:"Successes that close it when it is half open."`
	Timeout      string    `json:"timeout" doc:"How long it stays open at most."`
}

// BreakerPage lists all breakers on one page, and whether they are enabled.
type BreakerPage struct {
	Enabled bool      `json:"enabled" doc:"circuit_breakers.enabled; if false, every call is made."`
	Items   []Breaker `json:"items"`
}
