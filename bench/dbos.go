package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// dbosSetting is one way to run DBOS.
type dbosSetting struct {
	queue bool          // workflows are enqueued; otherwise, the process that submits them runs them
	poll  time.Duration // of the queue, and when waiting for a result; zero: DBOS's default
}

const dbosQueue = "bench"

type dbosEngine struct {
	pool     *pgxpool.Pool // in addition to DBOS's own
	root     dbos.Context
	queue    dbos.Queue // nil: workflows are started directly
	poll     time.Duration
	workflow dbos.Workflow[order, order]
	name     string // the workflow's
	tracker  *tracker
	loud     slog.LevelVar
	waited   atomic.Bool // somebody waits for the result, which then tells the end
}

func startDBOS(s dbosSetting) func(context.Context, string, shape, *tracker) (engine, error) {
	return func(ctx context.Context, url string, sh shape, t *tracker) (engine, error) {
		pool, err := pgxpool.New(ctx, url)
		if err != nil {
			return nil, fmt.Errorf("dbos: %w", err)
		}
		e := &dbosEngine{pool: pool, poll: s.poll, tracker: t}
		if err := e.prepare(ctx, url, s, sh); err != nil {
			return nil, errors.Join(fmt.Errorf("dbos: %w", err), stop(ctx, e))
		}
		return e, nil
	}
}

func (e *dbosEngine) prepare(ctx context.Context, url string, s dbosSetting, sh shape) (err error) {
	e.loud.Set(slog.LevelError)
	c := dbos.Config{
		AppName: "bench", DatabaseURL: url,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: &e.loud})),
	}
	if e.root, err = dbos.NewContext(ctx, c); err != nil {
		return err
	}
	e.workflow, e.name = e.job, "job"
	if sh.steps > 1 {
		e.workflow, e.name = e.chainOf(sh.steps), "chain"
	}
	dbos.RegisterWorkflow(e.root, e.workflow, dbos.WithWorkflowName(e.name))
	if s.queue {
		var options []dbos.QueueOption
		if s.poll > 0 {
			options = append(options, dbos.WithQueueBasePollingInterval(s.poll))
		}
		if e.queue, err = dbos.RegisterQueue(e.root, dbosQueue, options...); err != nil {
			return err
		}
	}
	return dbos.Launch(e.root)
}

// job is a workflow without steps: only its own row is durable, as in DBOS's
// documentation of queues.
func (e *dbosEngine) job(_ dbos.Context, in order) (order, error) {
	e.ended()
	return in, nil
}

// chainOf is a workflow of steps; the result of each is recorded before the next one
// begins.
func (e *dbosEngine) chainOf(steps int) dbos.Workflow[order, order] {
	return func(ctx dbos.Context, in order) (order, error) {
		for range steps {
			if _, err := dbos.RunAsStep(ctx, func(context.Context) (order, error) { return in, nil }); err != nil {
				e.tracker.fail(fmt.Errorf("dbos: step: %w", err))
				return in, err
			}
		}
		e.ended()
		return in, nil
	}
}

// ended is called at the end of a queued workflow, before the end is recorded; settle
// waits until it is.
func (e *dbosEngine) ended() {
	if e.queue != nil && !e.waited.Load() {
		e.tracker.complete()
	}
}

func (e *dbosEngine) submit(ctx context.Context, n int) error {
	if e.queue != nil && n > 1 {
		return e.enqueue(ctx, n)
	}
	for range n {
		var options []dbos.WorkflowOption
		if e.queue != nil {
			e.waited.Store(true)
			options = append(options, dbos.WithQueue(e.queue))
		}
		h, err := dbos.RunWorkflow(e.root, e.workflow, input, options...)
		if err != nil {
			return fmt.Errorf("dbos: %w", err)
		}
		go func() {
			if _, err := h.GetResult(dbos.WithHandlePollingInterval(e.poll)); err != nil {
				e.tracker.fail(fmt.Errorf("dbos: workflow: %w", err))
				return
			}
			e.tracker.complete()
		}()
	}
	return nil
}

// enqueue submits many workflows in one transaction, the closest that DBOS has to bulk
// submission.
func (e *dbosEngine) enqueue(ctx context.Context, n int) error {
	e.waited.Store(false)
	return pgx.BeginFunc(ctx, e.pool, func(tx pgx.Tx) error {
		for range n {
			if _, err := dbos.Enqueue[order](e.root, dbosQueue, e.name, input, dbos.WithEnqueueTransaction(tx)); err != nil {
				return fmt.Errorf("dbos: enqueue: %w", err)
			}
		}
		return nil
	})
}

// settle waits until the ends of queued workflows are recorded.
func (e *dbosEngine) settle(ctx context.Context) error {
	for e.queue != nil {
		var open bool
		err := e.pool.QueryRow(ctx, "select exists (select from dbos.workflow_status where status in ('ENQUEUED', 'PENDING'))").Scan(&open)
		if err != nil {
			return fmt.Errorf("dbos: check for open workflows: %w", err)
		}
		if !open {
			return nil
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (e *dbosEngine) stop(context.Context) error {
	defer e.pool.Close()
	if e.root == nil {
		return nil
	}
	e.loud.Set(slog.LevelError + 1) // being interrupted by its own end is not an error
	if err := dbos.Shutdown(e.root, stopTimeout); err != nil {
		return fmt.Errorf("dbos: stop: %w", err)
	}
	return nil
}
