// Package pgsession sets up PostgreSQL sessions, including sessions behind a pooler
// that gives each client its own session, and detects poolers that do not.
package pgsession

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Setup returns a function for [pgconn.Config.AfterConnect] that makes the settings of
// a new session. It uses a statement instead of the startup message, where RuntimeParams
// go, because PgBouncer refuses most of these settings there, or ignores them if told to.
func Setup(settings map[string]string, within time.Duration) func(context.Context, *pgconn.PgConn) error {
	return func(ctx context.Context, conn *pgconn.PgConn) error {
		if within > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, within)
			defer cancel()
		}
		named, err := json.Marshal(settings)
		if err != nil {
			return fmt.Errorf("set up the session: %w", err)
		}
		if _, err := ask(ctx, conn, "select set_config(s.key, s.value, false) from json_each_text($1::json) s(key, value)", string(named)); err != nil {
			return fmt.Errorf("set up the session: %w", err)
		}
		return nil
	}
}

// ErrShared says that a pooler gives each transaction whatever session is free, as in
// transaction mode: a session's settings, prepared statements and locks are lost from
// one statement to the next.
var ErrShared = errors.New("the database is behind a pooler in transaction mode, and sessions are needed")

// Check returns [ErrShared] if a connection does not have a session of its own. It takes
// two connections: if a pooler hands out sessions, a transaction on one connection takes
// away the session that the other has marked.
func Check(ctx context.Context, cfg *pgx.ConnConfig) (err error) {
	var conns [2]*pgconn.PgConn
	for i := range conns {
		conn, err := pgconn.ConnectConfig(ctx, &cfg.Copy().Config)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
		conns[i] = conn
	}
	marked, other, mark := conns[0], conns[1], rand.Text()
	if _, err := ask(ctx, marked, "select set_config('tasker.session', $1, false)", mark); err != nil {
		return fmt.Errorf("mark a session: %w", err)
	}
	if _, err := ask(ctx, other, "begin"); err != nil {
		return fmt.Errorf("begin on a second session: %w", err)
	}
	found, err := ask(ctx, marked, "select current_setting('tasker.session', true)")
	if err != nil {
		return fmt.Errorf("look for the mark of a session: %w", err)
	}
	if _, err := ask(ctx, other, "rollback"); err != nil {
		return fmt.Errorf("end the transaction on the second session: %w", err)
	}
	if found != mark {
		return ErrShared
	}
	return nil
}

// ask runs a statement without a name, which works through any kind of pooler, and
// returns the first column of its first row.
func ask(ctx context.Context, conn *pgconn.PgConn, sql string, args ...string) (string, error) {
	values := make([][]byte, len(args))
	for i, a := range args {
		values[i] = []byte(a)
	}
	r := conn.ExecParams(ctx, sql, values, nil, nil, nil).Read()
	if r.Err != nil || len(r.Rows) == 0 {
		return "", r.Err
	}
	return string(r.Rows[0][0]), nil
}
