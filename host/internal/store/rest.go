package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tasker-systems/tasker-host/host/internal/pgmq"
)

// 00190_rest.sql explains how hosts rest and are roused.
const (
	sqlRest = `
select o_known, coalesce(o_why, ''), o_next_ms, o_active, o_blind
  from tasker_rest($1::integer, $2::bigint, $3::text, $4::text[], $5::bigint, $6::bigint, $7::text[], $8::text[], $9::text[])`

	sqlWatchQueue = `select tasker_watch_queue($1::text)`

	// The second column tells whether we talk to the server itself: a pooler in
	// between keeps neither the lock nor the channel for us.
	sqlLieDown = `select pg_try_advisory_lock_shared(hashtext('tasker_bed'), 0), pg_backend_pid()`

	sqlTryDoor = `
select case when pg_try_advisory_lock(hashtext('tasker_door'), 0) then pg_advisory_unlock(hashtext('tasker_door'), 0) else false end`

	sqlGetUp = `select pg_advisory_unlock_shared(hashtext('tasker_bed'), 0)`

	listenSQL   = `listen tasker_rouse`
	unlistenSQL = `unlisten tasker_rouse`
)

// Resting is what a host at rest reports and asks.
type Resting struct {
	Host             int32
	Rises            int64 // as in [Store.Rise]
	State            string
	Served           []string      // the handlers that it serves, by name
	Lease, RestLease time.Duration // if it must look often all the same; if not
	Queues, Inboxes  []string      // where work for it may arrive
}

// Rest is the answer to Resting.
type Rest struct {
	Known  bool          // false: the host was declared dead, or has risen since
	Why    string        // it must look often all the same; empty: it need not
	Next   time.Duration // until the next hidden message becomes visible; 0: there is none
	Active bool          // there are tasks that have not ended
	Blind  []string      // queues that do not rouse hosts, see [Store.WatchQueues]
}

// Rest is the heartbeat of a host that has nothing to do.
func (s *Store) Rest(ctx context.Context, r Resting) (Rest, error) {
	out, err := rest(ctx, s.plain, r)
	return out, s.vital(err)
}

func rest(ctx context.Context, db pgmq.DBTX, r Resting) (Rest, error) {
	var out Rest
	var next *int64
	served := append([]string{}, r.Served...)
	err := db.QueryRow(ctx, sqlRest, r.Host, r.Rises, r.State, served, r.Lease.Milliseconds(), r.RestLease.Milliseconds(),
		append([]string{}, r.Queues...), served, append([]string{}, r.Inboxes...)).
		Scan(&out.Known, &out.Why, &next, &out.Active, &out.Blind)
	if err != nil {
		return Rest{}, fmt.Errorf("rest of host %d: %w", r.Host, err)
	}
	if next != nil {
		out.Next = max(time.Duration(*next)*time.Millisecond, time.Millisecond)
	}
	return out, nil
}

// WatchQueues makes queues rouse resting hosts. It reports false if that is not
// permitted for one of them, or not possible now.
func (s *Store) WatchQueues(ctx context.Context, queues []string) (bool, error) {
	all := true
	for _, queue := range queues {
		err := s.define(ctx, func(tx pgx.Tx) error {
			var done bool
			if err := tx.QueryRow(ctx, sqlWatchQueue, queue).Scan(&done); err != nil {
				return fmt.Errorf("watch queue %s: %w", queue, err)
			}
			all = all && done
			return nil
		})
		if err != nil {
			return false, err
		}
	}
	return all, nil
}

func watchQueue(ctx context.Context, tx pgx.Tx, queue string) error {
	if _, err := tx.Exec(ctx, sqlWatchQueue, queue); err != nil {
		return fmt.Errorf("watch queue %s: %w", queue, err)
	}
	return nil
}

// ErrAwake is returned while a message is being sent: try again later.
var ErrAwake = errors.New("a message is being sent at this moment")

// errPooler says that the session is not our own.
var errPooler = errors.New("a pooler is in front of the server, which keeps no session for us")

// Bed is a connection from the pool on which a host rests. It may be used by one
// goroutine only.
type Bed struct {
	conn *pgxpool.Conn
	gate Gate
}

// LieDown takes a bed. From then on, every sender rouses the host; what was sent before
// is seen by [Bed.Rest]. Call [Bed.GetUp] afterwards. The error is [ErrAwake], or says
// why this host cannot be roused.
func (s *Store) LieDown(ctx context.Context) (*Bed, error) {
	conn, err := s.plain.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("begin to rest: %w", err)
	}
	b := &Bed{conn: conn, gate: s.gate}
	if err := b.lieDown(ctx); err != nil {
		b.GetUp(ctx)
		return nil, fmt.Errorf("begin to rest: %w", err)
	}
	return b, nil
}

func (b *Bed) lieDown(ctx context.Context) error {
	if _, err := b.conn.Exec(ctx, listenSQL); err != nil {
		return err
	}
	var taken, shut bool
	var pid uint32
	if err := b.conn.QueryRow(ctx, sqlLieDown).Scan(&taken, &pid); err != nil {
		return err
	}
	if pid != b.conn.Conn().PgConn().PID() {
		return errPooler
	}
	if !taken {
		return ErrAwake
	}
	if err := b.conn.QueryRow(ctx, sqlTryDoor).Scan(&shut); err != nil {
		return err
	}
	if !shut {
		return ErrAwake
	}
	return nil
}

// Rest is [Store.Rest] on the bed's own connection.
func (b *Bed) Rest(ctx context.Context, r Resting) (Rest, error) {
	out, err := rest(ctx, b.conn, r)
	if b.gate != nil {
		b.gate.Told(err)
	}
	return out, err
}

// Wait waits until ctx ends or somebody rouses the host. An error means that the
// connection is lost.
func (b *Bed) Wait(ctx context.Context) (roused bool, err error) {
	_, err = b.conn.Conn().WaitForNotification(ctx)
	switch {
	case err == nil:
		return true, nil
	case ctx.Err() != nil && !b.conn.Conn().IsClosed():
		return false, nil
	default:
		return false, fmt.Errorf("rest: %w", err)
	}
}

// GetUp gives the connection back.
func (b *Bed) GetUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), getUpTime)
	defer cancel()
	_, err := b.conn.Exec(ctx, unlistenSQL)
	if err == nil {
		_, err = b.conn.Exec(ctx, sqlGetUp)
	}
	if err != nil {
		_ = b.conn.Conn().Close(ctx) // the session ends, and the bed with it
	}
	cancel() // only what has arrived already is left, which must not rouse the next one here
	for err == nil {
		_, err = b.conn.Conn().WaitForNotification(ctx)
	}
	b.conn.Release()
}

// getUpTime bounds how long leaving a bed may take.
const getUpTime = 2 * time.Second
