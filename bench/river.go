package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// riverSetting is one way to run River.
type riverSetting struct {
	workers       int
	cooldown      time.Duration // zero: River's default
	poll          time.Duration // zero: River's default
	connections   int32         // of the pool; zero: pgx's default
	transactional bool          // a job completes itself, and inserts the next, in one transaction
}

// River's open edition has no workflows. A chain consists of jobs that each insert the
// next one; the last one has a kind of its own, so that its end is known.
type (
	riverLink struct {
		Left  int   `json:"left"` // jobs until the last one
		Order order `json:"order"`
	}
	riverLast struct {
		Order order `json:"order"`
	}
)

func (riverLink) Kind() string { return "link" }
func (riverLast) Kind() string { return "last" }

func riverNext(left int) river.JobArgs {
	if left == 0 {
		return riverLast{input}
	}
	return riverLink{left, input}
}

type riverEngine struct {
	pool          *pgxpool.Pool
	client        *river.Client[pgx.Tx]
	unsubscribe   func()
	tracker       *tracker
	steps         int
	transactional bool
}

// newRiver prepares the database and the client, which works after start.
func newRiver(ctx context.Context, url string, s riverSetting, sh shape, t *tracker) (*riverEngine, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("river: %w", err)
	}
	if s.connections > 0 {
		cfg.MaxConns = s.connections
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("river: %w", err)
	}
	e := &riverEngine{pool: pool, tracker: t, steps: sh.steps, transactional: s.transactional}
	if err := e.prepare(ctx, s); err != nil {
		pool.Close()
		return nil, fmt.Errorf("river: %w", err)
	}
	return e, nil
}

func (e *riverEngine) prepare(ctx context.Context, s riverSetting) error {
	driver := riverpgxv5.New(e.pool)
	migrator, err := rivermigrate.New(driver, nil)
	if err != nil {
		return err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return err
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, river.WorkFunc(e.link))
	river.AddWorker(workers, river.WorkFunc(e.last))
	e.client, err = river.NewClient(driver, &river.Config{
		FetchCooldown: s.cooldown, FetchPollInterval: s.poll,
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: s.workers}}, Workers: workers,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	return err
}

func startRiver(s riverSetting) func(context.Context, string, shape, *tracker) (engine, error) {
	return func(ctx context.Context, url string, sh shape, t *tracker) (engine, error) {
		e, err := newRiver(ctx, url, s, sh, t)
		if err != nil {
			return nil, err
		}
		if err := e.start(ctx); err != nil {
			return nil, errors.Join(err, stop(ctx, e))
		}
		return e, nil
	}
}

// start starts the client.
func (e *riverEngine) start(ctx context.Context) error {
	events, unsubscribe := e.client.SubscribeConfig(&river.SubscribeConfig{
		ChanSize: 200_000, // events that do not fit are lost
		Kinds:    []river.EventKind{river.EventKindJobCompleted, river.EventKindJobFailed, river.EventKindJobCancelled},
	})
	e.unsubscribe = unsubscribe
	go e.follow(events)
	if err := e.client.Start(ctx); err != nil {
		return fmt.Errorf("river: %w", err)
	}
	return nil
}

// follow receives jobs when their completion is recorded.
func (e *riverEngine) follow(events <-chan *river.Event) {
	for event := range events {
		switch {
		case event.Kind != river.EventKindJobCompleted:
			e.tracker.fail(fmt.Errorf("river: job %d: %s", event.Job.ID, event.Kind))
		case event.Job.Kind == riverLast{}.Kind() && !e.transactional:
			e.tracker.complete()
		}
	}
}

// link is a job of a chain that inserts another one.
func (e *riverEngine) link(ctx context.Context, job *river.Job[riverLink]) error {
	next := riverNext(job.Args.Left - 1)
	if !e.transactional {
		_, err := river.ClientFromContext[pgx.Tx](ctx).Insert(ctx, next, nil)
		return err
	}
	return e.inTransaction(ctx, func(tx pgx.Tx) error {
		if _, err := river.ClientFromContext[pgx.Tx](ctx).InsertTx(ctx, tx, next, nil); err != nil {
			return err
		}
		_, err := river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx, job)
		return err
	})
}

func (e *riverEngine) last(ctx context.Context, job *river.Job[riverLast]) error {
	if !e.transactional {
		return nil
	}
	err := e.inTransaction(ctx, func(tx pgx.Tx) error {
		_, err := river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx, job)
		return err
	})
	if err == nil {
		e.tracker.complete() // known earlier than by River's event
	}
	return err
}

func (e *riverEngine) inTransaction(ctx context.Context, f func(tx pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, e.pool, f)
}

func (e *riverEngine) submit(ctx context.Context, n int) error {
	if n == 1 {
		_, err := e.client.Insert(ctx, riverNext(e.steps-1), nil)
		return err
	}
	many := make([]river.InsertManyParams, n)
	for i := range many {
		many[i].Args = riverNext(e.steps - 1)
	}
	_, err := e.client.InsertManyFast(ctx, many)
	return err
}

// settle has nothing to do: what the tracker was told is already in the database.
func (e *riverEngine) settle(context.Context) error { return nil }

func (e *riverEngine) stop(ctx context.Context) error {
	defer e.pool.Close()
	if e.unsubscribe == nil {
		return nil // not started
	}
	defer e.unsubscribe()
	err := e.client.StopAndCancel(ctx)
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("river: stop: %w", err)
	}
	return nil
}
