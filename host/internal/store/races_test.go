package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/tasker-systems/tasker-host/finalizer"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Races between processors with separate connections. Each scenario returns what it found
// wrong, so that it can be used on the mutants as well.

// insist repeats a call that the database rolled back, like the engine, and counts
// deadlocks.
func insist(deadlocks *atomic.Int64, call func() error) error {
	for {
		err := call()
		if err == nil || store.Classify(err) != store.Retry {
			return err
		}
		deadlocks.Add(1)
	}
}

// together runs calls at the same moment.
func together(calls ...func() error) error {
	var ready sync.WaitGroup
	ready.Add(len(calls))
	var group errgroup.Group
	for _, call := range calls {
		group.Go(func() error {
			ready.Done()
			ready.Wait()
			return call()
		})
	}
	return group.Wait()
}

// lastTogether creates tasks with an independent step for each outcome, and one more that
// fails first if doomed, and settles the steps of each task at the same moment on
// different connections.
func lastTogether(ctx context.Context, b *bed, tasks int, doomed bool, outcomes ...vocab.Outcome) (deadlocks int64, err error) {
	steps := fan(len(outcomes))
	if doomed {
		steps = doomedFan(len(outcomes))
	}
	p, err := b.plan(ctx, steps...)
	if err != nil {
		return 0, err
	}
	host, err := b.newHost(ctx)
	if err != nil {
		return 0, err
	}
	var again, finishes atomic.Int64
	g := b.grant(host, len(steps))
	settle := func(l store.Lease, o vocab.Outcome) error {
		return insist(&again, func() error {
			done, err := b.store.Settle(ctx, store.Grant{Host: host}, policy, []store.Settlement{settlement(l.StepKey, l.ID, o)})
			finishes.Add(int64(len(done.Finished)))
			return err
		})
	}
	for range tasks {
		created, err := b.store.CreateTasks(ctx, g, []store.NewTask{newTask(p)}, "")
		if err != nil {
			return 0, err
		}
		leases := created[0].Leases
		if doomed {
			if err := settle(leases[len(outcomes)], vocab.OutcomePermanent); err != nil {
				return 0, err
			}
		}
		var calls []func() error
		for i, o := range outcomes {
			calls = append(calls, func() error { return settle(leases[i], o) })
		}
		if err := together(calls...); err != nil {
			return 0, err
		}
	}
	if n := finishes.Load(); n != int64(tasks) {
		return again.Load(), fmt.Errorf("%d tasks were reported as finished, want %d", n, tasks)
	}
	return again.Load(), judge(ctx, b.pool)
}

// doomedFan returns n steps with a child each, and one more step that is a parent of all
// children: once it has failed, the other parents are not sinks, and share no row but the
// task's.
func doomedFan(n int) []workflow.Step {
	steps := fan(2*n + 1)
	for i := range n {
		child, last := n+1+i, n
		steps[child].Parents = []int32{int32(i), int32(last)}
		steps[i].Children = []int32{int32(child)}
		steps[last].Children = append(steps[last].Children, int32(child))
	}
	return steps
}

// judge consults the oracle, and requires that no task is left.
func judge(ctx context.Context, pool *pgxpool.Pool) error {
	wrong, err := violations(ctx, pool)
	if err != nil {
		return err
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%d violations, such as %s", len(wrong), wrong[0])
	}
	var left int
	if err := pool.QueryRow(ctx, "select count(*) from tasker_tasks where state in ('pending', 'in_progress')").Scan(&left); err != nil {
		return err
	}
	if left > 0 {
		return fmt.Errorf("%d tasks are not finished", left)
	}
	return nil
}

func TestLastStepsTogether(t *testing.T) {
	t.Parallel()
	const success, fails, retries = vocab.OutcomeSuccess, vocab.OutcomePermanent, vocab.OutcomeRetryable // the only attempt
	for _, c := range []struct {
		name     string
		tasks    int
		doomed   bool
		outcomes []vocab.Outcome
	}{
		{"two successes", 1000, false, []vocab.Outcome{success, success}},
		{"two failures", 300, false, []vocab.Outcome{fails, retries}},
		{"a success and a failure", 300, false, []vocab.Outcome{success, fails}},
		{"three failures", 200, false, []vocab.Outcome{fails, fails, fails}},
		{"two successes of a failing task", 300, true, []vocab.Outcome{success, success}},
		{"two failures of a failing task", 300, true, []vocab.Outcome{fails, fails}},
		{"a success and a failure of a failing task", 300, true, []vocab.Outcome{success, fails}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			deadlocks, err := lastTogether(t.Context(), newBed(t), c.tasks, c.doomed, c.outcomes...)
			require.NoError(t, err)
			require.Zero(t, deadlocks, "deadlocks")
		})
	}
}

