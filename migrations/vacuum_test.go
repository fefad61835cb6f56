package migrations_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/migrations/pgtest"
)

// Every partition, including the default ones and those created later, is vacuumed at the
// pace and analyzed with the sample configured for its table.
func TestPartitionsAreVacuumedAtTheirPace(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	_, err := pool.Exec(t.Context(), `select tasker_ensure_partitions(clock_timestamp() + interval '20 days', 2)`)
	require.NoError(t, err)
	type pace struct {
		Partitions int
		Limit      *string // of vacuum's work before it pauses; nil: the server's
		Delay      *string // how long it pauses
		Least      int     // the statistics targets of the columns; -1: the server's
		Most       int
	}
	rows, err := pool.Query(t.Context(), `
select p.relname, count(distinct c.oid), max(o.option_value) filter (where o.option_name = 'autovacuum_vacuum_cost_limit'),
       max(o.option_value) filter (where o.option_name = 'autovacuum_vacuum_cost_delay'), min(a.attstattarget), max(a.attstattarget)
  from pg_class p
  join pg_inherits i on i.inhparent = p.oid
  join pg_class c on c.oid = i.inhrelid
  join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  left join lateral pg_options_to_table(c.reloptions) o on true
 where p.relkind = 'p' and p.relnamespace = current_schema()::regnamespace
 group by p.relname`)
	require.NoError(t, err)
	got := map[string]pace{}
	var table string
	var of pace
	_, err = pgx.ForEachRow(rows, []any{&table, &of.Partitions, &of.Limit, &of.Delay, &of.Least, &of.Most}, func() error {
		require.GreaterOrEqual(t, of.Partitions, 3, table)
		of.Partitions = 0
		got[table] = of
		return nil
	})
	require.NoError(t, err)
	limit, delay := "400", "10"
	require.Equal(t, map[string]pace{
		"tasker_tasks":                     {Limit: &limit, Least: -1, Most: -1},
		"tasker_workflow_steps":            {Limit: &limit, Least: 10, Most: 10},
		"tasker_task_transitions":          {Delay: &delay, Least: 10, Most: 10},
		"tasker_workflow_step_transitions": {Delay: &delay, Least: 10, Most: 10},
	}, got)
}
