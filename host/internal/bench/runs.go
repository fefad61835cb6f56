package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// throughput measures the maximum, and the latency of one task on the idle system.
func (m *measurement) throughput() error {
	f, err := m.loads()
	if err != nil {
		return err
	}
	m.tell(f)
	_, err = m.idleLatency()
	return err
}

// vacuum does what autovacuum would do within the next seconds, and has already done on
// an idle system.
func (m *measurement) vacuum() error {
	if _, err := m.Pool.Exec(m.ctx, "vacuum (analyze)"); err != nil {
		return fmt.Errorf("vacuum before measuring idle hosts: %w", err)
	}
	return nil
}

// idleLatency runs one task at a time.
func (m *measurement) idleLatency() ([]vocab.UUID, error) {
	if err := m.vacuum(); err != nil {
		return nil, err
	}
	var all []time.Duration
	var tasks []vocab.UUID
	for i := range m.options.Samples {
		task, took, err := m.one(m.Engines[i%len(m.Engines)])
		if err != nil {
			return nil, fmt.Errorf("latency: %w", err)
		}
		all, tasks = append(all, took), append(tasks, task)
		m.options.Progress("latency", i+1, m.options.Samples)
		if err := m.rest(m.options.Pause); err != nil {
			return nil, err
		}
	}
	m.report.LatencyMS = quantiles(all)
	return tasks, nil
}

// rest waits for a while.
func (m *measurement) rest(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-m.ctx.Done():
		return m.ctx.Err()
	}
}

const sqlFirstCalls = `
select t.created_at, (s.result ->> 'called_at_us')::bigint
  from tasker_workflow_steps s join tasker_tasks t on t.task_uuid = s.task_uuid
 where s.task_uuid = any ($1::uuid[]) and s.step_no = 0`

// latency measures the idle system with tasks whose first step reports when it was
// called. The clocks of database and plugin agree if both are on one machine.
func (m *measurement) latency() error {
	for range min(m.options.Samples, 50) {
		if _, _, err := m.one(m.Engines[0]); err != nil {
			return fmt.Errorf("warm-up: %w", err)
		}
	}
	tasks, err := m.idleLatency()
	if err != nil {
		return err
	}
	m.report.Tasks, m.report.Steps = len(tasks), len(tasks)*m.shape.Steps
	rows, err := m.Pool.Query(m.ctx, sqlFirstCalls, tasks)
	if err != nil {
		return fmt.Errorf("read when steps started: %w", err)
	}
	calls, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (time.Duration, error) {
		var created time.Time
		var called int64
		err := r.Scan(&created, &called)
		return time.UnixMicro(called).Sub(created), err
	})
	if err != nil {
		return fmt.Errorf("read when steps started: %w", err)
	}
	q := quantiles(calls)
	m.report.FirstCallMS = &q
	return nil
}

// underLoad submits at a share of the maximum rate, which it measures first, even if
// the system does not keep up.
func (m *measurement) underLoad() error {
	f, err := m.loads()
	if err != nil {
		return err
	}
	m.tell(f)
	m.report.FullLoadLatencyMS = nil
	rate := m.options.Share * m.report.TasksPerSecond
	total := max(int(rate*m.options.Duration.Seconds()), 1)
	w := newWatch(total)
	stop := m.watch(w)
	defer stop()
	var calls sync.WaitGroup
	ctx, cancel := context.WithCancelCause(m.ctx)
	defer cancel(nil)
	began := time.Now()
	due := func(i int) time.Time { return began.Add(time.Duration(float64(i) / rate * float64(time.Second))) }
	for i := 0; i < total && ctx.Err() == nil; {
		if err := m.rest(time.Until(due(i))); err != nil {
			break
		}
		for ; i < total && !time.Now().Before(due(i)); i++ {
			s, from, e := m.submission(), due(i), m.Engines[i%len(m.Engines)]
			calls.Go(func() {
				answer, err := e.Submit(ctx, s)
				if err != nil {
					cancel(err)
					return
				}
				w.submitted([]pipeline.Submitted{answer}, from)
			})
		}
		m.options.Progress("load", i, total)
	}
	calls.Wait()
	select {
	case <-w.done:
	case <-ctx.Done():
		return fmt.Errorf("load: %w", context.Cause(ctx))
	}
	if w.failed > 0 {
		return fmt.Errorf("load: %d of %d tasks did not complete", w.failed, total)
	}
	m.report.LatencyMS, m.report.Share = quantiles(w.latencies), m.options.Share
	return nil
}

