package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Store sends the statements. It is safe for concurrent use.
type Store struct {
	pool  DB   // asks the gate, if there is one
	plain DB   // does not ask: for calls that must be tried in any case
	gate  Gate // nil: there is none
	plans planCache
}

// New returns a store on the pool.
func New(pool *pgxpool.Pool) *Store {
	return &Store{pool: pool, plain: pool, plans: newPlanCache(usualPlans, nil)}
}

// HostInfo is what a host reports about itself.
type HostInfo struct {
	Name, Version, Environment, State string
}

// RegisterHost enters a host that is alive for the given time, and returns its
// number.
func (s *Store) RegisterHost(ctx context.Context, h HostInfo, lease time.Duration) (int32, error) {
	var id int32
	err := s.plain.QueryRow(ctx, sqlRegisterHost, h.Name, h.Version, h.Environment, h.State, lease.Milliseconds()).Scan(&id)
	if s.vital(err) != nil {
		return 0, fmt.Errorf("register host %s: %w", h.Name, err)
	}
	return id, nil
}

// StepKey names a step.
type StepKey struct {
	Task   vocab.UUID
	Number int32
}

// UUID returns the step's UUID.
func (k StepKey) UUID() vocab.UUID { return vocab.StepID(k.Task, int(k.Number)) }

// Held is a lease that a host holds according to the database.
type Held struct {
	StepKey
	Lease vocab.UUID
}

// Revoked is a lease that was ended by others.
type Revoked struct {
	Held
	Reason string
}

// Heartbeat extends a host's life. alive is false if the host has been declared dead: its
// leases are void and it must register again. Revoked leases are reported with every
// heartbeat until the host acknowledges them.
func (s *Store) Heartbeat(ctx context.Context, host int32, state string, served []string, lease time.Duration, heard []vocab.UUID) (alive bool, revoked []Revoked, err error) {
	return s.Rise(ctx, host, 0, state, served, lease, heard)
}

// Rise is a heartbeat with which a host reports that it rests no more, and rouses the
// others. rises is how many times it has risen, this time included; if the database
// knows that number already, the call is a heartbeat like any other.
func (s *Store) Rise(ctx context.Context, host int32, rises int64, state string, served []string, lease time.Duration, heard []vocab.UUID) (alive bool, revoked []Revoked, err error) {
	if served == nil {
		served = []string{}
	}
	if heard == nil {
		heard = []vocab.UUID{}
	}
	var tasks, leases []vocab.UUID
	var steps []int32
	var reasons []string
	err = s.plain.QueryRow(ctx, sqlHeartbeat, host, state, served, lease.Milliseconds(), heard, rises).
		Scan(&alive, &tasks, &steps, &leases, &reasons)
	if s.vital(err) != nil {
		return false, nil, fmt.Errorf("heartbeat of host %d: %w", host, err)
	}
	for i := range tasks {
		revoked = append(revoked, Revoked{Held{StepKey{tasks[i], steps[i]}, leases[i]}, reasons[i]})
	}
	return alive, revoked, nil
}

// HostLeases returns every lease that the host holds according to the database.
func (s *Store) HostLeases(ctx context.Context, host int32) ([]Held, error) {
	var held []Held
	err := sweep(ctx, func(ctx context.Context, after vocab.UUID, limit int) (last *vocab.UUID, err error) {
		var tasks, leases []vocab.UUID
		var steps []int32
		err = s.pool.QueryRow(ctx, sqlHostLeases, host, after, limit).Scan(&tasks, &steps, &leases, &last)
		if err != nil {
			return nil, err
		}
		for i := range tasks {
			held = append(held, Held{StepKey{tasks[i], steps[i]}, leases[i]})
		}
		return last, err
	})
	if err != nil {
		return nil, fmt.Errorf("list leases of host %d: %w", host, err)
	}
	return held, nil
}

// GoneHost is a host that ended while it held steps.
type GoneHost struct {
	ID   int32
	Name string
	Late time.Duration // since its lease expired
}

// SweepHosts declares dead the hosts whose lease has expired, and returns those whose
// steps have not been given back.
func (s *Store) SweepHosts(ctx context.Context) ([]GoneHost, error) {
	rows, err := s.pool.Query(ctx, sqlSweepHosts)
	if err != nil {
		return nil, fmt.Errorf("sweep hosts: %w", err)
	}
	defer rows.Close()
	var gone []GoneHost
	for rows.Next() {
		var g GoneHost
		if err := rows.Scan(&g.ID, &g.Name, &g.Late); err != nil {
			return nil, fmt.Errorf("sweep hosts: %w", err)
		}
		gone = append(gone, g)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("sweep hosts: %w", err)
	}
	return gone, nil
}

