package store_test

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

//go:embed testdata/oracle.sql
var oracleSQL string

// violations asks the oracle what is wrong in the database, one line each.
func violations(ctx context.Context, pool *pgxpool.Pool) ([]string, error) {
	rows, err := pool.Query(ctx, oracleSQL)
	if err != nil {
		return nil, fmt.Errorf("ask the oracle: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		var rule, subject string
		err := row.Scan(&rule, &subject)
		return rule + ": " + subject, err
	})
}

const (
	namespace = "lab"
	queue     = "lab_queue"
	posted    = "lab_results" // results posted by outside workers
)

// The handlers of the tests' plans.
var handlers = []string{"lab.alpha", "lab.beta"}

// The policy of the tests' settlements.
var policy = store.Policy{RetryAfterCap: time.Minute, ClaimFactor: 2}

// bed is a database with everything that a test of the protocol needs.
type bed struct {
	pool  *pgxpool.Pool
	store *store.Store
	ids   map[string]int32 // of the handlers
	all   []int32
	plans atomic.Int64
}

func newBed(t testing.TB) *bed {
	t.Helper()
	pool := pgtest.New(t)
	b := &bed{pool: pool, store: store.New(pool)}
	_, err := b.plan(t.Context(), step("first", nil, nil), step("second", nil, nil)) // registers the handlers
	require.NoError(t, err)
	require.NoError(t, b.store.CreateQueue(t.Context(), posted))
	b.ids, err = b.store.HandlerIDs(t.Context(), handlers)
	require.NoError(t, err)
	for _, h := range handlers {
		b.all = append(b.all, b.ids[h])
	}
	return b
}

// step returns a step with the given parents and children, and one attempt.
func step(name string, parents, children []int32) workflow.Step {
	return workflow.Step{
		Name: name, Handler: handlers[0], Parents: parents, Children: children, Config: json.RawMessage("{}"),
		Retry: workflow.Retry{Retryable: true, MaxAttempts: 1, Backoff: workflow.BackoffNone},
	}
}

// chain returns steps that follow one another.
func chain(n int32) []workflow.Step {
	steps := make([]workflow.Step, n)
	for i := range n {
		var parents, children []int32
		if i > 0 {
			parents = []int32{i - 1}
		}
		if i < n-1 {
			children = []int32{i + 1}
		}
		steps[i] = step(fmt.Sprintf("step_%d", i), parents, children)
	}
	return steps
}

// fan returns independent steps: all run at once.
func fan(n int) []workflow.Step {
	steps := make([]workflow.Step, n)
	for i := range steps {
		steps[i] = step(fmt.Sprintf("step_%d", i), nil, nil)
	}
	return steps
}

// diamond returns a root, two branches and a merge.
func diamond() []workflow.Step {
	return []workflow.Step{
		step("root", nil, []int32{1, 2}), step("left", []int32{0}, []int32{3}),
		step("right", []int32{0}, []int32{3}), step("merge", []int32{1, 2}, nil),
	}
}

// plan stores a plan with these steps.
func (b *bed) plan(ctx context.Context, steps ...workflow.Step) (*store.Plan, error) {
	if b.plans.Load() == 0 { // the first plan gives ids to both handlers
		steps[len(steps)-1].Handler = handlers[1]
	}
	name := fmt.Sprintf("plan_%d", b.plans.Add(1))
	p := workflow.Plan{Namespace: namespace, Name: name, Version: "1.0.0", Steps: steps}
	if _, err := b.store.ApplyTemplate(ctx, []byte(name), []workflow.Plan{p}); err != nil {
		return nil, err
	}
	return b.store.FindPlan(ctx, namespace, name, "1.0.0", "")
}

func (b *bed) mustPlan(t testing.TB, steps ...workflow.Step) *store.Plan {
	t.Helper()
	p, err := b.plan(t.Context(), steps...)
	require.NoError(t, err)
	return p
}

// host registers a host that lives for an hour.
func (b *bed) host(t testing.TB) int32 {
	t.Helper()
	id, err := b.newHost(t.Context())
	require.NoError(t, err)
	return id
}

