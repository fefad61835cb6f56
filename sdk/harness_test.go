package sdk

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// connect serves a part over a unix socket, as a plugin process does, and
// returns the host's end of it.
func connect(t testing.TB, part Part) (*Plugin, *wire.Client) {
	t.Helper()
	p, err := New(part)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	require.NoError(t, err)
	server := grpc.NewServer(wire.ServerOptions()...)
	p.Register(server)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	options := append(wire.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn, err := grpc.NewClient("unix://"+path, options...)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		server.Stop()
		require.NoError(t, <-served)
	})
	return p, wire.NewClient(t.Context(), conn)
}

// configure takes the plugin into use with the given options.
func configure(t testing.TB, c *wire.Client, options string) {
	t.Helper()
	answer, err := c.Plugin.Configure(t.Context(), &pluginv1.ConfigureRequest{Options: []byte(options)})
	require.NoError(t, err)
	require.Empty(t, answer.GetErrors())
}

// open opens a work stream that ends with the test.
func open(t testing.TB, c *wire.Client) pluginv1.Handler_WorkClient {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	stream, err := c.Handler.Work(ctx)
	require.NoError(t, err)
	return stream
}
