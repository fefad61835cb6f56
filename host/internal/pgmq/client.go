package pgmq

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// DBTX is a pool, a connection or a transaction of pgx.
type DBTX interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// ErrNoQueue says that the queue does not exist.
var ErrNoQueue = errors.New("no such queue")

// Every parameter is cast, because the functions are overloaded and newer versions
// of pgmq add overloads. Every column is named, because newer versions add columns.
const (
	createSQL    = `select pgmq.create($1::text)`
	sendSQL      = `select s from pgmq.send($1::text, $2::jsonb, $3::jsonb, clock_timestamp() + $4::bigint * interval '1 microsecond') s`
	sendBatchSQL = `select s from pgmq.send_batch($1::text, $2::jsonb[], $3::jsonb[], clock_timestamp() + $4::bigint * interval '1 microsecond') s`
	readSQL      = `select msg_id, read_ct, enqueued_at, vt, message, headers from pgmq.read($1::text, $2::integer, $3::integer, $4::jsonb)`
	popSQL       = `select msg_id, read_ct, enqueued_at, vt, message, headers from pgmq.pop($1::text)`
	setVTSQL     = `select msg_id, read_ct, enqueued_at, vt, message, headers from pgmq.set_vt($1::text, $2::bigint, $3::integer)`
	deleteSQL    = `select d from pgmq.delete($1::text, $2::bigint[]) d`
	archiveSQL   = `select a from pgmq.archive($1::text, $2::bigint[]) a`
	metricsSQL   = `
select queue_name, queue_length, coalesce(queue_visible_length, 0), coalesce(newest_msg_age_sec, 0), coalesce(oldest_msg_age_sec, 0),
       total_messages, scrape_time
  from pgmq.metrics($1::text)`
	listSQL = `select queue_name, is_partitioned, is_unlogged, created_at from pgmq.list_queues() order by queue_name`
)

// Outgoing is a message to send.
type Outgoing struct {
	Body    json.RawMessage // any JSON value
	Headers json.RawMessage // a JSON object, or nil
}

// Message is a message that was read.
type Message struct {
	ID         int64 // unique in its queue; may be used again after a failover that lost data
	Reads      int   // how many times it was read, this time included
	EnqueuedAt time.Time
	VisibleAt  time.Time       // when others may read it
	Body       json.RawMessage // nil for an SQL null, which foreign senders can send
	Headers    json.RawMessage // nil: none
}

// Queue is an entry of the list of queues.
type Queue struct {
	Name        string
	Partitioned bool
	Unlogged    bool // its messages do not survive a crash of the server
	CreatedAt   time.Time
}

// Metrics counts a queue's messages. The ages are in whole seconds.
type Metrics struct {
	Queue                string
	Length, Visible      int64
	NewestAge, OldestAge time.Duration // 0 if it is empty
	Sent                 int64         // since the queue was created
	At                   time.Time
}

// Client calls the queue functions on a database handle. It is a value to be created
// where it is used: pgmq.New(tx).Send(…).
type Client struct{ db DBTX }

// New returns a client on a pool, a connection or a transaction.
func New(db DBTX) Client { return Client{db: db} }

// Create creates a queue. It does nothing if the queue exists.
func (c Client) Create(ctx context.Context, queue string) error {
	if err := CheckName(queue); err != nil {
		return fmt.Errorf("create queue: %w", err)
	}
	if _, err := c.db.Exec(ctx, createSQL, queue); err != nil {
		return fmt.Errorf("create queue %s: %w", queue, err)
	}
	return nil
}

// Send puts a message on the queue, to be visible after the delay, and returns
// its id.
func (c Client) Send(ctx context.Context, queue string, m Outgoing, delay time.Duration) (int64, error) {
	var id int64
	err := c.db.QueryRow(ctx, sendSQL, queue, m.Body, m.Headers, delay.Microseconds()).Scan(&id)
	if err != nil {
		return 0, failed("send to", queue, err)
	}
	return id, nil
}

// SendBatch puts messages on the queue, to be visible after the delay, and
// returns their ids, which ascend in the order of the batch.
func (c Client) SendBatch(ctx context.Context, queue string, batch []Outgoing, delay time.Duration) ([]int64, error) {
	if len(batch) == 0 {
		return nil, nil
	}
	bodies, headers := make([]json.RawMessage, len(batch)), make([]json.RawMessage, len(batch))
	for i, m := range batch {
		bodies[i], headers[i] = m.Body, m.Headers
	}
	ids, err := c.ids(ctx, sendBatchSQL, queue, bodies, headers, delay.Microseconds())
	if err != nil {
		return nil, failed("send to", queue, err)
	}
	return ids, nil
}

