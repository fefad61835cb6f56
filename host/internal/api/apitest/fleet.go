package apitest

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

var (
	_ api.Letters = (*Backend)(nil)
	_ api.Fleet   = (*Backend)(nil)
)

// SetAside adds a message to the dead letters and returns its number.
func (b *Backend) SetAside(queue, reason, detail, body string) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	id := int64(len(b.letters) + 1)
	b.letters = append(b.letters, readmodel.DeadLetter{
		ID: id, Kind: "message", Queue: queue, MessageID: 10 + id, Reason: reason, Detail: detail, CreatedAt: *b.now(), Body: json.RawMessage(body),
	})
	return id
}

// ListLetters implements api.Letters.
func (b *Backend) ListLetters(_ context.Context, q api.LetterQuery) ([]readmodel.DeadLetter, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []readmodel.DeadLetter
	for _, l := range slices.Backward(b.letters) {
		l.Body = nil
		switch {
		case q.Before != 0 && l.ID >= q.Before, l.Closed != nil && !q.Closed:
		case q.Kind != "" && q.Kind != l.Kind, q.Reason != "" && q.Reason != l.Reason, q.Queue != "" && q.Queue != l.Queue:
		default:
			out = append(out, l)
		}
	}
	return out[:min(len(out), q.Limit)], b.fail
}

// Letter implements api.Letters.
func (b *Backend) Letter(_ context.Context, id int64) (readmodel.DeadLetter, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if id > int64(len(b.letters)) {
		return readmodel.DeadLetter{}, api.NotFound(api.CodeLetterNotFound, "there is no dead letter %d", id)
	}
	return b.letters[id-1], nil
}

// Replay implements api.Letters. Letters with the reason no_queue cannot be replayed.
func (b *Backend) Replay(ctx context.Context, id int64, o api.Operator) (readmodel.DeadLetter, error) {
	return b.closeLetter(ctx, id, "replayed", o)
}

// Discard implements api.Letters.
func (b *Backend) Discard(ctx context.Context, id int64, o api.Operator) (readmodel.DeadLetter, error) {
	return b.closeLetter(ctx, id, "discarded", o)
}

func (b *Backend) closeLetter(ctx context.Context, id int64, as string, o api.Operator) (readmodel.DeadLetter, error) {
	l, err := b.Letter(ctx, id)
	switch {
	case err != nil:
		return l, err
	case l.Closed != nil:
		return l, api.Conflict(api.CodeLetterClosed, "dead letter %d was %s", id, l.Closed.As)
	case l.Reason == "no_queue" && as == "replayed":
		return l, api.Conflict(api.CodeLetterNotReplayable, "the queue of dead letter %d no longer exists", id)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	l.Closed = &readmodel.LetterClosed{At: *b.now(), As: as, By: o.By, Reason: o.Reason}
	b.letters[id-1] = l
	return l, nil
}

// Hosts implements api.Fleet.
func (b *Backend) Hosts(context.Context) ([]readmodel.Host, error) {
	return []readmodel.Host{
		{ID: 2, Name: "blue", Version: "1.0.0", Environment: "production", State: "normal", Alive: true, StartedAt: Epoch, HeartbeatAt: Epoch, AliveUntil: Epoch.Add(30 * time.Second), Served: []string{"math.square", "math.add"}, Plugins: []readmodel.HostPlugin{
			{Kind: "handler", Name: "arithmetic", Version: "1.2.0", Generation: 7}, {Kind: "scaling", Name: "tracking", Version: "0.3.1", Generation: 8},
		}},
		{ID: 1, Name: "green", Version: "0.9.0", Environment: "production", State: "dead", StartedAt: Epoch, HeartbeatAt: Epoch, AliveUntil: Epoch},
	}, b.fail
}

// Workers implements api.Fleet.
func (b *Backend) Workers(context.Context) ([]readmodel.Worker, error) {
	return []readmodel.Worker{{
		Name: "erp-1", Namespace: "linear_workflow", FirstSeenAt: Epoch.Add(-time.Hour), LastSeenAt: Epoch, Leases: 2, Done: 40, Failed: 3, Released: 1, Lost: 1,
	}}, b.fail
}

// Queues implements api.Fleet.
func (b *Backend) Queues(context.Context) ([]readmodel.Queue, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := Epoch
	return []readmodel.Queue{{
		Namespace: "linear_workflow", Queue: "linear_workflow_queue", Waiting: 3, Delayed: 1, OldestAt: &at, Paused: b.pause,
	}}, b.fail
}

// Queue implements api.Fleet.
func (b *Backend) Queue(ctx context.Context, namespace string) (readmodel.Queue, error) {
	if namespace != "linear_workflow" {
		return readmodel.Queue{}, api.NotFound(api.CodeQueueNotFound, "there is no namespace %q", namespace)
	}
	queues, err := b.Queues(ctx)
	if err != nil {
		return readmodel.Queue{}, err
	}
	return queues[0], nil
}

// PauseQueue implements api.Fleet.
func (b *Backend) PauseQueue(ctx context.Context, namespace string, pause bool, o api.Operator) (readmodel.Queue, error) {
	if q, err := b.Queue(ctx, namespace); err != nil {
		return q, err
	}
	b.mu.Lock()
	b.pause = nil
	if pause {
		b.pause = &readmodel.Pause{Since: *b.now(), By: o.By, Reason: o.Reason}
	}
	b.mu.Unlock()
	return b.Queue(ctx, namespace)
}
