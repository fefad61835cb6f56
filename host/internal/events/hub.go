package events

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/host/internal/store"
)

// ErrTooSlow says that a subscription has let too much wait and gets no more events.
var ErrTooSlow = errors.New("events arrive faster than they are read")

// ErrStopped says that the hub is not running.
var ErrStopped = errors.New("the event feed is not running")

// Source is where events come from.
type Source interface {
	EventMark(ctx context.Context) (store.EventMark, error)
	OldestWriter(ctx context.Context) (time.Time, error)
	ReadEvents(ctx context.Context, span store.EventSpan) (events []readmodel.Event, upTo uint64, err error)
}

var _ Source = (*store.Store)(nil)

// Config are a hub's settings. Zero values stand for the defaults.
type Config struct {
	// Pace is the time between two looks while somebody listens; default 250ms.
	// If looks take long the pace slows down, to four times what a look takes.
	Pace time.Duration
	// Slack is how long a statement may take from its start until it writes, which
	// is the statement timeout plus the lock timeout; default 10s.
	Slack time.Duration
	// Batch is how many events are read at a time; default 2000.
	Batch int
	// Queue is how many batches may wait for one subscription; default 16.
	Queue int
	// MaxAge is how old a cursor may be; default 24h.
	MaxAge time.Duration
	// CatchingUp is how many subscriptions may catch up at the same time, while the
	// others wait; default 2.
	CatchingUp int
}

func (c Config) withDefaults() Config {
	c.Pace = cmp.Or(c.Pace, 250*time.Millisecond)
	c.Slack = cmp.Or(c.Slack, 10*time.Second)
	c.Batch = cmp.Or(c.Batch, 2000)
	c.Queue = cmp.Or(c.Queue, 16)
	c.MaxAge = cmp.Or(c.MaxAge, 24*time.Hour)
	c.CatchingUp = cmp.Or(c.CatchingUp, 2)
	return c
}

const (
	readTimeout = 30 * time.Second // for one look
	slowestPace = 10 * time.Second // while the database is unavailable
	paceFactor  = 4                // looks take a fifth of the time at most
	// lookBack is how far back a hub starts when it had no listeners: before anything
	// that it cannot see because transactions are still open.
	lookBack = time.Minute
)

// Item is an event and its JSON. Both are shared, and nobody may change them.
type Item struct {
	Event *readmodel.Event
	JSON  []byte
}

// batch is what the transactions of a span wrote.
type batch struct {
	from, to uint64
	since    time.Time
	items    []Item
}

// Hub reads events for its subscriptions. Run runs it.
type Hub struct {
	cfg      Config
	source   Source
	log      hclog.Logger
	metrics  *metrics
	joins    chan *join
	leaves   chan *Subscription
	catching chan struct{} // a token for each subscription that catches up

	place atomic.Pointer[Cursor] // the position up to which batches are in the queues
	alive atomic.Pointer[life]

	// The fields below belong to Run.
	subs  map[*Subscription]struct{}
	marks []store.EventMark // they narrow the search: the latest mark not above the place, and those after it
	last  store.EventMark
}

// life is one run of the hub.
type life struct{ over chan struct{} }

// join is a request for a place among the subscriptions.
type join struct {
	sub    *Subscription
	after  *Cursor
	answer chan error
}

// New makes a hub.
func New(cfg Config, source Source, reg prometheus.Registerer, log hclog.Logger) *Hub {
	cfg = cfg.withDefaults()
	return &Hub{
		cfg: cfg, source: source, log: log, metrics: newMetrics(reg),
		joins: make(chan *join), leaves: make(chan *Subscription), catching: make(chan struct{}, cfg.CatchingUp),
		subs: map[*Subscription]struct{}{},
	}
}

// Run serves subscriptions until ctx ends, which ends all of them. It is meant for a
// [lifecycle.Runner].
func (h *Hub) Run(ctx context.Context) error {
	now := &life{over: make(chan struct{})}
	h.alive.Store(now)
	defer func() {
		h.alive.Store(nil)
		close(now.over)
		for sub := range h.subs {
			h.drop(sub, ErrStopped)
		}
	}()
	timer := time.NewTimer(h.cfg.Pace)
	defer timer.Stop()
	for {
		var look <-chan time.Time // nil: nobody listens
		if len(h.subs) > 0 {
			look = timer.C
		}
		select {
		case <-ctx.Done():
			return nil
		case j := <-h.joins:
			idle := len(h.subs) == 0
			err := h.join(ctx, j)
			j.answer <- err
			if idle && err == nil {
				timer.Reset(h.cfg.Pace)
			}
		case sub := <-h.leaves:
			if _, ok := h.subs[sub]; ok {
				h.drop(sub, ErrStopped)
			}
		case <-look:
			timer.Reset(h.turn(ctx))
		}
	}
}

// turn looks once and returns when to look again.
func (h *Hub) turn(ctx context.Context) time.Duration {
	began := time.Now()
	more, err := h.look(ctx)
	took := time.Since(began)
	switch {
	case err != nil && ctx.Err() == nil:
		h.log.Warn("events cannot be read now", "error", err)
		return min(max(4*h.cfg.Pace, took), slowestPace)
	case more:
		return 0
	default:
		return max(h.cfg.Pace, paceFactor*took)
	}
}

