package pgmq_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/pgmq"
)

// suite tests what every installation of pgmq must do.
func suite() map[string]func(*testing.T, bench) {
	return map[string]func(*testing.T, bench){
		"sent in a transaction":         sentInTransaction,
		"read in a transaction":         readInTransaction,
		"two readers, two transactions": twoReaders,
		"many readers":                  manyReaders,
		"visibility zero":               visibilityZero,
		"visibility ends":               visibilityEnds,
		"delay":                         delay,
		"order of a batch":              batchOrder,
		"empty batch":                   emptyBatch,
		"exact numbers":                 exactNumbers,
		"headers":                       headers,
		"conditional read":              conditionalRead,
		"limit":                         limit,
		"poll":                          poll,
		"pop":                           pop,
		"set visibility":                setVisibility,
		"delete":                        deletes,
		"archive":                       archives,
		"purge":                         purge,
		"metrics":                       metrics,
		"list and drop":                 listAndDrop,
		"create repeatedly":             createRepeatedly,
		"create unlogged":               createUnlogged,
		"create in a transaction":       createInTransaction,
		"names refused":                 namesRefused,
		"names folded":                  namesFolded,
		"unknown queue":                 unknownQueue,
		"hostile search path":           hostileSearchPath,
		"overloads of send":             overloadsOfSend,
		"overloads of send_batch":       overloadsOfSendBatch,
		"named parameters":              namedParameters,
		"objects":                       objects,
		"detach archive":                detachArchive,
	}
}

func sentInTransaction(t *testing.T, b bench) {
	tx := b.begin(t)
	_, err := pgmq.New(tx).Send(t.Context(), b.queue, pgmq.Outgoing{Body: json.RawMessage(`1`)}, 0)
	require.NoError(t, err)
	require.Empty(t, b.read(t, 0), "before the commit")
	require.NoError(t, tx.Commit(t.Context()))
	require.Len(t, b.read(t, 0), 1, "after the commit")

	tx = b.begin(t)
	_, err = pgmq.New(tx).Send(t.Context(), b.queue, pgmq.Outgoing{Body: json.RawMessage(`2`)}, 0)
	require.NoError(t, err)
	require.NoError(t, tx.Rollback(t.Context()))
	require.Len(t, b.read(t, 0), 1, "after the rollback")
}

func readInTransaction(t *testing.T, b bench) {
	b.send(t, `1`)
	tx := b.begin(t)
	messages, err := pgmq.New(tx).Read(t.Context(), b.queue, time.Hour, 1, nil)
	require.NoError(t, err)
	require.Len(t, messages, 1)
	require.Equal(t, 1, messages[0].Reads)
	require.NoError(t, tx.Rollback(t.Context()))
	again := b.read(t, time.Hour)
	require.Len(t, again, 1, "back at once")
	require.Equal(t, 1, again[0].Reads, "the read that was rolled back does not count")
}

func twoReaders(t *testing.T, b bench) {
	ids := b.send(t, `1`, `2`, `3`)
	first, second := b.begin(t), b.begin(t)
	taken, err := pgmq.New(first).Read(t.Context(), b.queue, time.Hour, 2, nil)
	require.NoError(t, err)
	require.Equal(t, ids[:2], idsOf(taken))
	taken, err = pgmq.New(second).Read(t.Context(), b.queue, time.Hour, 2, nil)
	require.NoError(t, err)
	require.Equal(t, ids[2:], idsOf(taken), "skips what the other has locked, without waiting")
	require.NoError(t, first.Commit(t.Context()))
	require.NoError(t, second.Commit(t.Context()))
	require.Empty(t, b.read(t, 0))
}

func manyReaders(t *testing.T, b bench) {
	bodies := make([]string, 300)
	for i := range bodies {
		bodies[i] = fmt.Sprint(i)
	}
	sent := b.send(t, bodies...)
	var mu sync.Mutex
	var got []int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				messages, err := b.q.Read(t.Context(), b.queue, time.Hour, 7, nil)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				got = append(got, idsOf(messages)...)
				done := len(got) >= len(sent)
				mu.Unlock()
				if done {
					return
				}
			}
		})
	}
	wg.Wait()
	require.ElementsMatch(t, sent, got, "each once")
}

func visibilityZero(t *testing.T, b bench) {
	b.send(t, `1`)
	for reads := 1; reads <= 3; reads++ {
		messages := b.read(t, 0)
		require.Len(t, messages, 1)
		require.Equal(t, reads, messages[0].Reads)
	}
}

