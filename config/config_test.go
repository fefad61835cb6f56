package config

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const secretURL = "postgres://app:hunter2@db/app"

// load loads without the process's own environment.
func load(t *testing.T, opts Options, environ ...string) (*Config, error) {
	t.Helper()
	opts.Environ = append([]string{"HOME=/home/op"}, environ...)
	return Load(opts)
}

// writeFiles creates an operator's directory.
func writeFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		at := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(at), 0o750))
		require.NoError(t, os.WriteFile(at, []byte(text), 0o600))
	}
	return dir
}

// report renders an error's problems without the directory's name.
func report(t *testing.T, err error, dir string) []string {
	t.Helper()
	problems, ok := err.(*Error)
	require.True(t, ok, "want *Error, got %v", err)
	var lines []string
	for _, p := range problems.Problems {
		lines = append(lines, strings.ReplaceAll(p.String(), dir+"/", ""))
	}
	return lines
}

func TestEveryBuiltinEnvironmentIsValid(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{"development", "production", "test"}, builtinEnvironments())
	for _, env := range builtinEnvironments() {
		c, err := load(t, Options{Environment: env})
		require.NoError(t, err, env)
		require.Equal(t, env, c.Environment)
	}
}

func TestBaseSetsEveryKeyInTheFileOfItsComponent(t *testing.T) {
	t.Parallel()
	set := map[string]bool{}
	files, err := fs.Glob(builtin, "base/*.toml")
	require.NoError(t, err)
	for _, file := range files {
		src, err := builtin.ReadFile(file)
		require.NoError(t, err)
		entries, problem := parseDocument(file, src)
		require.Nil(t, problem)
		for _, e := range entries {
			require.Equal(t, strings.TrimSuffix(path.Base(file), ".toml"), e.path[0], "%s:%d", file, e.line)
			set[strings.Join(e.path, ".")] = true
		}
	}
	for _, key := range schemaOf(reflect.TypeFor[Config]()).keys() {
		require.True(t, set[key], "%s has no default in base/", key)
	}
}

func TestEveryNumberHasARange(t *testing.T) {
	t.Parallel()
	for _, of := range []reflect.Type{reflect.TypeFor[Config](), reflect.TypeFor[PluginSettings]()} {
		for key, leaf := range schemaOf(of) {
			if leaf.typ == reflect.TypeFor[int]() || leaf.typ == reflect.TypeFor[time.Duration]() {
				for _, bound := range []string{leaf.limits.min, leaf.limits.max} {
					_, err := leaf.fromText(bound)
					require.NoError(t, err, "%s: bound %q", key, bound)
				}
			}
			if leaf.limits.match != "" {
				pattern, _ := form(leaf.limits.match)
				require.NotNil(t, pattern, key)
			}
		}
	}
}

func TestDefaultsAndDerivedPaths(t *testing.T) {
	t.Parallel()
	c, err := load(t, Options{})
	require.NoError(t, err)
	require.Equal(t, "development", c.Environment)
	require.Equal(t, 30*time.Second, c.Orchestration.Lease)
	require.Equal(t, 500, c.ExecutorPools.TaskFinalizer.Batch)
	require.Equal(t, "console", c.System.LogFormat)
	state := "/home/op/.local/state/tasker"
	if os.Geteuid() == 0 {
		state = "/var/lib/tasker"
	}
	require.Equal(t, state, c.System.StateDir)
	require.Equal(t, state+"/tasker.sock", c.System.Socket)
	require.Equal(t, state+"/postgres", c.Database.Embedded.StateDir)
	require.True(t, c.Database.URL.IsZero())

	origin, ok := c.Origin("orchestration.lease")
	require.True(t, ok)
	require.Equal(t, "built-in base/orchestration.toml:3", origin.String())
}

