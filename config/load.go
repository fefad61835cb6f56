package config

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/v2"
)

//go:embed base environments
var builtin embed.FS

const (
	defaultEnvironment = "development"
	variablePrefix     = "TASKER__"
	pluginsFile        = "plugins.toml"
)

// Options tells Load where to look. The zero value reads only the process's
// environment variables and what is built in.
type Options struct {
	// Environment is the environment's name; empty: TASKER_ENV, else development.
	Environment string
	// Dir is the operator's directory; empty: TASKER_CONFIG, else none.
	Dir string
	// Overrides holds dotted keys and their values as text, from the command
	// line. They override everything else.
	Overrides map[string]string
	// Environ holds the environment variables as name=value; nil: os.Environ().
	Environ []string
}

// Load reads all layers, checks them and returns the configuration. Its error
// is an *Error with every problem, or an error of reading the files.
func Load(opts Options) (*Config, error) {
	l := newLoader(opts)
	env, err := l.environment(opts)
	if err != nil {
		return nil, err
	}
	dir, err := l.directory(opts)
	if err != nil {
		return nil, err
	}
	if err := l.layers(env, dir, opts.Overrides); err != nil {
		return nil, err
	}
	return l.finish(env, dir)
}

func newLoader(opts Options) *loader {
	if opts.Environ == nil {
		opts.Environ = os.Environ()
	}
	return &loader{
		schema:  schemaOf(reflect.TypeFor[Config]()),
		values:  koanf.New("."),
		origins: map[string]Origin{},
		vars:    variables(opts.Environ),
	}
}

// loader merges the layers.
type loader struct {
	schema   schema
	values   *koanf.Koanf
	origins  map[string]Origin
	vars     map[string]string
	problems problems
	warnings []string
}

func variables(environ []string) map[string]string {
	vars := make(map[string]string, len(environ))
	for _, pair := range environ {
		if name, value, ok := strings.Cut(pair, "="); ok {
			vars[name] = value
		}
	}
	return vars
}

func (l *loader) environment(opts Options) (string, error) {
	env, source := opts.Environment, "--env"
	if env == "" {
		env, source = l.vars["TASKER_ENV"], "TASKER_ENV"
	}
	if env == "" {
		return defaultEnvironment, nil
	}
	if !environmentName.MatchString(env) {
		return "", fmt.Errorf("%s: %.40q is not the name of an environment: want lower-case letters, digits, _ and -", source, env)
	}
	return env, nil
}

