package api_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/api/apitest"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

func TestRefusedBodies(t *testing.T) {
	t.Parallel()
	_, socket := setup(t)
	withContext := func(c string) string {
		return `{"namespace":"linear_workflow","name":"mathematical_sequence","context":` + c + `}`
	}
	cases := []struct {
		name, body string
		status     int
		code       string
		want       string // somewhere in the response
	}{
		{"empty", "", 400, api.CodeMalformedRequest, "required"},
		{"not_json", "{", 400, api.CodeMalformedRequest, ""},
		{"trailing_data", linear + "{}", 400, api.CodeMalformedRequest, ""},
		{"two_documents", linear + "\n" + linear, 400, api.CodeMalformedRequest, ""},
		{"array", "[]", 422, api.CodeValidationFailed, "expected object"},
		{"unknown_field", `{"namespace":"a","name":"b","contxt":{}}`, 422, api.CodeValidationFailed, `"pointer":"/contxt"`},
		{"other_case", `{"Namespace":"a","name":"b"}`, 400, api.CodeMalformedRequest, "lower case"},
		{"folded_case", `{"namespace":"a","name":"b","\u017fource_system":"c"}`, 400, api.CodeMalformedRequest, "lower case"},
		{"missing_name", `{"namespace":"a"}`, 422, api.CodeValidationFailed, "name"},
		{"wrong_type", `{"namespace":"a","name":7}`, 422, api.CodeValidationFailed, `"pointer":"/name"`},
		{"capitals", `{"namespace":"Orders","name":"b"}`, 422, api.CodeValidationFailed, `"pointer":"/namespace"`},
		{"sql", `{"namespace":"a'; drop table tasker_tasks; --","name":"b"}`, 422, api.CodeValidationFailed, `"pointer":"/namespace"`},
		{"newline", `{"namespace":"a\nb","name":"b"}`, 422, api.CodeValidationFailed, `"pointer":"/namespace"`},
		{"trailing_newline", `{"namespace":"a\n","name":"b"}`, 422, api.CodeValidationFailed, `"pointer":"/namespace"`},
		{"sixty_characters", `{"namespace":"` + strings.Repeat("a", 60) + `","name":"b"}`, 422, api.CodeValidationFailed, `"pointer":"/namespace"`},
		{"two_byte_letters", `{"namespace":"` + strings.Repeat("é", 40) + `","name":"b"}`, 422, api.CodeValidationFailed, `"pointer":"/namespace"`},
		{"priority_huge", `{"namespace":"a","name":"b","priority":1e400}`, 422, api.CodeValidationFailed, `"pointer":"/priority"`},
		{"priority_fraction", `{"namespace":"a","name":"b","priority":1.5}`, 422, api.CodeValidationFailed, `"pointer":"/priority"`},
		{"tag_of_wrong_type", `{"namespace":"a","name":"b","tags":["x",2]}`, 422, api.CodeValidationFailed, `"pointer":"/tags/1"`},
		{"tag_empty", `{"namespace":"a","name":"b","tags":["x",""]}`, 422, api.CodeValidationFailed, `{"pointer":"/tags/1","detail":"expected length >= 1"}`},
		{"context_array", withContext(`[1]`), 422, api.CodeValidationFailed, `"pointer":"/context"`},
		{"context_null", withContext(`null`), 422, api.CodeValidationFailed, `"pointer":"/context"`},
		{"duplicate_key", withContext(`{"a":1,"a":2}`), 400, api.CodePayloadInvalid, "/context/a"},
		{"duplicate_key_above", `{"namespace":"a","namespace":"b","name":"c"}`, 400, api.CodePayloadInvalid, "/namespace"},
		{"nul", withContext(`{"a":"x\u0000"}`), 400, api.CodePayloadInvalid, "/context/a"},
		{"nul_in_key", withContext(`{"a\u0000":1}`), 400, api.CodePayloadInvalid, "/context"},
		{"lone_surrogate", withContext(`{"a":["\ud800"]}`), 400, api.CodePayloadInvalid, "/context/a/0"},
		{"bad_utf8", withContext("{\"a\":\"\xff\"}"), 400, api.CodePayloadInvalid, "/context/a"},
		{"bad_utf8_in_reason", "{\"namespace\":\"a\",\"name\":\"b\",\"reason\":\"\xff\"}", 400, api.CodePayloadInvalid, "/reason"},
		{"too_deep", withContext(`{"a":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + `}`), 400, api.CodePayloadInvalid, ""},
		{"too_large", withContext(`{"a":"` + strings.Repeat("x", 2<<20) + `"}`), 413, api.CodePayloadTooLarge, ""},
		{"context_too_large", withContext(`{"a":"` + strings.Repeat("x", 1<<20) + `"}`), 413, api.CodePayloadTooLarge, `"pointer":"/context`},
		{"numbers_too_large", withContext(`{"a":[` + strings.Repeat("1e131071,", 10) + `1]}`), 413, api.CodePayloadTooLarge, "/a"},
		{"unknown_template", `{"namespace":"a","name":"b"}`, 422, api.CodeTemplateNotFound, `"pointer":"/name"`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := call(t, socket, "POST", "/v1/tasks", c.body, "Content-Type", "application/json")
			require.Equal(t, c.status, a.status, a.body)
			require.Equal(t, "application/problem+json", a.header.Get("Content-Type"))
			require.Equal(t, c.code, a.field(t, "code"))
			require.Equal(t, a.header.Get("X-Request-Id"), a.field(t, "request_id"))
			require.Contains(t, a.body, c.want)
			require.Less(t, len(a.body), 1000, "an error does not repeat the body")
		})
	}
	tasks := call(t, socket, "GET", "/v1/tasks", "")
	require.JSONEq(t, `{"items":[]}`, tasks.body, "nothing refused left a task behind")
}

