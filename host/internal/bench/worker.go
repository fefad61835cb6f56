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

// The statements of a worker in any language. One claims steps and one settles them. A
// worker that runs one step at a time claims once; then one statement settles a step and
// gets the next one. A worker that exchanges many steps needs only one statement. Workers
// of the reference read messages and post results.
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

	sqlWorkerExchange = `
select count(*) filter (where x.verdict in ('recorded', 'already_recorded')),
       coalesce(array_agg(x.step_uuid) filter (where x.step_uuid is not null), '{}'), coalesce(array_agg(x.lease_id) filter (where x.step_uuid is not null), '{}')
  from tasker_worker_exchange($1::uuid[], $2::uuid[], array_fill($3::text, array[cardinality($1::uuid[])]),
         $4::text, $5::text, $6::text[], $7::integer) x`

	sqlWorkerRead = `
select coalesce(array_agg(msg_id), '{}'), coalesce(array_agg(message ->> 'step_uuid'), '{}'), coalesce(array_agg(message ->> 'task_uuid'), '{}')
  from pgmq.read($1::text, 60, $2::integer)`

	sqlWorkerPost = `
select (select count(*) from pgmq.send_batch($1::text, $2::text[]::jsonb[])), (select count(*) from pgmq.delete($3::text, $4::bigint[]))`
)

const (
	maxClaim      = 100 // steps at once: the limit of tasker_worker_claim
	workerPollMin = time.Millisecond
	workerPollMax = 50 * time.Millisecond
	workerResult  = `{"status":"ok","handler":"bench.outside","value":420}`
)

// Manner says how an outside worker works.
type Manner struct {
	Claim   int    // maximum number of steps at once: 1 to 100
	Way     string // one of Ways
	Results string // the queue on which it posts results
}

// Ways are the ways in which an outside worker gets steps and reports results: it claims
// and settles; it continues with the steps that its results made ready, as a worker that
// claims one at a time always does; or it reads messages and posts results.
var Ways = []string{"claim", "exchange", "post"}

// Work runs an outside worker, which needs only a database. It works until ctx ends, and
// calls recorded with the number of steps it settled. If it runs many at once, it uses
// two connections: one is busy while it waits for the other.
func Work(ctx context.Context, database, name string, how Manner, recorded func(steps int) error) error {
	switch {
	case how.Way == "post" && how.Claim == 1:
		return withConn(ctx, database, func(conn *pgx.Conn) error { return posts(ctx, conn, how, recorded) })
	case how.Way == "post":
		return twice(ctx, database, func(ctx context.Context, conn *pgx.Conn) error { return posts(ctx, conn, how, recorded) })
	case how.Claim == 1:
		return withConn(ctx, database, func(conn *pgx.Conn) error {
			return claims(ctx, conn, name, 1, func(c claimed) error { return workOne(ctx, conn, name, c.steps[0], c.leases[0], recorded) })
		})
	case how.Way == "exchange":
		return twice(ctx, database, func(ctx context.Context, conn *pgx.Conn) error {
			return exchanges(ctx, conn, name, how.Claim, recorded)
		})
	default:
		return claimAhead(ctx, database, name, how.Claim, recorded)
	}
}

// twice runs a function on each of two connections.
func twice(ctx context.Context, database string, do func(ctx context.Context, conn *pgx.Conn) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for range 2 {
		group.Go(func() error {
			return withConn(ctx, database, func(conn *pgx.Conn) error { return do(ctx, conn) })
		})
	}
	return group.Wait()
}

// claimAhead claims the next steps on one connection while it settles the previous ones
// on the other.
func claimAhead(ctx context.Context, database, name string, claim int, recorded func(steps int) error) error {
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

// withConn runs a function with a connection of its own.
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

// claims claims steps and passes them to do, until ctx ends.
func claims(ctx context.Context, conn *pgx.Conn, name string, claim int, do func(c claimed) error) error {
	wait := workerPollMin
	for ctx.Err() == nil {
		var c claimed
		if err := conn.QueryRow(ctx, sqlWorkerClaim, Namespace, name, []string{apart}, claim).Scan(&c.steps, &c.leases); err != nil {
			return workerError(ctx, "claim", err)
		}
		if len(c.steps) == 0 {
			wait = idle(ctx, wait)
			continue
		}
		if err := do(c); err != nil {
			return err
		}
		wait = workerPollMin
	}
	return nil
}

// idle waits, and returns how long to wait the next time.
func idle(ctx context.Context, wait time.Duration) time.Duration {
	select {
	case <-time.After(wait):
	case <-ctx.Done():
	}
	return min(2*wait, workerPollMax)
}

// exchanges hands in results and receives other steps, until ctx ends.
func exchanges(ctx context.Context, conn *pgx.Conn, name string, most int, recorded func(steps int) error) error {
	wait := workerPollMin
	for c := (claimed{steps: []vocab.UUID{}, leases: []vocab.UUID{}}); ctx.Err() == nil; {
		var n int
		err := conn.QueryRow(ctx, sqlWorkerExchange, c.steps, c.leases, workerResult, Namespace, name, []string{apart}, most).Scan(&n, &c.steps, &c.leases)
		if err != nil {
			return workerError(ctx, "exchange", err)
		}
		if n > 0 {
			if err := recorded(n); err != nil {
				return err
			}
		}
		if len(c.steps) == 0 {
			wait = idle(ctx, wait)
			continue
		}
		wait = workerPollMin
	}
	return nil
}

// posts reads messages and posts results, until ctx ends.
func posts(ctx context.Context, conn *pgx.Conn, how Manner, recorded func(steps int) error) error {
	wait := workerPollMin
	for ctx.Err() == nil {
		var ids []int64
		var steps, tasks []string
		if err := conn.QueryRow(ctx, sqlWorkerRead, Namespace+"_queue", how.Claim).Scan(&ids, &steps, &tasks); err != nil {
			return workerError(ctx, "read messages", err)
		}
		if len(ids) == 0 {
			wait = idle(ctx, wait)
			continue
		}
		results := make([]string, len(ids))
		for i := range results {
			results[i] = fmt.Sprintf(`{"step_uuid": %q, "task_uuid": %q, "status": "Success", "results": %s}`, steps[i], tasks[i], workerResult)
		}
		var sent, removed int
		if err := conn.QueryRow(ctx, sqlWorkerPost, how.Results, results, Namespace+"_queue", ids).Scan(&sent, &removed); err != nil {
			return workerError(ctx, "post results", err)
		}
		if err := recorded(sent); err != nil {
			return err
		}
		wait = workerPollMin
	}
	return nil
}

// workOne settles a step and continues with the next one until there is none.
func workOne(ctx context.Context, conn *pgx.Conn, name string, step, lease vocab.UUID, recorded func(steps int) error) error {
	for next := (&step); next != nil; {
		var done bool
		var under *vocab.UUID
		if err := conn.QueryRow(ctx, sqlWorkerNext, step, lease, workerResult, Namespace, name, []string{apart}).Scan(&done, &next, &under); err != nil {
			return workerError(ctx, "settle and continue", err)
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
