package pool

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/tasker-systems/tasker-host/scaling"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// Executor takes turns at some work. Its calls come one after another.
type Executor interface {
	// Wait waits until there may be work, and reports whether there may be. false:
	// there will be none any more, or ctx has ended. After true a turn is taken in
	// any case: what the wait took in for it is not lost.
	Wait(ctx context.Context) bool
	// Turn does what there is.
	Turn() Turned
	// Leave is called once, after the last turn: what this executor alone knows there
	// is to do is others' from then on.
	Leave()
}

// Turned is what a turn has done.
type Turned struct {
	Items  int // pieces of work that ended, errors included
	Failed int // those that ended in an error
}

// Work is what a pool of hands does.
type Work struct {
	New     func(p *Hands) Executor // makes one executor of the pool
	Waiting func() int              // pieces of work that wait in this host; nil: none ever does
	Sign    func() time.Time        // when what turns wait for last gave a sign of life: until then none of them is stuck; nil: it gives none
	Called  func() time.Time        // since when there is work that those at rest should have begun; zero: there is none; nil: they cannot miss any
	Tuned   func()                  // is told that the pace has changed; nil: nobody is
}

// Pace is how the executors of a pool take their turns. What does not apply to a
// pool is zero.
type Pace struct {
	Batch       int           // pieces of work in a turn at most
	PollMin     time.Duration // rest between two looks for work, at first; it doubles
	PollMax     time.Duration // and at most. 0: nobody looks, work wakes them
	TurnTimeout time.Duration // an executor whose turn, or whose rest while work calls beyond PollMax, takes longer is stuck
	StopTimeout time.Duration // how long a stop waits for turns to end
}

// Hands is a pool of goroutines, each with an executor. It is safe for concurrent
// use.
type Hands struct {
	work Work
	now  func() time.Time

	mu       sync.Mutex // guards the following
	target   int
	pace     Pace
	paused   bool
	started  bool
	stopped  bool
	hands    map[*hand]struct{} // that run, those that are told to go included
	restarts int
	busy     int
	meter    *scaling.Meter
	counted  time.Time
	lastWait int // what waited in this host, at the last cut

	running sync.WaitGroup
}

// hand is one goroutine. Its fields are guarded by Hands.mu, but go.
type hand struct {
	dismiss context.CancelFunc
	leaves  bool      // it goes after its turn
	lost    bool      // it is stuck and was replaced
	since   time.Time // its turn, or its rest, began
	busy    bool
}

// NewHands makes a pool that has no executors until it is started.
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

// Stop tells all executors to go after their turn and waits for them until ctx
// or the pace's StopTimeout ends; then it returns an error that says how many are
// left.
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

// Resize changes how many executors there are. Those that are too many go after
// their turn; nobody waits for them.
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

// Tune puts another pace in force; turns that have begun end under the one before.
func (p *Hands) Tune(pace Pace) {
	p.mu.Lock()
	changed := pace != p.pace
	p.pace = pace
	p.mu.Unlock()
	if changed && p.work.Tuned != nil {
		p.work.Tuned()
	}
}

// Pause lets all executors go after their turn, or brings them back.
func (p *Hands) Pause(pause bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count()
	p.paused = pause
	p.fit()
}

// fit hires and dismisses. The caller holds the lock.
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

// hire starts one more. The caller holds the lock.
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

// bye takes a hand out that has ended, by a panic too: that goes on, and ends the
// process, as it did before there were pools.
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

// Overdue replaces executors that are stuck, and returns for how long each of the
// others has been overdue, with the end of a turn or the beginning of the next;
// zero: it is not. More than zero: no replacement helps.
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

// supervise replaces executors that are stuck. One that is lost goes as soon as
// its turn ends, if it ever does. There are never more lost ones than the pool has
// executors: what makes all of them hang would make the next ones hang too. The
// caller holds the lock.
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

// Cut returns what happened since the last cut, and replaces executors that are
// stuck. elsewhere is the work that is ready and that no host has taken, oldest how
// long the oldest of it waits.
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
	// What ended, or waits and did not before, has arrived.
	s.Arrivals = max(s.Completions+int64(waiting-p.lastWait), 0)
	p.lastWait = waiting
	return s, ok
}
