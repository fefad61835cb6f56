package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tasker-systems/tasker-host/plugins/test/chaostest"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

const patience = 2 * time.Minute

var binary string // built by TestMain

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "chaos")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if binary, err = chaostest.Build(dir); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

func start(t *testing.T, mode string) (*wire.Client, error) {
	t.Helper()
	cmd := exec.Command(chaostest.As(t, binary, mode))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Env = []string{plugin.EnvUnixSocketDir + "=" + t.TempDir()} // most cannot remove their socket
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  wire.Handshake,
		VersionedPlugins: wire.Plugins(nil),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		GRPCDialOptions:  wire.DialOptions(),
		SkipHostEnv:      true,
		StartTimeout:     patience,
		Logger:           hclog.NewNullLogger(),
		Cmd:              cmd,
	})
	t.Cleanup(func() {
		if cmd.Process != nil { // the whole group: a grandchild that holds the pipes makes Kill wait forever
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
		client.Kill()
	})
	protocol, err := client.Client()
	if err != nil {
		return nil, err
	}
	remote, err := protocol.Dispense(wire.Name)
	require.NoError(t, err)
	return remote.(*wire.Client), nil
}

// do runs one step and returns the answer of the stream.
func do(t *testing.T, remote *wire.Client, handler, input string) (*pluginv1.WorkResponse, error) {
	t.Helper()
	_, err := remote.Plugin.Configure(t.Context(), &pluginv1.ConfigureRequest{})
	require.NoError(t, err)
	stream, err := remote.Handler.Work(t.Context())
	require.NoError(t, err)
	step := &pluginv1.Step{CallId: 1, Handler: handler, Context: []byte(input)}
	require.NoError(t, stream.Send(&pluginv1.WorkRequest{Steps: []*pluginv1.Step{step}}))
	return stream.Recv()
}

func TestStartModes(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string]string{
		"garbage":        "Welcome to chaos!",
		"exit":           "plugin",
		"exit-zero":      "plugin",
		"panic-start":    "plugin",
		"old-core":       "core API version",
		"old-protocol":   "incompatible API version",
		"net-rpc":        "unsupported plugin protocol",
		"garbage-only":   "unsupported plugin protocol",
		"no such mode":   "plugin",
		"slow-start":     "",
		"fork-start":     "",
		"endless-stderr": "",
		"lawless":        "",
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			_, err := start(t, mode)
			if want == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, want)
			}
		})
	}
}

func TestCrashes(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"exit", "kill", "segv", "fatal"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			remote, err := start(t, "")
			require.NoError(t, err)
			_, err = do(t, remote, "chaos.crash", `{"how": "`+how+`"}`)
			require.Equal(t, codes.Unavailable, status.Code(err))
			select {
			case <-remote.Exited:
			case <-time.After(patience):
				require.Fail(t, "the process is still running")
			}
		})
	}
}

func TestSteps(t *testing.T) {
	t.Parallel()
	for handler, want := range map[string]string{
		"chaos.echo":    "",
		"chaos.sleep":   "",
		"chaos.env":     "",
		"chaos.fork":    "",
		"chaos.trace":   "",
		"chaos.flood":   "",
		"chaos.panic":   string(vocab.UnexpectedError),
		"chaos.invalid": string(vocab.InvalidResult),
		"chaos.big":     string(vocab.InvalidResult),
	} {
		t.Run(handler, func(t *testing.T) {
			t.Parallel()
			remote, err := start(t, "")
			require.NoError(t, err)
			answer, err := do(t, remote, handler, `{"lines": 10}`)
			require.NoError(t, err)
			require.Equal(t, want, answer.GetOutcomes()[0].GetFailure().GetType())
		})
	}
}

// TestEnvironmentIsTold: the test of a clean environment relies on this.
func TestEnvironmentIsTold(t *testing.T) {
	t.Parallel()
	remote, err := start(t, "")
	require.NoError(t, err)
	answer, err := do(t, remote, "chaos.env", "{}")
	require.NoError(t, err)
	var told struct {
		Env, Args []string
		Files     map[string]string
	}
	require.NoError(t, json.Unmarshal(answer.GetOutcomes()[0].GetResult(), &told))
	require.Contains(t, told.Env, wire.Handshake.MagicCookieKey+"="+wire.Handshake.MagicCookieValue)
	require.Len(t, told.Args, 1)
	require.Contains(t, told.Files, "2")
}

func TestLawlessSteps(t *testing.T) {
	t.Parallel()
	remote, err := start(t, "lawless")
	require.NoError(t, err)
	answer, err := do(t, remote, "lawless.twice", "{}")
	require.NoError(t, err)
	require.Len(t, answer.GetOutcomes(), 2)
	answer, err = do(t, remote, "lawless.invalid", "{}")
	require.NoError(t, err)
	require.False(t, json.Valid(answer.GetOutcomes()[0].GetResult()))
	_, err = do(t, remote, "lawless.big", "{}")
	require.Equal(t, codes.ResourceExhausted, status.Code(err), "the host's cap holds")
	answer, err = do(t, remote, "lawless.text", "{}")
	require.NoError(t, err)
	require.Contains(t, answer.GetOutcomes()[0].GetFailure().GetMessage(), "\x00")
}

// TestModeIsInTheFile: two modes are two artifacts.
func TestModeIsInTheFile(t *testing.T) {
	t.Parallel()
	a, err := os.ReadFile(chaostest.As(t, binary, "exit"))
	require.NoError(t, err)
	b, err := os.ReadFile(chaostest.As(t, binary, "lawless"))
	require.NoError(t, err)
	require.False(t, bytes.Equal(a, b))
}
