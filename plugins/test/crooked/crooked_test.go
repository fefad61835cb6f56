package main

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/internal/leaks"
	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/health"
	"github.com/tasker-systems/tasker-host/sdk/tryout"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

func TestMain(m *testing.M) { leaks.Main(m) }

func config() tryout.Config {
	return tryout.Config{
		Examples: []tryout.Example{{Handler: "crooked.echo", Step: tryout.Step{Context: json.RawMessage(`{"n": 1}`)}}},
		Report:   true, Patience: 2 * time.Minute,
	}
}

// problems checks the plugin with a fault and returns what was found, by check.
func problems(t *testing.T, start tryout.Start, cfg tryout.Config) map[string]string {
	t.Helper()
	found := map[string]string{}
	shown := 0
	results := tryout.Check(t.Context(), start, cfg, func(tryout.Result) { shown++ })
	require.Len(t, results, shown)
	for _, r := range results {
		if r.Problem != "" {
			found[r.Name] = r.Problem
		}
	}
	return found
}

// Each fault is found by the check made for it, with a message that says what is
// wrong and what would be right. No check is misled by another fault: what else is
// found is listed here too.
func TestEveryFaultIsFound(t *testing.T) {
	t.Parallel()
	for fault, want := range map[string]map[string]string{
		"":             {},
		"nameless":     {"describe": `the version is "one": want a semantic version`},
		"empty":        {"describe": "it serves nothing: Describe must list its slots"},
		"odd-kind":     {"describe": "scaler one-more: the kind must be handler, scaling or health"},
		"unable":       {"describe": "health pulse: its abilities must name check, report or both"},
		"twice":        {"describe": "handler crooked.echo is listed twice"},
		"schema":       {"describe": "the schema of the options is not a JSON object: none"},
		"eager":        {"refuses work before configure": "Decide before Configure ends with code OK: want FailedPrecondition"},
		"any-options":  {"refuses unknown options": "an unknown option is accepted"},
		"reconfigured": {"is configured once": "a second Configure ends with code OK: want FailedPrecondition"},
		"unhealthy":    {"health": "it reports STATUS_UNHEALTHY feverish"},
		"self-test":    {"self-test": "it fails: the bank is closed"},
		"metrics":      {"collect": `not a sample in the Prometheus text format: "plugin{ 1"`},
		"ghost":        {"drain": "it reports 7 steps in flight, but there are none"},
		"undrained":    {"drain": "a step sent after Drain ends with success"},

		"obliging":   {"handlers: an unknown handler": "it ends with success and the result {}: want the failure HandlerNotFound"},
		"touchy":     {"handlers: a cancel of an unknown step is ignored": "nothing to cancel"},
		"sore-loser": {"handlers: the stream ends when the host has ended its half": "the host has left: want no error"},
		"deaf":       {"handlers: the stream ends when the host has ended its half": "the stream is still open"},
		"garbled": {
			"handler crooked.echo: the example succeeds":                  `the result is not JSON: "{\"almost\":"`,
			"handler crooked.echo: the example succeeds 16 times at once": "the result is not JSON",
		},
		"metadata": {
			"handler crooked.echo: the example succeeds":                  `the metadata is not a JSON object: "[1]"`,
			"handler crooked.echo: the example succeeds 16 times at once": "the metadata is not a JSON object",
		},

		"any-algorithm": {"scaling: an unknown algorithm": "it ends with code OK: want NotFound"},
		"helpless":      {"scaling one-more: nothing was measured": "the algorithm reports an error: division by zero"},
		"mixed-up": {
			"scaling one-more: the same observations, the same decisions": "must not affect another",
			"scaling one-more: a snapshot can be restored":                "the snapshot is incomplete",
		},
		"forgetful": {"scaling one-more: a snapshot can be restored": "the snapshot is incomplete"},
		"hoarder":   {"scaling one-more: a snapshot can be restored": "the snapshot has 2097152 bytes: want at most 1048576"},
		"stubborn":  {"scaling one-more: a snapshot can be restored": "it refuses its own snapshot: not mine"},
		"brittle":   {"scaling one-more: a foreign snapshot does no harm": "want an answer that says what is wrong"},

		"any-check": {"health: an unknown name": "Check ends with code OK: want NotFound"},
		"shifty":    {"health pulse: checks": "the host identifies a check by its name"},
		"silent":    {"health pulse: checks": "it has no results"},
		"bored":     {"health pulse: accepts an empty report": "report to pulse: nothing to report"},
		"choosy":    {"health pulse: reports": "report to pulse: unknown event"},
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			start := tryout.InMemory(func() (wire.Server, error) { return &crooked{fault: fault}, nil })
			cfg := config()
			if fault == "deaf" || fault == "eager" { // the check waits for what these do or fail to do
				cfg.Patience = 10 * time.Second
			}
			got := problems(t, start, cfg)
			require.ElementsMatch(t, slices.Collect(maps.Keys(want)), slices.Collect(maps.Keys(got)), "%v", got)
			for name, words := range want {
				require.Contains(t, got[name], words)
			}
		})
	}
}

