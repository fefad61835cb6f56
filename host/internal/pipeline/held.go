package pipeline

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/trace"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/pool"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// attempt is one attempt of a step, under a lease of this host.
type attempt struct {
	store.Lease
	plan    *store.Plan
	steps   *stepPool                // of its namespace
	service *group                   // the service it was leased for; guarded by capacity; nil: none served its handler when it came
	job     atomic.Pointer[pool.Job] // nil: its inputs are not available yet
	over    atomic.Pointer[string]   // why it is cancelled; nil: it is not
	under   *attempt                 // an older attempt of the same step, which it has replaced in held; guarded by held
	bytes   int                      // of its inputs, while they are in memory

	// For traced tasks; otherwise empty.
	trace string // the task's
	span  trace.Span
}

func (a *attempt) handlerID() int32 { return a.plan.HandlerIDs[a.Number] }

// held is what the host works under: every lease from the moment a reply brought it until
// its outcome is recorded or refused.
type held struct {
	mu      sync.Mutex
	steps   map[store.StepKey]*attempt                   // the latest attempt of each step, with older ones under it; all but one are void
	bare    map[store.Held]struct{}                      // without an attempt: only their outcome is on its way
	reports map[vocab.UUID]map[int32]pluginhost.Progress // of steps that reported progress, by task and number
	news    news                                         // of the reports: what is not written yet
	idle    []chan struct{}                              // closed when the last attempt goes
}

func newHeld() *held {
	return &held{steps: map[store.StepKey]*attempt{}, bare: map[store.Held]struct{}{}, reports: map[vocab.UUID]map[int32]pluginhost.Progress{}, news: newNews()}
}

func (h *held) add(attempts []*attempt) {
	h.mu.Lock()
	for _, a := range attempts {
		h.forget(a.StepKey)
		a.under = h.steps[a.StepKey]
		h.steps[a.StepKey] = a
	}
	h.mu.Unlock()
}

// remove forgets the attempt. If it had replaced another, that one is restored.
func (h *held) remove(a *attempt) {
	h.mu.Lock()
	switch top := h.steps[a.StepKey]; {
	case top != a:
		for ; top != nil; top = top.under {
			if top.under == a {
				top.under = a.under
			}
		}
	case a.under != nil:
		h.forget(a.StepKey)
		h.steps[a.StepKey] = a.under
	default:
		h.forget(a.StepKey)
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

// report notes the progress of an attempt, while it is held.
func (h *held) report(a *attempt, p pluginhost.Progress) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.steps[a.StepKey] != a {
		return
	}
	steps := h.reports[a.Task]
	if steps == nil {
		steps = map[int32]pluginhost.Progress{}
		h.reports[a.Task] = steps
	}
	steps[a.Number] = p
	h.news.add(a.ID, p)
}

// forget drops what the attempt of a held step reported. The caller holds the lock.
func (h *held) forget(step store.StepKey) {
	steps := h.reports[step.Task]
	if _, told := steps[step.Number]; !told {
		return
	}
	delete(steps, step.Number)
	if len(steps) == 0 {
		delete(h.reports, step.Task)
	}
	h.news.end(h.steps[step].ID)
}

// progress returns what the steps of a task reported.
func (h *held) progress(task vocab.UUID) []StepProgress {
	h.mu.Lock()
	defer h.mu.Unlock()
	steps := h.reports[task]
	if len(steps) == 0 {
		return nil
	}
	told := make([]StepProgress, 0, len(steps))
	for number, p := range steps {
		a := h.steps[store.StepKey{Task: task, Number: number}]
		told = append(told, StepProgress{Number: int(number), Step: a.plan.Steps[number].Name, Progress: p})
	}
	slices.SortFunc(told, func(a, b StepProgress) int { return cmp.Compare(a.Number, b.Number) })
	return told
}

// StepProgress is the progress that a running step reports.
type StepProgress struct {
	Number int
	Step   string // its name
	pluginhost.Progress
}

// Progress returns, in order, what those steps of a task that this host runs have
// reported.
func (e *Engine) Progress(task vocab.UUID) []StepProgress { return e.held.progress(task) }

// find returns the attempt under that lease, or nil.
func (h *held) find(key store.StepKey, lease vocab.UUID) *attempt {
	h.mu.Lock()
	defer h.mu.Unlock()
	if a := h.steps[key]; a != nil && a.ID == lease {
		return a
	}
	return nil
}

// keep notes a lease that is worked under without an attempt, until drop.
func (h *held) keep(l store.Held) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bare[l] = struct{}{}
}

// drop notes that the outcome under a lease without an attempt has been recorded or
// refused, or is given up.
func (h *held) drop(l store.Held) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.bare, l)
}

// knows reports whether the host works under a lease, with or without an attempt.
func (h *held) knows(l store.Held) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, bare := h.bare[l]; bare {
		return true
	}
	for a := h.steps[l.StepKey]; a != nil; a = a.under {
		if a.ID == l.Lease {
			return true
		}
	}
	return false
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
