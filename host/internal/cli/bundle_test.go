package cli_test

import (
	"bytes"
	"flag"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/api/apitest"
	"github.com/tasker-systems/tasker-host/host/internal/cli"
	"github.com/tasker-systems/tasker-host/internal/leaks"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) { leaks.Main(m) }

// bundle is a host with a fake backend and a way to run commands against it.
type bundle struct {
	*apitest.Backend
	socket   string
	runtime  cli.Runtime
	terminal bool
	env      map[string]string
	input    string
}

func setup(t *testing.T) *bundle {
	t.Helper()
	b := apitest.New()
	return &bundle{Backend: b, socket: apitest.Serve(t, b.All()), env: map[string]string{}, runtime: cli.Runtime{OpenAPI: api.OpenAPI}}
}

type result struct {
	code     int
	out, err string
}

// buffer is written by several goroutines.
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

func (b *bundle) streams(out, errs io.Writer) cli.Streams {
	return cli.Streams{
		In: strings.NewReader(b.input), Out: out, Err: errs, Terminal: b.terminal,
		Getenv: func(key string) string { return b.env[key] },
		Now:    func() time.Time { return apitest.Epoch.Add(time.Minute) },
	}
}

func (b *bundle) run(t *testing.T, args ...string) result {
	t.Helper()
	b.env["TASKER_SOCKET"] = b.socket
	var out, errs buffer
	code := cli.Run(t.Context(), b.runtime, b.streams(&out, &errs), nil, args)
	return result{code: code, out: out.String(), err: errs.String()}
}

// golden compares everything a command printed with a file.
func (b *bundle) golden(t *testing.T, name string, r result) {
	t.Helper()
	got := r.out
	if r.err != "" {
		got += "--- standard error\n" + r.err
	}
	got = strings.ReplaceAll(got, b.socket, "SOCKET")
	me, err := user.Current()
	require.NoError(t, err)
	got = strings.ReplaceAll(got, "local:"+me.Username, "local:somebody")
	path := filepath.Join("testdata", name+".txt")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "run the test with -update")
	require.Equal(t, string(want), got)
}

const (
	linear  = "linear_workflow/mathematical_sequence"
	first   = "019ca9d2-7c00-7000-8000-000100000000"
	second  = "019ca9d2-7c00-7000-8000-000200000000"
	unknown = "019ca9d2-7c00-7000-8000-000900000000"
)