func TestRefusedRequests(t *testing.T) {
	t.Parallel()
	_, socket := setup(t)
	const id = "019ca9d2-7c00-7000-8000-000100000000"
	cases := []struct {
		name, method, path string
		headers            []string
		status             int
		code               string
	}{
		{"no_route", "GET", "/v1/nothing", nil, 404, api.CodeNotFound},
		{"no_method", "DELETE", "/v1/tasks", nil, 405, api.CodeMethodNotAllowed},
		{"unknown_task", "GET", "/v1/tasks/" + id, nil, 404, api.CodeTaskNotFound},
		{"unknown_task_events", "GET", "/v1/tasks/" + id + "/events", nil, 404, api.CodeTaskNotFound},
		{"not_a_uuid", "GET", "/v1/tasks/1%20or%201=1", nil, 422, api.CodeValidationFailed},
		{"unknown_parameter", "GET", "/v1/tasks?stat=pending", nil, 422, api.CodeValidationFailed},
		{"unknown_state", "GET", "/v1/tasks?state=pending,done", nil, 422, api.CodeValidationFailed},
		{"limit_zero", "GET", "/v1/tasks?limit=0", nil, 422, api.CodeValidationFailed},
		{"limit_huge", "GET", "/v1/tasks?limit=1000000000", nil, 422, api.CodeValidationFailed},
		{"limit_text", "GET", "/v1/tasks?limit=ten", nil, 422, api.CodeValidationFailed},
		{"long_filter", "GET", "/v1/tasks?name=" + strings.Repeat("a", 10<<10), nil, 422, api.CodeValidationFailed},
		{"bad_cursor", "GET", "/v1/tasks?cursor=abc", nil, 400, api.CodeMalformedRequest},
		{"foreign_cursor", "GET", "/v1/tasks/" + id + "/steps?cursor=aDox", nil, 400, api.CodeMalformedRequest},
		{"parameter_twice", "GET", "/v1/tasks?limit=3&limit=4", nil, 422, api.CodeValidationFailed},
		{"parameter_garbled", "GET", "/v1/tasks?limit=3;name=a", nil, 422, api.CodeValidationFailed},
		{"key_twice", "POST", "/v1/tasks", []string{"Idempotency-Key", "a", "Idempotency-Key", "b"}, 422, api.CodeValidationFailed},
		{"key_empty", "POST", "/v1/tasks", []string{"Idempotency-Key", ""}, 422, api.CodeValidationFailed},
		{"key_empty_of_many", "POST", "/v1/tasks/bulk", []string{"Idempotency-Key", "", "Content-Type", ndjson}, 422, api.CodeValidationFailed},
		{"key_with_space", "POST", "/v1/tasks", []string{"Idempotency-Key", "a b"}, 422, api.CodeValidationFailed},
		{"no_content_type", "POST", "/v1/tasks", []string{"Content-Type", ""}, 415, api.CodeUnsupportedMediaType},
		{"yaml_for_json", "POST", "/v1/tasks", []string{"Content-Type", "application/yaml"}, 415, api.CodeUnsupportedMediaType},
		{"json_for_yaml", "POST", "/v1/templates", nil, 415, api.CodeUnsupportedMediaType},
		{"latin1", "POST", "/v1/tasks", []string{"Content-Type", "application/json; charset=latin1"}, 415, api.CodeUnsupportedMediaType},
		{"gzip", "POST", "/v1/tasks", []string{"Content-Encoding", "gzip"}, 415, api.CodeUnsupportedMediaType},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			body := ""
			if c.method == "POST" {
				body = linear
			}
			a := call(t, socket, c.method, c.path, body, c.headers...)
			require.Equal(t, c.status, a.status, a.body)
			require.Equal(t, "application/problem+json", a.header.Get("Content-Type"))
			require.Equal(t, c.code, a.field(t, "code"))
			golden(t, "refused_"+c.name, a.body)
		})
	}
}

