package store

import (
	"context"
	"fmt"
	"time"
)

const sqlRecordHealth = `
insert into tasker_system_events (happened_at, kind, host, subject, from_state, to_state, reason)
select u.at, 'health', $1::text, u.subject, u.from_state, u.to_state, u.reason
  from unnest($2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[])
       with ordinality u(at, subject, from_state, to_state, reason, ord)
 order by u.ord`

// HealthChange is a host's check whose status changed.
type HealthChange struct {
	At                       time.Time
	Check, From, To, Message string
}

// RecordHealth records changes of the health of a host, for clients that follow
// events.
func (s *Store) RecordHealth(ctx context.Context, host string, changes []HealthChange) error {
	n := len(changes)
	at, check, from, to, message := make([]time.Time, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	for i, c := range changes {
		at[i], check[i], from[i], to[i], message[i] = c.At, storable(c.Check), c.From, c.To, storable(c.Message)
	}
	if _, err := s.pool.Exec(ctx, sqlRecordHealth, host, at, check, from, to, message); err != nil {
		return fmt.Errorf("record the health of %s: %w", host, err)
	}
	return nil
}
