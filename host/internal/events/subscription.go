package events

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// Filter reports whether a subscriber wants an event.
type Filter func(*readmodel.Event) bool

// Subscription receives events, each once. It may be used by one goroutine only.
type Subscription struct {
	hub   *Hub
	want  Filter
	queue chan *batch
	end   error // why queue is closed
	ended atomic.Bool

	place Cursor // everything before it has been returned
	goal  uint64 // where the queue begins; place is before it while catching up
	life  *life
}

// Subscribe follows events: those that happen from now on, or those after a cursor.
// The error is [ErrCursor], [ErrExpired] or [ErrStopped], or says that the database
// does not answer. The caller must call Close at the end.
func (h *Hub) Subscribe(ctx context.Context, after *Cursor, want Filter) (*Subscription, error) {
	now := h.alive.Load()
	if now == nil {
		return nil, ErrStopped
	}
	sub := &Subscription{hub: h, want: want, queue: make(chan *batch, h.cfg.Queue), life: now}
	j := &join{sub: sub, after: after, answer: make(chan error, 1)}
	select {
	case h.joins <- j:
	case <-now.over:
		return nil, ErrStopped
	case <-ctx.Done():
		return nil, fmt.Errorf("follow events: %w", context.Cause(ctx))
	}
	select {
	case err := <-j.answer:
		if err != nil {
			return nil, err
		}
		return sub, nil
	case <-ctx.Done():
		go func() { // it may have been admitted
			if <-j.answer == nil {
				sub.Close()
			}
		}()
		return nil, fmt.Errorf("follow events: %w", context.Cause(ctx))
	}
}

// start sets where the subscription begins. hub is where the queue begins.
func (s *Subscription) start(hub Cursor, after *Cursor) {
	s.goal, s.place = hub.From, hub
	if after != nil {
		s.place = *after
	}
}

// Close ends the subscription.
func (s *Subscription) Close() {
	select {
	case s.hub.leaves <- s:
	case <-s.life.over:
	}
}

// Next returns events, at least one, in their order. It waits for them until ctx
// ends. After [ErrTooSlow] or [ErrStopped] there are no more events.
func (s *Subscription) Next(ctx context.Context) ([]Item, error) {
	for {
		b, err := s.batch(ctx)
		if err != nil {
			return nil, err
		}
		var wanted []Item
		for _, item := range b.items {
			if s.want(item.Event) {
				wanted = append(wanted, item)
			}
		}
		if len(wanted) > 0 {
			return wanted, nil
		}
	}
}

// Place returns the position after everything that Next has returned.
func (s *Subscription) Place() Cursor {
	// The hub moves its place only after it has filled the queues, or ended those that
	// were full. So if the queue is empty now, everything before that place was taken.
	hub := *s.hub.place.Load()
	if !s.catchingUp() && !s.ended.Load() && len(s.queue) == 0 && hub.From >= s.place.To {
		s.place = hub
	}
	return s.place
}

func (s *Subscription) batch(ctx context.Context) (*batch, error) {
	if s.catchingUp() {
		return s.catchUp(ctx)
	}
	select {
	case b, ok := <-s.queue:
		if !ok {
			return nil, s.end
		}
		s.place = b.after()
		return b, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for events: %w", context.Cause(ctx))
	}
}

func (s *Subscription) catchingUp() bool { return s.place.Skip > 0 || s.place.To < s.goal }

// after returns the position after the whole batch.
func (b *batch) after() Cursor { return Cursor{From: b.to, To: b.to, Since: b.since} }

// catchUp reads a batch that the hub has moved past. The first one is the rest of the
// batch that the cursor is in.
func (s *Subscription) catchUp(ctx context.Context) (*batch, error) {
	select {
	case s.hub.catching <- struct{}{}:
		defer func() { <-s.hub.catching }()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for events: %w", context.Cause(ctx))
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	mark, err := s.hub.source.EventMark(ctx)
	if err != nil {
		return nil, err
	}
	from, to := s.place.To, s.goal
	if s.place.Skip > 0 {
		from, to = s.place.From, s.place.To
	}
	b, err := s.hub.read(ctx, from, to, s.place.Since, mark.Next)
	if err != nil {
		return nil, err
	}
	if skip := s.place.Skip; skip > 0 {
		// A batch must end where it ended when the cursor was made.
		if b.to != to || skip > uint64(len(b.items)) {
			return nil, errors.Join(ErrCursor, errors.New("what it refers to no longer exists"))
		}
		b.items = b.items[skip:]
	}
	s.place = b.after()
	return b, nil
}
