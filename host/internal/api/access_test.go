package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/user"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/api/apitest"
	"github.com/tasker-systems/tasker-host/host/internal/auth"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/task"
)

// bearers accepts a list of permissions as a token, and calls its owner tester.
type bearers struct{}

func (bearers) Authenticate(_ context.Context, bearer string) (auth.Principal, error) {
	if bearer == "away" {
		return auth.Principal{}, errors.New("canary: select secret_hash from tasker_tokens")
	}
	p, err := auth.ParsePermissions(strings.Split(bearer, ","))
	if err != nil {
		return auth.Principal{}, fmt.Errorf("%w: unknown", auth.ErrRefused)
	}
	return auth.Principal{Kind: auth.ByToken, Name: "tester", Permissions: p}, nil
}

func start(t *testing.T, s *api.Server) {
	t.Helper()
	require.NoError(t, s.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, s.Stop(ctx))
	})
}

// serveTCP serves on a free port and returns the URL.
func serveTCP(t *testing.T, b api.Backend, a api.Access) string {
	t.Helper()
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("tasker_up 1\n")) })
	s, err := api.New(api.Config{TCP: "127.0.0.1:0", Access: a}, b, metrics, hclog.NewNullLogger())
	require.NoError(t, err)
	start(t, s)
	return "http://" + s.Addresses()[0].String()
}

func callAt(t *testing.T, base, method, path string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, base+path, http.NoBody)
	require.NoError(t, err)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	c := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	return do(t, c, req)
}

func TestBearerHeaders(t *testing.T) {
	t.Parallel()
	base := serveTCP(t, apitest.New().All(), api.Access{Bearers: bearers{}})
	for name, headers := range map[string][]string{
		"none":        {},
		"basic":       {"Authorization", "Basic dGFzazpyZWFk"},
		"empty":       {"Authorization", "Bearer "},
		"no scheme":   {"Authorization", "task:read"},
		"two":         {"Authorization", "Bearer task:read", "Authorization", "Bearer task:read"},
		"in a cookie": {"Cookie", "token=task:read"},
		"unknown":     {"Authorization", "Bearer nobody"},
		"sql":         {"Authorization", "Bearer ' or 1=1 --"},
	} {
		require.Equal(t, 401, callAt(t, base, "GET", "/v1/tasks", headers...).status, name)
	}
	require.Equal(t, 401, callAt(t, base, "GET", "/v1/tasks?access_token=task:read").status)
	require.Equal(t, 200, callAt(t, base, "GET", "/v1/tasks", "Authorization", "bearer task:read").status)
	require.Equal(t, 200, callAt(t, base, "GET", "/v1/tasks", "Authorization", "Bearer task:read", "Host", "tasker.example").status)

	away := callAt(t, base, "GET", "/v1/tasks", "Authorization", "Bearer away")
	require.Equal(t, 503, away.status, "a token that cannot be checked is not accepted")
	require.NotContains(t, away.body, "canary")
	require.NotEmpty(t, away.header.Get("Retry-After"))
}

// Guessing is slowed down per address, while a valid token from there still works.
func TestWrongTokensLockNobodyOut(t *testing.T) {
	t.Parallel()
	now := time.Now()
	base := serveTCP(t, apitest.New().All(), api.Access{Bearers: bearers{}, Now: func() time.Time { return now }})
	statuses := map[int]int{}
	for range 40 {
		statuses[callAt(t, base, "GET", "/v1/tasks", "Authorization", "Bearer guess").status]++
	}
	require.Equal(t, map[int]int{401: 20, 429: 20}, statuses)
	require.Equal(t, 200, callAt(t, base, "GET", "/v1/tasks", "Authorization", "Bearer task:read").status)
}

