package pipeline

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/pgmq"
	"github.com/tasker-systems/tasker-host/host/internal/store"
)

// inboxStore is what the inboxes need from the database.
type inboxStore interface {
	ReadMessages(ctx context.Context, queue string, vt time.Duration, most int) ([]pgmq.Message, error)
	SetAside(ctx context.Context, queue string, id int64, reason, detail string) error
	SettlePosted(ctx context.Context, host int32, queue string, p store.Policy, batch []store.Posted) (store.Settled, error)
}

// inbox reads a queue by which others request something from the host, and hands its
// messages over. A message is hidden while it is being processed, comes back if nobody
// has answered it, and is set aside when it cannot be processed or has come back too
// often.
type inbox struct {
	engine *Engine
	queue  string
	handle func(messages []pgmq.Message)

	mu   sync.Mutex
	busy map[int64]bool // messages that this host is processing
}

func (b *inbox) turn(most int) (int, error) {
	e := b.engine
	ctx, cancel := context.WithTimeout(e.accept, callTimeout)
	defer cancel()
	messages, err := e.store.ReadMessages(ctx, b.queue, e.live().InboxVT, most)
	if err != nil {
		if e.accept.Err() != nil {
			return 0, nil
		}
		return 0, err
	}
	var todo []pgmq.Message
	for _, m := range messages {
		switch {
		case !b.begin(m.ID):
		case m.Reads > e.live().InboxMaxReads:
			b.setAside(m.ID, "read_too_often", "read repeatedly without being handled")
		default:
			todo = append(todo, m)
		}
	}
	if len(todo) > 0 {
		b.handle(todo)
	}
	return len(messages), nil
}

// begin notes that a message is being processed; it returns false if it already was.
func (b *inbox) begin(id int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.busy[id] {
		return false
	}
	b.busy[id] = true
	return true
}

// idle reports whether no message is being processed.
func (b *inbox) idle() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.busy) == 0
}

func (b *inbox) done(ids ...int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		delete(b.busy, id)
	}
}

// setAside moves a message to the dead letters. If that fails, the message comes back and
// is judged again.
func (b *inbox) setAside(id int64, reason, detail string) {
	defer b.done(id)
	e := b.engine
	err := e.insist(e.work, "set message aside", func(ctx context.Context) error {
		return e.store.SetAside(ctx, b.queue, id, reason, detail)
	})
	if err != nil {
		e.log.Warn("message could not be set aside", "queue", b.queue, "message", id, "error", err)
		return
	}
	b.noteSetAside(id, reason, detail)
}

func (b *inbox) noteSetAside(id int64, reason, detail string) {
	b.engine.metrics.setAside.WithLabelValues(reason).Inc()
	b.engine.log.Warn("message set aside", "queue", b.queue, "message", id, "reason", reason, "detail", detail)
}

func (e *Engine) newInbox(queue string) *inbox {
	b := &inbox{engine: e, queue: queue, busy: map[int64]bool{}}
	e.inboxes = append(e.inboxes, b)
	return b
}

// asObject returns a message's body if it is a JSON object.
func asObject(body json.RawMessage) (json.RawMessage, bool) {
	return body, len(body) > 0 && body[0] == '{'
}
