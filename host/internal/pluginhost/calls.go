package pluginhost

import (
	"time"

	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
)

// A batch is cut at this many steps or bytes: putting more into one message gains
// nothing, and makes the first step in it wait for the last.
const (
	maxBatchSteps = 256
	maxBatchBytes = 256 << 10
)

// calls is the state of one Work stream: what waits to be sent and what is in flight. It
// has no lock and no goroutine; [stream] provides both.
//
// A call id consists of the number of the call's place and a counter, so an answer finds
// its call without a map, and an answer to a call that has ended finds nothing.
type calls struct {
	window int // places that may be taken

	queue []queued // waiting, oldest first
	head  int      // index of the first in queue

	places  []place
	free    []uint32 // numbers of free places
	counter uint64
	timed   int // places with a deadline
	hung    int // places whose call was given up

	cancels []*pluginv1.Cancel // to be sent
}

type queued struct {
	call Call
	size int // approximate bytes on the wire
}

type place struct {
	id        uint64 // 0: free
	call      Call
	deadline  time.Time // zero: none
	cancelled cancellation
	hung      bool // the call has ended here, but not in the plugin
}

// cancellation says why a call was cancelled; the zero value means it was not.
type cancellation struct {
	code   string // of the released call
	reason string
}

const placeBits = 24

func (c *calls) add(call Call, size int) { c.queue = append(c.queue, queued{call, size}) }

func (c *calls) waiting() int { return len(c.queue) - c.head }

// taken counts the places in use, those of hung calls included.
func (c *calls) taken() int { return len(c.places) - len(c.free) }

// batch moves waiting calls into free places and returns what to send, or nil if there is
// nothing. A call's timeout, to which grace is added, runs from now on.
func (c *calls) batch(now time.Time, grace time.Duration) *pluginv1.WorkRequest {
	n, size := 0, 0
	for limit := min(c.waiting(), c.window-c.taken(), maxBatchSteps); n < limit; n++ {
		if size += c.queue[c.head+n].size; n > 0 && size > maxBatchBytes {
			break
		}
	}
	if n <= 0 && len(c.cancels) == 0 {
		return nil
	}
	request := &pluginv1.WorkRequest{Cancels: c.cancels}
	c.cancels = nil
	if n > 0 {
		request.Steps = make([]*pluginv1.Step, n)
		for i := range n {
			q := &c.queue[c.head]
			request.Steps[i] = c.send(q.call, now, grace)
			*q = queued{}
			c.head++
		}
		c.compact()
	}
	return request
}

// compact releases the memory before head, at a cost that does not depend on how much is
// waiting.
func (c *calls) compact() {
	switch {
	case c.head == len(c.queue):
		c.queue, c.head = c.queue[:0], 0
	case c.head > 1024 && c.head > len(c.queue)/2:
		n := copy(c.queue, c.queue[c.head:])
		clear(c.queue[n:])
		c.queue, c.head = c.queue[:n], 0
	}
}

// send puts a call into a place.
func (c *calls) send(call Call, now time.Time, grace time.Duration) *pluginv1.Step {
	var n uint32
	if last := len(c.free) - 1; last >= 0 {
		n, c.free = c.free[last], c.free[:last]
	} else {
		n = uint32(len(c.places)) // bounded by the window
		c.places = append(c.places, place{})
	}
	c.counter++
	p := &c.places[n]
	p.id, p.call = c.counter<<placeBits|uint64(n), call
	if ms := call.Step.GetTimeoutMs(); ms > 0 {
		p.deadline = now.Add(time.Duration(ms)*time.Millisecond + grace)
		c.timed++
	}
	call.Step.CallId, call.Step.Handler = p.id, call.Handler
	return call.Step
}

// settle ends the call that an answer belongs to and frees its place. ok is false if
// there is none; the place is marked hung if the call had been given up. The place is
// valid until the next method call.
func (c *calls) settle(id uint64) (settled place, ok bool) {
	n := id & (1<<placeBits - 1)
	if id == 0 || n >= uint64(len(c.places)) || c.places[n].id != id {
		return place{}, false
	}
	p := &c.places[n]
	settled = *p
	if !p.deadline.IsZero() {
		c.timed--
	}
	if p.hung {
		c.hung--
	}
	*p = place{}
	c.free = append(c.free, uint32(n))
	return settled, true
}

// progress returns the function to call with the progress of a call in flight; nil if
// nobody wants it.
func (c *calls) progress(id uint64) func(Progress) {
	n := id & (1<<placeBits - 1)
	if id == 0 || n >= uint64(len(c.places)) || c.places[n].id != id {
		return nil
	}
	return c.places[n].call.Progress
}

// expire gives up the calls whose deadline has passed. Their places stay taken: the
// plugin may still be working on them.
func (c *calls) expire(now time.Time) (expired []place) {
	if c.timed == 0 {
		return nil
	}
	for i := range c.places {
		p := &c.places[i]
		if p.id == 0 || p.deadline.IsZero() || now.Before(p.deadline) {
			continue
		}
		expired = append(expired, *p)
		if p.cancelled.code == "" {
			c.cancels = append(c.cancels, &pluginv1.Cancel{CallId: p.id, Reason: "timeout"})
		}
		p.call, p.deadline, p.hung = Call{}, time.Time{}, true
		c.timed--
		c.hung++
	}
	return expired
}

// cancel ends a step's calls: those that wait are returned; those in flight are told, and
// have until the deadline to answer.
func (c *calls) cancel(step, reason string, deadline time.Time) (waiting []Call) {
	kept := c.queue[c.head:c.head]
	for _, q := range c.queue[c.head:] {
		if q.call.Step.GetStepUuid() == step {
			waiting = append(waiting, q.call)
		} else {
			kept = append(kept, q)
		}
	}
	clear(c.queue[c.head+len(kept):])
	c.queue = c.queue[:c.head+len(kept)]
	for i := range c.places {
		p := &c.places[i]
		if p.id != 0 && p.call.Step.GetStepUuid() == step {
			c.cancelPlace(p, cancellation{ReasonCancelled, reason}, deadline)
		}
	}
	return waiting
}

// cancelAll ends all calls in flight, which have until the deadline to answer.
func (c *calls) cancelAll(code, reason string, deadline time.Time) {
	for i := range c.places {
		c.cancelPlace(&c.places[i], cancellation{code, reason}, deadline)
	}
}

func (c *calls) cancelPlace(p *place, why cancellation, deadline time.Time) {
	if p.id == 0 || p.hung || p.cancelled.code != "" {
		return
	}
	p.cancelled = why
	c.cancels = append(c.cancels, &pluginv1.Cancel{CallId: p.id, Reason: why.reason})
	if p.deadline.IsZero() {
		c.timed++
	}
	if p.deadline.IsZero() || deadline.Before(p.deadline) {
		p.deadline = deadline
	}
}

// reclaim removes and returns the calls that wait.
func (c *calls) reclaim() []Call {
	all := make([]Call, 0, c.waiting())
	for _, q := range c.queue[c.head:] {
		all = append(all, q.call)
	}
	clear(c.queue)
	c.queue, c.head = c.queue[:0], 0
	return all
}

// abandon returns all calls that have not ended and forgets everything.
func (c *calls) abandon() []Call {
	all := make([]Call, 0, c.waiting()+c.taken())
	for _, q := range c.queue[c.head:] {
		all = append(all, q.call)
	}
	for i := range c.places {
		if p := &c.places[i]; p.id != 0 && !p.hung {
			all = append(all, p.call)
		}
	}
	*c = calls{}
	return all
}
