package pluginhost

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/journal"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/process"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// gated makes a plugin that starts at once the first time, and later only when let
// is called.
func gated(t testing.TB) (path, pid string, let func()) {
	t.Helper()
	dir := t.TempDir()
	ran, gate, pid := filepath.Join(dir, "ran"), filepath.Join(dir, "gate"), filepath.Join(dir, "pid")
	path = shell(t, "test -e "+ran+" || { touch "+ran+"; "+plugin(t, "sdk")+"; }\n"+
		"echo $$ > "+pid+".new && mv "+pid+".new "+pid+"\n"+
		"while ! test -e "+gate+"; do sleep 0.01; done\n"+plugin(t, "sdk"))
	return path, pid, func() { require.NoError(t, os.WriteFile(gate, nil, 0o600)) }
}

// What the host starts on its own, because calls hang or a process has ended, does
// not undo the change of an operator who was faster.
func TestWhatWasSwappedInMeanwhileStays(t *testing.T) {
	t.Parallel()
	for name, trouble := range map[string]func(*testing.T, *bench){
		"calls hang": func(_ *testing.T, b *bench) { signal(b.serving(chaosSlot).work.hanging) },
		"it crashes": func(t *testing.T, b *bench) {
			require.Equal(t, ReasonCrashed, b.run(t, "chaos.crash", "").Failure.Code)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := &account{}
			path, file, let := gated(t)
			b := started(t, func(c *Config) { c.Journal = a }, spec("chaos", path))
			trouble(t, b)
			b.launching(t, file)
			all := b.explain(t).Generations
			late := all[len(all)-1].Number
			require.NoError(t, b.Swap(t.Context(), chaosSlot, Source{Path: script(t, "sdk")}, ann, "the cure"))
			cure := b.Status()[0]
			let()
			eventually(t, "the fate of the late one is known", func() bool {
				p := b.phaseOf(t, chaosSlot, late)
				return p == journal.Active || p.Over()
			})
			require.Equal(t, cure.Generation, b.Status()[0].Generation)
			require.Equal(t, cure.SHA256, b.Status()[0].SHA256)
			require.Equal(t, journal.Active, b.phaseOf(t, chaosSlot, cure.Generation))
			requireLegal(t, b, a)
		})
	}
}

// held is a journal in memory that delays selected events.
type held struct {
	account
	slow    func(Event) bool
	reached chan struct{}
	let     chan struct{}
}

func (h *held) Record(ctx context.Context, events []Event) error {
	if slices.ContainsFunc(events, h.slow) {
		close(h.reached)
		<-h.let
	}
	return h.account.Record(ctx, events)
}

// A canary that has taken over while its next step was being recorded, because the
// serving generation has ended, is no longer a canary.
func TestACanaryThatHasTakenOverTakesNoStep(t *testing.T) {
	t.Parallel()
	one := quick(spec("chaos", script(t, "sdk")))
	one.Rollout.Strategy, one.Rollout.Steps, one.Rollout.Hold = CanarySteps, []int{10, 50}, time.Hour
	a := &held{reached: make(chan struct{}), let: make(chan struct{}), slow: func(e Event) bool { return e.Weight == 50 }}
	b := started(t, func(c *Config) { c.Journal = a }, one)
	first := b.Status()[0]
	require.NoError(t, b.Swap(t.Context(), chaosSlot, Source{Path: another(t, one.Path)}, ann, "test"))
	s, err := b.slot(chaosSlot)
	require.NoError(t, err)
	next := s.candidate
	stepped := make(chan bool)
	go func() { stepped <- s.step(next, 1, ann) }()
	<-a.reached
	require.NoError(t, syscall.Kill(first.PID, syscall.SIGKILL))
	b.serves(t, first.Generation)
	close(a.let)
	<-stepped
	status := b.Status()[0]
	require.Equal(t, next.number, status.Generation)
	require.Zero(t, status.Next)
	require.Equal(t, journal.Active, b.phaseOf(t, chaosSlot, next.number))
	require.Equal(t, journal.Route{Primary: next.number}, b.routed()[chaosSlot])
	require.NoError(t, b.Stop(t.Context()))
	requireLegal(t, b, &a.account)
}