func TestTooManyRequests(t *testing.T) {
	t.Parallel()
	now := time.Now()
	limit := auth.NewLimiter(1, 3, func() time.Time { return now })
	base := serveTCP(t, apitest.New().All(), api.Access{Requests: limit})
	for range 3 {
		require.Equal(t, 200, callAt(t, base, "GET", "/v1/tasks").status)
	}
	refused := callAt(t, base, "GET", "/v1/tasks")
	require.Equal(t, 429, refused.status)
	require.Equal(t, api.CodeTooManyRequests, refused.field(t, "code"))
	require.Equal(t, "1", refused.header.Get("Retry-After"))
}

func TestTokensAndAudit(t *testing.T) {
	t.Parallel()
	b := apitest.New()
	socket := apitest.Serve(t, b.All())
	const order = `{"name":"deploy","permissions":["task:operate","template:administer"],"expires_in_seconds":3600}`
	made := call(t, socket, "POST", "/v1/tokens", order)
	require.Equal(t, 201, made.status, made.body)
	require.Equal(t, "no-store", made.header.Get("Cache-Control"))
	bearer := made.field(t, "bearer")
	require.Equal(t, 409, call(t, socket, "POST", "/v1/tokens", order).status)
	list := call(t, socket, "GET", "/v1/tokens", "")
	require.NotContains(t, list.body, bearer)
	for _, bad := range []string{
		`{"name":"Deploy","permissions":["task:read"],"expires_in_seconds":3600}`,
		`{"name":"x","permissions":[],"expires_in_seconds":3600}`,
		`{"name":"x","permissions":["task"],"expires_in_seconds":3600}`,
		`{"name":"x","permissions":["task:read"],"expires_in_seconds":5}`,
		`{"name":"x","permissions":["task:read"],"expires_in_seconds":9000000000000000000}`,
		`{"name":"x","permissions":["task:read"]}`,
	} {
		refused := call(t, socket, "POST", "/v1/tokens", bad)
		require.Equal(t, 422, refused.status, bad)
		require.NotContains(t, refused.body, "e+0", "limits are shown as readable numbers")
	}
	require.Equal(t, 200, call(t, socket, "POST", "/v1/tokens/deploy/revoke", "").status)
	require.Equal(t, 404, call(t, socket, "POST", "/v1/tokens/other/revoke", "").status)
	call(t, socket, "POST", "/v1/tasks", linear)
	call(t, socket, "GET", "/v1/tasks", "")

	audit := call(t, socket, "GET", "/v1/audit?limit=2", "")
	golden(t, "audit", audit.body)
	var page readmodel.AuditPage
	require.NoError(t, json.Unmarshal([]byte(audit.body), &page))
	rest := call(t, socket, "GET", "/v1/audit?limit=500&cursor="+page.NextCursor, "")
	require.NoError(t, json.Unmarshal([]byte(rest.body), &page))
	require.Len(t, page.Items, 8, "every change once, done or not; submissions are recorded with the task")
	require.NotContains(t, audit.body+rest.body, bearer)
}

