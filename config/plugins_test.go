package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func plugins(t *testing.T, env, text string) (specs []PluginSpec, dir string, err error) {
	t.Helper()
	dir = writeFiles(t, map[string]string{"plugins.toml": text})
	p, err := LoadPlugins(filepath.Join(dir, "plugins.toml"), env)
	if err != nil {
		return nil, dir, err
	}
	return p.Specs, dir, nil
}

func TestPluginLayers(t *testing.T) {
	t.Parallel()
	const text = `
[defaults]
start_timeout = "3s"
options = { unit = "m", log = { level = "info", file = "f" } }

[plugin.handler.b]
path = "/opt/b"
required = false
env = ["HTTP_PROXY", "LANG"]

[plugin.handler.a]
path = "bin/a"
sha256 = "` + "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" + `"
max_in_flight = 7
[plugin.handler.a.options]
list = [1, { x = 2.5 }]
log.level = "debug"

[env.production.plugin.handler.a]
max_in_flight = 70
options.log.level = "warn"

[env.production.plugin.handler.only_here]
path = "c"
`
	specs, dir, err := plugins(t, "development", text)
	require.NoError(t, err)
	require.Len(t, specs, 2)
	require.Equal(t, 13, specs[0].At("sha256").Line)
	require.Equal(t, 3, specs[0].At("start_timeout").Line, "of the defaults")
	require.Equal(t, specs[0].Origin, specs[0].At("max_cpus"))
	specs[0].options, specs[0].settings = nil, nil // TestOptionOrigins checks the former
	require.Equal(t, PluginSpec{
		Kind: KindHandler, Name: "a",
		PluginSettings: PluginSettings{
			Path: filepath.Join(dir, "bin/a"), SHA256: strings.Repeat("0123456789abcdef", 4),
			Required: true, MaxInFlight: 7, StartTimeout: 3 * time.Second,
			DrainTimeout: 30 * time.Second, RollbackWindow: 10 * time.Minute,
			MaxLogLines: 2000, MaxLogBytes: 1 << 20,
			Rollout: Rollout{Strategy: RolloutImmediate, Steps: []int{1, 10, 50}, Hold: time.Minute, LatencyFloor: 50 * time.Millisecond},
		},
		Options: []byte(`{"list":[1,{"x":2.5}],"log":{"file":"f","level":"debug"},"unit":"m"}`),
		Origin:  Origin{Source: filepath.Join(dir, "plugins.toml"), Line: 11},
	}, specs[0])
	require.Equal(t, "/opt/b", specs[1].Path)
	require.False(t, specs[1].Required)
	require.Equal(t, 500, specs[1].MaxInFlight)
	require.Equal(t, []string{"HTTP_PROXY", "LANG"}, specs[1].Env)

	specs, _, err = plugins(t, "production", text)
	require.NoError(t, err)
	require.Len(t, specs, 3)
	require.Equal(t, 70, specs[0].MaxInFlight)
	require.JSONEq(t, `{"list":[1,{"x":2.5}],"log":{"file":"f","level":"warn"},"unit":"m"}`, string(specs[0].Options))
	require.Equal(t, "only_here", specs[2].Name)
	require.JSONEq(t, `{"unit":"m","log":{"level":"info","file":"f"}}`, string(specs[2].Options))
}