// Restoring the file that serves starts no rollout of it.
func TestAFileThatIsPutBackEndsTheRollout(t *testing.T) {
	t.Parallel()
	one := quick(spec("chaos", script(t, "sdk")))
	one.Rollout.Strategy, one.Rollout.Hold = CanarySteps, time.Hour
	b := started(t, nil, one)
	first := b.Status()[0].Generation
	two := one
	two.Path = another(t, one.Path)
	_, err := b.Apply(t.Context(), []Spec{two}, journal.ByConfig, "another binary")
	require.NoError(t, err)
	next := b.Status()[0].Next
	require.NotZero(t, next)
	one.DrainTimeout = 7 * time.Second
	changes, err := b.Apply(t.Context(), []Spec{one}, journal.ByConfig, "put back")
	require.NoError(t, err)
	require.Equal(t, Withdraw, changes[0].Action)
	status := b.Status()[0]
	require.Zero(t, status.Next)
	require.Equal(t, first, status.Generation)
	eventually(t, "the other ends", func() bool { return b.phaseOf(t, chaosSlot, next) == journal.Stopped })
	s, err := b.slot(chaosSlot)
	require.NoError(t, err)
	require.Equal(t, 7*time.Second, s.settings().DrainTimeout)
	changes, err = b.Apply(t.Context(), []Spec{one}, journal.ByConfig, "the same")
	require.NoError(t, err)
	require.Equal(t, Keep, changes[0].Action)
	_, err = b.Apply(t.Context(), []Spec{two}, journal.ByConfig, "once more")
	require.NoError(t, err)
	require.NotZero(t, b.Status()[0].Next, "it was given up, but not for a fault of its own")
}

// Settings that need no new process and change during a rollout also apply to the
// generation that takes over.
func TestSettingsThatChangeInARollout(t *testing.T) {
	t.Parallel()
	one := quick(spec("chaos", script(t, "sdk")))
	one.Rollout.Strategy, one.Rollout.Hold = CanarySteps, time.Hour
	b := started(t, nil, one)
	two := one
	two.Path = another(t, one.Path)
	_, err := b.Apply(t.Context(), []Spec{two}, ann, "another binary")
	require.NoError(t, err)
	two.DrainTimeout = 7 * time.Second
	changes, err := b.Apply(t.Context(), []Spec{two}, ann, "another setting")
	require.NoError(t, err)
	require.Equal(t, Retune, changes[0].Action)
	require.NoError(t, b.Promote(t.Context(), chaosSlot, ann, "test"))
	s, err := b.slot(chaosSlot)
	require.NoError(t, err)
	require.Equal(t, 7*time.Second, s.settings().DrainTimeout)
	changes, err = b.Apply(t.Context(), []Spec{two}, ann, "the same")
	require.NoError(t, err)
	require.Equal(t, Keep, changes[0].Action)
	require.NoError(t, b.Rollback(t.Context(), chaosSlot, ann, "test"))
	require.Equal(t, 7*time.Second, s.settings().DrainTimeout, "the setting was not rolled back")
}

