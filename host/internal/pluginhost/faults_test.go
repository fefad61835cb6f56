package pluginhost

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// A crash releases every step in the process at once, and those that waited for room
// in it, which cannot have caused it. The plugin is restarted as a new generation, and
// the next step works.
func TestCrashReleasesSiblings(t *testing.T) {
	t.Parallel()
	chaos := spec("chaos", script(t, "sdk"))
	chaos.MaxInFlight = 8
	b := started(t, nil, chaos)
	first := b.Status()[0].Generation
	var calls []<-chan Outcome
	for range 7 {
		calls = append(calls, b.call("chaos.wait", nil))
	}
	// It crashes when all the others wait behind it.
	last := b.call("chaos.wait", &pluginv1.Step{StepUuid: "last"})
	calls = append(calls, b.call("chaos.crash", nil))
	for range 20 {
		calls = append(calls, b.call("chaos.echo", nil))
	}
	b.Cancel("last", "make room")
	require.Equal(t, ReasonCancelled, outcome(t, last).Failure.Code)
	for i, done := range calls {
		o := outcome(t, done)
		require.Equal(t, vocab.OutcomeReleased, o.Kind)
		if i < chaos.MaxInFlight {
			require.Equal(t, ReasonCrashed, o.Failure.Code)
		} else {
			require.Equal(t, ReasonNoPlugin, o.Failure.Code, "the process never saw it")
		}
		require.Contains(t, o.Failure.Message, "exit code 7")
		require.Equal(t, first, o.Generation)
		require.Empty(t, done, "one outcome")
	}

	s := b.serves(t, first)
	require.Equal(t, 1, s.Restarts)
	require.Contains(t, s.LastError, "exit code 7")
	require.Contains(t, s.LastError, "last words")
	require.Equal(t, vocab.OutcomeSuccess, b.run(t, "chaos.echo", `1`).Kind)
	require.Equal(t, 1.0, value(t, b.metrics.of("chaos").restarts[restartCrash]))
	require.Equal(t, 29.0, value(t, b.metrics.of("chaos").outcomes[vocab.OutcomeReleased]))
}

// A plugin that is ended with SIGTERM hands back the steps that come meanwhile. It may
// do so for as long as its end may take, but not if it stays.
func TestAPluginThatEndsHandsStepsBack(t *testing.T) {
	t.Parallel()
	b := started(t, nil, spec("chaos", script(t, "sdk")))
	first := b.Status()[0]
	wait := b.call("chaos.wait", &pluginv1.Step{StepUuid: "long"})
	require.Equal(t, vocab.OutcomeSuccess, b.run(t, "chaos.echo", `1`).Kind, "the long one is there, too")
	require.NoError(t, syscall.Kill(first.PID, syscall.SIGTERM))
	var o Outcome
	eventually(t, "it hands steps back", func() bool {
		o = b.run(t, "chaos.echo", `1`)
		return o.Kind == vocab.OutcomeReleased
	})
	require.Equal(t, ReasonDraining, o.Failure.Code)
	require.Equal(t, first.Generation, o.Generation)
	b.Cancel("long", "enough")
	require.Equal(t, ReasonCancelled, outcome(t, wait).Failure.Code)
	b.serves(t, first.Generation)

	now := time.Now()
	s := &stream{}
	require.True(t, s.drains(now))
	require.True(t, s.drains(now.Add(returnsFor-1)))
	require.False(t, s.drains(now.Add(returnsFor)))
}

// A failure for good is a verdict whatever its code is: plugins built with an older SDK
// send a handler's code as it is.
func TestAFailureForGoodIsNotHandedBack(t *testing.T) {
	t.Parallel()
	kind := func(f *pluginv1.Failure) vocab.Outcome {
		f.Code = wire.CodeCancelled
		return outcomeOf(&pluginv1.Outcome{Failure: f}, cancellation{}, 1).Kind
	}
	require.Equal(t, vocab.OutcomePermanent, kind(&pluginv1.Failure{Type: "PermanentError"}))
	require.Equal(t, vocab.OutcomePermanent, kind(&pluginv1.Failure{Type: "ValidationError"}))
	require.Equal(t, vocab.OutcomeReleased, kind(&pluginv1.Failure{Type: "UnexpectedError", Retryable: true}))
	require.Equal(t, vocab.OutcomeReleased, kind(&pluginv1.Failure{}), "in other languages")
}

