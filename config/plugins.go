package config

import (
	_ "embed" // plugin_defaults.toml
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"
)

//go:embed plugin_defaults.toml
var pluginDefaults []byte

// The kinds of plugins.
const (
	KindHandler = "handler" // runs steps
	KindScaling = "scaling" // decides how many executors a pool has
	KindHealth  = "health"  // checks health, or reports it to others
)

// The ways in which a new binary or new settings take over.
const (
	RolloutImmediate = "immediate"     // as soon as it has proved to work
	RolloutCanary    = "canary"        // first gets a growing share of the work
	RolloutShadow    = "shadow+canary" // first gets copies of the calls, whose answers are discarded
)

// Plugins is the content of plugins.toml for one environment.
type Plugins struct {
	Environment string
	// Path is the file, absolute.
	Path string
	// Specs are sorted by kind and name.
	Specs []PluginSpec
	PluginPolicy
}

// PluginPolicy says which binaries may run.
type PluginPolicy struct {
	Lock  LockPolicy  `toml:"lock"`
	Trust TrustPolicy `toml:"trust"`
}

// LockPolicy says what plugins.lock is for.
type LockPolicy struct {
	// Required refuses a binary whose checksum is not the one in plugins.lock.
	Required bool `toml:"required"`
}

// TrustPolicy says who may sign plugins.
type TrustPolicy struct {
	// Keys are the public keys, in minisign's format, of those who may sign
	// plugins. If there are any, a binary runs only if it has a signature by one
	// of them, in a file next to it named like the binary plus .minisig.
	Keys []string `toml:"keys"`
}

// PluginSpec is one plugin that a host starts.
type PluginSpec struct {
	Kind string // KindHandler, KindScaling or KindHealth
	Name string // unique within the kind; lower-case letters, digits, _ and -
	PluginSettings

	// Env names the variables of the host's environment that the plugin gets;
	// it inherits no other.
	Env []string
	// Options is a JSON object for the plugin itself, "{}" if there are none.
	// Secrets in it are references, which ResolveOptions replaces.
	Options json.RawMessage
	// Origin is where plugins.toml names the plugin.
	Origin Origin

	options  map[string]Origin // where each option is set, by JSON pointer
	settings map[string]Origin // where a file sets each setting, by key
}

// At returns where a setting is set, or where the plugin is named if it has the
// built-in default.
func (s *PluginSpec) At(key string) Origin {
	if o, ok := s.settings[key]; ok {
		return o
	}
	return s.Origin
}

// Slot returns kind and name: handler/arithmetic.
func (s *PluginSpec) Slot() string { return s.Kind + "/" + s.Name }

// PluginSettings are the settings of a plugin that are single values, with Path
// made absolute. Ranges are in the tags, defaults in plugin_defaults.toml.
type PluginSettings struct {
	// Path is the path of the plugin's binary; a relative path starts from the
	// folder of plugins.toml.
	Path string `toml:"path" path:"yes"`
	// SHA256 is the binary's checksum in lower-case hexadecimal; if empty, the
	// binary is not pinned.
	SHA256 string `toml:"sha256" match:"sha256"`
	// Required keeps the host from starting if the plugin does not start.
	Required bool `toml:"required"`
	// User is the user that the plugin's process runs as, NAME or NAME:GROUP; if
	// empty, the host's user. For any other user the host must run as root or have
	// the necessary capabilities; otherwise the plugin is refused.
	User string `toml:"user" match:"user"`
	// MaxInFlight is the maximum number of steps that the plugin gets at once.
	MaxInFlight int `toml:"max_in_flight" min:"1" max:"100000"`
	// StartTimeout is how long the plugin may take from exec to ready.
	StartTimeout time.Duration `toml:"start_timeout" min:"100ms" max:"5m"`
	// DrainTimeout is how long a replaced process may take to finish its steps;
	// steps that remain are retried on its successor.
	DrainTimeout time.Duration `toml:"drain_timeout" min:"0s" max:"1h"`
	// RollbackWindow is how long a replaced process is kept warm, so that a
	// rollback need not start one.
	RollbackWindow time.Duration `toml:"rollback_window" min:"0s" max:"24h"`
	// MemoryLimit is the amount of memory that the plugin's Go runtime tries to
	// stay below; 0: no limit.
	MemoryLimit Bytes `toml:"memory_limit" min:"0" max:"1TiB"`
	// MaxMemory is how much memory the plugin and the processes it starts may use;
	// 0: no limit. A control group enforces it if the host may create one;
	// otherwise the host ends a process that uses more. The plugin is restarted. If
	// this happens again and again, its binary goes to quarantine if another binary
	// has served before.
	MaxMemory Bytes `toml:"max_memory" min:"0" max:"1TiB"`
	// MaxProcesses is how many processes and threads the plugin may have, enforced
	// by a control group; 0: no limit.
	MaxProcesses int `toml:"max_processes" min:"0" max:"100000"`
	// MaxCPUs is how many processors the plugin may use, enforced by a control
	// group; 0: all.
	MaxCPUs float64 `toml:"max_cpus" min:"0" max:"1024"`
	// MaxLogLines is the maximum number of lines per second that the host takes
	// from the plugin's output; further lines are counted and dropped.
	MaxLogLines int `toml:"max_log_lines" min:"1" max:"1000000"`
	// MaxLogBytes is the same limit in bytes per second.
	MaxLogBytes Bytes `toml:"max_log_bytes" min:"1KiB" max:"1GiB"`
	// Rollout is how a new binary takes over.
	Rollout Rollout `toml:"rollout"`
}

