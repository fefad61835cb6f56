package migrations_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// The vocabulary exists in Go and in SQL: states, edges, outcomes and the arithmetic of
// identifiers must agree.
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

// guarded are statements that the tables' guards check, with a task and states.
type guarded struct {
	entry  string // adds an entry to the history: task, from, to
	row    string // inserts a row: task, state
	change string // updates it: task, state
}

var (
	guardedTask = guarded{
		entry: `insert into tasker_task_transitions (task_uuid, sort_key, from_state, to_state, created_at) values ($1, 2, $2, $3, now())`,
		row: `insert into tasker_tasks (task_uuid, plan_id, namespace_id, open_sinks, total_steps, state, created_at, completed_at, context, identity_hash)
		      select $1, 1, 1, 1, 1, s.state, now(), case when s.state not in ('pending', 'in_progress') then now() end, '{}', ''
		        from (select $2::tasker_task_state as state) s`,
		change: `update tasker_tasks t set state = s.state, completed_at = case when s.state not in ('pending', 'in_progress') then now() end
		           from (select $2::tasker_task_state as state) s where t.task_uuid = $1`,
	}
	guardedStep = guarded{
		entry: `insert into tasker_workflow_step_transitions (task_uuid, step_no, sort_key, from_state, to_state, created_at)
		        values ($1, 0, 2, $2, $3, now())`,
		row:    `insert into tasker_workflow_steps (task_uuid, step_no, plan_id, remaining_parents, state, updated_at) values ($1, 0, 1, 0, $2, now())`,
		change: `update tasker_workflow_steps set state = $2 where task_uuid = $1`,
	}
)

// Nobody can write an illegal edge, and everybody can write a legal one.
func TestGuardsObeyTheTablesOfEdges(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	requireGuards(t, pool, guardedTask, vocab.TaskStates, vocab.CanTask)
	requireGuards(t, pool, guardedStep, vocab.StepStates, vocab.CanStep)
}

func requireGuards[T ~string](t *testing.T, pool *pgxpool.Pool, g guarded, states []T, can func(from, to T) bool) {
	t.Helper()
	// try reports whether the last of the statements was refused by a guard.
	try := func(task vocab.UUID, statements ...[]any) bool {
		tx, err := pool.Begin(t.Context())
		require.NoError(t, err)
		defer func() { require.NoError(t, tx.Rollback(t.Context())) }()
		for i, s := range statements {
			_, err := tx.Exec(t.Context(), s[0].(string), append([]any{task}, s[1:]...)...)
			refused, ok := errors.AsType[*pgconn.PgError](err)
			if i == len(statements)-1 && ok {
				require.Equal(t, pgerrcode.CheckViolation, refused.Code, refused)
				return true
			}
			require.NoError(t, err)
		}
		return false
	}
	var task vocab.UUID
	require.NoError(t, pool.QueryRow(t.Context(), "select tasker_new_task_uuid()").Scan(&task))
	for _, from := range states {
		for _, to := range states {
			require.Equal(t, !can(from, to), try(task, []any{g.entry, from, to}), "an entry from %s to %s", from, to)
			require.Equal(t, !can(from, to) && from != to, try(task, []any{g.row, from}, []any{g.change, to}), "a change from %s to %s", from, to)
		}
	}
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
