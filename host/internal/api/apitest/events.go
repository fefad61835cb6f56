package apitest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// OldEvent is the id of an event that is too old to resume from.
const OldEvent = "old"

// Happened adds an event; its id is "e" and a number.
func (b *Backend) Happened(e readmodel.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e.ID, e.SortKey, e.At = fmt.Sprintf("e%d", len(b.events)+1), int64(len(b.events)+1), *b.now()
	b.events = append(b.events, e)
	b.notify()
}

// TooSlow makes every stream of events be cut off once it has no more to deliver.
func (b *Backend) TooSlow(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tooSlow = on
	b.notify()
}

// FollowEvents implements api.Events.
func (b *Backend) FollowEvents(_ context.Context, q api.EventQuery) (api.EventStream, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &stream{backend: b, query: q, next: len(b.events)}
	if q.After == OldEvent {
		return nil, &api.Fault{Kind: api.ErrGone, Code: api.CodeEventsExpired, Detail: "the event id is too old to resume from"}
	}
	if q.After != "" {
		if _, err := fmt.Sscanf(q.After, "e%d", &s.next); err != nil {
			return nil, api.Invalid(api.CodeValidationFailed, "events cannot resume from there")
		}
	}
	b.streams++
	return s, b.fail
}

// Streams returns how many streams of events are open.
func (b *Backend) Streams() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.streams
}

type stream struct {
	backend *Backend
	query   api.EventQuery
	next    int
}

// Next implements api.EventStream.
func (s *stream) Next(ctx context.Context) ([]api.EventItem, error) {
	for {
		items, changed, err := s.take()
		if err != nil || len(items) > 0 {
			return items, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *stream) take() (items []api.EventItem, changed chan struct{}, err error) {
	b := s.backend
	b.mu.Lock()
	defer b.mu.Unlock()
	for ; s.next < len(b.events); s.next++ {
		e := &b.events[s.next]
		q := s.query
		if !slices.Contains(q.Kinds, e.Kind) || q.Namespace != "" && q.Namespace != e.Namespace ||
			q.Task != (vocab.UUID{}) && q.Task.String() != e.TaskUUID {
			continue
		}
		data, err := json.Marshal(e)
		if err != nil {
			return nil, nil, err
		}
		items = append(items, api.EventItem{ID: e.ID, Kind: e.Kind, JSON: data})
	}
	if len(items) == 0 && b.tooSlow {
		return nil, nil, api.ErrTooSlow
	}
	return items, b.changed, nil
}

// Place implements api.EventStream.
func (s *stream) Place() string { return fmt.Sprintf("e%d", s.next) }

// Close implements api.EventStream.
func (s *stream) Close() {
	s.backend.mu.Lock()
	defer s.backend.mu.Unlock()
	s.backend.streams--
}
