package config

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// lockFormat is the version of the file's format.
const lockFormat = 1

// AnyPlatform is the platform of a script.
const AnyPlatform = "any"

const lockHead = `# Which binary of each plugin an environment runs. Written by 'tasker plugin lock';
# keep it next to plugins.toml and commit both.
format = 1
`

// LockPath returns the path of a plugins.toml's lock: plugins.lock next to it.
func LockPath(plugins string) string {
	return filepath.Join(filepath.Dir(plugins), "plugins.lock")
}

// Locked is what a lock says about one plugin in one environment.
type Locked struct {
	Environment, Kind, Name string
	// Version is the version that the plugin reported when it was locked; empty: it was
	// not asked.
	Version string
	// SHA256 holds a checksum for each platform, such as linux/amd64, or
	// AnyPlatform.
	SHA256 map[string]string
	// Origin is where the lock names the plugin.
	Origin Origin
}

// Lock is a plugins.lock.
type Lock struct {
	Path    string
	plugins map[[3]string]*Locked
}

// NewLock returns an empty lock.
func NewLock(path string) *Lock { return &Lock{Path: path, plugins: map[[3]string]*Locked{}} }

// LoadLock reads a plugins.lock:
//
//	format = 1
//
//	[env.production.plugin.handler.arithmetic]
//	version = "1.2.0"
//	sha256."linux/amd64" = "…"
//
// All faults are reported at once, as an *Error. A missing file is an os.ErrNotExist.
func LoadLock(path string) (*Lock, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("read plugin lock: %w", err)
	}
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read plugin lock: %w", err)
	}
	return parseLock(path, src)
}

func parseLock(path string, src []byte) (*Lock, error) {
	r := lockReader{lock: NewLock(path)}
	entries, problem := parseDocument(path, src)
	if problem != nil {
		return nil, &Error{Problems: []Problem{*problem}}
	}
	for _, e := range entries {
		r.entry(e, Origin{Source: path, Line: e.line})
	}
	if !r.format && len(r.problems) == 0 {
		r.problems.add(Origin{Source: path}, "format", "is missing: want format = %d; write the file with 'tasker plugin lock'", lockFormat)
	}
	for _, l := range r.lock.All() {
		if len(l.SHA256) == 0 {
			r.problems.add(l.Origin, l.key(), "has no sha256")
		}
	}
	if err := r.problems.err(); err != nil {
		return nil, err
	}
	return r.lock, nil
}

type lockReader struct {
	lock     *Lock
	format   bool
	problems problems
}

// isPlatform accepts platforms as Go names them: system/machine.
func isPlatform(name string) bool {
	system, machine, ok := strings.Cut(name, "/")
	return name == AnyPlatform || ok && pluginName.MatchString(system) && pluginName.MatchString(machine)
}

func (r *lockReader) entry(e entry, origin Origin) {
	key := strings.Join(e.path, ".")
	wrong := func(format string, args ...any) { r.problems.add(origin, key, format, args...) }
	if key == "format" {
		if n, ok := e.value.(int64); !ok || n != lockFormat {
			wrong("this host reads format %d", lockFormat)
		}
		r.format = true
		return
	}
	if e.path[0] != "env" || len(e.path) > 2 && e.path[2] != "plugin" || len(e.path) < 5 && !e.table {
		wrong("unknown; a lock has format and env.ENV.plugin.KIND.NAME")
		return
	}
	if len(e.path) < 5 {
		return // a table that only contains others
	}
	env, kind, name := e.path[1], e.path[3], e.path[4]
	if !environmentName.MatchString(env) || !slices.Contains(pluginKinds, kind) || !pluginName.MatchString(name) {
		wrong("is not a plugin of an environment: want env.ENV.plugin.KIND.NAME, with one of the kinds %s", strings.Join(pluginKinds, ", "))
		return
	}
	id := [3]string{env, kind, name}
	if r.lock.plugins[id] == nil {
		r.lock.plugins[id] = &Locked{Environment: env, Kind: kind, Name: name, SHA256: map[string]string{}, Origin: origin}
	}
	r.value(r.lock.plugins[id], e, wrong)
}

func (r *lockReader) value(into *Locked, e entry, wrong func(string, ...any)) {
	text, isText := e.value.(string)
	switch rest := e.path[5:]; {
	case len(rest) == 0 && e.table, len(rest) == 1 && rest[0] == "sha256" && e.table:
	case len(rest) == 1 && rest[0] == "version" && isText:
		into.Version = text
	case len(rest) == 2 && rest[0] == "sha256" && isText:
		if pattern, want := form("sha256"); text == "" || !pattern.MatchString(text) {
			wrong("%.70q is not a checksum: want %s", text, want)
		}
		if !isPlatform(rest[1]) {
			wrong("%.40q is not a platform: want one such as linux/amd64", rest[1])
		}
		into.SHA256[rest[1]] = text
	default:
		wrong("unknown; a locked plugin has version and sha256.PLATFORM, which are strings")
	}
}

// Plugin returns what is locked for a plugin in an environment.
func (l *Lock) Plugin(env, kind, name string) (Locked, bool) {
	p, ok := l.plugins[[3]string{env, kind, name}]
	if !ok {
		return Locked{}, false
	}
	return *p, true
}

// Set puts a plugin into the lock, replacing its previous entry.
func (l *Lock) Set(p Locked) { l.plugins[[3]string{p.Environment, p.Kind, p.Name}] = &p }

// Remove removes a plugin from the lock.
func (l *Lock) Remove(env, kind, name string) { delete(l.plugins, [3]string{env, kind, name}) }

// All returns all locked plugins, by environment, kind and name.
func (l *Lock) All() []Locked {
	all := make([]Locked, 0, len(l.plugins))
	for _, p := range l.plugins {
		all = append(all, *p)
	}
	slices.SortFunc(all, func(a, b Locked) int {
		return cmp.Or(cmp.Compare(a.Environment, b.Environment), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return all
}

// Encode returns the lock as a file, which is always the same for the same content.
func (l *Lock) Encode() []byte {
	var b strings.Builder
	b.WriteString(lockHead)
	for _, p := range l.All() {
		fmt.Fprintf(&b, "\n[%s]\n", p.key())
		if p.Version != "" {
			fmt.Fprintf(&b, "version = %q\n", p.Version)
		}
		for _, name := range slices.Sorted(maps.Keys(p.SHA256)) {
			fmt.Fprintf(&b, "sha256.%q = %q\n", name, p.SHA256[name])
		}
	}
	return []byte(b.String())
}

func (p Locked) key() string {
	return "env." + p.Environment + ".plugin." + p.Kind + "." + p.Name
}
