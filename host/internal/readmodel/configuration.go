package readmodel

import "time"

// Configuration is a host's configuration, without the values of secrets.
type Configuration struct {
	Environment string      `json:"environment"`
	Directory   string      `json:"directory,omitempty" doc:"The operator's directory, if there is one."`
	Generation  int         `json:"generation,omitempty" doc:"How many configurations have come into force since the host started; 0 if no host is running."`
	AppliedAt   *time.Time  `json:"applied_at,omitempty"`
	Keys        []ConfigKey `json:"keys"`
	Restart     []string    `json:"waits_for_restart,omitempty" doc:"Keys whose new values take effect when the host restarts."`
	Refused     string      `json:"refused,omitempty" doc:"Why the last change of the files was refused; an older configuration is in force."`
}

// Reload is the result of reading the configuration again.
type Reload struct {
	Generation int      `json:"generation"`
	Applied    []string `json:"applied" doc:"Keys whose values changed now."`
	Restart    []string `json:"waits_for_restart,omitempty" doc:"Keys whose new values take effect when the host restarts."`
}

// ConfigKey is one key with its value.
type ConfigKey struct {
	Key    string `json:"key"`
	Value  any    `json:"value" doc:"Text, number or boolean. A secret that is set reads [redacted]."`
	Origin string `json:"origin" doc:"File and line, environment variable, override or derived."`
	Secret bool   `json:"secret,omitempty"`
}

// ConfigDiff compares the configurations in force in several environments.
type ConfigDiff struct {
	Environments []string        `json:"environments"`
	Keys         []ConfigDiffKey `json:"keys"`
}

// ConfigDiffKey is a key whose values differ, as TOML, in the order of the
// environments.
type ConfigDiffKey struct {
	Key    string   `json:"key"`
	Values []string `json:"values"`
}
