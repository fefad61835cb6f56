package pgmq_test

import (
	"context"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/pgmq"
	"github.com/tasker-systems/tasker-host/internal/leaks"
	"github.com/tasker-systems/tasker-host/migrations"
	"github.com/tasker-systems/tasker-host/migrations/pgmqcompat"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// flavour is an installation of pgmq that the suite runs on.
type flavour struct {
	name string
	pool func(t *testing.T) *pgxpool.Pool
}

// TestConformance requires the same behaviour of every installation of pgmq. By default
// it runs on our compatible one, on the same packaged as an extension, and on the real
// extension if the server has it. TASKER_TEST_PGMQ selects one: compat, extension (the
// real one), or both.
func TestConformance(t *testing.T) {
	t.Parallel()
	for _, f := range flavours(t) {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			for name, check := range suite() {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					check(t, newBench(t, f))
				})
			}
		})
	}
}

func flavours(t *testing.T) []flavour {
	t.Helper()
	info, err := migrations.PGMQ(t.Context(), pgtest.New(t))
	require.NoError(t, err)
	compat := flavour{"compat", compatPool}
	server := pgtest.ExtensionServer(t)
	packaged := flavour{"packaged", func(t *testing.T) *pgxpool.Pool { return server.New(t) }}
	extension := flavour{"extension", func(t *testing.T) *pgxpool.Pool { return pgtest.New(t) }}
	offered := info.Kind == migrations.PGMQExtension
	t.Logf("the server's pgmq: %s %s", info.Kind, info.Version)
	switch want := os.Getenv("TASKER_TEST_PGMQ"); want {
	case "compat":
		return []flavour{compat}
	case "extension", "both":
		require.True(t, offered, "TASKER_TEST_PGMQ=%s, but the test server does not offer the extension pgmq", want)
		if want == "extension" {
			return []flavour{extension}
		}
		return []flavour{compat, extension}
	case "":
		if offered {
			return []flavour{compat, packaged, extension}
		}
		return []flavour{compat, packaged}
	default:
		require.Fail(t, "TASKER_TEST_PGMQ must be compat, extension or both")
		return nil
	}
}

// compatPool installs our SQL even where the server offers the extension.
func compatPool(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool := pgtest.Pool(t, pgtest.Empty(t))
	_, err := pool.Exec(t.Context(), "create schema pgmq; "+pgmqcompat.SQL)
	require.NoError(t, err)
	return pool
}

// bench is what a test case works with: a database with a queue.
type bench struct {
	pool  *pgxpool.Pool
	q     pgmq.Client
	queue string
}

func newBench(t *testing.T, f flavour) bench {
	t.Helper()
	b := bench{pool: f.pool(t), queue: "linear_workflow_queue"}
	b.q = pgmq.New(b.pool)
	require.NoError(t, b.q.Create(t.Context(), b.queue))
	return b
}

func (b bench) send(t *testing.T, bodies ...string) []int64 {
	t.Helper()
	batch := make([]pgmq.Outgoing, len(bodies))
	for i, body := range bodies {
		batch[i].Body = json.RawMessage(body)
	}
	ids, err := b.q.SendBatch(t.Context(), b.queue, batch, 0)
	require.NoError(t, err)
	require.Len(t, ids, len(bodies))
	return ids
}

// read takes all visible messages.
func (b bench) read(t *testing.T, hide time.Duration) []pgmq.Message {
	t.Helper()
	messages, err := b.q.Read(t.Context(), b.queue, hide, 1000, nil)
	require.NoError(t, err)
	return messages
}

// ids runs a query of one bigint column.
func (b bench) ids(t *testing.T, sql string, args ...any) []int64 {
	t.Helper()
	rows, err := b.pool.Query(t.Context(), sql, args...)
	require.NoError(t, err)
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	require.NoError(t, err)
	return ids
}

// text runs a query of one text value.
func (b bench) text(t *testing.T, sql string, args ...any) (value string) {
	t.Helper()
	require.NoError(t, b.pool.QueryRow(t.Context(), sql, args...).Scan(&value))
	return value
}

func (b bench) begin(t *testing.T) pgx.Tx {
	t.Helper()
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	return tx
}

func idsOf(messages []pgmq.Message) []int64 {
	ids := make([]int64, len(messages))
	for i, m := range messages {
		ids[i] = m.ID
	}
	return ids
}