// history compares empty tables with tables that tasks have filled by running.
func (m *measurement) history() error {
	first, err := m.loads()
	if err != nil {
		return err
	}
	const sqlFinished = `select count(*) from tasker_workflow_steps where state = 'complete'`
	var have int
	if err := m.Pool.QueryRow(m.ctx, sqlFinished).Scan(&have); err != nil {
		return fmt.Errorf("count finished steps: %w", err)
	}
	if missing := (m.options.History - have + m.shape.Steps - 1) / m.shape.Steps; missing > 0 {
		if _, err := m.load("history", missing); err != nil {
			return fmt.Errorf("history: %w", err)
		}
		have += missing * m.shape.Steps
	}
	second, err := m.loads()
	if err != nil {
		return err
	}
	m.compared(first, second)
	m.report.History = have
	return nil
}

// pressure compares a database that we have for ourselves with one that has other
// users: one that holds a snapshot, so that no dead row can be removed, and then also
// one that reads everything again and again.
func (m *measurement) pressure() (err error) {
	first, err := m.loads()
	if err != nil {
		return err
	}
	tx, err := m.Pool.BeginTx(m.ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return fmt.Errorf("hold a snapshot: %w", err)
	}
	defer func() { err = errors.Join(err, tx.Rollback(context.WithoutCancel(m.ctx))) }()
	if _, err := tx.Exec(m.ctx, "set local idle_in_transaction_session_timeout = 0"); err != nil {
		return fmt.Errorf("hold a snapshot: %w", err)
	}
	if _, err := tx.Exec(m.ctx, sqlReadAll); err != nil { // takes the snapshot
		return fmt.Errorf("hold a snapshot: %w", err)
	}
	second, err := m.loads()
	if err != nil {
		return err
	}
	m.compared(first, second)
	stop := m.readAll()
	third, err := m.loads()
	if err := errors.Join(err, stop()); err != nil {
		return err
	}
	m.report.ReadRatio = first.seconds / third.seconds
	return nil
}

const sqlReadAll = `select count(s.result) from tasker_workflow_steps s`

// readAll reads all steps again and again, until stop is called.
func (m *measurement) readAll() (stop func() error) {
	ctx, cancel := context.WithCancel(m.ctx)
	done := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			if _, err := m.Pool.Exec(ctx, sqlReadAll); err != nil && ctx.Err() == nil {
				done <- fmt.Errorf("read everything: %w", err)
				return
			}
			m.report.Scans++
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
		done <- nil
	}()
	return func() error { cancel(); return <-done }
}

// namespaces compares one namespace with many.
func (m *measurement) namespaces() error {
	for n := 1; n < m.options.Namespaces; n++ {
		if err := m.apply(m.shape, namespaceOf(n)); err != nil {
			return err
		}
	}
	first, err := m.loads()
	if err != nil {
		return err
	}
	m.spread = m.options.Namespaces
	second, err := m.loads()
	if err != nil {
		return err
	}
	m.compared(first, second)
	m.report.Namespaces = m.options.Namespaces
	return nil
}

// idle counts the transactions of resting hosts, after some work and a pause in which
// they come to rest.
func (m *measurement) idle() error {
	for n := 1; n < m.options.Namespaces; n++ {
		if err := m.apply(m.shape, namespaceOf(n)); err != nil {
			return err
		}
	}
	if _, err := m.load("work", min(m.options.Tasks, 100)); err != nil {
		return err
	}
	if err := m.vacuum(); err != nil { // its transactions would be counted too
		return err
	}
	if err := m.rest(min(3*m.options.Duration, restless)); err != nil {
		return err
	}
	before, err := m.count()
	if err != nil {
		return err
	}
	began := time.Now()
	for i := range idleLooks {
		if err := m.rest(m.options.Duration / idleLooks); err != nil {
			return err
		}
		m.options.Progress("rest", i+1, idleLooks)
	}
	after, err := m.count()
	if err != nil {
		return err
	}
	seconds := time.Since(began).Seconds()
	perSecond := max(after.minus(before)[commits]-ownTransactions, 0) / seconds
	m.report.Seconds, m.report.IdleTransactionsPerSecond, m.report.Namespaces = seconds, &perSecond, m.options.Namespaces
	return nil
}

const (
	restless        = time.Minute // after work, until a host's pools have shrunk to their minimum
	idleLooks       = 20
	ownTransactions = 1 // the first count is committed after it was read
)
