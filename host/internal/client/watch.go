package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

const (
	// silenceLimit is how long a stream may say nothing at all; the host sends
	// a sign of life every 15 seconds.
	silenceLimit = 45 * time.Second
	// awayLimit is how long a host may be away before watching gives up: a
	// restart takes less.
	awayLimit       = time.Minute
	firstRedial     = 100 * time.Millisecond
	slowestRedial   = 3 * time.Second
	maxEventBytes   = 1 << 20
	settledEvent    = "settled"
	eventStreamType = "text/event-stream"
)

// Watch calls show with every change of a task until it is settled, and returns
// the last snapshot. It reconnects where it was cut off, also over a restart of
// the host; a host that stays away for a minute is an error.
func (c *Client) Watch(ctx context.Context, id string, show func(readmodel.Snapshot)) (readmodel.Snapshot, error) {
	w := &watcher{client: c, id: id, show: show}
	redial, awaySince := firstRedial, time.Now()
	for {
		w.heard = false
		settled, err := w.follow(ctx)
		if settled || ctx.Err() != nil {
			return w.last, context.Cause(ctx)
		}
		if w.heard {
			redial, awaySince = firstRedial, time.Now()
		}
		if !passing(err) || time.Since(awaySince) > awayLimit {
			return w.last, err
		}
		if !pause(ctx, max(redial, retryAfter(err))) {
			return w.last, context.Cause(ctx)
		}
		redial = min(redial*2, slowestRedial)
	}
}

// passing reports whether it makes sense to try again after err.
func passing(err error) bool {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Status == http.StatusServiceUnavailable
	}
	return errors.Is(err, ErrUnreachable)
}

func retryAfter(err error) time.Duration {
	if e, ok := errors.AsType[*Error](err); ok {
		return min(e.RetryAfter, slowestRedial)
	}
	return 0
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// watcher follows one task over several connections.
type watcher struct {
	client *Client
	id     string
	show   func(readmodel.Snapshot)
	lastID string
	last   readmodel.Snapshot
	heard  bool // the stream at hand said something
}

// follow reads one stream to its end.
func (w *watcher) follow(ctx context.Context) (settled bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(silenceLimit, func() { cancel(fmt.Errorf("%w: it has been silent for %s", ErrUnreachable, silenceLimit)) })
	defer silence.Stop()

	header := http.Header{"Accept": {eventStreamType}}
	if w.lastID != "" {
		header.Set("Last-Event-ID", w.lastID)
	}
	resp, err := w.client.send(ctx, request{method: http.MethodGet, path: taskPath(w.id, "/events"), header: header})
	if err != nil {
		return false, err
	}
	defer func() { _ = resp.Body.Close() }()
	switch {
	case resp.StatusCode == http.StatusNoContent:
		return true, nil
	case resp.StatusCode != http.StatusOK:
		data, _ := io.ReadAll(io.LimitReader(resp.Body, maxEventBytes))
		return false, errorOf(resp, data)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxEventBytes)
	for {
		e, ok := nextEvent(lines, func() {
			w.heard = true
			silence.Reset(silenceLimit)
		})
		if !ok {
			return false, w.cutOff(ctx, lines.Err())
		}
		if err := w.take(e); err != nil {
			return false, err
		}
		if e.name == settledEvent {
			return true, nil
		}
	}
}

// cutOff says why a stream ended before the task did.
func (w *watcher) cutOff(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return fmt.Errorf("%w: it ended the stream", ErrUnreachable)
}

func (w *watcher) take(e event) error {
	var snap readmodel.Snapshot
	if err := json.Unmarshal([]byte(e.data), &snap); err != nil {
		return fmt.Errorf("watch task %s: the host sent an event that is not a snapshot: %w", w.id, err)
	}
	w.last = snap
	if e.id != "" {
		w.lastID = e.id
	}
	if w.show != nil {
		w.show(snap)
	}
	return nil
}

// event is one server-sent event.
type event struct{ id, name, data string }

// nextEvent reads up to the end of an event; alive is called for every line.
func nextEvent(lines *bufio.Scanner, alive func()) (e event, ok bool) {
	for lines.Scan() {
		alive()
		line := lines.Text()
		if line == "" {
			if e.data != "" {
				return e, true
			}
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "id":
			e.id = value
		case "event":
			e.name = value
		case "data":
			if e.data != "" {
				e.data += "\n"
			}
			e.data += value
		}
	}
	return e, false
}
