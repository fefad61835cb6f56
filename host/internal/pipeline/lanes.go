package pipeline

import (
	"sync"
	"time"
)

// lanes decides how many batches are in progress at once, across all lines. Every call to
// the database has a fixed cost, so one batch of all that arrived during the last one is
// better than two small ones side by side: they keep the server busy, and delay each
// other. Another lane opens when there is enough for it, or when something has waited for
// a while, since the call in progress may be a long one.
type lanes struct {
	sync.Mutex // also guards the lines
	underWay   int
	lines      []*line
}

// line is where items of one kind wait for their batch.
type line struct {
	*lanes
	ready        chan struct{} // level-triggered: a batch may be taken
	busy         int           // batches of this line in progress
	items, bytes int           // that wait
	since        time.Time     // since when something waits that may not be taken yet; zero: nothing does
	late         *time.Timer   // runs during that time
}

const (
	laneItems    = 100                   // must wait, for each batch in progress, before another one starts
	lanePatience = 20 * time.Millisecond // or something has waited for this long
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

// idle reports whether nothing is waiting and nothing is in progress.
func (l *line) idle() bool {
	l.Lock()
	defer l.Unlock()
	return l.items == 0 && l.busy == 0
}

// waits sets how many items are waiting.
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

// begin reports whether a batch may be taken, and if so notes that it is.
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

// end notes that a batch has ended.
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