// JSON has only one kind of number: 1e2 and 100.0 are 100.
func TestWholeNumbersHoweverTheyAreWritten(t *testing.T) {
	t.Parallel()
	_, socket := setup(t)
	for _, text := range []string{"100", "1e2", "1E+2", "100.0", "1000e-1"} {
		body := `{"namespace":"linear_workflow","name":"mathematical_sequence","context":{"even_number":6},"priority":` + text + `}`
		a := call(t, socket, "POST", "/v1/tasks", body)
		require.Equal(t, http.StatusCreated, a.status, a.body)
		require.Contains(t, a.body, `"priority":100,`)
		lines, _ := bulk(t, socket, body)
		require.True(t, lines[0].Created, text)
		pool := call(t, socket, "PATCH", "/v1/pools/step_execution.linear_workflow", `{"min":`+text+`,"max":`+text+`}`)
		require.Equal(t, http.StatusOK, pool.status, pool.body)
	}
}

func TestRawRequests(t *testing.T) {
	t.Parallel()
	_, socket := setup(t)
	const head = "POST /v1/tasks HTTP/1.1\r\nHost: tasker\r\nContent-Type: application/json\r\n"

	huge := raw(t, socket, head+"Content-Length: 99999999999\r\n\r\n{")
	require.Equal(t, http.StatusRequestEntityTooLarge, huge.status)
	require.True(t, huge.close)

	chunk := strings.Repeat("x", 1<<20)
	endless := raw(t, socket, head+"Transfer-Encoding: chunked\r\n\r\n"+
		strings.Repeat(fmt.Sprintf("%x\r\n%s\r\n", len(chunk), chunk), 2))
	require.Equal(t, http.StatusRequestEntityTooLarge, endless.status)
	require.True(t, endless.close)

	require.Equal(t, http.StatusBadRequest, raw(t, socket, "GARBAGE\r\n\r\n").status)
	require.Equal(t, http.StatusBadRequest, raw(t, socket,
		head+"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}").status)
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, raw(t, socket,
		"GET /health/live HTTP/1.1\r\nHost: tasker\r\nX: "+strings.Repeat("x", 70<<10)+"\r\n\r\n").status)
}