func visibilityEnds(t *testing.T, b bench) {
	b.send(t, `1`)
	began := time.Now()
	first := b.read(t, 3900*time.Millisecond) // rounded up to four seconds
	require.Len(t, first, 1)
	require.Empty(t, b.read(t, 0))
	require.Eventually(t, func() bool { return len(b.read(t, 0)) == 1 }, time.Minute, 20*time.Millisecond)
	require.Greater(t, time.Since(began), 3950*time.Millisecond)
}

func delay(t *testing.T, b bench) {
	_, err := b.q.Send(t.Context(), b.queue, pgmq.Outgoing{Body: json.RawMessage(`"now"`)}, 0)
	require.NoError(t, err)
	_, err = b.q.Send(t.Context(), b.queue, pgmq.Outgoing{Body: json.RawMessage(`"late"`)}, time.Hour)
	require.NoError(t, err)
	_, err = b.pool.Exec(t.Context(), `select pgmq.send($1::text, '"late too"'::jsonb, 3600)`, b.queue)
	require.NoError(t, err)
	_, err = b.pool.Exec(t.Context(), `select pgmq.send($1::text, '"late as well"'::jsonb, clock_timestamp() + interval '1 hour')`, b.queue)
	require.NoError(t, err)
	_, err = b.q.Send(t.Context(), b.queue, pgmq.Outgoing{Body: json.RawMessage(`"soon"`)}, 3900*time.Millisecond)
	require.NoError(t, err)

	messages := b.read(t, time.Hour)
	require.Len(t, messages, 1)
	require.JSONEq(t, `"now"`, string(messages[0].Body))
	require.Eventually(t, func() bool { messages = b.read(t, time.Hour); return len(messages) == 1 }, time.Minute, 10*time.Millisecond)
	require.JSONEq(t, `"soon"`, string(messages[0].Body))
	require.Equal(t, "true", b.text(t,
		`select (count(*) = 3 and bool_and(vt between clock_timestamp() + interval '55 minutes' and clock_timestamp() + interval '1 hour'))::text
		   from pgmq.q_linear_workflow_queue where read_ct = 0`))
}

func batchOrder(t *testing.T, b bench) {
	var bodies []string
	for i := range 200 {
		bodies = append(bodies, fmt.Sprint(i*7919%200)) // not sorted by value
	}
	ids := b.send(t, bodies...)
	messages := b.read(t, 0)
	require.Equal(t, ids, idsOf(messages), "ids ascend, and reading follows them")
	for i, m := range messages {
		require.Equal(t, bodies[i], string(m.Body))
	}
}

func emptyBatch(t *testing.T, b bench) {
	ids, err := b.q.SendBatch(t.Context(), b.queue, nil, 0)
	require.NoError(t, err)
	require.Empty(t, ids)
	require.Empty(t, b.ids(t, `select pgmq.send_batch($1::text, '{}'::jsonb[])`, b.queue))
}

func exactNumbers(t *testing.T, b bench) {
	const body = `{"n": 340282366920938463463374607431768211456, "d": 0.1000000000000000055511151231257827}`
	b.send(t, body)
	messages := b.read(t, 0)
	require.Len(t, messages, 1)
	var fields map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(messages[0].Body, &fields))
	require.Equal(t, "340282366920938463463374607431768211456", string(fields["n"]))
	require.Equal(t, "0.1000000000000000055511151231257827", string(fields["d"]))
}

func headers(t *testing.T, b bench) {
	_, err := b.q.Send(t.Context(), b.queue, pgmq.Outgoing{Body: json.RawMessage(`1`), Headers: json.RawMessage(`{"priority":5}`)}, 0)
	require.NoError(t, err)
	_, err = b.q.SendBatch(t.Context(), b.queue, []pgmq.Outgoing{
		{Body: json.RawMessage(`2`)},
		{Body: json.RawMessage(`3`), Headers: json.RawMessage(`{"handler":"math.square"}`)},
	}, 0)
	require.NoError(t, err)
	messages := b.read(t, 0)
	require.Len(t, messages, 3)
	require.JSONEq(t, `{"priority":5}`, string(messages[0].Headers))
	require.Nil(t, messages[1].Headers)
	require.JSONEq(t, `{"handler":"math.square"}`, string(messages[2].Headers))
}

