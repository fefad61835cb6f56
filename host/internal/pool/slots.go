package pool

import (
	"sync"
	"time"

	"github.com/tasker-systems/tasker-host/scaling"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// Job is a piece of work that needs a slot. Its fields belong to the Slots it was given
// to.
type Job struct {
	task  Task
	since time.Time // when it came
	state jobState
}

type jobState int8

const (
	jobNew jobState = iota
	jobWaits
	jobRuns
	jobDropped
)

// Task is the work of a job.
type Task interface {
	// Run begins the work and must not block. When the work has ended, [Slots.Leave] must
	// be called, from any goroutine, even from within Run.
	Run()
	// Back is called instead of Run if the work does not begin because the slots were
	// paused, or the job was dropped.
	Back(reason string)
}

// NewJob returns a job for a task.
func NewJob(t Task) *Job { return &Job{task: t} }

// Slots limits how many jobs run at once. It is safe for concurrent use.
type Slots struct {
	now func() time.Time

	mu      sync.Mutex // guards the fields below
	size    int
	running int
	paused  bool
	waiting queue
	dropped int  // of those still in the queue
	pumping bool // a goroutine is starting waiting jobs
	meter   *scaling.Meter
	counted time.Time // the meter includes the time worked until then
}

// NewSlots returns the given number of slots.
func NewSlots(size int, now func() time.Time) *Slots {
	at := now()
	return &Slots{now: now, size: size, meter: scaling.NewMeter(at), counted: at}
}

// Enter runs a job as soon as a slot is free: at once, on the caller's goroutine, if one
// is.
func (s *Slots) Enter(j *Job) {
	s.mu.Lock()
	s.count()
	j.since = s.counted
	s.meter.Arrived(1)
	switch {
	case s.paused:
		j.state = jobDropped
		s.mu.Unlock()
		j.task.Back(ReasonPaused)
	case s.running < s.size && s.waiting.len() == 0:
		j.state = jobRuns
		s.running++
		s.mu.Unlock()
		j.task.Run()
	default: // whoever frees a slot while something waits starts it
		j.state = jobWaits
		s.waiting.push(j)
		s.mu.Unlock()
	}
}

// ReasonPaused is the reason with which paused slots return a job.
const ReasonPaused = "pool_paused"

// Leave notes that the work of a job has ended. It does nothing for a job that did not
// run, since that has no slot to leave.
func (s *Slots) Leave(j *Job, failed bool) {
	s.mu.Lock()
	if j.state != jobRuns {
		s.mu.Unlock()
		return
	}
	j.state = jobDropped
	s.count()
	s.running--
	s.meter.Ended(s.counted.Sub(j.since), failed)
	more := s.waiting.len() > 0
	s.mu.Unlock()
	if more {
		s.pump()
	}
}

// Drop takes back a job that is still waiting, and calls its Back. It returns false if
// the job runs, or has ended.
func (s *Slots) Drop(j *Job, reason string) bool {
	s.mu.Lock()
	if j.state != jobWaits {
		s.mu.Unlock()
		return false
	}
	j.state = jobDropped
	s.dropped++
	s.mu.Unlock()
	j.task.Back(reason)
	return true
}

// Resize changes how many jobs may run at once. Running jobs beyond that end as usual.
func (s *Slots) Resize(n int) {
	s.mu.Lock()
	s.count()
	s.size = n
	s.mu.Unlock()
	s.pump()
}

// Pause stops starting jobs and gives back those that wait, while running ones end as
// usual; or lets jobs run again.
func (s *Slots) Pause(pause bool) {
	s.mu.Lock()
	s.count()
	s.paused = pause
	var back []*Job
	for pause && s.waiting.len() > 0 {
		if j := s.waiting.pop(); j.state == jobWaits {
			j.state = jobDropped
			back = append(back, j)
		}
	}
	if pause {
		s.dropped = 0
	}
	s.mu.Unlock()
	for _, j := range back {
		j.task.Back(ReasonPaused)
	}
}

// pump starts waiting jobs, as far as there are slots. Only one goroutine does so at a
// time, and notices what the others have freed, so that a run that ends at once does not
// nest.
func (s *Slots) pump() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pumping {
		return
	}
	s.pumping = true
	for s.running < s.size && !s.paused && s.waiting.len() > 0 {
		j := s.waiting.pop()
		if j.state != jobWaits {
			s.dropped--
			continue
		}
		s.count()
		j.state = jobRuns
		s.running++
		s.mu.Unlock()
		j.task.Run()
		s.mu.Lock()
	}
	s.pumping = false
}

// count adds the time since the last count to the meter. The caller holds the
// lock.
func (s *Slots) count() {
	now := s.now()
	if past := now.Sub(s.counted); past > 0 {
		there := max(s.size, s.running)
		if s.paused {
			there = s.running
		}
		s.meter.Worked(past*time.Duration(s.running), past*time.Duration(there))
		s.counted = now
	}
}

// State is the visible state of a pool.
type State struct {
	Size    int // as it was set
	Running int // executors at work; more than Size while the pool shrinks
	Waiting int // pieces of work that the host holds and that wait for an executor
	Paused  bool
	// Lost counts executors that are stuck in a turn and were replaced, Restarts all that
	// ever were.
	Lost, Restarts int
}

// Current returns how many executors there are, including those about to go.
func (s State) Current() int { return max(s.Size, s.Running) }

// State returns what the slots are doing.
func (s *Slots) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return State{Size: s.size, Running: s.running, Waiting: s.waiting.len() - s.dropped, Paused: s.paused}
}

// Cut returns what happened since the last cut. elsewhere is the ready work that no host
// has taken, oldest how long the oldest of it has waited.
func (s *Slots) Cut(elsewhere int64, oldest time.Duration) (scaler.Sample, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count()
	for first := s.waiting.first(); first != nil; first = s.waiting.first() {
		if first.state == jobWaits {
			oldest = max(oldest, s.counted.Sub(first.since))
			break
		}
		s.waiting.pop()
		s.dropped--
	}
	return s.meter.Cut(s.counted, max(s.size, s.running), elsewhere+int64(s.waiting.len()-s.dropped), oldest)
}

// queue is a first-in first-out queue that reuses its memory.
type queue struct {
	items []*Job
	head  int
}

func (q *queue) len() int { return len(q.items) - q.head }

func (q *queue) push(j *Job) {
	if q.head > 64 && 2*q.head > len(q.items) {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, j)
}

func (q *queue) pop() *Job {
	j := q.items[q.head]
	q.items[q.head] = nil
	q.head++
	return j
}

// first returns the job at the head of the queue; nil: there is none.
func (q *queue) first() *Job {
	if q.len() == 0 {
		return nil
	}
	return q.items[q.head]
}
