package pgmq_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// Tests of the shape of the interface: overloads, parameter names, columns.

func overloadsOfSend(t *testing.T, b bench) {
	for _, c := range []struct{ args, want string }{
		{`'1'`, `1//now`},
		{`'2', '{"h":1}'::jsonb`, `2/{"h": 1}/now`},
		{`'3', 60`, `3//later`},
		{`'4', clock_timestamp() + interval '60 seconds'`, `4//later`},
		{`'5', '{"h":2}'::jsonb, 60`, `5/{"h": 2}/later`},
		{`'6', '{"h":3}'::jsonb, clock_timestamp() + interval '60 seconds'`, `6/{"h": 3}/later`},
	} {
		ids := b.ids(t, `select pgmq.send($1::text, `+c.args+`)`, b.queue)
		require.Len(t, ids, 1, c.args)
		require.Equal(t, c.want, b.stored(t, ids[0]), c.args)
	}
}

func overloadsOfSendBatch(t *testing.T, b bench) {
	for _, c := range []struct {
		args string
		want []string
	}{
		{`array['1','2']::jsonb[]`, []string{`1//now`, `2//now`}},
		{`array['3','4']::jsonb[], array['{"h":1}','{"h":2}']::jsonb[]`, []string{`3/{"h": 1}/now`, `4/{"h": 2}/now`}},
		{`array['5','6']::jsonb[], 60`, []string{`5//later`, `6//later`}},
		{`array['7']::jsonb[], clock_timestamp() + interval '60 seconds'`, []string{`7//later`}},
		{`array['8','9']::jsonb[], array['{"h":3}','{"h":4}']::jsonb[], 60`, []string{`8/{"h": 3}/later`, `9/{"h": 4}/later`}},
		{`array['10']::jsonb[], array['{"h":5}']::jsonb[], clock_timestamp() + interval '60 seconds'`, []string{`10/{"h": 5}/later`}},
	} {
		ids := b.ids(t, `select pgmq.send_batch($1::text, `+c.args+`)`, b.queue)
		require.Len(t, ids, len(c.want), c.args)
		require.IsIncreasing(t, append([]int64{0}, ids...), c.args)
		for i, id := range ids {
			require.Equal(t, c.want[i], b.stored(t, id), c.args)
		}
	}
}

// stored describes a row of the queue: body, headers, whether it is hidden.
func (b bench) stored(t *testing.T, id int64) string {
	t.Helper()
	return b.text(t, `select message::text || '/' || coalesce(headers::text, '') || '/' ||
		case when vt <= clock_timestamp() then 'now' when vt between clock_timestamp() + interval '50 seconds' and clock_timestamp() + interval '60 seconds' then 'later' else 'odd' end
		from pgmq.q_linear_workflow_queue where msg_id = $1`, id)
}

