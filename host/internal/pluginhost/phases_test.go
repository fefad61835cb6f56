package pluginhost

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/journal"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Whatever a new plugin does while it is made ready, the old one keeps serving,
// the new one is gone soon after its time limit, and the account says how far
// it got.
func TestFaultsBeforeTheSwitch(t *testing.T) {
	t.Parallel()
	a := &account{}
	old := spec("raw", script(t, "raw"))
	b := started(t, func(c *Config) { c.Journal, c.StartParallel = a, 4 }, old)
	id := old.ID()
	first := b.Status()[0]
	for _, phase := range []string{"describe", "configure", "health", "selftest"} {
		for _, how := range []string{"exit", "stop", "hang", "flood", "error"} {
			t.Run(phase+"/"+how, func(t *testing.T) {
				bad := old
				bad.Path, bad.StartTimeout = script(t, "bad-"+phase+"-"+how), 400*time.Millisecond
				began := time.Now()
				changes, err := b.Apply(t.Context(), []Spec{bad}, ann, "test")
				require.Error(t, err)
				require.Equal(t, SwapTo, changes[0].Action)
				require.Less(t, time.Since(began), generous)
				require.Equal(t, first.Generation, b.Status()[0].Generation)
				require.Equal(t, vocab.OutcomeSuccess, b.run(t, "raw.answer", "").Kind)
				e, err := b.Explain(id)
				require.NoError(t, err)
				last := e.Generations[len(e.Generations)-1]
				require.Equal(t, journal.Failed, last.Phase, "%+v", last)
				require.NotEmpty(t, last.Reason)
				require.True(t, last.PID == 0 || dead(last.PID))
			})
		}
	}
	require.NoError(t, b.Stop(t.Context()))
	for _, e := range a.all() {
		require.True(t, e.Generation == 0 || journal.Can(e.From, e.To), "%+v", e)
	}
	require.NotContains(t, b.log.String(), "illegal change")
}

// Whatever a shadow does with the copies it gets, callers get the answers of
// the serving generation, the shadow is given up, and its release is not run
// again.
func TestFaultsOfAShadow(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"exit", "stop", "hang", "flood", "error", "few", "big"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			one := law(t, "law")
			one.Rollout.Strategy, one.Rollout.Hold, one.DrainTimeout = ShadowFirst, time.Hour, time.Second
			a := &account{}
			b := started(t, func(c *Config) {
				c.Journal = a
				if how == "hang" { // it is given up when its calls time out
					c.patience = 15 * time.Second
				}
			}, one)
			first := b.Status()[0].Generation
			require.NoError(t, b.Swap(t.Context(), lawSlot, Source{Path: script(t, "bad-decide-"+how)}, ann, "test"))
			e, err := b.Explain(lawSlot)
			require.NoError(t, err)
			shadow := e.Generations[len(e.Generations)-1]
			require.Equal(t, journal.Shadow, shadow.Phase)

			asked := 0
			eventually(t, "it is given up", func() bool {
				asked++
				target, err := decide(t, b, "p")
				require.NoError(t, err)
				require.Equal(t, asked, target, "the serving generation continues to count")
				return b.Status()[0].Next == 0
			})
			eventually(t, "it is gone", func() bool { return dead(shadow.PID) })
			require.Equal(t, first, b.Status()[0].Generation)
			require.Zero(t, b.Status()[0].Restarts)
			eventually(t, "its release is not run again", func() bool {
				e, err = b.Explain(lawSlot)
				return err == nil && len(e.Quarantined) == 1
			})
			require.NotEmpty(t, e.Quarantined[0].Reason)
			require.NoError(t, b.Stop(t.Context()))
			for _, e := range a.all() {
				require.True(t, e.Generation == 0 || journal.Can(e.From, e.To), "%+v", e)
			}
			require.NotContains(t, b.log.String(), "illegal change")
		})
	}
}

// A process that ends or is stopped while it is a canary, active on trial, kept
// warm, or draining is gone soon, and the other one serves.
func TestFaultsAfterTheSwitch(t *testing.T) {
	t.Parallel()
	for _, phase := range []Phase{journal.Canary, journal.Active, journal.Standby, journal.Draining} {
		for name, signal := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "stopped": syscall.SIGSTOP} {
			t.Run(fmt.Sprintf("%s/%s", phase, name), func(t *testing.T) {
				t.Parallel()
				s := quick(spec("chaos", script(t, "sdk")))
				s.Rollout.Hold, s.Rollout.Steps = time.Hour, []int{50}
				if phase == journal.Canary {
					s.Rollout.Strategy = CanarySteps
				}
				b := started(t, nil, s)
				first := b.Status()[0]
				var open <-chan Outcome
				if phase == journal.Draining {
					open = b.call("chaos.wait", nil)
					eventually(t, "it is in flight", func() bool { return b.Status()[0].InFlight == 1 })
				}
				require.NoError(t, b.Swap(t.Context(), chaosSlot, Source{Path: another(t, s.Path)}, ann, "test"))
				victim, survivor := pick(t, b, phase, first)
				require.NoError(t, syscall.Kill(victim.PID, signal))
				eventually(t, "it is gone", func() bool { return dead(victim.PID) })
				eventually(t, "the other serves", func() bool { return b.Status()[0].Generation == survivor && b.Status()[0].Next == 0 })
				if open != nil {
					require.Equal(t, vocab.OutcomeReleased, outcome(t, open).Kind)
				}
				for n := range 20 {
					o := outcome(t, b.call("chaos.echo", &pluginv1.Step{TaskUuid: fmt.Sprint(n), Context: []byte("1")}))
					require.Equal(t, vocab.OutcomeSuccess, o.Kind)
					require.Equal(t, survivor, o.Generation)
				}
				bad := phase == journal.Canary || phase == journal.Active
				eventually(t, "a release that crashed on trial is not run again", func() bool { return bad == (len(b.explain(t).Quarantined) == 1) })
				require.NotContains(t, b.log.String(), "illegal change")
			})
		}
	}
}

// pick returns the generation that is in a phase, and the number of the other.
func pick(t *testing.T, b *bench, phase Phase, first Status) (victim GenerationStatus, survivor uint64) {
	t.Helper()
	eventually(t, "a generation is "+string(phase), func() bool {
		for _, g := range b.explain(t).Generations {
			if g.Phase == phase && (phase != journal.Active || g.Number != first.Generation) {
				victim = g
			}
		}
		return victim.PID != 0
	})
	if victim.Number != first.Generation {
		return victim, first.Generation
	}
	return victim, b.Status()[0].Generation
}
