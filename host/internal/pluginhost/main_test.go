package pluginhost

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/internal/leaks"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
)

func TestMain(m *testing.M) { leaks.Main(tidy{m}) }

// tidy removes what was built for the tests.
type tidy struct{ *testing.M }

func (m tidy) Run() int {
	defer func() { _ = os.RemoveAll(builds) }()
	return m.M.Run()
}

// builds is where the tests' plugin is built, once, when it is first needed.
var builds = filepath.Join(os.TempDir(), fmt.Sprint("pluginhost-test-", os.Getpid()))

var unruly = sync.OnceValues(func() (path string, err error) {
	path = filepath.Join(builds, "unruly")
	out, err := exec.Command("go", "build", "-o", path, "github.com/tasker-systems/tasker-host/plugins/test/unruly").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the plugin of the tests: %w\n%s", err, out)
	}
	return path, nil
})

// plugin returns what a shell executes to become the plugin in a mode.
func plugin(t testing.TB, mode string) string {
	t.Helper()
	path, err := unruly()
	require.NoError(t, err)
	return fmt.Sprintf("exec '%s' %s", path, mode)
}

// wait is how long tests wait for what should happen soon.
const wait = 2 * time.Minute

// generous is how long something that takes a second or two may take on a
// machine that is busy or pauses for a while. Waits for a process that does not
// answer take longer.
const generous = 90 * time.Second

// bench is a host under test and what it was made from.
type bench struct {
	*Host
	reg *prometheus.Registry
	log *logBuffer
	cfg Config
}

// script makes an executable that becomes the plugin in a mode: see
// plugins/test/unruly.
func script(t testing.TB, mode string) string {
	t.Helper()
	return shell(t, plugin(t, mode))
}

// shell makes an executable shell script.
func shell(t testing.TB, lines string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "plugin")
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+lines+"\n"), 0o700))
	return path
}

// spec is a plugin that may take long to start. Its calls may be slow too,
// because the machine may be; other tests cover what happens to slow calls.
func spec(name, path string) Spec {
	return Spec{
		Kind: KindHandler, Name: name, Path: path, Required: true, StartTimeout: wait,
		Rollout: Rollout{LatencyFloor: time.Hour},
	}
}

var generations atomic.Uint64

// newBench makes a host that is not started yet.
func newBench(t testing.TB, change func(*Config), specs ...Spec) *bench {
	t.Helper()
	b := &bench{reg: prometheus.NewRegistry(), log: &logBuffer{}}
	b.cfg = Config{
		Plugins: specs, StoreDir: filepath.Join(t.TempDir(), "store"), Environment: "test",
		NextGeneration: func(context.Context) (uint64, error) { return generations.Add(1), nil },
		Restart:        Restart{Base: time.Millisecond, Cap: 10 * time.Millisecond},
		patience:       wait,
	}
	if change != nil {
		change(&b.cfg)
	}
	h, err := New(b.cfg, b.reg, hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: b.log}))
	require.NoError(t, err)
	b.Host = h
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		defer cancel()
		require.NoError(t, h.Stop(ctx))
		if t.Failed() {
			log := b.log.String()
			t.Logf("end of the host's log:\n%s", log[max(0, len(log)-8000):])
		}
	})
	return b
}

// started makes a host and starts it.
func started(t testing.TB, change func(*Config), specs ...Spec) *bench {
	t.Helper()
	b := newBench(t, change, specs...)
	require.NoError(t, b.Start(t.Context()))
	return b
}

// call dispatches a step and returns the channel for its outcome.
func (b *bench) call(handler string, step *pluginv1.Step) <-chan Outcome {
	done := make(chan Outcome, 2) // room to see a second one
	if step == nil {
		step = &pluginv1.Step{}
	}
	b.Dispatch(Call{Handler: handler, Step: step, Done: func(o Outcome) { done <- o }})
	return done
}

// run dispatches a step and waits for its outcome.
func (b *bench) run(t testing.TB, handler, input string) Outcome {
	t.Helper()
	return outcome(t, b.call(handler, &pluginv1.Step{Context: []byte(input)}))
}

func outcome(t testing.TB, done <-chan Outcome) Outcome {
	t.Helper()
	select {
	case o := <-done:
		return o
	case <-time.After(wait):
		require.FailNow(t, "no outcome")
		return Outcome{}
	}
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, wait, 5*time.Millisecond, what)
}

// serves waits until a plugin serves with a generation beyond the one given.
func (b *bench) serves(t testing.TB, beyond uint64) Status {
	t.Helper()
	var s Status
	eventually(t, "the plugin serves again", func() bool {
		s = b.Status()[0]
		return s.State == Serving && s.Generation > beyond
	})
	return s
}

// dead reports whether a process is gone.
func dead(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, after, _ := strings.Cut(string(raw), ") ")
	return strings.HasPrefix(after, "Z") // orphans of a test that nothing reaps here
}

func result[T any](t testing.TB, o Outcome) T {
	t.Helper()
	var v T
	require.Nil(t, o.Failure, "%+v", o.Failure)
	require.NoError(t, json.Unmarshal(o.Result, &v))
	return v
}

// logBuffer is the host's log.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// value reads a counter.
func value(t testing.TB, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	require.NoError(t, c.Write(&m))
	return m.GetCounter().GetValue()
}

func discard() hclog.Logger { return hclog.NewNullLogger() }
