package pipeline

import (
	"sync"
	"time"
)

// lanes decides how many batches are under way at once, of all lines together. A
// call to the database has a price whatever it does, so one batch of all that came
// while the last one was under way is better than two small ones side by side: they
// keep the server busy, and each other waiting. Another lane opens where there is
// enough for it, or where something has waited for a while, since the call under
// way may be a long one.
type lanes struct {
	sync.Mutex // guards the lines, too
	underWay   int
	lines      []*line
}

// line is where items of one kind wait for their batch.
type line struct {
	*lanes
	ready        chan struct{} // level-triggered: a batch may be taken
	busy         int           // batches of this line that are under way
	items, bytes int           // that wait
	since        time.Time     // since when something waits that may not be taken yet; zero: nothing does
	late         *time.Timer   // runs then
}

const (
	laneItems    = 100                   // wait, for each batch under way, before another one goes
	lanePatience = 20 * time.Millisecond // or something has waited for so long
)

// line adds a line.
func (l *lanes) line() *line {
	ready := make(chan struct{}, 1)
	late := time.AfterFunc(lanePatience, func() { signal(ready) })
	late.Stop()
	n := &line{lanes: l, ready: ready, late: late}
	l.lines = append(l.lines, n)
	return n
}

// open reports whether a batch may be taken.
func (l *line) open() bool {
	enough := max(l.busy, 1)
	switch {
	case l.items == 0:
		return false
	case l.underWay == 0, l.items >= laneItems*enough, l.bytes >= batchBytes*enough:
		return true
	default:
		return !l.since.IsZero() && time.Since(l.since) >= lanePatience
	}
}

// idle reports whether nothing waits and nothing is under way.
func (l *line) idle() bool {
	l.Lock()
	defer l.Unlock()
	return l.items == 0 && l.busy == 0
}

// waits says how many items wait now.
func (l *line) waits(items int) {
	l.items = items
	l.announce()
}

// announce signals that a batch may be taken, now or in a while.
func (l *line) announce() {
	if l.open() {
		signal(l.ready)
	} else if l.items > 0 && l.since.IsZero() {
		l.since = time.Now()
		l.late.Reset(lanePatience)
	}
}

// begin reports whether a batch may be taken, and notes that it is.
func (l *line) begin() bool {
	if !l.open() {
		l.announce() // another line was faster
		return false
	}
	l.busy++
	l.underWay++
	l.since = time.Time{}
	l.late.Stop()
	return true
}

// end notes that a batch has come to its end.
func (l *line) end() {
	l.busy--
	l.underWay--
	for _, other := range l.lines {
		if other != l {
			other.announce() // first, since this line has had its turn
		}
	}
	l.announce()
}
