package apitest

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/tasker-systems/tasker-host/host/internal/api"
)

// SocketPath returns a path for a unix socket that is short enough, wherever the test's
// own directory is.
func SocketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tasker")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "api.sock")
}

// Serve serves the backend on a unix socket until the test ends and returns
// the socket's path.
func Serve(t testing.TB, b api.Backend) string {
	t.Helper()
	return ServeWith(t, b, api.Config{})
}

// ServeWith is Serve with settings of the caller's choice.
func ServeWith(t testing.TB, b api.Backend, cfg api.Config) string {
	t.Helper()
	path := SocketPath(t)
	cfg.Socket = path
	server, err := api.New(cfg, b, nil, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := server.Stop(ctx); err != nil {
			t.Errorf("stop the API: %v", err)
		}
	})
	return path
}
