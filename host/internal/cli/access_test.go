package cli_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTokenCommands(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made := b.run(t, "token", "create", "deploy", "--permission", "task:operate,template:administer")
	require.Zero(t, made.code, made.err)
	require.Regexp(t, `^tsk_\w+\n$`, made.out, "only the token, so that it can go into a file")
	require.NotContains(t, made.err, made.out[:len(made.out)-1])
	require.Equal(t, 6, b.run(t, "token", "create", "deploy", "--permission", "task:read").code)
	require.Equal(t, 2, b.run(t, "token", "create", "other").code)
	require.Contains(t, b.run(t, "token", "create", "other", "--permission", "task").err, "RESOURCE:LEVEL")
	require.Contains(t, b.run(t, "token", "list").out, "task:operate template:administer")
	require.Contains(t, b.run(t, "token", "revoke", "deploy").out, "revoked deploy")
	require.Equal(t, 4, b.run(t, "token", "revoke", "nobody").code)
	require.Contains(t, b.run(t, "audit", "list").out, "token deploy")
}

// The token goes only to the named host, in a header.
func TestTokenGoesWithTheURL(t *testing.T) {
	t.Parallel()
	b := setup(t)
	seen := make(chan string, 1)
	host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header.Get("Authorization")
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"items":[]}`))
	}))
	defer host.Close()
	b.env["TASKER_TOKEN"] = "tsk_secret"
	require.Zero(t, b.run(t, "task", "list", "--url", host.URL).code)
	require.Equal(t, "Bearer tsk_secret", <-seen)
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte("tsk_file\n"), 0o600))
	require.Zero(t, b.run(t, "task", "list", "--url", host.URL, "--token-file", file).code)
	require.Equal(t, "Bearer tsk_file", <-seen)
	clear := b.run(t, "task", "list", "--url", "http://192.0.2.1:1")
	require.Equal(t, 2, clear.code)
	require.Contains(t, clear.err, "unencrypted")
	require.NotContains(t, clear.err, "tsk_secret")
}

// No token, a wrong one, and one without permission have different exit codes.
func TestExitCodesOfTokens(t *testing.T) {
	t.Parallel()
	for status, code := range map[int]int{http.StatusUnauthorized: 7, http.StatusForbidden: 8, http.StatusTooManyRequests: 1} {
		b := setup(t)
		host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(status)
			_, _ = fmt.Fprintf(w, `{"status": %d, "code": "x", "detail": "no"}`, status)
		}))
		r := b.run(t, "task", "list", "--url", host.URL)
		host.Close()
		require.Equal(t, code, r.code, r.err)
		require.Contains(t, r.err, "no")
		require.Empty(t, r.out)
	}
}