func conditionalRead(t *testing.T, b bench) {
	ids := b.send(t, `{"kind":"a","n":1}`, `{"kind":"b"}`, `{"kind":"a","n":2}`, `7`, `{"kind":"a'; drop schema pgmq cascade; --"}`)
	messages, err := b.q.Read(t.Context(), b.queue, time.Hour, 10, json.RawMessage(`{"kind":"a"}`))
	require.NoError(t, err)
	require.Equal(t, []int64{ids[0], ids[2]}, idsOf(messages))
	messages, err = b.q.Read(t.Context(), b.queue, time.Hour, 10, json.RawMessage(`{"kind":"a'; drop schema pgmq cascade; --"}`))
	require.NoError(t, err)
	require.Equal(t, ids[4:], idsOf(messages))
	require.Equal(t, []int64{ids[1], ids[3]}, idsOf(b.read(t, 0)))
}

func limit(t *testing.T, b bench) {
	ids := b.send(t, `1`, `2`, `3`)
	messages, err := b.q.Read(t.Context(), b.queue, time.Hour, 2, nil)
	require.NoError(t, err)
	require.Equal(t, ids[:2], idsOf(messages))
	_, err = b.q.Read(t.Context(), b.queue, -time.Second, 2, nil)
	require.ErrorContains(t, err, "out of range")
}

func poll(t *testing.T, b bench) {
	require.Empty(t, b.ids(t, `select msg_id from pgmq.read_with_poll($1::text, 30, 10, 1, 20)`, b.queue), "nothing comes within a second")
	found := make(chan []int64, 1)
	go func() {
		defer close(found)
		rows, err := b.pool.Query(t.Context(), `select msg_id from pgmq.read_with_poll($1::text, 30, 10, 20, 20)`, b.queue)
		if err != nil {
			t.Error(err)
			return
		}
		defer rows.Close()
		var ids []int64
		for rows.Next() {
			var id int64
			if err := rows.Scan(&id); err != nil {
				t.Error(err)
			}
			ids = append(ids, id)
		}
		found <- ids
	}()
	require.Eventually(t, func() bool {
		return b.text(t, `select count(*)::text from pg_stat_activity
		                   where datname = current_database() and pid <> pg_backend_pid() and query like '%read_with_poll%' and state = 'active'`) == "1"
	}, time.Minute, 10*time.Millisecond)
	require.Equal(t, b.send(t, `1`), <-found)
}

func pop(t *testing.T, b bench) {
	ids := b.send(t, `1`, `2`)
	m, ok, err := b.q.Pop(t.Context(), b.queue)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, ids[0], m.ID)
	require.Equal(t, ids[1:], idsOf(b.read(t, time.Hour)))
	_, ok, err = b.q.Pop(t.Context(), b.queue)
	require.NoError(t, err)
	require.False(t, ok, "what is hidden is not popped")
}

func setVisibility(t *testing.T, b bench) {
	ids := b.send(t, `1`)
	m, ok, err := b.q.SetVT(t.Context(), b.queue, ids[0], time.Hour)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, 0, m.Reads)
	require.WithinDuration(t, time.Now().Add(time.Hour), m.VisibleAt, time.Minute)
	require.Empty(t, b.read(t, 0))
	_, _, err = b.q.SetVT(t.Context(), b.queue, ids[0], 0)
	require.NoError(t, err)
	require.Len(t, b.read(t, 0), 1)
	_, ok, err = b.q.SetVT(t.Context(), b.queue, 4711, 0)
	require.NoError(t, err)
	require.False(t, ok)
}

func deletes(t *testing.T, b bench) {
	ids := b.send(t, `1`, `2`, `3`)
	deleted, err := b.q.Delete(t.Context(), b.queue, ids[0], 4711, ids[1])
	require.NoError(t, err)
	require.ElementsMatch(t, ids[:2], deleted)
	deleted, err = b.q.Delete(t.Context(), b.queue, ids[0], 4711)
	require.NoError(t, err)
	require.Empty(t, deleted)
	const single = `select pgmq.delete($1::text, $2::bigint)::text`
	require.Equal(t, "true", b.text(t, single, b.queue, ids[2]))
	require.Equal(t, "false", b.text(t, single, b.queue, ids[2]))
	require.Empty(t, b.read(t, 0))
}

