package sdk_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// A code block of the guide that is a file: ```go main.go … ```.
var fileBlock = regexp.MustCompile("(?ms)^```[a-z]+ ([a-z_]+\\.[a-z]+)\n(.*?)^```$")

// TestGuide follows docs/write-a-handler.md in an empty folder: what it shows
// must compile, pass its tests and describe itself.
func TestGuide(t *testing.T) {
	t.Parallel()
	guide, err := os.ReadFile("../docs/write-a-handler.md")
	require.NoError(t, err)
	repository, err := filepath.Abs("..")
	require.NoError(t, err)
	dir := t.TempDir()
	var names []string
	for _, block := range fileBlock.FindAllSubmatch(guide, -1) {
		names = append(names, string(block[1]))
		require.NoError(t, os.WriteFile(filepath.Join(dir, string(block[1])), block[2], 0o600))
	}
	require.Equal(t, []string{"main.go", "main_test.go", "plugins.toml", "greeting.yaml"}, names)

	// The guide's `go mod tidy` would ask the network for what this repository
	// already knows: its sums, and the versions it requires.
	sums, err := os.ReadFile("../go.sum")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o600))
	const module = "github.com/tasker-systems/tasker-host"
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "GOPROXY=off")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s %v\n%s", name, args, out)
		return string(out)
	}
	run("go", "mod", "init", "example.com/greeter")
	run("go", "mod", "edit", "-replace", module+"="+repository, "-require", module+"@v0.0.0")
	run("go", "vet", "./...")
	run("go", "test", "./...")
	run("go", "build", "-o", "bin/plugins/greeter", ".")
	require.Contains(t, run("bin/plugins/greeter", "describe"), "greeter.count")
}
