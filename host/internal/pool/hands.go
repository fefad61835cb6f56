package pool

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/tasker-systems/tasker-host/scaling"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// Executor takes turns at some work. Its methods are not called concurrently.
type Executor interface {
	// Wait waits until there may be work, and reports whether there may be. It returns
	// false if there will be no more, or ctx has ended. After true a turn always follows,
	// so what Wait has received for it is not lost.
	Wait(ctx context.Context) bool
	// Turn does the available work.
	Turn() Turned
	// Leave is called once, after the last turn: the others now take over any work that
	// only this executor knows of.
	Leave()
}

// Turned is the result of a turn.
type Turned struct {
	Items  int // pieces of work that ended, including errors
	Failed int // those that ended in an error
}

// Work defines what a pool of hands does.
type Work struct {
	New     func(p *Hands) Executor // returns a new executor of the pool
	Waiting func() int              // pieces of work waiting in this host; nil: none ever does
	Sign    func() time.Time        // when what turns wait for last gave a sign of life: their limit counts from then at the earliest; nil: it gives none
	Called  func() time.Time        // since when resting executors should have begun waiting work; zero: there is none; nil: they cannot miss any
	Tuned   func()                  // called when the pace has changed; nil: nobody is told
}

// Pace defines how the executors of a pool take their turns. What does not apply to a
// pool is zero.
type Pace struct {
	Batch       int           // maximum pieces of work per turn
	PollMin     time.Duration // initial rest between two looks for work; it doubles
	PollMax     time.Duration // longest rest; 0: nobody looks, work wakes them
	TurnTimeout time.Duration // an executor is stuck if its turn takes longer, or its rest exceeds this plus PollMax while work is waiting
	StopTimeout time.Duration // how long a stop waits for turns to end
}

// Hands is a pool of goroutines, each with an executor. It is safe for concurrent use.
type Hands struct {
	work Work
	now  func() time.Time

	mu       sync.Mutex // guards the fields below
	target   int
	pace     Pace
	paused   bool
	started  bool
	stopped  bool
	hands    map[*hand]struct{} // running ones, including those told to go
	restarts int
	busy     int
	meter    *scaling.Meter
	counted  time.Time
	lastWait int // what waited in this host at the last cut

	running sync.WaitGroup
}

// hand is one goroutine. Its fields are guarded by Hands.mu, except go.
type hand struct {
	dismiss context.CancelFunc
	leaves  bool      // it goes after its turn
	lost    bool      // it is stuck and was replaced
	since   time.Time // when its turn, or its rest, began
	busy    bool
}

// NewHands returns a pool that has no executors until it is started.
func NewHands(size int, pace Pace, work Work, now func() time.Time) *Hands {
	at := now()
	return &Hands{work: work, now: now, target: size, pace: pace, hands: map[*hand]struct{}{}, meter: scaling.NewMeter(at), counted: at}
}

// Start starts the executors.
func (p *Hands) Start() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.started = true
	p.fit()
}

// Stop tells all executors to go after their turn and waits for them until ctx or the
// pace's StopTimeout ends; then it returns an error that says how many are left.
func (p *Hands) Stop(ctx context.Context) error {
	p.mu.Lock()
	p.stopped = true
	p.fit()
	ctx, cancel := context.WithTimeout(ctx, p.pace.StopTimeout)
	p.mu.Unlock()
	defer cancel()
	gone := make(chan struct{})
	go func() { p.running.Wait(); close(gone) }()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		p.mu.Lock()
		defer p.mu.Unlock()
		return fmt.Errorf("stop executors: %d have not ended their turn: %w", len(p.hands), ctx.Err())
	}
}

// Resize changes the number of executors. Surplus ones go after their turn; nobody waits
// for them.
func (p *Hands) Resize(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count()
	p.target = n
	p.fit()
}

// Pace returns the pace in force.
func (p *Hands) Pace() Pace {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pace
}

// Tune puts another pace in force; turns in progress end under the previous one.
func (p *Hands) Tune(pace Pace) {
	p.mu.Lock()
	changed := pace != p.pace
	p.pace = pace
	p.mu.Unlock()
	if changed && p.work.Tuned != nil {
		p.work.Tuned()
	}
}

// Pause makes all executors go after their turn, or brings them back.
func (p *Hands) Pause(pause bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count()
	p.paused = pause
	p.fit()
}

