package opstate

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/internal/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// at returns a machine in a given state, regardless of the edges.
func at(s State) *Machine {
	m := New(time.Now)
	m.last = Change{From: s, To: s}
	return m
}

func TestAllPairs(t *testing.T) {
	t.Parallel()
	const same, yes, no = "same", "yes", "no"
	pairs := map[State]map[State]string{
		Startup:          {Startup: same, Normal: yes, GracefulShutdown: yes, Emergency: yes, Stopped: yes},
		Normal:           {Startup: no, Normal: same, GracefulShutdown: yes, Emergency: yes, Stopped: yes},
		GracefulShutdown: {Startup: no, Normal: no, GracefulShutdown: same, Emergency: yes, Stopped: yes},
		Emergency:        {Startup: no, Normal: no, GracefulShutdown: no, Emergency: same, Stopped: yes},
		Stopped:          {Startup: yes, Normal: no, GracefulShutdown: no, Emergency: no, Stopped: same},
	}
	tested := 0
	for _, from := range States {
		for _, to := range States {
			tested++
			m := at(from)
			before, changed := m.Watch()
			change, err := m.To(to, "test")
			switch pairs[from][to] {
			case yes:
				require.NoError(t, err, "%s → %s", from, to)
				require.Equal(t, to, m.State())
				require.Equal(t, from, change.From)
				require.Equal(t, "test", change.Reason)
				requireClosed(t, changed)
			case same:
				require.NoError(t, err)
				require.Equal(t, before, change, "%s again", from)
				require.Empty(t, changed)
			default:
				var illegal *TransitionError
				require.ErrorAs(t, err, &illegal, "%s → %s", from, to)
				require.Equal(t, TransitionError{from, to}, *illegal)
				require.Equal(t, from, m.State())
				require.Equal(t, before, change)
			}
		}
	}
	require.Equal(t, 25, tested)
}

func requireClosed(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	default:
		require.Fail(t, "the watchers were not told")
	}
}

func TestAnUnknownStateIsNoTarget(t *testing.T) {
	t.Parallel()
	_, err := New(time.Now).To("paused", "test")
	require.EqualError(t, err, "operational state cannot go from startup to paused")
	require.False(t, State("paused").ClaimsWork())
}

func TestWhatEachStateDoes(t *testing.T) {
	t.Parallel()
	predicates := []func(State) bool{
		State.ClaimsWork, State.FinishesWork, State.Finalizes, State.SwapsPlugins,
		State.Scales, State.HandsLeasesBack, State.Ready, State.Live,
	}
	for state, want := range map[State]string{
		//                 claims, finishes, finalizes, swaps, scales, hands back, ready, live
		Startup:          "-------l",
		Normal:           "cfzss-rl",
		GracefulShutdown: "-fz----l",
		Emergency:        "-----h-l",
		Stopped:          "--------",
	} {
		got := []byte("cfzsshrl")
		for i, predicate := range predicates {
			if !predicate(state) {
				got[i] = '-'
			}
		}
		require.Equal(t, want, string(got), state)
	}
}

func TestAChangeTellsWhenAndWhy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := New(time.Now)
		<-time.After(time.Minute)
		_, err := m.To(GracefulShutdown, "SIGTERM")
		require.NoError(t, err)
		change, _ := m.Watch()
		require.Equal(t, Change{From: Startup, To: GracefulShutdown, Reason: "SIGTERM", At: time.Now()}, change)
	})
}

func TestAWatcherThatSleptSeesTheLatestState(t *testing.T) {
	t.Parallel()
	m := New(time.Now)
	_, changed := m.Watch()
	for _, to := range []State{Normal, GracefulShutdown, Emergency, Stopped} {
		_, err := m.To(to, "test")
		require.NoError(t, err)
	}
	requireClosed(t, changed)
	change, _ := m.Watch()
	require.Equal(t, Stopped, change.To)
}

func TestWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := New(time.Now)
		got := make(chan State, 1)
		go func() {
			state, err := m.Wait(t.Context(), func(s State) bool { return !s.ClaimsWork() && s != Startup })
			if err != nil {
				t.Error(err)
			}
			got <- state
		}()
		for _, to := range []State{Normal, GracefulShutdown} {
			synctest.Wait()
			require.Empty(t, got)
			_, err := m.To(to, "test")
			require.NoError(t, err)
		}
		require.Equal(t, GracefulShutdown, <-got)

		tired := errors.New("tired")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, tired)
		defer cancel()
		state, err := m.Wait(ctx, State.ClaimsWork)
		require.ErrorIs(t, err, tired)
		require.Equal(t, GracefulShutdown, state)
	})
}

func TestConcurrentMovesTakeOnlyLegalEdges(t *testing.T) {
	t.Parallel()
	m := New(time.Now)
	var wg sync.WaitGroup
	for _, to := range States {
		wg.Go(func() {
			for range 200 {
				if change, err := m.To(to, "race"); err == nil && change.To != to {
					t.Errorf("moved to %s instead of %s", change.To, to)
				}
			}
		})
		wg.Go(func() {
			for range 200 {
				m.State().ClaimsWork()
			}
		})
	}
	wg.Wait()
}
