package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// NewTask is a task to be created. Its context has passed the JSON gate.
type NewTask struct {
	UUID       vocab.UUID      // of version 7, with the step bits zero
	Plan       int32           // the plan it follows
	Context    json.RawMessage // a JSON object
	Priority   *int32          // nil: the plan's
	Identity   []byte          // SHA-256 of what identifies the request
	Attributes json.RawMessage // tags, initiator and so on; nil: none
	Trace      string          // the traceparent in them; empty: none
	Key        string          // idempotency key; empty: none
	KeyHash    []byte          // hash of the request that the key stands for
	RequestMsg int64           // message of the request queue that asks for it; 0: none

	// Roots is how many steps of the plan have no parents. It is not sent: the caller
	// compares the number of leases that come back with it.
	Roots int

	// Unique says what to do if a task with the same identity exists; empty or allow:
	// create this one all the same. It comes from the plan.
	Unique workflow.IdentityPolicy
}

// Created is the result for a [NewTask].
type Created struct {
	Outcome CreateOutcome
	UUID    vocab.UUID // of the task that exists now; for a duplicate, and for one that exists, the earlier one
	Leases  []Lease    // root steps leased to the host
}

// CreateOutcome is the outcome of a request for a task.
type CreateOutcome string

// The outcomes of a request.
const (
	CreateDone      CreateOutcome = "created"
	CreateDuplicate CreateOutcome = "duplicate" // the key was used for the same request, or the identity's task is returned
	CreateConflict  CreateOutcome = "conflict"  // the key was used for another request
	CreateExists    CreateOutcome = "exists"    // a task has the identity, and the plan rejects another
	CreateGone      CreateOutcome = "gone"      // another host took the request
)

// Lease is the right to run one attempt of one step, and to settle it.
type Lease struct {
	StepKey
	ID         vocab.UUID
	Plan       int32
	Attempt    int32 // counts from 1
	Generation int32 // 0 until an operator has the step run again
}

// Grant says which steps a call may lease to the host: at most Room, of the handlers
// that are served.
type Grant struct {
	Host   int32
	Room   int
	Served []int32 // ids of handlers, see [Store.HandlerIDs]
}

// CreateTasks creates a batch of tasks in one transaction. requestQueue names the queue
// of the RequestMsg messages. The batch is sorted in place by UUID, and the answers are
// in that order.
func (s *Store) CreateTasks(ctx context.Context, g Grant, batch []NewTask, requestQueue string) ([]Created, error) {
	sortByUUID(batch)
	n := len(batch)
	a := createArgs{
		task: make([]vocab.UUID, n), plan: make([]int32, n), context: make([]string, n), priority: make([]*int32, n),
		identity: make([][]byte, n), attributes: make([]*string, n),
	}
	for i := range batch {
		a.add(i, &batch[i])
	}
	created := make([]Created, 0, n)
	err := s.timed(ctx, func(db querier) error {
		rows, err := db.Query(ctx, sqlCreateTasks, g.Host, g.Room, g.Served,
			a.task, a.plan, a.context, a.priority, a.identity, a.attributes, a.key, a.hash, requestQueue, a.request, a.unique)
		if err != nil {
			return err
		}
		var c Created
		var steps []int32
		var leases []vocab.UUID
		_, err = pgx.ForEachRow(rows, []any{&c.Outcome, &c.UUID, &steps, &leases}, func() error {
			c.Leases = nil
			for i := range steps {
				c.Leases = append(c.Leases, Lease{
					StepKey: StepKey{c.UUID, steps[i]}, ID: leases[i], Plan: batch[len(created)].Plan, Attempt: 1,
				})
			}
			created = append(created, c)
			return nil
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("create %d tasks: %w", n, err)
	}
	return created, nil
}

type createArgs struct {
	task       []vocab.UUID
	plan       []int32
	context    []string
	priority   []*int32
	identity   [][]byte
	attributes []*string
	key        []*string // nil if no task of the batch has one; likewise the next two
	hash       [][]byte
	request    []*int64
	unique     []*string // nil if no plan restricts identities
}

func (a *createArgs) add(i int, t *NewTask) {
	n := len(a.task)
	a.task[i], a.plan[i], a.context[i], a.priority[i], a.identity[i] = t.UUID, t.Plan, string(t.Context), t.Priority, t.Identity
	if t.Attributes != nil {
		text := string(t.Attributes)
		a.attributes[i] = &text
	}
	if t.Key != "" {
		if a.key == nil {
			a.key, a.hash = make([]*string, n), make([][]byte, n)
		}
		a.key[i], a.hash[i] = &t.Key, t.KeyHash
	}
	if t.RequestMsg != 0 {
		if a.request == nil {
			a.request = make([]*int64, n)
		}
		a.request[i] = &t.RequestMsg
	}
	if t.Unique != "" && t.Unique != workflow.IdentityAllow {
		if a.unique == nil {
			a.unique = make([]*string, n)
		}
		a.unique[i] = new(string(t.Unique))
	}
}

// CancelTask cancels a task and what is left of its steps. cancelled is false if the task
// was settled already; state is its resulting state.
func (s *Store) CancelTask(ctx context.Context, task vocab.UUID, o Operator, host int32) (state vocab.TaskState, cancelled bool, err error) {
	err = s.timed(ctx, func(db querier) error {
		return db.QueryRow(ctx, sqlCancelTask, task, o.Reason, o.By, host).Scan(&state, &cancelled)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return "", false, fmt.Errorf("cancel task %s: %w", task, err)
	}
	return state, cancelled, nil
}

// Settlement is the outcome of an attempt, to be recorded.
type Settlement struct {
	StepKey
	Lease      vocab.UUID
	Outcome    vocab.Outcome
	Generation int64           // the plugin process that ran it; 0: none of ours
	Result     json.RawMessage // success: a JSON value; nil is null
	Metadata   json.RawMessage // success: a JSON object or nil
	Error      json.RawMessage // otherwise: a JSON object with type, message, …
	RetryAfter time.Duration   // otherwise: the wait asked for; 0: the back-off decides
}

// Verdict is what became of a [Settlement].
type Verdict string

// The verdicts. Only "recorded" means that anything changed.
const (
	Recorded        Verdict = "recorded"
	AlreadyRecorded Verdict = "already_recorded"
	StaleLease      Verdict = "stale_lease"
	UnknownStep     Verdict = "unknown"
)

// Finished is a task that a call finished.
type Finished struct {
	UUID  vocab.UUID
	State vocab.TaskState
}

// Settled is the result of a batch of settlements.
type Settled struct {
	Verdicts []Verdict   // one for each settlement, in order
	Leases   []Lease     // children leased to the host
	Finished []Finished  // tasks that ended with this call
	Due      []time.Time // when the retries that it caused may start
	Enqueued int         // steps that it put on queues, to be claimed at once
}
