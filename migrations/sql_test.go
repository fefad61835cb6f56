package migrations_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// The vocabulary exists twice, in Go and in SQL: states, edges, outcomes and the
// arithmetic of identifiers are equal.
func TestVocabulary(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	require.Equal(t, vocab.TaskStates, labels[vocab.TaskState](t, pool, "tasker_task_state"))
	require.Equal(t, vocab.StepStates, labels[vocab.StepState](t, pool, "tasker_step_state"))
	require.Equal(t, vocab.Outcomes, labels[vocab.Outcome](t, pool, "tasker_outcome"))
	requireEdges(t, pool, "task", vocab.TaskStates, vocab.CanTask)
	requireEdges(t, pool, "step", vocab.StepStates, vocab.CanStep)
}

func labels[T ~string](t *testing.T, pool *pgxpool.Pool, enum string) (names []T) {
	t.Helper()
	var list []string
	err := pool.QueryRow(t.Context(), "select enum_range(null::"+enum+")::text[]").Scan(&list)
	require.NoError(t, err)
	for _, name := range list {
		names = append(names, T(name))
	}
	return names
}

func requireEdges[T ~string](t *testing.T, pool *pgxpool.Pool, kind string, states []T, can func(from, to T) bool) {
	t.Helper()
	var got []string
	err := pool.QueryRow(t.Context(), fmt.Sprintf(`
select array_agg(f.state || '>' || o.state) from unnest(enum_range(null::tasker_%[1]s_state)) f(state),
       unnest(enum_range(null::tasker_%[1]s_state)) o(state) where tasker_legal_%[1]s_edge(f.state, o.state)`, kind)).Scan(&got)
	require.NoError(t, err)
	var want []string
	for _, from := range states {
		for _, to := range states {
			if can(from, to) {
				want = append(want, string(from)+">"+string(to))
			}
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	require.Equal(t, want, got)
}

func TestIdentifiers(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	for range 50 {
		var task vocab.UUID
		var version int
		var fresh bool
		err := pool.QueryRow(t.Context(), `
select u, get_byte(uuid_send(u), 6) >> 4, abs(extract(epoch from clock_timestamp() - tasker_uuid_time(u))) < 60
       and u >= tasker_uuid_floor(clock_timestamp() - interval '1 minute') and get_byte(uuid_send(u), 8) between 128 and 191
  from tasker_new_task_uuid() u`).Scan(&task, &version, &fresh)
		require.NoError(t, err)
		require.Equal(t, 7, version)
		require.True(t, fresh, task)
		require.Equal(t, vocab.TaskID(task), task)
		for _, n := range []int{0, 1, 14, 15, 255, 4095, 65535, vocab.MaxSteps - 1} {
			var step, back vocab.UUID
			var number int
			err := pool.QueryRow(t.Context(), `select s, tasker_task_of(s), tasker_step_no(s) from tasker_step_uuid($1, $2) s`, task, n).
				Scan(&step, &back, &number)
			require.NoError(t, err)
			require.Equal(t, vocab.StepID(task, n), step)
			require.Equal(t, task, back)
			require.Equal(t, n, number)
		}
	}
	var none int
	require.NoError(t, pool.QueryRow(t.Context(), "select tasker_step_no(tasker_new_task_uuid())").Scan(&none))
	require.Equal(t, -1, none)
}
