package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/cli"
	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

func (b *bundle) submit(t *testing.T) {
	t.Helper()
	require.Zero(t, b.run(t, "task", "submit", linear, "-c", `{"even_number":6}`).code)
}

func TestTaskCommands(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.golden(t, "list_empty", b.run(t, "task", "list"))
	b.golden(t, "submit", b.run(t, "task", "submit", linear+"@1.0.0", "--context", `{"even_number":6}`, "--priority", "3",
		"--tag", "a,b", "--initiator", "me", "--source-system", "shop", "--reason", "to see", "--idempotency-key", "k"))
	b.golden(t, "submit_again", b.run(t, "task", "submit", linear+"@1.0.0", "--context", `{"even_number":6}`, "--idempotency-key", "k"))
	b.Finish(first, `{"n":340282366920938463463374607431768211456}`)
	b.golden(t, "show_in_progress", b.run(t, "task", "show", first))
	b.submit(t)
	b.FailStep(second, "no \x1b[31mred\x07 widgets\nleft")
	b.golden(t, "show_failed", b.run(t, "task", "show", second, "--history"))
	b.golden(t, "list", b.run(t, "task", "list"))
	b.golden(t, "list_page", b.run(t, "task", "list", "--limit", "1", "--state", "error,in_progress"))
	b.golden(t, "list_tagged", b.run(t, "task", "list", "--tag", "a", "--tag", "b"))
	b.golden(t, "list_empty", b.run(t, "task", "list", "--tag", "a", "--tag", "c"))
	require.Equal(t, "a\nb\n:4\n", b.run(t, "__complete", "task", "list", "--tag", "").out)
	b.golden(t, "cancel", b.run(t, "task", "cancel", first, "--reason", "enough"))
	for range 4 {
		b.submit(t)
	}
	const third = "019ca9d2-7c00-7000-8000-000300000000"
	for range 4 {
		b.Finish(third, `{ "n": 340282366920938463463374607431768211456, "text": "<a & b>" }`)
	}
	b.golden(t, "show_complete", b.run(t, "task", "show", third))
	b.golden(t, "show_complete_json", b.run(t, "task", "show", third, "--json"))
}

func TestInputs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const exact = `{"n": 340282366920938463463374607431768211456, "price": 1.10}`
	path := filepath.Join(t.TempDir(), "input.json")
	require.NoError(t, os.WriteFile(path, []byte(exact), 0o600))
	b.input = exact
	for _, source := range [][]string{{"--input", path}, {"--input", "-"}, {"--context", exact}} {
		r := b.run(t, append([]string{"task", "submit", linear, "--json"}, source...)...)
		require.Zero(t, r.code, r.err)
		var task readmodel.Task
		require.NoError(t, json.Unmarshal([]byte(r.out), &task))
		var got bytes.Buffer
		require.NoError(t, json.Compact(&got, task.Context))
		require.Equal(t, `{"n":340282366920938463463374607431768211456,"price":1.10}`, got.String())
	}
	for text, want := range map[string]string{
		`{`: "tasker: --context: ", `[1]`: "object", `{"a":1,"a":2}`: "at /a: ", `{"a":"\ud800"}`: "at /a: ", "{\"a\":\"\xff\"}": "at /a: ", `{} {}`: "tasker: --context: ",
	} {
		r := b.run(t, "task", "submit", linear, "--context", text)
		require.Equal(t, 1, r.code, text)
		require.Contains(t, r.err, want, text)
	}
	require.Equal(t, 1, b.run(t, "task", "submit", linear, "--input", path+".none").code)
}

