package store

import (
	"context"
	"fmt"
)

const sqlSweepLanes = `
select o_removed, coalesce(o_queue, ''), coalesce(o_priority, 0)::smallint, coalesce(o_msg, 0)
  from tasker_sweep_lanes($1::text, $2::smallint, $3::bigint, $4::integer)`

// Lane is a position among the entries that lead to messages with a priority; zero is
// before the first.
type Lane struct {
	Queue    string
	Priority int16
	Message  int64
}

// lanePage is how many entries one sweep looks at. In a queue with a million of them, all
// are checked once in a quarter of an hour.
const lanePage = 5000

// SweepLanes looks at the entries after a position, and removes those whose message is
// gone. It returns how many, and where to continue: zero after the last.
func (s *Store) SweepLanes(ctx context.Context, after Lane) (removed int, last Lane, err error) {
	err = s.pool.QueryRow(ctx, sqlSweepLanes, after.Queue, after.Priority, after.Message, lanePage).
		Scan(&removed, &last.Queue, &last.Priority, &last.Message)
	if err != nil {
		return 0, Lane{}, fmt.Errorf("sweep entries of messages with a priority: %w", err)
	}
	return removed, last, nil
}
