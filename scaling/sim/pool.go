package sim

import (
	"cmp"
	"container/heap"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tasker-systems/tasker-host/scaling"
)

// work is one piece of work; times are seconds from the start.
type work struct{ arrived, service float64 }

// executor takes one piece of work at a time.
type executor struct {
	ready   float64 // when it has started
	free    float64 // when it can take the next
	arrived float64 // of the piece it works on
	busy    bool    // it works on one, until free
}

// executors is a heap: the first one is free first.
type executors []*executor

func (e executors) Len() int           { return len(e) }
func (e executors) Less(i, j int) bool { return e[i].free < e[j].free }
func (e executors) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *executors) Push(x any)        { *e = append(*e, x.(*executor)) }
func (e *executors) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	*e = (*e)[:last]
	return x
}

// pool is the simulated pool.
type pool struct {
	now      float64
	delay    float64 // that a new executor needs
	members  executors
	draining []*executor // removed, but still working on a piece

	source *source
	queue  []work // what waits, in order
	head   int    // of the queue: what is before it was taken

	meter  *scaling.Meter
	ended  func(latency float64)
	cost   float64 // executor seconds so far, starting and draining ones included
	worked float64 // of the current span
}

// resize brings the pool to a size. Executors that are starting or idle are
// removed first.
func (p *pool) resize(size int) {
	for len(p.members) < size {
		at := p.now + p.delay
		heap.Push(&p.members, &executor{ready: at, free: at})
	}
	if len(p.members) == size {
		return
	}
	slices.SortStableFunc(p.members, func(a, b *executor) int {
		return cmp.Or(cmp.Compare(a.rank(p.now), b.rank(p.now)), cmp.Compare(b.free, a.free))
	})
	for _, e := range p.members[size:] {
		if e.busy {
			p.draining = append(p.draining, e)
		}
	}
	p.members = p.members[:size]
	heap.Init(&p.members)
}

// rank orders the executors for removal when a pool shrinks: first those that
// have not started, then the idle ones, last those at work.
func (e *executor) rank(now float64) int {
	switch {
	case e.ready > now:
		return 2
	case !e.busy:
		return 1
	}
	return 0
}

// started returns how many executors there are, without those that are still
// starting.
func (p *pool) started() int {
	n := 0
	for _, e := range p.members {
		if e.ready <= p.now {
			n++
		}
	}
	return n
}

func (p *pool) depth() int { return len(p.queue) - p.head }

// oldest returns how long the head of the queue has waited.
func (p *pool) oldest() float64 {
	if p.depth() == 0 {
		return 0
	}
	return p.now - p.queue[p.head].arrived
}

// run advances the time.
func (p *pool) run(until float64) {
	p.begin(until)
	arrived := 0
	for {
		w, ok := p.source.next(until)
		if !ok {
			break
		}
		arrived++
		p.queue = append(p.queue, w)
		p.serve(until)
	}
	p.serve(until)
	p.meter.Arrived(arrived)
	p.end(until)
}

// begin counts the work that was in progress when the span began.
func (p *pool) begin(until float64) {
	for _, e := range slices.Concat(p.members, p.draining) {
		if e.busy {
			p.worked += min(e.free, until) - p.now
		}
	}
}

// serve assigns the waiting work to executors that become free before then.
func (p *pool) serve(until float64) {
	for p.depth() > 0 && len(p.members) > 0 {
		e := p.members[0]
		w := p.queue[p.head]
		start := max(w.arrived, e.free, p.now)
		if start >= until {
			break
		}
		if e.busy {
			p.finish(e)
		}
		p.head++
		e.busy, e.arrived, e.free = true, w.arrived, start+w.service
		p.worked += min(e.free, until) - start
		heap.Fix(&p.members, 0)
	}
	if p.head > 4096 && 2*p.head > len(p.queue) {
		p.queue = p.queue[:copy(p.queue, p.queue[p.head:])]
		p.head = 0
	}
}

func (p *pool) finish(e *executor) {
	e.busy = false
	latency := e.free - e.arrived
	p.meter.Ended(seconds(latency), false)
	p.ended(latency)
}

// end finishes the work that ended within the span, and adds up its cost.
func (p *pool) end(until float64) {
	var available float64
	for _, e := range p.members {
		available += max(0, until-max(e.ready, p.now))
		if e.busy && e.free <= until {
			p.finish(e)
		}
	}
	p.cost += float64(len(p.members)) * (until - p.now)
	p.draining = slices.DeleteFunc(p.draining, func(e *executor) bool {
		lasted := min(e.free, until) - p.now
		p.cost += lasted
		available += lasted
		if e.free > until {
			return false
		}
		p.finish(e)
		return true
	})
	p.meter.Worked(seconds(p.worked), seconds(available))
	p.worked, p.now = 0, until
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// source makes the work of a trace, in order.
type source struct {
	trace *Trace
	r     *rand.Rand
	equal bool // every piece of a row is the same work

	row    int
	left   int     // pieces of the row still to come
	at     float64 // the latest arrival
	ahead  work    // made, but not yet due
	ready  bool    // ahead is set
	length float64 // of a row, seconds
}

func newSource(t *Trace, seed uint64, equal bool) *source {
	return &source{trace: t, r: random(seed, 2), equal: equal, row: -1, length: t.Interval.Seconds()}
}

// next returns the next piece of work, if it arrives before then.
func (s *source) next(until float64) (work, bool) {
	if !s.ready && !s.make() {
		return work{}, false
	}
	if s.ahead.arrived >= until {
		return work{}, false
	}
	s.ready = false
	return s.ahead, true
}

func (s *source) make() bool {
	for s.left == 0 {
		if s.row++; s.row >= len(s.trace.Rows) {
			s.row = len(s.trace.Rows)
			return false
		}
		s.left, s.at = s.trace.Rows[s.row].Arrivals, float64(s.row)*s.length
	}
	// The first of n moments, evenly distributed over the rest of the row.
	end := float64(s.row+1) * s.length
	s.at = end - (end-s.at)*math.Pow(1-s.r.Float64(), 1/float64(s.left))
	s.left--
	service := s.trace.Rows[s.row].Service
	if !s.equal {
		service *= s.r.ExpFloat64()
	}
	s.ahead, s.ready = work{arrived: s.at, service: service}, true
	return true
}
