package pipeline_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
)

const oneOf = `{"n":1}`

func one() pipeline.Submission {
	return pipeline.Submission{Namespace: "test_ns", Name: "one", Version: "1.0.0", Context: json.RawMessage(oneOf)}
}

// stall blocks the creation of tasks until it is undone.
func stall(t *testing.T, b *testBundle) (undo func()) {
	t.Helper()
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `lock table tasker_task_transitions in access exclusive mode`)
	require.NoError(t, err)
	var once sync.Once
	undo = func() {
		once.Do(func() { require.NoError(t, tx.Rollback(context.Background())) })
	}
	t.Cleanup(undo)
	return undo
}

// While the database accepts nothing, submissions beyond the limit are refused at once,
// waiting ones can be given up, and what was given up is not created.
func TestSlowDatabaseIsFeltBySubmitters(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]handlerFunc{"t.step": ok}, hands(pipeline.StepEnqueuer, func(h *pipeline.HandsConfig) { h.Pace.Batch, h.Size = 1, 1 }))
	b.apply(t, oneStep)
	undo := stall(t, b)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()

	const line = 20 // for a batch of 1
	errs := make(chan error, 10*line)
	var all sync.WaitGroup
	for range 10 * line {
		all.Go(func() {
			_, err := b.engine.Submit(ctx, one())
			errs <- err
		})
	}
	refused := 0
	for range 9*line - 1 { // one more may be in progress
		require.ErrorIs(t, <-errs, pipeline.ErrBusy)
		refused++
	}
	leave()
	all.Wait()
	close(errs)
	uncertain := 0
	for err := range errs {
		if errors.Is(err, pipeline.ErrUncertain) {
			uncertain++
			continue
		}
		require.ErrorIs(t, err, pipeline.ErrBusy)
	}
	require.LessOrEqual(t, uncertain, 1, "only what had been sent may have been created")
	undo()
	b.submit(t, "one", oneOf) // after all earlier ones
	n := count(t, b, `select count(*) from tasker_tasks`)
	require.LessOrEqual(t, n, 1+uncertain)
}

// Bulk submissions wait for room, and leave room for others.
func TestBulkWaitsAndLeavesRoom(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]handlerFunc{"t.step": ok}, hands(pipeline.StepEnqueuer, func(h *pipeline.HandsConfig) { h.Pace.Batch, h.Size = 2, 1 }))
	b.apply(t, oneStep)
	undo := stall(t, b)
	all := make([]pipeline.Submission, 100)
	for i := range all {
		all[i] = one()
	}
	all[7].Name = "unheard"
	all[8].Context = json.RawMessage(`[]`)
	answers := make(chan []pipeline.Answer, 1)
	go func() { answers <- b.engine.SubmitEach(t.Context(), all) }()
	single := make(chan error, 1)
	go func() {
		_, err := b.engine.Submit(t.Context(), one())
		single <- err
	}()
	select {
	case err := <-single:
		require.Fail(t, "the single submission must wait", "%v", err)
	case <-answers:
		require.Fail(t, "the bulk submission must wait")
	case <-time.After(300 * time.Millisecond):
	}
	undo()
	require.NoError(t, <-single)
	for i, a := range <-answers {
		if i == 7 || i == 8 {
			require.Error(t, a.Err)
			continue
		}
		require.NoError(t, a.Err, i)
		require.True(t, a.Created)
	}
	require.Equal(t, 99, count(t, b, `select count(*) from tasker_tasks`))
}

// A batch is bounded by its bytes too, and so is a line of large contexts.
func TestLargeContextsAreCounted(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]handlerFunc{"t.step": ok}, hands(pipeline.StepEnqueuer, func(h *pipeline.HandsConfig) { h.Size = 1 }))
	b.apply(t, oneStep)
	undo := stall(t, b)
	large := one()
	large.Context = json.RawMessage(`{"n":1,"a":"` + strings.Repeat("x", 900<<10) + `"}`)
	errs := make(chan error, 110)
	for range cap(errs) {
		go func() {
			_, err := b.engine.Submit(t.Context(), large)
			errs <- err
		}()
	}
	refused := 0
	for range 20 { // at most 64 MiB wait, and a batch of 8 MiB is in progress
		require.ErrorIs(t, <-errs, pipeline.ErrBusy)
		refused++
	}
	undo()
	created := 0
	for range cap(errs) - refused {
		if err := <-errs; err == nil {
			created++
		} else {
			require.ErrorIs(t, err, pipeline.ErrBusy)
		}
	}
	require.Positive(t, created)
	require.Equal(t, created, count(t, b, `select count(*) from tasker_tasks`))
}

// A restart of the server while submitters wait costs them only time: each task is
// created once, whether the server was stopped or crashed.
func TestDatabaseRestartsWhileSubmittersWait(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t, nil)
	b := setupOn(t, pgtest.Pool(t, cluster.DSN()), map[string]handlerFunc{"t.step": ok}, hands(pipeline.StepEnqueuer, func(h *pipeline.HandsConfig) { h.Pace.Batch = 5 }))
	b.apply(t, oneStep)
	before := b.submit(t, "one", oneOf)
	require.NotEmpty(t, before)
	const tasks = 300
	answers := make(chan error, tasks)
	started := make(chan struct{}, tasks)
	for i := range tasks {
		go func() {
			<-started
			s := one()
			if i%2 == 0 {
				s.IdempotencyKey = "key-" + string(rune('a'+i%26)) + time.Duration(i).String()
			}
			a := b.engine.SubmitEach(t.Context(), []pipeline.Submission{s})[0]
			if a.Err == nil && !a.Created {
				a.Err = errors.New("nobody else had the key")
			}
			answers <- a.Err
		}()
	}
	for range tasks / 3 {
		started <- struct{}{}
	}
	require.NoError(t, cluster.StopImmediate(t.Context()))
	for range tasks / 3 {
		started <- struct{}{}
	}
	require.NoError(t, cluster.Restart(t.Context()))
	for range tasks / 3 {
		started <- struct{}{}
	}
	for range tasks {
		require.NoError(t, <-answers)
	}
	require.Equal(t, tasks+1, count(t, b, `select count(*) from tasker_tasks`))
}