// Settings that need no new process and change before a rollback are kept, but only they:
// what the rollback reverts to is restarted with the settings of its own process, and
// from its own file.
func TestSettingsThatChangeBeforeARollback(t *testing.T) {
	t.Parallel()
	for name, to := range map[string]struct {
		rollout Strategy
		window  time.Duration // the previous process is kept warm
	}{"of a canary": {CanarySteps, time.Hour}, "to a warm process": {Immediate, time.Hour}, "to what has ended": {Immediate, -1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			one := quick(spec("chaos", script(t, "sdk")))
			one.MaxInFlight, one.RollbackWindow = 7, to.window
			one.Rollout.Strategy, one.Rollout.Hold, one.Rollout.Trial = to.rollout, time.Hour, -1
			b := started(t, nil, one)
			first := b.Status()[0]
			two := one
			two.Path, two.MaxInFlight = another(t, one.Path), 9
			apply := func(want Action) {
				changes, err := b.Apply(t.Context(), []Spec{two}, ann, "edited")
				require.NoError(t, err)
				require.Equal(t, want, changes[0].Action, changes[0].Reason)
			}
			apply(SwapTo)
			apply(Keep)
			if to.window < 0 {
				eventually(t, "the first has ended", func() bool { return b.phaseOf(t, chaosSlot, first.Generation).Over() })
			}
			two.DrainTimeout = 7 * time.Second
			apply(Retune)
			apply(Keep)
			require.NoError(t, b.Rollback(t.Context(), chaosSlot, ann, "test"))
			back := b.Status()[0]
			require.Equal(t, first.SHA256, back.SHA256)
			require.NoError(t, syscall.Kill(back.PID, syscall.SIGKILL))
			again := b.serves(t, back.Generation)
			require.Equal(t, first.SHA256, again.SHA256)
			require.Equal(t, 7, again.Window)
			s, err := b.slot(chaosSlot)
			require.NoError(t, err)
			require.Equal(t, one.Path, s.settings().Path)
			require.Equal(t, 7*time.Second, s.settings().DrainTimeout)
			require.Equal(t, s.settings(), s.wants().spec)
			one.DrainTimeout = two.DrainTimeout
			changes, err := b.Apply(t.Context(), []Spec{one}, ann, "put back")
			require.NoError(t, err)
			require.Equal(t, Keep, changes[0].Action, changes[0].Reason)
		})
	}
}

// The digests of settings are recorded with what is in quarantine.
func TestDigestsOfSettings(t *testing.T) {
	t.Parallel()
	s := Spec{Kind: KindHandler, Name: "a"}
	require.Equal(t, "ec8b8c98691658fb29c113661cba221572cfbd88d4699e3e2a9c83f7b5418d0d", s.digest("test"))
	s.Options = json.RawMessage(`{}`)
	require.Equal(t, "ec8b8c98691658fb29c113661cba221572cfbd88d4699e3e2a9c83f7b5418d0d", s.digest("test"))
	s = Spec{
		Kind: KindHandler, Name: "a", Path: "/a", SHA256: "ab", Required: true, StartTimeout: time.Second, DrainTimeout: time.Second,
		MaxInFlight: 1, User: "u", Env: []string{"E"}, Options: json.RawMessage(`{"o": "<"}`), MaxFiles: 2, MemoryLimit: 3, MaxProcs: 4,
		Limits: process.Limits{Memory: 5, Processes: 6, CPUs: 7.5}, LogLimits: process.LogLimits{LinesPerSecond: 8, BytesPerSecond: 9},
	}
	require.Equal(t, "e9226e9b252815e4d8e2ab4670af901b850a43f7df669b2fdc0a72ad7f46b02a", s.digest("test"))
	var other Spec
	other.keepFixed(s)
	require.Equal(t, s.digest("test"), other.digest("test"))
}

