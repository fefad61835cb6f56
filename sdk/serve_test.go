package sdk_test

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

const (
	patience = 2 * time.Minute
	tick     = 5 * time.Millisecond
)

// buffer may be written and read at the same time.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func work(t *testing.T, remote *wire.Client) pluginv1.Handler_WorkClient {
	t.Helper()
	_, err := remote.Plugin.Configure(t.Context(), &pluginv1.ConfigureRequest{MaxInFlight: 4})
	require.NoError(t, err)
	stream, err := remote.Handler.Work(t.Context())
	require.NoError(t, err)
	return stream
}

func TestServe(t *testing.T) {
	t.Parallel()
	var logs buffer
	_, client, remote := startPlugin(t, hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: &logs}))
	d, err := remote.Plugin.Describe(t.Context(), &pluginv1.DescribeRequest{})
	require.NoError(t, err)
	require.Equal(t, "sample", d.GetName())
	require.Equal(t, uint32(8), d.GetMaxInFlight())
	require.Len(t, d.GetSlots(), 3)

	stream := work(t, remote)
	step := &pluginv1.Step{CallId: 1, Handler: "sample.print"}
	require.NoError(t, stream.Send(&pluginv1.WorkRequest{Steps: []*pluginv1.Step{step}}))
	outcomes, _ := receive(t, stream, 1)
	require.Nil(t, outcomes[1].GetFailure())
	for _, line := range []string{
		"by fmt\n", "by stderr\n", "by file descriptor\n",
		"by log: timestamp=", "[WARN]", "by slog: key=value", "[ERROR]", "by hclog: key=value",
	} {
		require.Eventually(t, func() bool { return bytes.Contains([]byte(logs.String()), []byte(line)) },
			patience, tick, "%q is not in the host's log:\n%s", line, &logs)
	}

	client.Kill()
	select {
	case <-remote.Exited:
	case <-time.After(patience):
		require.Fail(t, "the end of the process is not announced")
	}
}

// TestServeDrainsOnSIGTERM: the running step ends, its outcome arrives, and the
// stream and the process end cleanly.
func TestServeDrainsOnSIGTERM(t *testing.T) {
	t.Parallel()
	cmd, client, remote := startPlugin(t, hclog.NewNullLogger())
	stream := work(t, remote)
	begun, release := filepath.Join(t.TempDir(), "begun"), filepath.Join(t.TempDir(), "release")
	files, err := json.Marshal(map[string]string{"begun": begun, "release": release})
	require.NoError(t, err)
	step := &pluginv1.Step{CallId: 1, Handler: "sample.gate", Context: files}
	require.NoError(t, stream.Send(&pluginv1.WorkRequest{Steps: []*pluginv1.Step{step}}))
	require.Eventually(t, func() bool { return exists(begun) }, patience, tick)

	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.Eventually(t, func() bool {
		health, err := remote.Plugin.Health(t.Context(), &pluginv1.HealthRequest{})
		return err == nil && health.GetMessage() == "draining" && health.GetInFlight() == 1
	}, patience, tick)
	require.NoError(t, os.WriteFile(release, nil, 0o600))
	outcomes, _ := receive(t, stream, 1)
	require.JSONEq(t, `"released"`, string(outcomes[1].GetResult()))
	_, err = stream.Recv()
	require.ErrorIs(t, err, io.EOF)
	require.Eventually(t, client.Exited, patience, tick)
}

// TestServeEndsWithHost kills the host without notice: the plugin must detect
// it.
func TestServeEndsWithHost(t *testing.T) {
	t.Parallel()
	alive, held, err := os.Pipe()
	require.NoError(t, err)
	defer alive.Close()
	host := exec.Command(os.Args[0])
	host.Env = []string{programVariable + "=host", "TMPDIR=" + t.TempDir()}
	host.ExtraFiles = []*os.File{held}
	stdout, err := host.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, host.Start())
	require.NoError(t, held.Close())
	line := make([]byte, 64)
	n, err := stdout.Read(line)
	require.NoError(t, err)
	require.Equal(t, "started\n", string(line[:n]))

	require.NoError(t, host.Process.Kill())
	require.Error(t, host.Wait())
	require.NoError(t, alive.SetReadDeadline(time.Now().Add(patience)))
	_, err = alive.Read(line) // ends when the last process that holds the pipe does
	require.ErrorIs(t, err, io.EOF)
}

func TestByHand(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		program        string
		args           []string
		code           int
		stdout, stderr string // contained in it
	}{
		"nothing asked":   {"plugin", nil, 1, "", "sample 1.2.3 is a Tasker plugin"},
		"names handlers":  {"plugin", nil, 1, "", "handler  sample.gate\n"},
		"unknown command": {"plugin", []string{"dance"}, 1, "", "selftest"},
		"what to do":      {"plugin", nil, 1, "", "tasker plugin check " + os.Args[0]},
		"what it is not":  {"plugin", []string{"dance", "well"}, 1, "", `"dance well" is not one of its commands`},
		"help":            {"plugin", []string{"--help"}, 0, "sample 1.2.3 is a Tasker plugin: a host starts it", ""},
		"short help":      {"plugin", []string{"-h"}, 0, "tasker plugin check " + os.Args[0], ""},
		"version":         {"plugin", []string{"--version"}, 0, "sample 1.2.3\n", ""},
		"describe":        {"plugin", []string{"describe"}, 0, `"sample.echo"`, ""},
		"selftest":        {"plugin", []string{"selftest"}, 0, "ok\n", ""},
		"broken":          {"broken", nil, 1, "", "no handlers, algorithms or health services given"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			cmd := exec.Command(os.Args[0], test.args...)
			cmd.Env = []string{programVariable + "=" + test.program}
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			_ = cmd.Run() // the exit code is checked below
			require.Equal(t, test.code, cmd.ProcessState.ExitCode())
			require.Contains(t, stdout.String(), test.stdout)
			require.Contains(t, stderr.String(), test.stderr)
			if test.code != 0 {
				require.Empty(t, stdout.String())
			} else {
				require.Empty(t, stderr.String())
			}
		})
	}
}

// TestDescribeByHandIsJSON: tools read this output.
func TestDescribeByHandIsJSON(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0], "describe")
	cmd.Env = []string{programVariable + "=plugin"}
	out, err := cmd.Output()
	require.NoError(t, err)
	var d struct {
		Name, Version string
		Slots         []struct{ Kind, Name string }
	}
	require.NoError(t, json.Unmarshal(out, &d))
	require.Equal(t, "sample", d.Name)
	require.Equal(t, "handler", d.Slots[0].Kind)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
