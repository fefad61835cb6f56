package client_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/api/apitest"
	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// A client that is cut off after every few events gets each event once.
func TestFollowEvents(t *testing.T) {
	t.Parallel()
	b, c := setup(t)
	const all = 9
	happen := func() { b.Happened(readmodel.Event{Kind: readmodel.EventTask, Namespace: "shop", To: "complete"}) }
	happen()
	var seen []int64
	b.TooSlow(true) // clients with nothing to read are cut off
	err := c.FollowEvents(t.Context(), client.EventFilter{After: "e0", Kinds: []string{"task", "step"}, Namespace: "shop"}, func(e readmodel.Event) (bool, error) {
		seen = append(seen, e.SortKey)
		if len(seen)%3 != 0 {
			happen()
		} else if len(seen) < all {
			happen()
			b.TooSlow(len(seen)%2 == 0)
		}
		return len(seen) == all, nil
	})
	require.NoError(t, err)
	for i, n := range seen {
		require.EqualValues(t, i+1, n)
	}
	err = c.FollowEvents(t.Context(), client.EventFilter{After: apitest.OldEvent}, nil)
	var problem *client.Error
	require.ErrorAs(t, err, &problem)
	require.Equal(t, api.CodeEventsExpired, problem.Code)
}

// An error of the caller's function ends the stream, even if it looks like a failure of the host.
func TestFollowEventsEndsWithTheErrorOfWhoFollows(t *testing.T) {
	t.Parallel()
	b, c := setup(t)
	b.Happened(readmodel.Event{Kind: readmodel.EventTask, To: "complete"})
	for _, own := range []error{
		errors.New("the disk is full"),
		fmt.Errorf("look the task up: %w", client.ErrUnreachable),
		&client.Error{Problem: readmodel.Problem{Status: http.StatusServiceUnavailable, Detail: "not now"}},
	} {
		for _, done := range []bool{false, true} {
			calls := 0
			err := c.FollowEvents(t.Context(), client.EventFilter{After: "e0"}, func(readmodel.Event) (bool, error) {
				calls++
				return done || calls > 1, own
			})
			require.ErrorIs(t, err, own)
			require.Equal(t, 1, calls)
		}
	}
}

// The client waits for a host that restarts behind a proxy or rejects clients that all return at once.
func TestFollowEventsOverAProxy(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout} {
		var calls atomic.Int64
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if calls.Add(1) == 1 {
				w.WriteHeader(status)
				return
			}
			_, _ = io.WriteString(w, "id: a\nevent: task\ndata: {}\n\n")
		}))
		err := connect(t, client.Options{URL: s.URL}).FollowEvents(t.Context(), client.EventFilter{}, func(readmodel.Event) (bool, error) { return true, nil })
		require.NoError(t, err, status)
		require.EqualValues(t, 2, calls.Load())
		s.Close()
	}
}
