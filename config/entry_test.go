package config

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEntriesNameEveryKeyWithItsOrigin(t *testing.T) {
	t.Parallel()
	dir := writeFiles(t, map[string]string{"a.toml": "[engine]\nmax_steps = 7\n[system]\nstate_dir = \"state\"\n"})
	c, err := load(t, Options{Dir: dir}, "TASKER__ORCHESTRATION__DRAIN_TIMEOUT=1m30s", "TASKER__ORCHESTRATION__SUPERVISOR_TIMEOUT=5m")
	require.NoError(t, err)
	var shown []string
	for _, e := range c.Entries() {
		shown = append(shown, strings.ReplaceAll(e.Key+" = "+e.TOML()+" # "+e.Origin, dir, "DIR"))
	}
	require.Len(t, shown, len(schemaOf(reflect.TypeFor[Config]())))
	for _, want := range []string{
		`engine.max_steps = 7 # DIR/a.toml:2`,
		`engine.max_in_flight = 4000 # built-in base/engine.toml:3`,
		`orchestration.drain_timeout = "1m30s" # environment variable TASKER__ORCHESTRATION__DRAIN_TIMEOUT`,
		`orchestration.supervisor_timeout = "5m" # environment variable TASKER__ORCHESTRATION__SUPERVISOR_TIMEOUT`,
		`system.state_dir = "DIR/state" # DIR/a.toml:4`,
		`system.socket = "DIR/state/tasker.sock" # derived`,
		`telemetry.metrics = true # built-in base/telemetry.toml:3`,
	} {
		require.Contains(t, shown, want)
	}
	// A table's own keys come before those of the tables in it, so that the output is
	// TOML.
	joined := strings.Join(shown, "\n")
	require.Less(t, strings.Index(joined, "database.lock_timeout"), strings.Index(joined, "database.embedded."))
}

// The output of `tasker config show` can be used as a file, and means the same.
func TestEntriesAreAFile(t *testing.T) {
	t.Parallel()
	c, err := load(t, Options{Dir: t.TempDir()})
	require.NoError(t, err)
	var file strings.Builder
	table := ""
	for _, e := range c.Entries() {
		at := strings.LastIndexByte(e.Key, '.')
		if e.Key[:at] != table {
			table = e.Key[:at]
			file.WriteString("[" + table + "]\n")
		}
		file.WriteString(e.Key[at+1:] + " = " + e.TOML() + "\n")
	}
	again, err := load(t, Options{Dir: writeFiles(t, map[string]string{"all.toml": file.String()})})
	require.NoError(t, err)
	require.Empty(t, Diff(c, again))
	require.Contains(t, file.String(), `memory = "128KiB"`)
}

func TestEntriesAndDiffHideSecrets(t *testing.T) {
	t.Parallel()
	one, err := load(t, Options{Environment: "test"}, "DATABASE_URL="+secretURL)
	require.NoError(t, err)
	same, err := load(t, Options{Environment: "production"}, "DATABASE_URL="+secretURL)
	require.NoError(t, err)
	other, err := load(t, Options{}, "DATABASE_URL=postgres://app:hunter3@db/app")
	require.NoError(t, err)
	encoded, err := json.Marshal(one.Entries())
	require.NoError(t, err)
	require.NotContains(t, string(encoded), "hunter")
	require.Contains(t, string(encoded), redacted)
	require.NotContains(t, fmt.Sprint(Diff(one, other)), "hunter")
	require.Contains(t, Diff(one, other), Difference{Key: "database.url", Values: []string{`"[redacted]"`, `"[redacted] differs"`}})
	for _, d := range Diff(one, same) {
		require.NotEqual(t, "database.url", d.Key)
	}
	require.Empty(t, Diff(one, one))
}

func TestReferenceSaysOfEveryKeyWhatItDoes(t *testing.T) {
	t.Parallel()
	page, err := Reference()
	require.NoError(t, err)
	row := regexp.MustCompile("(?m)^\\| `[a-z0-9_]+` \\| [^|]+ \\| [^|]* \\| (yes)? \\| [A-Z][^|]+\\. \\|$")
	keys := 0
	for _, root := range []reflect.Type{reflect.TypeFor[Config](), reflect.TypeFor[PluginSettings](), reflect.TypeFor[PluginPolicy]()} {
		keys += len(schemaOf(root))
	}
	require.Len(t, row.FindAllString(page, -1), keys,
		"every key has a row whose effect is a sentence; the comment of its field says it")
	require.Contains(t, page, "| `statement_timeout` | duration, 100ms to 5m | `5s`; test `4s` |  | Limits how long one SQL statement may take, enforced by the server. |")
	require.Contains(t, page, "How many failures within `window`")
}

func TestEverySecretMayComeFromAFile(t *testing.T) {
	t.Parallel()
	leaves := schemaOf(reflect.TypeFor[Config]())
	for key, leaf := range leaves {
		if leaf.typ == reflect.TypeFor[Secret]() {
			require.True(t, leaves[key+"_file"].limits.path, "%s needs a neighbour %[1]s_file that is a path", key)
		}
	}
}

func TestEnvironments(t *testing.T) {
	t.Parallel()
	dir := writeFiles(t, map[string]string{"environments/staging/a.toml": "", "environments/test/a.toml": "", "environments/notes/readme.md": ""})
	names, err := Environments(Options{Dir: dir, Environ: []string{}})
	require.NoError(t, err)
	require.Equal(t, []string{"development", "production", "staging", "test"}, names)
}
