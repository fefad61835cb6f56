package api_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/api/apitest"
)

// Hostile values in every place of every route: the response is never a server error,
// always JSON, and repeats no more of the value than fits on a line.
func TestHostileValuesEverywhere(t *testing.T) {
	t.Parallel()
	_, socket := setup(t)
	values := []string{
		"", " ", "'", `"`, "`", "\x00", "\n", "\t", "\u202e", "é", "\xff", "..", "../../etc/passwd", "%", "%00", "{}", "[]", "null", "-1", "0",
		"1e400", "999999999999999999999999", "NaN", "true", "1; drop table tasker_tasks", "' or '1'='1", "$(id)", "{{7*7}}", "<script>",
		"../v1/tasks", "a/b", "a%2fb", "q_x", strings.Repeat("A", 5000), strings.Repeat("é", 300), "019ca9d2-7c00-7000-8000-00010000000g",
	}
	routes := []string{
		"/v1/tasks/{}", "/v1/tasks/{}/steps", "/v1/tasks/{}/history", "/v1/tasks/{}/events", "/v1/templates/{}/{}/{}", "/{}", "/v1/{}",
		"/v1/tasks?state={}", "/v1/tasks?namespace={}", "/v1/tasks?name={}", "/v1/tasks?tag={}", "/v1/tasks?cursor={}", "/v1/tasks?limit={}", "/v1/tasks?{}=1",
		"/v1/templates?namespace={}", "/v1/templates?cursor={}", "/v1/templates?limit={}", "/v1/plugins?{}",
		"/v1/steps/{}", "/v1/steps/{}/explain", "/v1/tasks/{}/explain", "/v1/dead-letters/{}", "/v1/dead-letters?reason={}", "/v1/dead-letters?older_than={}", "/v1/dead-letters?cursor={}",
		"/v1/queues/{}",
	}
	client := httpClient(t, socket)
	for _, route := range routes {
		for _, v := range values {
			escaped := url.PathEscape(v)
			if strings.Contains(route, "?") {
				escaped = url.QueryEscape(v)
			}
			a := callWith(t, client, "GET", strings.ReplaceAll(route, "{}", escaped), "", "Last-Event-ID", apitest.OldEvent) // ".." may lead to a stream
			require.Less(t, a.status, 500, "%s with %q: %s", route, v, a.body)
			if a.status >= 400 {
				require.NotEmpty(t, a.field(t, "code"), "%s with %q", route, v)
				require.Less(t, len(a.body), 2500, "%s with %.20q", route, v)
			}
		}
	}
	for _, v := range values {
		for _, header := range []string{"Idempotency-Key", "Last-Event-ID", "Accept", "X-Request-Id"} {
			if strings.ContainsAny(v, "\x00\n") {
				continue // the client does not send these
			}
			a := callWith(t, client, "POST", "/v1/tasks", linear, header, v)
			require.Less(t, a.status, 500, "%s: %q: %s", header, v, a.body)
		}
	}
}