// sweepPage is how many active tasks one statement of a sweep looks at: few enough
// that locks are held only for milliseconds.
const sweepPage = 500

// sweep runs a statement over all active tasks, page by page: on the tasks after a
// given one, limit at most. page returns the last task of the page; nil: it has seen
// all. If a page exceeds the statement timeout it has been rolled back, and a smaller
// one is tried. See [InPages] for the context.
func sweep(ctx context.Context, page func(ctx context.Context, after vocab.UUID, limit int) (last *vocab.UUID, err error)) error {
	after, limit := &vocab.UUID{}, sweepPage
	for after != nil {
		ctx, end := Page(ctx)
		last, err := page(ctx, *after, limit)
		end()
		switch {
		case err == nil:
			after = last
		case IsTimeout(err) && limit > 1:
			limit = max(limit/4, 1)
		default:
			return err
		}
	}
	return nil
}

// ErrOthers is returned by [Store.ReleaseHost] when another host is giving the steps
// back. That host continues with it; if it dies, the next sweep does.
var ErrOthers = errors.New("another host is doing it")

// ReleaseHost gives every step of a host that is gone back to its queue, in pages, and
// marks the host as swept. Steps that were claimed claimFactor times for each attempt
// that they may have fail; 0 means that the host has stopped in an orderly way, and the
// claims do not count. If several hosts do this at once, one continues and the others get
// [ErrOthers].
func (s *Store) ReleaseHost(ctx context.Context, host int32, reason string, claimFactor int) (released int, err error) {
	var factor *int // null: see above
	if claimFactor > 0 {
		factor = &claimFactor
	}
	err = sweep(ctx, func(ctx context.Context, after vocab.UUID, limit int) (last *vocab.UUID, err error) {
		var n int
		var busy bool
		err = s.plain.QueryRow(ctx, sqlReleaseHostSteps, host, reason, after, limit, factor).Scan(&n, &last, &busy)
		if err == nil && busy {
			err = ErrOthers
		}
		released += n
		return last, err
	})
	if err != nil {
		return released, fmt.Errorf("release steps of host %d: %w", host, err)
	}
	ctx, end := Page(ctx)
	defer end()
	if _, err := s.plain.Exec(ctx, sqlHostSwept, host); err != nil {
		return released, fmt.Errorf("mark host %d as swept: %w", host, err)
	}
	return released, nil
}

// SweepMessages looks at all active tasks. Steps that could run but have had no
// message for longer than age are enqueued again. The tasks in which nothing can
// move are returned, to be finalized.
func (s *Store) SweepMessages(ctx context.Context, age time.Duration) (enqueued int, stalled []vocab.UUID, err error) {
	err = sweep(ctx, func(ctx context.Context, after vocab.UUID, limit int) (last *vocab.UUID, err error) {
		var n int
		var found []vocab.UUID
		err = s.pool.QueryRow(ctx, sqlSweepMessages, after, limit, age).Scan(&n, &last, &found)
		enqueued += n
		stalled = append(stalled, found...)
		return last, err
	})
	if err != nil {
		return enqueued, stalled, fmt.Errorf("sweep messages: %w", err)
	}
	return enqueued, stalled, nil
}

// PartitionDays is how many days ahead a host creates partitions.
const PartitionDays = 3

// EnsurePartitions creates the partitions of today and the days to come, one table
// after the other, so that it never locks one while it waits for another. keep is how
// long tasks are kept; zero means for ever.
func (s *Store) EnsurePartitions(ctx context.Context, days int, keep time.Duration) error {
	for _, table := range partitioned {
		err := s.define(ctx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, sqlEnsurePartitions, days, table, partitionWidth(keep))
			return err
		})
		pageEnded(ctx)
		if err != nil {
			return fmt.Errorf("create partitions of %s: %w", table, err)
		}
	}
	return nil
}

// partitionWidth is how many days a partition covers if tasks are kept for so long: a
// tenth of that time, so that there are about a dozen, and a month at most.
func partitionWidth(keep time.Duration) int {
	const day, most = 24 * time.Hour, 30
	if keep == 0 {
		return most
	}
	return min(max(int((keep+10*day-1)/(10*day)), 1), most)
}

// NextGeneration returns a number for a plugin process that no other process
// will ever have.
func (s *Store) NextGeneration(ctx context.Context) (uint64, error) {
	var n int64
	if err := s.pool.QueryRow(ctx, sqlNextGeneration).Scan(&n); err != nil {
		return 0, fmt.Errorf("next plugin generation: %w", err)
	}
	return uint64(n), nil
}
