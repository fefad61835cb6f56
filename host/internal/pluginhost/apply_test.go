package pluginhost

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/journal"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// actions returns the actions of changes, by slot.
func actions(changes []Change) map[string]Action {
	all := map[string]Action{}
	for _, c := range changes {
		all[c.Slot.String()] = c.Action
	}
	return all
}

// The desired set is applied while steps run: a plan says what will change, and
// nothing else changes.
func TestApply(t *testing.T) {
	t.Parallel()
	chaos, raw := spec("chaos", script(t, "sdk")), spec("raw", script(t, "raw"))
	b := started(t, nil, chaos, raw)
	l := b.load(t, "chaos.echo", 8)
	still := func() []Status { // what does not change while nothing is done
		all := b.Status()
		for i := range all {
			all[i].InFlight = 0
		}
		return all
	}
	before := still()
	plan := func(specs ...Spec) map[string]Action {
		changes, err := b.Plan(specs)
		require.NoError(t, err)
		return actions(changes)
	}
	apply := func(specs ...Spec) map[string]Action {
		changes, err := b.Apply(t.Context(), specs, journal.ByConfig, "the file changed")
		require.NoError(t, err)
		return actions(changes)
	}
	same := map[string]Action{"handler/chaos": Keep, "handler/raw": Keep}
	require.Equal(t, same, plan(chaos, raw))
	require.Equal(t, same, apply(chaos, raw))
	require.Equal(t, before, still())

	// Settings that need a process and one that needs none; another is removed.
	chaos.MaxInFlight = 7
	late := spec("other", script(t, "version"))
	want := map[string]Action{"handler/chaos": Reconfigure, "handler/raw": Remove}
	require.Equal(t, want, plan(chaos))
	require.Equal(t, before, still(), "a plan does nothing")
	require.Equal(t, want, apply(chaos))
	require.Len(t, b.Status(), 1)
	require.Equal(t, 7, b.Status()[0].Window)
	require.NotContains(t, b.Handlers(), "raw.answer")
	eventually(t, "its process is gone", func() bool { return dead(before[1].PID) })
	now := b.Status()[0].Generation
	chaos.Required, chaos.DrainTimeout = false, 1e9
	require.Equal(t, map[string]Action{"handler/chaos": Retune}, apply(chaos))
	require.Equal(t, now, b.Status()[0].Generation)
	require.False(t, b.Status()[0].Required)
	as := chaos // as it runs, wherever it came from
	as.Path, as.SHA256 = "", b.Status()[0].SHA256
	require.Equal(t, map[string]Action{"handler/chaos": Keep}, plan(as))

	// What is impossible is reported, and does not hold up the rest.
	changes, err := b.Apply(t.Context(), []Spec{chaos, late, raw}, journal.ByConfig, "the file changed")
	require.ErrorContains(t, err, "handler/other: ")
	require.ErrorContains(t, err, "incompatible API version")
	require.Equal(t, map[string]Action{"handler/chaos": Keep, "handler/other": Add, "handler/raw": Add}, actions(changes))
	require.Equal(t, vocab.OutcomeSuccess, b.run(t, "raw.answer", "1").Kind)
	require.Len(t, b.Status(), 2)
	gone := raw
	gone.Path = "/nowhere/plugin"
	changes, err = b.Apply(t.Context(), []Spec{chaos, gone}, journal.ByConfig, "the file changed")
	require.ErrorContains(t, err, "no such file")
	require.Equal(t, map[string]Action{"handler/chaos": Keep, "handler/raw": Refuse}, actions(changes))
	require.Equal(t, vocab.OutcomeSuccess, b.run(t, "raw.answer", "1").Kind)

	// If the specifications are invalid, nothing changes.
	_, err = b.Apply(t.Context(), []Spec{{Kind: KindHandler, Name: "A!"}}, journal.ByConfig, "the file changed")
	require.ErrorContains(t, err, "the name must match")
	require.Len(t, b.Status(), 2)

	// A file that was replaced is another executable.
	content, err := os.ReadFile(raw.Path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(raw.Path+".new", append(content, "# new\n"...), 0o700))
	require.NoError(t, os.Rename(raw.Path+".new", raw.Path))
	require.Contains(t, b.log.String(), `serves=["raw.answer", `)
	require.Equal(t, map[string]Action{"handler/chaos": Keep, "handler/raw": SwapTo}, apply(chaos, raw))
	l.end()
	require.NotContains(t, b.log.String(), "illegal change")
}

