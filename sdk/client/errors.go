package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tasker-systems/tasker-host/sdk/task"
)

// ErrUnreachable means that no host answered.
var ErrUnreachable = errors.New("the host is not reachable")

// nobodyError is an ErrUnreachable for which waiting does not help.
type nobodyError struct{ text string }

func (e *nobodyError) Error() string { return ErrUnreachable.Error() + ": " + e.text }
func (e *nobodyError) Unwrap() error { return ErrUnreachable }

func isNobody(err error) bool {
	_, ok := errors.AsType[*nobodyError](err)
	return ok
}

// Error is a problem with which the host answered.
type Error struct {
	task.Problem
	RetryAfter time.Duration // 0: the host did not say
}

// Error returns the host's own text, with each issue on its own line if there are several.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Detail)
	for _, i := range e.Issues {
		switch place := i.Location + i.Pointer; {
		case len(e.Issues) > 1:
			b.WriteString("\n  ")
			b.WriteString(prefix(place, i.Detail))
		default:
			b.WriteString(": ")
			b.WriteString(prefix(place, i.Detail))
		}
	}
	if e.Status >= http.StatusInternalServerError && e.RequestID != "" {
		fmt.Fprintf(&b, " (request %s)", e.RequestID)
	}
	return b.String()
}

func prefix(place, detail string) string {
	if place == "" {
		return detail
	}
	return place + ": " + detail
}

// passing reports whether the same request may be served later: the host has no room, or a
// proxy in front of it cannot reach it, for example while it restarts.
func (e *Error) passing() bool {
	switch e.Status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	default:
		return false
	}
}

// NotFound reports whether the request named something that does not exist.
func (e *Error) NotFound() bool {
	return e.Status == http.StatusNotFound || strings.HasSuffix(e.Code, "_not_found")
}

// errorOf reads a problem. Any other answer, from a proxy for example, is quoted.
func errorOf(resp *http.Response, data []byte) error {
	e := &Error{}
	if err := json.Unmarshal(data, &e.Problem); err != nil || e.Code == "" {
		e.Problem = task.Problem{
			Status: resp.StatusCode, Code: "unknown",
			Detail: fmt.Sprintf("the host answered %s: %.200q", resp.Status, data),
		}
	}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		e.RetryAfter = time.Duration(s) * time.Second
	}
	return e
}

// unreachable explains why a request got no answer.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		if errors.Is(cause, context.Canceled) {
			return cause
		}
		return fmt.Errorf("%w: %w", ErrUnreachable, cause)
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // without the made-up URL of a socket
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return &nobodyError{fmt.Sprintf("nothing listens on %s; start a host with 'tasker up', or name another with --socket or --url", c.name)}
	case errors.Is(err, fs.ErrPermission):
		return &nobodyError{fmt.Sprintf("no permission to connect to %s; run this as the host's user", c.name)}
	default:
		return fmt.Errorf("%w: %s: %w", ErrUnreachable, c.name, err)
	}
}
