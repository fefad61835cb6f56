package readmodel

import (
	"encoding/json"
	"time"
)

// DeadLetter is a message that cannot be processed, or a step that has failed for good.
type DeadLetter struct {
	ID         int64           `json:"id" format:"int64"`
	Kind       string          `json:"kind" enum:"message,step"`
	Reason     string          `json:"reason" doc:"A stable word, such as malformed or attempts_exhausted."`
	Detail     string          `json:"detail,omitempty" doc:"What was wrong."`
	Namespace  string          `json:"namespace,omitempty" doc:"For steps."`
	Queue      string          `json:"queue,omitempty" doc:"For messages: where it came from."`
	MessageID  int64           `json:"message_id,omitempty" doc:"For messages: its number in that queue."`
	TaskUUID   string          `json:"task_uuid,omitempty" format:"uuid"`
	StepUUID   string          `json:"step_uuid,omitempty" format:"uuid"`
	Step       string          `json:"step,omitempty" doc:"The step's name."`
	Generation int             `json:"generation,omitempty" doc:"The step's generation when it failed."`
	CreatedAt  time.Time       `json:"created_at"`
	Closed     *LetterClosed   `json:"closed,omitempty" doc:"How it was dealt with; absent while it is open."`
	Body       json.RawMessage `json:"body,omitempty" doc:"The message, or the step's error. Omitted from lists."`
	Headers    json.RawMessage `json:"headers,omitempty" doc:"For messages. Omitted from lists."`
}

// LetterClosed says how a dead letter was dealt with.
type LetterClosed struct {
	At     time.Time `json:"at"`
	As     string    `json:"as" enum:"replayed,resolved,cancelled,discarded"`
	By     string    `json:"by,omitempty" doc:"The principal, such as token:deploy."`
	Reason string    `json:"reason,omitempty"`
}

// DeadLetterPage is a page of dead letters, newest first, without bodies.
type DeadLetterPage struct {
	Items      []DeadLetter `json:"items"`
	NextCursor string       `json:"next_cursor,omitempty"`
}

// LetterBatch is the result of a batch of dead letters.
type LetterBatch struct {
	Done       int             `json:"done" doc:"How many were replayed or discarded."`
	Failed     []LetterFailure `json:"failed,omitempty"`
	NextCursor string          `json:"next_cursor,omitempty" doc:"Continues with the next batch; absent on the last one."`
}

// LetterFailure is a dead letter that could not be dealt with.
type LetterFailure struct {
	ID     int64  `json:"id" format:"int64"`
	Detail string `json:"detail"`
}

// Queue is the queue of a namespace's steps.
type Queue struct {
	Namespace string     `json:"namespace"`
	Queue     string     `json:"queue" doc:"The name of its queue in pgmq."`
	Waiting   int        `json:"waiting" doc:"Messages of steps that may run now; counted up to 10000."`
	Delayed   int        `json:"delayed" doc:"Messages of steps that are due later; counted up to 10000."`
	OldestAt  *time.Time `json:"oldest_at,omitempty" doc:"When the oldest message that may run now arrived."`
	Paused    *Pause     `json:"paused,omitempty" doc:"Present while no step of the namespace is started."`
}

// QueuePage lists all queues on one page.
type QueuePage struct {
	Items []Queue `json:"items"`
}

// Worker is an outside worker: a program that claims steps through SQL functions.
type Worker struct {
	Name        string    `json:"name" doc:"The name that it gave itself."`
	Namespace   string    `json:"namespace"`
	FirstSeenAt time.Time `json:"first_seen_at"`
	LastSeenAt  time.Time `json:"last_seen_at" doc:"When it last claimed steps or sent a heartbeat, to within five seconds."`
	Leases      int       `json:"leases" doc:"Steps that it is running now."`
	Done        int64     `json:"done" doc:"Steps it has completed."`
	Failed      int64     `json:"failed" doc:"Attempts it has settled as failures."`
	Released    int64     `json:"released" doc:"Steps it has given back."`
	Lost        int64     `json:"lost" doc:"Leases that ended without a result: they expired, timed out or were cancelled."`
}

// WorkerPage lists workers on one page.
type WorkerPage struct {
	Items []Worker `json:"items"`
}

// Host is a host that uses the database.
type Host struct {
	ID          int       `json:"id"`
	Name        string    `json:"name"`
	Version     string    `json:"version"`
	Environment string    `json:"environment"`
	State       string    `json:"state" doc:"startup, normal, graceful_shutdown, emergency, stopped or dead."`
	Alive       bool      `json:"alive" doc:"Whether its leases are valid."`
	StartedAt   time.Time `json:"started_at"`
	HeartbeatAt time.Time `json:"heartbeat_at" doc:"When its last heartbeat arrived."`
	AliveUntil  time.Time `json:"alive_until" doc:"When its leases end unless another heartbeat arrives."`
	Served      []string  `json:"served" doc:"The handlers its plugins serve."`
	// Plugins are reported by the host up to ten seconds after they change.
	Plugins []HostPlugin `json:"plugins" doc:"The plugins that it runs, or ran at its last heartbeat."`
}

// HostPlugin is a plugin as its host reports it to others.
type HostPlugin struct {
	Kind       string `json:"kind" doc:"handler, scaling or health."`
	Name       string `json:"name"`
	Version    string `json:"version" doc:"As the plugin describes itself."`
	Generation uint64 `json:"generation" doc:"The process that is serving."`
}

// HostPage lists hosts on one page, newest first.
type HostPage struct {
	Items []Host `json:"items"`
}