// fit hires and dismisses executors. The caller holds the lock.
func (p *Hands) fit() {
	want := p.target
	if !p.started || p.stopped || p.paused {
		want = 0
	}
	have := 0
	for h := range p.hands {
		if !h.leaves && !h.lost {
			have++
		}
	}
	for ; have < want; have++ {
		p.hire()
	}
	for _, busy := range []bool{false, true} { // those at rest first
		for h := range p.hands {
			if have > want && !h.leaves && !h.lost && h.busy == busy {
				h.leaves = true
				h.dismiss()
				have--
			}
		}
	}
}

// hire starts one more executor. The caller holds the lock.
func (p *Hands) hire() {
	ctx, dismiss := context.WithCancel(context.Background())
	h := &hand{dismiss: dismiss, since: p.now()}
	p.hands[h] = struct{}{}
	executor := p.work.New(p)
	p.running.Go(func() {
		defer p.bye(h)
		defer executor.Leave()
		for executor.Wait(ctx) {
			p.begin(h)
			p.end(h, executor.Turn())
			if ctx.Err() != nil {
				return
			}
		}
	})
}

func (p *Hands) begin(h *hand) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count()
	p.busy++
	h.busy, h.since = true, p.counted
}

func (p *Hands) end(h *hand, done Turned) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count()
	took := p.counted.Sub(h.since)
	for i := range done.Items {
		p.meter.Ended(took, i < done.Failed)
	}
	p.rest(h)
	h.since = p.counted
}

// rest ends the turn of a hand. The caller holds the lock.
func (p *Hands) rest(h *hand) {
	if h.busy {
		h.busy = false
		p.busy--
	}
}

// bye removes a hand that has ended, even by a panic: the panic continues and ends the
// process.
func (p *Hands) bye(h *hand) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count()
	p.rest(h)
	h.dismiss()
	delete(p.hands, h)
}

// count adds the time since the last count to the meter. The caller holds the
// lock.
func (p *Hands) count() {
	now := p.now()
	if past := now.Sub(p.counted); past > 0 {
		p.meter.Worked(past*time.Duration(p.busy), past*time.Duration(len(p.hands)))
		p.counted = now
	}
}

// Overdue replaces stuck executors, and returns for each of the others how long the end
// of its turn, or the beginning of the next one, has been overdue; zero: it is not. Where
// it is more than zero, replacing executors does not help.
func (p *Hands) Overdue() []time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count()
	p.supervise()
	all := make([]time.Duration, 0, len(p.hands))
	for h := range p.hands {
		var late time.Duration
		switch {
		case h.lost:
			continue
		case p.overdue(h, p.counted):
			late = p.counted.Sub(h.since)
		}
		all = append(all, late)
	}
	return all
}

func (p *Hands) overdue(h *hand, now time.Time) bool {
	since, limit := h.since, p.pace.TurnTimeout
	later := func(t time.Time) {
		if t.After(since) {
			since = t
		}
	}
	switch {
	case h.busy && p.work.Sign != nil:
		later(p.work.Sign())
	case !h.busy:
		if h.leaves || p.work.Called == nil {
			return false
		}
		called := p.work.Called()
		if called.IsZero() {
			return false
		}
		later(called)
		limit += p.pace.PollMax
	}
	return now.Sub(since) > limit
}

// supervise replaces stuck executors. A lost one goes as soon as its turn ends, if it
// ever does. There are never more lost ones than the pool has executors: what makes all
// of them hang would make their replacements hang too. The caller holds the lock.
func (p *Hands) supervise() {
	lost := 0
	for h := range p.hands {
		if h.lost {
			lost++
		}
	}
	for h := range p.hands {
		if lost < p.target && !h.lost && p.overdue(h, p.counted) {
			h.lost = true
			h.dismiss()
			lost++
			p.restarts++
		}
	}
	p.fit()
}

// State returns what the pool is doing.
func (p *Hands) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := State{Size: p.target, Running: p.busy, Paused: p.paused, Restarts: p.restarts}
	for h := range p.hands {
		if h.lost {
			s.Lost++
		}
	}
	if p.work.Waiting != nil {
		s.Waiting = p.work.Waiting()
	}
	return s
}

// Cut returns what happened since the last cut, and replaces stuck executors. elsewhere
// is the ready work that no host has taken, oldest how long the oldest of it has waited.
func (p *Hands) Cut(elsewhere int64, oldest time.Duration) (scaler.Sample, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count()
	p.supervise()
	waiting := 0
	if p.work.Waiting != nil {
		waiting = p.work.Waiting()
	}
	s, ok := p.meter.Cut(p.counted, len(p.hands), elsewhere+int64(waiting), oldest)
	// What ended, or is newly waiting, has arrived.
	s.Arrivals = max(s.Completions+int64(waiting-p.lastWait), 0)
	p.lastWait = waiting
	return s, ok
}