// What runs in a slot for which nobody asks for a change stays, however it differs and
// whatever has become of its file. What does not run is started.
func TestWhatIsUnchangedStays(t *testing.T) {
	t.Parallel()
	one := quick(spec("chaos", script(t, "sdk")))
	one.Rollout.Strategy, one.Rollout.Hold, one.MaxInFlight = CanarySteps, time.Hour, 7
	b := started(t, nil, one)
	first := b.Status()[0]
	two := one
	two.Path, two.MaxInFlight, two.DrainTimeout = another(t, one.Path), 9, time.Second
	apply := func(want map[string]Action, specs ...Spec) []Change {
		changes, err := b.Apply(t.Context(), specs, journal.ByConfig, "the file changed")
		require.NoError(t, err)
		require.Equal(t, want, actions(changes))
		return changes
	}
	apply(map[string]Action{"handler/chaos": SwapTo}, two)
	next := b.Status()[0].Next
	require.NotZero(t, next)
	one.Unchanged = true
	apply(map[string]Action{"handler/chaos": Keep}, one)
	require.Equal(t, next, b.Status()[0].Next, "the rollout continues")
	require.NoError(t, b.Rollback(t.Context(), chaosSlot, ann, "test"))
	two.Unchanged = true
	gone := two
	gone.Path = "/nowhere/plugin"
	raw := spec("raw", script(t, "raw"))
	raw.Unchanged = true
	changes := apply(map[string]Action{"handler/chaos": Keep, "handler/raw": Add}, gone, raw)
	require.Equal(t, Change{Slot: chaosSlot, Action: Keep, From: first.SHA256, To: first.SHA256}, changes[0])
	apply(map[string]Action{"handler/chaos": Keep, "handler/raw": Keep}, two, raw)
	raw.Unchanged = false
	apply(map[string]Action{"handler/chaos": Keep, "handler/raw": Keep}, two, raw)
	now := b.Status()[0]
	require.Equal(t, []any{first.Generation, 7}, []any{now.Generation, now.Window})
	two.Unchanged = false
	_, err := b.Apply(t.Context(), []Spec{two, raw}, journal.ByConfig, "asked for")
	require.ErrorContains(t, err, ErrQuarantined.Error())
}

// A plugin that is added is starting, however long that takes.
func TestWhatIsAddedStarts(t *testing.T) {
	t.Parallel()
	b := started(t, nil)
	slow := spec("slow", shell(t, "sleep 1000"))
	slow.StartTimeout = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	added := make(chan error)
	go func() {
		_, err := b.Apply(ctx, []Spec{slow}, journal.ByConfig, "the file changed")
		added <- err
	}()
	eventually(t, "it is there", func() bool { return len(b.Status()) == 1 })
	require.Equal(t, Starting, b.Status()[0].State)
	cancel()
	require.ErrorIs(t, <-added, context.Canceled)
	require.Empty(t, b.Status())
}

// removal begins to remove all plugins while a step runs in one of them, and returns the
// step's outcome, and the result of the Apply, which ends with ctx.
func (b *bench) removal(ctx context.Context, t testing.TB) (step <-chan Outcome, applied <-chan error) {
	t.Helper()
	step = b.call("chaos.wait", &pluginv1.Step{StepUuid: "long"})
	require.Equal(t, vocab.OutcomeSuccess, b.run(t, "chaos.echo", `1`).Kind, "the long one is there, too")
	result := make(chan error, 1)
	go func() {
		_, err := b.Apply(ctx, nil, journal.ByConfig, "the file changed")
		result <- err
	}()
	eventually(t, "nothing is routed to it", func() bool { return len(b.Handlers()) == 0 })
	return step, result
}

// A removal is completed although whoever asked for it has gone: its steps have their
// time, and then the plugin can be added again.
func TestARemovalIsCompleted(t *testing.T) {
	t.Parallel()
	chaos := spec("chaos", script(t, "sdk"))
	chaos.DrainTimeout = wait
	b := started(t, nil, chaos)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	step, removed := b.removal(ctx, t)
	cancel()
	require.NoError(t, <-removed)
	changes, err := b.Plan([]Spec{chaos})
	require.NoError(t, err)
	require.Equal(t, map[string]Action{"handler/chaos": Add}, actions(changes))
	changes, err = b.Plan(nil)
	require.NoError(t, err)
	require.Empty(t, changes)
	_, err = b.Apply(ctx, []Spec{chaos}, ann, "too early")
	require.ErrorIs(t, err, context.Canceled)

	added := make(chan error, 1)
	go func() {
		_, err := b.Apply(t.Context(), []Spec{chaos}, ann, "it is wanted again")
		added <- err
	}()
	b.Cancel("long", "enough")
	require.Equal(t, ReasonCancelled, outcome(t, step).Failure.Code, "it was not cut off")
	require.NoError(t, <-added)
	require.Len(t, b.Status(), 1)
	require.Equal(t, vocab.OutcomeSuccess, b.run(t, "chaos.echo", `1`).Kind)
}

// A stop of the host bounds a removal, too.
func TestStopBoundsARemoval(t *testing.T) {
	t.Parallel()
	chaos := spec("chaos", script(t, "sdk"))
	chaos.DrainTimeout = time.Hour
	b := started(t, nil, chaos)
	step, removed := b.removal(t.Context(), t)
	now, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, b.Stop(now), context.Canceled)
	require.Equal(t, ReasonStopping, outcome(t, step).Failure.Code)
	require.NoError(t, <-removed)
	require.Empty(t, b.Status())
}

// A handler can move from one plugin to another, in one moment.
func TestHandlerMovesBetweenPlugins(t *testing.T) {
	t.Parallel()
	// "other" serves chaos.echo too: with chaos there it cannot be added, but it
	// can take the place of chaos.
	chaos, other := spec("chaos", script(t, "sdk")), spec("other", script(t, "other"))
	b := started(t, nil, chaos)
	_, err := b.Apply(t.Context(), []Spec{chaos, other}, ann, "test")
	require.ErrorContains(t, err, `handler "chaos.echo" is already served by plugin "chaos"`)
	require.Len(t, b.Status(), 1)

	raw := chaos
	raw.Path = script(t, "raw")
	l := b.load(t, "chaos.echo", 8)
	_, err = b.Apply(t.Context(), []Spec{raw, other}, ann, "test")
	require.NoError(t, err)
	require.Equal(t, `1`, string(b.run(t, "other.echo", `1`).Result))
	require.Equal(t, vocab.OutcomeSuccess, b.run(t, "raw.answer", "").Kind)
	l.end()
}
