package store

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

func sortByUUID(batch []NewTask) {
	slices.SortFunc(batch, func(a, b NewTask) int { return bytes.Compare(a.UUID[:], b.UUID[:]) })
}

// CompareKeys orders steps by task and number: the order in which rows are locked.
func CompareKeys(a, b StepKey) int {
	if c := bytes.Compare(a.Task[:], b.Task[:]); c != 0 {
		return c
	}
	return cmp.Compare(a.Number, b.Number)
}

// Policy is what settling needs to know from the configuration.
type Policy struct {
	RetryAfterCap time.Duration // the longest wait that a handler may ask for
	ClaimFactor   int           // a step fails after this many claims per allowed attempt
}

// Settle records a batch of outcomes in one transaction. The batch is sorted in place by
// step (a stable sort), and the verdicts are in that order. It should hold only
// successes, or none: a mixed batch may have to be repeated because of a deadlock.
func (s *Store) Settle(ctx context.Context, g Grant, p Policy, batch []Settlement) (Settled, error) {
	slices.SortStableFunc(batch, func(a, b Settlement) int { return CompareKeys(a.StepKey, b.StepKey) })
	a := settleArgs(batch)
	var out Settled
	var got leaseArrays
	var ended finishedArrays
	err := s.timed(ctx, func(db querier) error {
		return db.QueryRow(ctx, sqlSettleSteps, g.Host, g.Room, g.Served,
			a.task, a.step, a.lease, a.outcome, a.generation, a.result, a.metadata, a.failure, a.retryAfter,
			p.RetryAfterCap.Milliseconds(), p.ClaimFactor,
		).Scan(&out.Verdicts, &got.task, &got.step, &got.lease, &got.attempt, &got.plan, &got.generation,
			&ended.task, &ended.state, &out.Due, &out.Enqueued)
	})
	if err != nil {
		return Settled{}, fmt.Errorf("settle %d steps: %w", len(batch), err)
	}
	out.Leases, out.Finished = got.leases(), ended.finished()
	return out, nil
}

type settleArrays struct {
	task       []vocab.UUID
	step       []int32
	lease      []vocab.UUID
	outcome    []string
	generation []*int64
	result     []json.RawMessage // texts; nil is NULL
	metadata   []json.RawMessage
	failure    []json.RawMessage
	retryAfter []int64
}

func settleArgs(batch []Settlement) settleArrays {
	n := len(batch)
	a := settleArrays{
		task: make([]vocab.UUID, n), step: make([]int32, n), lease: make([]vocab.UUID, n), outcome: make([]string, n),
		generation: make([]*int64, n), result: make([]json.RawMessage, n), metadata: make([]json.RawMessage, n), failure: make([]json.RawMessage, n),
		retryAfter: make([]int64, n),
	}
	null := json.RawMessage("null")
	for i := range batch {
		b := &batch[i]
		a.task[i], a.step[i], a.lease[i], a.outcome[i] = b.Task, b.Number, b.Lease, string(b.Outcome)
		if b.Generation != 0 {
			a.generation[i] = &b.Generation
		}
		a.result[i] = something(b.Result)
		if b.Outcome == vocab.OutcomeSuccess && a.result[i] == nil {
			a.result[i] = null
		}
		a.metadata[i], a.failure[i] = something(b.Metadata), something(b.Error)
		a.retryAfter[i] = b.RetryAfter.Milliseconds()
	}
	return a
}

// something returns a value as it goes to the database: nil, which is NULL, if there is
// none.
func something(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 {
		return nil
	}
	return raw
}

func text(raw json.RawMessage) *string {
	if len(raw) == 0 {
		return nil
	}
	t := string(raw)
	return &t
}

type leaseArrays struct {
	task, lease                     []vocab.UUID
	step, attempt, plan, generation []int32
}

func (a *leaseArrays) leases() []Lease {
	leases := make([]Lease, len(a.task))
	for i := range a.task {
		leases[i] = Lease{
			StepKey: StepKey{a.task[i], a.step[i]}, ID: a.lease[i],
			Plan: a.plan[i], Attempt: a.attempt[i], Generation: a.generation[i],
		}
	}
	return leases
}

type finishedArrays struct {
	task  []vocab.UUID
	state []string
}

func (a *finishedArrays) finished() []Finished {
	var finished []Finished
	for i := range a.task {
		finished = append(finished, Finished{a.task[i], vocab.TaskState(a.state[i])})
	}
	return finished
}

// Claimed is the result of a look at a queue.
type Claimed struct {
	Leases []Lease
	Last   int64 // the last message taken; 0: none
	Taken  int   // messages taken, including those without a claimable step
	// Refused says that a gate did not let the call through: it is not known what
	// waits.
	Refused bool
}

// Claim leases up to g.Room steps of a queue whose handlers are served; names holds the
// names of g.Served. It looks only at messages after the given one.
func (s *Store) Claim(ctx context.Context, g Grant, queue string, names []string, after int64) (Claimed, error) {
	var out Claimed
	var got leaseArrays
	var last *int64
	err := s.onQueue(queue, ClassClaim, func() error {
		return s.pool.QueryRow(ctx, sqlClaimSteps, g.Host, queue, names, g.Served, g.Room, after).
			Scan(&got.task, &got.step, &got.lease, &got.attempt, &got.plan, &got.generation, &last, &out.Taken)
	})
	if errors.Is(err, ErrRefused) {
		return Claimed{Refused: true}, nil
	}
	if err != nil {
		return Claimed{}, fmt.Errorf("claim steps of %s: %w", queue, err)
	}
	out.Leases = got.leases()
	if last != nil {
		out.Last = *last
	}
	return out, nil
}

// Inputs are the values that steps need to run: the context of each task under
// [ContextOf], and the results of settled steps under their own keys.
type Inputs map[StepKey]json.RawMessage

// ContextOf is the key of a task's context in [Inputs].
func ContextOf(task vocab.UUID) StepKey { return StepKey{task, -1} }

// TraceOf is the key of a followed task's trace in [Inputs], a JSON text.
func TraceOf(task vocab.UUID) StepKey { return StepKey{task, -2} }

// StepInputs reads the contexts (and traces) of tasks and the results of steps. Values
// that do not exist, or not yet, are missing from the answer.
func (s *Store) StepInputs(ctx context.Context, contexts []vocab.UUID, results []StepKey) (Inputs, error) {
	tasks, steps := make([]vocab.UUID, len(results)), make([]int32, len(results))
	for i, k := range results {
		tasks[i], steps[i] = k.Task, k.Number
	}
	rows, err := s.pool.Query(ctx, sqlStepInputs, contexts, tasks, steps)
	if err != nil {
		return nil, fmt.Errorf("read inputs of %d tasks: %w", len(contexts), err)
	}
	defer rows.Close()
	inputs := make(Inputs, len(contexts)+len(results))
	for rows.Next() {
		var key StepKey
		var value json.RawMessage
		if err := rows.Scan(&key.Task, &key.Number, &value); err != nil {
			return nil, fmt.Errorf("read inputs of %d tasks: %w", len(contexts), err)
		}
		inputs[key] = value
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read inputs of %d tasks: %w", len(contexts), err)
	}
	return inputs, nil
}