func TestLaterLayersWinKeyByKey(t *testing.T) {
	t.Parallel()
	dir := writeFiles(t, map[string]string{
		"tasker.toml":                        "[executor_pools.task_finalizer]\nbatch = 1\nmin = 1\nmax = 1\n[engine]\nmax_steps = 1\n",
		"plugins.toml":                       "[plugin.handler.x]\npath = \"x\"\n",
		"environments/staging/engine.toml":   "[executor_pools.task_finalizer]\nmin = 2\nmax = 2\n[engine]\nmax_steps = 2\n",
		"environments/elsewhere/engine.toml": "[executor_pools.task_finalizer]\nbatch = 9\n",
	})
	c, err := load(t, Options{
		Environment: "staging", Dir: dir,
		Overrides: map[string]string{"engine.max_steps": "4"},
	}, "TASKER__EXECUTOR_POOLS__TASK_FINALIZER__MAX=3", "TASKER__ENGINE__MAX_STEPS=3", "TASKER_ENV=ignored")
	require.NoError(t, err)
	f := c.ExecutorPools.TaskFinalizer
	require.Equal(t, []int{1, 2, 3}, []int{f.Batch, f.Min, f.Max})
	require.Equal(t, Engine{MaxSteps: 4, MaxInFlight: 4000}, c.Engine)
	require.Equal(t, filepath.Join(dir, "plugins.toml"), c.System.Plugins)

	for key, want := range map[string]string{
		"engine.max_in_flight":                "built-in base/engine.toml:3",
		"executor_pools.task_finalizer.batch": dir + "/tasker.toml:2",
		"executor_pools.task_finalizer.min":   dir + "/environments/staging/engine.toml:2",
		"executor_pools.task_finalizer.max":   "environment variable TASKER__EXECUTOR_POOLS__TASK_FINALIZER__MAX",
		"engine.max_steps":                    "command line",
	} {
		origin, ok := c.Origin(key)
		require.True(t, ok, key)
		require.Equal(t, want, origin.String(), key)
	}
}

func TestDirectoryAndEnvironmentComeFromVariables(t *testing.T) {
	t.Parallel()
	dir := writeFiles(t, map[string]string{"e.toml": "[engine]\nmax_steps = 7\n"})
	c, err := load(t, Options{}, "TASKER_ENV=production", "TASKER_CONFIG="+dir)
	require.NoError(t, err)
	require.Equal(t, "production", c.Environment)
	require.Equal(t, 7, c.Engine.MaxSteps)
	require.False(t, c.Database.Embedded.Install)
}

func TestPathsInFilesStartFromTheirFolder(t *testing.T) {
	t.Parallel()
	dir := writeFiles(t, map[string]string{
		"s.toml": "[system]\nplugins = \"p/plugins.toml\"\nstate_dir = \"/var/lib/tasker\"\n",
	})
	c, err := load(t, Options{Dir: dir})
	require.NoError(t, err)
	require.Equal(t, dir+"/p/plugins.toml", c.System.Plugins)
	require.Equal(t, "/var/lib/tasker/tasker.sock", c.System.Socket)
}

