package pipeline

import (
	"context"
	"errors"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// retainer is what retention needs from the database.
type retainer interface {
	OldDays(ctx context.Context, r store.Retention) ([]time.Time, error)
	DayIsOver(ctx context.Context, day time.Time, r store.Retention) (bool, error)
	DropDay(ctx context.Context, day time.Time, wait time.Duration, r store.Retention) (int, error)
	PruneTasks(ctx context.Context, day *time.Time, after vocab.UUID, r store.Retention) (int, *vocab.UUID, error)
	recordKeeper
}

type recordKeeper interface {
	TakeDuty(ctx context.Context, duty string, host int32, lease time.Duration) (bool, error)
	PruneRecords(ctx context.Context, r store.Retention) (int, error)
}

const (
	retentionEvery   = time.Minute            // between two turns
	retentionResting = 10 * time.Minute       // likewise, for a resting host
	retentionTurn    = 20 * time.Second       // limit for each of the two parts of a turn
	retentionLock    = 250 * time.Millisecond // how long others may have to wait while a partition is dropped
	retentionAgain   = time.Hour              // until a partition with something to keep is checked again
)

// retention removes what has exceeded its retention time. One host at a time does so, one
// turn per minute; a turn works for half of its time and rests for the other half. Tasks
// and other records each get their own part of it, so that neither waits until the other
// is done.
type retention struct {
	engine *Engine
	looked map[time.Time]time.Time  // by the first day of a partition, when it was last examined to its end; the zero day is the default partition
	goOn   map[time.Time]vocab.UUID // the last task examined of each, where the turn ended before the end
}

func newRetention(e *Engine) *retention {
	return &retention{engine: e, looked: map[time.Time]time.Time{}, goOn: map[time.Time]vocab.UUID{}}
}

func (e *Engine) retentionLoop() {
	r := newRetention(e)
	tick := time.NewTicker(retentionEvery)
	defer tick.Stop()
	var last time.Time
	for {
		select {
		case <-tick.C:
			if e.Resting() && time.Since(last) < retentionResting {
				continue
			}
			last = time.Now()
		case <-e.accept.Done():
			return
		}
		_ = r.turn(e.accept, retentionTurn) // part logs the error
	}
}

// turn takes a turn, with the given limit for each part.
func (r *retention) turn(ctx context.Context, limit time.Duration) error {
	mine := false
	err := r.part(ctx, limit, func(ctx context.Context, _ store.Retention) (err error) {
		mine, err = r.engine.store.TakeDuty(ctx, "retention", r.engine.HostID(), 2*retentionEvery)
		return err
	})
	if err != nil || !mine {
		return err
	}
	return errors.Join(r.part(ctx, limit, r.tasks), r.part(ctx, limit, r.records))
}

// part does one part of a turn, and logs if it fails.
func (r *retention) part(ctx context.Context, limit time.Duration, do func(context.Context, store.Retention) error) error {
	e := r.engine
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := do(bounded, e.live().Retention)
	switch {
	case err == nil, ctx.Err() != nil:
	case store.Classify(err) == store.Retry, store.Classify(err) == store.Cancelled:
		e.log.Debug("retention continues in its next turn", "reason", err)
	default:
		e.log.Warn("retention failed; it continues in its next turn", "error", err)
	}
	return err
}

// tasks removes tasks. A partition that is locked at the moment does not delay those
// behind it.
func (r *retention) tasks(ctx context.Context, keep store.Retention) error {
	days, err := r.engine.store.OldDays(ctx, keep)
	if err != nil {
		return err
	}
	var held error
	for _, day := range days {
		if err := r.day(ctx, day, keep); err != nil {
			if held = errors.Join(held, err); store.Classify(err) != store.Retry {
				return held
			}
		}
	}
	if r.due(time.Time{}) {
		if err := r.prune(ctx, time.Time{}, keep); err != nil {
			return errors.Join(held, err)
		}
		r.looked[time.Time{}] = time.Now()
	}
	return held
}

func (r *retention) due(day time.Time) bool {
	at, ok := r.looked[day]
	return !ok || time.Since(at) >= retentionAgain
}

// day drops the partitions that begin with a day, or deletes the expired tasks in them.
func (r *retention) day(ctx context.Context, day time.Time, keep store.Retention) error {
	if !r.due(day) {
		return nil
	}
	e := r.engine
	over, err := e.store.DayIsOver(ctx, day, keep)
	if err == nil && !over {
		if err = r.prune(ctx, day, keep); err == nil {
			over, err = e.store.DayIsOver(ctx, day, keep)
		}
	}
	if err != nil {
		return err
	}
	if !over {
		r.looked[day] = time.Now()
		return nil
	}
	n, err := e.store.DropDay(ctx, day, retentionLock, keep)
	if n > 0 {
		e.metrics.removed.WithLabelValues("partition").Add(float64(n))
		e.log.Info("dropped partitions of old tasks", "begin", day.Format(time.DateOnly), "partitions", n)
	}
	return err
}

// prune deletes the expired tasks of a day, or of the default partition, in pages. It
// continues where its last turn ended: otherwise, where many tasks are kept, it would
// look at the same ones each turn and never reach the others.
func (r *retention) prune(ctx context.Context, day time.Time, keep store.Retention) error {
	e, all := r.engine, 0
	defer func() {
		if all > 0 {
			e.metrics.removed.WithLabelValues("task").Add(float64(all))
			e.log.Info("deleted tasks past their retention time", "tasks", all)
		}
	}()
	var of *time.Time
	if !day.IsZero() {
		of = &day
	}
	for {
		began := time.Now()
		n, last, err := e.store.PruneTasks(ctx, of, r.goOn[day], keep)
		if err != nil {
			return err
		}
		all += n
		if last == nil {
			delete(r.goOn, day)
			return nil
		}
		r.goOn[day] = *last
		if err := rest(ctx, time.Since(began)); err != nil {
			return err
		}
	}
}

func (r *retention) records(ctx context.Context, keep store.Retention) error {
	for {
		began := time.Now()
		n, err := r.engine.store.PruneRecords(ctx, keep)
		if err != nil || n == 0 {
			return err
		}
		r.engine.metrics.removed.WithLabelValues("record").Add(float64(n))
		if err := rest(ctx, time.Since(began)); err != nil {
			return err
		}
	}
}

// rest leaves the database to the others for a while.
func rest(ctx context.Context, d time.Duration) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