// Eight claimers of one queue: no step is leased twice, none is left over.
func TestClaimersOfOneQueue(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.mustPlan(t, fan(3)...)
	const tasks = 200
	batch := make([]store.NewTask, tasks)
	for i := range batch {
		batch[i] = newTask(p)
	}
	_, err := b.store.CreateTasks(t.Context(), b.grant(b.host(t), 0), batch, "")
	require.NoError(t, err)
	var mu sync.Mutex
	leased := map[store.StepKey]int{}
	var claimers []func() error
	for range 8 {
		g := b.grant(b.host(t), 7)
		claimers = append(claimers, func() error {
			for {
				c, err := b.store.Claim(t.Context(), g, queue, handlers, 0)
				if err != nil {
					return err
				}
				mu.Lock()
				for _, l := range c.Leases {
					leased[l.StepKey]++
				}
				all := len(leased) == 3*tasks
				mu.Unlock()
				if all {
					return nil // rows locked by others are skipped: an empty answer is not the end
				}
			}
		})
	}
	require.NoError(t, together(claimers...))
	for k, n := range leased {
		require.Equal(t, 1, n, k)
	}
	b.requireSound(t)
}

// One key, sixteen submitters, each with its own UUID: one task, and all get the same
// answer.
func TestOneKeySixteenSubmitters(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.mustPlan(t, chain(2)...)
	g := b.grant(b.host(t), 4)
	for round := range 40 {
		var created atomic.Int64
		var mu sync.Mutex
		told := map[vocab.UUID]bool{}
		var submitters []func() error
		for range 16 {
			submitters = append(submitters, func() error {
				task := newTask(p)
				task.Key, task.KeyHash = fmt.Sprintf("key-%d", round), []byte("hash")
				c, err := b.store.CreateTasks(t.Context(), g, []store.NewTask{task}, "")
				if err != nil {
					return err
				}
				if c[0].Outcome == store.CreateDone {
					created.Add(1)
				} else if c[0].Outcome != store.CreateDuplicate {
					return fmt.Errorf("outcome %s", c[0].Outcome)
				}
				mu.Lock()
				defer mu.Unlock()
				told[c[0].UUID] = true
				return nil
			})
		}
		require.NoError(t, together(submitters...))
		require.EqualValues(t, 1, created.Load())
		require.Len(t, told, 1)
	}
	require.Equal(t, 40, one[int](t, b, "select count(*) from tasker_tasks"))
	b.requireSound(t)
}

// Everything at once: hosts that claim, settle, forget, die and continue as zombies; two
// sweepers; cancels. Every task ends once.
func TestStorm(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	deadlocks, err := storm(t.Context(), b, 250)
	require.NoError(t, err)
	t.Logf("%d transactions were repeated after a deadlock", deadlocks)
}