// If the stream of a living process ends, this is a crash too.
func TestStreamEnds(t *testing.T) {
	t.Parallel()
	b := started(t, nil, spec("raw", script(t, "raw")))
	first := b.Status()[0]
	o := b.run(t, "raw.end", "")
	require.Equal(t, ReasonCrashed, o.Failure.Code)
	require.Contains(t, o.Failure.Message, "the stream broke")
	b.serves(t, first.Generation)
	require.True(t, dead(first.PID))
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	b := started(t, nil, spec("chaos", script(t, "sdk")))
	first := b.Status()[0]

	// A handler that obeys: the plugin reports the timeout.
	o := outcome(t, b.call("chaos.wait", &pluginv1.Step{TimeoutMs: 50}))
	require.Equal(t, vocab.OutcomeRetryable, o.Kind)
	require.Equal(t, vocab.TimeoutError, o.Failure.Type)
	require.Equal(t, first.Generation, b.Status()[0].Generation)

	// One that does not: the host gives up the call two seconds later. After enough of
	// them the process is replaced; a call that does not hang is released after five
	// seconds.
	long := b.call("chaos.wait", nil)
	var hung []<-chan Outcome
	for range maxHung {
		hung = append(hung, b.call("chaos.hang", &pluginv1.Step{TimeoutMs: 50}))
	}
	for _, done := range hung {
		o := outcome(t, done)
		require.Equal(t, vocab.OutcomeRetryable, o.Kind)
		require.Equal(t, vocab.TimeoutError, o.Failure.Type)
		require.Equal(t, "HANDLER_HANGS", o.Failure.Code)
	}
	b.serves(t, first.Generation)
	require.Equal(t, vocab.OutcomeSuccess, b.run(t, "chaos.echo", "1").Kind)
	require.Equal(t, ReasonReplaced, outcome(t, long).Failure.Code)
	eventually(t, "the old process is gone", func() bool { return dead(first.PID) })
}

func TestCancel(t *testing.T) {
	t.Parallel()
	one := spec("chaos", script(t, "sdk"))
	one.MaxInFlight = 4
	b := started(t, nil, one)

	runs := b.call("chaos.wait", &pluginv1.Step{StepUuid: "runs"})
	hangs := b.call("chaos.hang", &pluginv1.Step{StepUuid: "hangs"})
	eventually(t, "both are in flight", func() bool { return b.Room("chaos.wait") == 2 })
	b.Cancel("nobody", "no such step")
	b.Cancel("runs", "task_cancelled")
	b.Cancel("hangs", "task_cancelled")
	for _, done := range []<-chan Outcome{runs, hangs} {
		o := outcome(t, done)
		require.Equal(t, vocab.OutcomeReleased, o.Kind)
		require.Equal(t, ReasonCancelled, o.Failure.Code)
		require.Equal(t, "task_cancelled", o.Failure.Message)
	}
}

func TestCancelOfAWaitingCall(t *testing.T) {
	t.Parallel()
	one := spec("chaos", script(t, "sdk"))
	one.MaxInFlight = 1
	b := started(t, nil, one)
	runs := b.call("chaos.wait", &pluginv1.Step{StepUuid: "runs"})
	waits := b.call("chaos.echo", &pluginv1.Step{StepUuid: "waits"})
	b.Cancel("waits", "why not")
	require.Equal(t, ReasonCancelled, outcome(t, waits).Failure.Code)
	require.Empty(t, runs)
	b.Cancel("runs", "enough")
	require.Equal(t, ReasonCancelled, outcome(t, runs).Failure.Code)
}