// Nobody can give a token more permissions than they have.
func TestTokenMayNotDoMoreThanItsMaker(t *testing.T) {
	t.Parallel()
	b := apitest.New()
	base := serveTCP(t, b.All(), api.Access{Bearers: bearers{}})
	ask := func(permission string) int {
		body := `{"name":"x","permissions":["` + permission + `"],"expires_in_seconds":3600}`
		req, err := http.NewRequestWithContext(t.Context(), "POST", base+"/v1/tokens", strings.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer token:administer,task:read")
		req.Header.Set("Content-Type", "application/json")
		return do(t, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, req).status
	}
	require.Equal(t, 403, ask("task:operate"))
	require.Equal(t, 403, ask("*:read"))
	require.Equal(t, 201, ask("task:read"))
	entries, err := b.ListAudit(t.Context(), api.AuditQuery{Before: -1, Limit: 10})
	require.NoError(t, err)
	require.Len(t, entries, 3)
	require.Equal(t, "token:tester", entries[0].Actor)
	require.Equal(t, readmodel.AuditRefused, entries[2].Outcome)
}

// The kernel says who uses the socket, and the handler of a request is told.
func TestPrincipalOfTheSocket(t *testing.T) {
	t.Parallel()
	me, err := user.Current()
	require.NoError(t, err)
	b := apitest.New()
	seen := &submitter{Tasks: b}
	all := b.All()
	all.Tasks = seen
	socket := apitest.Serve(t, all)
	require.Equal(t, 201, call(t, socket, "POST", "/v1/tasks", linear).status)
	require.Equal(t, "local:"+me.Username, seen.principal.String())
	require.Equal(t, "local:"+me.Username, seen.by)
}

type submitter struct {
	api.Tasks
	principal auth.Principal
	by        string
}

func (s *submitter) Submit(ctx context.Context, sub api.Submission) (readmodel.Task, bool, error) {
	s.principal, s.by = auth.From(ctx), sub.SubmittedBy
	return s.Tasks.Submit(ctx, sub)
}

// revocable lets everybody in until it is revoked.
type revocable struct{ revoked atomic.Bool }

func (r *revocable) Authenticate(context.Context, string) (auth.Principal, error) {
	if r.revoked.Load() {
		return auth.Principal{}, fmt.Errorf("%w: revoked", auth.ErrRefused)
	}
	return auth.Principal{Kind: auth.ByToken, Name: "tester", Permissions: auth.Everything()}, nil
}

// TestRevokedTokensEndWhatTheyHaveOpened: otherwise a stream or a bulk submission would
// last as long as its client likes.
func TestRevokedTokensEndWhatTheyHaveOpened(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T, base string, events func(query string) (end func() bool)) (end func() bool){
		"events": func(_ *testing.T, _ string, events func(string) func() bool) func() bool { return events("/v1/events") },
		"task": func(t *testing.T, base string, events func(string) func() bool) func() bool {
			t.Helper()
			made := bulkOf(t, base, strings.NewReader(linear))
			var a task.BulkAnswer
			require.NoError(t, made.Decode(&a))
			return events("/v1/tasks/" + a.TaskUUID + "/events")
		},
		"bulk": func(t *testing.T, base string, _ func(string) func() bool) func() bool {
			t.Helper()
			lines, send := io.Pipe()
			t.Cleanup(func() { _ = send.Close() })
			sent := make(chan error, 1)
			go func() { _, err := io.WriteString(send, linear+"\n"); sent <- err }()
			answers := bulkOf(t, base, lines)
			require.NoError(t, <-sent)
			var a task.BulkAnswer
			require.NoError(t, answers.Decode(&a))
			require.True(t, a.Created)
			return func() bool {
				var last task.BulkAnswer
				require.NoError(t, answers.Decode(&last))
				require.NotNil(t, last.End)
				return last.End.Problem.Code == api.CodeUnauthenticated
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			guard := &revocable{}
			base := serveTCP(t, apitest.New().All(), api.Access{Bearers: guard})
			end := open(t, base, func(path string) func() bool {
				body := opened(t, http.MethodGet, base+path, nil)
				first, err := body.ReadString('\n')
				require.NoError(t, err)
				require.Equal(t, "retry: 1000\n", first)
				return func() bool { _, err := io.Copy(io.Discard, body); return err == nil }
			})
			guard.revoked.Store(true)
			require.True(t, end(), "the server ends it, not the test's timeout")
		})
	}
}

func bulkOf(t *testing.T, base string, lines io.Reader) *json.Decoder {
	t.Helper()
	return json.NewDecoder(opened(t, http.MethodPost, base+"/v1/tasks/bulk", lines))
}

// opened is the body of a response that does not end by itself.
func opened(t *testing.T, method, url string, body io.Reader) *bufio.Reader {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer x")
	req.Header.Set("Content-Type", ndjson)
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(req)
	require.NoError(t, err)
	t.Cleanup(func() { _ = resp.Body.Close() })
	require.Equal(t, http.StatusOK, resp.StatusCode)
	return bufio.NewReader(resp.Body)
}
