package readmodel

import "time"

// PluginChange is a change to a plugin that is to be made, or was made.
type PluginChange struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Action string `json:"action" doc:"add, swap, reconfigure, retune, withdraw, remove, refuse or keep."`
	From   string `json:"from,omitempty" doc:"SHA-256 of the binary before."`
	To     string `json:"to,omitempty" doc:"SHA-256 of the binary after."`
	Reason string `json:"reason,omitempty"`
	Error  string `json:"error,omitempty" doc:"Why it was not done. What ran before keeps running."`
}

// PluginPlan is what the files ask for.
type PluginPlan struct {
	Path    string         `json:"path" doc:"The path of plugins.toml."`
	Changes []PluginChange `json:"changes"`
}

// PluginDetail is everything that a host knows about a plugin: what runs, why, and what
// was taken back.
type PluginDetail struct {
	Plugin
	Required     bool               `json:"required"`
	Selected     *PluginSelected    `json:"selected,omitempty" doc:"What plugins.toml names now."`
	Rollout      PluginRollout      `json:"rollout"`
	OnTrialUntil *time.Time         `json:"on_trial_until,omitempty" doc:"Until then it is compared with the previous generation, which takes over again if it did better."`
	StandbyUntil *time.Time         `json:"standby_until,omitempty" doc:"Until then the previous generation is kept warm for a rollback."`
	Generations  []PluginGeneration `json:"generations" doc:"Those that are running and some that ended recently; oldest first."`
	Quarantined  []PluginQuarantine `json:"quarantined" doc:"Binaries that this plugin no longer runs."`
}

// PluginSelected is the binary that the files name.
type PluginSelected struct {
	Path   string `json:"path"`
	Origin string `json:"origin" doc:"File and line."`
	Error  string `json:"error,omitempty" doc:"Why it is not running."`
}

// PluginRollout says how a new generation takes over.
type PluginRollout struct {
	Strategy string `json:"strategy" enum:"immediate,canary,shadow+canary"`
	Steps    []int  `json:"steps,omitempty" doc:"The canary's shares, in percent."`
	Hold     string `json:"hold,omitempty" doc:"A duration such as 1m0s."`
}

// PluginGeneration is one started process.
type PluginGeneration struct {
	Generation int64      `json:"generation"`
	Phase      string     `json:"phase"`
	Since      time.Time  `json:"since"`
	Reason     string     `json:"reason,omitempty" doc:"Why the phase last changed."`
	Artifact   string     `json:"artifact" doc:"SHA-256 of the binary."`
	Path       string     `json:"path,omitempty" doc:"Where the binary came from: the path in plugins.toml, or of a swap. Empty if it was already in the plugin store."`
	Version    string     `json:"version,omitempty"`
	PID        int        `json:"pid,omitempty"`
	StartedAt  *time.Time `json:"started_at,omitempty"`
	InFlight   int        `json:"in_flight"`
	Weight     int        `json:"weight,omitempty" doc:"The canary's share of the tasks, in percent."`
	Compared   int        `json:"compared,omitempty" doc:"Calls of a canary, or copies of calls that a shadow answered, in this step of its rollout."`
	Needed     int        `json:"needed,omitempty" doc:"How many of them the next step requires."`
	Differed   int        `json:"differed,omitempty" doc:"Copies that a shadow answered differently from the serving generation."`
	Limits     string     `json:"limits,omitempty" doc:"The user that the process runs as, if not the host's, and how its limits are enforced: by a control group, or not, and why."`
}

// PluginEvent is one thing that happened to a generation of a plugin, or to a
// binary.
type PluginEvent struct {
	ID         int64     `json:"id"`
	At         time.Time `json:"at"`
	Host       string    `json:"host,omitempty"`
	Kind       string    `json:"kind"`
	Name       string    `json:"name"`
	Generation int64     `json:"generation,omitempty"`
	From       string    `json:"from,omitempty" doc:"The previous phase."`
	To         string    `json:"to" doc:"The new phase."`
	Actor      string    `json:"actor" doc:"host, config, or operator:NAME."`
	Reason     string    `json:"reason,omitempty"`
	Artifact   string    `json:"artifact,omitempty" doc:"SHA-256 of the binary."`
	Version    string    `json:"version,omitempty"`
}

// PluginHistory is the history of a plugin on all hosts of the environment, latest
// first.
type PluginHistory struct {
	Items      []PluginEvent `json:"items"`
	NextCursor string        `json:"next_cursor,omitempty"`
}

// PluginQuarantine is a binary that a plugin no longer runs.
type PluginQuarantine struct {
	Artifact string    `json:"artifact" doc:"SHA-256 of the binary."`
	Since    time.Time `json:"since"`
	Actor    string    `json:"actor"`
	Reason   string    `json:"reason"`
}

// PluginLock says what 'tasker plugin lock' has written.
type PluginLock struct {
	Path    string             `json:"path"`
	Changed bool               `json:"changed" doc:"Whether the file has changed."`
	Plugins []LockedPlugin     `json:"plugins"`
	Dropped []DroppedChecksums `json:"dropped,omitempty" doc:"Checksums of other platforms that belonged to a previous binary."`
}

// LockedPlugin is one plugin of one environment in a lock.
type LockedPlugin struct {
	Environment string            `json:"environment"`
	Slot        string            `json:"slot" doc:"Kind and name, such as handler/arithmetic."`
	Version     string            `json:"version,omitempty"`
	SHA256      map[string]string `json:"sha256" doc:"By platform, such as linux/amd64."`
	Change      string            `json:"change" enum:"added,changed,unchanged,removed"`
}

// DroppedChecksums are checksums that must be locked again.
type DroppedChecksums struct {
	Environment string   `json:"environment"`
	Slot        string   `json:"slot"`
	Platforms   []string `json:"platforms"`
}

// PluginSignature is a signed file.
type PluginSignature struct {
	Path      string `json:"path"`
	SHA256    string `json:"sha256"`
	Signature string `json:"signature" doc:"The file that holds the signature."`
	Key       string `json:"key" doc:"The identifier of the signing key."`
}

// PluginKey is a new key pair.
type PluginKey struct {
	Private string `json:"private" doc:"The file that holds the private key."`
	Public  string `json:"public" doc:"The public key, for trust.keys of plugins.toml."`
}

// PluginDiff says how the plugins of environments differ.
type PluginDiff struct {
	Environments []string           `json:"environments"`
	Differences  []PluginDifference `json:"differences"`
}

// PluginDifference is one thing that is not the same everywhere.
type PluginDifference struct {
	Slot   string   `json:"slot" doc:"Kind and name; empty for settings of all plugins."`
	Field  string   `json:"field" doc:"A setting, sha256, version or plugin; options by their path."`
	Values []string `json:"values" doc:"One for each environment, in their order; empty if not set."`
}
