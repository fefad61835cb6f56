package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

const modulePath = "github.com/tasker-systems/tasker-host"

// pkg is what `go list -json` says of a package of ours.
type pkg struct {
	ImportPath, Dir, Name              string
	GoFiles, TestGoFiles, XTestGoFiles []string
	Imports, TestImports, XTestImports []string
	Deps                               []string
	Error                              *struct{ Err string }
}

// room returns the package's path within the module, "." for the root.
func (p pkg) room() string { return room(p.ImportPath) }

func room(importPath string) string {
	if importPath == modulePath {
		return "."
	}
	return strings.TrimPrefix(importPath, modulePath+"/")
}

func ours(importPath string) bool {
	return importPath == modulePath || strings.HasPrefix(importPath, modulePath+"/")
}

// sources returns the package's files, test files last.
func (p pkg) sources() (code, tests []string) {
	in := func(names []string) (paths []string) {
		for _, name := range names {
			paths = append(paths, filepath.Join(p.Dir, name))
		}
		return paths
	}
	return in(p.GoFiles), append(in(p.TestGoFiles), in(p.XTestGoFiles)...)
}

var listOnce = sync.OnceValues(func() ([]pkg, error) {
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "list", "-e",
		"-json=ImportPath,Dir,Name,GoFiles,TestGoFiles,XTestGoFiles,Imports,TestImports,XTestImports,Deps,Error", "./...")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, errors.New("go list: " + err.Error() + ": " + stderr.String())
	}
	var list []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return list, nil
		} else if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
})

// packages returns all packages of the module.
func packages(t *testing.T) []pkg {
	t.Helper()
	list, err := listOnce()
	require.NoError(t, err)
	require.NotEmpty(t, list)
	return list
}

func moduleRoot() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	return strings.TrimSpace(string(out)), err
}

// relative returns a path from the module's root, with slashes.
func relative(t *testing.T, path string) string {
	t.Helper()
	root, err := moduleRootOnce()
	require.NoError(t, err)
	rel, err := filepath.Rel(root, path)
	require.NoError(t, err)
	return filepath.ToSlash(rel)
}

var moduleRootOnce = sync.OnceValues(moduleRoot)

// matches reports whether a path is named by a pattern: itself, or "a/**" for a
// and all below it.
func matches(pattern, path string) bool {
	if below, ok := strings.CutSuffix(pattern, "/**"); ok {
		return path == below || strings.HasPrefix(path, below+"/")
	}
	return path == pattern
}

// allowed is a list of exceptions with their reasons that notices which were
// used.
type allowed struct {
	reasons map[string]string
	used    map[string]bool
}

func allow(reasons map[string]string) *allowed {
	return &allowed{reasons: reasons, used: map[string]bool{}}
}

func (a *allowed) has(what string) bool {
	if _, ok := a.reasons[what]; ok {
		a.used[what] = true
		return true
	}
	return false
}

// requireUsed fails for exceptions that nothing needs any more.
func (a *allowed) requireUsed(t *testing.T) {
	t.Helper()
	for what := range a.reasons {
		if !a.used[what] {
			t.Errorf("%s needs no exception any more", what)
		}
	}
}
