package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/journal"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

var lawSlot = SlotID{Kind: KindScaling, Name: "law"}

func law(t testing.TB, mode string) Spec {
	s := spec("law", script(t, mode))
	s.Kind = KindScaling
	return quick(s)
}

func decide(t testing.TB, b *bench, pool string) (int, error) {
	t.Helper()
	d, err := b.Scale(t.Context(), &pluginv1.DecideRequest{Algorithm: "law.count", Observations: []*pluginv1.Observation{{Pool: pool, Min: 1, Max: 100}}})
	if err != nil {
		return 0, err
	}
	require.Empty(t, d.GetDecisions()[0].GetError())
	return int(d.GetDecisions()[0].GetTarget()), nil
}

// One process serves all kinds, and what an algorithm has learned outlives a
// swap.
func TestAllKindsInOneProcess(t *testing.T) {
	t.Parallel()
	b := started(t, nil, law(t, "law"))
	require.Equal(t, vocab.OutcomeSuccess, b.run(t, "law.echo", "1").Kind)
	for n := range 3 {
		target, err := decide(t, b, "p")
		require.NoError(t, err)
		require.Equal(t, n+1, target, "it counts")
	}
	c, err := b.Check(t.Context(), "law.disk")
	require.NoError(t, err)
	require.Equal(t, pluginv1.CheckResult_STATUS_DEGRADED, c.GetResults()[0].GetStatus())
	r, err := b.Report(t.Context(), &pluginv1.ReportRequest{Name: "law.disk", Events: []*pluginv1.HealthEvent{{Id: "1", Kind: "host", Severity: "info"}}})
	require.NoError(t, err)
	require.Empty(t, r.GetError())
	_, err = b.Scale(t.Context(), &pluginv1.DecideRequest{Algorithm: "nobody"})
	require.ErrorIs(t, err, ErrNoPlugin)

	require.NoError(t, b.Swap(t.Context(), lawSlot, Source{Path: another(t, law(t, "law").Path)}, ann, "test"))
	target, err := decide(t, b, "p")
	require.NoError(t, err)
	require.Equal(t, 4, target, "it continues counting")
	require.NoError(t, b.Stop(t.Context()))
	_, err = decide(t, b, "p")
	require.ErrorIs(t, err, ErrNoPlugin)
}

// Swaps under calls fail none of them.
func TestSwapUnderUnaryCalls(t *testing.T) {
	t.Parallel()
	one := law(t, "law")
	b := started(t, nil, one)
	ctx, stop := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for ctx.Err() == nil {
				if _, err := b.Check(t.Context(), "law.disk"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 4 {
		require.NoError(t, b.Swap(t.Context(), lawSlot, Source{Path: another(t, one.Path)}, ann, "test"))
	}
	stop()
	callers.Wait()
}

// A shadow gets copies, its answers are compared and discarded, and it takes
// over when it has answered enough.
func TestShadow(t *testing.T) {
	t.Parallel()
	one := law(t, "law")
	one.Rollout.Strategy, one.Rollout.Steps, one.Rollout.MinSamples = ShadowFirst, []int{50}, 10
	one.Rollout.Hold = time.Second // a shadow that has got no copy by then proceeds without
	b := started(t, nil, one)
	require.NoError(t, b.Swap(t.Context(), lawSlot, Source{Path: script(t, "law-plus")}, ann, "test"))
	next := b.Status()[0].Next
	require.NotZero(t, next)
	phase := func() Phase {
		e, err := b.Explain(lawSlot)
		require.NoError(t, err)
		return e.Generations[len(e.Generations)-1].Phase
	}
	last := 0
	eventually(t, "it takes over", func() bool {
		target, err := decide(t, b, "p")
		require.NoError(t, err)
		if phase() == journal.Shadow {
			require.Equal(t, last+1, target, "the shadow's answers are discarded")
		}
		last = target
		for n := range 10 { // some of these pools are the canary's
			_, err := decide(t, b, fmt.Sprint("q", n))
			require.NoError(t, err)
		}
		return b.Status()[0].Generation == next
	})
	require.GreaterOrEqual(t, value(t, b.metrics.of("scaling/law").differed), float64(one.Rollout.MinSamples))
	require.NotContains(t, b.log.String(), "illegal change")

	bad := spec("chaos", script(t, "sdk"))
	bad.Rollout.Strategy = ShadowFirst
	_, err := b.Plan([]Spec{bad})
	require.ErrorContains(t, err, "shadow+canary cannot be used for handlers")
}

// When calls break, further ones are refused at once, and the previous
// generation takes over.
func TestUnaryBreaker(t *testing.T) {
	t.Parallel()
	b := started(t, nil, law(t, "law"))
	first := b.Status()[0].Generation
	require.NoError(t, b.Swap(t.Context(), lawSlot, Source{Path: script(t, "law-broken")}, ann, "test"))
	for range 5 {
		_, err := decide(t, b, "p")
		require.ErrorIs(t, err, ErrBroken)
	}
	eventually(t, "the previous generation serves", func() bool { return b.Status()[0].Generation == first })
	target, err := decide(t, b, "p")
	require.NoError(t, err)
	require.Equal(t, 1, target)
	e, err := b.Explain(lawSlot)
	require.NoError(t, err)
	require.Contains(t, e.Quarantined[0].Reason, "call breaker")
}

// Calls do not wait for a stopped process. It is gone within a second or two,
// and another takes its place.
func TestUnaryCallsHaveDeadlines(t *testing.T) {
	t.Parallel()
	b := started(t, nil, law(t, "law"))
	first := b.Status()[0]
	serves := b.serving(lawSlot)
	require.NoError(t, syscall.Kill(first.PID, syscall.SIGSTOP))
	eventually(t, "it is stopped", serves.proc.Suspended)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := b.Check(ctx, "law.disk")
	if b.Status()[0].Generation == first.Generation { // else another may have answered
		require.True(t, errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrNoPlugin), "%v", err) // it may have lost its calls by now
	}
	s := b.serves(t, first.Generation)
	require.Contains(t, s.LastError, "SIGSTOP")
	require.True(t, dead(first.PID))
}
