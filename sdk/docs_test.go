package sdk_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// fileBlock matches a code block whose first line names a file: ```go main.go.
var fileBlock = regexp.MustCompile("(?ms)^```[a-z]+ ([a-z_]+\\.[a-z]+)\n(.*?)^```$")

// TestGuides follows the guides in empty folders: the code they show must
// compile, pass its tests and describe itself.
func TestGuides(t *testing.T) {
	t.Parallel()
	for guide, want := range map[string]struct {
		files []string
		slot  string
	}{
		"write-a-handler":         {[]string{"main.go", "main_test.go", "step.json", "plugins.toml", "greeting.yaml"}, "greeter.count"},
		"write-a-scaler":          {[]string{"backlog.go", "main.go", "backlog_test.go", "input.json", "plugins.toml"}, "backlog"},
		"write-a-health-reporter": {[]string{"main.go", "main_test.go", "event.json", "plugins.toml"}, "journal"},
	} {
		t.Run(guide, func(t *testing.T) {
			t.Parallel()
			follow(t, "../docs/"+guide+".md", want.files, want.slot)
		})
	}
}

func follow(t *testing.T, path string, files []string, slot string) {
	t.Helper()
	guide, err := os.ReadFile(path)
	require.NoError(t, err)
	repository, err := filepath.Abs("..")
	require.NoError(t, err)
	dir := t.TempDir()
	var names []string
	for _, block := range fileBlock.FindAllSubmatch(guide, -1) {
		names = append(names, string(block[1]))
		require.NoError(t, os.WriteFile(filepath.Join(dir, string(block[1])), block[2], 0o600))
	}
	require.Equal(t, files, names)

	// The guide's `go mod tidy` would ask the network for what this repository
	// already has: its sums, and the versions it requires.
	sums, err := os.ReadFile("../go.sum")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o600))
	const module = "github.com/tasker-systems/tasker-host"
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOFLAGS="+os.Getenv("GOFLAGS")+" -mod=mod", "GOWORK=off", "GOPROXY=off")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s %v\n%s", name, args, out)
		return string(out)
	}
	run("go", "mod", "init", "example.com/guide")
	run("go", "mod", "edit", "-replace", module+"="+repository, "-require", module+"@v0.0.0")
	require.Empty(t, run("gofmt", "-l", "."))
	run("go", "vet", "./...")
	run("go", "test", "-vet=off", "./...")
	run("go", "build", "-o", "bin/plugin", ".")
	require.Contains(t, run("bin/plugin", "describe"), slot)
}
