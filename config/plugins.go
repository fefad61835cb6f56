package config

import (
	"cmp"
	_ "embed" // plugin_defaults.toml
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

//go:embed plugin_defaults.toml
var pluginDefaults []byte

// KindHandler is the kind of the plugins that run steps.
const KindHandler = "handler"

// PluginSpec is one plugin that a host starts.
type PluginSpec struct {
	Kind string // KindHandler
	Name string // unique within the kind; lower-case letters, digits, _ and -
	PluginSettings

	// Env names the variables of the host's environment that the plugin gets;
	// it inherits no other.
	Env []string
	// Options is a JSON object for the plugin itself, "{}" if there are none.
	Options json.RawMessage
	// Origin is where plugins.toml names the plugin.
	Origin Origin
}

// PluginSettings are the settings of a plugin that are single values. Ranges
// stand in the tags, defaults in plugin_defaults.toml.
type PluginSettings struct {
	// Path is the plugin's binary, absolute.
	Path string `toml:"path" path:"yes"`
	// SHA256 is the binary's checksum in lower-case hexadecimal; empty: not
	// pinned.
	SHA256 string `toml:"sha256" match:"sha256"`
	// Required stops the host from starting if the plugin does not.
	Required bool `toml:"required"`
	// MaxInFlight is the most steps the plugin gets at once.
	MaxInFlight int `toml:"max_in_flight" min:"1" max:"100000"`
	// StartTimeout bounds the time from exec to ready.
	StartTimeout time.Duration `toml:"start_timeout" min:"100ms" max:"5m"`
}

// LoadPlugins reads plugins.toml for an environment:
//
//	[defaults]                         # for all plugins
//	start_timeout = "10s"
//
//	[plugin.handler.arithmetic]
//	path = "bin/plugins/arithmetic"    # relative to this file
//	sha256 = "…"
//	required = true
//	max_in_flight = 500
//	env = ["HTTP_PROXY"]
//	options = { precision = 30 }
//
//	[env.production.plugin.handler.arithmetic]
//	max_in_flight = 2000               # key by key over the above
//
// The plugins come sorted by kind and name. All faults come at once as an
// *Error.
func LoadPlugins(path, env string) ([]PluginSpec, error) {
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

func parsePlugins(path string, src []byte, env string) ([]PluginSpec, error) {
	r := &pluginReader{
		schema:   schemaOf(reflect.TypeFor[PluginSettings]()),
		root:     filepath.Dir(path),
		env:      env,
		defaults: newSettings(),
		plugins:  map[[2]string]*pluginDraft{},
		told:     map[string]bool{},
	}
	r.read("built-in plugin_defaults.toml", pluginDefaults)
	r.read(path, src)
	specs := r.specs()
	if err := r.problems.err(); err != nil {
		return nil, err
	}
	return specs, nil
}

// pluginDraft is what has been read about one plugin, by layer: its table and
// the overlay of the environment.
type pluginDraft struct {
	origin        Origin
	base, overlay settings
}

// settings are the keys that one table sets.
type settings struct {
	values  map[string]any
	options map[string]any
}

func newSettings() settings {
	return settings{values: map[string]any{}, options: map[string]any{}}
}

type pluginReader struct {
	schema   schema
	root     string
	env      string
	defaults settings
	plugins  map[[2]string]*pluginDraft
	told     map[string]bool // the tables that complain has named
	problems problems
}

var (
	pluginName   = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)
	variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

func (r *pluginReader) read(source string, src []byte) {
	entries, problem := parseDocument(source, src)
	if problem != nil {
		r.problems = append(r.problems, *problem)
		return
	}
	for _, e := range entries {
		r.entry(e, Origin{Source: source, Line: e.line})
	}
}

// entry files one key under its table.
func (r *pluginReader) entry(e entry, origin Origin) {
	path, overlay, active := e.path, false, true
	if path[0] == "env" && len(path) > 2 {
		path, overlay, active = path[2:], true, path[1] == r.env
	}
	key := strings.Join(e.path, ".")
	switch {
	case path[0] == "defaults" && !overlay && (len(path) > 1 || e.table):
		if len(path) > 1 {
			r.setting(r.defaults, path[1:], e, origin, key)
		}
	case path[0] == "plugin" && (len(path) > 3 || len(path) == 3 && e.table):
		target, ok := r.draft(path[1], path[2], overlay, active, origin)
		if ok && len(path) > 3 {
			r.setting(target, path[3:], e, origin, key)
		}
	case e.table && (path[0] == "plugin" || path[0] == "env") && len(path) < 3:
		// [plugin], [plugin.handler], [env] and [env.ENV] only hold others.
	case path[0] == "plugin":
		r.complain(e.path, origin, "want a table, got %s", describe(e.value))
	default:
		r.complain(e.path[:len(e.path)-len(path)+1], origin, "unknown; the tables are defaults, plugin.handler.NAME and env.ENV.plugin.handler.NAME")
	}
}

// complain reports a table's fault once, not again for each of its keys.
func (r *pluginReader) complain(path []string, origin Origin, format string, args ...any) {
	key := strings.Join(path, ".")
	if !r.told[key] {
		r.told[key] = true
		r.problems.add(origin, key, format, args...)
	}
}

// draft returns the settings that a plugin's table fills. Those of another
// environment are checked and then forgotten.
func (r *pluginReader) draft(kind, name string, overlay, active bool, origin Origin) (settings, bool) {
	if kind != KindHandler {
		r.complain([]string{"plugin", kind}, origin, "%.40q is not a kind of plugin: want %s", kind, KindHandler)
		return settings{}, false
	}
	if !pluginName.MatchString(name) {
		r.complain([]string{"plugin", kind, name}, origin, "%.70q is not a plugin's name: want lower-case letters, digits, _ and -, at most 63", name)
		return settings{}, false
	}
	if !active {
		return newSettings(), true
	}
	id := [2]string{kind, name}
	if r.plugins[id] == nil {
		r.plugins[id] = &pluginDraft{origin: origin, base: newSettings(), overlay: newSettings()}
	}
	if overlay {
		return r.plugins[id].overlay, true
	}
	return r.plugins[id].base, true
}

// setting puts one key of a plugin, path counted from its table.
func (r *pluginReader) setting(into settings, path []string, e entry, origin Origin, key string) {
	name := strings.Join(path, ".")
	leaf, known := r.schema[name]
	switch {
	case path[0] == "options":
		r.option(into, path[1:], e, origin, key)
	case e.table:
		r.problems.add(origin, key, "%s", r.unknown(name))
	case name == "env":
		r.variables(into, e, origin, key)
	case !known:
		r.problems.add(origin, key, "%s", r.unknown(name))
	default:
		value, err := leaf.fromTOML(e.value)
		if err == nil {
			err = leaf.check(value)
		}
		if err != nil {
			r.problems.add(origin, key, "%v", err)
			return
		}
		if text, ok := value.(string); ok && leaf.limits.path && text != "" && !filepath.IsAbs(text) {
			value = filepath.Join(r.root, text)
		}
		into.values[name] = value
	}
}

func (r *pluginReader) unknown(name string) string {
	names := append(r.schema.keys(), "env", "options")
	if near := nearest(name, names); near != "" {
		return "unknown key, did you mean " + near + "?"
	}
	slices.Sort(names)
	return "unknown key; a plugin has " + strings.Join(names, ", ")
}

func (r *pluginReader) option(into settings, path []string, e entry, origin Origin, key string) {
	if len(path) == 0 {
		if !e.table {
			r.problems.add(origin, key, "want a table, got %s", describe(e.value))
		}
		return
	}
	at := into.options
	for _, part := range path[:len(path)-1] {
		next, ok := at[part].(map[string]any)
		if !ok {
			next = map[string]any{}
			at[part] = next
		}
		at = next
	}
	last := path[len(path)-1]
	if !e.table {
		at[last] = e.value
	} else if _, ok := at[last].(map[string]any); !ok {
		at[last] = map[string]any{}
	}
}

func (r *pluginReader) variables(into settings, e entry, origin Origin, key string) {
	list, ok := e.value.([]any)
	if !ok {
		r.problems.add(origin, key, "want an array of names, got %s", describe(e.value))
		return
	}
	names := make([]string, 0, len(list))
	for _, item := range list {
		name, ok := item.(string)
		if !ok || !variableName.MatchString(name) {
			r.problems.add(origin, key, "%.40q is not the name of an environment variable", fmt.Sprint(item))
			continue
		}
		names = append(names, name)
	}
	into.values["env"] = names
}

// specs merges each plugin's layers: defaults, its table, its overlay.
func (r *pluginReader) specs() []PluginSpec {
	specs := make([]PluginSpec, 0, len(r.plugins))
	for id, draft := range r.plugins {
		values := maps.Clone(r.defaults.values)
		maps.Copy(values, draft.base.values)
		maps.Copy(values, draft.overlay.values)
		options := mergeTables(mergeTables(r.defaults.options, draft.base.options), draft.overlay.options)

		spec := PluginSpec{Kind: id[0], Name: id[1], Origin: draft.origin}
		spec.Env, _ = values["env"].([]string)
		settings := reflect.ValueOf(&spec.PluginSettings).Elem()
		for name, leaf := range r.schema {
			if value, set := values[name]; set {
				settings.FieldByIndex(leaf.index).Set(reflect.ValueOf(value))
			}
		}
		if spec.Path == "" {
			r.problems.add(draft.origin, "plugin."+id[0]+"."+id[1], "path is missing")
		}
		encoded, err := json.Marshal(options)
		if err != nil {
			r.problems.add(draft.origin, "plugin."+id[0]+"."+id[1]+".options", "no JSON for it: %v", err)
		}
		spec.Options = encoded
		specs = append(specs, spec)
	}
	slices.SortFunc(specs, func(a, b PluginSpec) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return specs
}

// mergeTables returns base with over laid on top, tables merged and all else
// replaced.
func mergeTables(base, over map[string]any) map[string]any {
	merged := maps.Clone(base)
	for key, value := range over {
		below, isTable := value.(map[string]any)
		if under, ok := merged[key].(map[string]any); ok && isTable {
			value = mergeTables(under, below)
		}
		merged[key] = value
	}
	return merged
}
