package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/host/internal/lifecycle"
	"github.com/tasker-systems/tasker-host/host/internal/lifecycle/lifecycletest"
	"github.com/tasker-systems/tasker-host/internal/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// journal records what happened to the services that share it.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) note(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

// service is one whose start and stop take time and may fail.
type service struct {
	name                string
	journal             *journal
	startTime, stopTime time.Duration
	startErr, stopErr   error
}

func (s *service) Start(ctx context.Context) error {
	s.journal.note("start %s", s.name)
	select {
	case <-time.After(s.startTime):
		return s.startErr
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *service) Stop(ctx context.Context) error {
	s.journal.note("stop %s", s.name)
	select {
	case <-time.After(s.stopTime):
		return s.stopErr
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func group(j *journal, services ...*service) *lifecycle.Group {
	members := make([]lifecycle.Member, len(services))
	for i, s := range services {
		s.journal = j
		members[i] = lifecycle.Member{Name: s.name, Service: s}
	}
	return lifecycle.NewGroup(members...)
}

func TestGroupStartsInOrderAndStopsInReverse(t *testing.T) {
	t.Parallel()
	var j journal
	g := group(&j, &service{name: "a"}, &service{name: "b"}, &service{name: "c"})
	require.NoError(t, g.Stop(t.Context()))
	require.NoError(t, g.Start(t.Context()))
	require.NoError(t, g.Start(t.Context()))
	require.NoError(t, g.Stop(t.Context()))
	require.NoError(t, g.Stop(t.Context()))
	require.Equal(t, []string{"start a", "start b", "start c", "stop c", "stop b", "stop a"}, j.lines)
}

func TestGroupUndoesAFailedStart(t *testing.T) {
	t.Parallel()
	var j journal
	noPort, noStop := errors.New("no port"), errors.New("no stop")
	g := group(&j, &service{name: "a"}, &service{name: "b", stopErr: noStop}, &service{name: "c", startErr: noPort}, &service{name: "d"})
	err := g.Start(t.Context())
	require.ErrorIs(t, err, noPort)
	require.ErrorIs(t, err, noStop)
	require.ErrorContains(t, err, "start c: no port")
	require.Equal(t, []string{"start a", "start b", "start c", "stop b", "stop a"}, j.lines)
	require.NoError(t, g.Stop(t.Context()))
	require.Len(t, j.lines, 5, "nothing is left to stop")
}

func TestGroupAsksEveryMemberToStopAndJoinsTheErrors(t *testing.T) {
	t.Parallel()
	var j journal
	first, second := errors.New("first"), errors.New("second")
	g := group(&j, &service{name: "a", stopErr: first}, &service{name: "b"}, &service{name: "c", stopErr: second})
	require.NoError(t, g.Start(t.Context()))
	require.EqualError(t, g.Stop(t.Context()), "stop c: second\nstop a: first")
}

func TestGroupSharesTheDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j journal
		hangs := time.Hour
		g := group(&j, &service{name: "a", stopTime: 8 * time.Second}, &service{name: "b", stopTime: hangs}, &service{name: "c", stopTime: time.Second})
		require.NoError(t, g.Start(t.Context()))
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		// c needs 1 of its 5 s; b hangs and gets half of the 14 s left; a gets the rest.
		require.EqualError(t, g.Stop(ctx), "stop b: not done within its share of 7s\nstop a: context deadline exceeded")
		require.Equal(t, 15*time.Second, time.Since(began))
	})
}

func TestGroupStopsWithoutADeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j journal
		g := group(&j, &service{name: "a", stopTime: time.Hour})
		require.NoError(t, g.Start(t.Context()))
		require.NoError(t, g.Stop(t.Context()))
	})
}

func TestStopOvertakesAStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j journal
		g := group(&j, &service{name: "a"}, &service{name: "slow", startTime: time.Hour}, &service{name: "c"})
		result := make(chan error, 1)
		go func() { result <- g.Start(t.Context()) }()
		synctest.Wait()
		began := time.Now()
		require.NoError(t, g.Stop(t.Context()))
		require.EqualError(t, <-result, "start slow: stopped while starting")
		require.Zero(t, time.Since(began))
		require.Equal(t, []string{"start a", "start slow", "stop a"}, j.lines)
	})
}