func TestPluginProblemsAtOnceWithPlace(t *testing.T) {
	t.Parallel()
	_, dir, err := plugins(t, "development", `
[default]
required = true
[plugin.handler.no_path]
[plugin.handler.a]
path = 1
sha265 = "x"
sha256 = "ABC"
max_in_flight = 0
start_timeout = 10
env = ["OK", "not ok", 3]
options = "none"
[plugin.handlers.b]
path = "b"
[plugin.handler."Bad Name"]
path = "c"
[env.production.plugin.handler.a]
colour = "red"
[env.production.defaults]
required = true
[[plugin.handler.c]]
path = "c"
[plugin.handler.d]
path = "d"
memory_limit = "256 Mib"
max_log_bytes = 5
rollout = { strategy = "shadow+canary", steps = [1, 10, 10], hod = "1m" }
[plugin.handler.e]
path = "e"
rollout = "canary"
[plugin.scaling.f]
path = "f"
rollout = { strategy = "canary", steps = [] }
[plugin.scaling.f.options]
a = { from_env = "not a name" }
b = { from_env = "X", from_file = "y" }
c = [1, { from_file = 7 }]
[lock]
requird = true
[env.staging.trust]
keys = "RW"
[env.development.trust]
keys = ["no key"]
[trusted]
keys = []
`)
	require.Error(t, err)
	require.Equal(t, []string{
		`plugins.toml:2: default: unknown, did you mean defaults? ` + pluginTables,
		`plugins.toml:4: plugin.handler.no_path: path is missing`,
		`plugins.toml:5: plugin.handler.a: path is missing`,
		`plugins.toml:6: plugin.handler.a.path: want a string, got an integer`,
		`plugins.toml:7: plugin.handler.a.sha265: unknown key, did you mean sha256?`,
		`plugins.toml:8: plugin.handler.a.sha256: "ABC" is not valid: want 64 lower-case hexadecimal digits`,
		`plugins.toml:9: plugin.handler.a.max_in_flight: 0 is out of range: want 1 to 100000`,
		`plugins.toml:10: plugin.handler.a.start_timeout: want a duration with its unit, such as "30s", got an integer`,
		`plugins.toml:11: plugin.handler.a.env: "not ok" is not the name of an environment variable`,
		`plugins.toml:11: plugin.handler.a.env: "3" is not the name of an environment variable`,
		`plugins.toml:12: plugin.handler.a.options: want a table, got a string`,
		`plugins.toml:13: plugin.handlers: "handlers" is not a kind of plugin: want handler, health, scaling`,
		`plugins.toml:15: plugin.handler.Bad Name: "Bad Name" is not a plugin's name: want lower-case letters, digits, _ and -, at most 63`,
		`plugins.toml:18: env.production.plugin.handler.a.colour: unknown key; a plugin has drain_timeout, env, max_cpus, max_in_flight, max_log_bytes, max_log_lines, max_memory, max_processes, memory_limit, options, path, required, rollback_window, rollout.hold, rollout.latency_floor, rollout.steps, rollout.strategy, sha256, start_timeout, user`,
		`plugins.toml:19: env.production.defaults: unknown; ` + pluginTables,
		`plugins.toml:21: plugin.handler.c: want a table, got an array`,
		`plugins.toml:25: plugin.handler.d.memory_limit: want a size with its unit, such as "256MiB", got "256 Mib"`,
		`plugins.toml:26: plugin.handler.d.max_log_bytes: want a size with its unit, such as "256MiB", got an integer`,
		`plugins.toml:27: plugin.handler.d.rollout.hod: unknown key, did you mean rollout.hold?`,
		`plugins.toml:27: plugin.handler.d.rollout.steps: 10: want growing shares in percent, 1 to 100, such as [1, 10, 50]`,
		`plugins.toml:27: plugin.handler.d.rollout.strategy: handlers have effects, so steps cannot run twice for a comparison: want immediate or canary`,
		`plugins.toml:30: plugin.handler.e.rollout: want a table, got a string`,
		`plugins.toml:33: plugin.scaling.f.rollout.steps: a canary needs at least one share, such as [1, 10, 50]`,
		`plugins.toml:35: plugin.scaling.f.options.a: from_env: "not a name" is not the name of an environment variable`,
		`plugins.toml:36: plugin.scaling.f.options.b: a reference to a secret has exactly one key, from_env or from_file`,
		`plugins.toml:37: plugin.scaling.f.options.c.1: from_file: want the path of a file`,
		`plugins.toml:39: lock.requird: unknown key, did you mean lock.required?`,
		`plugins.toml:41: env.staging.trust.keys: want an array of strings, got a string`,
		`plugins.toml:43: trust.keys: "no key" is not a public key: want the line of 56 characters that 'tasker plugin keygen' or minisign prints, RW…`,
		`plugins.toml:44: trusted: unknown, did you mean trust? ` + pluginTables,
	}, report(t, err, dir))
}

func TestPolicyLayers(t *testing.T) {
	t.Parallel()
	const key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"
	policy := func(env, text string) PluginPolicy {
		dir := writeFiles(t, map[string]string{"plugins.toml": text})
		p, err := LoadPlugins(filepath.Join(dir, "plugins.toml"), env)
		require.NoError(t, err)
		require.Equal(t, env, p.Environment)
		require.Equal(t, filepath.Join(dir, "plugins.toml"), p.Path)
		return p.PluginPolicy
	}
	require.Zero(t, policy("development", ""))
	require.True(t, policy("production", "").Lock.Required, "production runs what was locked")
	require.True(t, policy("production", "[lock]\nrequired = false").Lock.Required, "what holds for all does not open production")
	require.False(t, policy("production", "[env.production.lock]\nrequired = false").Lock.Required)
	require.True(t, policy("staging", "[lock]\nrequired = true").Lock.Required)
	text := "[trust]\nkeys = [\"" + key + "\"]\n[env.test.trust]\nkeys = []"
	require.Equal(t, []string{key}, policy("staging", text).Trust.Keys)
	require.Empty(t, policy("test", text).Trust.Keys)
}

const secretText = `[defaults.options]
level = "info"
[plugin.handler.a]
path = "a"
[plugin.handler.a.options]
token = { from_env = "TOKEN" }
"a/b" = [ { x = { from_file = "key" } }, 7 ]
plain = { from_env_not = 1 }
[env.test.plugin.handler.a.options]
token = { from_file = "other" }
`

