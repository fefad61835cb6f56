package pool_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/host/internal/pool"
	"github.com/tasker-systems/tasker-host/internal/leaks"
)

// task is a job's task, made of two functions.
type task struct {
	run  func()
	back func(why string)
}

func (t task) Run() { t.run() }

func (t task) Back(why string) { t.back(why) }

func newJob(run func(), back func(why string)) *pool.Job { return pool.NewJob(task{run, back}) }

func TestMain(m *testing.M) { leaks.Main(m) }

// jobs makes jobs that record in which order they begin, and which ones came back.
type jobs struct {
	slots *pool.Slots
	began []int
	back  map[int]string
	all   []*pool.Job
}

func newJobs(size int) *jobs {
	return &jobs{slots: pool.NewSlots(size, time.Now), back: map[int]string{}}
}

func (j *jobs) enter() int {
	n := len(j.all)
	j.all = append(j.all, newJob(func() { j.began = append(j.began, n) }, func(why string) { j.back[n] = why }))
	j.slots.Enter(j.all[n])
	return n
}

func TestSlotsRunSoManyAtOnceInOrder(t *testing.T) {
	t.Parallel()
	j := newJobs(2)
	for range 5 {
		j.enter()
	}
	require.Equal(t, []int{0, 1}, j.began)
	require.Equal(t, pool.State{Size: 2, Running: 2, Waiting: 3}, j.slots.State())
	j.slots.Leave(j.all[1], false)
	require.Equal(t, []int{0, 1, 2}, j.began)
	j.slots.Leave(j.all[1], false)
	require.Equal(t, []int{0, 1, 2}, j.began, "nobody leaves twice")

	require.True(t, j.slots.Drop(j.all[3], "cancelled"))
	require.False(t, j.slots.Drop(j.all[3], "again"))
	require.False(t, j.slots.Drop(j.all[0], "it runs"))
	require.Equal(t, map[int]string{3: "cancelled"}, j.back)
	require.Equal(t, 1, j.slots.State().Waiting)

	j.slots.Resize(3)
	require.Equal(t, []int{0, 1, 2, 4}, j.began)
	j.slots.Resize(1)
	s := j.slots.State()
	require.Equal(t, pool.State{Size: 1, Running: 3}, s, "running jobs end normally")
	require.Equal(t, 3, s.Current())
	n := j.enter()
	j.slots.Leave(j.all[0], false)
	j.slots.Leave(j.all[2], false)
	require.NotContains(t, j.began, n)
	j.slots.Leave(j.all[4], false)
	require.Contains(t, j.began, n)
}

func TestPausedSlotsGiveBackWhatWaits(t *testing.T) {
	t.Parallel()
	j := newJobs(1)
	j.enter()
	j.enter()
	j.enter()
	j.slots.Drop(j.all[2], "cancelled")
	j.slots.Pause(true)
	require.Equal(t, map[int]string{1: pool.ReasonPaused, 2: "cancelled"}, j.back)
	require.Equal(t, pool.State{Size: 1, Running: 1, Paused: true}, j.slots.State())
	j.enter()
	require.Equal(t, pool.ReasonPaused, j.back[3], "nor does it take any")
	j.slots.Leave(j.all[0], false)
	j.slots.Pause(false)
	j.enter()
	require.Equal(t, []int{0, 4}, j.began)
}

// Runs that end at once, from within, do not nest: a thousand of them would need a
// thousand stack frames.
func TestSlotsOfWorkThatEndsAtOnce(t *testing.T) {
	t.Parallel()
	s := pool.NewSlots(1, time.Now)
	deep, deepest, ran := 0, 0, 0
	first := newJob(func() {}, nil)
	s.Enter(first)
	for range 1000 {
		var j *pool.Job
		j = newJob(func() {
			deep++
			deepest, ran = max(deepest, deep), ran+1
			s.Leave(j, false)
			deep--
		}, nil)
		s.Enter(j)
	}
	s.Leave(first, false)
	require.Equal(t, 1000, ran)
	require.Equal(t, 1, deepest)
}

