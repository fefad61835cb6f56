package migrations

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/tasker-systems/tasker-host/migrations/pgsession"
)

const (
	// lockKey is the advisory lock that lets only one process migrate at a time. It
	// is also held while pgmq is installed, which goose's own lock would not cover.
	lockKey = 0x7461736b6572 // "tasker"

	// lockTimeout bounds how long a statement of a migration may wait for a table,
	// since everybody else waits behind it meanwhile. After that it is retried.
	lockTimeout  = "5s"
	lockAttempts = 6
)

// Up brings the schema of the database to the version of this binary, pgmq
// included. Any number of processes may call it at once: one works, and the others
// wait until ctx is done. It refuses what [Check] refuses, except an older schema.
func Up(ctx context.Context, db *pgx.ConnConfig, log hclog.Logger) error {
	s, err := embeddedSeries()
	if err != nil {
		return err
	}
	return s.up(ctx, db, log)
}

// Down takes the schema back to the given version; 0 removes everything except
// pgmq and its queues.
func Down(ctx context.Context, db *pgx.ConnConfig, to int64, log hclog.Logger) error {
	s, err := embeddedSeries()
	if err != nil {
		return err
	}
	return s.down(ctx, db, to, log)
}

func (s *series) up(ctx context.Context, db *pgx.ConnConfig, log hclog.Logger) error {
	return s.run(ctx, db, log, func(ctx context.Context, conn *pgx.Conn, p *goose.Provider) ([]*goose.MigrationResult, error) {
		if err := installPGMQ(ctx, conn, log); err != nil {
			return nil, err
		}
		return p.Up(ctx)
	})
}

func (s *series) down(ctx context.Context, db *pgx.ConnConfig, to int64, log hclog.Logger) error {
	if _, ok := s.byVersion(to); !ok && to != 0 {
		return fmt.Errorf("migrate down: there is no schema version %d", to)
	}
	return s.run(ctx, db, log, func(ctx context.Context, _ *pgx.Conn, p *goose.Provider) ([]*goose.MigrationResult, error) {
		return p.DownTo(ctx, to)
	})
}

type work func(ctx context.Context, conn *pgx.Conn, p *goose.Provider) ([]*goose.MigrationResult, error)

// run does the work under the lock, after checking that it may be done.
func (s *series) run(ctx context.Context, db *pgx.ConnConfig, log hclog.Logger, do work) (err error) {
	cfg := s.session(db)
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	// Closing the session releases its lock.
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	if err := checkServer(ctx, conn); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if err := lock(ctx, conn, log); err != nil {
		return fmt.Errorf("migrate: wait for another migration to end: %w", err)
	}
	all, err := s.status(ctx, conn)
	if err == nil {
		err = s.check(all, false)
	}
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	sqlDB := stdlib.OpenDB(*cfg)
	defer func() { err = errors.Join(err, sqlDB.Close()) }()
	p, err := goose.NewProvider(goose.DialectCustom, sqlDB, s.fsys,
		goose.WithStore(ledger{series: s}), goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return attempt(ctx, conn, p, log, do)
}

// attempt repeats work that could not get its locks in time. Files that were
// applied before stay applied: each is a transaction of its own.
func attempt(ctx context.Context, conn *pgx.Conn, p *goose.Provider, log hclog.Logger, do work) error {
	for n := 1; ; n++ {
		done, err := do(ctx, conn, p)
		if partial, ok := errors.AsType[*goose.PartialError](err); ok {
			done, err = partial.Applied, fmt.Errorf("file %s: %w", partial.Failed.Source.Path, partial.Err)
		}
		for _, m := range done {
			log.Info("migrated the schema", "file", m.Source.Path, "direction", m.Direction, "took", m.Duration.Round(time.Millisecond))
		}
		if err == nil {
			return nil
		}
		if pgErr, ok := errors.AsType[*pgconn.PgError](err); !ok || pgErr.Code != pgerrcode.LockNotAvailable || n == lockAttempts {
			return fmt.Errorf("migrate: %w", err)
		}
		pause := time.Duration(n) * time.Second
		log.Warn("a migration could not lock a table, trying again", "attempt", n, "pause", pause, "error", err)
		if err := wait(ctx, pause); err != nil {
			return err
		}
	}
}

// session returns the configuration of a connection for migrations.
func (s *series) session(db *pgx.ConnConfig) *pgx.ConnConfig {
	cfg := db.Copy()
	cfg.AfterConnect = pgsession.Setup(map[string]string{
		"application_name":                    "tasker/migrate",
		"lock_timeout":                        s.lockTimeout,
		"statement_timeout":                   "0",
		"idle_in_transaction_session_timeout": "0",
		"timezone":                            "UTC",
	}, db.ConnectTimeout)
	return cfg
}

// lock takes the advisory lock. It polls instead of waiting in the server, because
// a waiting statement holds a snapshot, and a concurrent index build of the process
// that has the lock would wait for that in turn.
func lock(ctx context.Context, conn *pgx.Conn, log hclog.Logger) error {
	for told := false; ; told = true {
		var locked bool
		if err := conn.QueryRow(ctx, "select pg_try_advisory_lock($1)", int64(lockKey)).Scan(&locked); err != nil || locked {
			return err
		}
		if !told {
			log.Info("another process is migrating the schema, waiting for it")
		}
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
