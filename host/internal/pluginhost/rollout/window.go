package rollout

import (
	"math"
	"math/bits"
	"sync"
	"time"
)

const (
	buckets = 12
	span    = 5 * time.Second // of a bucket; so a window is a minute

	// Latencies are counted by powers of two of a microsecond, each divided into four: a
	// bound is at most a fifth too high.
	octaves = 36
	classes = octaves * 4
)

// Sample counts calls that have ended.
type Sample struct {
	Calls  int // for which a handler gave a verdict, or should have
	Failed int // of Calls: it failed, for a reason of its own
	Broken int // of Calls: no verdict, because it hung or broke
	slow   [classes]uint32
}

// Add counts a call that a handler ended.
func (s *Sample) Add(failed bool, took time.Duration) {
	s.Calls++
	if failed {
		s.Failed++
	}
	s.slow[class(took)]++
}

// AddBroken counts a call that hung or broke.
func (s *Sample) AddBroken() {
	s.Calls++
	s.Broken++
}

// without returns the calls counted since s was before.
func (s *Sample) without(before *Sample) Sample {
	left := Sample{Calls: s.Calls - before.Calls, Failed: s.Failed - before.Failed, Broken: s.Broken - before.Broken}
	for i, n := range s.slow {
		left.slow[i] = n - before.slow[i]
	}
	return left
}

func (s *Sample) merge(o *Sample) {
	s.Calls += o.Calls
	s.Failed += o.Failed
	s.Broken += o.Broken
	for i, n := range o.slow {
		s.slow[i] += n
	}
}

// Rate returns the fraction of the calls that failed or broke.
func (s *Sample) Rate() float64 {
	if s.Calls == 0 {
		return 0
	}
	return float64(s.Failed+s.Broken) / float64(s.Calls)
}

// Quantile returns a duration that the fraction q of the calls did not exceed.
func (s *Sample) Quantile(q float64) time.Duration {
	total := uint64(0)
	for _, n := range s.slow {
		total += uint64(n)
	}
	if total == 0 {
		return 0
	}
	rank, seen := uint64(math.Ceil(q*float64(total))), uint64(0)
	for i, n := range s.slow {
		if seen += uint64(n); seen >= rank {
			return bound(i)
		}
	}
	return bound(classes - 1)
}

// class and bound map durations to classes and back to their upper bounds.
func class(d time.Duration) int {
	us := uint64(max(d.Microseconds(), 0))
	if us < 4 {
		return int(us)
	}
	octave := bits.Len64(us) - 1 // ≥ 2
	return min((octave-1)*4+int(us>>(octave-2)&3), classes-1)
}

func bound(class int) time.Duration {
	if class < 4 {
		return time.Duration(class) * time.Microsecond
	}
	octave, quarter := class/4+1, class%4
	return time.Duration(uint64(5+quarter)<<(octave-2)) * time.Microsecond // below 2^37
}

// slower counts the calls that took longer than d; those in d's own class do not count.
func (s *Sample) slower(d time.Duration) (n int) {
	for i := class(d) + 1; i < classes; i++ {
		n += int(s.slow[i])
	}
	return n
}

// verdicts counts the calls whose duration is known.
func (s *Sample) verdicts() int { return s.Calls - s.Broken }

// window holds the results of the calls of the last minute, and of all. A name that was
// never called takes almost no memory.
type window struct {
	mu      sync.Mutex
	all     Sample
	samples [buckets]*Sample
	at      [buckets]int64 // the number of the span that a sample covers
}

// now returns the sample for a moment. The caller holds mu.
func (w *window) now(now time.Time) *Sample {
	n := now.UnixNano() / int64(span)
	i := n % buckets
	switch {
	case w.samples[i] == nil:
		w.samples[i] = new(Sample)
	case w.at[i] != n:
		*w.samples[i] = Sample{}
	}
	w.at[i] = n
	return w.samples[i]
}

func (w *window) sum(now, since time.Time) Sample {
	n := now.UnixNano() / int64(span)
	first := max(n-buckets+1, since.UnixNano()/int64(span))
	var sum Sample
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, s := range w.samples {
		if s != nil && w.at[i] >= first && w.at[i] <= n {
			sum.merge(s)
		}
	}
	return sum
}

// Record holds the results of the calls of a generation, all of them and those of the
// last minute, by the names that it serves. Its methods are safe for concurrent use.
type Record struct {
	windows map[string]*window
}

// NewRecord returns a record for names; calls of other names are not counted.
func NewRecord(names []string) *Record {
	r := &Record{windows: make(map[string]*window, len(names))}
	for _, name := range names {
		r.windows[name] = &window{}
	}
	return r
}

// Add counts a call that ended about now with a verdict.
func (r *Record) Add(name string, now time.Time, failed bool, took time.Duration) {
	if w := r.windows[name]; w != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.now(now).Add(failed, took)
		w.all.Add(failed, took)
	}
}

// AddBroken counts a call that hung or broke.
func (r *Record) AddBroken(name string, now time.Time) {
	if w := r.windows[name]; w != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.now(now).AddBroken()
		w.all.AddBroken()
	}
}

// Sum returns the calls that ended within the last minute, and not before since.
func (r *Record) Sum(now, since time.Time) Sums {
	sums := Sums{Each: make(map[string]*Sample, len(r.windows))}
	for name, w := range r.windows {
		if s := w.sum(now, since); s.Calls > 0 {
			sums.Each[name] = &s
			sums.All.merge(&s)
		}
	}
	return sums
}

// Total returns all calls that have ended.
func (r *Record) Total() Sums {
	sums := Sums{Each: make(map[string]*Sample, len(r.windows))}
	for name, w := range r.windows {
		w.mu.Lock()
		s := w.all
		w.mu.Unlock()
		if s.Calls > 0 {
			sums.Each[name] = &s
			sums.All.merge(&s)
		}
	}
	return sums
}

// Without returns the calls of a total that are not in an earlier total of the same
// record.
func (s Sums) Without(before Sums) Sums {
	left := Sums{Each: make(map[string]*Sample, len(s.Each)), All: s.All.without(&before.All)}
	for name, now := range s.Each {
		earlier := before.Each[name]
		if earlier == nil {
			earlier = &Sample{}
		}
		if calls := now.without(earlier); calls.Calls > 0 {
			left.Each[name] = &calls
		}
	}
	return left
}

// Sums holds samples by name, and of all names together.
type Sums struct {
	All  Sample
	Each map[string]*Sample // those that were called
}