func storm(ctx context.Context, b *bed, tasks int) (deadlocks int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	s := &stormState{bed: b, finished: map[vocab.UUID]int{}}
	first, err := b.newHost(ctx)
	if err != nil {
		return 0, err
	}
	for range tasks / 5 {
		steps := diamond()
		if rand.N(2) == 0 {
			steps = fan(4)
		}
		for i := range steps {
			steps[i].Retry.MaxAttempts = 1 + rand.N(3)
		}
		p, err := b.plan(ctx, steps...)
		if err != nil {
			return 0, err
		}
		batch := []store.NewTask{newTask(p), newTask(p), newTask(p), newTask(p), newTask(p)}
		if _, err := b.store.CreateTasks(ctx, b.grant(first, 0), batch, ""); err != nil {
			return 0, err
		}
		for _, task := range batch {
			s.tasks = append(s.tasks, task.UUID)
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	for range 4 {
		group.Go(func() error { return s.work(ctx) })
	}
	for range 2 {
		group.Go(func() error { return s.sweep(ctx) })
	}
	group.Go(func() error { return s.cancelSome(ctx) })
	if err := group.Wait(); err != nil {
		return s.deadlocks.Load(), err
	}
	for task, n := range s.finished {
		if n > 1 {
			return 0, fmt.Errorf("task %s was reported as finished %d times", task, n)
		}
	}
	return s.deadlocks.Load(), judge(context.WithoutCancel(ctx), b.pool)
}

type stormState struct {
	bed       *bed
	tasks     []vocab.UUID
	deadlocks atomic.Int64
	done      atomic.Bool
	mu        sync.Mutex
	finished  map[vocab.UUID]int
}

// work is the life of a host and of its successors.
func (s *stormState) work(ctx context.Context) error {
	host, err := s.bed.newHost(ctx)
	if err != nil {
		return err
	}
	for !s.done.Load() {
		var c store.Claimed
		err := insist(&s.deadlocks, func() (err error) {
			c, err = s.bed.store.Claim(ctx, s.bed.grant(host, 5), queue, handlers, 0)
			return err
		})
		if err != nil {
			return err
		}
		held := c.Leases
		for len(held) > 0 {
			if rand.N(60) == 0 { // the process is gone, or continues as a zombie
				if _, err := s.bed.pool.Exec(ctx, "update tasker_hosts set alive_until = clock_timestamp() where host_id = $1", host); err != nil {
					return err
				}
				if rand.N(2) == 0 {
					if host, err = s.bed.newHost(ctx); err != nil {
						return err
					}
					break
				}
			}
			if held, err = s.settle(ctx, host, held); err != nil {
				return err
			}
		}
		if rand.N(5) == 0 || len(c.Leases) == 0 {
			alive, _, err := s.bed.store.Heartbeat(ctx, host, "normal", handlers, time.Hour, nil)
			if err != nil {
				return err
			}
			if !alive {
				if host, err = s.bed.newHost(ctx); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// settle ends leases, with failures and successes in separate batches, and returns those
// granted.
func (s *stormState) settle(ctx context.Context, host int32, held []store.Lease) (next []store.Lease, err error) {
	var good, bad []store.Settlement
	for _, l := range held {
		switch rand.N(8) {
		case 0:
			bad = append(bad, settlement(l.StepKey, l.ID, vocab.OutcomePermanent))
		case 1:
			bad = append(bad, settlement(l.StepKey, l.ID, vocab.OutcomeReleased))
		case 2:
			bad = append(bad, settlement(l.StepKey, l.ID, vocab.OutcomeRetryable))
		default:
			good = append(good, settlement(l.StepKey, l.ID, vocab.OutcomeSuccess))
		}
	}
	for _, batch := range [][]store.Settlement{good, bad, good} { // the last one: as after a lost reply
		if len(batch) == 0 {
			continue
		}
		err := insist(&s.deadlocks, func() error {
			got, err := s.bed.store.Settle(ctx, s.bed.grant(host, rand.N(4)), policy, batch)
			if err != nil {
				return err
			}
			next = append(next, got.Leases...)
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, f := range got.Finished {
				s.finished[f.UUID]++
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return next, nil
}

// sweep sweeps until no task is left.
func (s *stormState) sweep(ctx context.Context) error {
	f := finalizer.New(s.bed.pool, "storm", time.Minute)
	for {
		if err := insist(&s.deadlocks, func() error { return s.sweepHosts(ctx) }); err != nil {
			return err
		}
		var stalled []vocab.UUID
		err := insist(&s.deadlocks, func() (err error) {
			_, stalled, err = s.bed.store.SweepMessages(ctx, 20*time.Millisecond)
			return err
		})
		if err != nil {
			return err
		}
		for _, task := range stalled {
			if _, err := f.Finalize(ctx, task); err != nil {
				return err
			}
		}
		var left int
		if err := s.bed.pool.QueryRow(ctx, "select count(*) from tasker_tasks where state in ('pending', 'in_progress')").Scan(&left); err != nil {
			return err
		}
		if left == 0 {
			s.done.Store(true)
			return nil
		}
	}
}

func (s *stormState) sweepHosts(ctx context.Context) error {
	gone, err := s.bed.store.SweepHosts(ctx)
	if err != nil {
		return err
	}
	for _, h := range gone {
		if _, err := s.bed.store.ReleaseHost(ctx, h.ID, "its host died", policy.ClaimFactor); err != nil && !errors.Is(err, store.ErrOthers) {
			return err
		}
	}
	return nil
}

// cancelSome cancels every tenth task at some point.
func (s *stormState) cancelSome(ctx context.Context) error {
	for i := 0; i < len(s.tasks); i += 10 {
		err := insist(&s.deadlocks, func() error {
			_, _, err := s.bed.store.CancelTask(ctx, s.tasks[i], store.Operator{Reason: "storm"}, 0)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
