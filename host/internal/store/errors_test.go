package store_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/store"
)

// TestWhatMayBeDoneAboutAnError: temporary errors are never mistaken for permanent ones.
func TestWhatMayBeDoneAboutAnError(t *testing.T) {
	t.Parallel()
	for class, codes := range map[store.Class][]string{
		store.Retry: {
			"40001", // serialization failure
			"40P01", // deadlock
			"55P03", // lock timeout
			"0A000", // the plan of a prepared statement changed
		},
		store.Unavailable: {
			"57P01", // an administrator ended the session
			"57P02", // another session crashed
			"57P03", // starting or shutting down
			"57014", // cancelled, or too slow
			"53100", // disk full
			"53200", // out of memory
			"53300", // too many connections
			"25006", // read-only, after a failover
			"25P03", // idle in a transaction
			"25P04", // a transaction took too long
			"28P01", // the password is being changed
			"42501", // rights are being changed
			"3D000", // the database is being restored
			"58030", // cannot read or write a file
			"58P01", // a file is missing
		},
		store.Unknown:   {"08006"},
		store.BadInput:  {"22P05", "23514", "54001"},
		store.Permanent: {"42P01", "P0001", "XX000"},
	} {
		for _, code := range codes {
			require.Equal(t, class, store.Classify(fmt.Errorf("settle: %w", &pgconn.PgError{Code: code})), code)
		}
	}
	require.Equal(t, store.Unknown, store.Classify(io.ErrUnexpectedEOF))
	require.Equal(t, store.Cancelled, store.Classify(context.DeadlineExceeded))
	require.Equal(t, store.Unavailable, store.Classify(store.ErrRefused))
	require.Equal(t, store.Permanent, store.Classify(errors.New("no idea")))
}

// If a server ends a session in the middle of a transaction, nothing of it has been done.
func TestASessionThatIsEndedInATransaction(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	conn, err := pgx.Connect(t.Context(), b.pool.Config().ConnString())
	require.NoError(t, err)
	defer conn.Close(context.Background())
	_, err = conn.Exec(t.Context(), "set idle_in_transaction_session_timeout = '1ms'")
	require.NoError(t, err)
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		return !one[bool](t, b, "select exists (select from pg_stat_activity where pid = $1)", conn.PgConn().PID())
	}, time.Minute, 5*time.Millisecond)
	_, err = tx.Exec(t.Context(), "select 1")
	require.Equal(t, store.Unavailable, store.Classify(err), err)
}
