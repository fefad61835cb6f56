package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// partitioned are the tables with partitions.
func partitioned() []string {
	return []string{"tasker_tasks", "tasker_workflow_steps", "tasker_task_transitions", "tasker_workflow_step_transitions"}
}

// spans returns the partitions of a table as days relative to today: "-3..6" ends before
// the sixth.
func (b *bed) spans(t testing.TB, table string) string {
	t.Helper()
	return one[string](t, b, `
select string_agg(format('%s..%s', days(x.o_begins), days(x.o_ends)), ' ' order by x.o_begins)
  from tasker_partitions($1) x`, table)
}

// days creates the function with which spans counts.
func (b *bed) days(t testing.TB) {
	t.Helper()
	b.exec(t, `
create function days(p_at timestamptz) returns integer language sql stable as $$
  select ((p_at at time zone 'UTC')::date - (clock_timestamp() at time zone 'UTC')::date)
$$`)
}

// Partitions span more days the longer tasks are kept, follow one another without gaps
// whatever there was before, and are the same for all four tables.
func TestPartitionsAreWide(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.days(t)
	everywhere := func(want string) {
		t.Helper()
		for _, table := range partitioned() {
			require.Equal(t, want, b.spans(t, table), table)
		}
	}
	everywhere("0..3")
	require.NoError(t, b.store.EnsurePartitions(t.Context(), 3, 90*day))
	everywhere("0..3")
	require.NoError(t, b.store.EnsurePartitions(t.Context(), 4, 90*day))
	everywhere("0..3 3..12")
	require.NoError(t, b.store.EnsurePartitions(t.Context(), 4, 90*day))
	require.NoError(t, b.store.EnsurePartitions(t.Context(), 11, day))
	everywhere("0..3 3..12")
	require.NoError(t, b.store.EnsurePartitions(t.Context(), 13, 7*day))
	everywhere("0..3 3..12 12..13")
	b.exec(t, "select tasker_ensure_partitions(clock_timestamp() + interval '480 hours', 2, null, 4)")
	require.NoError(t, b.store.EnsurePartitions(t.Context(), 20, 30*day))
	everywhere("0..3 3..12 12..13 13..16 16..19 19..20 20..24")
	require.NoError(t, b.store.EnsurePartitions(t.Context(), 25, 0))
	everywhere("0..3 3..12 12..13 13..16 16..19 19..20 20..24 24..54")
	require.NoError(t, b.store.EnsurePartitions(t.Context(), 55, 3650*day))
	everywhere("0..3 3..12 12..13 13..16 16..19 19..20 20..24 24..54 54..84")
}

// A row that is already in a default partition keeps the others of its day there, but
// nothing else.
func TestPartitionsBesideRowsOfTheDefault(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.days(t)
	b.exec(t, `insert into tasker_task_transitions (task_uuid, sort_key, from_state, to_state, created_at)
	           select tasker_uuid_floor(clock_timestamp() + interval '96 hours'), 2, 'pending', 'in_progress', clock_timestamp()`)
	require.NoError(t, b.store.EnsurePartitions(t.Context(), 10, 60*day))
	require.Equal(t, "0..3 3..9 9..15", b.spans(t, "tasker_tasks"))
	require.Equal(t, "0..3 3..4 5..11", b.spans(t, "tasker_task_transitions"))
}

// A partition of many days is dropped when its last task has exceeded its retention time.
// Until then, its tasks are not deleted one by one, except those of a namespace with a
// shorter retention time; and the current partition stays, whatever is in it.
func TestRetentionOfWidePartitions(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.days(t)
	p := b.mustPlan(t, chain(2)...)
	b.exec(t, "select tasker_ensure_partitions(clock_timestamp() - interval '960 hours', 40, null, 10)") // 40 days
	require.Equal(t, "-40..-30 -30..-20 -20..-10 -10..0 0..3", b.spans(t, "tasker_tasks"))
	for _, ago := range []time.Duration{39 * day, 35 * day, 32 * day, 25 * day} {
		b.past(t, p, ago, 20)
	}
	left := func() string {
		return one[string](t, b, `
select concat_ws(' ', (select count(*) from tasker_tasks), (select count(*) from tasker_workflow_steps),
                      (select count(*) from tasker_workflow_step_transitions), (select count(*) from tasker_task_transitions))`)
	}
	clear := func(r store.Retention) (dropped, pruned int) {
		t.Helper()
		dropped, pruned, err := retain(t.Context(), b.store, r)
		require.NoError(t, err)
		return dropped, pruned
	}
	dropped, pruned := clear(store.Retention{Tasks: 31 * day})
	require.Zero(t, dropped+pruned, "the last day is not over")
	require.Equal(t, "80 160 320 160", left())

	dropped, pruned = clear(store.Retention{Tasks: 31 * day, Namespaces: map[string]time.Duration{namespace: 34 * day}})
	require.Zero(t, dropped+pruned, "nor for those who keep their tasks longer")
	dropped, pruned = clear(store.Retention{Namespaces: map[string]time.Duration{namespace: 38 * day}})
	require.Equal(t, 20, pruned, "a namespace that keeps them for less time than the others")
	require.Zero(t, dropped)
	require.Equal(t, "60 120 240 120", left())

	dropped, pruned = clear(store.Retention{Tasks: 29 * day})
	require.Equal(t, 4, dropped)
	require.Zero(t, pruned)
	require.Equal(t, "20 40 80 40", left())
	require.Equal(t, "-30..-20 -20..-10 -10..0 0..3", b.spans(t, "tasker_workflow_steps"))
}