func TestExitCodesAndErrors(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cases := []struct {
		name string
		args []string
		code int
	}{
		{"no_command", []string{}, 2},
		{"no_subcommand", []string{"task"}, 2},
		{"unknown_command", []string{"tsk"}, 2},
		{"unknown_subcommand", []string{"task", "shw"}, 2},
		{"unknown_flag", []string{"task", "show", first, "--jsn"}, 2},
		{"missing_argument", []string{"task", "show"}, 2},
		{"too_many_arguments", []string{"task", "show", first, second}, 2},
		{"bad_identifier", []string{"task", "show", "7"}, 2},
		{"bad_reference", []string{"task", "submit", "order"}, 2},
		{"empty_version", []string{"task", "submit", linear + "@"}, 2},
		{"two_inputs", []string{"task", "submit", linear, "--input", "-", "--context", "{}"}, 2},
		{"two_hosts", []string{"task", "list", "--socket", "x", "--url", "y"}, 2},
		{"bad_url", []string{"task", "list", "--url", "y"}, 2},
		{"bad_set", []string{"doctor", "--set", "y"}, 2},
		{"empty_key", []string{"task", "submit", linear, "--idempotency-key", ""}, 2},
		{"empty_context", []string{"task", "submit", linear, "--context", ""}, 2},
		{"bad_number", []string{"task", "submit", linear, "--priority", "high"}, 2},
		{"huge_number", []string{"task", "submit", linear, "--priority", "99999999999999999999"}, 2},
		{"bad_duration", []string{"token", "create", "a", "--permission", "task:read", "--expires", "30"}, 2},
		{"unknown_shell", []string{"completion", "tcsh"}, 2},
		{"no_shell", []string{"completion"}, 2},
		{"unknown_help", []string{"help", "task", "shw"}, 2},
		{"new_kind", []string{"plugin", "new", "robot", "Marvin"}, 2},
		{"empty_template", []string{"template", "validate", os.DevNull}, 1},
		{"folder_for_template", []string{"template", "validate", "."}, 1},
		{"unknown_token", []string{"token", "revoke", "nobody"}, 4},
		{"unknown_task", []string{"task", "show", unknown}, 4},
		{"unknown_task_watched", []string{"task", "watch", unknown}, 4},
		{"unknown_template", []string{"task", "submit", "a/b"}, 4},
		{"bad_limit", []string{"task", "list", "--limit", "0"}, 2},
		{"bad_state", []string{"task", "list", "--state", "done"}, 1},
		{"bad_name", []string{"task", "submit", "Orders/b"}, 1},
		{"unreachable", []string{"task", "list", "--socket", "/nowhere/tasker.sock"}, 5},
		{"unreachable_json", []string{"task", "list", "--socket", "/nowhere/tasker.sock", "--json"}, 5},
		{"usage_json", []string{"task", "show", "7", "--json"}, 2},
	}
	for _, c := range cases {
		r := b.run(t, c.args...)
		require.Equal(t, c.code, r.code, c.name+r.err)
		require.Empty(t, r.out, c.name)
		b.golden(t, "error_"+c.name, r)
	}
	r := b.run(t, "task", "show", unknown, "--json")
	var problem readmodel.Problem
	require.NoError(t, json.Unmarshal([]byte(r.err), &problem), r.err)
	require.Equal(t, api.CodeTaskNotFound, problem.Code)
}