// A stopped process neither blocks Stop nor survives it.
func TestStoppedProcessDoesNotHoldUpTheStop(t *testing.T) {
	t.Parallel()
	b := started(t, nil, spec("chaos", script(t, "sdk")))
	pid := b.Status()[0].PID
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	began := time.Now()
	require.NoError(t, b.Stop(t.Context()))
	require.Less(t, time.Since(began), generous)
	require.True(t, dead(pid))
}

// Health checks detect a stopped process that serves.
func TestSilentProcessIsReplaced(t *testing.T) {
	t.Parallel()
	b := started(t, func(c *Config) {
		c.HealthInterval, c.HealthTimeout = 20*time.Millisecond, 200*time.Millisecond
	}, spec("chaos", script(t, "sdk")))
	first := b.Status()[0]
	call := b.call("chaos.wait", nil)
	require.NoError(t, syscall.Kill(first.PID, syscall.SIGSTOP))
	require.Equal(t, ReasonCrashed, outcome(t, call).Failure.Code)
	s := b.serves(t, first.Generation)
	// Both are checked, and on a busy machine either may be first.
	require.Regexp(t, "no answer to 3 health checks|the process is stopped", s.LastError)
}

// A process that does not answer three health checks in a row is given up; one that
// misses two and then answers is not.
func TestHealthChecksWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	b := started(t, func(c *Config) { c.HealthInterval = time.Hour }, spec("chaos", script(t, "sdk")))
	s, err := b.slot(chaosSlot)
	require.NoError(t, err)
	p := pulse{slot: s, of: s.serves()}
	missed := answered{err: errors.New("deadline exceeded")}
	well := answered{health: &pluginv1.HealthResponse{Status: pluginv1.HealthResponse_STATUS_HEALTHY}}
	for _, a := range []answered{missed, missed, well, missed, missed} {
		require.NoError(t, p.heard(a))
	}
	require.EqualError(t, p.heard(missed), "no answer to 3 health checks, last error: deadline exceeded")
}

// What a plugin has started ends with it, before a stop returns, even if it has left
// the plugin's process group.
func TestGrandchildrenDie(t *testing.T) {
	t.Parallel()
	b := started(t, nil, spec("chaos", script(t, "sdk")))
	children := func() []int {
		both := []int{result[int](t, b.run(t, "chaos.child", "")), result[int](t, b.run(t, "chaos.child", `"leaves"`))}
		require.False(t, slices.ContainsFunc(both, dead))
		return both
	}
	gone := func(children []int) func() bool { return func() bool { return !slices.ContainsFunc(children, alive) } }
	first, all := b.Status()[0].Generation, children()
	require.Equal(t, ReasonCrashed, b.run(t, "chaos.crash", "").Failure.Code) // they hold the pipes
	b.serves(t, first)
	eventually(t, "the grandchildren are gone", gone(all))

	all = children()
	require.NoError(t, b.Stop(t.Context()))
	eventually(t, "the grandchildren are gone", gone(all))
}

func alive(pid int) bool { return !dead(pid) }

func TestResultsAreBoundedAndPassedOnAsTheyAre(t *testing.T) {
	t.Parallel()
	b := started(t, nil, spec("chaos", script(t, "sdk")), spec("raw", script(t, "raw")))

	o := b.run(t, "chaos.big", "") // the SDK refuses
	require.Equal(t, vocab.OutcomePermanent, o.Kind)
	require.Equal(t, vocab.InvalidResult, o.Failure.Type)

	o = b.run(t, "raw.answer", "5") // the host refuses
	require.Equal(t, vocab.OutcomePermanent, o.Kind)
	require.Equal(t, vocab.InvalidResult, o.Failure.Type)
	require.Equal(t, "RESULT_TOO_LARGE", o.Failure.Code)

	first := b.Status()[1].Generation
	o = b.run(t, "raw.answer", "50") // gRPC refuses: the step it belonged to is unknown
	require.Equal(t, vocab.OutcomeReleased, o.Kind)
	require.Contains(t, o.Failure.Message, "larger than max")
	eventually(t, "raw serves again", func() bool { s := b.Status()[1]; return s.State == Serving && s.Generation > first })

	first = b.Status()[1].Generation
	o = b.run(t, "raw.many", "")
	require.Equal(t, vocab.OutcomeReleased, o.Kind, "sixty bytes of memory for each on the wire")
	require.Contains(t, o.Failure.Message, "a message with 300001 parts, more than 262144")
	eventually(t, "raw serves again", func() bool { s := b.Status()[1]; return s.State == Serving && s.Generation > first })

	o = b.run(t, "raw.answer", `{"not": json`)
	require.Equal(t, vocab.OutcomeSuccess, o.Kind)
	require.Equal(t, `{"not": json`, string(o.Result))
	require.Equal(t, "null", string(b.run(t, "raw.answer", "").Result))
}

