package readmodel

import "time"

// Kinds of events.
const (
	EventTask   = "task"
	EventStep   = "step"
	EventPlugin = "plugin"
	EventAudit  = "audit"
	EventHost   = "host"
	EventHealth = "health"
)

// EventKinds lists all kinds.
var EventKinds = []string{EventTask, EventStep, EventPlugin, EventAudit, EventHost, EventHealth}

// Event is one thing that happened in the system.
type Event struct {
	ID        string    `json:"id" doc:"The event's position in the stream: sent as Last-Event-ID, it brings all that follows."`
	Kind      string    `json:"kind" enum:"task,step,plugin,audit,host,health"`
	At        time.Time `json:"at"`
	Namespace string    `json:"namespace,omitempty" doc:"Of the task."`
	TaskUUID  string    `json:"task_uuid,omitempty" format:"uuid"`
	StepUUID  string    `json:"step_uuid,omitempty" format:"uuid"`
	Step      string    `json:"step,omitempty" doc:"The step's name."`
	SortKey   int64     `json:"sort_key" doc:"Increases with every event of the same task or step, otherwise of the same kind."`
	Subject   string    `json:"subject,omitempty" doc:"What it is about, if not a task: KIND/NAME of a plugin, the number of a host, the name of a check, what an operator changed."`
	From      string    `json:"from,omitempty" doc:"The previous state; empty for something new, and for the audit."`
	To        string    `json:"to" doc:"The new state; for the audit, the outcome."`
	Host      string    `json:"host,omitempty" doc:"The host that did or saw it."`
	Actor     string    `json:"actor,omitempty" doc:"Who did it, if not the host itself."`
	Action    string    `json:"action,omitempty" doc:"For the audit: method and path."`
	Reason    string    `json:"reason,omitempty"`
	Message   string    `json:"message,omitempty" doc:"A step's error, at most 500 characters."`
	RequestID string    `json:"request_id,omitempty" doc:"For the audit: identifies the request in the log."`
	// PluginGeneration is the plugin process that the event is about.
	PluginGeneration int64 `json:"plugin_generation,omitempty" doc:"The generation of the plugin process."`
}

// CutOff is the last message of a stream to a client that reads too slowly.
type CutOff struct {
	Code        string `json:"code" enum:"too_slow"`
	Detail      string `json:"detail"`
	ResumeAfter string `json:"resume_after" doc:"The id to send as Last-Event-ID."`
}