func TestSlowClientsAreCutOff(t *testing.T) {
	t.Parallel()
	socket := apitest.SocketPath(t)
	cfg := api.Config{Socket: socket, HeaderTimeout: 3 * time.Second, BodyTimeout: 200 * time.Millisecond}
	require.NoError(t, newServer(t, cfg).Start(t.Context()))

	t.Run("header", func(t *testing.T) {
		t.Parallel()
		c, err := net.Dial("unix", socket)
		require.NoError(t, err)
		defer func() { _ = c.Close() }()
		_, err = c.Write([]byte("GET /health/live HTTP/1.1\r\nHost:"))
		require.NoError(t, err)
		require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
		n, err := c.Read(make([]byte, 1024))
		require.Zero(t, n, "the server hangs up without a response")
		require.ErrorContains(t, err, "EOF")
	})
	t.Run("body", func(t *testing.T) {
		t.Parallel()
		a := raw(t, socket, "POST /v1/tasks HTTP/1.1\r\nHost: tasker\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
		require.Equal(t, http.StatusRequestTimeout, a.status)
		require.Equal(t, api.CodeRequestTimeout, a.field(t, "code"))
		require.True(t, a.close)
	})
}

func TestRequestIDs(t *testing.T) {
	t.Parallel()
	_, socket := setup(t)
	own := call(t, socket, "GET", "/v1/nothing", "", "X-Request-Id", "deploy-42.a")
	require.Equal(t, "deploy-42.a", own.field(t, "request_id"))
	hostile := call(t, socket, "GET", "/v1/nothing", "", "X-Request-Id", `"><script>`)
	require.Regexp(t, "^[A-Z2-7]{26}$", hostile.field(t, "request_id"))
}

func TestBackendErrors(t *testing.T) {
	t.Parallel()
	b, socket := setup(t)
	cases := []struct {
		name   string
		err    error
		status int
		code   string
	}{
		{"unknown", fmt.Errorf(`query: pq: relation "secret" does not exist`), 500, api.CodeInternal},
		{"unavailable", api.Unavailable("the database does not answer", 1500*time.Millisecond, fmt.Errorf("dial secret-host")), 503, api.CodeUnavailable},
		{"wrapped_unavailable", fmt.Errorf("shutting down: %w", api.ErrUnavailable), 503, api.CodeUnavailable},
		{"unavailable_without_a_code", &api.Fault{Kind: api.ErrUnavailable, Detail: "later"}, 503, api.CodeUnavailable},
		{"timeout", fmt.Errorf("select secret: %w", context.DeadlineExceeded), 503, api.CodeUnavailable},
		{"wrapped_not_found", fmt.Errorf("task x: %w", api.ErrNotFound), 404, api.CodeNotFound},
		{"wrapped_conflict", fmt.Errorf("task x: %w", api.ErrConflict), 409, api.CodeConflict},
		{"wrapped_invalid", fmt.Errorf("task x: %w", api.ErrInvalid), 422, api.CodeValidationFailed},
		{"fault_of_no_kind", &api.Fault{Detail: "x"}, 500, api.CodeInternal},
	}
	for _, c := range cases {
		b.Fail(c.err)
		a := call(t, socket, "POST", "/v1/tasks", linear)
		require.Equal(t, c.status, a.status, c.name)
		require.Equal(t, c.code, a.field(t, "code"), c.name)
		require.NotContains(t, a.body, "secret", c.name)
		if c.status == 503 {
			require.NotEmpty(t, a.header.Get("Retry-After"), c.name)
		}
	}
	b.Fail(cases[1].err)
	require.Equal(t, "2", call(t, socket, "GET", "/v1/tasks", "").header.Get("Retry-After"), "rounded up")
}

// panicking panics in every call.
type panicking struct{ *apitest.Backend }

func (panicking) Plugins(context.Context) ([]readmodel.Plugin, error) { panic("secret state") }

func TestPanicCostsOneRequest(t *testing.T) {
	t.Parallel()
	all := apitest.New().All()
	all.System = panicking{apitest.New()}
	socket := apitest.Serve(t, all)
	a := call(t, socket, "GET", "/v1/plugins", "")
	require.Equal(t, http.StatusInternalServerError, a.status)
	require.Equal(t, api.CodeInternal, a.field(t, "code"))
	require.NotContains(t, a.body, "secret")
	require.NotContains(t, a.body, "goroutine")
	require.Equal(t, http.StatusOK, call(t, socket, "GET", "/health/live", "").status)
}
