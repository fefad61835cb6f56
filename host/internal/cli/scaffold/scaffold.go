package scaffold

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"
)

// Kinds lists the kinds of plugins there are folders for.
var Kinds = []string{"handler", "scaling", "health"}

const module = "github.com/tasker-systems/tasker-host"

//go:embed all:files
var files embed.FS

// Plugin says what to make.
type Plugin struct {
	Kind string // one of Kinds
	Name string // of the plugin: lower-case letters, digits and -
	Dir  string // that does not exist, or is empty
	// Source is a checkout of this repository that go.mod points to; empty: the
	// module as it is published, in Version.
	Source  string
	Version string // such as v1.2.3; used without a Source
	Go      string // the version of Go for go.mod, such as 1.26
}

// values is what the files are filled in with.
type values struct {
	Plugin
	Module string
	// Namespace is the template's: the name as a namespace may be spelled, which
	// has no - and is shorter.
	Namespace string
	Type      string // the name as a Go identifier
}

var name = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

// Write makes the folder and returns the files in it.
func Write(p Plugin) ([]string, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	v := values{Plugin: p, Module: module, Namespace: namespace(p.Name), Type: identifier(p.Name)}
	if v.Source == "" && v.Version == "" {
		v.Version = "latest"
	}
	var written []string
	root := path.Join("files", p.Kind)
	err := fs.WalkDir(files, root, func(at string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		file, err := v.fill(strings.TrimSuffix(strings.TrimPrefix(at, root+"/"), ".tmpl"))
		if err != nil {
			return err
		}
		source, err := files.ReadFile(at)
		if err != nil {
			return err
		}
		text, err := v.fill(string(source))
		if err != nil {
			return fmt.Errorf("fill in %s: %w", file, err)
		}
		written = append(written, file)
		return write(filepath.Join(p.Dir, filepath.FromSlash(file)), text)
	})
	if err == nil {
		written = append(written, "go.mod")
		err = write(filepath.Join(p.Dir, "go.mod"), v.goMod())
	}
	if err != nil {
		return nil, fmt.Errorf("make plugin %s: %w", p.Name, err)
	}
	slices.Sort(written)
	return written, nil
}

// Named says what is wrong with the kind and the name.
func (p *Plugin) Named() error {
	var problems []error
	if !slices.Contains(Kinds, p.Kind) {
		problems = append(problems, fmt.Errorf("%q is not a kind of plugin: want %s", p.Kind, strings.Join(Kinds, ", ")))
	}
	if !name.MatchString(p.Name) || len(p.Name) > 63 {
		problems = append(problems, fmt.Errorf("%.70q is not a plugin's name: want lower-case letters, digits and - between them, at most 63", p.Name))
	}
	return errors.Join(problems...)
}

func (p *Plugin) check() error {
	problems := []error{p.Named()}
	entries, err := os.ReadDir(p.Dir)
	switch {
	case err == nil && len(entries) > 0:
		problems = append(problems, fmt.Errorf("%s is not empty, and nothing in it is overwritten; choose another folder with --dir", p.Dir))
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		problems = append(problems, fmt.Errorf("read the folder: %w", err))
	}
	return errors.Join(problems...)
}

// namespace turns a-name into a_name, of 40 characters at most.
func namespace(name string) string {
	name = strings.ReplaceAll(name, "-", "_")
	return name[:min(len(name), 40)]
}

// identifier turns a-name into aName.
func identifier(name string) string {
	parts := strings.Split(name, "-")
	for i := 1; i < len(parts); i++ {
		parts[i] = strings.ToUpper(parts[i][:1]) + parts[i][1:]
	}
	return strings.Join(parts, "")
}

func (v *values) fill(text string) (string, error) {
	t, err := template.New("").Delims("<%", "%>").Option("missingkey=error").Parse(text)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, v); err != nil {
		return "", err
	}
	return b.String(), nil
}

// goMod names the module of this repository. Whoever has a checkout builds with
// it; others with what is published.
func (v *values) goMod() string {
	text := fmt.Sprintf("module example.com/%s\n\ngo %s\n", v.Name, v.Go)
	if v.Source != "" {
		return text + fmt.Sprintf("\nrequire %s v0.0.0\n\nreplace %s => %s\n", module, module, quoted(v.Source))
	}
	if strings.HasPrefix(v.Version, "v") {
		text += fmt.Sprintf("\nrequire %s %s\n", module, v.Version)
	}
	return text // `go mod tidy` finds the latest
}

// quoted quotes a path that go.mod could not read otherwise.
func quoted(path string) string {
	if strings.ContainsAny(path, " \t\"'`()[]{},") {
		return fmt.Sprintf("%q", path)
	}
	return path
}

func write(file, text string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

// FindSource looks for a checkout of this repository: the folders themselves or
// one above.
func FindSource(dirs ...string) string {
	for _, dir := range dirs {
		dir, err := filepath.Abs(dir)
		if err != nil {
			continue
		}
		for {
			mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
			if first, _, _ := strings.Cut(string(mod), "\n"); err == nil && strings.TrimSpace(first) == "module "+module {
				return dir
			}
			above := filepath.Dir(dir)
			if above == dir {
				break
			}
			dir = above
		}
	}
	return ""
}