func TestACancelledStartIsUndoneInItsOwnTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j journal
		g := group(&j, &service{name: "a", stopTime: time.Second}, &service{name: "slow", startTime: time.Hour})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, g.Start(ctx), context.DeadlineExceeded)
		require.Equal(t, []string{"start a", "start slow", "stop a"}, j.lines)
	})
}

// Whatever fails, a group never stops what it did not start and leaves nothing running.
func TestGroupBalancesStartsAndStops(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var j journal
		broken := errors.New("broken")
		services := make([]*service, rapid.IntRange(0, 6).Draw(t, "members"))
		firstBroken := -1
		for i := range services {
			services[i] = &service{name: fmt.Sprint(i)}
			if rapid.IntRange(0, 4).Draw(t, "fault") == 0 {
				services[i].startErr = broken
				if firstBroken < 0 {
					firstBroken = i
				}
			}
		}
		g := group(&j, services...)
		err := g.Start(context.Background())
		require.Equal(t, firstBroken >= 0, err != nil)
		require.NoError(t, g.Stop(context.Background()))

		started := len(services)
		if firstBroken >= 0 {
			started = firstBroken
		}
		var want []string
		for i := range services[:min(started+1, len(services))] {
			want = append(want, "start "+fmt.Sprint(i))
		}
		for i := started - 1; i >= 0; i-- {
			want = append(want, "stop "+fmt.Sprint(i))
		}
		require.Equal(t, want, j.lines)
	})
}

func untilDone(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestRunnerEndsWithItsCause(t *testing.T) {
	t.Parallel()
	var cause error
	r := lifecycle.NewRunner("loop", func(ctx context.Context) error {
		<-ctx.Done()
		cause = context.Cause(ctx)
		return ctx.Err()
	}, func(err error) { t.Errorf("died: %v", err) })
	require.NoError(t, r.Start(t.Context()))
	require.NoError(t, r.Stop(t.Context()))
	require.ErrorIs(t, cause, lifecycle.ErrStopped)
}

func TestRunnerOutlivesTheContextOfItsStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := lifecycle.NewRunner("loop", untilDone, func(err error) { t.Errorf("died: %v", err) })
		ctx, cancel := context.WithCancel(t.Context())
		require.NoError(t, r.Start(ctx))
		cancel()
		synctest.Wait()
		require.NoError(t, r.Stop(t.Context()))
		require.ErrorIs(t, r.Start(ctx), context.Canceled)
	})
}

func TestRunnerReportsAnEndNobodyAskedFor(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for name, test := range map[string]struct {
		run  func(context.Context) error
		want string
	}{
		"error":  {func(context.Context) error { return broken }, "loop: broken"},
		"return": {func(context.Context) error { return nil }, "loop: ended unexpectedly"},
		"panic":  {func(context.Context) error { panic("boom") }, "loop: panic: boom"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			died := make(chan error, 2)
			r := lifecycle.NewRunner("loop", test.run, func(err error) { died <- err })
			require.NoError(t, r.Start(t.Context()))
			require.ErrorContains(t, <-died, test.want)
			require.ErrorContains(t, r.Stop(t.Context()), test.want)
			require.NoError(t, r.Stop(t.Context()))
			require.Empty(t, died)
		})
	}
}

func TestRunnerStopGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		late := errors.New("late")
		r := lifecycle.NewRunner("loop", func(context.Context) error {
			<-release
			return late
		}, nil)
		require.NoError(t, r.Start(t.Context()))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, r.Stop(ctx), context.DeadlineExceeded)
		close(release)
		require.ErrorIs(t, r.Stop(t.Context()), late)
	})
}

func TestStress(t *testing.T) {
	t.Parallel()
	loop := func(name string) lifecycle.Member {
		return lifecycle.Member{Name: name, Service: lifecycle.NewRunner(name, untilDone, nil)}
	}
	t.Run("runner", func(t *testing.T) {
		t.Parallel()
		lifecycletest.Stress(t, loop("one").Service)
	})
	t.Run("group", func(t *testing.T) {
		t.Parallel()
		inner := lifecycle.NewGroup(loop("b"), loop("c"))
		lifecycletest.Stress(t, lifecycle.NewGroup(loop("a"), lifecycle.Member{Name: "inner", Service: inner}, loop("d")))
	})
}