// What the SDK makes usable for the host is still a fault of the plugin.
func TestUnusableResultsAreFound(t *testing.T) {
	t.Parallel()
	odd := health.CheckFunc(func(context.Context) ([]health.Check, error) {
		return []health.Check{{Name: "mood", Status: "fine", Message: "it sings"}}, nil
	})
	start := tryout.InMemory(func() (wire.Server, error) {
		return sdk.New(sdk.Health("mood", "1.0.0", map[string]health.Service{"mood": {Checker: odd}}))
	})
	got := problems(t, start, config())
	require.Contains(t, got["health mood: checks"], `result "mood": the result is not usable: the status is "fine"`)
}

// A fault of every call of a kind is found wherever that kind is called.
func TestGeneralFaultsAreFound(t *testing.T) {
	t.Parallel()
	for fault, want := range map[string]string{
		"mute":      "the step's outcome did not come in time",
		"wordless":  "the decision is not usable: there is no reason",
		"too-sure":  "the confidence is 100: want 0 to 1",
		"short":     "observations: want one for each, in the same order",
		"slow":      "it did not end within 1s",
		"vague":     "the status is STATUS_UNSPECIFIED: want healthy, degraded, unhealthy or unknown",
		"secretive": `the status is "degraded" and no message says why`,
		"double":    `two results are named "pulse"`,
		"blind":     "it could not find out: no such patient",
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			start := tryout.InMemory(func() (wire.Server, error) { return &crooked{fault: fault}, nil })
			cfg := config()
			switch fault { // as above
			case "mute":
				cfg.Patience = 6 * time.Second
			case "slow":
				cfg.Patience = time.Second
			}
			got := problems(t, start, cfg)
			require.Greater(t, len(got), 1, "%v", got)
			for name, problem := range got {
				require.Contains(t, problem, want, name)
			}
		})
	}
}

