package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/tasker-systems/tasker-host/host/internal/store"
)

// Bounds of the line of tasks waiting to be created. Contexts are the user's and may be
// large, so bytes are bounded as well as the number of tasks.
const (
	waitingBatches = 20 // of the step enqueuer: beyond that, single submissions are refused
	bulkBatches    = 2  // bulk submissions wait once this many are in the line, and leave the rest of it to others
	waitingBytes   = 64 << 20
	batchBytes     = 8 << 20 // of one statement
	requestBytes   = 1 << 10 // per request, in addition to what its client sent
)

// ErrBusy is returned for a submission that did not get its turn: tasks arrive faster
// than the database takes them, or it takes none at all. Nothing was created.
var ErrBusy = errors.New("tasks arrive faster than the database can create them")

// ErrUncertain is returned for a submission whose database call got no answer. The task
// may have been created, or may still be.
var ErrUncertain = errors.New("the database did not answer; the task may have been created")

// request is a task on its way into the database.
type request struct {
	store.NewTask
	namespace string
	done      chan created // receives exactly once, unless its submitter has left
	state     atomic.Int32
}

// The states of a request. Its submitter may leave while it waits, and then it is not
// created; once it is being sent, nobody can say that it will not be.
const (
	requestWaiting int32 = iota
	requestSending
	requestLeft
)

type created struct {
	store.Created
	err error
}

func newRequest(namespace string, t store.NewTask) *request {
	return &request{NewTask: t, namespace: namespace, done: make(chan created, 1)}
}

func (r *request) size() int { return requestBytes + len(r.Context) + len(r.Attributes) }

// hold reports whether the request is to be sent; its submitter can no longer leave then.
func (r *request) hold() bool {
	return r.state.CompareAndSwap(requestWaiting, requestSending) || r.state.Load() == requestSending
}

// release lets the submitter leave again: what was sent was rolled back.
func (r *request) release() { r.state.CompareAndSwap(requestSending, requestWaiting) }

// leave gives the request up, and reports whether it is certain that it will not be
// created.
func (r *request) leave() bool { return r.state.CompareAndSwap(requestWaiting, requestLeft) }

// intake is the line of tasks waiting to be created, oldest first. It is bounded, so that
// a slow or unreachable database is felt by the submitters rather than by the host's
// memory.
type intake struct {
	*line
	items []*request
	left  int           // minimum number of items whose submitters have left
	room  chan struct{} // closed and replaced when there is room again
}

func newIntake(l *line) *intake {
	return &intake{line: l, room: make(chan struct{})}
}

// offer appends a task unless the line already has most tasks, or they would exceed the
// given bytes. A single task always fits. If the task is not appended, room is closed
// when there may be room.
func (q *intake) offer(r *request, most, bytes int) (room <-chan struct{}, ok bool) {
	q.Lock()
	defer q.Unlock()
	full := func() bool {
		n := len(q.items)
		return n > 0 && (n >= most || q.bytes+r.size() > bytes)
	}
	if q.left > 0 && full() {
		q.sweep()
	}
	if full() {
		return q.room, false
	}
	q.items = append(q.items, r)
	q.bytes += r.size()
	q.waits(len(q.items))
	return nil, true
}

// forget gives up a task that may be in the line, and reports whether it is certain that
// it will not be created.
func (q *intake) forget(r *request) bool {
	if !r.leave() {
		return false
	}
	q.Lock()
	defer q.Unlock()
	q.left++
	return true
}

// sweep removes the tasks whose submitters have left. The caller holds the lock.
func (q *intake) sweep() {
	q.left = 0
	q.items = slices.DeleteFunc(q.items, func(r *request) bool {
		gone := r.state.Load() == requestLeft
		if gone {
			q.bytes -= r.size()
		}
		return gone
	})
}

// take removes and returns up to n tasks whose submitters are still waiting, as many as
// fit into one statement, or none if there are too few for another batch beside those in
// progress. The caller must call done once they are created.
func (q *intake) take(n int) []*request {
	q.Lock()
	defer q.Unlock()
	if !q.begin() {
		return nil
	}
	var batch []*request
	size, taken := 0, 0
	for _, r := range q.items {
		if r.state.Load() != requestLeft {
			if len(batch) == n || len(batch) > 0 && size+r.size() > batchBytes {
				break
			}
			batch = append(batch, r)
			size += r.size()
		}
		q.bytes -= r.size()
		taken++
	}
	rest := copy(q.items, q.items[taken:])
	clear(q.items[rest:])
	q.items = q.items[:rest]
	if taken > 0 {
		close(q.room)
		q.room = make(chan struct{})
	}
	q.waits(rest)
	if len(batch) == 0 {
		q.end()
	}
	return batch
}

// done reports that a batch has been created, or refused.
func (q *intake) done() {
	q.Lock()
	defer q.Unlock()
	q.end()
}

// len returns the number of waiting tasks.
func (q *intake) len() int {
	q.Lock()
	defer q.Unlock()
	return len(q.items)
}

// queueOne puts a task into the line, or refuses it if the line is full.
func (e *Engine) queueOne(r *request) error {
	if e.accept.Err() != nil {
		return ErrDraining
	}
	if _, ok := e.requests.offer(r, waitingBatches*e.creators.Pace().Batch, waitingBytes); !ok {
		e.metrics.submissionsRefused.Inc()
		return ErrBusy
	}
	return nil
}

// queueMany puts one of many tasks into the line, waiting for room as long as ctx allows.
// It leaves most of the line to submitters of single tasks.
func (e *Engine) queueMany(ctx context.Context, r *request) error {
	for {
		if e.accept.Err() != nil {
			return ErrDraining
		}
		room, ok := e.requests.offer(r, bulkBatches*e.creators.Pace().Batch, waitingBytes/2)
		if ok {
			return nil
		}
		select {
		case <-room:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrBusy, context.Cause(ctx))
		case <-e.accept.Done():
		}
	}
}

// await waits until a task is durable or refused.
func (e *Engine) await(ctx context.Context, r *request) (Submitted, error) {
	select {
	case c := <-r.done:
		return c.answer()
	case <-ctx.Done():
		if e.requests.forget(r) {
			return Submitted{}, fmt.Errorf("submit task: %w: %w", ErrBusy, context.Cause(ctx))
		}
	case <-e.work.Done():
		if e.requests.forget(r) {
			return Submitted{}, ErrDraining
		}
	}
	select { // it was already being sent
	case c := <-r.done:
		return c.answer()
	case <-ctx.Done():
		select {
		case c := <-r.done:
			return c.answer()
		default:
			return Submitted{}, fmt.Errorf("submit task: %w: %w", ErrUncertain, context.Cause(ctx))
		}
	}
}

func (c created) answer() (Submitted, error) {
	switch {
	case c.err != nil:
		return Submitted{}, c.err
	case c.Outcome == store.CreateConflict:
		return Submitted{}, &KeyReusedError{c.UUID}
	case c.Outcome == store.CreateExists:
		return Submitted{}, &DuplicateError{c.UUID}
	default:
		return Submitted{Task: c.UUID, Created: c.Outcome == store.CreateDone}, nil
	}
}
