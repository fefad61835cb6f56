package pluginhost

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/journal"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

var rawSlot = SlotID{Kind: KindHandler, Name: "raw"}

// moody makes a plugin that is unhealthy while a file exists.
func moody(t testing.TB) (path string, ill func(bool)) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ill")
	return script(t, "moody "+file), func(now bool) {
		if now {
			require.NoError(t, os.WriteFile(file, nil, 0o600))
		} else {
			require.NoError(t, os.Remove(file))
		}
	}
}

func (b *bench) phaseOf(t testing.TB, id SlotID, number uint64) Phase {
	t.Helper()
	e, err := b.Explain(id)
	require.NoError(t, err)
	for _, g := range e.Generations {
		if g.Number == number {
			return g.Phase
		}
	}
	return ""
}

// attentive checks the health of plugins all the time.
func attentive(a *account) func(*Config) {
	return func(c *Config) { c.Journal, c.HealthInterval, c.HealthTimeout = a, 20*time.Millisecond, 10*time.Second }
}

// requireLegal requires that all edges in the account are legal.
func requireLegal(t testing.TB, b *bench, a *account) {
	t.Helper()
	for _, e := range a.all() {
		require.True(t, e.Generation == 0 || journal.Can(e.From, e.To), "%+v", e)
	}
	require.NotContains(t, b.log.String(), "illegal change")
}

// A plugin that reports that it is unhealthy gets no steps instead of failing
// them; when it has recovered it gets them again, in the same process.
func TestUnhealthyGetsNoCalls(t *testing.T) {
	t.Parallel()
	a := &account{}
	path, ill := moody(t)
	b := started(t, attentive(a), spec("raw", path))
	first := b.Status()[0]

	ill(true)
	eventually(t, "it is unhealthy", func() bool { return b.phaseOf(t, rawSlot, first.Generation) == journal.Unhealthy })
	require.Empty(t, b.Handlers())
	require.Equal(t, ReasonNoPlugin, b.run(t, "raw.answer", "").Failure.Code)
	s := b.Status()[0]
	require.Equal(t, BackingOff, s.State)
	require.Contains(t, s.LastError, "it reports that it is unhealthy: not today")
	require.False(t, dead(first.PID))

	ill(false)
	eventually(t, "it serves again", func() bool { return b.Status()[0].State == Serving })
	require.Equal(t, first.PID, b.Status()[0].PID)
	require.Equal(t, vocab.OutcomeSuccess, b.run(t, "raw.answer", "").Kind)
	require.Zero(t, b.Status()[0].Restarts)

	// It is unhealthy, and then it ends: another process takes its place.
	ill(true)
	eventually(t, "it is unhealthy", func() bool { return b.phaseOf(t, rawSlot, first.Generation) == journal.Unhealthy })
	require.NoError(t, syscall.Kill(first.PID, syscall.SIGKILL))
	ill(false)
	b.serves(t, first.Generation)
	require.NoError(t, b.Stop(t.Context()))
	requireLegal(t, b, a)
}

// The warm generation takes the calls of an unhealthy one, and gives them back.
func TestStandbyReplacesTheUnhealthy(t *testing.T) {
	t.Parallel()
	a := &account{}
	one := quick(spec("raw", script(t, "raw")))
	one.Rollout.Trial = -1 // on trial it would be rolled back for good
	b := started(t, attentive(a), one)
	first := b.Status()[0]
	path, ill := moody(t)
	require.NoError(t, b.Swap(t.Context(), rawSlot, Source{Path: path}, ann, "test"))
	second := b.Status()[0]

	ill(true)
	eventually(t, "the previous one serves", func() bool { return b.Status()[0].Generation == first.Generation })
	require.Equal(t, journal.Unhealthy, b.phaseOf(t, rawSlot, second.Generation))
	require.Equal(t, first.Generation, b.run(t, "raw.answer", "").Generation)
	ill(false)
	eventually(t, "the new one serves again", func() bool { return b.Status()[0].Generation == second.Generation })
	require.Equal(t, second.PID, b.Status()[0].PID)
	eventually(t, "the previous one is warm again", func() bool { return b.phaseOf(t, rawSlot, first.Generation) == journal.Standby })
	e, err := b.Explain(rawSlot)
	require.NoError(t, err)
	require.Empty(t, e.Quarantined)

	// It was replaced by something else meanwhile, so it is no longer wanted.
	ill(true)
	eventually(t, "the previous one serves", func() bool { return b.Status()[0].Generation == first.Generation })
	require.NoError(t, b.Swap(t.Context(), rawSlot, Source{Path: another(t, one.Path)}, ann, "test"))
	third := b.Status()[0].Generation
	ill(false)
	eventually(t, "it ends", func() bool { return b.phaseOf(t, rawSlot, second.Generation) == journal.Stopped })
	require.Equal(t, third, b.Status()[0].Generation)
	require.NoError(t, b.Stop(t.Context()))
	requireLegal(t, b, a)
}

