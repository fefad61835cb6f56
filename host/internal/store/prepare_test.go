package store

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/migrations/pgtest"
)

// Every statement fits the migrated schema: an unknown table, column, function or type
// fails here, not in production.
func TestEveryStatementCanBePrepared(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	for name, sql := range statements {
		_, err := conn.Conn().Prepare(t.Context(), name, sql)
		require.NoErrorf(t, err, "%s", name)
	}
}
