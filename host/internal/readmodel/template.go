package readmodel

import (
	"encoding/json"
	"time"
)

// Template is one version of a task template.
type Template struct {
	Namespace   string          `json:"namespace"`
	Name        string          `json:"name"`
	Version     string          `json:"version"`
	Description string          `json:"description,omitempty"`
	Priority    int             `json:"priority"`
	Identity    string          `json:"identity" enum:"allow,reject,return_existing" doc:"What happens to a submission if a task with the same context exists."`
	InputSchema json.RawMessage `json:"input_schema,omitempty" doc:"JSON Schema of the task's context."`
	Steps       []TemplateStep  `json:"steps" doc:"In topological order."`
	// Environments lists the environments with overrides.
	Environments []string   `json:"environments,omitempty" doc:"The environments for which the template overrides something."`
	AppliedAt    *time.Time `json:"applied_at,omitempty" doc:"Absent for a template that was only validated."`
	Warnings     []string   `json:"warnings,omitempty" doc:"What will not work at present, such as a handler that nobody serves."`
}

// TemplateStep is one step of a template, as in its base plan.
type TemplateStep struct {
	Name        string          `json:"name"`
	Handler     string          `json:"handler"`
	Description string          `json:"description,omitempty"`
	DependsOn   []string        `json:"depends_on,omitempty"`
	Config      json.RawMessage `json:"config,omitempty"`
	Priority    *int            `json:"priority,omitempty"`
	Skippable   bool            `json:"skippable,omitempty" doc:"Whether an operator may skip it."`
	Timeout     string          `json:"timeout,omitempty" doc:"A duration such as 30s; absent means none."`
	Retry       TemplateRetry   `json:"retry"`
	Served      bool            `json:"served" doc:"Whether somebody serves the handler now."`
}

// TemplateRetry is a step's retry policy.
type TemplateRetry struct {
	Retryable   bool    `json:"retryable"`
	MaxAttempts int     `json:"max_attempts"`
	Backoff     string  `json:"backoff" enum:"exponential,linear,fixed,none"`
	Base        string  `json:"base" doc:"A duration such as 1s."`
	Cap         string  `json:"cap"`
	Jitter      float64 `json:"jitter"`
}

// TemplateSummary is a template in a list.
type TemplateSummary struct {
	Namespace   string     `json:"namespace"`
	Name        string     `json:"name"`
	Version     string     `json:"version"`
	Description string     `json:"description,omitempty"`
	Steps       int        `json:"steps"`
	AppliedAt   *time.Time `json:"applied_at,omitempty"`
	Warnings    []string   `json:"warnings,omitempty"`
}
