package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/api/apitest"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

type event struct {
	id, name string
	snap     readmodel.Snapshot
}

// stream opens the event stream of a task; next reads an event, and reports
// false at the end.
func stream(t *testing.T, socket, id, lastEventID string) (next func() (event, bool), status int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://tasker/v1/tasks/"+id+"/events", nil)
	require.NoError(t, err)
	if lastEventID != "" {
		req.Header.Set("Last-Event-ID", lastEventID)
	}
	resp, err := httpClient(t, socket).Do(req)
	require.NoError(t, err)
	t.Cleanup(func() { _ = resp.Body.Close() })
	lines := bufio.NewScanner(resp.Body)
	return func() (event, bool) {
		var e event
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch name {
			case "id":
				e.id = value
			case "event":
				e.name = value
			case "data":
				require.NoError(t, json.Unmarshal([]byte(value), &e.snap))
			case "":
				if e.name != "" {
					return e, true
				}
			}
		}
		return e, false
	}, resp.StatusCode
}

func submitted(t *testing.T, socket string) string {
	t.Helper()
	return call(t, socket, "POST", "/v1/tasks", linear).field(t, "uuid")
}

func TestEventsUntilSettled(t *testing.T) {
	t.Parallel()
	b, socket := setup(t)
	id := submitted(t, socket)
	next, status := stream(t, socket, id, "")
	require.Equal(t, http.StatusOK, status)
	for done := range 4 {
		e, ok := next()
		require.True(t, ok)
		require.Equal(t, "snapshot", e.name)
		require.Equal(t, done, e.snap.Progress.Completed)
		b.Finish(id, "1")
	}
	e, ok := next()
	require.True(t, ok)
	require.Equal(t, "settled", e.name)
	require.Equal(t, 4, e.snap.Progress.Completed)
	_, ok = next()
	require.False(t, ok, "the stream ends")

	_, status = stream(t, socket, id, e.id)
	require.Equal(t, http.StatusNoContent, status, "a client that has seen the end is told to stop")
	next, _ = stream(t, socket, id, "")
	e, ok = next()
	require.True(t, ok)
	require.Equal(t, "settled", e.name)
}

func TestEventsResume(t *testing.T) {
	t.Parallel()
	b, socket := setup(t)
	id := submitted(t, socket)
	next, _ := stream(t, socket, id, "")
	first, ok := next()
	require.True(t, ok)

	resumed, _ := stream(t, socket, id, first.id)
	b.Finish(id, "1")
	e, ok := resumed()
	require.True(t, ok)
	require.Equal(t, 1, e.snap.Progress.Completed, "what the client has seen is not repeated")

	b.Finish(id, "1")
	b.FailStep(id, "boom")
	resumed, _ = stream(t, socket, id, e.id)
	e, ok = resumed()
	require.True(t, ok)
	require.Equal(t, "settled", e.name, "what it missed is sent at once")
	require.Equal(t, "boom", e.snap.Error.Message)
}

func TestEventsSurviveTheDatabase(t *testing.T) {
	t.Parallel()
	b, socket := setup(t)
	id := submitted(t, socket)
	next, _ := stream(t, socket, id, "")
	_, ok := next()
	require.True(t, ok)
	b.Fail(api.Unavailable("the database does not answer", 0, nil))
	refused, status := stream(t, socket, id, "")
	require.Equal(t, http.StatusServiceUnavailable, status)
	_, ok = refused()
	require.False(t, ok)
	b.Fail(nil)
	b.Finish(id, "1")
	e, ok := next()
	require.True(t, ok)
	require.Equal(t, 1, e.snap.Progress.Completed)
}

func TestStopEndsEventStreams(t *testing.T) {
	t.Parallel()
	b := apitest.New()
	path := apitest.SocketPath(t)
	server, err := api.New(api.Config{Socket: path}, b.All(), nil, hclog.NewNullLogger())
	require.NoError(t, err)
	for range 2 { // it can be restarted
		require.NoError(t, server.Start(t.Context()))
		id := submitted(t, path)
		next, _ := stream(t, path, id, "")
		_, ok := next()
		require.True(t, ok)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		require.NoError(t, server.Stop(ctx), "an open stream does not delay the stop")
		cancel()
		_, ok = next()
		require.False(t, ok)
		require.NoFileExists(t, path)
	}
}