func archives(t *testing.T, b bench) {
	id, err := b.q.Send(t.Context(), b.queue, pgmq.Outgoing{Body: json.RawMessage(`{"a":1}`), Headers: json.RawMessage(`{"h":2}`)}, 0)
	require.NoError(t, err)
	more := b.send(t, `2`, `3`)
	b.read(t, time.Hour)
	archived, err := b.q.Archive(t.Context(), b.queue, id, 4711, more[0])
	require.NoError(t, err)
	require.ElementsMatch(t, []int64{id, more[0]}, archived)
	archived, err = b.q.Archive(t.Context(), b.queue, id)
	require.NoError(t, err)
	require.Empty(t, archived, "it is gone")
	const single = `select pgmq.archive($1::text, $2::bigint)::text`
	require.Equal(t, "true", b.text(t, single, b.queue, more[1]))
	require.Equal(t, "false", b.text(t, single, b.queue, more[1]))
	require.Equal(t, `{"a": 1}/{"h": 2}/1/true`, b.text(t,
		`select message::text || '/' || headers::text || '/' || read_ct || '/' || (archived_at <= clock_timestamp())
		   from pgmq.a_linear_workflow_queue where msg_id = $1`, id))
	require.Equal(t, "0", b.text(t, `select count(*)::text from pgmq.q_linear_workflow_queue`))
}

func purge(t *testing.T, b bench) {
	ids := b.send(t, `1`, `2`)
	_, err := b.q.Archive(t.Context(), b.queue, ids[0])
	require.NoError(t, err)
	require.Equal(t, "1", b.text(t, `select pgmq.purge_queue($1::text)::text`, b.queue))
	require.Equal(t, "0", b.text(t, `select pgmq.purge_queue($1::text)::text`, b.queue))
	require.Empty(t, b.read(t, 0))
	require.Equal(t, "1", b.text(t, `select count(*)::text from pgmq.a_linear_workflow_queue`), "the archive stays")
	require.Greater(t, b.send(t, `3`)[0], ids[1], "ids go on")
}

func metrics(t *testing.T, b bench) {
	m, err := b.q.Metrics(t.Context(), b.queue)
	require.NoError(t, err)
	require.Equal(t, b.queue, m.Queue)
	require.Zero(t, m.Length)
	require.Zero(t, m.Visible)
	ids := b.send(t, `1`, `2`, `3`)
	_, _, err = b.q.SetVT(t.Context(), b.queue, ids[0], time.Hour)
	require.NoError(t, err)
	_, err = b.q.Delete(t.Context(), b.queue, ids[1])
	require.NoError(t, err)
	_, err = b.pool.Exec(t.Context(), `update pgmq.q_linear_workflow_queue set enqueued_at = enqueued_at - interval '90 seconds' where msg_id = $1`, ids[0])
	require.NoError(t, err)
	m, err = b.q.Metrics(t.Context(), b.queue)
	require.NoError(t, err)
	require.EqualValues(t, 2, m.Length)
	require.EqualValues(t, 1, m.Visible)
	require.EqualValues(t, 3, m.Sent)
	require.InDelta(t, 90, m.OldestAge.Seconds(), 20)
	require.InDelta(t, 0, m.NewestAge.Seconds(), 20)
	require.WithinDuration(t, time.Now(), m.At, time.Minute)

	require.NoError(t, b.q.Create(t.Context(), "another"))
	require.Equal(t, "another/0,linear_workflow_queue/2", b.text(t,
		`select string_agg(queue_name || '/' || queue_length, ',' order by queue_name) from pgmq.metrics_all()
		  where queue_name in ('another', 'linear_workflow_queue')`))
}

func listAndDrop(t *testing.T, b bench) {
	has := func(name string) bool {
		queues, err := b.q.List(t.Context())
		require.NoError(t, err)
		for _, q := range queues {
			if q.Name == name {
				require.False(t, q.Partitioned)
				require.False(t, q.Unlogged)
				require.WithinDuration(t, time.Now(), q.CreatedAt, time.Minute)
				return true
			}
		}
		return false
	}
	require.True(t, has(b.queue))
	require.Equal(t, "true", b.text(t, `select pgmq.drop_queue($1::text)::text`, b.queue))
	require.False(t, has(b.queue))
	require.Equal(t, "false", b.text(t, `select pgmq.drop_queue($1::text)::text`, b.queue))
	require.Equal(t, "gone", b.text(t, `select coalesce(to_regclass('pgmq.q_linear_workflow_queue')::text, to_regclass('pgmq.a_linear_workflow_queue')::text, 'gone')`))
	require.NoError(t, b.q.Create(t.Context(), b.queue), "and created again")
	require.Equal(t, []int64{1}, b.send(t, `1`))
}

