package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
)

// TestCanaries plants a secret in every place that takes one, and looks for them
// in all that a host and its commands say: at the finest log level, in answers of
// the API, in errors, in metrics and in what is kept in the database.
func TestCanaries(t *testing.T) {
	t.Parallel()
	dsn := withPassword(t, pgtest.DSN(t))
	s := newSite(t, dsn,
		"TASKER__SYSTEM__LOG_LEVEL=trace", "TASKER__SYSTEM__HTTP_LISTEN=127.0.0.1:0", "TASKER__AUTH__ENABLED=true",
		"TASKER__AUTH__JWT__ISSUER=https://id.example", "TASKER__AUTH__JWT__AUDIENCE=tasker", "TASKER__AUTH__JWT__KEYS_URL=http://127.0.0.1:1/keys",
		"TASKER__TELEMETRY__TRACES__ENDPOINT=http://127.0.0.1:1", "TASKER__TELEMETRY__TRACES__HEADERS=X-Token="+canary+"-headers",
		"HOOK_URL=http://127.0.0.1:1/"+canary+"-hook", "HOOK_SECRET="+canary+"-signs", "TASKER_TOKEN="+canary+"-token",
	)
	s.plugins(t, pluginTable("chaos", filepath.Join(built, "chaos"), "")+`
[plugin.health.hook]
required = false # it and the next serve the same: the second to start does not serve
path = "`+filepath.Join(built, "webhook")+`"
env = ["HOOK_SECRET"]
options = { url = { from_env = "HOOK_URL" }, secret_env = "HOOK_SECRET", tries = 1, wait = "1ms" }
[plugin.health.file]
required = false
path = "`+filepath.Join(built, "webhook")+`"
options = { url = { from_file = "`+s.write(t, "hook", "http://127.0.0.1:1/"+canary+"-file")+`" }, tries = 1, wait = "1ms" }
`)
	h := s.up(t)
	applyTemplate(t, h, oneStep("echo", "chaos.echo", ""))
	applyTemplate(t, h, oneStep("crash", "chaos.crash", ""))
	require.Equal(t, "complete", string(runTask(t, h, "e2e", "echo", `{"a": 1}`).State))
	crashed := submit(t, h, "e2e", "crash", `{"how": "kill"}`) // so that there is something to report
	eventually(t, patience, "the plugin crashes", func() bool {
		plugins, err := h.Plugins(t.Context())
		require.NoError(t, err)
		return slices.ContainsFunc(plugins, func(p readmodel.Plugin) bool { return p.Restarts > 0 })
	})
	_, err := h.Cancel(t.Context(), crashed, "seen enough")
	require.NoError(t, err)
	token, err := h.CreateToken(t.Context(), client.TokenOrder{Name: "sweep", Permissions: []string{"*:administer"}, ExpiresIn: 3600})
	require.NoError(t, err)
	secrets := []string{canary, token.Bearer, token.Bearer[17:]}
	clean := func(what, text string) {
		t.Helper()
		for _, secret := range secrets {
			require.False(t, strings.Contains(text, secret), "%s shows %q:\n%s", what, secret, around(text, secret))
		}
	}

	// Commands, as people and as programs.
	for _, args := range [][]string{
		{"config", "show"},
		{"config", "show", "--origin"},
		{"config", "show", "database.url", "telemetry.traces.headers"},
		{"config", "show", "--running"},
		{"config", "validate"},
		{"config", "diff", "--env", "test,production"},
		{"config", "reload"},
		{"doctor"},
		{"plugin", "list"},
		{"plugin", "plan"},
		{"plugin", "explain", "health/hook"},
		{"plugin", "history", "health/hook"},
		{"plugin", "explain", "health/file"},
		{"plugin", "diff", "--env", "test,production"},
		{"token", "list"},
		{"audit", "list"},
		{"queue", "list"},
		{"task", "list"},
		{"task", "show", crashed, "--history"},
		{"task", "explain", crashed},
		{"dlq", "list"},
	} {
		for _, more := range [][]string{nil, {"--json"}} {
			r := s.tasker(t, append(slices.Clone(args), more...)...)
			clean(strings.Join(args, " "), r.out+r.err)
		}
	}

	// Everything that the API can be asked, with a good token, none, and wrong ones.
	base := "http://" + listening(t, h)
	ask := func(path, bearer string) string {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path, http.NoBody)
		require.NoError(t, err)
		if bearer != "" {
			req.Header.Set("Authorization", "Bearer "+bearer)
		}
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer func() { require.NoError(t, resp.Body.Close()) }()
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return fmt.Sprint(resp.Header) + string(text)
	}
	for _, path := range append(readable(t, s, crashed), "/metrics") {
		for _, bearer := range []string{token.Bearer, "", canary + "-bearer", "a." + canary + ".c", "tsk_aaaaaaaaaaaa_" + strings.Repeat("a", 26)} {
			clean("GET "+path, ask(path, bearer))
		}
	}

	// What is wrong is said without the value.
	bad := "postgres://app:" + canary + "@127.0.0.1:1/app"
	for name, more := range map[string][]string{
		"a URL on the command line":      {"--set", "database.url=" + bad},
		"headers on the command line":    {"--set", "telemetry.traces.headers=X=" + canary},
		"an unknown key":                 {"--set", "database.urll=" + bad},
		"a password in an endpoint":      {"--set", "telemetry.traces.endpoint=http://u:" + canary + "@h"},
		"a password in the keys' URL":    {"--set", "auth.jwt.keys_url=https://u:" + canary + "@h"},
		"a password in the keys' URL, 2": {"--set", "auth.jwt.keys_url=http://u:" + canary + "@h"},
	} {
		r := s.tasker(t, append([]string{"config", "validate"}, more...)...)
		require.NotZero(t, r.code, name)
		clean(name, r.out+r.err)
	}
	for name, variable := range map[string]string{
		"a server that is not there":   "DATABASE_URL=" + bad,
		"a port that is no number":     "DATABASE_URL=postgres://app:" + canary + "@127.0.0.1:port/app",
		"a URL that is none":           "DATABASE_URL=postgres://app:" + canary + "@[::1/app",
		"a list that is none":          "DATABASE_URL=host=127.0.0.1 password=" + canary + " port=port",
		"a quote that does not end":    "DATABASE_URL=host=127.0.0.1 password='" + canary,
		"headers that are none":        "TASKER__TELEMETRY__TRACES__HEADERS=" + canary,
		"another scheme":               "DATABASE_URL=mysql://app:" + canary + "@127.0.0.1:1/app",
		"a setting that nobody knows":  "DATABASE_URL=postgres://app:" + canary + "@127.0.0.1:1/app?sslmode=" + "sometimes",
		"a variable that nobody knows": "TASKER__DATABASE__PASSWORD=" + canary,
	} {
		other := &site{dir: s.dir, env: append(slices.Clone(s.env), variable, "TASKER__SYSTEM__STATE_DIR="+filepath.Join(s.dir, "other"))}
		for _, args := range [][]string{{"config", "validate"}, {"config", "show"}, {"doctor"}, {"migrate"}, {"up"}} {
			r := other.tasker(t, args...)
			clean(name+": "+strings.Join(args, " "), r.out+r.err)
			if args[0] == "up" {
				require.NotZero(t, r.code, name)
			}
		}
	}
	for name, text := range map[string]string{
		"a URL in a file":             "[database]\nurl = \"" + bad + "\"\n",
		"headers in a file":           "[telemetry.traces]\nheaders = \"X=" + canary + "\"\n",
		"a secret of the wrong kind":  "[database]\nurl = { password = \"" + canary + "\" }\n",
		"a secret without its quotes": "[database]\nurl = " + bad + "\n",
	} {
		dir := filepath.Join(s.dir, "config")
		require.NoError(t, os.MkdirAll(dir, 0o750))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "a.toml"), []byte(text), 0o600))
		// What a variable sets hides what a file says: here there is none.
		bare := &site{dir: s.dir, env: slices.DeleteFunc(slices.Clone(s.env), func(v string) bool {
			return strings.HasPrefix(v, "DATABASE_URL=") || strings.HasPrefix(v, "TASKER__TELEMETRY__")
		})}
		r := bare.tasker(t, "config", "validate", "--config", dir)
		require.NotZero(t, r.code, name)
		clean(name, r.out+r.err)
	}

	// The log, and what is kept.
	h.signal(t, syscall.SIGHUP)
	h.stop(t)
	require.Contains(t, h.log.String(), `"@level":"debug"`, "nothing is left out")
	clean("the log", h.log.String())
	db := pgtest.Pool(t, dsn)
	tables := column[string](t, db, "select quote_ident(schemaname) || '.' || quote_ident(tablename) from pg_tables where schemaname in ('public', 'pgmq')")
	require.Greater(t, len(tables), 10)
	for _, table := range tables {
		require.Equal(t, []int{0}, column[int](t, db, "select count(*)::integer from "+table+" x where x::text like '%'||$1||'%' or x::text like '%'||$2||'%'", canary, token.Bearer[17:]), table)
	}
}