// The same as processes, where a plugin can also die.
func TestProcesses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	binary := filepath.Join(dir, "crooked")
	out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	cfg := config()
	require.Empty(t, problems(t, tryout.Process(binary), cfg))

	crash := binary + "-crash"
	require.NoError(t, os.Symlink(binary, crash))
	got := problems(t, tryout.Process(crash), cfg)
	require.Len(t, got, 1)
	require.Contains(t, got["describe"], "the plugin's process ended: ")
	require.Contains(t, got["describe"], "crooked: I would rather not say")

	frozen := binary + "-frozen"
	require.NoError(t, os.Symlink(binary, frozen))
	cfg.Patience = 20 * time.Second
	got = problems(t, tryout.Process(frozen), cfg)
	require.Len(t, got, 1)
	require.Contains(t, got["describe"], "it did not end within 20s")

	cfg.Patience = 2 * time.Minute
	for name, c := range map[string]struct{ script, want string }{
		"ends":            {"exit 3", "it is not a plugin, or it cannot start: it ended (exit status 3) without printing a handshake on standard output:\n"},
		"last words":      {"echo no licence >&2; exit 1", "\nits last output:\nno licence"},
		"prints":          {"echo Hello; sleep 1000", `it is not a plugin: the first line it printed on standard output is "Hello", which is not a handshake:` + "\n"},
		"prints much":     {"yes | tr -d '\\n'", `is "` + strings.Repeat("y", 200) + `", which`},
		"other product":   {"echo This binary is a plugin. These are not meant to be executed directly. >&2; exit 1", "it is a plugin for another product"},
		"other go-plugin": {"echo '2|1|unix|/tmp/x|grpc|'; sleep 1000", "begins with version 2 of go-plugin's protocol: want 1"},
		"other contract":  {"echo '1|7|unix|/tmp/x|grpc|'; sleep 1000", "chooses version 7 of the contract: want one of those in PLUGIN_PROTOCOL_VERSIONS, which is 1"},
	} {
		path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+c.script+"\n"), 0o700))
		got := problems(t, tryout.Process(path), cfg)
		require.Len(t, got, 1, name)
		require.True(t, strings.HasPrefix(got["start"], "start "+path+": "), "%s: %s", name, got["start"])
		require.Contains(t, got["start"], c.want, name)
		require.NotContains(t, got["start"], "Unrecognized remote plugin", "%s: these are go-plugin's words", name)
	}
	text := filepath.Join(dir, "text")
	require.NoError(t, os.WriteFile(text, []byte("no program"), 0o700))
	require.Contains(t, problems(t, tryout.Process(text), cfg)["start"], "a script without a first line like #!/bin/sh")

	// A child that holds the outputs open does not delay the end.
	cfg.Patience = time.Second
	slow := filepath.Join(dir, "slow")
	require.NoError(t, os.WriteFile(slow, []byte("#!/bin/sh\nsetsid sleep 1000 &\nsleep 1000\n"), 0o700))
	began := time.Now()
	require.Contains(t, problems(t, tryout.Process(slow), cfg)["start"], "it printed no handshake on standard output in time:\n")
	require.Less(t, time.Since(began), time.Minute)
}

// A killed plugin leaves its socket behind; nothing of it is left after the checks.
func TestNothingIsLeft(t *testing.T) { // not parallel: it sets a variable
	dir, err := os.MkdirTemp("/tmp", "try") // short, for the socket
	require.NoError(t, err)
	defer func() { require.NoError(t, os.RemoveAll(dir)) }()
	t.Setenv("TMPDIR", dir)

	binary := filepath.Join(dir, "crooked")
	out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	start := tryout.Process(binary)
	one, err := start(t.Context())
	require.NoError(t, err)
	defer one.Close()
	sockets := func() []string {
		found, err := filepath.Glob(filepath.Join(dir, "plugin-dir*", "plugin*"))
		require.NoError(t, err)
		return found
	}
	require.Len(t, sockets(), 1)
	first := sockets()[0]
	for socket := first; socket != dir; socket = filepath.Dir(socket) {
		info, err := os.Stat(filepath.Dir(socket))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	}

	two, err := start(t.Context())
	require.NoError(t, err)
	require.Len(t, sockets(), 2, "the first still lives")
	for _, socket := range sockets() {
		if socket != first {
			kill(t, filepath.Dir(socket))
		}
	}
	<-two.Exited
	require.Len(t, sockets(), 2, "it could not remove its own")
	two.Close()
	require.Len(t, sockets(), 1)
	one.Close()
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	require.Equal(t, []string{binary}, left)
}

// kill kills the process whose directory for the socket is named.
func kill(t *testing.T, dir string) {
	t.Helper()
	environments, err := filepath.Glob("/proc/[0-9]*/environ")
	require.NoError(t, err)
	for _, path := range environments {
		raw, _ := os.ReadFile(path) // other users' processes do not matter
		if strings.Contains(string(raw), "PLUGIN_UNIX_SOCKET_DIR="+dir+"\x00") {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			require.NoError(t, err)
			require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
			return
		}
	}
	require.Fail(t, "no process has "+dir)
}
