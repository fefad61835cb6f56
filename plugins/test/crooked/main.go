package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/tasker-systems/tasker-host/sdk/wire"
)

func main() {
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig:  wire.Handshake,
		VersionedPlugins: wire.Plugins(&crooked{fault: ownFault()}),
		GRPCServer:       func(opts []grpc.ServerOption) *grpc.Server { return grpc.NewServer(opts...) },
	})
}

func ownFault() string {
	if len(os.Args) > 1 {
		return os.Args[1]
	}
	_, fault, _ := strings.Cut(filepath.Base(os.Args[0]), "-")
	return fault
}
