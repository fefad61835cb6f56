package pluginhost

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/lifecycle/lifecycletest"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/process"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// A required plugin that cannot start fails Start with an error that says why
// and what to do, and leaves nothing running.
func TestBadPluginsDoNotStart(t *testing.T) {
	t.Parallel()
	writeFile := func(content string, mode os.FileMode) func(testing.TB) string {
		return func(t testing.TB) string {
			path := filepath.Join(t.TempDir(), "plugin")
			require.NoError(t, os.WriteFile(path, []byte(content), 0o700))
			require.NoError(t, os.Chmod(path, mode))
			return path
		}
	}
	inMode := func(mode string) func(testing.TB) string {
		return func(t testing.TB) string { return script(t, mode) }
	}
	inShell := func(lines string) func(testing.TB) string {
		return func(t testing.TB) string { return shell(t, lines) }
	}
	for _, tc := range []struct {
		name   string
		path   func(testing.TB) string
		change func(*Spec)
		want   []string
	}{
		{name: "missing", path: func(testing.TB) string { return "/nowhere/plugin" }, want: []string{"/nowhere/plugin: no such file", "build the plugin"}},
		{name: "not executable", path: writeFile("#!/bin/sh\n", 0o600), want: []string{"is not executable (mode 0600)", "chmod +x"}},
		{name: "writable by others", path: writeFile("#!/bin/sh\n", 0o777), want: []string{"is writable by others (mode 0777)", "chmod go-w"}},
		{name: "not a program", path: writeFile("hello, this is a text\n", 0o700), want: []string{"not an executable for this machine"}},
		{name: "symbolic link", path: func(t testing.TB) string {
			link := filepath.Join(t.TempDir(), "link")
			require.NoError(t, os.Symlink(script(t, "sdk"), link))
			return link
		}, want: []string{"is a symbolic link"}},
		{
			name: "wrong checksum", path: inShell("exit 0"), change: func(s *Spec) { s.SHA256 = strings.Repeat("ab", 32) },
			want: []string{"checksum mismatch: sha256 is ", ", but the configured one is " + strings.Repeat("ab", 32), "set the plugin's sha256"},
		},
		{name: "not a plugin", path: inShell("echo hello, world; sleep 1000"), want: []string{`printed "hello, world\n" on standard output before the handshake`, "use standard error"}},
		{name: "long line", path: inShell("head -c 70000 /dev/zero | tr '\\0' x; sleep 1000"), want: []string{`printed "xxxx`}},
		{name: "ends at once", path: inShell("echo no licence >&2; exit 3"), want: []string{"it ended before the handshake: exit code 3", "standard error ends with:\nno licence"}},
		{name: "killed", path: inShell("kill -SEGV $$"), want: []string{"ended by signal 11"}},
		{name: "missing interpreter", path: writeFile("#!/no/such/interpreter\n", 0o700), want: []string{"no such file", "interpreter or dynamic loader is missing"}},
		{
			name: "silent", path: inShell("sleep 1000"), change: func(s *Spec) { s.StartTimeout = 150 * time.Millisecond },
			want: []string{"no handshake within 150ms"},
		},
		{
			name: "dead socket", path: inShell(`echo "1|1|unix|$TMPDIR/nobody|grpc|"; sleep 1000`), change: func(s *Spec) { s.StartTimeout = 2 * time.Second },
			want: []string{"start plugin bad"},
		},
		{
			name: "other product", path: inShell("echo 'This binary is a plugin. These are not meant to be executed directly.' >&2; exit 1"),
			want: []string{"plugin for another product"},
		},
		{name: "endless schema", path: inMode("bad-schema-doubling"), want: []string{"configure: the schema of its options: it has more than"}},
		{name: "endless error", path: inMode("bad-selftest-shout"), want: []string{"self-test"}},
		{name: "endless slots", path: inMode("bad-slots-many"), want: []string{"describe: it declares", "handlers, algorithms and health services, more than the maximum of 4096"}},
		{name: "wrong protocol", path: inMode("version"), want: []string{"incompatible API version", "99", "[1]", "build it with the SDK of the host's version"}},
		{name: "net/rpc", path: inMode("netrpc"), want: []string{`start plugin bad`}},
		{name: "self-test fails", path: inMode("selftest"), want: []string{"self-test: it fails: the database of rates is missing"}},
		{
			name: "refuses options", path: inMode("sdk"), change: func(s *Spec) { s.Options = json.RawMessage(`{"greeting":"rude"}`) },
			want: []string{"it refuses its options: /greeting: be polite"},
		},
		{
			name: "unknown option", path: inMode("sdk"), change: func(s *Spec) { s.Options = json.RawMessage(`{"greetin":"hi"}`) },
			want: []string{"it refuses its options", "greetin"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			bad := spec("bad", tc.path(t))
			if tc.change != nil {
				tc.change(&bad)
			}
			b := newBench(t, nil, bad)
			began := time.Now()
			err := b.Start(t.Context())
			require.Error(t, err)
			for _, want := range tc.want {
				require.ErrorContains(t, err, want)
			}
			require.Less(t, time.Since(began), generous)
			require.Less(t, len(err.Error()), 100<<10)
			require.Empty(t, b.Handlers())
			require.Equal(t, Stopped, b.Status()[0].State)
		})
	}
}

