package pipeline

import (
	"sync"

	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// hub tells those who wait for a task when this host has seen it end. It is only a hint:
// other hosts end tasks too.
type hub struct {
	mu      sync.Mutex
	waiting map[vocab.UUID][]chan vocab.TaskState
	all     map[int]func(vocab.UUID, vocab.TaskState)
	next    int
}

func newHub() *hub {
	return &hub{waiting: map[vocab.UUID][]chan vocab.TaskState{}, all: map[int]func(vocab.UUID, vocab.TaskState){}}
}

// finished tells those who wait for a task its final state.
func (h *hub) finished(task vocab.UUID, state vocab.TaskState) {
	h.mu.Lock()
	waiters := h.waiting[task]
	delete(h.waiting, task)
	for _, f := range h.all {
		f(task, state)
	}
	h.mu.Unlock()
	for _, w := range waiters {
		w <- state
	}
}

// wait returns a channel that receives the final state of the task. The caller calls stop
// when it no longer waits.
func (h *hub) wait(task vocab.UUID) (ended <-chan vocab.TaskState, stop func()) {
	w := make(chan vocab.TaskState, 1)
	h.mu.Lock()
	h.waiting[task] = append(h.waiting[task], w)
	h.mu.Unlock()
	return w, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		list := h.waiting[task]
		for i := range list {
			if list[i] == w {
				list = append(list[:i:i], list[i+1:]...)
				break
			}
		}
		if len(list) == 0 {
			delete(h.waiting, task)
		} else {
			h.waiting[task] = list
		}
	}
}

// Ended returns a channel that receives the task's final state once this host has seen it
// end; call stop when it is no longer needed.
func (e *Engine) Ended(task vocab.UUID) (ended <-chan vocab.TaskState, stop func()) {
	return e.hub.wait(task)
}

// OnFinished calls f for every task this host sees end, until stop is called. f must be
// quick: settling waits for it.
func (e *Engine) OnFinished(f func(vocab.UUID, vocab.TaskState)) (stop func()) {
	h := e.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	id := h.next
	h.next++
	h.all[id] = f
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.all, id)
	}
}
