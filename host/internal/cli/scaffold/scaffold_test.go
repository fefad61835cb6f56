package scaffold_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/cli/scaffold"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
)

// What is made builds, is formatted, passes its tests and describes itself
// without any change.
func TestWhatIsMadeWorks(t *testing.T) {
	t.Parallel()
	repository := scaffold.FindSource(t.TempDir(), ".")
	require.NotEmpty(t, repository)
	sums, err := os.ReadFile(filepath.Join(repository, "go.sum"))
	require.NoError(t, err)
	for _, kind := range scaffold.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "new")
			files, err := scaffold.Write(scaffold.Plugin{Kind: kind, Name: "my-first", Dir: dir, Source: repository, Go: "1.26"})
			require.NoError(t, err)
			require.Contains(t, files, "plugins.toml")
			// `go mod tidy` would ask the network for what this repository
			// already has.
			require.NoError(t, os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o600))
			run := func(name string, args ...string) string {
				t.Helper()
				cmd := exec.Command(name, args...)
				cmd.Dir = dir
				cmd.Env = append(os.Environ(), "GOFLAGS="+os.Getenv("GOFLAGS")+" -mod=mod", "GOWORK=off", "GOPROXY=off")
				out, err := cmd.CombinedOutput()
				require.NoError(t, err, "%s %v\n%s", name, args, out)
				return string(out)
			}
			require.Empty(t, run("gofmt", "-l", "."))
			run("go", "vet", "./...") // with the results that the build cache has of it
			run("go", "test", "-vet=off", "./...")
			run("go", "build", "-o", "bin/my-first", ".")
			require.Contains(t, run("bin/my-first", "describe"), `"my-first`)
		})
	}
}

// The template of a new handler can be applied whatever the plugin's name is,
// although a namespace allows other characters. The README submits to it.
func TestTheTemplateCanBeApplied(t *testing.T) {
	t.Parallel()
	for name, namespace := range map[string]string{
		"greeter":               "greeter",
		"my-first":              "my_first",
		strings.Repeat("a", 63): strings.Repeat("a", 40),
	} {
		dir := filepath.Join(t.TempDir(), "new")
		_, err := scaffold.Write(scaffold.Plugin{Kind: "handler", Name: name, Dir: dir})
		require.NoError(t, err)
		source, err := os.ReadFile(filepath.Join(dir, "template.yaml"))
		require.NoError(t, err)
		made, err := workflow.ParseTemplate("template.yaml", source, workflow.Limits{})
		require.NoError(t, err)
		require.Equal(t, namespace+"/welcome@0.1.0", made.ID())
		readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
		require.NoError(t, err)
		require.Contains(t, string(readme), "tasker task submit "+namespace+"/welcome ")
	}
}

func TestWriteRefuses(t *testing.T) {
	t.Parallel()
	full := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(full, "precious"), nil, 0o600))
	_, err := scaffold.Write(scaffold.Plugin{Kind: "robot", Name: "My Plugin", Dir: full})
	require.ErrorContains(t, err, `"robot" is not a kind of plugin: want handler, scaling, health`)
	require.ErrorContains(t, err, `"My Plugin" is not a plugin's name`)
	require.ErrorContains(t, err, "is not empty, and nothing in it is overwritten")
}

func TestPublishedModule(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := scaffold.Write(scaffold.Plugin{Kind: "handler", Name: "a", Dir: dir, Version: "v1.2.3", Go: "1.26"})
	require.NoError(t, err)
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	require.NoError(t, err)
	require.Equal(t, "module example.com/a\n\ngo 1.26\n\nrequire github.com/tasker-systems/tasker-host v1.2.3\n", string(mod))
}
