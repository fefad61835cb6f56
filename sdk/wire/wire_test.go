package wire_test

import (
	"context"
	"testing"

	"github.com/hashicorp/go-plugin"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// TestPluginsAreFresh: go-plugin writes into the sets it is given.
func TestPluginsAreFresh(t *testing.T) {
	t.Parallel()
	sets := wire.Plugins(nil)
	delete(sets[wire.ProtocolVersion], wire.Name)
	require.Contains(t, wire.Plugins(nil)[wire.ProtocolVersion], wire.Name)
}

func TestHostServesNothing(t *testing.T) {
	t.Parallel()
	p, ok := wire.Plugins(nil)[wire.ProtocolVersion][wire.Name].(plugin.GRPCPlugin)
	require.True(t, ok)
	server := grpc.NewServer()
	defer server.Stop()
	require.ErrorContains(t, p.GRPCServer(nil, server), "no server given")
}

func TestClientExitedFollowsProcess(t *testing.T) {
	t.Parallel()
	process, end := context.WithCancel(t.Context())
	client := wire.NewClient(process, nil)
	select {
	case <-client.Exited:
		require.Fail(t, "exited before the process")
	default:
	}
	end()
	<-client.Exited
}