func TestAllProblemsAtOnceWithPlaceAndNearestKey(t *testing.T) {
	t.Parallel()
	dir := writeFiles(t, map[string]string{
		"a.toml": `[database]
max_conections = 5
statement_timeout = 5
connect_timeout = "5"
embedded = { bin_dri = "/x", install = "yes" }

[engine]
max_in_flight = 0
max_steps = 1.5
`,
		"b.toml": `[engine]
max_in_flight = 1_000_000
max_steps = 10
[engine.batches]
[orchestraton]
lease = "30s"
[[pgmq]]
batch = 1
[system]
log_level = "loud"
`,
		"c.toml": "[engine]\nmax_steps = 11\n",
		"d.toml": "[telemetry]\nmetrics = maybe\n",
		"e.toml": "[telemetry]\nmetrics = true\nmetrics = true\n",
		"z.md":   "not read",
	})
	_, err := load(t, Options{Dir: dir, Overrides: map[string]string{"engine.maxsteps": "1"}},
		"TASKER__ENGINE__MAX_STEPS=many", "TASKER__ENGIN__MAX_STEPS=1", "TASKER__SYSTEM__LOG_FORMAT=json")
	require.Error(t, err)
	require.Equal(t, []string{
		`a.toml:2: database.max_conections: unknown key, did you mean database.max_connections?`,
		`a.toml:3: database.statement_timeout: want a duration with its unit, such as "30s", got an integer`,
		`a.toml:4: database.connect_timeout: want a duration with its unit, such as 30s, got "5"`,
		`a.toml:5: database.embedded.bin_dri: unknown key, did you mean database.embedded.bin_dir?`,
		`a.toml:5: database.embedded.install: want true or false, got a string`,
		`a.toml:8: engine.max_in_flight: 0 is out of range: want 1 to 100000`,
		`a.toml:9: engine.max_steps: want a whole number, got a float`,
		`b.toml:2: engine.max_in_flight: 1000000 is out of range: want 1 to 100000`,
		`b.toml:2: engine.max_in_flight: already set in a.toml:8: a key may be set in only one file of a layer`,
		`b.toml:3: engine.max_steps: already set in a.toml:9: a key may be set in only one file of a layer`,
		`b.toml:4: engine.batches: unknown key; engine has max_in_flight, max_steps`,
		`b.toml:6: orchestraton.lease: unknown key, did you mean orchestration.lease?`,
		`b.toml:7: pgmq: want a table, [pgmq], got an array`,
		`b.toml:10: system.log_level: "loud" is not one of trace, debug, info, warn, error`,
		`c.toml:2: engine.max_steps: already set in a.toml:9: a key may be set in only one file of a layer`,
		`d.toml:2: toml: unexpected character U+006D 'm' at start of value`,
		`e.toml:3: toml: key metrics is already defined`,
		`command line: engine.maxsteps: unknown key, did you mean engine.max_steps?`,
		`environment variable TASKER__ENGINE__MAX_STEPS: engine.max_steps: want a whole number, got "many"`,
		`environment variable TASKER__ENGIN__MAX_STEPS: engin.max_steps: unknown key, did you mean engine.max_steps?`,
	}, report(t, err, dir))
}