func TestStartErrorsAreTyped(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil, spec("bad", shell(t, "echo oops >&2; exit 42")))
	var start *process.StartError
	require.ErrorAs(t, b.Start(t.Context()), &start)
	require.Equal(t, 42, start.Exit.Code)
	require.Equal(t, "oops\n", start.Exit.Stderr)
	require.Equal(t, "bad", start.Plugin)
}

// A plugin that is not required does not keep the others from starting, and is
// retried until it starts.
func TestOptionalPluginsAreTriedAgain(t *testing.T) {
	t.Parallel()
	ready := filepath.Join(t.TempDir(), "ready")
	late := spec("late", shell(t, fmt.Sprintf("test -e %s || exit 5\n%s", ready, plugin(t, "other"))))
	late.Required = false
	b := started(t, func(c *Config) { c.Restart.Exits = 1 << 30 }, spec("raw", script(t, "raw")), late)
	require.Contains(t, b.Handlers(), "raw.answer")
	require.NotContains(t, b.Handlers(), "other.echo")
	eventually(t, "the failure is reported", func() bool { return strings.Contains(b.Status()[1].LastError, "exit code 5") })

	require.NoError(t, os.WriteFile(ready, nil, 0o600))
	eventually(t, "it is served", func() bool {
		<-b.Changed()
		return b.Room("other.echo") > 0
	})
	require.Equal(t, "null", string(b.run(t, "other.echo", "").Result))
}

func TestTwoPluginsForOneHandler(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *Config) { c.StartParallel = 1 }, spec("chaos", script(t, "sdk")), spec("other", script(t, "other")))
	err := b.Start(t.Context())
	require.ErrorContains(t, err, `handler "chaos.echo" is already served by plugin "`)
	require.ErrorContains(t, err, `"chaos"`)
	require.ErrorContains(t, err, `"other"`)
}

func TestConfigurationFaultsComeAtOnce(t *testing.T) {
	t.Parallel()
	_, err := Config{StoreDir: "/s", Plugins: []Spec{
		{Kind: "other", Name: "a", Path: "/a"}, {Kind: KindHandler, Name: "A!", Path: "b", MaxInFlight: -1, Env: []string{"X=1"}}, {Kind: "other", Name: "a", Path: "/a"},
	}}.withDefaults()
	for _, want := range []string{
		"no source of generation numbers", `kind "other"`, `plugin "A!": the name`, `path "b" is not absolute`,
		"max_in_flight -1", `"X=1" is not the name`, `plugin "a" is configured twice`,
	} {
		require.ErrorContains(t, err, want)
	}
}

func TestStartIsAbortedByStop(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil, spec("silent", shell(t, "sleep 1000")))
	began := make(chan error, 1)
	go func() { began <- b.Start(context.Background()) }()
	eventually(t, "it starts", func() bool { return b.Status()[0].State == Starting })
	require.NoError(t, b.Stop(t.Context()))
	require.ErrorIs(t, <-began, errOvertaken)
}

// The plugin ends at once, so a start is cheap and never the same twice.
func TestLifecycle(t *testing.T) {
	t.Parallel()
	brief := spec("brief", shell(t, "exit 1"))
	brief.Required = false
	b := newBench(t, nil, brief)
	lifecycletest.Stress(t, b.Host)
}

func TestStartAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil, spec("chaos", script(t, "sdk")))
	for range 3 {
		require.NoError(t, b.Start(t.Context()))
		require.NoError(t, b.Start(t.Context()))
		require.Equal(t, vocab.OutcomeSuccess, b.run(t, "chaos.echo", "1").Kind)
		require.NoError(t, b.Stop(t.Context()))
		require.NoError(t, b.Stop(t.Context()))
	}
}
