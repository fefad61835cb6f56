package store_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Every host counts waiting messages twice a second: hidden ones, such as retries that
// are not due, cost nothing, however many there are.
func TestBacklogsDoNotLookAtHiddenMessages(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.exec(t, `insert into pgmq.q_`+queue+` (vt, message) select clock_timestamp() + interval '1 hour', '1' from generate_series(1, 20000)`)
	b.exec(t, `insert into pgmq.q_`+queue+` (vt, message) select clock_timestamp() - interval '40 s', '2' from generate_series(1, 5)`)
	b.exec(t, `analyze pgmq.q_`+queue)
	conn, err := b.pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	fetched := func() (rows int64) {
		_, err := conn.Exec(t.Context(), `select pg_stat_force_next_flush()`)
		require.NoError(t, err)
		require.NoError(t, conn.QueryRow(t.Context(),
			`select seq_tup_read + coalesce(idx_tup_fetch, 0) from pg_stat_user_tables where relname = 'q_' || $1::text`, queue).Scan(&rows))
		return rows
	}
	before := fetched()
	var waiting int
	var oldest float64
	require.NoError(t, conn.QueryRow(t.Context(), `select o_waiting, o_oldest_seconds from tasker_backlogs(array[$1::text], 1000, null)`, queue).Scan(&waiting, &oldest))
	require.Equal(t, 5, waiting)
	require.GreaterOrEqual(t, oldest, 40.0)
	require.Less(t, fetched()-before, int64(100), "rows visited")
	before = fetched()
	var found string
	require.NoError(t, conn.QueryRow(t.Context(), `select o.queue from tasker_waiting(array[$1::text], '{none}', '{}') o(queue)`, queue).Scan(&found))
	require.Less(t, fetched()-before, int64(100), "rows visited")

	backlogs, err := b.store.Backlogs(t.Context(), []string{queue, "no_such_queue"}, handlers)
	require.NoError(t, err)
	require.Len(t, backlogs, 1)
	require.Equal(t, 5, backlogs[queue].Waiting)
	require.GreaterOrEqual(t, backlogs[queue].Oldest, 40*time.Second)

	b.exec(t, `insert into pgmq.q_`+queue+` (vt, message, headers) select clock_timestamp() - interval '90 s', '3', '{"handler": "of.others"}' from generate_series(1, 7)`)
	b.exec(t, `insert into pgmq.q_`+posted+` (vt, message, headers) select clock_timestamp() - interval '90 s', '3', '{"handler": "of.others"}' from generate_series(1, 7)`)
	backlogs, err = b.store.Backlogs(t.Context(), []string{queue, posted}, handlers)
	require.NoError(t, err)
	require.Equal(t, 5, backlogs[queue].Waiting, "hosts cannot do work for outside workers")
	require.Less(t, backlogs[queue].Oldest, 80*time.Second)
	require.Equal(t, 7, backlogs[posted].Waiting, "an inbox has no handlers")
}

// TestWaiting: a queue waits if the caller may read one of its messages now.
func TestWaiting(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	const inbox = "orchestration_step_results"
	require.NoError(t, b.store.CreateQueue(t.Context(), inbox))
	look := func(queues ...string) []string {
		t.Helper()
		found, err := b.store.Waiting(t.Context(), queues, handlers, []string{inbox, "missing"})
		require.NoError(t, err)
		require.Equal(t, "missing", found[len(found)-1], "the reader gets the error")
		return found[:len(found)-1]
	}
	send := func(queue, headers string, delay int) {
		t.Helper()
		b.exec(t, `select pgmq.send($1, '{}', $2::jsonb, $3::integer)`, queue, headers, delay)
	}
	require.Empty(t, look(queue))
	send(queue, `{"handler": "`+handlers[0]+`"}`, 3600)
	require.Empty(t, look(queue), "hidden")
	send(queue, `{"handler": "of.others"}`, 0)
	require.Empty(t, look(queue), "for another handler")
	send(inbox, `{"handler": "of.others"}`, 0)
	require.Equal(t, []string{inbox}, look(queue), "an inbox has no handlers")
	send(queue, `{"handler": "`+handlers[0]+`"}`, 0)
	require.Equal(t, []string{queue, inbox}, look(queue))
	require.Equal(t, []string{inbox}, look())
	b.exec(t, `update tasker_task_namespaces set paused_at = now()`)
	require.Equal(t, []string{inbox}, look(queue), "paused")
}
