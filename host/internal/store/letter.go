package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

const (
	letterColumns = `
select d.dead_letter_id, d.kind, coalesce(d.queue_name, ''), coalesce(d.msg_id, 0), d.task_uuid, d.step_no, coalesce(d.generation, 0),
       d.reason, d.detail, d.created_at, d.closed_at, coalesce(d.closed_as, ''), coalesce(d.closed_by, ''), coalesce(d.closed_reason, ''),
       coalesce(ns.name, ''), coalesce(n.name, '')`

	letterJoins = `
  from tasker_dead_letters d
  left join tasker_tasks t on t.task_uuid = d.task_uuid
  left join tasker_task_namespaces ns on ns.namespace_id = t.namespace_id
  left join tasker_named_steps n on n.plan_id = t.plan_id and n.step_no = d.step_no`

	sqlReadLetter = letterColumns + `, d.body, d.headers` + letterJoins + `
 where d.dead_letter_id = $1::bigint`

	// A message belongs to a namespace through its queue, or through what it asks for.
	sqlListLetters = letterColumns + `, null::jsonb, null::jsonb` + letterJoins + `
 where d.dead_letter_id < $1::bigint
   and ($2::boolean or d.closed_at is null)
   and ($3::text = '' or d.kind = $3::text)
   and ($4::text = '' or d.reason = $4::text)
   and ($5::text = '' or d.queue_name = $5::text)
   and ($6::text = '' or ns.name = $6::text
        or d.kind = 'message' and (d.queue_name = $6::text || '_queue' or d.body ->> 'namespace' = $6::text))
   and ($7::bigint = 0 or d.created_at < clock_timestamp() - $7::bigint * interval '1 millisecond')
 order by d.dead_letter_id desc
 limit $8::integer`

	sqlReplayMessage = `select coalesce(tasker_replay_message($1::bigint, $2::text, $3::text), '')`

	sqlDiscardLetter = `
update tasker_dead_letters d
   set closed_at = clock_timestamp(), closed_as = 'discarded', closed_reason = nullif($2::text, ''), closed_by = nullif($3::text, '')
 where d.dead_letter_id = $1::bigint and d.closed_at is null`
)

// LetterFilter selects dead letters. Zero values select all that are open.
type LetterFilter struct {
	Closed                         bool // include closed ones
	Kind, Reason, Queue, Namespace string
	OlderThan                      time.Duration
	Before                         int64 // only letters with a smaller number; 0: from the newest
	Limit                          int   // at least 1
}

// ListLetters returns dead letters, newest first, without bodies.
func (s *Store) ListLetters(ctx context.Context, f LetterFilter) ([]readmodel.DeadLetter, error) {
	before := f.Before
	if before == 0 {
		before = 1<<63 - 1
	}
	rows, err := s.pool.Query(ctx, sqlListLetters, before, f.Closed, f.Kind, f.Reason, f.Queue, f.Namespace, f.OlderThan.Milliseconds(), f.Limit)
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	letters, err := pgx.CollectRows(rows, scanLetter)
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	return letters, nil
}

// ReadLetter returns a dead letter with its body. The error is [ErrNotFound] if no
// letter has that number.
func (s *Store) ReadLetter(ctx context.Context, id int64) (readmodel.DeadLetter, error) {
	rows, err := s.pool.Query(ctx, sqlReadLetter, id)
	if err != nil {
		return readmodel.DeadLetter{}, fmt.Errorf("read dead letter %d: %w", id, err)
	}
	letter, err := pgx.CollectExactlyOneRow(rows, scanLetter)
	if err != nil {
		return readmodel.DeadLetter{}, fmt.Errorf("read dead letter %d: %w", id, orNotFound(err))
	}
	return letter, nil
}

func scanLetter(r pgx.CollectableRow) (readmodel.DeadLetter, error) {
	var l readmodel.DeadLetter
	var task *vocab.UUID
	var step *int
	var closed *time.Time
	var c readmodel.LetterClosed
	var body, headers *json.RawMessage
	err := r.Scan(&l.ID, &l.Kind, &l.Queue, &l.MessageID, &task, &step, &l.Generation, &l.Reason, &l.Detail, &l.CreatedAt,
		&closed, &c.As, &c.By, &c.Reason, &l.Namespace, &l.Step, &body, &headers)
	if err != nil {
		return l, err
	}
	l.CreatedAt = l.CreatedAt.UTC()
	if task != nil {
		l.TaskUUID = task.String()
		if step != nil {
			l.StepUUID = vocab.StepID(*task, *step).String()
		}
	}
	if closed != nil {
		c.At = closed.UTC()
		l.Closed = &c
	}
	if body != nil {
		l.Body = *body
	}
	if headers != nil {
		l.Headers = *headers
	}
	return l, nil
}

// ErrLetterClosed says that a dead letter is already closed.
var ErrLetterClosed = errors.New("it is already closed")

// ErrNoQueue says that the queue of a message is gone.
var ErrNoQueue = errors.New("its queue no longer exists")

// ReplayMessage sends a message that was set aside to its queue again. Errors:
// [ErrNotFound], [ErrLetterClosed], [ErrNoQueue].
func (s *Store) ReplayMessage(ctx context.Context, id int64, o Operator) error {
	var verdict string
	err := s.pool.QueryRow(ctx, sqlReplayMessage, id, o.Reason, o.By).Scan(&verdict)
	switch {
	case err != nil:
	case verdict == "":
		err = ErrNotFound
	case verdict == "closed":
		err = ErrLetterClosed
	case verdict == "no_queue":
		err = ErrNoQueue
	}
	if err != nil {
		return fmt.Errorf("replay dead letter %d: %w", id, err)
	}
	return nil
}

// DiscardLetter closes a dead letter without doing anything about it; the letter
// remains for later questions. The error is [ErrLetterClosed] if it is closed or
// does not exist.
func (s *Store) DiscardLetter(ctx context.Context, id int64, o Operator) error {
	tag, err := s.pool.Exec(ctx, sqlDiscardLetter, id, o.Reason, o.By)
	if err == nil && tag.RowsAffected() == 0 {
		err = ErrLetterClosed
	}
	if err != nil {
		return fmt.Errorf("discard dead letter %d: %w", id, err)
	}
	return nil
}
