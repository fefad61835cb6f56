package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	"github.com/tasker-systems/tasker-host/plugins/test/chaostest"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// badPlugins are plugins that do not start, and the words with which the host
// says so.
func badPlugins(t *testing.T) map[string]struct {
	path, more string
	words      []string
} {
	t.Helper()
	dir := t.TempDir()
	text := filepath.Join(dir, "plain")
	require.NoError(t, os.WriteFile(text, []byte("#!/nonexistent/interpreter\n"), 0o700))
	closed := filepath.Join(dir, "closed")
	require.NoError(t, os.WriteFile(closed, []byte("#!/bin/sh\n"), 0o600))
	other, err := os.ReadFile("/bin/true")
	require.NoError(t, err)
	stranger := filepath.Join(dir, "stranger")
	require.NoError(t, os.WriteFile(stranger, other, 0o700))
	as := func(mode string) string { return chaostest.As(t, filepath.Join(built, "chaos"), mode) }
	return map[string]struct {
		path, more string
		words      []string
	}{
		"missing":        {filepath.Join(dir, "nowhere"), "", []string{"nowhere", "no such file"}},
		"a directory":    {dir, "", []string{dir}},
		"not executable": {closed, "", []string{"closed", "chmod"}},
		"no program":     {text, "", []string{"plain"}},
		"not a plugin":   {stranger, "", []string{"stranger"}},
		"checksum":       {filepath.Join(built, "chaos"), `sha256 = "` + strings.Repeat("0", 64) + `"`, []string{"sha256", strings.Repeat("0", 64)}},
		"garbage":        {as("garbage"), "", []string{"Welcome to chaos!"}},
		"exits":          {as("exit"), "", []string{"the licence has run out"}},
		"exits well":     {as("exit-zero"), "", []string{"exit"}},
		"hangs":          {as("hang-start"), `start_timeout = "1s"`, []string{"1s"}},
		"panics":         {as("panic-start"), "", []string{"no reason to live"}},
		"old protocol":   {as("old-protocol"), "", []string{"9999"}},
		"no options":     {as("refuse-options"), "", []string{"no colour is right"}},
		"self-test":      {as("fail-self-test"), "", []string{"the bank is closed"}},
	}
}

// TestBadPluginAtStart: a required plugin that does not start keeps the host from
// starting; another one does not, and whoever looks is told why.
func TestBadPluginAtStart(t *testing.T) {
	t.Parallel()
	for name, bad := range badPlugins(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, pgtest.DSN(t))
			s.plugins(t, pluginTable("bad", bad.path, bad.more))
			h := s.start(t)
			require.Equal(t, 1, h.await(t))
			said := h.log.String()
			last := said[strings.LastIndex(said, "tasker: "):]
			for _, word := range append(bad.words, "bad") {
				require.Contains(t, last, word)
			}
			require.Empty(t, processesOf(t, s.dir))

			s.plugins(t, pluginTable("bad", bad.path, bad.more+"\nrequired = false")+pluginTable("arithmetic", filepath.Join(built, "arithmetic"), ""))
			h = s.up(t)
			plugins, err := h.Plugins(t.Context())
			require.NoError(t, err)
			require.Len(t, plugins, 2)
			require.Equal(t, "serving", plugins[0].State)
			for _, word := range bad.words {
				require.Contains(t, plugins[1].Message, word)
			}
			applyExample(t, h, "arithmetic/templates/linear.yaml")
			require.Equal(t, vocab.TaskComplete, runTask(t, h, "linear_workflow", "mathematical_sequence", `{"even_number": 2}`).State)
			h.stop(t)
			require.Empty(t, processesOf(t, s.dir))
		})
	}
}

// chaosHost is a host with the chaos plugin and templates e2e/NAME with one step
// for each of its handlers.
func chaosHost(t *testing.T, mode string) *host {
	t.Helper()
	s := newSite(t, withPassword(t, pgtest.DSN(t)), "TASKER__CIRCUIT_BREAKERS__PLUGIN_CRASH_LOOP__FAILURES=1000", "SECRET_OF_THE_HOST="+canary)
	s.plugins(t, pluginTable("chaos", chaostest.As(t, filepath.Join(built, "chaos"), mode), "")+
		pluginTable("arithmetic", filepath.Join(built, "arithmetic"), ""))
	h := s.up(t)
	for _, name := range []string{"echo", "sleep", "hang", "crash", "panic", "invalid", "big", "env", "twice", "stranger", "silent", "text"} {
		prefix := "chaos"
		if mode != "" {
			prefix = "lawless"
		}
		applyTemplate(t, h, oneStep(name, prefix+"."+name, "    retry: {max_attempts: 2, backoff: none}\n    timeout: 2s\n"))
	}
	return h
}

