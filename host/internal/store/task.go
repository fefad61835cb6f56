package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// NewTask is a task to be created. The context has passed the JSON gate.
type NewTask struct {
	UUID       vocab.UUID      // of version 7, with the step bits zero
	Plan       int32           // the plan it follows
	Context    json.RawMessage // a JSON object
	Priority   *int32          // nil: the plan's
	Identity   []byte          // SHA-256 of what identifies the request
	Attributes json.RawMessage // tags, initiator and so on; nil: none
	Key        string          // idempotency key; empty: none
	KeyHash    []byte          // hash of the request the key stands for
	RequestMsg int64           // message of the request queue that asks for it; 0: none
}

// Created says what became of a [NewTask].
type Created struct {
	Outcome CreateOutcome
	UUID    vocab.UUID // of the task that exists now; for a duplicate, the earlier one
	Leases  []Lease    // root steps leased to the host
}

// CreateOutcome is what became of a request for a task.
type CreateOutcome string

// The outcomes of a request.
const (
	CreateDone      CreateOutcome = "created"
	CreateDuplicate CreateOutcome = "duplicate" // the key was used for the same request
	CreateConflict  CreateOutcome = "conflict"  // the key was used for another request
	CreateGone      CreateOutcome = "gone"      // somebody else took the request
)

// Lease is the right to run one attempt of one step, and to settle it.
type Lease struct {
	StepKey
	ID         vocab.UUID
	Plan       int32
	Attempt    int32 // counts from 1
	Generation int32 // 0 until an operator has the step run anew
}

// Grant says which steps a call may lease to the host: at most Room, of the
// handlers served.
type Grant struct {
	Host   int32
	Room   int
	Served []int32 // ids of handlers, see [Store.HandlerIDs]
}

// CreateTasks creates a batch of tasks in one transaction. requestQueue names
// the queue of the RequestMsg messages. The batch is sorted in place by UUID;
// the answers are in its order then.
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
	rows, err := s.pool.Query(ctx, sqlCreateTasks, g.Host, g.Room, g.Served,
		a.task, a.plan, a.context, a.priority, a.identity, a.attributes, a.key, a.hash, requestQueue, a.request)
	if err != nil {
		return nil, fmt.Errorf("create %d tasks: %w", n, err)
	}
	defer rows.Close()
	created := make([]Created, 0, n)
	for rows.Next() {
		var c Created
		var steps []int32
		var leases []vocab.UUID
		if err := rows.Scan(&c.Outcome, &c.UUID, &steps, &leases); err != nil {
			return nil, fmt.Errorf("create %d tasks: %w", n, err)
		}
		for i := range steps {
			c.Leases = append(c.Leases, Lease{
				StepKey: StepKey{c.UUID, steps[i]}, ID: leases[i], Plan: batch[len(created)].Plan, Attempt: 1,
			})
		}
		created = append(created, c)
	}
	if err := rows.Err(); err != nil {
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
	key        []*string // nil if no task of the batch has one; so are the next two
	hash       [][]byte
	request    []*int64
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
}

// CancelTask cancels a task and what is left of its steps. cancelled is false if
// the task was settled already; state is the one it is in then.
func (s *Store) CancelTask(ctx context.Context, task vocab.UUID, reason string, host int32) (state vocab.TaskState, cancelled bool, err error) {
	rows, err := s.pool.Query(ctx, sqlCancelTask, task, reason, host)
	if err != nil {
		return "", false, fmt.Errorf("cancel task %s: %w", task, err)
	}
	defer rows.Close()
	found := rows.Next()
	if found {
		err = rows.Scan(&state, &cancelled)
	}
	rows.Close()
	if err == nil {
		err = rows.Err()
	}
	if err == nil && !found {
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

// The verdicts. Only recorded changed anything.
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

// Settled is what a batch of settlements came to.
type Settled struct {
	Verdicts []Verdict   // one for each settlement, in order
	Leases   []Lease     // children leased to the host
	Finished []Finished  // tasks that ended with this call
	Due      []time.Time // when the retries it caused may start
	Enqueued int         // steps it put on queues, to be claimed at once
}
