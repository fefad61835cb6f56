package api_test

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/api/apitest"
	"github.com/tasker-systems/tasker-host/host/internal/auth"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// described is the part of the API's description that the tests need.
type described struct {
	Paths map[string]map[string]struct {
		Permission string                 `json:"x-tasker-permission"`
		Security   *[]map[string][]string `json:"security"`
	} `json:"paths"`
}

func describedAPI(t *testing.T) described {
	t.Helper()
	src, err := api.OpenAPI()
	require.NoError(t, err)
	var d described
	require.NoError(t, json.Unmarshal(src, &d))
	return d
}

// Users must not be the ones to find out that a route has no permission.
func TestEveryOperationHasAPermission(t *testing.T) {
	t.Parallel()
	table := api.Permissions()
	seen := map[string]bool{"GET /metrics": true, "GET /v1/openapi.json": true} // not in the description
	for path, operations := range describedAPI(t).Paths {
		for method, op := range operations {
			route := strings.ToUpper(method) + " " + path
			seen[route] = true
			need, ok := table[route]
			require.True(t, ok, "%s: add it to the table in permissions.go", route)
			require.Equal(t, need, op.Permission, route)
			require.NotNil(t, op.Security, route)
			require.Equal(t, need == "", len(*op.Security) == 0, route)
		}
	}
	for route := range table {
		require.True(t, seen[route], "%s is in the table and nowhere else", route)
	}
}

// TestSecurityPageHasThePermissions compares the table in the documentation.
func TestSecurityPageHasThePermissions(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../../docs/security.md")
	require.NoError(t, err)
	for route, need := range api.Permissions() {
		if need == "" {
			need = "(public)"
		}
		require.Contains(t, string(page), "| `"+route+"` | "+need+" |")
	}
	require.Equal(t, len(api.Permissions()), strings.Count(string(page), "| `GET /")+strings.Count(string(page), "| `POST /")+strings.Count(string(page), "| `PATCH /"))
}

// Every route, requested anonymously, by someone who may do everything but this, and by
// someone who may do only this.
func TestEveryRouteAgainstEveryPermission(t *testing.T) {
	t.Parallel()
	base := serveTCP(t, apitest.New().All(), api.Access{Bearers: bearers{}})
	require.Equal(t, 401, callAt(t, base, "GET", "/v1/nowhere").status, "nobody learns what exists")
	require.Equal(t, 404, callAt(t, base, "GET", "/v1/nowhere", "Authorization", "Bearer task:read").status)
	for route, need := range api.Permissions() {
		method, path, _ := strings.Cut(route, " ")
		path = pathOf(path)
		ask := func(bearer string) answer {
			headers := []string{"Last-Event-ID", apitest.OldEvent} // a stream would not end
			if bearer != "" {
				headers = append(headers, "Authorization", "Bearer "+bearer)
			}
			return callAt(t, base, method, path, headers...)
		}
		if need == "" {
			require.NotContains(t, []int{401, 403}, ask("").status, route)
			continue
		}
		nobody := ask("")
		for nobody.status == 429 { // one address may not fail this often
			base = serveTCP(t, apitest.New().All(), api.Access{Bearers: bearers{}})
			nobody = ask("")
		}
		require.Equal(t, 401, nobody.status, route)
		require.Equal(t, `Bearer realm="tasker"`, nobody.header.Get("Www-Authenticate"))
		require.Equal(t, api.CodeUnauthenticated, nobody.field(t, "code"))
		denied := ask(allBut(need))
		require.Equal(t, 403, denied.status, route)
		require.Equal(t, api.CodePermissionDenied, denied.field(t, "code"))
		require.Contains(t, denied.body, need, "it says what is missing")
		require.NotContains(t, []int{401, 403}, ask(need).status, route)
	}
}

// allBut returns all permissions except one, as far as it can be left out.
func allBut(need string) string {
	resource, level, _ := strings.Cut(need, ":")
	var all []string
	for _, r := range auth.Resources {
		if string(r) != resource {
			all = append(all, string(r)+":administer")
		}
	}
	switch level {
	case "administer":
		all = append(all, resource+":operate")
	case "operate":
		all = append(all, resource+":read")
	}
	return strings.Join(all, ",")
}

// A route that is missing from the table is closed to everybody, even on the socket.
func TestRouteWithoutPermissionIsClosed(t *testing.T) {
	t.Parallel()
	socket := apitest.SocketPath(t)
	server, err := api.New(api.Config{Socket: socket}, apitest.New().All(), nil, hclog.NewNullLogger())
	require.NoError(t, err)
	api.AddForgottenRoute(server, "GET /v1/forgotten", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("secret"))
	}))
	start(t, server)
	a := call(t, socket, "GET", "/v1/forgotten", "")
	require.Equal(t, 403, a.status)
	require.NotContains(t, a.body, "secret")
}

// Every route that may change something writes one entry, whatever the outcome: who,
// what, and the outcome. Reading writes none.
func TestEveryChangeIsInTheAudit(t *testing.T) {
	t.Parallel()
	kept := map[string]bool{ // recorded elsewhere, or changes nothing
		"POST /v1/tasks": true, "POST /v1/templates/validate": true,
	}
	for route, audited := range api.Audited() {
		method, path, _ := strings.Cut(route, " ")
		mutating := method != "GET"
		if !audited && mutating {
			require.True(t, kept[route] || strings.HasPrefix(path, "/v1/tasks"), "%s changes something and is in no audit", route)
		}
		if strings.HasSuffix(path, "/events") { // they do not end
			continue
		}
		b := apitest.New()
		base := serveTCP(t, b.All(), api.Access{Bearers: bearers{}})
		need := api.Permissions()[route]
		for bearer, outcome := range map[string]string{need: "", allBut(need): readmodel.AuditRefused} {
			before := auditOf(t, b)
			var headers []string
			if need != "" {
				headers = []string{"Authorization", "Bearer " + bearer}
			}
			a := callAt(t, base, method, pathOf(path), headers...)
			entries := auditOf(t, b)[:len(auditOf(t, b))-len(before)]
			if !audited {
				require.Empty(t, entries, route)
				continue
			}
			require.Len(t, entries, 1, route)
			e := entries[0]
			require.Equal(t, "token:tester", e.Actor, route)
			require.Equal(t, route, e.Action)
			require.NotEmpty(t, e.Subject, route)
			require.Equal(t, a.status, e.Status, route)
			require.Equal(t, a.header.Get("X-Request-Id"), e.RequestID, route)
			switch {
			case outcome != "":
				require.Equal(t, outcome, e.Outcome, route)
			case a.status < 400:
				require.Equal(t, readmodel.AuditDone, e.Outcome, route)
			default:
				require.NotEqual(t, readmodel.AuditDone, e.Outcome, route)
			}
		}
	}
}

func auditOf(t *testing.T, b *apitest.Backend) []readmodel.AuditEntry {
	t.Helper()
	entries, err := b.ListAudit(t.Context(), api.AuditQuery{Before: -1, Limit: 100})
	require.NoError(t, err)
	return entries
}

// pathOf fills in the parameters of a route's path.
func pathOf(path string) string {
	return strings.NewReplacer("{step_uuid}", "019ca9d2-7c00-7000-8000-000100000001", "{id}", "1", "{task_uuid}", "019ca9d2-7c00-7000-8000-000100000000",
		"{token_id}", "x", "{breaker}", "database", "{kind}", "handler", "{namespace}", "a", "{name}", "b", "{version}", "1.0.0").Replace(path)
}