func TestAPartitionThatTakesTasksStays(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.days(t)
	p := b.mustPlan(t, chain(2)...)
	for _, table := range partitioned() {
		b.exec(t, fmt.Sprintf("drop table %s_%s", table, time.Now().UTC().Format("20060102")))
	}
	b.exec(t, "select tasker_ensure_partitions(clock_timestamp() - interval '96 hours', 3, null, 5)")
	require.Equal(t, "-4..1", b.spans(t, "tasker_tasks"))
	b.past(t, p, 3*day, 20)
	short := store.Retention{Tasks: 30 * day, Namespaces: map[string]time.Duration{namespace: time.Hour}}
	dropped, pruned, err := retain(t.Context(), b.store, short)
	require.NoError(t, err)
	require.Equal(t, 20, pruned)
	require.Zero(t, dropped)
	begins := time.Now().UTC().Add(-4 * day).Truncate(day)
	n, err := b.store.DropDay(t.Context(), begins, time.Second, short)
	require.NoError(t, err)
	require.Zero(t, n)
	require.Equal(t, "-4..1", b.spans(t, "tasker_tasks"))
}

// If the tables are divided at different days, steps and history are dropped when no task
// of their time is left.
func TestRetentionOfTablesCutAtOtherDays(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.days(t)
	p := b.mustPlan(t, chain(2)...)
	b.exec(t, "select tasker_ensure_partitions(clock_timestamp() - interval '1200 hours', 10, 'tasker_tasks', 3)")
	b.exec(t, "select tasker_ensure_partitions(clock_timestamp() - interval '1200 hours', 10, null, 7)")
	require.Equal(t, "-50..-47 -47..-44 -44..-41 -41..-38 0..3", b.spans(t, "tasker_tasks"))
	require.Equal(t, "-50..-43 -43..-36 0..3", b.spans(t, "tasker_workflow_steps"))
	b.past(t, p, 49*day, 20)
	b.past(t, p, 44*day, 20) // in the third partition of tasks, and the first of steps
	kept := one[vocab.UUID](t, b, "select min(task_uuid::text)::uuid from tasker_tasks where task_uuid >= tasker_uuid_floor(clock_timestamp() - interval '1070 hours')")
	b.exec(t, "update tasker_tasks set completed_at = clock_timestamp() where task_uuid = $1", kept)
	days, err := b.store.OldDays(t.Context(), store.Retention{Tasks: 30 * day})
	require.NoError(t, err)
	for _, d := range days {
		over, err := b.store.DayIsOver(t.Context(), d, store.Retention{Tasks: 30 * day})
		require.NoError(t, err)
		if over {
			_, err = b.store.DropDay(t.Context(), d, time.Second, store.Retention{Tasks: 30 * day})
			require.NoError(t, err)
		}
	}
	require.Equal(t, "-44..-41 0..3", b.spans(t, "tasker_tasks"))
	require.Equal(t, "-50..-43 0..3", b.spans(t, "tasker_workflow_steps"))
	require.Equal(t, 20, one[int](t, b, "select count(*) from tasker_tasks"))
	require.Zero(t, one[int](t, b, "select count(*) from tasker_tasks t where not exists (select from tasker_workflow_steps s where s.task_uuid = t.task_uuid)"))

	b.exec(t, "update tasker_tasks set completed_at = clock_timestamp() - interval '31 days' where task_uuid = $1", kept)
	for range 2 { // the first partition of steps begins before that of the tasks that keep it
		for _, d := range days {
			_, err = b.store.DropDay(t.Context(), d, time.Second, store.Retention{Tasks: 30 * day})
			require.NoError(t, err)
		}
	}
	for _, table := range partitioned() {
		require.Equal(t, "0..3", b.spans(t, table), table)
	}
}
