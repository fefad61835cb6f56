package scaling

import (
	"math"
	"math/bits"
	"time"

	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// Meter counts what happens in a pool and divides it into samples.
type Meter struct {
	since time.Time

	arrivals, completions, errors int64
	busy, available               time.Duration
	latencies                     latencies
}

// NewMeter returns a meter whose first sample begins now.
func NewMeter(now time.Time) *Meter { return &Meter{since: now} }

// Arrived counts work that became ready.
func (m *Meter) Arrived(n int) { m.arrivals += int64(n) }

// Ended counts a piece of work that ended, with the time since it became ready.
func (m *Meter) Ended(latency time.Duration, failed bool) {
	m.completions++
	if failed {
		m.errors++
	}
	m.latencies.add(latency)
}

// Worked adds executor time: how much of it there was, and how much of that was spent working.
func (m *Meter) Worked(busy, available time.Duration) {
	m.busy += busy
	m.available += available
}

// Cut ends the span that began at the last cut and returns its sample; ok is false if no time
// has passed. The arguments describe the pool's size and queue now.
func (m *Meter) Cut(now time.Time, size int, depth int64, oldest time.Duration) (s scaler.Sample, ok bool) {
	span := now.Sub(m.since)
	if span <= 0 {
		return scaler.Sample{}, false
	}
	s = scaler.Sample{
		At: now, Span: span, Size: size,
		Arrivals: m.arrivals, Completions: m.completions, Errors: m.errors,
		QueueDepth: depth, OldestAge: oldest,
	}
	if m.available > 0 {
		s.Utilization = min(max(m.busy.Seconds()/m.available.Seconds(), 0), 1)
	}
	s.LatencyP50, s.LatencyP95, s.LatencyP99 = m.latencies.at(0.5), m.latencies.at(0.95), m.latencies.at(0.99)
	clear(m.latencies.cells)
	*m = Meter{since: now, latencies: latencies{cells: m.latencies.cells}}
	return s, true
}

// latencies counts durations in cells whose width grows with the duration: its
// memory is bounded, and a percentile is off by 1/64 of itself at most. Durations
// below 64 ns are counted exactly.
type latencies struct {
	cells []uint32 // by cellOf; allocated for the first duration
	n     int
}

// cellBits is the number of a duration's leading bits that a cell distinguishes.
const cellBits = 6

// cellOf returns the cell of a duration: its leading bits, and how many follow.
func cellOf(d time.Duration) int {
	v := uint64(max(d, 0))
	shift := max(bits.Len64(v)-cellBits, 0)
	return shift<<(cellBits-1) + int(v>>shift) // at most 63
}

// middle returns the duration in the middle of a cell.
func middle(cell int) time.Duration {
	shift := max(cell>>(cellBits-1)-1, 0)
	least := time.Duration(cell-shift<<(cellBits-1)) << shift
	return least + time.Duration(1)<<shift/2
}

func (l *latencies) add(d time.Duration) {
	if l.cells == nil {
		l.cells = make([]uint32, cellOf(math.MaxInt64)+1)
	}
	l.cells[cellOf(d)]++
	l.n++
}

// at returns a percentile by the nearest rank.
func (l *latencies) at(q float64) time.Duration {
	if l.n == 0 {
		return 0
	}
	rank := min(max(int(math.Ceil(q*float64(l.n)-1e-9)), 1), l.n)
	for cell, n := range l.cells {
		if rank -= int(n); rank <= 0 {
			return middle(cell)
		}
	}
	return 0 // not reached: the cells hold l.n durations
}

// Window keeps the latest samples of a pool.
type Window struct {
	span    time.Duration
	samples []scaler.Sample
}

// NewWindow returns a window that keeps samples for the given span.
func NewWindow(span time.Duration) *Window { return &Window{span: span} }

// Add adds a sample and drops those that are too old. It refuses a sample that overlaps the
// previous one, because whatever is measured twice would count twice.
func (w *Window) Add(s scaler.Sample) bool {
	if n := len(w.samples); s.Span <= 0 || (n > 0 && s.At.Add(-s.Span).Before(w.samples[n-1].At)) {
		return false
	}
	w.samples = append(w.samples, s)
	oldest := s.At.Add(-w.span)
	drop := 0
	for drop < len(w.samples)-1 && w.samples[drop].At.Before(oldest) {
		drop++
	}
	w.samples = w.samples[drop:]
	return true
}

// Samples returns the samples in the window, oldest first. The slice is valid until the next
// Add.
func (w *Window) Samples() []scaler.Sample { return w.samples }