func TestTimeBudgetsThatContradictEachOther(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ set, want string }{
		"heartbeat":  {"orchestration.heartbeat=11s", "command line: orchestration.heartbeat: 11s must be at most a third of orchestration.lease (30s / 3 = 10s)"},
		"statement":  {"database.statement_timeout=8s", "command line: database.statement_timeout: 8s + 3s of database.lock_timeout = 11s must be at most a third of orchestration.lease (30s / 3 = 10s)"},
		"connect":    {"database.connect_timeout=11s", "command line: database.connect_timeout: 11s must be at most a third of orchestration.lease (30s / 3 = 10s)"},
		"sweep":      {"orchestration.sweep_interval=6s", "command line: orchestration.sweep_interval: 6s must be at most a sixth of orchestration.lease (30s / 6 = 5s)"},
		"grace":      {"orchestration.dead_host_grace=31s", "command line: orchestration.dead_host_grace: 31s must be at most orchestration.lease (30s)"},
		"poll":       {"executor_pools.task_claimer.poll_min=2s", "command line: executor_pools.task_claimer.poll_min: 2s must be at most executor_pools.task_claimer.poll_max (1s)"},
		"idle poll":  {"executor_pools.step_result_processor.poll_max=11s", "command line: executor_pools.step_result_processor.poll_max: 11s must be at most a third of orchestration.lease (30s / 3 = 10s)"},
		"claim":      {"orchestration.finalization_claim=15s", "command line: orchestration.finalization_claim: 15s must be at least twice database.statement_timeout + lock_timeout (2 × (5s + 3s) = 16s)"},
		"visibility": {"pgmq.visibility_timeout=15s", "command line: pgmq.visibility_timeout: 15s must be at least twice database.statement_timeout + lock_timeout (2 × (5s + 3s) = 16s)"},
		"drain":      {"orchestration.drain_timeout=26s", "command line: orchestration.drain_timeout: 26s + 5s of orchestration.emergency_timeout = 31s must be at most orchestration.supervisor_timeout (30s)"},
		"audit":      {"orchestration.retention.audit=719h", "command line: orchestration.retention.audit: 719h0m0s is too short: want 0s (kept forever) or at least 30 days (720h0m0s)"},
		"queues":     {"orchestration.step_results_queue=task_requests_queue", "command line: orchestration.step_results_queue: must differ from orchestration.task_requests_queue"},
		"queue name": {`orchestration.step_results_queue=q"; drop`, `command line: orchestration.step_results_queue: "q\"; drop" is not valid: want at most 47 lower-case letters, digits and _, starting with a letter`},
		"bounds":     {"executor_pools.task_finalizer.max=1", "command line: executor_pools.task_finalizer.max: must be at least executor_pools.task_finalizer.min (2)"},
		"turn":       {"executor_pools.task_finalizer.turn_timeout=15s", "command line: executor_pools.task_finalizer.turn_timeout: 15s must be at least twice database.statement_timeout + lock_timeout (2 × (5s + 3s) = 16s)"},
		"socket":     {"system.socket=/" + strings.Repeat("s", 100), "command line: system.socket: the path of a socket may have at most 100 bytes, but /" + strings.Repeat("s", 100) + " has 101: choose a shorter one"},
		"state":      {"system.state_dir=/" + strings.Repeat("s", 100), "command line: system.state_dir: the path of a socket may have at most 100 bytes, but /" + strings.Repeat("s", 100) + "/tasker.sock has 113: choose a shorter one"},
		"listen":     {"system.http_listen=0.0.0.0:80", `command line: system.http_listen: "0.0.0.0:80" can be reached from other machines: set auth.enabled = true and create a token with 'tasker token create', or listen on 127.0.0.1:80`},
		"all":        {"system.http_listen=:8080", `command line: system.http_listen: ":8080" can be reached from other machines: set auth.enabled = true and create a token with 'tasker token create', or listen on 127.0.0.1:8080`},
		"no port":    {"system.http_listen=localhost", `command line: system.http_listen: "localhost" is not an address: want host:port, such as 127.0.0.1:8080`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key, value, _ := strings.Cut(test.set, "=")
			_, err := load(t, Options{Overrides: map[string]string{key: value}})
			require.Error(t, err)
			require.Equal(t, []string{test.want}, report(t, err, "-"))
		})
	}
	for _, ok := range []string{"127.0.0.1:80", "[::1]:80", "localhost:0", ""} {
		_, err := load(t, Options{Overrides: map[string]string{"system.http_listen": ok}})
		require.NoError(t, err, ok)
	}
}

func TestWhereTheEnvironmentOrDirectoryIsWrong(t *testing.T) {
	t.Parallel()
	file := filepath.Join(writeFiles(t, map[string]string{"x.toml": ""}), "x.toml")
	for name, test := range map[string]struct {
		opts Options
		want string
	}{
		"unknown environment": {Options{Environment: "prodution"}, "environment prodution is neither built in (development, production, test) nor a folder environments/prodution of the configuration directory"},
		"hostile environment": {Options{Environment: "../../etc"}, `--env: "../../etc" is not the name of an environment: want lower-case letters, digits, _ and -`},
		"missing directory":   {Options{Dir: "/does/not/exist"}, "--config: stat /does/not/exist: no such file or directory"},
		"not a directory":     {Options{Dir: file}, "--config: " + file + " is not a directory: want the one that contains the *.toml files"},
	} {
		_, err := load(t, test.opts)
		require.EqualError(t, err, test.want, name)
	}
}