// around is a text where it shows a secret.
func around(text, secret string) string {
	i := strings.Index(text, secret)
	if i < 0 {
		return ""
	}
	return text[max(0, i-300):min(len(text), i+len(secret)+100)]
}

// listening is the address on which a host says that it listens.
func listening(t *testing.T, h *host) string {
	t.Helper()
	m := regexp.MustCompile(`tcp:(127\.0\.0\.1:\d+)`).FindStringSubmatch(h.log.String())
	require.NotNil(t, m, "the host does not say where it listens")
	return m[1]
}

// readable returns a path for every route that reads and ends.
func readable(t *testing.T, s *site, task string) []string {
	t.Helper()
	var description struct {
		Paths map[string]map[string]struct {
			Responses map[string]struct{ Content map[string]any }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(s.tasker(t, "openapi").out), &description))
	fill := strings.NewReplacer("{task_uuid}", task, "{step_uuid}", task[:len(task)-1]+"1", "{namespace}", "e2e", "{name}", "hook", "{version}", "1.0.0",
		"{kind}", "health", "{id}", "1", "{token_id}", "sweep")
	var paths []string
	for path, methods := range description.Paths {
		get, ok := methods["get"]
		if _, streams := get.Responses["200"].Content["text/event-stream"]; !ok || streams {
			continue
		}
		paths = append(paths, fill.Replace(path))
	}
	require.Greater(t, len(paths), 15)
	return paths
}
