package events_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/tasker-systems/tasker-host/host/internal/events"
	"github.com/tasker-systems/tasker-host/host/internal/lifecycle"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/internal/leaks"
)

func TestMain(m *testing.M) {
	leaks.Main(m,
		goleak.IgnoreTopFunction("github.com/jackc/pgx/v5/pgxpool.(*Pool).backgroundHealthCheck"),
		goleak.IgnoreTopFunction("github.com/jackc/pgx/v5/pgxpool.(*Pool).triggerHealthCheck.func1"))
}

// counted counts the calls of a source, and fails on request.
type counted struct {
	events.Source
	asked atomic.Int64
	fail  atomic.Pointer[error]
}

func (c *counted) EventMark(ctx context.Context) (store.EventMark, error) {
	c.asked.Add(1)
	if err := c.fail.Load(); err != nil {
		return store.EventMark{}, *err
	}
	return c.Source.EventMark(ctx)
}

// hub runs a hub on a database until the test ends.
func hub(t *testing.T, pool *pgxpool.Pool, cfg events.Config) (*events.Hub, *counted, *prometheus.Registry) {
	t.Helper()
	source, reg := &counted{Source: store.New(pool)}, prometheus.NewPedanticRegistry()
	cfg.Pace = 5 * time.Millisecond
	h := events.New(cfg, source, reg, hclog.NewNullLogger())
	run := lifecycle.NewRunner("events", h.Run, nil)
	require.NoError(t, run.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, run.Stop(context.Background())) })
	// The loop shows that it runs by admitting a subscriber.
	require.Eventually(t, func() bool {
		sub, err := h.Subscribe(t.Context(), nil, everything)
		if err != nil {
			return false
		}
		sub.Close()
		return true
	}, time.Minute, time.Millisecond)
	return h, source, reg
}

func everything(*readmodel.Event) bool { return true }

func audit(ctx context.Context, db interface {
	Exec(context.Context, string, ...any) (pgconn.CommandTag, error)
}, subject string,
) error {
	_, err := db.Exec(ctx, `insert into tasker_audit (actor, action, subject, request_id, address, outcome, status)
		values ('local:me', 'POST /v1/x', $1, 'r', '', 'done', 200)`, subject)
	return err
}

// next reads until something arrives.
func next(t *testing.T, s *events.Subscription) []events.Item {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	items, err := s.Next(ctx)
	require.NoError(t, err)
	return items
}

func cursor(t *testing.T, item events.Item) *events.Cursor {
	t.Helper()
	c, err := events.ParseCursor(item.Event.ID)
	require.NoError(t, err)
	return &c
}

// writers write audit entries and transitions in overlapping transactions: some wait
// before they commit, some write in savepoints, some roll back. It returns the subjects
// that were committed.
func writers(ctx context.Context, pool *pgxpool.Pool, count, each int) ([]string, error) {
	var mu sync.Mutex
	var committed []string
	errs := make([]error, count)
	var all sync.WaitGroup
	for w := range count {
		all.Go(func() {
			for i := range each {
				subjects, err := write(ctx, pool, w, i)
				if err != nil {
					errs[w] = err
					return
				}
				mu.Lock()
				committed = append(committed, subjects...)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return committed, nil
}

func write(ctx context.Context, pool *pgxpool.Pool, w, i int) (subjects []string, err error) {
	tx, err := pool.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	for n := range 1 + (w+i)%4 {
		subject := fmt.Sprintf("%d/%d/%d", w, i, n)
		if n%2 == 1 { // a savepoint: the row carries the number of a subtransaction
			sub, err := tx.Begin(ctx)
			if err != nil {
				return nil, err
			}
			if err := audit(ctx, sub, subject); err != nil {
				return nil, err
			}
			if err := sub.Commit(ctx); err != nil {
				return nil, err
			}
		} else if err := audit(ctx, tx, subject); err != nil {
			return nil, err
		}
		subjects = append(subjects, subject)
		if (w+i+n)%3 == 0 {
			if _, err := tx.Exec(ctx, `select pg_sleep($1::integer / 1000.0)`, (w*7+i*3)%20); err != nil {
				return nil, err
			}
		}
	}
	if (w+i)%5 == 0 {
		return nil, nil // rolled back
	}
	return subjects, tx.Commit(ctx)
}

func value(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	require.Fail(t, "no metric "+name)
	return 0
}

func storeOf(pool *pgxpool.Pool) events.Source { return store.New(pool) }

func registry() *prometheus.Registry { return prometheus.NewPedanticRegistry() }

func null() hclog.Logger { return hclog.NewNullLogger() }