func TestNoHomeAndNoStateDirectory(t *testing.T) {
	t.Parallel()
	bare, err := Load(Options{Environ: []string{"PATH=/bin"}})
	if os.Geteuid() == 0 {
		require.NoError(t, err)
		require.Equal(t, "/var/lib/tasker", bare.System.StateDir)
	} else {
		require.EqualError(t, err, "configuration: system.state_dir: neither XDG_STATE_HOME nor HOME is set: set the directory for the host's state")
	}
	c, err := Load(Options{Environ: []string{"XDG_STATE_HOME=/state"}})
	require.NoError(t, err)
	require.Equal(t, "/state/tasker", c.System.StateDir)
}

func TestDatabaseURL(t *testing.T) {
	t.Parallel()
	secrets := t.TempDir()
	file := filepath.Join(secrets, "url")
	require.NoError(t, os.WriteFile(file, []byte(secretURL+"\n"), 0o600))
	open := filepath.Join(secrets, "open")
	require.NoError(t, os.WriteFile(open, []byte(secretURL), 0o600))
	require.NoError(t, os.Chmod(open, 0o644))
	inFile := func(text string) Options {
		return Options{Dir: writeFiles(t, map[string]string{"database.toml": "[database]\n" + text})}
	}

	t.Run("from DATABASE_URL", func(t *testing.T) {
		t.Parallel()
		c, err := load(t, Options{}, "DATABASE_URL="+secretURL)
		require.NoError(t, err)
		require.Equal(t, secretURL, c.Database.URL.Reveal())
	})
	t.Run("from a file of its own", func(t *testing.T) {
		t.Parallel()
		c, err := load(t, inFile(fmt.Sprintf("url_file = %q", file)))
		require.NoError(t, err)
		require.Equal(t, secretURL, c.Database.URL.Reveal())
		require.Empty(t, c.Warnings)
	})
	t.Run("the environment wins over a file", func(t *testing.T) {
		t.Parallel()
		c, err := load(t, inFile(fmt.Sprintf("url_file = %q", file)), "DATABASE_URL=postgres://other/db")
		require.NoError(t, err)
		require.Equal(t, "postgres://other/db", c.Database.URL.Reveal())
	})
	t.Run("the command line wins over the environment", func(t *testing.T) {
		t.Parallel()
		c, err := load(t, Options{Overrides: map[string]string{"database.url_file": file}}, "DATABASE_URL=postgres://other/db")
		require.NoError(t, err)
		require.Equal(t, secretURL, c.Database.URL.Reveal())
	})
	t.Run("a file that all may read is a warning", func(t *testing.T) {
		t.Parallel()
		c, err := load(t, inFile(fmt.Sprintf("url_file = %q", open)))
		require.NoError(t, err)
		require.Len(t, c.Warnings, 1)
		require.Contains(t, c.Warnings[0], "chmod 600 "+open)
	})
	t.Run("without a password it may stand in a file", func(t *testing.T) {
		t.Parallel()
		c, err := load(t, inFile(`url = "postgres:///app?host=/run/postgresql"`))
		require.NoError(t, err)
		require.Equal(t, "postgres:///app?host=/run/postgresql", c.Database.URL.Reveal())
	})
	for name, text := range map[string]string{
		"a password in a file":      fmt.Sprintf("url = %q", secretURL),
		"a password as a parameter": `url = "postgres://db/app?password=hunter2"`,
		"a password as key=value":   `url = "host=db password=hunter2"`,
		"a character of its own":    `url = "postgres://app:hun^ter2@db/app"`,
		"half a fragment":           `url = "postgres://app:12#hunter2@db/app"`,
		"several hosts":             `url = "postgres://app:hunter2@db1:5432,db2/app"`,
		"the password of a key":     `url = "postgres://app@db/app?sslpassword=hunter2"`,
		"two sources":               fmt.Sprintf("url = \"postgres://db/app\"\nurl_file = %q", file),
		"a missing file":            `url_file = "nowhere"`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := load(t, inFile(text))
			require.Error(t, err)
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
	t.Run("two variables", func(t *testing.T) {
		t.Parallel()
		_, err := load(t, Options{}, "DATABASE_URL="+secretURL, "TASKER__DATABASE__URL="+secretURL)
		require.ErrorContains(t, err, "already set in environment variable TASKER__DATABASE__URL")
		require.NotContains(t, err.Error(), "hunter2")
	})
}

func TestSecretsShowThemselvesToNobody(t *testing.T) {
	t.Parallel()
	c, err := load(t, Options{}, "DATABASE_URL="+secretURL)
	require.NoError(t, err)

	var shown strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		fmt.Fprintf(&shown, verb, c.Database)
		fmt.Fprintf(&shown, verb, c.Database.URL)
		fmt.Fprintf(&shown, verb, &c.Database.URL)
	}
	encoded, err := json.Marshal(c)
	require.NoError(t, err)
	shown.Write(encoded)
	slog.New(slog.NewTextHandler(&shown, nil)).Info("config", "url", c.Database.URL, "config", c)
	slog.New(slog.NewJSONHandler(&shown, nil)).Info("config", "url", c.Database.URL, "config", c)

	require.Contains(t, shown.String(), redacted)
	require.NotContains(t, shown.String(), "hunter2")
	require.NotContains(t, shown.String(), fmt.Sprintf("%x", "hunter2"))
	require.Empty(t, Secret{}.String())
}

