package api_test

import (
	"context"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/api/apitest"
)

func newServer(t *testing.T, cfg api.Config) *api.Server {
	t.Helper()
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("tasker_up 1\n")) })
	s, err := api.New(cfg, apitest.New().All(), metrics, hclog.NewNullLogger())
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, s.Stop(ctx))
	})
	return s
}

func TestSocketPermissions(t *testing.T) {
	t.Parallel()
	for group, want := range map[bool]fs.FileMode{false: 0o600, true: 0o660} {
		path := apitest.SocketPath(t)
		require.NoError(t, newServer(t, api.Config{Socket: path, SocketGroup: group}).Start(t.Context()))
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, want, info.Mode().Perm())
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	t.Parallel()
	path := apitest.SocketPath(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	l.SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
	require.FileExists(t, path)
	require.NoError(t, newServer(t, api.Config{Socket: path}).Start(t.Context()))
	require.Equal(t, http.StatusOK, call(t, path, "GET", "/health/live", "").status)
	require.Equal(t, "tasker_up 1\n", call(t, path, "GET", "/metrics", "").body)
}

func TestTakenSocketIsLeftAlone(t *testing.T) {
	t.Parallel()
	path := apitest.SocketPath(t)
	require.NoError(t, newServer(t, api.Config{Socket: path}).Start(t.Context()))
	require.ErrorContains(t, newServer(t, api.Config{Socket: path}).Start(t.Context()), "another host already serves it")
	require.Equal(t, http.StatusOK, call(t, path, "GET", "/health/live", "").status)

	port, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.ErrorContains(t, newServer(t, api.Config{TCP: port.Addr().String()}).Start(t.Context()),
		"listen on "+port.Addr().String()+": another program already does; stop it, or set another address with system.http_listen")
	require.NoError(t, port.Close())

	foreign := apitest.SocketPath(t)
	l, err := net.Listen("unix", foreign)
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	require.ErrorContains(t, newServer(t, api.Config{Socket: foreign}).Start(t.Context()), "another process answers on it")

	file := apitest.SocketPath(t)
	require.NoError(t, os.WriteFile(file, []byte("precious"), 0o600))
	require.ErrorContains(t, newServer(t, api.Config{Socket: file}).Start(t.Context()), "not a socket")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "precious", string(text))
}

func TestRefusedAddresses(t *testing.T) {
	t.Parallel()
	long := "/tmp/" + strings.Repeat("x", 120)
	require.ErrorContains(t, newServer(t, api.Config{Socket: long}).Start(t.Context()), "a unix socket's may have 103")
	for _, address := range []string{"0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.org:0"} {
		require.ErrorContains(t, newServer(t, api.Config{TCP: address}).Start(t.Context()), "only loopback", address)
	}
	require.ErrorContains(t, newServer(t, api.Config{TCP: "8085"}).Start(t.Context()), "want host:port")
	_, err := api.New(api.Config{}, apitest.New().All(), nil, hclog.NewNullLogger())
	require.ErrorContains(t, err, "nowhere to listen")
}

func TestLoopbackServesLocalClientsOnly(t *testing.T) {
	t.Parallel()
	path := apitest.SocketPath(t)
	s := newServer(t, api.Config{Socket: path, TCP: "127.0.0.1:0"})
	require.NoError(t, s.Start(t.Context()))
	address := s.Addresses()[1].String()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	post := func(host, origin string) answer {
		req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+address+"/v1/tasks", strings.NewReader(linear))
		require.NoError(t, err)
		req.Host = host
		req.Header.Set("Content-Type", "application/json")
		if origin != "" {
			req.Header.Set("Origin", origin)
		}
		return do(t, client, req)
	}
	require.Equal(t, http.StatusCreated, post(address, "").status)
	require.Equal(t, http.StatusCreated, post("localhost", "").status)
	require.Equal(t, http.StatusForbidden, post("evil.example", "").status, "DNS rebinding")
	require.Equal(t, http.StatusForbidden, post(address, "https://evil.example").status, "a page from elsewhere")
}
