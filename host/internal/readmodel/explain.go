package readmodel

import "time"

// Explanation says why a task or a step does not run, or that it does.
type Explanation struct {
	TaskUUID string     `json:"task_uuid" format:"uuid"`
	StepUUID string     `json:"step_uuid,omitempty" format:"uuid"`
	Step     string     `json:"step,omitempty" doc:"The step's name."`
	State    string     `json:"state"`
	Cause    Cause      `json:"cause" enum:"finished,failed,claims_exhausted,cancelled,running,lease_expired,waiting_for_parents,blocked_by_failure,retry_due,queue_paused,no_host,handler_unserved,plugin_starting,plugin_backing_off,plugin_breaker_open,plugin_refused,plugin_stopped,hosts_draining,queued,stalled"`
	Text     string     `json:"text" doc:"The cause in one sentence."`
	Until    *time.Time `json:"until,omitempty" doc:"Until when it lasts, if that is known."`
}

// TaskExplanation explains a task, with its steps that could move.
type TaskExplanation struct {
	Explanation
	Steps []Explanation `json:"steps,omitempty" doc:"The steps that are not settled and do not wait for parents, and those that failed; at most 50."`
}

// Cause is the stable name of a reason why something does not run.
type Cause string

// The causes.
const (
	CauseFinished    Cause = "finished"            // it is complete, or an operator declared it done
	CauseFailed      Cause = "failed"              // for good
	CauseClaims      Cause = "claims_exhausted"    // it was claimed too often without an outcome
	CauseCancelled   Cause = "cancelled"           // with its task
	CauseRunning     Cause = "running"             // somebody holds its lease
	CauseLeaseOver   Cause = "lease_expired"       // nothing was heard of the holder; the step is given back soon
	CauseParents     Cause = "waiting_for_parents" // which have not finished yet
	CauseBlocked     Cause = "blocked_by_failure"  // a step above it failed for good
	CauseRetryDue    Cause = "retry_due"           // it waits for its next attempt
	CausePaused      Cause = "queue_paused"        // an operator paused its namespace
	CauseNoHost      Cause = "no_host"             // no host is alive
	CauseUnserved    Cause = "handler_unserved"    // no live host serves its handler, for no reason that this host knows
	CauseStarting    Cause = "plugin_starting"     // no live host serves its handler; a plugin of this host…
	CauseBackingOff  Cause = "plugin_backing_off"  // …died and is started again soon
	CauseBreakerOpen Cause = "plugin_breaker_open" // …died too often and rests
	CauseRefused     Cause = "plugin_refused"      // …may not run
	CauseStopped     Cause = "plugin_stopped"      // …is stopped
	CauseDraining    Cause = "hosts_draining"      // the hosts that serve its handler shut down
	CauseQueued      Cause = "queued"              // it waits behind others
	CauseStalled     Cause = "stalled"             // nothing in the task can move; the sweep ends it
)
