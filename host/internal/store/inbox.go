package store

import (
	"context"
	"fmt"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/pgmq"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

const (
	sqlSetAside = `select tasker_set_aside($1::text, $2::bigint, $3::text, $4::text)`

	sqlAdoptSteps = `select o_task, o_step, o_lease from tasker_adopt_steps($1::integer, $2::uuid[], $3::integer[])`
)

// CreateQueue makes a queue unless it exists.
func (s *Store) CreateQueue(ctx context.Context, queue string) error {
	return pgmq.New(s.pool).Create(ctx, queue)
}

// ReadMessages reads up to most messages of an inbox, a queue by which others ask
// something of the host, and hides them for vt, whole seconds.
func (s *Store) ReadMessages(ctx context.Context, queue string, vt time.Duration, most int) ([]pgmq.Message, error) {
	return pgmq.New(s.pool).Read(ctx, queue, vt, most, nil)
}

// DeleteMessages removes messages that have been acted on.
func (s *Store) DeleteMessages(ctx context.Context, queue string, ids []int64) error {
	_, err := pgmq.New(s.pool).Delete(ctx, queue, ids...)
	return err
}

// SetAside moves a message that cannot be acted on to the dead letters.
func (s *Store) SetAside(ctx context.Context, queue string, id int64, reason, detail string) error {
	if _, err := s.pool.Exec(ctx, sqlSetAside, queue, id, reason, detail); err != nil {
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
