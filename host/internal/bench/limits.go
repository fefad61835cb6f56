package bench

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// What the machine and the database can do on their own, while the hosts are idle. It puts
// other figures in perspective: where these are twice as high, the same engine makes twice
// as many steps.

const (
	limitsCallers  = 16     // in measurements with many connections
	limitsMessages = 30_000 // in the queue at the beginning
	limitsQueue    = "tasker_bench_limits"
)

const (
	sqlLimitsClear  = `drop table if exists tasker_bench_limits`
	sqlLimitsTable  = `create table tasker_bench_limits (number bigint generated always as identity primary key, body jsonb)`
	sqlLimitsInsert = `insert into tasker_bench_limits (body) values ($1::jsonb)`
	sqlLimitsDrop   = `select pgmq.drop_queue(q.queue_name::text) from pgmq.list_queues() q where q.queue_name = $1`
	sqlLimitsQueue  = `select pgmq.create($1::text)`
	sqlLimitsFill   = `select count(*) from pgmq.send_batch($1::text, array_fill($2::jsonb, array[$3::integer]))`
	sqlLimitsRead   = `select r.msg_id from pgmq.read($1::text, 30, 1) r`
	sqlLimitsDelete = `select pgmq.delete($1::text, $2::bigint)`
)

// limits measures how fast one thread computes and how fast all do, commits of one row
// each, and messages read and deleted one by one.
func (m *measurement) limits() (err error) {
	cfg := m.Pool.Config()
	cfg.MaxConns = limitsCallers
	pool, err := pgxpool.NewWithConfig(m.ctx, cfg)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer pool.Close()
	if err := m.limitsBed(pool); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, clearLimits(context.WithoutCancel(m.ctx), pool)) }()

	var l readmodel.BenchLimits
	commit := func(ctx context.Context) error {
		_, err := pool.Exec(ctx, sqlLimitsInsert, string(Context))
		return err
	}
	message := func(ctx context.Context) error {
		var id int64
		err := pool.QueryRow(ctx, sqlLimitsRead, limitsQueue).Scan(&id)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return errNothingLeft
		case err != nil:
			return err
		}
		_, err = pool.Exec(ctx, sqlLimitsDelete, limitsQueue, id)
		return err
	}
	block := make([]byte, hashedBytes)
	hash := func(ctx context.Context) error { sha256.Sum256(block); return ctx.Err() }
	phases := []struct {
		name    string
		callers int
		call    func(context.Context) error
		worth   float64 // what one call counts for
		told    *float64
	}{
		{"compute", 1, hash, hashedBytes / 1e6, &l.HashMBPerSecond},
		{"compute on all processors", runtime.GOMAXPROCS(0), hash, hashedBytes / 1e6, &l.HashMBPerSecondAll},
		{"commit", 1, commit, 1, &l.CommitsPerSecond},
		{"commit on many connections", limitsCallers, commit, 1, &l.CommitsPerSecondMany},
		{"messages", limitsCallers, message, 1, &l.MessagesPerSecondMany},
	}
	for i, p := range phases {
		rate, err := m.rate(p.callers, m.options.Duration/time.Duration(len(phases)), p.call)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		*p.told = rate * p.worth
		m.options.Progress("limits", i+1, len(phases))
	}
	m.report.Limits = &l
	return nil
}

const hashedBytes = 4096

// limitsBed creates the table and the queue for the measurements.
func (m *measurement) limitsBed(pool *pgxpool.Pool) error {
	if err := clearLimits(m.ctx, pool); err != nil { // a run that was killed may have left them
		return err
	}
	if _, err := pool.Exec(m.ctx, sqlLimitsTable); err != nil {
		return fmt.Errorf("create the table for the measurement: %w", err)
	}
	if _, err := pool.Exec(m.ctx, sqlLimitsQueue, limitsQueue); err != nil {
		return fmt.Errorf("create the queue for the measurement: %w", err)
	}
	if _, err := pool.Exec(m.ctx, sqlLimitsFill, limitsQueue, string(Context), limitsMessages); err != nil {
		return fmt.Errorf("fill the queue: %w", err)
	}
	return nil
}

func clearLimits(ctx context.Context, pool *pgxpool.Pool) error {
	if _, err := pool.Exec(ctx, sqlLimitsClear); err != nil {
		return fmt.Errorf("drop the measurement's table: %w", err)
	}
	if _, err := pool.Exec(ctx, sqlLimitsDrop, limitsQueue); err != nil {
		return fmt.Errorf("drop the measurement's queue: %w", err)
	}
	return nil
}

// errNothingLeft ends a caller early.
var errNothingLeft = errors.New("no work is left")

// rate lets the given number of callers call in parallel for a while, at least once, and
// returns how many calls ended per second.
func (m *measurement) rate(callers int, d time.Duration, call func(context.Context) error) (float64, error) {
	var all sync.WaitGroup
	ended, failed := make([]int, callers), make([]error, callers)
	began := time.Now()
	for i := range callers {
		all.Go(func() {
			for {
				if err := call(m.ctx); err != nil {
					if !errors.Is(err, errNothingLeft) {
						failed[i] = err
					}
					return
				}
				if ended[i]++; time.Since(began) >= d {
					return
				}
			}
		})
	}
	all.Wait()
	took := time.Since(began).Seconds()
	sum := 0
	for _, n := range ended {
		sum += n
	}
	return float64(sum) / took, errors.Join(failed...)
}
