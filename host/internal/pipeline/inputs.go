package pipeline

import (
	"container/list"
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// inputs caches what steps need to run: contexts of tasks and results of settled steps.
// Neither ever changes, so a copy is as good as the row. The exception is a step that an
// operator has run again: its lease has a generation above 0 and bypasses the cache. When
// the cache exceeds its size, the least recently used tasks are removed.
type inputs struct {
	store reader
	limit int // bytes

	mu    sync.Mutex
	bytes int
	order *list.List // of *taskInputs, most recently used first
	tasks map[vocab.UUID]*list.Element
}

type reader interface {
	StepInputs(ctx context.Context, contexts []vocab.UUID, results []store.StepKey) (store.Inputs, error)
}

type taskInputs struct {
	task    vocab.UUID
	bytes   int
	context json.RawMessage
	trace   string // empty: the task is not followed
	results map[int32]json.RawMessage
}

func newInputs(r reader, limit int) *inputs {
	return &inputs{store: r, limit: limit, order: list.New(), tasks: map[vocab.UUID]*list.Element{}}
}

// keepContext stores the context of a task this host has just created.
func (c *inputs) keepContext(task vocab.UUID, raw json.RawMessage, trace string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.entry(task)
	if t.context == nil {
		t.context, t.trace = raw, trace
		c.grow(t, len(raw))
	}
}

// keepResult stores the result of a step whose task is in the cache.
func (c *inputs) keepResult(key store.StepKey, raw json.RawMessage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.tasks[key.Task]; ok {
		c.put(e.Value.(*taskInputs), key.Number, raw)
	}
}

// forget drops a finished task.
func (c *inputs) forget(task vocab.UUID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.tasks[task]; ok {
		c.drop(e)
	}
}

func (c *inputs) entry(task vocab.UUID) *taskInputs {
	if e, ok := c.tasks[task]; ok {
		c.order.MoveToFront(e)
		return e.Value.(*taskInputs)
	}
	t := &taskInputs{task: task}
	c.tasks[task] = c.order.PushFront(t)
	c.grow(t, entryOverhead)
	return t
}

// entryOverhead is the approximate size of an entry without its values, in bytes.
const entryOverhead = 300

func (c *inputs) put(t *taskInputs, number int32, raw json.RawMessage) {
	if _, have := t.results[number]; have {
		return
	}
	if t.results == nil {
		t.results = make(map[int32]json.RawMessage)
	}
	t.results[number] = raw
	c.grow(t, len(raw)+50)
}

func (c *inputs) grow(t *taskInputs, n int) {
	t.bytes += n
	c.bytes += n
	for c.bytes > c.limit && c.order.Len() > 1 {
		c.drop(c.order.Back())
	}
}

func (c *inputs) drop(e *list.Element) {
	t := c.order.Remove(e).(*taskInputs)
	delete(c.tasks, t.task)
	c.bytes -= t.bytes
}

// values are the inputs of one attempt.
type values struct {
	context json.RawMessage
	trace   string
	results []json.RawMessage // of the step's ancestors, in the order of ancestors
}

// size returns their approximate size in bytes.
func (v values) size() int {
	n := len(v.context) + len(v.trace)
	for _, r := range v.results {
		n += len(r)
	}
	return n
}

// cached returns the inputs of an attempt if all of them are in the cache.
func (c *inputs) cached(a *attempt, ancestors []int32) (values, bool) {
	if a.Generation > 0 {
		return values{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.tasks[a.Task]
	if !ok {
		return values{}, false
	}
	t := e.Value.(*taskInputs)
	if t.context == nil {
		return values{}, false
	}
	v := values{context: t.context, trace: t.trace, results: make([]json.RawMessage, len(ancestors))}
	for i, n := range ancestors {
		if v.results[i], ok = t.results[n]; !ok {
			return values{}, false
		}
	}
	c.order.MoveToFront(e)
	return v, true
}

// load reads the inputs of attempts from the database and caches them. The answers are in
// the order of the attempts; a missing context or result is nil.
func (c *inputs) load(ctx context.Context, attempts []*attempt, ancestors func(*attempt) []int32) ([]values, error) {
	var contexts []vocab.UUID
	var results []store.StepKey
	seen := make(map[store.StepKey]bool)
	for _, a := range attempts {
		if key := store.ContextOf(a.Task); !seen[key] {
			seen[key] = true
			contexts = append(contexts, a.Task)
		}
		for _, n := range ancestors(a) {
			if key := (store.StepKey{Task: a.Task, Number: n}); !seen[key] {
				seen[key] = true
				results = append(results, key)
			}
		}
	}
	found, err := c.store.StepInputs(ctx, contexts, results)
	if err != nil {
		return nil, fmt.Errorf("load inputs of %d steps: %w", len(attempts), err)
	}
	all := make([]values, len(attempts))
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, a := range attempts {
		v := values{context: found[store.ContextOf(a.Task)], trace: traceOf(found[store.TraceOf(a.Task)])}
		var t *taskInputs
		if a.Generation == 0 && v.context != nil {
			if t = c.entry(a.Task); t.context == nil {
				t.context, t.trace = v.context, v.trace
				c.grow(t, len(v.context))
			}
		}
		for _, n := range ancestors(a) {
			raw := found[store.StepKey{Task: a.Task, Number: n}]
			v.results = append(v.results, raw)
			if t != nil && raw != nil {
				c.put(t, n, raw)
			}
		}
		all[i] = v
	}
	return all, nil
}

// traceOf parses a stored trace; an invalid one yields none.
func traceOf(raw json.RawMessage) (trace string) {
	if len(raw) > 0 && json.Unmarshal(raw, &trace) != nil {
		return ""
	}
	return trace
}
