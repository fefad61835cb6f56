package config

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/tasker-systems/tasker-host/internal/spelling"
)

// pluginTables lists the tables of a plugins.toml, for messages.
const pluginTables = "the tables are defaults, lock, trust, plugin.KIND.NAME, env.ENV.lock, env.ENV.trust and env.ENV.plugin.KIND.NAME"

var (
	pluginKinds  = []string{KindHandler, KindHealth, KindScaling}
	pluginName   = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)
	variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// builtInDefaults is the source of settings that no file sets.
const builtInDefaults = "built-in plugin_defaults.toml"

func parsePlugins(path string, src []byte, env string) (*Plugins, error) {
	r := newPluginReader(filepath.Dir(path), env)
	r.read(builtInDefaults, pluginDefaults)
	r.read(path, src)
	p := &Plugins{Environment: env, Path: path, Specs: r.specs(), PluginPolicy: r.policyOf()}
	if err := r.problems.err(); err != nil {
		return nil, err
	}
	return p, nil
}

func newPluginReader(root, env string) *pluginReader {
	return &pluginReader{
		settings:  schemaOf(reflect.TypeFor[PluginSettings]()),
		policies:  schemaOf(reflect.TypeFor[PluginPolicy]()),
		root:      root,
		env:       env,
		defaults:  newSettings(),
		plugins:   map[[2]string]*pluginDraft{},
		policy:    newSettings(),
		envPolicy: newSettings(),
		told:      map[string]bool{},
	}
}

// pluginDraft holds what was read about one plugin, by layer: its table and the
// environment's overlay.
type pluginDraft struct {
	origin        Origin
	base, overlay settings
}

// settings are the keys that one table sets, and their origins.
type settings struct {
	values  map[string]any
	options map[string]any
	origins map[string]Origin // by key for values, by JSON pointer for options
}

func newSettings() settings {
	return settings{values: map[string]any{}, options: map[string]any{}, origins: map[string]Origin{}}
}

type pluginReader struct {
	settings, policies schema
	root               string
	env                string
	defaults           settings
	plugins            map[[2]string]*pluginDraft
	policy, envPolicy  settings
	told               map[string]bool // the tables that complain has reported
	problems           problems
}

func (r *pluginReader) read(source string, src []byte) {
	entries, problem := parseDocument(source, src)
	if problem != nil {
		if strings.HasSuffix(problem.Message, "already exists") {
			problem.Message += ": a plugin has one table, and one more in each env.ENV; merge the two"
		}
		r.problems = append(r.problems, *problem)
		return
	}
	for _, e := range entries {
		r.entry(e, Origin{Source: source, Line: e.line})
	}
}

// entry stores one key under its table.
func (r *pluginReader) entry(e entry, origin Origin) {
	path, overlay, active := e.path, false, true
	if path[0] == "env" && len(path) > 2 {
		path, overlay, active = path[2:], true, path[1] == r.env
	}
	switch table := path[0]; {
	case table == "defaults" && !overlay && (len(path) > 1 || e.table):
		if len(path) > 1 {
			r.setting(r.defaults, path[1:], e, origin)
		}
	case table == "lock" || table == "trust":
		r.policyEntry(path, e, origin, overlay, active)
	case table == "plugin" && (len(path) > 3 || len(path) == 3 && e.table):
		target, ok := r.draft(path[1], path[2], overlay, active, origin)
		if ok && len(path) > 3 {
			r.setting(target, path[3:], e, origin)
		}
	case e.table && (table == "plugin" || table == "env") && len(path) < 3:
		// [plugin], [plugin.handler], [env] and [env.ENV] only contain others.
	case table == "plugin":
		r.complain(e.path, origin, "want a table, got %s", describe(e.value))
	default:
		r.complain(e.path[:len(e.path)-len(path)+1], origin, "%s", unknownTable(table, overlay))
	}
}

func unknownTable(name string, overlay bool) string {
	tables := []string{"defaults", "lock", "trust", "plugin", "env"}
	if overlay {
		tables = []string{"lock", "trust", "plugin"}
	}
	if near := spelling.Nearest(name, tables); near != "" {
		return "unknown, did you mean " + near + "? " + pluginTables
	}
	return "unknown; " + pluginTables
}

// complain reports a table's fault only once, not for each of its keys.
func (r *pluginReader) complain(path []string, origin Origin, format string, args ...any) {
	key := strings.Join(path, ".")
	if !r.told[key] {
		r.told[key] = true
		r.problems.add(origin, key, format, args...)
	}
}

