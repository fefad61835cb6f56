package pipeline

import (
	"container/heap"
	"sync"
	"time"
)

// dueTimes holds the times from which the retries caused by this host may start. They are
// hints when to look at the queues, and kept nowhere else. Times within the same
// millisecond count as one.
type dueTimes struct {
	mu    sync.Mutex
	times timeHeap
	known map[int64]bool // milliseconds
}

// at adds a time.
func (d *dueTimes) at(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known == nil {
		d.known = map[int64]bool{}
	}
	if ms := t.UnixMilli(); !d.known[ms] {
		d.known[ms] = true
		heap.Push(&d.times, t)
	}
}

// reached reports whether any times have been reached, and forgets them: the caller looks
// now, whatever else there is to do.
func (d *dueTimes) reached(now time.Time) (some bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.times) > 0 && !d.times[0].After(now) {
		delete(d.known, heap.Pop(&d.times).(time.Time).UnixMilli())
		some = true
	}
	return some
}

// within returns how long to wait for the first time, at most longest. The time is kept,
// since something else may end the wait.
func (d *dueTimes) within(longest time.Duration, now time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.times) == 0 {
		return longest
	}
	return max(min(d.times[0].Sub(now), longest), 0)
}

// timeHeap is a heap of times, the earliest first.
type timeHeap []time.Time

func (h timeHeap) Len() int           { return len(h) }
func (h timeHeap) Less(i, j int) bool { return h[i].Before(h[j]) }
func (h timeHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *timeHeap) Push(t any)        { *h = append(*h, t.(time.Time)) }

func (h *timeHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
