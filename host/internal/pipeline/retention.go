package pipeline

import (
	"context"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// retainer is what retention asks of the database.
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
	retentionResting = 10 * time.Minute       // likewise, of a host that rests
	retentionTurn    = 20 * time.Second       // what a turn takes at most
	retentionLock    = 250 * time.Millisecond // for so long the others may have to wait while a day is dropped
	retentionAgain   = time.Hour              // until a day that holds something to keep is looked at again
)

// retention removes what is over its time. One host at a time does, a turn a
// minute; a turn works half of the time it takes and rests the other half.
type retention struct {
	engine *Engine
	looked map[time.Time]time.Time // when a day was last seen to its end; the zero day is the default partition
}

func (e *Engine) retentionLoop() {
	r := &retention{engine: e, looked: map[time.Time]time.Time{}}
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
		ctx, cancel := context.WithTimeout(e.accept, retentionTurn)
		err := r.turn(ctx)
		cancel()
		switch {
		case err == nil, e.accept.Err() != nil:
		case store.Classify(err) == store.Retry, store.Classify(err) == store.Cancelled:
			e.log.Debug("retention goes on in its next turn", "reason", err)
		default:
			e.log.Warn("retention failed; it goes on in its next turn", "error", err)
		}
	}
}

func (r *retention) turn(ctx context.Context) error {
	e := r.engine
	mine, err := e.store.TakeDuty(ctx, "retention", e.HostID(), 2*retentionEvery)
	if err != nil || !mine {
		return err
	}
	keep := e.live().Retention
	days, err := e.store.OldDays(ctx, keep)
	if err != nil {
		return err
	}
	for _, day := range days {
		if err := r.day(ctx, day, keep); err != nil {
			return err
		}
	}
	if r.due(time.Time{}) {
		if err := r.prune(ctx, nil, keep); err != nil {
			return err
		}
		r.looked[time.Time{}] = time.Now()
	}
	return r.records(ctx, keep)
}

func (r *retention) due(day time.Time) bool {
	at, ok := r.looked[day]
	return !ok || time.Since(at) >= retentionAgain
}

// day drops a day, or deletes of it what is over its time.
func (r *retention) day(ctx context.Context, day time.Time, keep store.Retention) error {
	if !r.due(day) {
		return nil
	}
	e := r.engine
	over, err := e.store.DayIsOver(ctx, day, keep)
	if err == nil && !over {
		if err = r.prune(ctx, &day, keep); err == nil {
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
		e.log.Info("dropped a day", "day", day.Format(time.DateOnly), "partitions", n)
	}
	return err
}

// prune deletes the tasks of a day that are over their time, in pages.
func (r *retention) prune(ctx context.Context, day *time.Time, keep store.Retention) error {
	e, all := r.engine, 0
	defer func() {
		if all > 0 {
			e.metrics.removed.WithLabelValues("task").Add(float64(all))
			e.log.Info("deleted tasks that were over their time", "tasks", all)
		}
	}()
	for after := (&vocab.UUID{}); after != nil; {
		began := time.Now()
		n, last, err := e.store.PruneTasks(ctx, day, *after, keep)
		if err != nil {
			return err
		}
		all, after = all+n, last
		if err := rest(ctx, time.Since(began)); err != nil {
			return err
		}
	}
	return nil
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
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
