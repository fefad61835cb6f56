package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tasker-systems/tasker-host/host/internal/pgmq"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

const (
	sqlSetAside = `select tasker_set_aside($1::text, $2::bigint, $3::text, $4::text)`

	sqlNoteInbox = `insert into tasker_inboxes (queue_name) values ($1::text) on conflict do nothing`

	sqlSettlePosted = `
select o_verdict, o_finished, o_finished_state, o_due, o_enqueued
  from tasker_settle_posted($1::integer, $2::text, $3::bigint[], $4::uuid[], $5::integer[], $6::uuid[], $7::text[]::tasker_outcome[],
                            $8::text[], $9::text[], $10::text[], $11::bigint[], $12::bigint, $13::integer)`
)

// CreateQueue creates the queue of an inbox unless it exists, makes it rouse resting
// hosts, and records that it is an inbox: retention then cleans its archive, even if
// hosts read another queue later.
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

// ReadMessages reads up to most messages of an inbox, a queue through which others
// make requests of the host, and hides them for vt, in whole seconds. If a gate
// refuses the call, the error wraps [ErrRefused].
func (s *Store) ReadMessages(ctx context.Context, queue string, vt time.Duration, most int) (messages []pgmq.Message, err error) {
	err = s.onQueue(queue, ClassRead, func() (err error) {
		messages, err = pgmq.New(s.pool).Read(ctx, queue, vt, most, nil)
		return err
	})
	return messages, err
}

// SetAside moves a message that cannot be processed to the dead letters.
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

// Posted is an outcome that an outside worker has posted on a queue.
type Posted struct {
	Settlement // with a lease of zeros if the worker has claimed nothing

	Message int64 // that it came in
}

// SettlePosted records a batch of posted outcomes and removes their messages, or sets
// aside those that do not count, in one transaction. Repeating it changes nothing. The
// batch is sorted in place as by [Store.Settle], and should hold only successes, or
// none. host is the calling host, for the history; it is leased nothing.
func (s *Store) SettlePosted(ctx context.Context, host int32, queue string, p Policy, batch []Posted) (Settled, error) {
	slices.SortStableFunc(batch, func(a, b Posted) int { return CompareKeys(a.StepKey, b.StepKey) })
	settlements, messages, leases := make([]Settlement, len(batch)), make([]int64, len(batch)), make([]*vocab.UUID, len(batch))
	for i := range batch {
		settlements[i], messages[i] = batch[i].Settlement, batch[i].Message
		if batch[i].Lease != (vocab.UUID{}) {
			leases[i] = &batch[i].Lease
		}
	}
	a := settleArgs(settlements)
	var out Settled
	var ended finishedArrays
	err := s.onQueue(queue, ClassSettle, func() error {
		return s.timed(ctx, func(db querier) error {
			return db.QueryRow(ctx, sqlSettlePosted, host, queue, messages, a.task, a.step, leases, a.outcome, a.result, a.metadata, a.failure,
				a.retryAfter, p.RetryAfterCap.Milliseconds(), p.ClaimFactor,
			).Scan(&out.Verdicts, &ended.task, &ended.state, &out.Due, &out.Enqueued)
		})
	})
	if err != nil {
		return Settled{}, fmt.Errorf("settle %d posted outcomes: %w", len(batch), err)
	}
	out.Finished = ended.finished()
	return out, nil
}
