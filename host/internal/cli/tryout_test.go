package cli_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTryout uses a real plugin of all three kinds, as a process.
func TestTryout(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good := filepath.Join(dir, "crooked")
	out, err := exec.Command("go", "build", "-o", good, "github.com/tasker-systems/tasker-host/plugins/test/crooked").CombinedOutput()
	require.NoError(t, err, "%s", out)
	bad := good + "-ghost"
	require.NoError(t, os.Symlink(good, bad))
	typeless := good + "-typeless"
	require.NoError(t, os.Symlink(good, typeless))
	input := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	step := input("step.json", `{"context": {"n": 340282366920938463463374607431768211456}}`)
	pool := input("pool.json", `{"current": 2, "samples": [{}, {}]}`)
	event := input("event.json", `{}`)

	for name, c := range map[string]struct {
		args []string
		code int
		want string // in what is printed
	}{
		"check":           {[]string{"check", good, "--example", "crooked.echo=" + step, "--patience", "1m"}, 0, "ok    exits at SIGTERM\n"},
		"check bad":       {[]string{"check", bad, "--patience", "1m"}, 1, "FAIL  drain\n      it reports 7 steps in flight, but there are none\n"},
		"check schema":    {[]string{"check", typeless, "--patience", "1m"}, 1, "FAIL  describe\n      the schema of the options: at /type: "},
		"check no plugin": {[]string{"check", "/bin/true"}, 1, "FAIL  start\n      start /bin/true: it is not a plugin, or it cannot start: it ended (exit status 0)"},
		"run no plugin":   {[]string{"run", "/bin/true"}, 1, "tasker: start /bin/true: it is not a plugin, or it cannot start"},
		"no file":         {[]string{"check", good + ".exe"}, 2, "does not exist"},
		"no executable":   {[]string{"check", step}, 2, "is not an executable file"},
		"bad options":     {[]string{"check", good, "--options", "{"}, 2, "--options: the document ends in the middle"},
		"list of options": {[]string{"check", good, "--options", "[]"}, 2, "--options: must be a JSON object"},
		"no patience":     {[]string{"check", good, "--patience", "0s"}, 2, "--patience 0s: want more than 0s"},
		"less":            {[]string{"run", good, "--patience", "-1s"}, 2, "--patience -1s: want more than 0s"},
		"bad example":     {[]string{"check", good, "--example", "crooked.echo"}, 2, "want HANDLER=FILE"},

		"step":            {[]string{"run", good, "--slot", "crooked.echo", "--input", step}, 0, `{"n": 340282366920938463463374607431768211456}`},
		"decision":        {[]string{"run", good, "--slot", "one-more", "--input", pool}, 0, "target 3 (now 2), confidence 1: one more"},
		"check health":    {[]string{"run", good, "--slot", "pulse"}, 0, "healthy"},
		"report":          {[]string{"run", good, "--slot", "pulse", "--input", event}, 0, "accepted"},
		"which":           {[]string{"run", good}, 2, "the plugin serves crooked.echo, one-more, pulse"},
		"unknown":         {[]string{"run", good, "--slot", "x"}, 2, `does not serve "x"; it serves crooked.echo`},
		"no observation":  {[]string{"run", good, "--slot", "one-more"}, 2, "an algorithm needs an observation"},
		"bad observation": {[]string{"run", good, "--slot", "one-more", "--input", step}, 2, `unknown field "context"`},
		"refused options": {[]string{"run", good, "--slot", "pulse", "--options", `{"a": 1}`}, 1, "it refuses its options: /: there are no options"},
		"new":             {[]string{"new", "scaling", "halves", "--dir", filepath.Join(dir, "halves")}, 0, "algorithm.go"},
		"new of no kind":  {[]string{"new", "robot", "halves", "--dir", filepath.Join(dir, "robot")}, 2, "want handler, scaling, health"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := setup(t).run(t, append([]string{"plugin"}, c.args...)...)
			require.Equal(t, c.code, r.code, "%s%s", r.out, r.err)
			require.Contains(t, r.out+r.err, c.want)
		})
	}

	t.Run("JSON", func(t *testing.T) {
		t.Parallel()
		r := setup(t).run(t, "plugin", "check", bad, "--json", "--patience", "1m")
		require.Equal(t, 1, r.code)
		var report struct {
			OK     bool
			Checks []struct{ Name, Problem, Note string }
		}
		require.NoError(t, json.Unmarshal([]byte(r.out), &report))
		require.False(t, report.OK)
		problems := map[string]string{}
		for _, c := range report.Checks {
			if c.Problem != "" {
				problems[c.Name] = c.Problem
			}
		}
		require.Equal(t, map[string]string{"drain": "it reports 7 steps in flight, but there are none"}, problems)
	})
}
