package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tasker-systems/tasker-host/host/internal/pgmq"
)

// DB is the transport of statements: a plain pgx pool, or one behind a [Gate].
type DB interface {
	pgmq.DBTX
	Begin(ctx context.Context) (pgx.Tx, error)
	Acquire(ctx context.Context) (*pgxpool.Conn, error)
}

// The classes of queue operations that a [Gate] distinguishes.
const (
	ClassClaim  = "claim"
	ClassRead   = "read"
	ClassSettle = "settle"
)

// Gate lets calls through, or refuses them because of the results of earlier calls.
type Gate interface {
	// Enter asks for permission to make one call: to the database as a whole if
	// queue and class are empty, otherwise for an operation on a queue. If it
	// returns an error, which wraps [ErrRefused], the call must not be made.
	// Otherwise leave must be called once with the result of the call.
	Enter(queue, class string) (leave func(error), err error)
	// Told reports the result of a call to the database that was made without
	// asking, because leases depend on it.
	Told(err error)
}

// ErrRefused is wrapped by the errors of calls that a [Gate] refused: nothing
// was sent.
var ErrRefused = errors.New("the call was not made")

// Guarded returns a store whose calls ask the gate. Calls that keep the host's
// leases alive, check tokens or write the audit log are always made.
func Guarded(pool *pgxpool.Pool, gate Gate) *Store {
	return &Store{pool: guardedDB{pool, gate}, plain: pool, gate: gate, plans: newPlanCache(usualPlans, nil)}
}

// DB returns the transport that the store itself uses.
func (s *Store) DB() DB { return s.pool }

// vital reports to the gate a call that did not ask it, and returns the call's error.
func (s *Store) vital(err error) error {
	if s.gate != nil {
		s.gate.Told(err)
	}
	return err
}

// onQueue makes a call about a queue, if the gate allows it.
func (s *Store) onQueue(queue, class string, call func() error) error {
	if s.gate == nil {
		return call()
	}
	leave, err := s.gate.Enter(queue, class)
	if err != nil {
		return fmt.Errorf("%s queue %s: %w", class, queue, err)
	}
	err = call()
	leave(err)
	return err
}

// guardedDB asks the gate before it asks the database. Statements in a transaction
// that has begun do not ask.
type guardedDB struct {
	pool *pgxpool.Pool
	gate Gate
}

var (
	_ DB = guardedDB{}
	_ DB = (*pgxpool.Pool)(nil)
)

// Exec implements [DB].
func (g guardedDB) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	leave, err := g.gate.Enter("", "")
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	tag, err := g.pool.Exec(ctx, sql, args...)
	leave(err)
	return tag, err
}

// Query implements [DB]. The call ends with the rows.
func (g guardedDB) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	leave, err := g.gate.Enter("", "")
	if err != nil {
		return nil, err
	}
	rows, err := g.pool.Query(ctx, sql, args...)
	if err != nil {
		leave(err)
		return nil, err
	}
	return &guardedRows{Rows: rows, leave: leave}, nil
}

// QueryRow implements [DB]. The call ends with Scan.
func (g guardedDB) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	leave, err := g.gate.Enter("", "")
	if err != nil {
		return refusedRow{err}
	}
	return guardedRow{g.pool.QueryRow(ctx, sql, args...), leave}
}

// Begin implements [DB].
func (g guardedDB) Begin(ctx context.Context) (pgx.Tx, error) {
	leave, err := g.gate.Enter("", "")
	if err != nil {
		return nil, err
	}
	tx, err := g.pool.Begin(ctx)
	leave(err)
	return tx, err
}

// Acquire implements [DB].
func (g guardedDB) Acquire(ctx context.Context) (*pgxpool.Conn, error) {
	leave, err := g.gate.Enter("", "")
	if err != nil {
		return nil, err
	}
	conn, err := g.pool.Acquire(ctx)
	leave(err)
	return conn, err
}

type guardedRows struct {
	pgx.Rows
	leave func(error)
}

// Close ends the rows; further calls do nothing.
func (r *guardedRows) Close() {
	r.Rows.Close()
	if r.leave != nil {
		r.leave(r.Err())
		r.leave = nil
	}
}

type guardedRow struct {
	row   pgx.Row
	leave func(error)
}

// Scan reads the row.
func (r guardedRow) Scan(to ...any) error {
	err := r.row.Scan(to...)
	r.leave(err)
	return err
}

type refusedRow struct{ err error }

// Scan returns the reason why the query was not made.
func (r refusedRow) Scan(...any) error { return r.err }
