package e2e_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// collector receives spans as OTLP over HTTP.
type collector struct {
	url string

	mu    sync.Mutex
	spans []*tracev1.Span
	auth  map[string]bool
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{auth: map[string]bool{}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var in collectorv1.ExportTraceServiceRequest
		if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &in) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.auth[r.Header.Get("X-Token")] = true
		for _, resource := range in.GetResourceSpans() {
			for _, scope := range resource.GetScopeSpans() {
				c.spans = append(c.spans, scope.GetSpans()...)
			}
		}
	}))
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}

// named returns the only span of that name in a trace, or nil.
func (c *collector) named(trace, name string) *tracev1.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found *tracev1.Span
	for _, s := range c.spans {
		if hex.EncodeToString(s.GetTraceId()) == trace && s.GetName() == name {
			if found != nil {
				return nil
			}
			found = s
		}
	}
	return found
}

// submitTraced submits a task as a client does that is part of a trace.
func (h *host) submitTraced(t *testing.T, name, traceparent string) readmodel.Task {
	t.Helper()
	web := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", h.site.socket())
	}}}
	defer web.CloseIdleConnections()
	body := `{"namespace": "traced", "name": "` + name + `", "context": {}}`
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://tasker/v1/tasks", strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	if traceparent != "" {
		req.Header.Set("traceparent", traceparent)
	}
	resp, err := web.Do(req)
	require.NoError(t, err)
	defer func() { require.NoError(t, resp.Body.Close()) }()
	answer, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusCreated, resp.StatusCode, string(answer))
	var task readmodel.Task
	require.NoError(t, json.Unmarshal(answer, &task))
	return task
}

const (
	tracedTemplate = `namespace: traced
name: pair
version: 1.0.0
steps:
  - {name: first, handler: chaos.trace}
  - {name: second, handler: chaos.trace, depends_on: [first]}
`
	outsideTemplate = `namespace: traced
name: outside
version: 1.0.0
steps:
  - {name: alone, handler: elsewhere.run}
`
	clientTrace  = "4bf92f3577b34da6a3ce929d0e0e4736"
	clientSpan   = "00f067aa0ba902b7"
	queuedTrace  = "5bf92f3577b34da6a3ce929d0e0e4736"
	unseenTrace  = "6bf92f3577b34da6a3ce929d0e0e4736"
	outsideTrace = "7bf92f3577b34da6a3ce929d0e0e4736"
)

// TestOneTraceFromClientToFinish: a client's trace goes on through the task's
// creation, its steps and their plugin, to its end; through both ways to submit,
// and into the messages of outside workers.
func TestOneTraceFromClientToFinish(t *testing.T) {
	t.Parallel()
	dsn, c := pgtest.DSN(t), newCollector(t)
	s := newSite(t, dsn, "TASKER__TELEMETRY__TRACES__ENDPOINT="+c.url)
	s.env = append(s.env, "TASKER__TELEMETRY__TRACES__HEADERS_FILE="+s.write(t, "headers", "X-Token="+canary+"\n"))
	s.plugins(t, "[plugin.handler.chaos]\npath = \""+filepath.Join(built, "chaos")+"\"\n")
	h := s.up(t)
	for name, source := range map[string]string{"pair.yaml": tracedTemplate, "outside.yaml": outsideTemplate} {
		_, _, err := h.ApplyTemplate(t.Context(), name, []byte(source))
		require.NoError(t, err)
	}
	db := pgtest.Pool(t, dsn)

	task := h.submitTraced(t, "pair", "00-"+clientTrace+"-"+clientSpan+"-01")
	unseen := h.submitTraced(t, "pair", "00-"+unseenTrace+"-"+clientSpan+"-00") // the client says no
	h.submitTraced(t, "outside", "00-"+outsideTrace+"-"+clientSpan+"-01")
	_, err := db.Exec(t.Context(), `select pgmq.send('task_requests_queue',
	  '{"namespace":"traced","task_name":"pair","task_version":"1.0.0","input_data":{}}'::jsonb,
	  jsonb_build_object('traceparent', $1::text))`, "00-"+queuedTrace+"-"+clientSpan+"-01")
	require.NoError(t, err)
	eventually(t, patience, "the tasks end and their spans arrive", func() bool {
		return c.named(clientTrace, "finish task") != nil && c.named(queuedTrace, "finish task") != nil
	})

	created := c.named(clientTrace, "create task")
	for name, parent := range map[string]string{
		"submit-task": clientSpan, "create task": hex.EncodeToString(c.named(clientTrace, "submit-task").GetSpanId()),
		"step first": hex.EncodeToString(created.GetSpanId()), "step second": hex.EncodeToString(created.GetSpanId()),
		"finish task": hex.EncodeToString(created.GetSpanId()),
	} {
		require.Equal(t, parent, hex.EncodeToString(c.named(clientTrace, name).GetParentSpanId()), name)
	}
	require.Equal(t, clientSpan, hex.EncodeToString(c.named(queuedTrace, "create task").GetParentSpanId()))

	// The plugin's handlers are told the spans of their own attempts.
	steps, err := h.Steps(t.Context(), task.UUID)
	require.NoError(t, err)
	for _, step := range steps {
		var told struct{ Traceparent string }
		require.NoError(t, json.Unmarshal(step.Result, &told))
		require.Equal(t, "00-"+clientTrace+"-"+hex.EncodeToString(c.named(clientTrace, "step "+step.Name).GetSpanId())+"-01", told.Traceparent)
	}

	// Outside workers find the trace of the task in the headers of its messages.
	var outside string
	require.NoError(t, db.QueryRow(t.Context(), `select headers ->> 'traceparent' from pgmq.q_traced_queue`).Scan(&outside))
	eventually(t, patience, "the span of the creation", func() bool { return c.named(outsideTrace, "create task") != nil })
	require.Equal(t, "00-"+outsideTrace+"-"+hex.EncodeToString(c.named(outsideTrace, "create task").GetSpanId())+"-01", outside)

	// Who is not followed leaves nothing behind.
	eventually(t, patience, "the task that is not followed ends", func() bool {
		seen, err := h.Task(t.Context(), unseen.UUID)
		require.NoError(t, err)
		return seen.State == vocab.TaskComplete
	})
	steps, err = h.Steps(t.Context(), unseen.UUID)
	require.NoError(t, err)
	require.JSONEq(t, `{"traceparent":""}`, string(steps[0].Result))
	require.Nil(t, c.named(unseenTrace, "create task"))
	require.Equal(t, map[string]bool{canary: true}, c.auth)
	require.NotContains(t, h.log.String(), canary)
}
