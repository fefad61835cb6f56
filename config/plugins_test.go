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
	specs, err = LoadPlugins(filepath.Join(dir, "plugins.toml"), env)
	return specs, dir, err
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
	require.Equal(t, PluginSpec{
		Kind: KindHandler, Name: "a",
		PluginSettings: PluginSettings{
			Path: filepath.Join(dir, "bin/a"), SHA256: strings.Repeat("0123456789abcdef", 4),
			Required: true, MaxInFlight: 7, StartTimeout: 3 * time.Second,
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
`)
	require.Error(t, err)
	require.Equal(t, []string{
		`plugins.toml:2: default: unknown; the tables are defaults, plugin.handler.NAME and env.ENV.plugin.handler.NAME`,
		`plugins.toml:4: plugin.handler.no_path: path is missing`,
		`plugins.toml:5: plugin.handler.a: path is missing`,
		`plugins.toml:6: plugin.handler.a.path: want a string, got an integer`,
		`plugins.toml:7: plugin.handler.a.sha265: unknown key, did you mean sha256?`,
		`plugins.toml:8: plugin.handler.a.sha256: "ABC" does not fit: want 64 lower-case hexadecimal digits`,
		`plugins.toml:9: plugin.handler.a.max_in_flight: 0 is out of range: want 1 to 100000`,
		`plugins.toml:10: plugin.handler.a.start_timeout: want a duration with its unit, such as "30s", got an integer`,
		`plugins.toml:11: plugin.handler.a.env: "not ok" is not the name of an environment variable`,
		`plugins.toml:11: plugin.handler.a.env: "3" is not the name of an environment variable`,
		`plugins.toml:12: plugin.handler.a.options: want a table, got a string`,
		`plugins.toml:13: plugin.handlers: "handlers" is not a kind of plugin: want handler`,
		`plugins.toml:15: plugin.handler.Bad Name: "Bad Name" is not a plugin's name: want lower-case letters, digits, _ and -, at most 63`,
		`plugins.toml:18: env.production.plugin.handler.a.colour: unknown key; a plugin has env, max_in_flight, options, path, required, sha256, start_timeout`,
		`plugins.toml:19: env.production.defaults: unknown; the tables are defaults, plugin.handler.NAME and env.ENV.plugin.handler.NAME`,
		`plugins.toml:21: plugin.handler.c: want a table, got an array`,
	}, report(t, err, dir))
}

func TestPluginFileIsMissingOrBroken(t *testing.T) {
	t.Parallel()
	_, err := LoadPlugins("/nowhere/plugins.toml", "test")
	require.ErrorIs(t, err, os.ErrNotExist)
	_, dir, err := plugins(t, "test", "[plugin.handler.a\n")
	require.Error(t, err)
	require.Len(t, report(t, err, dir), 1)
	require.Contains(t, err.Error(), "plugins.toml:1")
}

func TestThisRepositorysPluginsLoad(t *testing.T) {
	t.Parallel()
	specs, err := LoadPlugins("../plugins.toml", "development")
	require.NoError(t, err)
	require.Len(t, specs, 2)
	require.Equal(t, "arithmetic", specs[0].Name)
	require.Equal(t, "fulfillment", specs[1].Name)
}

func FuzzParsePlugins(f *testing.F) {
	f.Add([]byte("[plugin.handler.a]\npath = \"x\"\n[env.test.plugin.handler.a]\noptions = { a = { b = 1 } }\n"))
	f.Add([]byte("env = 1\nplugin = 2\ndefaults = []\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		specs, err := parsePlugins("/etc/tasker/plugins.toml", src, "test")
		if err != nil {
			return
		}
		for _, s := range specs {
			if !filepath.IsAbs(s.Path) || len(s.Options) == 0 || s.MaxInFlight < 1 {
				t.Fatalf("incomplete plugin: %+v", s)
			}
		}
	})
}