func TestValidateChecksRangesOfAConfigMadeByHand(t *testing.T) {
	t.Parallel()
	c, err := load(t, Options{})
	require.NoError(t, err)
	require.NoError(t, c.Validate())
	c.Engine.MaxSteps, c.System.LogLevel, c.Orchestration.Lease = -1, "", time.Nanosecond
	require.ErrorContains(t, c.Validate(), "engine.max_steps: -1 is out of range: want 1 to 100000")
	require.ErrorContains(t, c.Validate(), `system.log_level: "" is not one of`)
	require.ErrorContains(t, c.Validate(), "orchestration.lease: 1ns is out of range: want 1s to 1h")
}

// Whatever durations an operator writes, those that Load accepts keep the budgets.
func TestAcceptedConfigurationsKeepTheirBudgets(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		overrides := map[string]string{}
		for _, key := range []string{
			"orchestration.lease", "orchestration.heartbeat", "orchestration.sweep_interval",
			"database.statement_timeout", "database.lock_timeout", "orchestration.drain_timeout",
		} {
			if rapid.Bool().Draw(t, "set "+key) {
				overrides[key] = fmt.Sprint(rapid.IntRange(-1, 3600).Draw(t, key)) + "s"
			}
		}
		c, err := Load(Options{Environ: []string{"HOME=/h"}, Overrides: overrides})
		if err != nil {
			require.NotEmpty(t, err.(*Error).Problems)
			return
		}
		require.LessOrEqual(t, 3*c.Orchestration.Heartbeat, c.Orchestration.Lease)
		require.LessOrEqual(t, 3*(c.Database.StatementTimeout+c.Database.LockTimeout), c.Orchestration.Lease)
		require.LessOrEqual(t, 6*c.Orchestration.SweepInterval, c.Orchestration.Lease)
	})
}

func FuzzParseDocument(f *testing.F) {
	f.Add([]byte("[a]\nb = 1\nc = { d = [1, { e = 2 }] }\n[[f]]\ng = 1\n[f.h]\ni = 1\n"))
	f.Add([]byte("a.b.c = 1979-05-27T07:32:00Z\n\"\" = ''\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		entries, problem := parseDocument("fuzz.toml", src)
		if problem != nil {
			return
		}
		for _, e := range entries {
			if len(e.path) == 0 || e.line < 1 {
				t.Fatalf("entry without path or line: %+v", e)
			}
		}
	})
}
