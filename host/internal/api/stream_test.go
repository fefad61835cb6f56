package api_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/api/apitest"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

type line struct{ id, name, data string }

// following opens the stream of all events; next reads up to the next empty line, and
// reports false at the end.
func following(t *testing.T, c *http.Client, base, query string, headers ...string) (next func() (line, bool)) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", base+"/v1/events"+query, nil)
	require.NoError(t, err)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.Do(req)
	require.NoError(t, err)
	t.Cleanup(func() { _ = resp.Body.Close() })
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	return func() (l line, ok bool) {
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch name {
			case "id":
				l.id = value
			case "event":
				l.name = value
			case "data":
				l.data = value
			case "":
				if l != (line{}) {
					return l, true
				}
			}
		}
		return l, false
	}
}

func taskEvent(namespace, task, to string) readmodel.Event {
	return readmodel.Event{Kind: readmodel.EventTask, Namespace: namespace, TaskUUID: task, From: "in_progress", To: to}
}

const (
	oneTask   = "019ca9d2-7c00-7000-8000-000100000000"
	otherTask = "019ca9d2-7c00-7000-8000-000200000000"
)

func TestFollowEvents(t *testing.T) {
	t.Parallel()
	b, socket := setup(t)
	b.Happened(taskEvent("shop", oneTask, "complete"))
	c := httpClient(t, socket)
	next := following(t, c, "http://tasker", "")
	l, ok := next()
	require.True(t, ok)
	require.Equal(t, line{id: "e1"}, l, "where it begins")
	b.Happened(taskEvent("shop", oneTask, "error"))
	b.Happened(readmodel.Event{Kind: readmodel.EventHost, Host: "box", To: "normal"})
	for _, kind := range []string{"task", "host"} {
		l, ok = next()
		require.True(t, ok)
		require.Equal(t, kind, l.name)
		var e readmodel.Event
		require.NoError(t, json.Unmarshal([]byte(l.data), &e))
		require.Equal(t, l.id, e.ID)
	}

	resumed := following(t, c, "http://tasker", "", "Last-Event-ID", "e1")
	_, _ = resumed()
	l, _ = resumed()
	require.Equal(t, "e2", l.id)

	b.Happened(taskEvent("bank", otherTask, "complete"))
	b.Happened(readmodel.Event{Kind: readmodel.EventStep, Namespace: "bank", TaskUUID: otherTask, To: "complete"})
	for query, want := range map[string]string{
		"?namespace=bank": "e4", "?kind=step": "e5", "?kind=host,step": "e3", "?task=" + oneTask: "e1", "?kind=step&task=" + otherTask: "e5",
	} {
		some := following(t, c, "http://tasker", query, "Last-Event-ID", "e0")
		_, _ = some()
		l, _ = some()
		require.Equal(t, want, l.id, query)
	}
}

// A HEAD request for a stream ends at once: the connection can serve the next request.
func TestHeadOfAStream(t *testing.T) {
	t.Parallel()
	b := apitest.New()
	socket := apitest.Serve(t, b.All())
	c := httpClient(t, socket)
	c.Transport.(*http.Transport).MaxConnsPerHost = 1
	for _, path := range []string{"/v1/events", "/v1/tasks/" + submitted(t, socket) + "/events"} {
		head := callWith(t, c, "HEAD", path, "")
		require.Equal(t, http.StatusOK, head.status)
		require.Equal(t, "text/event-stream", head.header.Get("Content-Type"))
		require.Equal(t, http.StatusOK, callWith(t, c, "GET", "/health/live", "").status)
	}
}

func TestFollowEventsTooSlowly(t *testing.T) {
	t.Parallel()
	b, socket := setup(t)
	b.Happened(taskEvent("shop", oneTask, "complete"))
	b.TooSlow(true)
	next := following(t, httpClient(t, socket), "http://tasker", "", "Last-Event-ID", "e0")
	_, _ = next()
	_, _ = next()
	l, ok := next()
	require.True(t, ok)
	require.Equal(t, "cut_off", l.name)
	var c readmodel.CutOff
	require.NoError(t, json.Unmarshal([]byte(l.data), &c))
	require.Equal(t, "e1", c.ResumeAfter)
	_, ok = next()
	require.False(t, ok, "the stream ends")
	require.Eventually(t, func() bool { return b.Streams() == 0 }, time.Minute, time.Millisecond)
}

func TestFollowEventsProblems(t *testing.T) {
	t.Parallel()
	b, socket := setup(t)
	for query, status := range map[string]int{
		"?kind=letter": 422, "?task=7": 422, "?namespace=" + strings.Repeat("n", 41): 422, "?kinds=task": 422,
	} {
		a := call(t, socket, "GET", "/v1/events"+query, "")
		require.Equal(t, status, a.status, query)
	}
	gone := call(t, socket, "GET", "/v1/events", "", "Last-Event-ID", apitest.OldEvent)
	require.Equal(t, 410, gone.status)
	require.Equal(t, api.CodeEventsExpired, gone.field(t, "code"))
	require.Equal(t, 422, call(t, socket, "GET", "/v1/events", "", "Last-Event-ID", "x").status)
	b.Fail(api.Unavailable("the database does not answer", 0, nil))
	require.Equal(t, 503, call(t, socket, "GET", "/v1/events", "").status)
}

// A client does not get what it may not see, and asking for it is refused.
func TestFollowEventsWithPermissions(t *testing.T) {
	t.Parallel()
	b := apitest.New()
	for _, kind := range readmodel.EventKinds {
		b.Happened(readmodel.Event{Kind: kind, To: "x"})
	}
	base := serveTCP(t, b.All(), api.Access{Bearers: bearers{}})
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for permissions, want := range map[string][]string{
		"task:read":                   {"task", "step"},
		"task:read,plugin:read":       {"task", "step", "plugin"},
		"task:read,system:read":       {"task", "step", "host", "health"},
		"task:read,system:administer": {"task", "step", "audit", "host", "health"},
	} {
		next := following(t, c, base, "", "Authorization", "Bearer "+permissions, "Last-Event-ID", "e0")
		_, _ = next()
		for _, kind := range want {
			l, ok := next()
			require.True(t, ok)
			require.Equal(t, kind, l.name, permissions)
		}
	}
	refused := callAt(t, base, "GET", "/v1/events?kind=task,audit", "Authorization", "Bearer task:read,system:read")
	require.Equal(t, 403, refused.status)
	require.Contains(t, refused.body, "system:administer")
}