func TestTooLargeAStepIsRefused(t *testing.T) {
	t.Parallel()
	b := started(t, nil, spec("raw", script(t, "raw")))
	o := b.run(t, "raw.answer", strings.Repeat(" ", 9<<20))
	require.Equal(t, vocab.OutcomePermanent, o.Kind)
	require.Equal(t, "INPUT_TOO_LARGE", o.Failure.Code)
	require.Equal(t, vocab.OutcomeSuccess, b.run(t, "raw.answer", "1").Kind)
}

func TestGarbageAnswersAreIgnored(t *testing.T) {
	t.Parallel()
	b := started(t, nil, spec("raw", script(t, "raw")))
	for range 10 {
		done := b.call("raw.twice", nil)
		require.Equal(t, vocab.OutcomeSuccess, outcome(t, done).Kind)
		require.Empty(t, done)
	}
	eventually(t, "garbage is counted", func() bool { return value(t, b.metrics.of("raw").ignored) == 40 })
}

func TestPluginNarrowsItsWindow(t *testing.T) {
	t.Parallel()
	b := started(t, nil, spec("raw", script(t, "raw")))
	require.Equal(t, 64, b.Room("raw.answer"))
	outcome(t, b.call("raw.window", nil))
	require.Equal(t, 1, b.Room("raw.answer"))
}

func TestFloodOfLogs(t *testing.T) {
	t.Parallel()
	loud := spec("raw", script(t, "flood"))
	loud.LogLimits.LinesPerSecond = 100
	b := started(t, nil, loud)
	dropped := b.metrics.of("raw").dropped
	eventually(t, "lines are dropped", func() bool { return value(t, dropped) > 10_000 })
	require.Equal(t, vocab.OutcomeSuccess, b.run(t, "raw.answer", "1").Kind)
	require.Less(t, strings.Count(b.log.String(), "xxxx\""), 5000)
}

func TestOutputGoesToTheLog(t *testing.T) {
	t.Parallel()
	b := started(t, nil, spec("chaos", script(t, "sdk")))
	require.Equal(t, vocab.OutcomeSuccess, b.run(t, "chaos.print", "").Kind)
	eventually(t, "both are logged", func() bool {
		log := b.log.String()
		return strings.Contains(log, "printed to stdout") && strings.Contains(log, "[WARN]  printed to stderr: generation=")
	})
}

// A plugin that keeps crashing rests: its handlers are not served meanwhile.
func TestCrashLoop(t *testing.T) {
	t.Parallel()
	loop := spec("raw", script(t, "loop"))
	loop.Required = false
	b := started(t, func(c *Config) { c.Restart.Exits = 3 }, loop)
	eventually(t, "it rests", func() bool { return b.Status()[0].State == Failed })
	require.Empty(t, b.Handlers())
	require.Contains(t, b.log.String(), "crash-loop breaker")
	began := time.Now()
	require.NoError(t, b.Stop(t.Context()))
	require.Less(t, time.Since(began), generous)
}

// After its rest it gets one try, and the breaker closes if that one is stable.
func TestCrashLoopEnds(t *testing.T) {
	t.Parallel()
	broken := t.TempDir() + "/broken"
	require.NoError(t, os.WriteFile(broken, nil, 0o600))
	s := spec("raw", shell(t, "test -e "+broken+" && exit 1\n"+plugin(t, "raw")))
	s.Required = false
	b := started(t, func(c *Config) {
		c.Restart.Exits, c.Restart.Open, c.Restart.Stable = 3, 50*time.Millisecond, 10*time.Millisecond
	}, s)
	eventually(t, "it rests", func() bool { return b.Status()[0].State == Failed })
	require.NoError(t, os.Remove(broken))
	b.serves(t, 0)
	eventually(t, "the breaker closes", func() bool { return strings.Contains(b.log.String(), "from=half-open to=closed") })
}