// Read takes up to limit visible messages, in the order of their ids, and hides
// them for the given time, in whole seconds, rounded up. A filter, if not nil,
// is a JSON object that their bodies must contain.
func (c Client) Read(ctx context.Context, queue string, hide time.Duration, limit int, filter json.RawMessage) ([]Message, error) {
	seconds, err := wholeSeconds(hide)
	if err != nil {
		return nil, failed("read from", queue, err)
	}
	if filter == nil {
		filter = json.RawMessage("{}")
	}
	messages, err := c.messages(ctx, readSQL, queue, seconds, limit, filter)
	if err != nil {
		return nil, failed("read from", queue, err)
	}
	// Not every version of pgmq returns them in order.
	slices.SortFunc(messages, func(a, b Message) int { return cmp.Compare(a.ID, b.ID) })
	return messages, nil
}

// Pop takes the first visible message off the queue; false: there is none.
func (c Client) Pop(ctx context.Context, queue string) (Message, bool, error) {
	return c.one(ctx, "pop from", popSQL, queue)
}

// SetVT hides a message for the given time from now, in whole seconds, rounded
// up; 0 makes it visible. It returns false if there is no such message. The caller
// must know that the message is its own: pgmq does not check.
func (c Client) SetVT(ctx context.Context, queue string, id int64, hide time.Duration) (Message, bool, error) {
	seconds, err := wholeSeconds(hide)
	if err != nil {
		return Message{}, false, failed("set visibility in", queue, err)
	}
	return c.one(ctx, "set visibility in", setVTSQL, queue, id, seconds)
}

// Delete removes messages and returns the ids of those that existed. The caller must
// know that the messages are its own: pgmq does not check.
func (c Client) Delete(ctx context.Context, queue string, ids ...int64) ([]int64, error) {
	deleted, err := c.ids(ctx, deleteSQL, queue, ids)
	if err != nil {
		return nil, failed("delete from", queue, err)
	}
	return deleted, nil
}

// Archive moves messages to the queue's archive and returns the ids of those that
// existed.
func (c Client) Archive(ctx context.Context, queue string, ids ...int64) ([]int64, error) {
	archived, err := c.ids(ctx, archiveSQL, queue, ids)
	if err != nil {
		return nil, failed("archive from", queue, err)
	}
	return archived, nil
}

// Metrics counts all messages of a queue, so it is not for a hot loop.
func (c Client) Metrics(ctx context.Context, queue string) (Metrics, error) {
	var m Metrics
	var newest, oldest int64
	err := c.db.QueryRow(ctx, metricsSQL, queue).Scan(&m.Queue, &m.Length, &m.Visible, &newest, &oldest, &m.Sent, &m.At)
	if err != nil {
		return Metrics{}, failed("measure", queue, err)
	}
	m.NewestAge, m.OldestAge = time.Duration(newest)*time.Second, time.Duration(oldest)*time.Second
	return m, nil
}

// List returns all queues by name.
func (c Client) List(ctx context.Context) ([]Queue, error) {
	rows, err := c.db.Query(ctx, listSQL)
	if err != nil {
		return nil, fmt.Errorf("list queues: %w", err)
	}
	queues, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Queue])
	if err != nil {
		return nil, fmt.Errorf("list queues: %w", err)
	}
	return queues, nil
}

func (c Client) ids(ctx context.Context, sql string, args ...any) ([]int64, error) {
	rows, err := c.db.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int64])
}

func (c Client) messages(ctx context.Context, sql string, args ...any) ([]Message, error) {
	rows, err := c.db.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Message])
}

func (c Client) one(ctx context.Context, what, sql, queue string, more ...any) (Message, bool, error) {
	messages, err := c.messages(ctx, sql, append([]any{queue}, more...)...)
	if err != nil {
		return Message{}, false, failed(what, queue, err)
	}
	if len(messages) == 0 {
		return Message{}, false, nil
	}
	return messages[0], true, nil
}

// wholeSeconds converts to the unit of pgmq's visibility, rounding up: a message hidden
// for too long is late, but one hidden for too short a time runs twice.
func wholeSeconds(d time.Duration) (int32, error) {
	seconds := math.Ceil(d.Seconds())
	if seconds < 0 || seconds > math.MaxInt32 {
		return 0, fmt.Errorf("visibility timeout %v is out of range", d)
	}
	return int32(seconds), nil
}

func failed(what, queue string, err error) error {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == pgerrcode.UndefinedTable {
		return fmt.Errorf("%s queue %.64q: %w", what, queue, errors.Join(ErrNoQueue, err))
	}
	return fmt.Errorf("%s queue %.64q: %w", what, queue, err)
}
