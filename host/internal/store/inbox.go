package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tasker-systems/tasker-host/host/internal/pgmq"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

const (
	sqlSetAside = `select tasker_set_aside($1::text, $2::bigint, $3::text, $4::text)`

	sqlNoteInbox = `insert into tasker_inboxes (queue_name) values ($1::text) on conflict do nothing`

	sqlAdoptSteps = `select o_task, o_step, o_lease from tasker_adopt_steps($1::integer, $2::uuid[], $3::integer[])`
)

// CreateQueue makes the queue of an inbox unless it exists, has it rouse hosts that
// rest, and notes that it is an inbox: retention sees to its archive, also when
// hosts read another some day.
func (s *Store) CreateQueue(ctx context.Context, queue string) error {
	return s.define(ctx, func(tx pgx.Tx) error {
		if err := pgmq.New(tx).Create(ctx, queue); err != nil {
			return err
		}
		if err := watchQueue(ctx, tx, queue); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, sqlNoteInbox, queue); err != nil {
			return fmt.Errorf("note that queue %s is an inbox: %w", queue, err)
		}
		return nil
	})
}

// ReadMessages reads up to most messages of an inbox, a queue by which others ask
// something of the host, and hides them for vt, whole seconds. While a gate
// refuses that, the error wraps [ErrRefused].
func (s *Store) ReadMessages(ctx context.Context, queue string, vt time.Duration, most int) (messages []pgmq.Message, err error) {
	err = s.onQueue(queue, ClassRead, func() (err error) {
		messages, err = pgmq.New(s.pool).Read(ctx, queue, vt, most, nil)
		return err
	})
	return messages, err
}

// DeleteMessages removes messages that have been acted on.
func (s *Store) DeleteMessages(ctx context.Context, queue string, ids []int64) error {
	return s.onQueue(queue, ClassSettle, func() error {
		_, err := pgmq.New(s.pool).Delete(ctx, queue, ids...)
		return err
	})
}

// SetAside moves a message that cannot be acted on to the dead letters.
func (s *Store) SetAside(ctx context.Context, queue string, id int64, reason, detail string) error {
	err := s.onQueue(queue, ClassSettle, func() error {
		_, err := s.pool.Exec(ctx, sqlSetAside, queue, id, reason, detail)
		return err
	})
	if err != nil {
		return fmt.Errorf("set message %d of %s aside: %w", id, queue, err)
	}
	return nil
}

// Adopt leases to the host those of the steps that are enqueued, because a
// result for them has come from a worker that claims nothing.
func (s *Store) Adopt(ctx context.Context, host int32, steps []StepKey) (map[StepKey]vocab.UUID, error) {
	tasks, numbers := make([]vocab.UUID, len(steps)), make([]int32, len(steps))
	for i, k := range steps {
		tasks[i], numbers[i] = k.Task, k.Number
	}
	rows, err := s.pool.Query(ctx, sqlAdoptSteps, host, tasks, numbers)
	if err != nil {
		return nil, fmt.Errorf("adopt %d steps: %w", len(steps), err)
	}
	defer rows.Close()
	leases := make(map[StepKey]vocab.UUID, len(steps))
	for rows.Next() {
		var k StepKey
		var lease vocab.UUID
		if err := rows.Scan(&k.Task, &k.Number, &lease); err != nil {
			return nil, fmt.Errorf("adopt %d steps: %w", len(steps), err)
		}
		leases[k] = lease
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("adopt %d steps: %w", len(steps), err)
	}
	return leases, nil
}