// Parameter names are part of the interface: clients use them.
func namedParameters(t *testing.T, b bench) {
	for _, call := range []string{
		`pgmq.create(queue_name => 'named')`,
		`pgmq.create_unlogged(queue_name => 'named_u')`,
		`pgmq.create_non_partitioned(queue_name => 'named_p')`,
		`pgmq.send(queue_name => 'named', msg => '1'::jsonb)`,
		`pgmq.send(queue_name => 'named', msg => '1'::jsonb, headers => '{}'::jsonb)`,
		`pgmq.send(queue_name => 'named', msg => '1'::jsonb, delay => 0)`,
		`pgmq.send(queue_name => 'named', msg => '1'::jsonb, delay => clock_timestamp())`,
		`pgmq.send(queue_name => 'named', msg => '1'::jsonb, headers => '{}'::jsonb, delay => 0)`,
		`pgmq.send(queue_name => 'named', msg => '1'::jsonb, headers => '{}'::jsonb, delay => clock_timestamp())`,
		`pgmq.send_batch(queue_name => 'named', msgs => array['1']::jsonb[])`,
		`pgmq.send_batch(queue_name => 'named', msgs => array['1']::jsonb[], headers => array['{}']::jsonb[])`,
		`pgmq.send_batch(queue_name => 'named', msgs => array['1']::jsonb[], delay => 0)`,
		`pgmq.send_batch(queue_name => 'named', msgs => array['1']::jsonb[], delay => clock_timestamp())`,
		`pgmq.send_batch(queue_name => 'named', msgs => array['1']::jsonb[], headers => array['{}']::jsonb[], delay => 0)`,
		`pgmq.send_batch(queue_name => 'named', msgs => array['1']::jsonb[], headers => array['{}']::jsonb[], delay => clock_timestamp())`,
		`pgmq.read(queue_name => 'named', vt => 0, qty => 1)`,
		`pgmq.read(queue_name => 'named', vt => 0, qty => 1, conditional => '{"a":1}'::jsonb)`,
		`pgmq.read_with_poll(queue_name => 'named', vt => 0, qty => 1)`,
		`pgmq.read_with_poll(queue_name => 'named', vt => 0, qty => 1, max_poll_seconds => 1, poll_interval_ms => 10, conditional => '{}'::jsonb)`,
		`pgmq.pop(queue_name => 'named')`,
		`pgmq.set_vt(queue_name => 'named', msg_id => 2::bigint, vt => 0)`,
		`pgmq.delete(queue_name => 'named', msg_id => 2::bigint)`,
		`pgmq.delete(queue_name => 'named', msg_ids => array[3]::bigint[])`,
		`pgmq.archive(queue_name => 'named', msg_id => 4::bigint)`,
		`pgmq.archive(queue_name => 'named', msg_ids => array[5]::bigint[])`,
		`pgmq.metrics(queue_name => 'named')`,
		`pgmq.metrics_all()`,
		`pgmq.list_queues()`,
		`pgmq.validate_queue_name(queue_name => 'named')`,
		`pgmq.purge_queue(queue_name => 'named')`,
		`pgmq.drop_queue(queue_name => 'named')`,
	} {
		_, err := b.pool.Exec(t.Context(), `select * from `+call)
		require.NoError(t, err, call)
	}
}

// Clients read these columns by name. Newer versions of pgmq have more.
func objects(t *testing.T, b bench) {
	for relation, columns := range map[string][]string{
		"pgmq.meta":                    {"queue_name varchar", "is_partitioned bool", "is_unlogged bool", "created_at timestamptz"},
		"pgmq.q_linear_workflow_queue": {"msg_id int8", "read_ct int4", "enqueued_at timestamptz", "vt timestamptz", "message jsonb", "headers jsonb"},
		"pgmq.a_linear_workflow_queue": {"msg_id int8", "read_ct int4", "enqueued_at timestamptz", "archived_at timestamptz", "vt timestamptz", "message jsonb", "headers jsonb"},
		"pgmq.message_record":          {"msg_id int8", "read_ct int4", "enqueued_at timestamptz", "vt timestamptz", "message jsonb", "headers jsonb"},
		"pgmq.queue_record":            {"queue_name varchar", "is_partitioned bool", "is_unlogged bool", "created_at timestamptz"},
		"pgmq.metrics_result": {
			"queue_name text", "queue_length int8", "newest_msg_age_sec int4", "oldest_msg_age_sec int4",
			"total_messages int8", "scrape_time timestamptz", "queue_visible_length int8",
		},
	} {
		rows, err := b.pool.Query(t.Context(), `select a.attname || ' ' || y.typname from pg_attribute a join pg_type y on y.oid = a.atttypid
		                                         where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped`, relation)
		require.NoError(t, err)
		found, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		require.Subset(t, found, columns, relation)
	}
	require.Equal(t, "a", b.text(t, `select attidentity::text from pg_attribute where attrelid = 'pgmq.q_linear_workflow_queue'::regclass and attname = 'msg_id'`),
		"generated always")
	for table, column := range map[string]string{"q_linear_workflow_queue": "vt", "a_linear_workflow_queue": "archived_at"} {
		require.Equal(t, "true", b.text(t, `select bool_or(indexdef like '%('||$2||')%')::text from pg_indexes where schemaname = 'pgmq' and tablename = $1`, table, column))
	}
	_, err := b.pool.Exec(t.Context(), `insert into pgmq.q_linear_workflow_queue (vt, message) values (clock_timestamp(), '1')`)
	require.NoError(t, err, "what senders of raw SQL rely on")
}

func detachArchive(t *testing.T, b bench) {
	ids := b.send(t, `1`)
	_, err := b.q.Archive(t.Context(), b.queue, ids...)
	require.NoError(t, err)
	_, err = b.pool.Exec(t.Context(), `select pgmq.detach_archive(queue_name => $1::text)`, b.queue)
	require.NoError(t, err)
	require.Equal(t, "1", b.text(t, `select count(*)::text from pgmq.a_linear_workflow_queue`))
}