// A command that cannot print its output has failed: a full disk is a failure.
func TestOutputThatIsLost(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.env["TASKER_SOCKET"] = b.socket
	for _, args := range [][]string{{"task", "list"}, {"task", "list", "--json"}, {"task", "--help"}} {
		var errs buffer
		require.Equal(t, 1, cli.Run(t.Context(), b.runtime, b.streams(fullDisk{}, &errs), nil, args), args)
		require.Contains(t, errs.String(), "no space left on device", args)
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// A missing worker is reported before a database is created for it.
func TestWorkerCheckOfNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.runtime.CheckWorker = func(context.Context, cli.WorkerCheckOptions) (readmodel.WorkerReport, error) {
		return readmodel.WorkerReport{}, errors.New("it was started")
	}
	r := b.run(t, "worker", "check", "--", "/nowhere/worker")
	require.Equal(t, 2, r.code)
	require.Contains(t, r.err, "/nowhere/worker: no such file or directory")
	require.Contains(t, b.run(t, "worker", "check", "--", "true").err, "it was started")
}

// A key that was used for another request: programs learn which task has it.
func TestConflictNamesTheTask(t *testing.T) {
	t.Parallel()
	b := setup(t)
	submit := func(number string, more ...string) result {
		return b.run(t, append([]string{"task", "submit", linear, "--idempotency-key", "k", "--context", `{"even_number":` + number + `}`}, more...)...)
	}
	require.Zero(t, submit("6").code)
	b.golden(t, "error_conflict", submit("8"))
	r := submit("8", "--json")
	require.Equal(t, 6, r.code, r.err)
	var problem readmodel.Problem
	require.NoError(t, json.Unmarshal([]byte(r.err), &problem), r.err)
	require.Equal(t, first, problem.TaskUUID)
}

func TestWatchLines(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.submit(t)
	b.submit(t)
	for range 4 {
		b.Finish(first, `{"n":1}`)
	}
	complete := b.run(t, "task", "watch", first)
	require.Zero(t, complete.code)
	b.golden(t, "watch_complete", complete)
	b.FailStep(second, "boom")
	failed := b.run(t, "task", "watch", second)
	require.Equal(t, 3, failed.code)
	b.golden(t, "watch_failed", failed)
	both := b.run(t, "task", "watch", first, second, "--json")
	require.Equal(t, 3, both.code)
	states := map[string]vocab.TaskState{}
	for line := range strings.Lines(both.out) {
		var s readmodel.Snapshot
		require.NoError(t, json.Unmarshal([]byte(line), &s))
		states[s.UUID] = s.State
	}
	require.Equal(t, map[string]vocab.TaskState{first: vocab.TaskComplete, second: vocab.TaskError}, states)
}

// follow runs a command and calls react whenever it printed something new.
func (b *bundle) follow(t *testing.T, react func(out string), args ...string) result {
	t.Helper()
	b.env["TASKER_SOCKET"] = b.socket
	var out, errs buffer
	code := make(chan int, 1)
	go func() { code <- cli.Run(t.Context(), b.runtime, b.streams(&out, &errs), nil, args) }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for {
		select {
		case c := <-code:
			return result{code: c, out: out.String(), err: errs.String()}
		case <-tick.C:
			react(out.String())
		case <-deadline:
			t.Fatalf("the command does not end; it printed: %s", out.String())
		}
	}
}

func TestWatchFollowsTasks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.submit(t)
	done := 0
	r := b.follow(t, func(out string) {
		if strings.Count(out, "\n") > done && done < 4 { // it has shown the last change
			done++
			b.Finish(first, `{"n":1}`)
		}
	}, "task", "watch", first)
	require.Zero(t, r.code, r.err)
	b.golden(t, "watch_lines", r)
}

func TestSubmitAndWatch(t *testing.T) {
	t.Parallel()
	b := setup(t)
	done := 0
	r := b.follow(t, func(out string) {
		if strings.Count(out, "\n") > done+1 && done < 4 {
			done++
			b.Finish(first, `{"n":340282366920938463463374607431768211456}`)
		}
	}, "task", "submit", linear, "--watch")
	require.Zero(t, r.code, r.err)
	b.golden(t, "submit_watch", r)
}

func TestWatchOnATerminalDrawsBars(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.submit(t)
	b.submit(t)
	b.terminal = true
	for range 4 {
		b.Finish(first, "1")
	}
	b.FailStep(second, "boom")
	r := b.run(t, "task", "watch", first, second)
	require.Equal(t, 3, r.code)
	require.Contains(t, r.out, "███ 4/4 complete")
	require.Contains(t, r.out, "0/4 error")
	require.Contains(t, r.out, "error: step linear_step_1, attempt 1: PermanentError BROKEN: boom\n")
}

func TestColours(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.submit(t)
	b.terminal = true
	require.Contains(t, b.run(t, "task", "list").out, "\x1b[")
	require.NotContains(t, b.run(t, "task", "list", "--json").out, "\x1b[")
	b.env["NO_COLOR"] = "1"
	require.NotContains(t, b.run(t, "task", "list").out, "\x1b[")
}

func TestInterruption(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.submit(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	b.env["TASKER_SOCKET"] = b.socket
	var out, errs buffer
	code := make(chan int, 1)
	go func() { code <- cli.Run(ctx, b.runtime, b.streams(&out, &errs), nil, []string{"task", "watch", first}) }()
	require.Eventually(t, func() bool { return out.String() != "" }, time.Minute, 5*time.Millisecond)
	cancel(errors.New("interrupted"))
	require.Equal(t, 130, <-code)
	require.Equal(t, "tasker: interrupted\n", errs.String())
}

// A signal during the start of the demo's host is an interruption.
func TestInterruptedStart(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("interrupted"))
	b.runtime.Demo = func(ctx context.Context, _ config.Options) (*cli.DemoHost, error) {
		return nil, fmt.Errorf("start database: %w", ctx.Err())
	}
	var out, errs buffer
	require.Equal(t, 130, cli.Run(ctx, b.runtime, b.streams(&out, &errs), nil, []string{"demo"}))
	require.Equal(t, "starting a private PostgreSQL and a host with its plugins\ntasker: interrupted\n", errs.String())
}

