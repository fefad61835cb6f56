package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	sqlBacklogs = `select o_queue, o_waiting, o_oldest_seconds, o_hosts from tasker_backlogs($1::text[], $2::integer, $3::text[])`

	sqlWaiting = `select o.queue from tasker_waiting($1::text[], $2::text[], $3::text[]) o(queue)`

	// Reports how many connections this host may have, unless the others know that
	// number already.
	sqlConnections = `
with told as (
  update tasker_hosts h set connections = $2::integer
   where h.host_id = $1::integer and h.connections is distinct from $2::integer
)
select current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer,
       count(*), coalesce(sum(h.connections), 0)
  from tasker_hosts h
 where h.host_id <> $1::integer and h.alive_until > clock_timestamp() and h.state not in ('dead', 'stopped')`
)

// Backlog is the work that waits in a queue.
type Backlog struct {
	Waiting int // messages that are visible now, among those that are looked at
	Oldest  time.Duration
	Hosts   int // hosts that share it, this one included
}

// Waiting returns which of the queues hold a message that is visible now: of the
// queues of namespaces, a message for one of the handlers; of the inboxes, any. A queue
// that does not exist is among them.
func (s *Store) Waiting(ctx context.Context, queues, handlers, inboxes []string) ([]string, error) {
	rows, err := s.pool.Query(ctx, sqlWaiting, append([]string{}, queues...), append([]string{}, handlers...), append([]string{}, inboxes...))
	if err != nil {
		return nil, fmt.Errorf("check %d queues: %w", len(queues)+len(inboxes), err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("check %d queues: %w", len(queues)+len(inboxes), err)
	}
	return found, nil
}

// maxBacklog is how many waiting messages are looked at.
const maxBacklog = 20_000

// Backlogs returns what waits in each queue: in queues of namespaces only messages for
// the handlers named, in others all. A queue that does not exist is left out.
func (s *Store) Backlogs(ctx context.Context, queues, handlers []string) (map[string]Backlog, error) {
	rows, err := s.pool.Query(ctx, sqlBacklogs, queues, maxBacklog, append([]string{}, handlers...))
	if err != nil {
		return nil, fmt.Errorf("read backlogs: %w", err)
	}
	defer rows.Close()
	found := make(map[string]Backlog, len(queues))
	for rows.Next() {
		var queue string
		var b Backlog
		var oldest float64
		if err := rows.Scan(&queue, &b.Waiting, &oldest, &b.Hosts); err != nil {
			return nil, fmt.Errorf("read backlogs: %w", err)
		}
		b.Oldest = max(seconds(oldest), 0)
		found[queue] = b
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read backlogs: %w", err)
	}
	return found, nil
}

// Connections describes the server's connections and who may take them.
type Connections struct {
	Server     int // that clients may have in all
	OtherHosts int // that are alive
	OthersTake int // that those may have together, as far as they have reported it
}

// Connections reports to the other hosts how many connections this host may have, and
// returns what they reported.
func (s *Store) Connections(ctx context.Context, host int32, own int) (Connections, error) {
	var c Connections
	if err := s.pool.QueryRow(ctx, sqlConnections, host, own).Scan(&c.Server, &c.OtherHosts, &c.OthersTake); err != nil {
		return Connections{}, fmt.Errorf("count connections: %w", err)
	}
	return c, nil
}
