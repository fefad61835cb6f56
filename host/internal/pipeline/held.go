package pipeline

import (
	"sync"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// attempt is one attempt of a step, under a lease of this host.
type attempt struct {
	store.Lease
	plan *store.Plan
}

func (a *attempt) handlerID() int32 { return a.plan.HandlerIDs[a.Number] }

// held is what the host works under: every lease from the moment a reply
// brought it until its outcome is recorded or refused.
type held struct {
	mu    sync.Mutex
	steps map[store.StepKey]*attempt
	idle  []chan struct{} // to be closed when the last one goes
}

func newHeld() *held { return &held{steps: map[store.StepKey]*attempt{}} }

func (h *held) add(attempts []*attempt) {
	h.mu.Lock()
	for _, a := range attempts {
		h.steps[a.StepKey] = a
	}
	h.mu.Unlock()
}

// remove forgets the attempt, unless a newer one of the same step has taken its
// place.
func (h *held) remove(a *attempt) {
	h.mu.Lock()
	if h.steps[a.StepKey] == a {
		delete(h.steps, a.StepKey)
	}
	if len(h.steps) == 0 {
		for _, idle := range h.idle {
			close(idle)
		}
		h.idle = nil
	}
	h.mu.Unlock()
}

// find returns the attempt under that lease, or nil.
func (h *held) find(key store.StepKey, lease vocab.UUID) *attempt {
	h.mu.Lock()
	defer h.mu.Unlock()
	if a := h.steps[key]; a != nil && a.ID == lease {
		return a
	}
	return nil
}

// ofTask returns the attempts of a task.
func (h *held) ofTask(task vocab.UUID) []*attempt {
	h.mu.Lock()
	defer h.mu.Unlock()
	var found []*attempt
	for k, a := range h.steps {
		if k.Task == task {
			found = append(found, a)
		}
	}
	return found
}

// all returns every attempt.
func (h *held) all() []*attempt {
	h.mu.Lock()
	defer h.mu.Unlock()
	found := make([]*attempt, 0, len(h.steps))
	for _, a := range h.steps {
		found = append(found, a)
	}
	return found
}

func (h *held) len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.steps)
}

// empty returns a channel that is closed once nothing is held.
func (h *held) empty() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	idle := make(chan struct{})
	if len(h.steps) == 0 {
		close(idle)
	} else {
		h.idle = append(h.idle, idle)
	}
	return idle
}
