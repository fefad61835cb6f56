package pipeline_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// moody is a database that answers some calls differently from the store.
type moody struct {
	*store.Store
	settle func(batch []store.Settlement) error // nil: the call is made
	create func(batch []store.NewTask) error
}

func (m *moody) Settle(ctx context.Context, g store.Grant, p store.Policy, batch []store.Settlement) (store.Settled, error) {
	if err := m.settle(batch); err != nil {
		return store.Settled{}, err
	}
	return m.Store.Settle(ctx, g, p, batch)
}

func (m *moody) CreateTasks(ctx context.Context, g store.Grant, batch []store.NewTask, requests string) ([]store.Created, error) {
	if err := m.create(batch); err != nil {
		return nil, err
	}
	return m.Store.CreateTasks(ctx, g, batch, requests)
}

// inTurn returns the errors one after the other, and then none.
func inTurn(codes []string) func() error {
	var mu sync.Mutex
	return func() error {
		mu.Lock()
		defer mu.Unlock()
		if len(codes) == 0 {
			return nil
		}
		code := codes[0]
		codes = codes[1:]
		return &pgconn.PgError{Code: code, Message: "moody"}
	}
}

// Whatever temporary fault the database has, a task is created once and a step is run
// once: the call is repeated until it is answered.
func TestWhatPassesByItselfLosesNothing(t *testing.T) {
	t.Parallel()
	for _, code := range []string{
		"40001", "40P01", "55P03", "57P01", "57P02", "57P03", "57014", "53100", "53200", "53300", "25006", "25P03", "28P01", "42501", "3D000", "58030",
	} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			st := store.New(db)
			again := inTurn([]string{code, code})
			first := inTurn([]string{code, code})
			m := &moody{Store: st, settle: func([]store.Settlement) error { return again() }, create: func([]store.NewTask) error { return first() }}
			var runs atomic.Int32
			b := setupWith(t, db, m, st, map[string]handlerFunc{"t.step": func(context.Context, *pluginv1.Step) pluginhost.Outcome {
				runs.Add(1)
				return success(`1`)
			}})
			b.apply(t, once)
			task := b.submit(t, "once", `{}`)
			require.Equal(t, vocab.TaskComplete, b.settled(t, task))
			require.EqualValues(t, 1, runs.Load())
			require.Equal(t, 1, count(t, b, `select count(*) from tasker_tasks`))
			require.Equal(t, 1, count(t, b, `select claims from tasker_workflow_steps`))
		})
	}
}

// An outcome that the database refuses with an unexpected error is not recorded, and its
// step runs again, but not for ever; the outcomes in the same batch are recorded.
func TestAnOutcomeThatIsAlwaysRefusedEnds(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	st := store.New(db)
	var bad atomic.Pointer[vocab.UUID]
	together := make(chan struct{})
	m := &moody{Store: st, create: func([]store.NewTask) error { return nil }, settle: func(batch []store.Settlement) error {
		for _, s := range batch {
			if task := bad.Load(); task != nil && s.Task == *task && s.Outcome == vocab.OutcomeSuccess {
				return &pgconn.PgError{Code: "XX000", Message: "no idea what to do"}
			}
		}
		return nil
	}}
	var runs atomic.Int32
	b := setupWith(t, db, m, st, map[string]handlerFunc{"t.step": func(ctx context.Context, s *pluginv1.Step) pluginhost.Outcome {
		runs.Add(1)
		select {
		case <-together:
		case <-ctx.Done():
		}
		return success(`1`)
	}})
	b.apply(t, once)
	var tasks []vocab.UUID
	for range 10 {
		tasks = append(tasks, b.submit(t, "once", `{}`))
	}
	bad.Store(&tasks[5])
	eventually(t, "all run", func() bool { return runs.Load() == 10 })
	close(together)
	for i, task := range tasks {
		if i == 5 {
			require.Equal(t, vocab.TaskError, b.settled(t, task))
		} else {
			require.Equal(t, vocab.TaskComplete, b.settled(t, task))
		}
	}
	require.EqualValues(t, 12, runs.Load(), "the others ran once")
	require.Equal(t, 1, count(t, b, `select count(*) from tasker_dead_letters where reason = 'claims_exhausted' and detail like '%no idea what to do%'`))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.Zero(t, b.engine.Drain(ctx))
}

// A submission that the database refuses with an unexpected error does not cause others
// of the same time to be refused.
func TestASubmissionThatIsRefusedIsRefusedAlone(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	st := store.New(db)
	m := &moody{Store: st, settle: func([]store.Settlement) error { return nil }, create: func(batch []store.NewTask) error {
		for _, n := range batch {
			if string(n.Context) == `{"bad": true}` {
				return &pgconn.PgError{Code: "XX000", Message: "no idea what to do"}
			}
		}
		return nil
	}}
	b := setupWith(t, db, m, st, map[string]handlerFunc{"t.step": func(context.Context, *pluginv1.Step) pluginhost.Outcome { return success(`1`) }})
	b.apply(t, once)
	all := make([]pipeline.Submission, 10)
	for i := range all {
		all[i] = pipeline.Submission{Namespace: "test_ns", Name: "once", Version: "1.0.0"}
	}
	all[4].Context = []byte(`{"bad": true}`)
	for i, s := range b.engine.SubmitEach(t.Context(), all) {
		if i == 4 {
			require.ErrorContains(t, s.Err, "no idea what to do")
		} else {
			require.NoError(t, s.Err)
		}
	}
	require.Equal(t, 9, count(t, b, `select count(*) from tasker_tasks`))
}