func (b *bed) newHost(ctx context.Context) (int32, error) {
	return b.store.RegisterHost(ctx, store.HostInfo{Name: "lab", Version: "1", Environment: "test", State: "normal"}, time.Hour)
}

// grant lets a host have every step that it has room for.
func (b *bed) grant(host int32, room int) store.Grant {
	return store.Grant{Host: host, Room: room, Served: b.all}
}

// newTask describes a task of a plan.
func newTask(p *store.Plan) store.NewTask {
	return store.NewTask{UUID: taskUUID(), Plan: p.ID, Context: json.RawMessage("{}"), Identity: []byte("identity")}
}

// create creates a task and returns the leases of the roots that the grant has room for.
func (b *bed) create(t testing.TB, g store.Grant, p *store.Plan) (vocab.UUID, []store.Lease) {
	t.Helper()
	created, err := b.store.CreateTasks(t.Context(), g, []store.NewTask{newTask(p)}, "")
	require.NoError(t, err)
	require.Equal(t, store.CreateDone, created[0].Outcome)
	return created[0].UUID, created[0].Leases
}

// settle settles leases with the same outcome.
func (b *bed) settle(t testing.TB, g store.Grant, outcome vocab.Outcome, leases ...store.Lease) store.Settled {
	t.Helper()
	batch := make([]store.Settlement, len(leases))
	for i, l := range leases {
		batch[i] = settlement(l.StepKey, l.ID, outcome)
	}
	done, err := b.store.Settle(t.Context(), g, policy, batch)
	require.NoError(t, err)
	return done
}

// claim leases what is in the queue.
func (b *bed) claim(t testing.TB, g store.Grant) []store.Lease {
	t.Helper()
	c, err := b.store.Claim(t.Context(), g, queue, handlers, 0)
	require.NoError(t, err)
	return c.Leases
}

func settlement(k store.StepKey, lease vocab.UUID, outcome vocab.Outcome) store.Settlement {
	s := store.Settlement{StepKey: k, Lease: lease, Outcome: outcome, Generation: 7}
	if outcome == vocab.OutcomeSuccess {
		s.Result = json.RawMessage(`{"n": 12345678901234567890.10}`)
	} else {
		s.Error = json.RawMessage(`{"type": "RetryableError", "message": "no luck"}`)
	}
	return s
}

// requireSound requires that the oracle finds nothing wrong.
func (b *bed) requireSound(t testing.TB) {
	t.Helper()
	wrong, err := violations(t.Context(), b.pool)
	require.NoError(t, err)
	require.Empty(t, wrong)
}

func (b *bed) stepState(t testing.TB, task vocab.UUID, n int) vocab.StepState {
	t.Helper()
	return one[vocab.StepState](t, b, `select state::text from tasker_workflow_steps where task_uuid = $1 and step_no = $2`, task, n)
}

func (b *bed) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	_, err := b.pool.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

// begin begins a transaction, which ends with the test.
func (b *bed) begin(t testing.TB) pgx.Tx {
	t.Helper()
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	return tx
}

// one reads a single value.
func one[T any](t testing.TB, b *bed, sql string, args ...any) T {
	t.Helper()
	var v T
	require.NoError(t, b.pool.QueryRow(t.Context(), sql, args...).Scan(&v))
	return v
}

var uuids atomic.Uint32

// taskUUID returns a version 7 UUID whose step bits are zero. They increase within a
// process, up to 4096 in a millisecond.
func taskUUID() vocab.UUID {
	u := randomUUID()
	head := uint64(time.Now().UnixMilli())<<16 | 0x7000 | uint64(uuids.Add(1)&0xfff)
	binary.BigEndian.PutUint64(u[:8], head)
	return vocab.TaskID(u)
}

func randomUUID() (u vocab.UUID) {
	_, _ = rand.Read(u[:]) // never fails
	u[8] = u[8]&0x3f | 0x80
	return u
}