func TestTemplateCommands(t *testing.T) {
	t.Parallel()
	b := setup(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	good, bad := write("order.yaml", "shop/order@2.0.0\nSells things."), write("bad.yaml", "bad")
	clean := func(r result) result {
		r.err = strings.ReplaceAll(r.err, dir, "DIR")
		return r
	}
	b.golden(t, "template_apply", clean(b.run(t, "template", "apply", good)))
	b.golden(t, "template_apply_again", clean(b.run(t, "template", "apply", good)))
	r := b.run(t, "template", "validate", bad, good, filepath.Join(dir, "none.yaml"))
	require.Equal(t, 1, r.code)
	b.golden(t, "template_validate", clean(r))
	b.golden(t, "template_list", b.run(t, "template", "list"))
	b.golden(t, "template_show", b.run(t, "template", "show", "shop/order@2.0.0"))
	b.golden(t, "template_show_json", b.run(t, "template", "show", linear, "--json"))
	require.Equal(t, 4, b.run(t, "template", "show", "shop/none").code)
	for policy, becomes := range map[string]string{"reject": "is refused", "return_existing": "returns that task"} {
		require.Zero(t, b.run(t, "template", "apply", write("policy.yaml", "shop/"+policy+"@1.0.0\nidentity: "+policy)).code)
		require.Contains(t, b.run(t, "template", "show", "shop/"+policy).out,
			"a submission with the same context as an existing task "+becomes+"\n")
	}
}

func TestSystemCommands(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.golden(t, "plugins", b.run(t, "plugin", "list"))
	b.golden(t, "doctor", b.run(t, "doctor"))
	b.golden(t, "doctor_json", b.run(t, "doctor", "--json"))
	b.golden(t, "health", b.run(t, "health"))
	b.Fail(errors.New("down"))
	r := b.run(t, "health")
	require.Equal(t, 1, r.code)
	b.golden(t, "health_alarm", r)
	b.Fail(nil)
	b.runtime.Doctor = func(_ context.Context, c config.Options) readmodel.DoctorReport {
		return readmodel.NewDoctorReport(readmodel.DoctorCheck{Name: "configuration", Status: readmodel.DoctorFail, Message: "broken in " + c.Environment, Fix: "mend it"})
	}
	r = b.run(t, "doctor", "--env", "production", "--socket", "/nowhere/tasker.sock")
	require.Equal(t, 1, r.code)
	b.golden(t, "doctor_offline", r)
	require.Contains(t, b.run(t, "openapi").out, `"openapi": "3.1.0"`)
	version := b.run(t, "version").out
	require.Contains(t, version, "tasker ")
	require.Equal(t, version, b.run(t, "--version").out)
	require.Contains(t, b.run(t, "version", "--json").out, `"version": `)
	require.Contains(t, b.run(t, "completion", "bash").out, "bash completion")
}

func TestHelp(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.runtime.Up = func(context.Context, cli.UpOptions) error { return nil }
	b.runtime.Migrate = func(context.Context, cli.MigrateOptions) (readmodel.MigrationReport, error) {
		return readmodel.MigrationReport{}, nil
	}
	b.runtime.Bench = func(context.Context, cli.BenchOptions) (readmodel.BenchReport, error) {
		return readmodel.BenchReport{}, nil
	}
	b.runtime.Demo = func(context.Context, config.Options) (*cli.DemoHost, error) { return nil, errors.New("no") }
	b.golden(t, "help", b.run(t, "--help"))
	b.golden(t, "help_submit", b.run(t, "task", "submit", "--help"))
}

func TestUp(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var got cli.UpOptions
	b.runtime.Up = func(ctx context.Context, o cli.UpOptions) error {
		got = o
		return nil
	}
	r := b.run(t, "up", "--env", "test", "--config", "/etc/tasker", "--socket", "/run/x.sock", "--http", "127.0.0.1:1", "--set", "database.max_connections=20")
	require.Zero(t, r.code, r.err)
	require.Equal(t, "test", got.Config.Environment)
	require.Equal(t, "/etc/tasker", got.Config.Dir)
	require.Equal(t, map[string]string{
		"system.socket": "/run/x.sock", "system.http_listen": "127.0.0.1:1", "database.max_connections": "20",
	}, got.Config.Overrides)

	b.runtime.Up = func(context.Context, cli.UpOptions) error {
		return errors.New("the database is newer than this binary")
	}
	r = b.run(t, "up")
	require.Equal(t, 1, r.code)
	require.Equal(t, "tasker: the database is newer than this binary\n", r.err)
}

func TestMigrateAndBench(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.runtime.Migrate = func(_ context.Context, o cli.MigrateOptions) (readmodel.MigrationReport, error) {
		if o.Status {
			return readmodel.MigrationReport{Version: 1, Latest: 2, PGMQ: "compatible", Pending: []readmodel.Migration{{Version: 2, Name: "steps"}}}, nil
		}
		return readmodel.MigrationReport{Version: 2, Latest: 2, PGMQ: "extension", Applied: []readmodel.Migration{{Version: 2, Name: "steps"}}}, nil
	}
	b.golden(t, "migrate", b.run(t, "migrate"))
	b.golden(t, "migrate_status", b.run(t, "migrate", "status"))
	require.Equal(t, 2, b.run(t, "migrate", "statsu").code)
	b.runtime.Bench = func(_ context.Context, o cli.BenchOptions) (readmodel.BenchReport, error) {
		return readmodel.BenchReport{
			Name: o.Workload, Tasks: o.Tasks, Steps: 4 * o.Tasks, Seconds: 2, StepsPerSecond: 12345.6, TasksPerSecond: 3086.4,
			Repeats: o.Repeats, StepsPerSecondLeast: 12000, StepsPerSecondMost: 13000,
			LatencyMS: readmodel.Quantiles{P50: 3.5, P95: 6, P99: 8.25, Max: 9}, WALBytesPerStep: 1500, CommitsPerStep: 0.02,
			DeadTuplesPerStep: 2, HotUpdateShare: 0.875, CPUMicrosecondsPerStep: &readmodel.BenchCPU{Host: 14, Plugin: 3, Server: 40},
			AllocationsPerStep: 30.6, AllocatedBytesPerStep: 4178, Ratio: 0.95, ReadRatio: 0.7, BaselineStepsPerSecond: 13000,
			Limits: &readmodel.BenchLimits{
				HashMBPerSecond: 1500, HashMBPerSecondAll: 2900.4, CommitsPerSecond: 4200, CommitsPerSecondMany: 15900, MessagesPerSecondMany: 4000,
			},
			Setting: readmodel.BenchSetting{
				CPUs: 2, CPU: "Xeon", Go: "go1.26", System: "linux/amd64", Hosts: o.Hosts, InProcess: o.InProcess,
				Database: map[string]string{"server_version": "15.18", "fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "256MB"},
			},
		}, nil
	}
	b.golden(t, "bench", b.run(t, "bench", "linear", "--tasks", "100"))
	b.golden(t, "bench_json", b.run(t, "bench", "linear", "--tasks", "100", "--json"))
	b.golden(t, "bench_goals", b.run(t, "bench", "goals"))
	for _, wrong := range [][]string{
		{"circle"},
		{"linear", "--tasks", "0"},
		{"linear", "--repeat", "0"},
		{"load", "--share", "1.5"},
		{"idle", "--duration", "0s"},
		{"queue-worker", "--claim", "101"},
		{"queue-worker", "--way", "steal"},
		{"history", "--history", "-1"},
		{"flush", "--flush-delay", "0s"},
		{"flush", "--flush-delay", "1s"},
	} {
		require.Equal(t, 2, b.run(t, append([]string{"bench"}, wrong...)...).code, wrong)
	}
}

func TestDemo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stopped := false
	b.runtime.Demo = func(context.Context, config.Options) (*cli.DemoHost, error) {
		return &cli.DemoHost{
			About: "PostgreSQL 15 in /state/postgres, plugin arithmetic (process 7)", Socket: b.socket,
			Submissions: []client.Submission{
				{Namespace: "linear_workflow", Name: "mathematical_sequence", Context: json.RawMessage(`{"even_number":6}`)},
			},
			Stop: func(context.Context) error { stopped = true; return nil },
		}, nil
	}
	done := 0
	r := b.follow(t, func(out string) {
		if strings.Count(out, "\n") > done && done < 4 {
			done++
			b.Finish(first, `{"result":2821109907456}`)
		}
	}, "demo")
	require.Zero(t, r.code, r.err)
	require.True(t, stopped)
	b.golden(t, "demo", r)
}
