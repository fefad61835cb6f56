package pool_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/pool"
)

// bench is work that arrives over a channel; each item says how long its turn lasts.
type bench struct {
	work           chan time.Duration
	taken, running atomic.Int64
	left           atomic.Int64
}

type worker struct {
	b    *bench
	next time.Duration
}

func (w *worker) Wait(ctx context.Context) bool {
	select {
	case w.next = <-w.b.work:
		return true
	case <-ctx.Done():
		return false
	}
}

func (w *worker) Leave() { w.b.left.Add(1) }

func (w *worker) Turn() pool.Turned {
	w.b.running.Add(1)
	defer w.b.running.Add(-1)
	w.b.taken.Add(1)
	<-time.After(w.next)
	return pool.Turned{Items: 2, Failed: 1}
}

const limit = time.Minute

func (b *bench) hands(n int) *pool.Hands {
	return pool.NewHands(n, pool.Pace{TurnTimeout: limit, StopTimeout: time.Hour}, pool.Work{
		New: func(*pool.Hands) pool.Executor { return &worker{b: b} }, Waiting: func() int { return len(b.work) },
	}, time.Now)
}

func TestHandsGrowAndShrinkByDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{work: make(chan time.Duration, 100)}
		p := b.hands(2)
		for range 20 {
			b.work <- time.Second
		}
		p.Start()
		synctest.Wait()
		require.Equal(t, pool.State{Size: 2, Running: 2, Waiting: 18}, p.State())
		p.Resize(5)
		synctest.Wait()
		require.Equal(t, 5, p.State().Running)
		p.Resize(1)
		synctest.Wait()
		require.Equal(t, 5, p.State().Running, "a turn that has begun is completed")
		require.Zero(t, b.left.Load())
		<-time.After(1500 * time.Millisecond)
		require.Equal(t, 1, p.State().Running)
		require.Equal(t, int64(4), b.left.Load(), "each is asked for what it knows when it leaves")
		s, ok := p.Cut(3, time.Minute)
		require.True(t, ok)
		require.Equal(t, []int64{10, 5}, []int64{s.Completions, s.Errors})
		require.Equal(t, int64(len(b.work)+3), s.QueueDepth)
		require.InDelta(t, 1, s.Utilization, 1e-9, "each of them had a turn")
		p.Pause(true)
		<-time.After(2 * time.Second)
		require.Equal(t, pool.State{Size: 1, Waiting: len(b.work), Paused: true}, p.State())
		taken := b.taken.Load()
		<-time.After(time.Hour)
		require.Equal(t, taken, b.taken.Load())
		p.Pause(false)
		<-time.After(time.Minute)
		require.Equal(t, int64(20), b.taken.Load(), "nothing is lost")
		require.NoError(t, p.Stop(t.Context()))
	})
}

// Half of the time at work is a utilization of a half, however full the turns are.
func TestHandsMeasureTrueUtilization(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{work: make(chan time.Duration, 1)}
		p := b.hands(2)
		p.Start()
		synctest.Wait()
		p.Cut(0, 0)
		b.work <- 4 * time.Second
		<-time.After(4 * time.Second)
		synctest.Wait()
		s, _ := p.Cut(0, 0)
		require.InDelta(t, 0.5, s.Utilization, 1e-9)
		require.InEpsilon(t, 4*time.Second, s.LatencyP95, 0.01)
		<-time.After(4 * time.Second)
		p.Resize(6)
		<-time.After(2 * time.Second)
		p.Pause(true)
		synctest.Wait()
		<-time.After(time.Second)
		p.Pause(false)
		<-time.After(time.Second)
		b.work <- time.Second
		<-time.After(time.Second)
		synctest.Wait()
		s, _ = p.Cut(0, 0)
		require.InDelta(t, 1.0/(2*4+6*2+6*1+6*1), s.Utilization, 1e-9, "of the executors at the time")
		require.NoError(t, p.Stop(t.Context()))
	})
}

// What has arrived is what has ended, plus the increase of what waits in this host.
func TestHandsCountArrivals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{work: make(chan time.Duration, 10)}
		p := b.hands(1)
		p.Start()
		cut := func(after time.Duration) [3]int64 {
			<-time.After(after)
			synctest.Wait()
			s, ok := p.Cut(5, 0)
			require.True(t, ok)
			return [3]int64{s.Arrivals, s.Completions, s.QueueDepth}
		}
		for range 5 {
			b.work <- 2 * time.Second
		}
		require.Equal(t, [3]int64{4, 0, 9}, cut(time.Second), "four wait, one has begun")
		require.Equal(t, [3]int64{1, 2, 8}, cut(2*time.Second), "each turn ends two")
		require.Equal(t, [3]int64{5, 8, 5}, cut(8*time.Second))
		require.NoError(t, p.Stop(t.Context()))
	})
}

// Idle ones go first, and those that are already going are not counted again.
func TestHandsAtRestGoFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{work: make(chan time.Duration, 10)}
		p := b.hands(20)
		p.Start()
		for range 10 {
			b.work <- time.Second
		}
		synctest.Wait()
		p.Resize(10)
		synctest.Wait()
		require.Equal(t, int64(10), b.left.Load(), "at rest")
		for n := 9; n >= 1; n-- {
			p.Resize(n)
		}
		<-time.After(2 * time.Second)
		require.Equal(t, int64(19), b.left.Load())
		require.NoError(t, p.Stop(t.Context()))
	})
}