// A canary that is rolled back, but has taken over meanwhile because the serving
// generation has ended, stops serving: the previous executable is started again.
func TestRollbackOfACanaryThatHasTakenOver(t *testing.T) {
	t.Parallel()
	one := quick(spec("chaos", script(t, "sdk")))
	one.Rollout.Strategy, one.Rollout.Hold = CanarySteps, time.Hour
	quarantined := func(e Event) bool { return e.To == journal.Quarantined }
	a := &held{reached: make(chan struct{}), let: make(chan struct{}), slow: quarantined}
	b := started(t, func(c *Config) { c.Journal = a }, one)
	first := b.Status()[0]
	require.NoError(t, b.Swap(t.Context(), chaosSlot, Source{Path: another(t, one.Path)}, ann, "test"))
	next := b.Status()[0].Next
	done := make(chan error, 1)
	go func() { done <- b.Rollback(t.Context(), chaosSlot, ann, "test") }()
	<-a.reached
	require.NoError(t, syscall.Kill(first.PID, syscall.SIGKILL))
	require.Equal(t, next, b.serves(t, first.Generation).Generation)
	eventually(t, "the crash is handled", func() bool { return b.phaseOf(t, chaosSlot, first.Generation) == journal.Crashed })
	a.slow = func(Event) bool { return false }
	close(a.let)
	require.NoError(t, <-done)
	require.Equal(t, first.SHA256, b.serves(t, next).SHA256)
	eventually(t, "the canary is gone", func() bool { return b.phaseOf(t, chaosSlot, next).Over() })
	require.NoError(t, b.Stop(t.Context()))
	requireLegal(t, b, &a.account)
}

// remembers is a journal that is slow to say what served before.
type remembers struct {
	account
	sum          string
	reached, let chan struct{}
}

func (r *remembers) LastGood(context.Context, SlotID, string) (string, error) {
	close(r.reached)
	<-r.let
	return r.sum, nil
}

// The predecessor of a release that keeps crashing does not replace what an
// operator has swapped in while it was looked up.
func TestSwapMeetsTheEndOfACrashLoop(t *testing.T) {
	t.Parallel()
	a := &remembers{reached: make(chan struct{}), let: make(chan struct{})}
	b := started(t, func(c *Config) { c.Journal, c.Restart.Exits = a, 2 }, spec("chaos", script(t, "sdk")))
	s, err := b.slot(chaosSlot)
	require.NoError(t, err)
	old, err := s.life.store.Intake(another(t, s.spec.Path), "")
	require.NoError(t, err)
	a.sum = old.SHA256
	for range 2 {
		s.breaker(s.wants()).exited()
	}
	done := make(chan bool)
	go func() { done <- s.fallBack() }()
	<-a.reached
	require.NoError(t, b.Swap(t.Context(), chaosSlot, Source{Path: another(t, s.spec.Path)}, ann, "the cure"))
	cure := b.Status()[0]
	close(a.let)
	require.True(t, <-done, "there is nothing to wait for")
	require.Equal(t, cure.SHA256, s.wants().stored.SHA256)
	require.Empty(t, b.explain(t).Quarantined)
}

// Calls that wait for room in a canary that is given up do not wait for its end.
func TestWhatWaitsInACanaryThatIsGivenUp(t *testing.T) {
	t.Parallel()
	one := quick(spec("chaos", script(t, "sdk")))
	one.Rollout.Strategy, one.Rollout.Steps, one.Rollout.Hold, one.MaxInFlight = CanarySteps, []int{99}, time.Hour, 1
	b := started(t, nil, one)
	first := b.Status()[0].Generation
	require.NoError(t, b.Swap(t.Context(), chaosSlot, Source{Path: another(t, one.Path)}, ann, "test"))
	require.Less(t, spread("task"), uint32(99))
	runs := b.call("chaos.wait", &pluginv1.Step{TaskUuid: "task", StepUuid: "runs"})
	s, err := b.slot(chaosSlot)
	require.NoError(t, err)
	eventually(t, "it is sent", func() bool {
		w := s.candidate.work
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.calls.taken() == 1
	})
	waits := b.call("chaos.echo", &pluginv1.Step{TaskUuid: "task", StepUuid: "waits", Context: []byte("1")})
	require.NoError(t, b.Rollback(t.Context(), chaosSlot, ann, "test"))
	o := outcome(t, waits)
	require.Equal(t, vocab.OutcomeSuccess, o.Kind, "%+v", o.Failure)
	require.Equal(t, first, o.Generation)
	require.Empty(t, runs, "it may end where it is")
	b.Cancel("runs", "enough")
	require.Equal(t, ReasonCancelled, outcome(t, runs).Failure.Code)
}
