package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// Patience is how long a statement may take if its call is made patiently. Meanwhile a
// host keeps its leases with heartbeats on another connection.
const Patience = 40 * time.Second

const sqlAllow = `select set_config('statement_timeout', $1::text, true)`

type patientKey struct{}

// Patiently returns a context under which [Store.Settle], [Store.SettlePosted],
// [Store.CreateTasks] and [Store.CancelTask] give their statement [Patience] instead of
// the session's statement timeout, since a single task with very many steps cannot be
// done in smaller parts.
func Patiently(ctx context.Context) context.Context {
	return context.WithValue(ctx, patientKey{}, true)
}

// timed makes a call of one statement, on a connection whose statements may take as
// long as the context says.
func (s *Store) timed(ctx context.Context, call func(db querier) error) error {
	if ctx.Value(patientKey{}) == nil {
		return call(s.pool)
	}
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := allow(ctx, tx, Patience); err != nil {
			return err
		}
		return call(tx)
	})
}

// allow lets the statements of a transaction take up to d.
func allow(ctx context.Context, tx pgx.Tx, d time.Duration) error {
	_, err := tx.Exec(ctx, sqlAllow, ms(d))
	return err
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}
