package core

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

const requestsCanary = "canary-51ab0"

// leaked matches what no problem may reveal: SQL statements, errors of the driver,
// locations in our code.
var leaked = regexp.MustCompile(`SQLSTATE|pgconn|pgx|relation "|invalid input syntax|ERROR: |(?i:\b(select|insert into|update|delete from)\b.{1,200}\btasker_[a-z]+_)|` +
	`goroutine \d+|\.go:\d+|runtime error|nil pointer`)

// number reads a numeric environment variable.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	require.NoError(t, err, "%s", name)
	return n
}

// Requests generated from the API's description, valid and invalid ones, against a whole
// host: it never fails, it answers as described, and it reveals nothing about its
// internals. TASKER_REQUESTS says how many, TASKER_REQUESTS_SEED which; request n of a
// seed is always the same.
func TestGeneratedRequests(t *testing.T) {
	t.Parallel()
	count, seed := number(t, "TASKER_REQUESTS", 2000), number(t, "TASKER_REQUESTS_SEED", 1)
	dsn, err := url.Parse(pgtest.DSN(t))
	require.NoError(t, err)
	secret := dsn.Query()
	secret.Set("password", requestsCanary)
	dsn.RawQuery = secret.Encode()
	b := start(t, "", "TASKER__SYSTEM__LOG_LEVEL=info", "DATABASE_URL="+dsn.String())
	g := newGenerator(t, openAPI(t), populate(t, b))
	web := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4, DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", b.cfg.System.Socket)
	}}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer web.CloseIdleConnections()

	var next atomic.Uint64
	var statuses sync.Map // counts by status
	var mu sync.Mutex
	var failures []string
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for n := next.Add(1) - 1; n < count; n = next.Add(1) - 1 {
				s := g.request(rand.New(rand.NewPCG(seed, n)))
				status, err := g.try(t.Context(), web, s)
				if err != nil {
					mu.Lock()
					failures = append(failures, fmt.Sprintf("request %d of seed %d: %v\n%s", n, seed, err, s))
					mu.Unlock()
				}
				times, _ := statuses.LoadOrStore(status, new(atomic.Int64))
				times.(*atomic.Int64).Add(1)
			}
		})
	}
	all.Wait()
	require.Empty(t, failures[:min(len(failures), 10)], "%d failed; the log:\n%.20000s", len(failures), b.log)
	seen := map[int]int64{}
	statuses.Range(func(status, times any) bool {
		seen[status.(int)] = times.(*atomic.Int64).Load()
		return true
	})
	t.Logf("%d requests: %v", count, seen)
	for _, status := range []int{200, 201, 400, 404, 405, 409, 415, 422} {
		require.NotZero(t, seen[status], "the requests are not all of one kind: %v", seen)
	}
	status, _ := b.get(t, "/health/live")
	require.Equal(t, http.StatusOK, status)
	require.NotContains(t, b.log.String(), "panic")
	require.NotContains(t, b.log.String(), "request failed")
}

func openAPI(t *testing.T) string {
	t.Helper()
	src, err := api.OpenAPI()
	require.NoError(t, err)
	return string(src)
}

// populate puts data into the host, and returns its names.
func populate(t *testing.T, b *bed) map[string][]string {
	t.Helper()
	_, _, err := b.api.ApplyTemplate(t.Context(), "three.yaml", []byte(threeSteps))
	require.NoError(t, err)
	known := map[string][]string{
		"namespace": {"reload"}, "name": {"three"}, "version": {"1.0.0"}, "kind": {"handler", "step", "message"}, "id": {"1", "2"},
		"token_id": {"somebody"}, "state": {"in_progress", "complete,error"}, "limit": {"1", "2"}, "sha256": {"00"}, "older_than": {"1h"},
		"artifact": {"/bin/true", "/nowhere/plugin", "/etc/passwd", "/dev/zero"},
	}
	for range 20 {
		task, _, err := b.api.Submit(t.Context(), client.Submission{Namespace: "reload", Name: "three", Context: json.RawMessage(`{"a":1}`)})
		require.NoError(t, err)
		known["task_uuid"] = append(known["task_uuid"], task.UUID)
		id, err := vocab.ParseUUID(task.UUID)
		require.NoError(t, err)
		for n := range 3 {
			known["step_uuid"] = append(known["step_uuid"], vocab.StepID(id, n).String())
		}
	}
	known["task"] = known["task_uuid"]
	for _, text := range []string{"malformed", `{"task_uuid": 7}`} {
		_, err := b.pool.Exec(t.Context(), `select pgmq.send('reload_queue', to_jsonb($1::text))`, text)
		require.NoError(t, err)
	}
	_, err = b.api.CreateToken(t.Context(), client.TokenOrder{Name: "somebody", Permissions: []string{"task:read"}, ExpiresIn: 600})
	require.NoError(t, err)
	return known
}

// try sends a request and checks the response.
func (g *generator) try(ctx context.Context, web *http.Client, s *sent) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	target, err := url.Parse("http://host" + s.path)
	if err != nil {
		return 0, fmt.Errorf("the generator is wrong: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, s.method, "http://host/", strings.NewReader(s.body))
	if err != nil {
		return 0, fmt.Errorf("the generator is wrong: %w", err)
	}
	req.URL, req.Header = target, s.header
	resp, err := web.Do(req)
	if err != nil {
		return 0, fmt.Errorf("no response: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	if kind == "text/event-stream" {
		first := make([]byte, 1)
		_, err := resp.Body.Read(first) // it is enough that it streams
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return resp.StatusCode, err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, fmt.Errorf("the response is truncated: %w", err)
	}
	if err := g.judge(s, resp, kind, string(body)); err != nil {
		return 0, fmt.Errorf("%w: %d %.2000s", err, resp.StatusCode, body)
	}
	return resp.StatusCode, nil
}

func (g *generator) judge(s *sent, resp *http.Response, kind, body string) error {
	if strings.Contains(body+fmt.Sprint(resp.Header), requestsCanary) {
		return errors.New("a secret leaks")
	}
	status := strconv.Itoa(resp.StatusCode)
	redirect := resp.StatusCode == http.StatusMovedPermanently || resp.StatusCode == http.StatusTemporaryRedirect || resp.StatusCode == http.StatusPermanentRedirect
	switch {
	case resp.StatusCode >= 500 && (s.op == nil || s.op.Responses[status].Content == nil):
		return errors.New("a server error")
	case resp.StatusCode >= 400:
		if found := leaked.FindString(body); found != "" && !strings.Contains(s.path+s.body, found) {
			return fmt.Errorf("the response reveals internals: %q", found)
		}
		if s.method == http.MethodHead {
			return nil // it has no body
		}
		if kind == "application/problem+json" {
			return g.conforms(s.op.key("default", kind), body)
		}
		if kind == "application/json" && s.op.Responses[status].Content != nil {
			return nil
		}
		return fmt.Errorf("not a problem but %q", kind)
	case redirect || s.method != s.op.method:
		return nil // a redirect to the canonical path
	case resp.StatusCode == http.StatusNoContent:
		return nil
	default:
		if _, ok := s.op.Responses[status]; !ok {
			return errors.New("a status that the description does not have")
		}
		return g.conforms(s.op.key(status, kind), body)
	}
}

// conforms checks a body against its schema.
func (g *generator) conforms(key, body string) error {
	schema, ok := g.compiled[key]
	if !ok {
		return fmt.Errorf("the description has no %s", key)
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(body))
	if err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	if err := schema.Validate(value); err != nil {
		return fmt.Errorf("not as described: %w", err)
	}
	return nil
}