var environmentName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`)

func (l *loader) directory(opts Options) (string, error) {
	dir, source := opts.Dir, "--config"
	if dir == "" {
		dir, source = l.vars["TASKER_CONFIG"], "TASKER_CONFIG"
	}
	if dir == "" {
		return "", nil
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("%s: %w", source, err)
	}
	info, err := os.Stat(abs)
	if err != nil {
		return "", fmt.Errorf("%s: %w", source, err)
	}
	if !info.IsDir() {
		return "", fmt.Errorf("%s: %s is not a directory: want the one that contains the *.toml files", source, abs)
	}
	return abs, nil
}

// layers merges everything in order.
func (l *loader) layers(env, dir string, overrides map[string]string) error {
	base := l.readBuiltin("base")
	own := l.readBuiltin("environments/" + env)
	known := own.found
	ordered := []layer{base, own}
	if dir != "" {
		top := l.readDirectory(dir, pluginsFile)
		sub := l.readDirectory(filepath.Join(dir, "environments", env))
		known = known || sub.found
		ordered = append(ordered, top, sub)
	}
	if !known {
		return fmt.Errorf("environment %s is neither built in (%s) nor a folder %s of the configuration directory",
			env, strings.Join(builtinEnvironments(), ", "), filepath.Join("environments", env))
	}
	ordered = append(ordered, l.readVariables(), l.readOverrides(overrides))
	for _, layer := range ordered {
		if err := l.values.Load(confmap.Provider(layer.values, "."), nil); err != nil {
			return fmt.Errorf("merge configuration: %w", err)
		}
		maps.Copy(l.origins, layer.origins)
	}
	return nil
}

func builtinEnvironments() []string {
	dirs, _ := fs.ReadDir(builtin, "environments") // embedded: cannot fail
	names := make([]string, len(dirs))
	for i, dir := range dirs {
		names[i] = dir.Name()
	}
	return names
}

// layer holds what one layer sets.
type layer struct {
	values  map[string]any // by dotted key, in the types of the schema
	origins map[string]Origin
	owners  map[string]Origin // as origins, including keys whose value is wrong
	found   bool              // the folder exists
}

func newLayer() layer {
	return layer{values: map[string]any{}, origins: map[string]Origin{}, owners: map[string]Origin{}}
}

func (l *loader) readBuiltin(dir string) layer {
	return l.readFiles(builtin, dir, func(name string) string { return "built-in " + name }, "")
}

func (l *loader) readDirectory(dir string, except ...string) layer {
	name := func(name string) string { return filepath.Join(dir, name) }
	return l.readFiles(os.DirFS(dir), ".", name, dir, except...)
}

// readFiles reads the *.toml files of a folder as one layer. Relative paths in
// them start from the folder named by root.
func (l *loader) readFiles(fsys fs.FS, dir string, source func(string) string, root string, except ...string) layer {
	layer := newLayer()
	files, err := fs.ReadDir(fsys, dir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			l.problems.add(Origin{Source: source("")}, "", "%v", err)
		}
		return layer
	}
	layer.found = true
	for _, file := range files {
		if file.IsDir() || path.Ext(file.Name()) != ".toml" || slices.Contains(except, file.Name()) {
			continue
		}
		name := path.Join(dir, file.Name())
		src, err := fs.ReadFile(fsys, name)
		if err != nil {
			l.problems.add(Origin{Source: source(name)}, "", "%v", err)
			continue
		}
		l.readFile(layer, source(name), src, root)
	}
	return layer
}

func (l *loader) readFile(into layer, source string, src []byte, root string) {
	entries, problem := parseDocument(source, src)
	if problem != nil {
		l.problems = append(l.problems, *problem)
		return
	}
	for _, e := range entries {
		origin := Origin{Source: source, Line: e.line}
		key := strings.Join(e.path, ".")
		leaf, known := l.schema[key]
		switch {
		case e.table && l.schema.isTable(key):
		case e.table && !known:
			// The keys below are reported one by one; an empty table is reported here.
			if !slices.ContainsFunc(entries, func(o entry) bool { return within(o, e) }) {
				l.problems.add(origin, key, "%s", l.schema.unknown(key))
			}
		case l.schema.isTable(key):
			l.problems.add(origin, key, "want a table, [%s], got %s", key, describe(e.value))
		case !known:
			l.problems.add(origin, key, "%s", l.schema.unknown(key))
		default:
			l.set(into, leaf, origin, root, func() (any, error) { return leaf.fromTOML(e.value) })
		}
	}
}

// within reports whether an entry is below a table's header.
func within(e, table entry) bool {
	return len(e.path) > len(table.path) && slices.Equal(e.path[:len(table.path)], table.path)
}

// set puts a value into a layer, unless it is wrong or already set.
func (l *loader) set(into layer, leaf leaf, origin Origin, root string, convert func() (any, error)) {
	value, err := convert()
	if err == nil {
		err = leaf.check(value)
	}
	if err != nil {
		l.problems.add(origin, leaf.key, "%v", err)
	}
	first, twice := into.owners[leaf.key]
	if twice {
		l.problems.add(origin, leaf.key, "already set in %s: a key may be set in only one file of a layer", first)
	} else {
		into.owners[leaf.key] = origin
	}
	if err != nil || twice {
		return
	}
	if text, ok := value.(string); ok && leaf.limits.path && text != "" && root != "" && !filepath.IsAbs(text) {
		value = filepath.Join(root, text)
	}
	into.values[leaf.key] = value
	into.origins[leaf.key] = origin
}

func (l *loader) readVariables() layer {
	layer := newLayer()
	for _, name := range slices.Sorted(maps.Keys(l.vars)) {
		rest, ok := strings.CutPrefix(name, variablePrefix)
		if !ok {
			continue
		}
		key := strings.ToLower(strings.ReplaceAll(rest, "__", "."))
		l.setText(layer, Origin{Source: "environment variable " + name}, key, l.vars[name])
	}
	if url := l.vars["DATABASE_URL"]; url != "" {
		l.setText(layer, Origin{Source: "environment variable DATABASE_URL"}, "database.url", url)
	}
	return layer
}

// commandLine is the source of overrides.
const commandLine = "command line"

func (l *loader) readOverrides(overrides map[string]string) layer {
	layer := newLayer()
	for _, key := range slices.Sorted(maps.Keys(overrides)) {
		l.setText(layer, Origin{Source: commandLine}, key, overrides[key])
	}
	return layer
}

func (l *loader) setText(into layer, origin Origin, key, text string) {
	leaf, known := l.schema[key]
	if !known {
		l.problems.add(origin, key, "%s", l.schema.unknown(key))
		return
	}
	l.set(into, leaf, origin, "", func() (any, error) { return leaf.fromText(text) })
}

// finish decodes the merged values, fills in what is derived and validates.
func (l *loader) finish(env, dir string) (*Config, error) {
	c := &Config{Environment: env, Dir: dir, origins: l.origins}
	err := l.values.UnmarshalWithConf("", c, koanf.UnmarshalConf{
		Tag: "toml",
		DecoderConfig: &mapstructure.DecoderConfig{
			Result: c, TagName: "toml", ErrorUnused: true,
			DecodeHook: mapstructure.TextUnmarshallerHookFunc(),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("decode configuration: %w", err)
	}
	l.readSecrets(c)
	if err := l.derive(c); err != nil {
		return nil, err
	}
	l.problems = append(l.problems, c.validate()...)
	c.Warnings = l.warnings
	if err := l.problems.err(); err != nil {
		return nil, err
	}
	return c, nil
}