// draft returns the settings to fill from a plugin's table. Settings of other
// environments are checked and then discarded.
func (r *pluginReader) draft(kind, name string, overlay, active bool, origin Origin) (settings, bool) {
	if !slices.Contains(pluginKinds, kind) {
		r.complain([]string{"plugin", kind}, origin, "%.40q is not a kind of plugin: want %s", kind, strings.Join(pluginKinds, ", "))
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

// setting stores one key of a plugin; path starts at its table.
func (r *pluginReader) setting(into settings, path []string, e entry, origin Origin) {
	name, key := strings.Join(path, "."), strings.Join(e.path, ".")
	leaf, known := r.settings[name]
	switch {
	case path[0] == "options":
		r.option(into, path[1:], e, origin)
	case e.table && r.settings.isTable(name):
	case r.settings.isTable(name):
		r.problems.add(origin, key, "want a table, got %s", describe(e.value))
	case name == "env" && !e.table:
		r.variables(into, e, origin)
	case e.table || !known:
		r.complain(e.path, origin, "%s", r.unknown(name))
	default:
		r.put(into, leaf, name, e, origin)
	}
}

// put converts, checks and keeps a value.
func (r *pluginReader) put(into settings, leaf leaf, name string, e entry, origin Origin) {
	value, err := leaf.fromTOML(e.value)
	if err == nil {
		err = leaf.check(value)
	}
	if err != nil {
		r.problems.add(origin, strings.Join(e.path, "."), "%v", err)
		return
	}
	if text, ok := value.(string); ok && leaf.limits.path && text != "" && !filepath.IsAbs(text) {
		value = filepath.Join(r.root, text)
	}
	into.values[name], into.origins[name] = value, origin
}

func (r *pluginReader) unknown(name string) string {
	names := append(r.settings.keys(), "env", "options")
	if near := spelling.Nearest(name, names); near != "" {
		return "unknown key, did you mean " + near + "?"
	}
	slices.Sort(names)
	return "unknown key; a plugin has " + strings.Join(names, ", ")
}

// policyEntry stores one key of [lock] or [trust].
func (r *pluginReader) policyEntry(path []string, e entry, origin Origin, overlay, active bool) {
	name := strings.Join(path, ".")
	leaf, known := r.policies[name]
	into := newSettings() // of another environment: checked and discarded
	if active && overlay {
		into = r.envPolicy
	} else if active {
		into = r.policy
	}
	switch {
	case e.table && r.policies.isTable(name):
	case r.policies.isTable(name):
		r.complain(e.path, origin, "want a table, got %s", describe(e.value))
	case e.table || !known:
		r.complain(e.path, origin, "%s", r.policies.unknown(name))
	default:
		r.put(into, leaf, name, e, origin)
	}
}

// policyOf merges the layers of [lock] and [trust]: an environment's settings override
// those for all.
func (r *pluginReader) policyOf() PluginPolicy {
	var p PluginPolicy
	r.policies.fill(reflect.ValueOf(&p).Elem(), r.policy.values, r.envPolicy.values)
	origin, ok := r.envPolicy.origins["trust.keys"]
	if !ok {
		origin = r.policy.origins["trust.keys"]
	}
	for _, key := range p.Trust.Keys {
		if !publicKey.MatchString(key) {
			r.problems.add(origin, "trust.keys", "%.70q is not a public key: want the line of 56 characters that 'tasker plugin keygen' or minisign prints, RW…", key)
		}
	}
	return p
}

// publicKey matches minisign's public keys: 42 bytes that begin with "Ed", in base64.
var publicKey = regexp.MustCompile(`^RW[A-Za-z0-9+/]{54}$`)

// fill sets a struct's fields from layers, later ones winning.
func (s schema) fill(into reflect.Value, layers ...map[string]any) {
	for name, leaf := range s {
		for _, layer := range layers {
			if value, set := layer[name]; set {
				into.FieldByIndex(leaf.index).Set(reflect.ValueOf(value))
			}
		}
	}
}

func (r *pluginReader) variables(into settings, e entry, origin Origin) {
	key := strings.Join(e.path, ".")
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
	into.values["env"], into.origins["env"] = names, origin
}

// specs merges each plugin's layers: defaults, its table, its overlay.
func (r *pluginReader) specs() []PluginSpec {
	specs := make([]PluginSpec, 0, len(r.plugins))
	for id, draft := range r.plugins {
		specs = append(specs, r.spec(id[0], id[1], draft))
	}
	slices.SortFunc(specs, func(a, b PluginSpec) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return specs
}

func (r *pluginReader) spec(kind, name string, draft *pluginDraft) PluginSpec {
	layers := []settings{r.defaults, draft.base, draft.overlay}
	spec := PluginSpec{Kind: kind, Name: name, Origin: draft.origin, options: map[string]Origin{}, settings: map[string]Origin{}}
	origins := map[string]Origin{}
	options := map[string]any{}
	for _, l := range layers {
		if names, ok := l.values["env"].([]string); ok {
			spec.Env = names
		}
		options = mergeTables(options, l.options)
		maps.Copy(origins, l.origins)
		r.settings.fill(reflect.ValueOf(&spec.PluginSettings).Elem(), l.values)
	}
	spec.Rollout.Steps = slices.Clone(spec.Rollout.Steps)
	for at, origin := range origins {
		if strings.HasPrefix(at, "/") {
			spec.options[at] = origin
		} else if origin.Source != builtInDefaults {
			spec.settings[at] = origin
		}
	}
	key := "plugin." + kind + "." + name
	if spec.Path == "" {
		r.problems.add(draft.origin, key, "path is missing")
	}
	r.checkRollout(&spec, key)
	spec.Options = r.encode(options, &spec, key)
	return spec
}

// checkRollout checks that the values of a rollout fit together.
func (r *pluginReader) checkRollout(s *PluginSpec, key string) {
	if s.Kind == KindHandler && s.Rollout.Strategy == RolloutShadow {
		r.problems.add(s.At("rollout.strategy"), key+".rollout.strategy", "handlers have effects, so steps cannot run twice for a comparison: want immediate or canary")
	}
	before := 0
	for _, share := range s.Rollout.Steps {
		if share <= before || share > 100 {
			r.problems.add(s.At("rollout.steps"), key+".rollout.steps", "%d: want growing shares in percent, 1 to 100, such as [1, 10, 50]", share)
			return
		}
		before = share
	}
	if len(s.Rollout.Steps) == 0 && s.Rollout.Strategy == RolloutCanary {
		r.problems.add(s.At("rollout.steps"), key+".rollout.steps", "a canary needs at least one share, such as [1, 10, 50]")
	}
}