func createRepeatedly(t *testing.T, b bench) {
	b.send(t, `1`)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for _, name := range []string{b.queue, fmt.Sprintf("fresh_%d", i/4)} {
				if err := b.q.Create(t.Context(), name); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.Len(t, b.read(t, 0), 1, "an existing queue keeps its messages")
	require.Equal(t, "4", b.text(t, `select count(*)::text from pgmq.meta where queue_name like 'fresh%'`))
}

func createUnlogged(t *testing.T, b bench) {
	_, err := b.pool.Exec(t.Context(), `select pgmq.create_unlogged('fast'), pgmq.create_non_partitioned('plain')`)
	require.NoError(t, err)
	require.Equal(t, "fast/u/true,plain/p/false", b.text(t,
		`select string_agg(m.queue_name || '/' || c.relpersistence::text || '/' || m.is_unlogged, ',' order by m.queue_name)
		   from pgmq.meta m join pg_class c on c.oid = to_regclass('pgmq.q_' || m.queue_name) where m.queue_name in ('fast', 'plain')`))
}

func createInTransaction(t *testing.T, b bench) {
	tx := b.begin(t)
	require.NoError(t, pgmq.New(tx).Create(t.Context(), "maybe"))
	_, err := pgmq.New(tx).Send(t.Context(), "maybe", pgmq.Outgoing{Body: json.RawMessage(`1`)}, 0)
	require.NoError(t, err)
	require.NoError(t, tx.Rollback(t.Context()))
	_, err = b.q.Send(t.Context(), "maybe", pgmq.Outgoing{Body: json.RawMessage(`1`)}, 0)
	require.ErrorIs(t, err, pgmq.ErrNoQueue)
}

func namesRefused(t *testing.T, b bench) {
	for _, name := range []string{"a$b", "a;b", "a--b", "a'b", strings.Repeat("x", 48)} {
		_, err := b.pool.Exec(t.Context(), `select pgmq.create($1::text)`, name)
		require.Error(t, err, name)
		require.NotContains(t, err.Error(), "syntax", name)
	}
	_, err := b.pool.Exec(t.Context(), `select pgmq.validate_queue_name($1::text)`, strings.Repeat("x", 48))
	require.Error(t, err)
	require.NoError(t, b.q.Create(t.Context(), strings.Repeat("x", 47)), "the longest")
	require.Error(t, b.q.Create(t.Context(), "Upper"))
}

func namesFolded(t *testing.T, b bench) {
	_, err := b.pool.Exec(t.Context(), `select pgmq.create('MixedCase')`)
	require.NoError(t, err)
	require.Len(t, b.ids(t, `select pgmq.send('MixedCase', '1'::jsonb)`), 1)
	require.Equal(t, "1", b.text(t, `select count(*)::text from pgmq.q_mixedcase`))
}

func unknownQueue(t *testing.T, b bench) {
	_, err := b.q.Send(t.Context(), "nowhere", pgmq.Outgoing{Body: json.RawMessage(`1`)}, 0)
	require.ErrorIs(t, err, pgmq.ErrNoQueue)
	require.ErrorContains(t, err, "nowhere")
	_, err = b.q.Read(t.Context(), "nowhere", 0, 1, nil)
	require.ErrorIs(t, err, pgmq.ErrNoQueue)
	pgErr := new(pgconn.PgError)
	require.ErrorAs(t, err, &pgErr)
	require.Equal(t, pgerrcode.UndefinedTable, pgErr.Code)
}

// A client's search_path may contain objects with the same names as those that the
// functions use.
func hostileSearchPath(t *testing.T, b bench) {
	tx := b.begin(t)
	_, err := tx.Exec(t.Context(), `
		create schema evil;
		create table evil.meta (queue_name text); create table evil.q_linear_workflow_queue (msg_id bigint);
		create function evil.format(text, text) returns text language sql as $$ select 'select 1/0' $$;
		create function evil.clock_timestamp() returns timestamptz language sql as $$ select 'infinity'::timestamptz $$;
		set local search_path = evil`)
	require.NoError(t, err)
	q := pgmq.New(tx)
	require.NoError(t, q.Create(t.Context(), "fresh"))
	_, err = tx.Exec(t.Context(), `select pgmq.send('fresh', '1'::jsonb)`)
	require.NoError(t, err)
	messages, err := q.Read(t.Context(), "fresh", time.Hour, 1, nil)
	require.NoError(t, err)
	require.Len(t, messages, 1)
	_, err = q.Archive(t.Context(), "fresh", messages[0].ID)
	require.NoError(t, err)
	_, err = q.Metrics(t.Context(), "fresh")
	require.NoError(t, err)
}