// Rollout is how a new binary, or new settings, take over.
type Rollout struct {
	// Strategy is how a new binary, or new settings, take over: immediate; canary,
	// which first gives the new process a growing share of the work; or, for
	// scaling and health, shadow+canary, which first gives it copies of the calls
	// and discards its answers.
	Strategy string `toml:"strategy" oneof:"immediate,canary,shadow+canary"`
	// Steps are the shares of a canary in percent, each larger than the one
	// before. After the last one, the canary gets all the work.
	Steps []int `toml:"steps"`
	// Hold is the minimum time that each share, or the shadow phase, lasts.
	Hold time.Duration `toml:"hold" min:"1s" max:"24h"`
	// LatencyFloor is the extra time that a call may take, beyond 1.5 times what
	// calls took before, without counting as slower. It applies to canaries and to
	// the trial after any takeover. Set it lower for calls that take a millisecond,
	// and higher where times vary widely.
	LatencyFloor time.Duration `toml:"latency_floor" min:"1ms" max:"1h"`
}

// LoadPlugins reads plugins.toml for an environment:
//
//	[defaults]                         # for all plugins
//	start_timeout = "10s"
//
//	[plugin.handler.arithmetic]
//	path = "bin/plugins/arithmetic"    # relative to this file
//	required = true
//	max_in_flight = 500
//	env = ["HTTP_PROXY"]
//	options = { precision = 30, key = { from_env = "MATH_KEY" } }
//	rollout = { strategy = "canary", steps = [1, 10, 50], hold = "1m" }
//
//	[env.production.plugin.handler.arithmetic]
//	max_in_flight = 2000               # overrides single keys
//
//	[lock]
//	required = true                    # run only what plugins.lock lists
//
//	[env.production.trust]
//	keys = ["RWQ…"]                    # … and only what one of these keys signed
//
// All faults are reported at once, as an *Error.
func LoadPlugins(path, env string) (*Plugins, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("read plugins: %w", err)
	}
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read plugins: %w", err)
	}
	return parsePlugins(path, src, env)
}

// ParsePlugins is LoadPlugins for a text that may become the file.
func ParsePlugins(path string, text []byte, env string) (*Plugins, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("read plugins: %w", err)
	}
	return parsePlugins(path, text, env)
}

// PluginEnvironments returns the environments of a plugins.toml in order: the built-in
// ones and those that it names.
func PluginEnvironments(path string) ([]string, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read plugins: %w", err)
	}
	entries, problem := parseDocument(path, src)
	if problem != nil {
		return nil, &Error{Problems: []Problem{*problem}}
	}
	names := builtinEnvironments()
	for _, e := range entries {
		if e.path[0] == "env" && len(e.path) > 1 && !slices.Contains(names, e.path[1]) {
			names = append(names, e.path[1])
		}
	}
	slices.Sort(names)
	return names, nil
}

// Values returns the settings as text, by their keys.
func (s *PluginSettings) Values() map[string]string {
	values := map[string]string{}
	settings := reflect.ValueOf(s).Elem()
	for key, leaf := range schemaOf(settings.Type()) {
		values[key] = fmt.Sprint(settings.FieldByIndex(leaf.index).Interface())
	}
	return values
}
