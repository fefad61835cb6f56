package config

import (
	_ "embed" // the sources whose comments explain the keys
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"time"
)

// The comment of a key's field is the only explanation of the key. The reference is
// generated from it, so that page, command and code cannot differ.
var (
	//go:embed config.go
	configSource string
	//go:embed plugins.go
	pluginsSource string
)

const referenceHead = `# Configuration reference

All keys, generated from the code by ` + "`tasker config reference`" + `. [Configuration](configuration.md) explains how the layers work,
where to put secrets, and which values must fit together. If a built-in environment has a different default, that is shown next
to the general one. A running host takes over changes to keys that reload; changes to other keys wait for its next start.
`

// Reference returns the page of all keys, in Markdown.
func Reference() (string, error) {
	r, err := newReference()
	if err != nil {
		return "", err
	}
	r.out.WriteString(referenceHead)
	r.tables("", reflect.TypeFor[Config](), r.defaultOf)
	r.tables("plugins.toml: plugin.KIND.NAME", reflect.TypeFor[PluginSettings](), r.pluginDefault)
	r.tables("plugins.toml:", reflect.TypeFor[PluginPolicy](), r.pluginDefault)
	return r.out.String(), nil
}

// reference writes the page.
type reference struct {
	out      strings.Builder
	effects  map[string]string // by Struct.Field
	names    map[string]string // key names by field
	base     map[string]any
	differs  map[string]map[string]any // by environment
	defaults map[string]any            // of plugins
}

func newReference() (*reference, error) {
	r := &reference{effects: map[string]string{}, names: map[string]string{}, differs: map[string]map[string]any{}}
	for _, src := range []string{configSource, pluginsSource} {
		if err := r.comments(src); err != nil {
			return nil, err
		}
	}
	l := newLoader(Options{Environ: []string{}})
	r.base = l.readBuiltin("base").values
	for _, env := range builtinEnvironments() {
		r.differs[env] = l.readBuiltin("environments/" + env).values
	}
	plugins := newPluginReader("", "")
	plugins.read("built-in plugin_defaults.toml", pluginDefaults)
	r.defaults = plugins.defaults.values
	maps.Copy(r.defaults, plugins.policy.values)
	l.problems = append(l.problems, plugins.problems...)
	return r, l.problems.err()
}

// comments collects the comments of a source's fields.
func (r *reference) comments(src string) error {
	file, err := parser.ParseFile(token.NewFileSet(), "", src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return fmt.Errorf("read the comments of the configuration: %w", err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		s, ok := spec.Type.(*ast.StructType)
		if !ok {
			return true
		}
		for _, f := range s.Fields.List {
			for _, name := range f.Names {
				r.effects[spec.Name.Name+"."+name.Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
			}
		}
		return true
	})
	return nil
}

// tables writes a table for each table of keys that a struct declares; title is the
// prefix of their names.
func (r *reference) tables(title string, root reflect.Type, defaultOf func(leaf) string) {
	table := "-"
	for _, leaf := range schemaOf(root).declared() {
		at, name := "", leaf.key
		if i := strings.LastIndexByte(leaf.key, '.'); i >= 0 {
			at, name = leaf.key[:i], leaf.key[i+1:]
		}
		if at != table {
			table = at
			separator := " "
			if title == "" || at == "" {
				separator = ""
			} else if !strings.HasSuffix(title, ":") {
				separator = "."
			}
			r.table(title + separator + at)
		}
		r.row(name, leaf, root, defaultOf(leaf))
	}
}

func (r *reference) table(title string) {
	fmt.Fprintf(&r.out, "\n## %s\n\n| key | type and range | default | reloads | meaning |\n|---|---|---|---|---|\n", title)
}

func (r *reference) row(name string, l leaf, root reflect.Type, def string) {
	reloads := ""
	if l.limits.reload {
		reloads = "yes"
	}
	fmt.Fprintf(&r.out, "| `%s` | %s | %s | %s | %s |\n", name, l.kind(), def, reloads, r.effect(l, root))
}

// effect is the comment of the leaf's field, without its name and a first "is", and
// with the names of other fields replaced by those of their keys.
func (r *reference) effect(l leaf, root reflect.Type) string {
	owner := root
	for i := range len(l.index) - 1 {
		owner = owner.Field(l.index[i]).Type
	}
	field := root.FieldByIndex(l.index)
	if len(field.Index) > 1 || owner != root { // promoted fields belong to their own struct
		field = owner.Field(l.index[len(l.index)-1])
	}
	text := strings.TrimPrefix(r.effects[owner.Name()+"."+field.Name], field.Name+" ")
	text = strings.TrimPrefix(strings.TrimPrefix(text, "is "), "are ")
	for i := range owner.NumField() {
		f := owner.Field(i)
		if key := f.Tag.Get("toml"); key != "" && strings.ToUpper(f.Name) != f.Name {
			text = regexp.MustCompile(`\b`+f.Name+`\b`).ReplaceAllString(text, "`"+key+"`")
		}
	}
	if text != "" {
		text = strings.ToUpper(text[:1]) + text[1:]
	}
	return strings.ReplaceAll(text, "|", `\|`)
}

// kind describes the form of a value.
func (l leaf) kind() string {
	limits := ""
	if l.limits.min != "" {
		limits = ", " + l.limits.min + " to " + l.limits.max
	}
	_, want := form(l.limits.match)
	switch {
	case len(l.limits.oneof) > 0:
		return "one of " + strings.Join(l.limits.oneof, ", ")
	case l.limits.path:
		return "path"
	case l.typ == reflect.TypeFor[Secret]():
		return "secret string"
	case l.typ == reflect.TypeFor[time.Duration]():
		return "duration" + limits
	case l.typ == reflect.TypeFor[Bytes]():
		return "size" + limits
	case l.typ == reflect.TypeFor[[]int]():
		return "list of integers"
	case l.typ == reflect.TypeFor[[]string]():
		return "list of strings"
	case l.typ.Kind() == reflect.Bool:
		return "true or false"
	case l.typ.Kind() == reflect.Int:
		return "integer" + limits
	case l.typ.Kind() == reflect.Float64:
		return "number" + limits
	case want != "":
		return "string: " + want
	default:
		return "string"
	}
}

// defaultOf is the base's value, and the values of environments that differ.
func (r *reference) defaultOf(l leaf) string {
	parts := []string{}
	if text := literal(r.base[l.key]); text != `""` {
		parts = append(parts, "`"+text+"`")
	}
	for _, env := range builtinEnvironments() {
		if value, ok := r.differs[env][l.key]; ok && value != r.base[l.key] {
			parts = append(parts, env+" `"+literal(value)+"`")
		}
	}
	return strings.Join(parts, "; ")
}

func (r *reference) pluginDefault(l leaf) string {
	if value, ok := r.defaults[l.key]; ok {
		return "`" + literal(value) + "`"
	}
	return ""
}

// literal is a value as TOML, but without the quotes that durations and sizes need in a
// file: the type implies them.
func literal(value any) string {
	if d, ok := value.(time.Duration); ok {
		return duration(d)
	}
	if size, ok := value.(Bytes); ok {
		return size.String()
	}
	if list, ok := value.([]int); ok {
		return strings.ReplaceAll(fmt.Sprint(list), " ", ", ")
	}
	return Entry{Value: value}.TOML()
}

func folders(dir string) []string {
	matches, _ := filepath.Glob(filepath.Join(dir, "environments", "*", "*.toml")) // the pattern is right
	names := make([]string, len(matches))
	for i, m := range matches {
		names[i] = filepath.Base(filepath.Dir(m))
	}
	return names
}
