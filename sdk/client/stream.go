package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

const (
	// silenceLimit is how long a stream may be silent; the host sends a sign of life every 15
	// seconds.
	silenceLimit = 45 * time.Second
	// awayLimit is how long a host may be away before a stream gives up: a
	// restart takes less.
	awayLimit       = time.Minute
	firstRedial     = 100 * time.Millisecond
	slowestRedial   = 3 * time.Second
	longestPause    = 30 * time.Second // that a host may ask for
	maxEventBytes   = 1 << 20
	eventStreamType = "text/event-stream"
)

// StreamEvent is a server-sent event.
type StreamEvent struct {
	ID   string // of the last event that had one
	Name string
	Data string
}

// Stream calls each with the server-sent events that a request brings, beginning after the
// event with the id after (empty: where the host begins). It continues until each is done or
// fails, or the host says that there is nothing more. Stream reconnects when it is cut off,
// even across a restart of the host; a host that stays away for a minute is an error. Any error
// from each ends the stream.
func (c *Client) Stream(ctx context.Context, r Request, after string, each func(StreamEvent) (done bool, err error)) error {
	s := &stream{client: c, request: r, lastID: after, each: each}
	redial, awaySince := firstRedial, time.Now()
	for {
		s.heard = false
		done, err := s.follow(ctx)
		if done {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if s.heard {
			redial, awaySince = firstRedial, time.Now()
		}
		if !passing(err) || time.Since(awaySince) > awayLimit {
			return err
		}
		if !pause(ctx, pauseFor(redial, err)) {
			return context.Cause(ctx)
		}
		redial = min(redial*2, slowestRedial)
	}
}

// passing reports whether it makes sense to try again after err.
func passing(err error) bool {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.passing()
	}
	return errors.Is(err, ErrUnreachable)
}

// pauseFor is how long to wait after err before another try: what the host asked for, or least
// if that is longer, plus up to half of it at random, so that clients that were turned away
// together do not come back together.
func pauseFor(least time.Duration, err error) time.Duration {
	wait := least
	if e, ok := errors.AsType[*Error](err); ok {
		wait = max(wait, min(e.RetryAfter, longestPause))
	}
	return wait + rand.N(wait/2+1)
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

// stream reads over several connections.
type stream struct {
	client  *Client
	request Request
	each    func(StreamEvent) (bool, error)
	lastID  string
	heard   bool // the current connection has delivered something
}

// follow reads one stream to its end. It is done if there is no reason to reconnect, because
// each has returned done or an error.
func (s *stream) follow(ctx context.Context) (done bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(silenceLimit, func() { cancel(fmt.Errorf("%w: it has been silent for %s", ErrUnreachable, silenceLimit)) })
	defer silence.Stop()

	r := s.request
	r.Header = maps.Clone(r.Header)
	if r.Header == nil {
		r.Header = http.Header{}
	}
	r.Header.Set("Accept", eventStreamType)
	if s.lastID != "" {
		r.Header.Set("Last-Event-ID", s.lastID)
	}
	resp, err := s.client.send(ctx, r, nil)
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
			s.heard = true
			silence.Reset(silenceLimit)
		})
		if !ok {
			return false, s.cutOff(ctx, lines.Err())
		}
		if e.ID == "" {
			e.ID = s.lastID
		}
		s.lastID = e.ID
		if e.Data == "" {
			continue // an id alone tells how far the stream has come
		}
		if done, err := s.each(e); done || err != nil {
			return true, err
		}
	}
}

// cutOff says why a stream ended before it was done.
func (s *stream) cutOff(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return fmt.Errorf("%w: it ended the stream", ErrUnreachable)
}

// nextEvent reads up to the end of an event, or of an id alone; alive is called for every line.
func nextEvent(lines *bufio.Scanner, alive func()) (e StreamEvent, ok bool) {
	for lines.Scan() {
		alive()
		line := lines.Text()
		if line == "" {
			if e.Data != "" || e.ID != "" {
				return e, true
			}
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "id":
			e.ID = value
		case "event":
			e.Name = value
		case "data":
			if e.Data != "" {
				e.Data += "\n"
			}
			e.Data += value
		}
	}
	return e, false
}