// A stopped process loses its calls before it is given up, and an unhealthy
// canary is given up.
func TestStoppedIsUnhealthyFirst(t *testing.T) {
	t.Parallel()
	a := &account{}
	b := started(t, attentive(a), spec("raw", script(t, "raw")))
	first := b.Status()[0]
	require.NoError(t, syscall.Kill(first.PID, syscall.SIGSTOP))
	b.serves(t, first.Generation)
	require.NoError(t, b.Stop(t.Context()))
	var phases []Phase
	for _, e := range a.all() {
		if e.Generation == first.Generation {
			phases = append(phases, e.To)
		}
	}
	require.Equal(t, []Phase{journal.Active, journal.Unhealthy, journal.Crashed}, phases[len(phases)-3:])
	requireLegal(t, b, a)
}

func TestUnhealthyCanaryIsGivenUp(t *testing.T) {
	t.Parallel()
	a := &account{}
	one := quick(spec("raw", script(t, "raw")))
	one.Rollout.Strategy, one.Rollout.Steps, one.Rollout.Hold = CanarySteps, []int{50}, time.Hour
	b := started(t, attentive(a), one)
	first := b.Status()[0]
	path, ill := moody(t)
	require.NoError(t, b.Swap(t.Context(), rawSlot, Source{Path: path}, ann, "test"))
	require.NotZero(t, b.Status()[0].Next)
	ill(true)
	eventually(t, "it is given up", func() bool { e, _ := b.Explain(rawSlot); return e.Next == 0 && len(e.Quarantined) == 1 })
	require.Equal(t, first.Generation, b.Status()[0].Generation)
	require.True(t, slices.ContainsFunc(a.all(), func(e Event) bool { return e.To == journal.Canary }))
	require.NoError(t, b.Stop(t.Context()))
	requireLegal(t, b, a)
}

// healthPlugin is a plugin without handlers.
func healthPlugin(name, path string) Spec {
	s := spec(name, path)
	s.Kind = KindHealth
	return s
}

// A process that leaves its group and stops is killed all the same.
func TestAStoppedProcessThatHasLeftItsGroup(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "now")
	b := started(t, nil, healthPlugin("leave", script(t, "reporter leave "+file)))
	first := b.Status()[0]
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := b.Check(t.Context(), "leave")
	require.Error(t, err)
	require.NoError(t, os.Remove(file))
	b.serves(t, first.Generation)
	require.True(t, dead(first.PID))
	require.NotContains(t, b.log.String(), "still waiting for process")
}

// A process whose end is not seen in time is replaced, also if it serves no handlers.
func TestAnEndThatIsNotSeen(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *Config) {
		c.HealthInterval, c.HealthTimeout = 20*time.Millisecond, 10*time.Second
	}, healthPlugin("pulse", shell(t, "echo hello >&2\n"+plugin(t, "reporter pulse "+filepath.Join(t.TempDir(), "never")))))
	s, err := b.slot(SlotID{Kind: KindHealth, Name: "pulse"})
	require.NoError(t, err)
	hears := make(chan struct{})
	t.Cleanup(func() { close(hears) })
	s.log = stuckLog{s.log, hears}
	require.NoError(t, b.Start(t.Context()))
	first := b.Status()[0]
	require.NoError(t, syscall.Kill(first.PID, syscall.SIGKILL))
	b.serves(t, first.Generation)
	_, err = b.Check(t.Context(), "pulse")
	require.NoError(t, err)
}

// stuckLog blocks what plugins print. So the host does not see their end.
type stuckLog struct {
	hclog.Logger
	hears <-chan struct{}
}

func (l stuckLog) With(args ...any) hclog.Logger { return stuckLog{l.Logger.With(args...), l.hears} }

func (l stuckLog) Log(hclog.Level, string, ...any) { <-l.hears }