func TestSecretsInOptions(t *testing.T) {
	t.Parallel()
	specs, dir, err := plugins(t, "development", secretText)
	require.NoError(t, err)
	s := specs[0]
	require.JSONEq(t, `{"level":"info","token":{"from_env":"TOKEN"},"a/b":[{"x":{"from_file":"`+dir+`/key"}},7],"plain":{"from_env_not":1}}`, string(s.Options))

	values := map[string]string{"TOKEN": "swordfish"}
	getenv := func(name string) (string, bool) { v, ok := values[name]; return v, ok }
	require.NoError(t, os.WriteFile(filepath.Join(dir, "key"), []byte("open \"sesame\"\r\n"), 0o600))
	resolved, secrets, err := s.ResolveOptions(getenv)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"swordfish", "open \"sesame\""}, secrets)
	require.JSONEq(t, `{"level":"info","token":"swordfish","a/b":[{"x":"open \"sesame\""},7],"plain":{"from_env_not":1}}`, string(resolved))
	require.NotContains(t, string(s.Options), "swordfish")

	delete(values, "TOKEN")
	require.NoError(t, os.Remove(filepath.Join(dir, "key")))
	_, _, err = s.ResolveOptions(getenv)
	require.Equal(t, []string{
		"plugins.toml:6: plugin.handler.a.options.token: the environment variable TOKEN is not set",
		"plugins.toml:7: plugin.handler.a.options.a/b.0.x: file key does not exist",
	}, report(t, err, dir))

	values["TOKEN"] = ""
	require.NoError(t, os.WriteFile(filepath.Join(dir, "key"), []byte("\n"), 0o600))
	_, _, err = s.ResolveOptions(getenv)
	require.Equal(t, []string{
		"plugins.toml:6: plugin.handler.a.options.token: the environment variable TOKEN is empty",
		"plugins.toml:7: plugin.handler.a.options.a/b.0.x: the file key is empty",
	}, report(t, err, dir), "a secret that was not written yet is no empty password")

	specs, dir, err = plugins(t, "test", secretText)
	require.NoError(t, err)
	require.Contains(t, string(specs[0].Options), `"token":{"from_file":"`+dir+`/other"}`, "a reference replaces a reference")
}

func TestOptionOrigins(t *testing.T) {
	t.Parallel()
	specs, dir, err := plugins(t, "test", secretText)
	require.NoError(t, err)
	for pointer, want := range map[string]string{
		"":           "plugins.toml:3: plugin.handler.a.options: no",
		"/level":     "plugins.toml:2: plugin.handler.a.options.level: no",
		"/token":     "plugins.toml:10: plugin.handler.a.options.token: no",
		"/a~1b/0/x":  "plugins.toml:7: plugin.handler.a.options.a/b.0.x: no",
		"/unheard/1": "plugins.toml:3: plugin.handler.a.options.unheard.1: no",
		"garbage":    "plugins.toml:3: plugin.handler.a.options.garbage: no",
	} {
		got := specs[0].OptionProblem(pointer, "no").String()
		require.Equal(t, want, strings.TrimPrefix(got, dir+"/"), pointer)
	}
}

func TestPluginFileIsMissingOrBroken(t *testing.T) {
	t.Parallel()
	_, err := LoadPlugins("/nowhere/plugins.toml", "test")
	require.ErrorIs(t, err, os.ErrNotExist)
	_, dir, err := plugins(t, "test", "[plugin.handler.a\n")
	require.Error(t, err)
	require.Len(t, report(t, err, dir), 1)
	require.Contains(t, err.Error(), "plugins.toml:1")
	_, dir, err = plugins(t, "test", "[plugin.handler.a]\npath = \"x\"\n[plugin.handler.a]\npath = \"y\"\n")
	require.Error(t, err)
	require.Equal(t, []string{"plugins.toml:3: toml: table a already exists: a plugin has one table, and one more in each env.ENV; merge the two"}, report(t, err, dir))
}

func TestThisRepositorysPluginsLoad(t *testing.T) {
	t.Parallel()
	p, err := LoadPlugins("../plugins.toml", "development")
	require.NoError(t, err)
	specs := p.Specs
	require.Len(t, specs, 2)
	require.Equal(t, "arithmetic", specs[0].Name)
	require.Equal(t, "fulfillment", specs[1].Name)
}

func FuzzParsePlugins(f *testing.F) {
	f.Add([]byte("[plugin.handler.a]\npath = \"x\"\n[env.test.plugin.handler.a]\noptions = { a = { b = 1 } }\n"))
	f.Add([]byte("[plugin.scaling.a]\npath = \"x\"\noptions = { a = [{ from_env = \"X\" }] }\nrollout.steps = [1]\n[env.test.lock]\nrequired = true\n"))
	f.Add([]byte("env = 1\nplugin = 2\ndefaults = []\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		p, err := parsePlugins("/etc/tasker/plugins.toml", src, "test")
		if err != nil {
			return
		}
		for _, s := range p.Specs {
			s.OptionProblem("/a/b", "x")
			if !filepath.IsAbs(s.Path) || len(s.Options) == 0 || s.MaxInFlight < 1 {
				t.Fatalf("incomplete plugin: %+v", s)
			}
		}
	})
}
