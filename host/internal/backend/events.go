package backend

import (
	"context"
	"errors"
	"slices"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/events"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Events follows what happens in the system.
type Events interface {
	Subscribe(ctx context.Context, after *events.Cursor, want events.Filter) (*events.Subscription, error)
}

var _ Events = (*events.Hub)(nil)

// FollowEvents implements [api.Events].
func (b *Backend) FollowEvents(ctx context.Context, q api.EventQuery) (api.EventStream, error) {
	var after *events.Cursor
	if q.After != "" {
		c, err := events.ParseCursor(q.After)
		if err != nil {
			return nil, eventFault(err)
		}
		after = &c
	}
	s, err := b.Parts.Events.Subscribe(ctx, after, wanted(q))
	if err != nil {
		return nil, eventFault(err)
	}
	return eventStream{s}, nil
}

func wanted(q api.EventQuery) events.Filter {
	task := ""
	if q.Task != (vocab.UUID{}) {
		task = q.Task.String()
	}
	return func(e *readmodel.Event) bool {
		return slices.Contains(q.Kinds, e.Kind) && (q.Namespace == "" || e.Namespace == q.Namespace) && (task == "" || e.TaskUUID == task)
	}
}

func eventFault(err error) error {
	switch {
	case errors.Is(err, events.ErrCursor):
		return api.Invalid(api.CodeValidationFailed, "events cannot resume from there",
			api.Issue{Location: "header.Last-Event-ID", Detail: err.Error() + "; omit it to start from now"})
	case errors.Is(err, events.ErrExpired):
		return &api.Fault{Kind: api.ErrGone, Code: api.CodeEventsExpired, Detail: "the event id is too old to resume from; omit it to start from now, " +
			"and see the histories of tasks and plugins and the audit for earlier ones"}
	case errors.Is(err, events.ErrStopped):
		return api.Unavailable("the event feed is not running", databaseRetry, err)
	default:
		return fault(err)
	}
}

// eventStream presents a subscription to the API.
type eventStream struct{ *events.Subscription }

// Next implements [api.EventStream].
func (s eventStream) Next(ctx context.Context) ([]api.EventItem, error) {
	items, err := s.Subscription.Next(ctx)
	switch {
	case errors.Is(err, events.ErrTooSlow):
		return nil, api.ErrTooSlow
	case err != nil:
		return nil, err
	}
	out := make([]api.EventItem, len(items))
	for i, item := range items {
		out[i] = api.EventItem{ID: item.Event.ID, Kind: item.Event.Kind, JSON: item.JSON}
	}
	return out, nil
}

// Place implements [api.EventStream].
func (s eventStream) Place() string { return s.Subscription.Place().String() }
