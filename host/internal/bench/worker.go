package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// What a worker in any language would do: one statement claims and one settles; who
// runs one step at a time claims once and then settles each and gets the next with
// one statement.
const (
	sqlWorkerClaim = `
select coalesce(array_agg(step_uuid order by step_uuid), '{}'), coalesce(array_agg(lease_id order by step_uuid), '{}')
  from tasker_worker_claim($1::text, $2::text, $3::text[], $4::integer)`

	sqlWorkerSettle = `
select count(*) filter (where s.verdict in ('recorded', 'already_recorded'))
  from tasker_worker_complete($1::uuid[], $2::uuid[], array_fill($3::text, array[cardinality($1::uuid[])])) s`

	sqlWorkerNext = `
select verdict in ('recorded', 'already_recorded'), step_uuid, lease_id
  from tasker_worker_next($1::uuid, $2::uuid, $3::text, $4::text, $5::text, $6::text[])`
)

const (
	maxClaim      = 100 // steps at once: the most that tasker_worker_claim allows
	workerPollMin = time.Millisecond
	workerPollMax = 50 * time.Millisecond
	workerResult  = `{"status":"ok","handler":"bench.outside","value":420}`
)

// Work is an outside worker: it needs a database and nothing else. It claims up to
// claim steps at once, works until ctx ends, and calls recorded with the number of
// steps it has settled. If it claims many it fetches ahead: it has two connections,
// and claims the next ones with one while it settles with the other.
func Work(ctx context.Context, database, name string, claim int, recorded func(steps int) error) error {
	if claim == 1 {
		return withConn(ctx, database, func(conn *pgx.Conn) error {
			return claims(ctx, conn, name, claim, func(c claimed) error { return workOne(ctx, conn, name, c.steps[0], c.leases[0], recorded) })
		})
	}
	ahead := make(chan claimed)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(ahead)
		return withConn(ctx, database, func(conn *pgx.Conn) error {
			return claims(ctx, conn, name, claim, func(c claimed) error {
				select {
				case ahead <- c:
				case <-ctx.Done():
				}
				return nil
			})
		})
	})
	group.Go(func() error {
		return withConn(ctx, database, func(conn *pgx.Conn) error {
			for c := range ahead {
				if err := settleMany(ctx, conn, c, recorded); err != nil {
					return err
				}
			}
			return nil
		})
	})
	return group.Wait()
}

// withConn does something with a connection of its own.
func withConn(ctx context.Context, database string, do func(conn *pgx.Conn) error) (err error) {
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		return workerError(ctx, "connect", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	return do(conn)
}

// claimed are steps and their leases.
type claimed struct{ steps, leases []vocab.UUID }

// claims claims steps and hands them to do, until ctx ends.
func claims(ctx context.Context, conn *pgx.Conn, name string, claim int, do func(c claimed) error) error {
	wait := workerPollMin
	for ctx.Err() == nil {
		var c claimed
		if err := conn.QueryRow(ctx, sqlWorkerClaim, Namespace, name, []string{apart}, claim).Scan(&c.steps, &c.leases); err != nil {
			return workerError(ctx, "claim", err)
		}
		if len(c.steps) == 0 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
			wait = min(2*wait, workerPollMax)
			continue
		}
		if err := do(c); err != nil {
			return err
		}
		wait = workerPollMin
	}
	return nil
}

// workOne settles a step and goes on until there is no next one.
func workOne(ctx context.Context, conn *pgx.Conn, name string, step, lease vocab.UUID, recorded func(steps int) error) error {
	for next := (&step); next != nil; {
		var done bool
		var under *vocab.UUID
		if err := conn.QueryRow(ctx, sqlWorkerNext, step, lease, workerResult, Namespace, name, []string{apart}).Scan(&done, &next, &under); err != nil {
			return workerError(ctx, "settle and go on", err)
		}
		if done {
			if err := recorded(1); err != nil {
				return err
			}
		}
		if next != nil {
			step, lease = *next, *under
		}
	}
	return nil
}

func settleMany(ctx context.Context, conn *pgx.Conn, c claimed, recorded func(steps int) error) error {
	var n int
	if err := conn.QueryRow(ctx, sqlWorkerSettle, c.steps, c.leases, workerResult).Scan(&n); err != nil {
		return workerError(ctx, "settle", err)
	}
	return recorded(n)
}

// workerError is nil if the worker was told to stop.
func workerError(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("worker: %s: %w", what, err)
}
