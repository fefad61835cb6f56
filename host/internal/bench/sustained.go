package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
)

// parts is the number of parts of a sustained load, of which the first and the last
// are compared.
const parts = 6

// sustained compares the end of a long full load with its beginning.
func (m *measurement) sustained() error {
	if _, err := m.load("warm-up", warmUp(m.options)); err != nil {
		return fmt.Errorf("warm-up: %w", err)
	}
	before, err := m.count()
	if err != nil {
		return err
	}
	h, err := m.hold()
	if err != nil {
		return err
	}
	after, err := m.count()
	if err != nil {
		return err
	}
	steps := float64(h.tasks * m.shape.Steps)
	m.options.Tasks, m.options.Repeats = h.tasks, 1
	rate := steps / h.elapsed.Seconds()
	m.tell(full{h.elapsed.Seconds(), rate, rate, after.minus(before).each(steps), h.latencies})
	r := &m.report
	r.FirstStepsPerSecond, r.LastStepsPerSecond = h.first*float64(m.shape.Steps), h.last*float64(m.shape.Steps)
	r.Ratio = r.LastStepsPerSecond / r.FirstStepsPerSecond
	return nil
}

// held is the result of a sustained load.
type held struct {
	loaded
	tasks       int
	first, last float64 // tasks per second in the first and in the last part
}

// hold keeps up full load for the duration. It begins when as many tasks have ended as
// are in progress at once: before that, there is still room.
func (m *measurement) hold() (held, error) {
	ctx, cancel := context.WithCancelCause(m.ctx)
	defer cancel(nil)
	var ended atomic.Int64
	steady, over := make(chan struct{}), make(chan struct{})
	var h held
	watching := make(chan error, 1)
	go func() {
		defer close(over)
		var err error
		h.first, h.last, err = m.marks(ctx, &ended, steady)
		watching <- err
	}()
	w := newWatch(0)
	release := func() {
		if ended.Add(1) == int64(m.options.Window) {
			close(steady)
		}
	}
	f := flow{
		next: func(int) int {
			select {
			case <-over:
				return 0
			default:
				return min(submitChunk, m.options.Window)
			}
		},
		progress: func(int) {},
	}
	var err error
	h.loaded, h.tasks, err = m.flow(w, release, f)
	if err != nil {
		cancel(err)
	}
	if marked := <-watching; err == nil {
		err = marked
	}
	return h, err
}

// marks returns how many tasks ended per second in the first and in the last part of
// the duration.
func (m *measurement) marks(ctx context.Context, ended *atomic.Int64, steady <-chan struct{}) (first, last float64, err error) {
	select {
	case <-steady:
	case <-ctx.Done():
		return 0, 0, context.Cause(ctx)
	}
	began := time.Now()
	var rates [parts]float64
	at, count := began, ended.Load()
	for i := range rates {
		due := began.Add(m.options.Duration * time.Duration(i+1) / parts)
		for wait := time.Until(due); wait > 0 || ended.Load() == count; wait = time.Until(due) {
			select {
			case <-time.After(max(wait, time.Millisecond)): // no rate without an end
			case <-ctx.Done():
				return 0, 0, context.Cause(ctx)
			}
		}
		now, n := time.Now(), ended.Load()
		rates[i] = float64(n-count) / now.Sub(at).Seconds()
		at, count = now, n
		m.options.Progress("load", i+1, parts)
	}
	return rates[0], rates[parts-1], nil
}

// flow submits tasks while there is room for them.
type flow struct {
	next     func(sent int) int // how many to submit next; 0: no more
	progress func(sent int)
}

// feed submits chunks until there are no more, and returns the number of tasks.
func (m *measurement) feed(f flow, window chan<- struct{}, next chan<- []pipeline.Submission, errs <-chan error) (sent int, err error) {
	for {
		chunk := make([]pipeline.Submission, f.next(sent))
		if len(chunk) == 0 {
			return sent, nil
		}
		for i := range chunk {
			chunk[i] = m.submission()
			select {
			case window <- struct{}{}:
			case err := <-errs:
				return sent, err
			case <-m.ctx.Done():
				return sent, m.ctx.Err()
			}
		}
		select {
		case next <- chunk:
		case err := <-errs:
			return sent, err
		case <-m.ctx.Done():
			return sent, m.ctx.Err()
		}
		sent += len(chunk)
		f.progress(sent)
	}
}