func TestSlotsMeasureTrueUtilization(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := pool.NewSlots(4, time.Now)
		wait := func(d time.Duration) { <-time.After(d) }
		a, b := newJob(func() {}, nil), newJob(func() {}, nil)
		s.Enter(a)
		wait(time.Second)
		s.Enter(b)
		wait(time.Second)
		s.Leave(a, true)
		wait(2 * time.Second)
		// 4 executors for 4 s; at work for 2 s and 3 s.
		sample, ok := s.Cut(7, time.Minute)
		require.True(t, ok)
		require.InDelta(t, 5.0/16, sample.Utilization, 1e-9)
		require.Equal(t, []int64{2, 1, 1, 7}, []int64{sample.Arrivals, sample.Completions, sample.Errors, sample.QueueDepth})
		require.InEpsilon(t, 2*time.Second, sample.LatencyP50, 0.01)
		require.Equal(t, []time.Duration{time.Minute, 4 * time.Second}, []time.Duration{sample.OldestAge, sample.Span})
		_, ok = s.Cut(0, 0)
		require.False(t, ok, "no time has passed")

		s.Resize(1)
		c := newJob(func() {}, nil)
		s.Enter(c)
		wait(3 * time.Second)
		sample, _ = s.Cut(1, 0)
		require.InDelta(t, 1.0, sample.Utilization, 1e-9)
		require.Equal(t, []int64{1, 0, 2}, []int64{sample.Arrivals, sample.Completions, sample.QueueDepth}, "one waits here, one elsewhere")
		require.Equal(t, 3*time.Second, sample.OldestAge)

		wait(time.Second)
		s.Resize(4) // c runs too
		wait(time.Second)
		s.Pause(true)
		wait(time.Second)
		s.Pause(false)
		wait(2 * time.Second)
		sample, _ = s.Cut(0, 0)
		require.InDelta(t, (1.0+2+2+4)/(1+4+2+8), sample.Utilization, 1e-9, "of the slots at the time")
	})
}

// What was dropped no longer waits.
func TestSlotsDoNotCountWhatWasDropped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := newJobs(1)
		for range 4 {
			j.enter()
			<-time.After(time.Second)
		}
		j.slots.Drop(j.all[1], "cancelled")
		j.slots.Drop(j.all[3], "cancelled")
		sample, _ := j.slots.Cut(0, 0)
		require.Equal(t, int64(1), sample.QueueDepth)
		require.Equal(t, 2*time.Second, sample.OldestAge, "the first that still waits")
		require.Equal(t, 1, j.slots.State().Waiting)
		j.slots.Leave(j.all[0], false)
		j.slots.Leave(j.all[2], false)
		require.Equal(t, []int{0, 2}, j.began)
		require.Zero(t, j.slots.State().Waiting)
	})
}

func TestSlotsKeepTheOrderOfALongQueue(t *testing.T) {
	t.Parallel()
	j := newJobs(1)
	for range 200 {
		j.enter()
	}
	for i := range 1000 {
		j.slots.Leave(j.all[i], false)
		j.enter()
	}
	for i, n := range j.began {
		require.Equal(t, i, n)
	}
	require.Len(t, j.began, 1001)
}

// Whatever happens, in whatever order: no more jobs run than the largest size, and every
// job either runs or comes back, once.
func TestSlotsProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 5).Draw(t, "size")
		s := pool.NewSlots(size, time.Now)
		var all, running []*pool.Job
		outcome := map[*pool.Job]int{}
		for range rapid.IntRange(1, 200).Draw(t, "moves") {
			before := len(running)
			switch rapid.IntRange(0, 6).Draw(t, "move") {
			case 0, 1, 2:
				var j *pool.Job
				j = newJob(func() { outcome[j]++; running = append(running, j) }, func(string) { outcome[j]++ })
				all = append(all, j)
				s.Enter(j)
			case 3, 4:
				if len(running) > 0 {
					j := running[0]
					running = running[1:]
					s.Leave(j, false)
				}
			case 5:
				size = rapid.IntRange(1, 5).Draw(t, "size")
				s.Resize(size)
			case 6:
				if rapid.Bool().Draw(t, "drop") && len(all) > 0 {
					s.Drop(rapid.SampledFrom(all).Draw(t, "job"), "dropped")
				} else {
					s.Pause(rapid.Bool().Draw(t, "pause"))
				}
			}
			require.LessOrEqual(t, len(running), max(size, before))
			require.Equal(t, len(running), s.State().Running)
		}
		s.Pause(false)
		for len(running) > 0 {
			j := running[0]
			running = running[1:]
			s.Leave(j, false)
		}
		require.Zero(t, s.State().Waiting)
		for _, j := range all {
			require.Equal(t, 1, outcome[j])
		}
	})
}

// Many goroutines at once: nothing is lost, and no more run than allowed.
func TestSlotsUnderStress(t *testing.T) {
	t.Parallel()
	const size, n = 8, 4000
	s := pool.NewSlots(size, time.Now)
	var running, most, ended atomic.Int64
	var work, enter sync.WaitGroup
	for range 4 {
		enter.Go(func() {
			for range n / 4 {
				var j *pool.Job
				j = newJob(func() {
					for now := running.Add(1); ; {
						if seen := most.Load(); now <= seen || most.CompareAndSwap(seen, now) {
							break
						}
					}
					work.Go(func() {
						running.Add(-1)
						s.Leave(j, false)
						ended.Add(1)
					})
				}, func(string) { ended.Add(1) })
				s.Enter(j)
			}
		})
	}
	enter.Go(func() {
		for i := range 50 {
			s.Resize(1 + i%size)
			s.Cut(0, 0)
		}
		s.Resize(size)
	})
	enter.Wait()
	require.Eventually(t, func() bool { return ended.Load() == n }, time.Minute, time.Millisecond)
	work.Wait()
	require.LessOrEqual(t, most.Load(), int64(size))
}
