package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tasker-systems/tasker-host/host/internal/auth"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

const (
	maxStreams        = 512                    // streams that one host serves at a time
	watchPace         = 200 * time.Millisecond // at least this between two looks at a task
	keepAliveInterval = 15 * time.Second
	recheckInterval   = time.Second // between two checks whether a client's bearer is still valid
	reconnectDelay    = time.Second // told to clients
)

// streams bounds the number of event streams and ends them when the server stops, since
// they would hold up a graceful shutdown for ever.
type streams struct {
	open atomic.Int64

	mu      sync.Mutex // guards the fields below
	stopped bool
	last    int
	ends    map[int]context.CancelFunc
}

// attach makes the server's stop call cancel; detach undoes that.
func (s *streams) attach(cancel context.CancelFunc) (detach func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		cancel()
	}
	if s.ends == nil {
		s.ends = map[int]context.CancelFunc{}
	}
	s.last++
	id := s.last
	s.ends[id] = cancel
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.ends, id)
	}
}

// end ends the streams that are open, and those that requests in progress still open.
func (s *streams) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	for _, cancel := range s.ends {
		cancel()
	}
}

// enter claims a place; leave must be called if it returns true.
func (s *streams) enter() bool {
	if s.open.Add(1) > maxStreams {
		s.open.Add(-1)
		return false
	}
	return true
}

func (s *streams) leave() { s.open.Add(-1) }

// reopen allows streams again.
func (s *streams) reopen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = false
}

// attend makes cancel be called when the server stops, and when the bearer that the
// request of ctx presented is revoked or expires: then the cause is [auth.ErrRefused].
// If that cannot be checked at the moment, the stream continues.
func (r *routes) attend(ctx context.Context, cancel context.CancelCauseFunc) (leave func()) {
	detach := r.streams.attach(func() { cancel(nil) })
	recheck, ok := ctx.Value(recheckKey{}).(func(context.Context) error)
	if !ok {
		return detach
	}
	ctx, over := context.WithCancel(ctx)
	var checking sync.WaitGroup
	checking.Go(func() {
		t := time.NewTicker(recheckInterval)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			if err := recheck(ctx); errors.Is(err, auth.ErrRefused) {
				cancel(err)
				return
			}
		}
	})
	return func() {
		over()
		checking.Wait()
		detach()
	}
}

type watchInput struct {
	TaskUUID    string `path:"task_uuid" format:"uuid"`
	LastEventID string `header:"Last-Event-ID" maxLength:"64"`
}

// watch takes the first look before it answers, so that an unknown task or an
// unavailable database is an ordinary problem.
func (r *routes) watch(ctx context.Context, in *watchInput) (*huma.StreamResponse, error) {
	id, err := taskID(in.TaskUUID)
	if err != nil {
		return nil, err
	}
	first, err := r.backend.Details.Watch(ctx, id, "")
	if err != nil {
		return nil, err
	}
	if first.Settled() && first.Revision() == in.LastEventID {
		return &huma.StreamResponse{Body: func(ctx huma.Context) { ctx.SetStatus(http.StatusNoContent) }}, nil
	}
	if !r.streams.enter() {
		return nil, Unavailable("too many clients watch now", 5*time.Second, nil)
	}
	return &huma.StreamResponse{Body: func(hctx huma.Context) {
		defer r.streams.leave()
		req, w := humago.Unwrap(hctx)
		ctx, cancel := context.WithCancelCause(hctx.Context())
		defer cancel(nil)
		defer r.attend(ctx, cancel)()
		s := &eventStream{sse: r.newSSE(req, w), watcher: r.backend.Details, task: id}
		s.run(ctx, first, in.LastEventID)
	}}, nil
}

// eventStream is one client that watches one task.
type eventStream struct {
	sse
	watcher TaskDetails
	task    vocab.UUID
}

// run sends snapshots until the task is settled, the client leaves or ctx
// ends. seen is the revision that the client has.
func (s *eventStream) run(ctx context.Context, snap readmodel.Snapshot, seen string) {
	if s.begin() != nil {
		return
	}
	for {
		if rev := snap.Revision(); rev != seen || snap.Settled() {
			if s.send(&snap, rev) != nil || snap.Settled() {
				return
			}
			seen = rev
		}
		var ok bool
		if snap, ok = s.next(ctx, snap, seen); !ok {
			return
		}
	}
}

// next returns the next snapshot, which may be unchanged after a while; ok is false when
// the stream is over. While the database is unavailable it keeps the client connected
// and continues to look.
func (s *eventStream) next(ctx context.Context, last readmodel.Snapshot, seen string) (snap readmodel.Snapshot, ok bool) {
	quiet := time.NewTimer(keepAliveInterval)
	defer quiet.Stop()
	for {
		look, cancel := context.WithTimeout(ctx, keepAliveInterval)
		pace := time.NewTimer(watchPace)
		snap, err := s.watcher.Watch(look, s.task, seen)
		cancel()
		switch {
		case ctx.Err() != nil, errors.Is(err, ErrNotFound):
			pace.Stop()
			return last, false
		case err == nil && snap.Revision() != seen:
			pace.Stop()
			return snap, true
		}
		select {
		case <-ctx.Done():
			return last, false
		case <-quiet.C:
			return last, s.write(": keep-alive\n\n") == nil
		case <-pace.C:
		}
	}
}

func (s *eventStream) send(snap *readmodel.Snapshot, rev string) error {
	data, err := json.Marshal(snap)
	if err != nil {
		return fmt.Errorf("encode a snapshot of task %s: %w", s.task, err)
	}
	event := "snapshot"
	if snap.Settled() {
		event = "settled"
	}
	return s.write(fmt.Sprintf("id: %s\nevent: %s\ndata: %s\n\n", rev, event, data))
}

// sse writes server-sent events.
type sse struct {
	w       io.Writer
	ctl     *http.ResponseController
	timeout time.Duration // for the client to receive an event
	head    bool          // the client asks only for the header
}

func (r *routes) newSSE(req *http.Request, w http.ResponseWriter) sse {
	return sse{w: w, ctl: http.NewResponseController(w), timeout: r.eventTimeout, head: req.Method == http.MethodHead}
}

// errHead says that there is nothing to send after the header. If the stream continued,
// whatever the client sends next on the connection would not be served.
var errHead = errors.New("the client asks for the header only")

func (s sse) begin() error {
	// The request's read deadline would cancel the context and so end the stream.
	_ = s.ctl.SetReadDeadline(time.Time{})
	if w, ok := s.w.(http.ResponseWriter); ok {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-store")
	}
	if s.head {
		return errHead
	}
	return s.write(fmt.Sprintf("retry: %d\n\n", reconnectDelay.Milliseconds()))
}

func (s sse) write(text string) error {
	if err := s.ctl.SetWriteDeadline(time.Now().Add(s.timeout)); err != nil {
		return fmt.Errorf("set the deadline of an event: %w", err)
	}
	if _, err := io.WriteString(s.w, text); err != nil {
		return fmt.Errorf("write an event: %w", err)
	}
	if err := s.ctl.Flush(); err != nil {
		return fmt.Errorf("flush an event: %w", err)
	}
	return nil
}
