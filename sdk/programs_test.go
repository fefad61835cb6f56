package sdk_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/handler"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// programVariable names the program that the test binary runs instead of the
// tests.
const programVariable = "TASKER_SDK_TEST_PROGRAM"

var programs = map[string]func(){
	"plugin": pluginProgram,
	"host":   hostProgram,
	"broken": func() { sdk.Serve(sdk.Handlers("Broken!", "1", nil)) },
}

func pluginProgram() {
	sdk.Serve(sdk.Handlers("sample", "1.2.3", map[string]handler.Handler{
		"sample.echo":  handler.Func(echo),
		"sample.print": handler.Func(printEverywhere),
		"sample.gate":  handler.Func(gate),
	}, sdk.MaxInFlight(8), sdk.SelfTest(func(context.Context) error {
		if len(os.Args) > 2 {
			return errors.New("too many arguments")
		}
		return nil
	})))
}

// printEverywhere writes to whatever a handler may think of.
func printEverywhere(ctx context.Context, _ handler.Step) (handler.Result, error) {
	fmt.Println("by fmt")
	fmt.Fprintln(os.Stderr, "by stderr")
	if _, err := syscall.Write(1, []byte("by file descriptor\n")); err != nil {
		return handler.Result{}, err
	}
	log.Print("by log")
	slog.WarnContext(ctx, "by slog", "key", "value")
	hclog.FromContext(ctx).Error("by hclog", "key", "value")
	return handler.Result{}, nil
}

// gate creates a file to show that it has begun, and waits for another to
// appear.
func gate(ctx context.Context, s handler.Step) (handler.Result, error) {
	var files struct{ Begun, Release string }
	if err := s.DecodeContext(&files); err != nil {
		return handler.Result{}, handler.Invalid("FILES", "%v", err)
	}
	if err := os.WriteFile(files.Begun, nil, 0o600); err != nil {
		return handler.Result{}, err
	}
	for {
		if _, err := os.Stat(files.Release); err == nil {
			return handler.JSON("released")
		}
		select {
		case <-ctx.Done():
			return handler.Result{}, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

// hostProgram starts a plugin that inherits file descriptor 3, reports it, and
// waits to be killed.
func hostProgram() {
	cmd := exec.Command(os.Args[0])
	cmd.ExtraFiles = []*os.File{os.NewFile(3, "alive")}
	cmd.Env = []string{plugin.EnvUnixSocketDir + "=" + os.TempDir()}
	client := plugin.NewClient(clientConfig(cmd, hclog.NewNullLogger()))
	if _, err := client.Client(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("started")
	select {}
}

func clientConfig(cmd *exec.Cmd, logger hclog.Logger) *plugin.ClientConfig {
	cmd.Env = append(cmd.Env, programVariable+"=plugin")
	return &plugin.ClientConfig{
		HandshakeConfig:  wire.Handshake,
		VersionedPlugins: wire.Plugins(nil),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		GRPCDialOptions:  wire.DialOptions(),
		AutoMTLS:         true,
		SkipHostEnv:      true,
		Logger:           logger,
		Cmd:              cmd,
	}
}

// startPlugin starts the plugin program under go-plugin, as a host does.
func startPlugin(t *testing.T, logger hclog.Logger) (*exec.Cmd, *plugin.Client, *wire.Client) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = []string{plugin.EnvUnixSocketDir + "=" + t.TempDir()} // go-plugin does not remove the socket of one that was killed
	client := plugin.NewClient(clientConfig(cmd, logger))
	t.Cleanup(client.Kill)
	protocol, err := client.Client()
	require.NoError(t, err)
	remote, err := protocol.Dispense(wire.Name)
	require.NoError(t, err)
	require.IsType(t, (*wire.Client)(nil), remote)
	return cmd, client, remote.(*wire.Client)
}