// Stop waits for calls until its context ends, then releases them.
func TestStopDrains(t *testing.T) {
	t.Parallel()
	b := started(t, nil, spec("chaos", script(t, "sdk")))
	pid := b.Status()[0].PID
	ends := b.call("chaos.wait", &pluginv1.Step{TimeoutMs: 100})
	require.NoError(t, b.Stop(t.Context()))
	require.Equal(t, vocab.TimeoutError, outcome(t, ends).Failure.Type)
	require.True(t, dead(pid))
	require.Equal(t, ReasonStopping, b.run(t, "chaos.echo", "").Failure.Code)

	require.NoError(t, b.Start(t.Context()))
	stays := b.call("chaos.wait", nil)
	eventually(t, "it is in flight", func() bool { return b.Status()[0].InFlight == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, b.Stop(ctx), context.DeadlineExceeded)
	require.Equal(t, ReasonStopping, outcome(t, stays).Failure.Code)
}

// Under load the process is killed again and again. Every call has exactly one
// outcome, and a released one works when it is repeated.
func TestStormOfKills(t *testing.T) {
	t.Parallel()
	b := started(t, func(c *Config) { c.Restart.Exits = 1 << 30 }, spec("chaos", script(t, "sdk")))
	const callers, steps, kills = 8, 400, 10

	var outcomes, retries atomic.Int64
	var running sync.WaitGroup
	for range callers {
		running.Go(func() {
			for n := range steps {
				want := strconv.Itoa(n)
				for {
					done := make(chan Outcome, 1) // a second outcome would block, and fail the test by its timeout
					b.Dispatch(Call{Handler: "chaos.echo", Step: &pluginv1.Step{Context: []byte(want)}, Done: func(o Outcome) {
						outcomes.Add(1)
						done <- o
					}})
					o := <-done
					if o.Kind == vocab.OutcomeSuccess {
						if string(o.Result) != want {
							t.Errorf("result %s of step %s", o.Result, want)
						}
						break
					}
					if o.Kind != vocab.OutcomeReleased {
						t.Errorf("outcome %s: %+v", o.Kind, o.Failure)
					}
					retries.Add(1)
					for b.Room("chaos.echo") == 0 {
						runtime.Gosched() // like a host, which claims nothing while nothing is served
					}
				}
			}
		})
	}
	last := uint64(0)
	for range kills {
		s := b.serves(t, last)
		last = s.Generation
		before := outcomes.Load()
		eventually(t, "steps run", func() bool { return outcomes.Load() > before || outcomes.Load()-retries.Load() == callers*steps })
		_ = syscall.Kill(s.PID, syscall.SIGKILL)
	}
	running.Wait()
	require.Equal(t, int64(callers*steps), outcomes.Load()-retries.Load())
	eventually(t, "no lease is left", func() bool { return b.Status()[0].InFlight == 0 })
}

// A process that has left behind another one, which answers in its place, is replaced
// like any other that has ended.
func TestWhoAnswersForADeadProcess(t *testing.T) {
	t.Parallel()
	gate := filepath.Join(t.TempDir(), "gate")
	path := shell(t, "setsid "+strings.TrimPrefix(plugin(t, "raw"), "exec ")+" &\n"+
		"while ! test -e "+gate+"; do sleep 0.01; done\nrm "+gate)
	b := started(t, nil, spec("raw", path))
	first := b.Status()[0]
	silent := b.call("raw.silent", nil)
	require.NoError(t, os.WriteFile(gate, nil, 0o600))
	b.serves(t, first.Generation)
	require.Equal(t, ReasonCrashed, outcome(t, silent).Failure.Code)
	require.Equal(t, vocab.OutcomeSuccess, b.run(t, "raw.answer", "1").Kind)
}