// TestCrashInStep: a step that kills its plugin every time is set aside, and
// those beside it come to no harm.
func TestCrashInStep(t *testing.T) {
	t.Parallel()
	for how, words := range map[string]string{"exit": "exit code 7", "kill": "signal 9", "segv": "exit code 2", "fatal": "exit code 2"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			h := chaosHost(t, "")
			applyTemplate(t, h, oneStep("crash_once", "chaos.crash", "    retry: {max_attempts: 1}\n"))
			innocent := make([]string, 20)
			for i := range innocent {
				innocent[i] = submit(t, h, "e2e", "sleep", `{"MS": 300}`)
			}
			task := runTask(t, h, "e2e", "crash_once", fmt.Sprintf(`{"how": %q}`, how))
			require.Equal(t, vocab.TaskError, task.State, how)
			require.NotNil(t, task.Error)
			require.Equal(t, vocab.ClaimsExhausted, task.Error.Type)
			require.Contains(t, task.Error.Message, "claimed 3 times")
			step := awaitStep(t, h, task.UUID, vocab.StepError)
			require.Equal(t, 3, step.Claims)
			require.Zero(t, step.Attempts, "the handler gave no verdict")
			shown := h.site.tasker(t, "task", "show", task.UUID)
			require.Zero(t, shown.code)
			require.Contains(t, shown.out, "ClaimsExhausted")
			require.Contains(t, shown.out, words)
			for _, id := range innocent {
				require.Equal(t, vocab.TaskComplete, settled(t, h, id).State)
				steps, err := h.Steps(t.Context(), id)
				require.NoError(t, err)
				require.Equal(t, 1, steps[0].Attempts, "no attempt was charged to an innocent step")
			}
			h.stop(t)
		})
	}
}

// TestStepsThatMisbehave: each is a failure that says what it was.
func TestStepsThatMisbehave(t *testing.T) {
	t.Parallel()
	h := chaosHost(t, "")
	for name, want := range map[string]struct {
		kind     vocab.ErrorType
		attempts int
		text     string
	}{
		"panic":   {vocab.UnexpectedError, 2, "panic: chaos"},
		"hang":    {vocab.TimeoutError, 2, "2s"},
		"invalid": {vocab.InvalidResult, 1, "JSON"},
		"big":     {vocab.InvalidResult, 1, "52428800"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task := runTask(t, h, "e2e", name, `{}`)
			require.Equal(t, vocab.TaskError, task.State)
			require.Equal(t, want.kind, task.Error.Type, task.Error.Message)
			require.Contains(t, task.Error.Message, want.text)
			require.Equal(t, "only", task.Error.Step)
			step := awaitStep(t, h, task.UUID, vocab.StepError)
			require.Equal(t, want.attempts, step.Attempts)
			shown := h.site.tasker(t, "task", "show", task.UUID)
			require.Zero(t, shown.code)
			for _, word := range []string{"error", "only", string(want.kind), want.text} {
				require.Contains(t, shown.out, word)
			}
		})
	}
}

// TestPluginHasNoSecrets: the environment of the host is not the plugin's.
func TestPluginHasNoSecrets(t *testing.T) {
	t.Parallel()
	h := chaosHost(t, "")
	task := runTask(t, h, "e2e", "env", `{}`)
	require.Equal(t, vocab.TaskComplete, task.State)
	step := awaitStep(t, h, task.UUID, vocab.StepComplete)
	require.NotContains(t, string(step.Result), canary)
	require.NotContains(t, string(step.Result), "DATABASE_URL")
	require.NotContains(t, string(step.Result), "TASKER__")
	var told struct{ Files map[string]string }
	require.NoError(t, json.Unmarshal(step.Result, &told))
	require.Equal(t, "/dev/null", told.Files["0"])
	require.NotContains(t, fmt.Sprint(told.Files), "postgres")
	h.stop(t)
	require.NotContains(t, h.log.String(), canary)
}

// TestLawlessPlugin: one that does without the SDK.
func TestLawlessPlugin(t *testing.T) {
	t.Parallel()
	h := chaosHost(t, "lawless")
	for name, want := range map[string]readmodel.StepError{
		"invalid": {Type: vocab.InvalidResult, Message: "result"},
		"silent":  {Type: vocab.TimeoutError, Message: "2s"},
		"text":    {Type: vocab.UnexpectedError, Message: "a"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task := runTask(t, h, "e2e", name, `{}`)
			require.Equal(t, vocab.TaskError, task.State)
			require.Equal(t, want.Type, task.Error.Type, task.Error.Message)
			require.Contains(t, task.Error.Message, want.Message)
			require.NotContains(t, task.Error.Message, "\x00")
			require.Less(t, len(task.Error.Message), 10_000)
			require.Zero(t, h.site.tasker(t, "task", "show", task.UUID).code)
		})
	}
	for _, name := range []string{"echo", "twice", "stranger"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, vocab.TaskComplete, runTask(t, h, "e2e", name, `{}`).State)
		})
	}
}

// TestHugeAnswerFromLawlessPlugin: 50 MB in one message break the stream, not
// the host.
func TestHugeAnswerFromLawlessPlugin(t *testing.T) {
	t.Parallel()
	h := chaosHost(t, "lawless")
	applyTemplate(t, h, oneStep("big_once", "lawless.big", "    retry: {max_attempts: 1}\n"))
	task := runTask(t, h, "e2e", "big_once", `{}`)
	require.Equal(t, vocab.TaskError, task.State)
	require.Equal(t, vocab.ClaimsExhausted, task.Error.Type)
	require.Contains(t, task.Error.Message, "received message larger than max")
	require.Equal(t, vocab.TaskComplete, runTask(t, h, "e2e", "echo", `{}`).State)
	h.stop(t)
}