// join admits a subscription, at a position that is not before the one from which it
// continues.
func (h *Hub) join(ctx context.Context, j *join) error {
	if len(h.subs) == 0 {
		if err := h.begin(ctx); err != nil {
			return err
		}
	}
	if after := j.after; after != nil {
		if err := h.reach(ctx, after); err != nil {
			return err
		}
	}
	place := *h.place.Load()
	j.sub.start(place, j.after)
	h.subs[j.sub] = struct{}{}
	h.metrics.streams.Set(float64(len(h.subs)))
	return nil
}

// begin sets the place to the current horizon.
func (h *Hub) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	oldest, err := h.source.OldestWriter(ctx)
	if err != nil {
		return fmt.Errorf("begin to follow events: %w", err)
	}
	mark, err := h.source.EventMark(ctx)
	if err != nil {
		return fmt.Errorf("begin to follow events: %w", err)
	}
	since := mark.At.Add(-lookBack)
	if oldest.Before(since) {
		since = oldest
	}
	h.marks = []store.EventMark{{At: since}, mark}
	h.last = mark
	h.move(mark.Horizon)
	return nil
}

// reach looks until no further events can come before a cursor.
func (h *Hub) reach(ctx context.Context, after *Cursor) error {
	for looked := false; h.place.Load().From < after.To; looked = true {
		if looked && after.To > h.last.Next {
			return ErrCursor // it names transactions that have yet to begin
		}
		before := h.place.Load().From
		more, err := h.look(ctx)
		if err != nil {
			return err
		}
		// Cursors end at a horizon, and horizons do not go backwards.
		if !more && looked && h.place.Load().From == before {
			return ErrCursor
		}
	}
	switch age := h.last.At.Sub(after.Since); {
	case age > h.cfg.MaxAge:
		return ErrExpired
	case age < 0:
		return ErrCursor
	}
	return nil
}

// look reads what has happened, at most one batch, and passes it on. more says that there
// is more to read.
func (h *Hub) look(ctx context.Context) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	mark, err := h.source.EventMark(ctx)
	if err != nil {
		return false, err
	}
	h.last = mark
	place := *h.place.Load()
	h.metrics.lag.Set(mark.At.Sub(place.Since).Seconds())
	if mark.Horizon <= place.From {
		h.remember(mark)
		h.move(place.From) // time has passed
		return false, nil
	}
	b, err := h.read(ctx, place.From, mark.Horizon, place.Since, mark.Next)
	if err != nil {
		return false, err
	}
	h.metrics.read.Add(float64(len(b.items)))
	if len(b.items) > 0 {
		for sub := range h.subs {
			select {
			case sub.queue <- b:
			default:
				h.metrics.cutOff.Inc()
				h.drop(sub, ErrTooSlow)
			}
		}
	}
	h.remember(mark)
	h.move(b.to)
	return b.to < mark.Horizon, nil
}

// read reads a batch and assigns ids to its events.
func (h *Hub) read(ctx context.Context, from, to uint64, since time.Time, next uint64) (*batch, error) {
	events, upTo, err := h.source.ReadEvents(ctx, store.EventSpan{From: from, To: to, Since: since, Next: next, Limit: h.cfg.Batch})
	if err != nil {
		return nil, err
	}
	b := &batch{from: from, to: upTo, since: since, items: make([]Item, len(events))}
	for i := range events {
		e := &events[i]
		e.ID = b.cursor(i).String()
		data, err := json.Marshal(e)
		if err != nil {
			return nil, fmt.Errorf("encode event %s: %w", e.ID, err)
		}
		b.items[i] = Item{Event: e, JSON: data}
	}
	return b, nil
}

// cursor returns the position after item i.
func (b *batch) cursor(i int) Cursor {
	return Cursor{From: b.from, To: b.to, Skip: uint64(i) + 1, Since: b.since}
}

// remember keeps a mark; of marks with the same transactions, the latest.
func (h *Hub) remember(mark store.EventMark) {
	if last := &h.marks[len(h.marks)-1]; last.Next == mark.Next {
		*last = mark
		return
	}
	h.marks = append(h.marks, mark)
}

// move goes to a position. Transactions from there on began after every mark whose
// Next is not above the position, so they wrote later than that mark.
func (h *Hub) move(to uint64) {
	for len(h.marks) > 1 && h.marks[1].Next <= to {
		h.marks = h.marks[1:]
	}
	since := h.marks[0].At.Add(-h.cfg.Slack).Truncate(time.Microsecond)
	h.place.Store(&Cursor{From: to, To: to, Since: since})
}

// drop ends a subscription.
func (h *Hub) drop(sub *Subscription, why error) {
	delete(h.subs, sub)
	h.metrics.streams.Set(float64(len(h.subs)))
	sub.end = why
	sub.ended.Store(true)
	close(sub.queue)
}