func TestNoMoreAreLostAtOnceThanThereShallBe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{work: make(chan time.Duration, 10)}
		p := b.hands(3)
		p.Start()
		b.work <- 10 * limit
		<-time.After(2 * limit)
		require.Len(t, p.Overdue(), 3)
		for range 3 {
			b.work <- 10 * limit
		}
		<-time.After(2 * limit)
		p.Overdue()
		require.Equal(t, pool.State{Size: 3, Running: 4, Lost: 3, Restarts: 3}, p.State())
		<-time.After(20 * limit)
		synctest.Wait()
		require.NoError(t, p.Stop(t.Context()))
	})
}

// An executor that is stuck in its turn is replaced; it goes when the turn ends.
func TestAStuckHandIsReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{work: make(chan time.Duration, 10)}
		p := b.hands(1)
		p.Start()
		b.work <- 10 * limit
		b.work <- time.Second
		<-time.After(limit)
		p.Cut(0, 0)
		require.Zero(t, p.State().Lost)
		require.Equal(t, []time.Duration{0}, p.Overdue())
		<-time.After(time.Second)
		require.Equal(t, []time.Duration{0}, p.Overdue(), "of its replacement")
		<-time.After(2 * time.Second)
		require.Equal(t, int64(2), b.taken.Load(), "the other one works")
		require.Equal(t, pool.State{Size: 1, Running: 1, Lost: 1, Restarts: 1}, p.State())
		p.Cut(0, 0)
		require.Equal(t, 1, p.State().Restarts, "once")

		b.work <- 10 * limit // and so does the next
		<-time.After(2 * limit)
		p.Cut(0, 0)
		require.Equal(t, 1, p.State().Lost, "never more than the desired number of executors")
		require.Equal(t, []time.Duration{2 * limit}, p.Overdue(), "no replacement helps")

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := p.Stop(ctx)
		require.ErrorContains(t, err, "2 have not ended their turn")
		require.True(t, errors.Is(err, context.DeadlineExceeded))
		<-time.After(20 * limit)
		require.NoError(t, p.Stop(t.Context()))
		require.Zero(t, p.State().Lost)
	})
}

// The timeouts are those of the pace in force: a new pace can make a turn count as stuck,
// a sign of life can end that, and a stop gives up sooner.
func TestTimeoutsAreThoseOfThePace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{work: make(chan time.Duration, 10)}
		var sign time.Time
		tuned := 0
		pace := pool.Pace{TurnTimeout: time.Hour, StopTimeout: time.Hour}
		p := pool.NewHands(1, pace, pool.Work{
			New: func(*pool.Hands) pool.Executor { return &worker{b: b} }, Sign: func() time.Time { return sign }, Tuned: func() { tuned++ },
		}, time.Now)
		p.Start()
		b.work <- 3 * time.Hour
		<-time.After(time.Minute)
		require.Equal(t, []time.Duration{0}, p.Overdue())
		pace.TurnTimeout, pace.StopTimeout = time.Second, 5*time.Second
		p.Tune(pace)
		require.Equal(t, 1, tuned)
		p.Tune(pace)
		require.Equal(t, 1, tuned, "it is the same")
		require.Equal(t, pace, p.Pace())
		sign = time.Now()
		p.Cut(0, 0)
		require.Zero(t, p.State().Restarts, "what it waits for lives")
		<-time.After(1500 * time.Millisecond)
		p.Cut(0, 0)
		require.Equal(t, 1, p.State().Restarts)
		began := time.Now()
		require.ErrorIs(t, p.Stop(t.Context()), context.DeadlineExceeded)
		require.Equal(t, 5*time.Second, time.Since(began))
		<-time.After(3 * time.Hour)
	})
}

// One that rests although there is work is stuck as well.
func TestAHandThatMissesItsWorkIsReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{work: make(chan time.Duration)}
		var called time.Time
		p := pool.NewHands(1, pool.Pace{PollMax: time.Second, TurnTimeout: time.Minute, StopTimeout: time.Second}, pool.Work{
			New: func(*pool.Hands) pool.Executor { return &worker{b: b} }, Called: func() time.Time { return called },
		}, time.Now)
		p.Start()
		<-time.After(time.Hour)
		p.Cut(0, 0)
		require.Zero(t, p.State().Restarts, "nothing calls")
		called = time.Now()
		<-time.After(30 * time.Second)
		b.work <- 20 * time.Second
		<-time.After(30 * time.Second) // it rests for 10 s now
		b.work <- 20 * time.Second
		<-time.After(20*time.Second + time.Minute + time.Second)
		p.Cut(0, 0)
		require.Zero(t, p.State().Restarts, "counted from the end of its turn")
		<-time.After(time.Second)
		p.Cut(0, 0)
		require.Equal(t, 1, p.State().Restarts)
		require.NoError(t, p.Stop(t.Context()))
	})
}

func TestHandsUnderStress(t *testing.T) {
	t.Parallel()
	b := &bench{work: make(chan time.Duration, 1000)}
	p := b.hands(4)
	p.Start()
	for i := range 1000 {
		b.work <- 0
		if i%10 == 0 {
			p.Resize(1 + i%7)
			p.Pause(i%30 == 0)
			p.Cut(0, 0)
		}
	}
	p.Pause(false)
	require.Eventually(t, func() bool { return b.taken.Load() == 1000 }, time.Minute, time.Millisecond)
	require.NoError(t, p.Stop(t.Context()))
	require.Zero(t, b.running.Load(), "those that left are gone")
}
