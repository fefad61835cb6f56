package core

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/health"
	"github.com/tasker-systems/tasker-host/host/internal/telemetry"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
)

// bed is a host in this process with its own database and directory.
type bed struct {
	*Core
	dir    string
	log    *logText
	reload chan os.Signal
	api    *client.Client
}

// logText is a log that a test reads while a host writes to it.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// write replaces a file atomically: a host sees either the old or the new one.
func (b *bed) write(t testing.TB, name, text string) {
	t.Helper()
	path := filepath.Join(b.dir, name)
	require.NoError(t, os.WriteFile(path+".new", []byte(text), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

// start starts a host without plugins, with the text of a configuration file and
// environment variables.
func start(t testing.TB, text string, environ ...string) *bed {
	t.Helper()
	return startWith(t, nil, text, environ...)
}

// startWith starts a host with plugins.
func startWith(t testing.TB, plugins []config.PluginSpec, text string, environ ...string) *bed {
	t.Helper()
	return startOptions(t, plugins, text, func(o config.Options) config.Options { return o }, environ...)
}

// startOptions starts a host whose options may change with each reload.
func startOptions(t testing.TB, plugins []config.PluginSpec, text string, anew func(config.Options) config.Options, environ ...string) *bed {
	t.Helper()
	return startHost(t, func(o *Options) { o.Plugins = plugins }, text, anew, environ...)
}

// startHost starts a host with unusual options.
func startHost(t testing.TB, made func(*Options), text string, anew func(config.Options) config.Options, environ ...string) *bed {
	t.Helper()
	b := &bed{dir: t.TempDir(), log: &logText{}, reload: make(chan os.Signal, 1)}
	b.write(t, "host.toml", text)
	state, err := os.MkdirTemp("", "tasker") // the path of a socket must be short
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(state)) })
	options := config.Options{
		Environment: "test", Dir: b.dir, Overrides: map[string]string{"system.state_dir": state},
		Environ: environ,
	}
	if !slices.ContainsFunc(environ, func(v string) bool { return strings.HasPrefix(v, "DATABASE_URL=") }) {
		options.Environ = append([]string{"DATABASE_URL=" + pgtest.DSN(t)}, environ...)
	}
	cfg, err := config.Load(options)
	require.NoError(t, err)
	log, err := newLogger(cfg, func(l *telemetry.LogOptions) { l.Output = b.log })
	require.NoError(t, err)
	of := Options{
		Config: cfg, Log: log, Reload: b.reload, health: health.Config{Interval: 100 * time.Millisecond, Timeout: 20 * time.Second},
		Load: func() (*config.Config, error) { return config.Load(anew(options)) },
	}
	made(&of)
	b.Core = New(of)
	require.NoError(t, b.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, b.Stop(ctx))
	})
	b.api, err = client.New(client.Options{Socket: cfg.System.Socket})
	require.NoError(t, err)
	t.Cleanup(b.api.Close)
	return b
}

// eventually waits for the effect of a change of files.
func (b *bed) eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	require.Eventually(t, holds, 2*time.Minute, 10*time.Millisecond, "%s; the log:\n%s", what, b.log)
}

// get sends a GET request to the host's API.
func (b *bed) get(t *testing.T, path string) (int, string) {
	t.Helper()
	web := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", b.cfg.System.Socket)
	}}}
	defer web.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://host"+path, nil)
	require.NoError(t, err)
	resp, err := web.Do(req)
	require.NoError(t, err)
	defer func() { require.NoError(t, resp.Body.Close()) }()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(body)
}

const threeSteps = `namespace: reload
name: three
version: 1.0.0
steps:
  - {name: a, handler: x}
  - {name: b, handler: x}
  - {name: c, handler: x}
`

func TestReloadOfFilesIsAllOrNothing(t *testing.T) {
	t.Parallel()
	b := start(t, "[engine]\nmax_steps = 50\n")
	shown := func() (generation int, restart []string, refused string) {
		v, err := b.api.Configuration(t.Context())
		require.NoError(t, err)
		return v.Generation, v.Restart, v.Refused
	}
	valid := func() error {
		_, err := b.api.ValidateTemplate(t.Context(), "three.yaml", []byte(threeSteps))
		return err
	}
	require.NoError(t, valid())

	// Valid: applied automatically, naming what waits for a restart.
	b.write(t, "host.toml", "[engine]\nmax_steps = 2\n[database]\nmax_connections = 12\n[system]\nlog_level = \"debug\"\n")
	b.eventually(t, "generation 2", func() bool { g, _, _ := shown(); return g == 2 })
	_, restart, _ := shown()
	require.Equal(t, []string{"database.max_connections"}, restart)
	require.ErrorContains(t, valid(), "2")
	b.eventually(t, "a log line about it", func() bool {
		return strings.Contains(b.log.String(), "the changed configuration is in force: reason=files generation=2")
	})
	require.Contains(t, b.log.String(), `keys="engine.max_steps, system.log_level"`)
	require.True(t, b.Core.log.IsDebug())
	require.True(t, b.Core.log.Named("pipeline").IsDebug())

	// Partly invalid: nothing is applied.
	b.write(t, "host.toml", "[engine]\nmax_steps = 60\nmax_in_flight = 0\n")
	b.eventually(t, "a refusal", func() bool { _, _, refused := shown(); return refused != "" })
	generation, _, refused := shown()
	require.Equal(t, 2, generation)
	require.Contains(t, refused, filepath.Join(b.dir, "host.toml")+":3: engine.max_in_flight: 0 is out of range")
	require.Error(t, valid())

	// On request: the same verdict, and once it is valid, it takes effect.
	_, err := b.api.ReloadConfiguration(t.Context())
	require.ErrorContains(t, err, "engine.max_in_flight: 0 is out of range")
	b.write(t, "host.toml", "[engine]\nmax_steps = 60\n")
	b.reload <- syscall.SIGHUP
	b.eventually(t, "generation 3", func() bool { g, _, _ := shown(); return g == 3 })
	_, restart, refused = shown()
	require.Empty(t, restart)
	require.Empty(t, refused)
	require.NoError(t, valid())
	again, err := b.api.ReloadConfiguration(t.Context())
	require.NoError(t, err)
	require.Equal(t, 3, again.Generation)
	require.Empty(t, again.Applied)

	_, metrics := b.get(t, "/metrics")
	for _, want := range []string{
		"tasker_config_generation 3", `tasker_config_reloads_total{outcome="applied"} 2`, `tasker_config_reloads_total{outcome="refused"}`,
	} {
		require.Contains(t, metrics, want)
	}
	require.False(t, strings.Contains(metrics, `outcome="refused"} 0`))
}
