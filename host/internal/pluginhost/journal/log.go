package journal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Journal stores events permanently. A batch is written as a whole or not at all.
type Journal interface {
	Record(ctx context.Context, events []Event) error
	// Quarantines returns what is in quarantine now.
	Quarantines(ctx context.Context) ([]Quarantine, error)
	// LastGood returns the executable that last served in a slot and is neither in
	// quarantine nor the one given; empty if there is none.
	LastGood(ctx context.Context, slot SlotID, but string) (sha256 string, err error)
}

const (
	maxPending   = 4096            // events waiting to be written; the oldest are dropped first
	writeTimeout = 2 * time.Second // for one batch
	retryAfter   = 250 * time.Millisecond
	maxBatch     = 256
)

// Log writes events in the order in which they were given, from one goroutine.
type Log struct {
	journal Journal
	log     hclog.Logger
	wake    chan struct{}
	quit    chan struct{}
	done    sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	pending []entry
	lost    int
	closed  bool // nothing is accepted any more
	writing int  // number of entries in pending, from the front
}

// entry holds events that are written together.
type entry struct {
	events  []Event
	written chan error // nil: nobody waits
}

// ErrNotRecorded is in the error of a change that was not made because it could not be
// recorded.
var ErrNotRecorded = errors.New("the change could not be recorded, so it was not made")

var errClosed = errors.New("the host is stopping")

// NewLog starts the goroutine, which Close ends.
func NewLog(j Journal, log hclog.Logger) *Log {
	l := &Log{journal: j, log: log, wake: make(chan struct{}, 1), quit: make(chan struct{})}
	l.done.Go(l.run)
	return l
}

// Close writes what is pending, if that can be done before ctx ends, and ends the
// goroutine. It returns how many events were lost.
func (l *Log) Close(ctx context.Context) int {
	_ = l.Must(ctx) // behind all others
	close(l.quit)
	l.done.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.pending {
		l.lost += len(e.events)
		e.answer(errClosed)
	}
	l.pending, l.closed = nil, true
	return l.lost
}

// Later has events written soon. It does not block.
func (l *Log) Later(events ...Event) { l.add(entry{events: events}) }

// Must writes events, after those given before. If it returns an error, they were not and
// will not be written.
func (l *Log) Must(ctx context.Context, events ...Event) error {
	e := entry{events: events, written: make(chan error, 1)}
	l.add(e)
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	select {
	case err := <-e.written:
		return wrapRefusal(err)
	case <-ctx.Done():
	}
	if l.withdraw(e) {
		return wrapRefusal(context.Cause(ctx))
	}
	return wrapRefusal(<-e.written) // already being written: bounded by writeTimeout
}

func wrapRefusal(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrNotRecorded, err)
}

// Lost returns how many events could not be kept.
func (l *Log) Lost() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}

func (l *Log) add(e entry) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		e.answer(errClosed)
		return
	}
	l.pending = append(l.pending, e)
	if n := len(l.pending); n > maxPending && l.writing < n {
		old := l.pending[l.writing]
		l.pending = append(l.pending[:l.writing], l.pending[l.writing+1:]...)
		l.lost += len(old.events)
		old.answer(errors.New("too many events are waiting to be written"))
	}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// withdraw removes an entry that is not being written yet.
func (l *Log) withdraw(e entry) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := l.writing; i < len(l.pending); i++ {
		if l.pending[i].written == e.written {
			l.pending = append(l.pending[:i], l.pending[i+1:]...)
			return true
		}
	}
	return false
}

func (e entry) answer(err error) {
	if e.written != nil {
		e.written <- err
	}
}

func (l *Log) run() {
	for {
		batch := l.take()
		if batch == nil {
			select {
			case <-l.wake:
				continue
			case <-l.quit:
				return
			}
		}
		err := l.write(batch)
		l.ended(err)
		if err == nil {
			continue
		}
		l.log.Warn("plugin events could not be written yet", "error", err)
		select {
		case <-time.After(retryAfter):
		case <-l.quit:
			return
		}
	}
}

// take marks the entries at the front as being written: up to the first one that has a
// waiter, so that its failure concerns it alone.
func (l *Log) take() []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	batch := []Event{}
	for i, e := range l.pending {
		if i > 0 && len(batch)+len(e.events) > maxBatch {
			break
		}
		batch = append(batch, e.events...)
		l.writing = i + 1
		if e.written != nil {
			break
		}
	}
	if l.writing == 0 {
		return nil
	}
	return batch
}

// ended ends a write. After a failure, entries without a waiter stay.
func (l *Log) ended(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	kept := make([]entry, 0, len(l.pending))
	for _, e := range l.pending[:l.writing] {
		if err != nil && e.written == nil {
			kept = append(kept, e)
			continue
		}
		e.answer(err)
	}
	l.pending = append(kept, l.pending[l.writing:]...)
	l.writing = 0
}

func (l *Log) write(events []Event) error {
	if len(events) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	return l.journal.Record(ctx, events)
}
