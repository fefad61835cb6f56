package python_test

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/tasker-systems/tasker-host/internal/leaks"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/tryout"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// python is the distribution's Python, whose packages deploy/prepare.sh
// installs.
const python = "/usr/bin/python3"

// pack packs the folder into one executable file.
func pack(t *testing.T) string {
	t.Helper()
	source, binary := filepath.Join(t.TempDir(), "greeter"), filepath.Join(t.TempDir(), "py-greeter")
	require.NoError(t, os.CopyFS(source, os.DirFS("greeter")))
	out, err := exec.Command(python, "-m", "zipapp", "-p", python, "-m", "greeter:main", "-o", binary, source).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return binary
}

func TestConformance(t *testing.T) {
	t.Parallel()
	results := tryout.Check(t.Context(), tryout.Process(pack(t)), tryout.Config{
		Options: json.RawMessage(`{"greeting": "Grüß dich"}`),
		Examples: []tryout.Example{
			{Handler: "py.greet", Step: tryout.Step{Context: json.RawMessage(`{"name": "Ada"}`)}},
			{Handler: "py.count", Step: tryout.Step{
				Config:       json.RawMessage(`{"pauses": 3}`),
				Dependencies: map[string]json.RawMessage{"greet": json.RawMessage(`"Hello, Ada!"`)},
			}},
		},
	}, func(tryout.Result) {})
	for _, r := range results {
		require.Empty(t, r.Problem, r.Name)
	}
	require.Greater(t, len(results), 15)
}

func TestSteps(t *testing.T) {
	t.Parallel()
	i, err := tryout.Process(pack(t))(t.Context())
	require.NoError(t, err)
	defer i.Close()
	refused := i.Configure(t.Context(), json.RawMessage(`{"greeting": "", "x": 1}`))
	require.ErrorContains(t, refused, "/greeting: must be a non-empty string")
	require.ErrorContains(t, refused, "/x: unknown option; known options: greeting")
	require.NoError(t, i.Configure(t.Context(), json.RawMessage(`{"greeting": "Grüß dich"}`)))
	run := func(handler string, s tryout.Step, notes *[]string) *pluginv1.Outcome {
		t.Helper()
		o, err := i.Step(t.Context(), handler, s, func(_ int, note string) { *notes = append(*notes, note) })
		require.NoError(t, err)
		return o
	}
	var notes []string
	o := run("py.greet", tryout.Step{Context: json.RawMessage(`{"name": "Ada"}`)}, &notes)
	require.Nil(t, o.GetFailure())
	require.Equal(t, `"Grüß dich, Ada!"`, string(o.GetResult()))
	require.Equal(t, []string{"found somebody"}, notes)

	o = run("py.greet", tryout.Step{}, &notes)
	require.Equal(t, "PermanentError NOBODY", o.GetFailure().GetType()+" "+o.GetFailure().GetCode())
	require.False(t, o.GetFailure().GetRetryable())

	hello := map[string]json.RawMessage{"greet": json.RawMessage(`"Hello"`)}
	o = run("py.count", tryout.Step{Config: json.RawMessage(`{"pauses": 100000}`), TimeoutMs: 50, Dependencies: hello}, &notes)
	require.Equal(t, "TimeoutError", o.GetFailure().GetType())

	o = run("py.count", tryout.Step{Config: json.RawMessage(`{"pauses": "x"}`), Dependencies: hello}, &notes)
	require.Equal(t, "UnexpectedError", o.GetFailure().GetType())
	require.Contains(t, o.GetFailure().GetMessage(), "ValueError")
	require.True(t, o.GetFailure().GetRetryable())
}

// The code of a handler's own failure does not hand the step back.
func TestCodeOfAFailure(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(python, "-B", "-c", `
from types import SimpleNamespace
from tasker_plugin import steps
attempt = SimpleNamespace(reason="", timed_out=lambda: False)
print(*(steps.fail(steps.Permanent(c, "no"), attempt).failure.code for c in ("CANCELLED", "NOBODY")))`)
	cmd.Dir = "greeter"
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, "HANDLER_CANCELLED NOBODY\n", string(out))
}

// Numbers are written with every digit that was read.
func TestNumbersKeepTheirDigits(t *testing.T) {
	t.Parallel()
	const all = `{"ü":[0.1,1234567890.12345678901234567890,340282366920938463463374607431768211456,1E+400,-2.50],"b":[true,null,"x\"",{}]}`
	cmd := exec.Command(python, "-B", "-c", "import sys; from tasker_plugin import steps; sys.stdout.buffer.write(steps.dumps(steps.loads(sys.argv[1])).encode())", all)
	cmd.Dir = "greeter"
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, all, string(out))
}

// Started by a person, it answers as plugins in Go do.
func TestByHand(t *testing.T) {
	t.Parallel()
	binary := pack(t)
	for _, c := range []struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		{[]string{"--version"}, 0, "py-greeter 1.0.0\n", ""},
		{[]string{"--help"}, 0, "handler  py.greet\n", ""},
		{[]string{"describe"}, 0, `"options_schema": `, ""},
		{nil, 1, "", "a host starts it, see plugins.toml"},
		{[]string{"sing"}, 1, "", "\"sing\" is not one of its commands.\n"},
	} {
		cmd := exec.Command(binary, c.args...)
		var stdout, stderr strings.Builder
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		require.Equal(t, c.code, cmd.ProcessState.ExitCode(), "%v: %v", c.args, err)
		require.Contains(t, stdout.String(), c.stdout, c.args)
		require.Contains(t, stderr.String(), c.stderr, c.args)
		require.True(t, (c.stdout == "") == (stdout.Len() == 0) && (c.stderr == "") == (stderr.Len() == 0), c.args)
	}
}

// The generated messages must be those of the contract, whichever protoc wrote
// them.
func TestMessagesAreThoseOfTheContract(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(python, "-B", "-c", "import plugin_pb2; print(plugin_pb2.DESCRIPTOR.serialized_pb.hex())")
	cmd.Dir = "greeter/tasker_plugin/v1"
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	raw, err := hex.DecodeString(strings.TrimSpace(string(out)))
	require.NoError(t, err)
	var got descriptorpb.FileDescriptorProto
	require.NoError(t, proto.Unmarshal(raw, &got))
	want := protodesc.ToFileDescriptorProto(pluginv1.File_tasker_plugin_v1_plugin_proto)
	for _, f := range []*descriptorpb.FileDescriptorProto{&got, want} {
		f.Name, f.Options = nil, nil
		clearJSONNames(f.GetMessageType())
	}
	require.True(t, proto.Equal(want, &got), "run make gen: plugin_pb2.py is older than plugin.proto")
}

func clearJSONNames(messages []*descriptorpb.DescriptorProto) {
	for _, m := range messages {
		for _, f := range m.GetField() {
			f.JsonName = nil
		}
		clearJSONNames(m.GetNestedType())
	}
}
