package process

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/internal/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// sink returns a log sink and what it writes.
func sink(limits LogLimits, dropped func(int)) (*logSink, *bytes.Buffer) {
	var out bytes.Buffer
	log := hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: &out, DisableTime: true})
	return newLogSink(log, limits, dropped), &out
}

func TestLogLines(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ in, want string }{
		{"plain\n", "[DEBUG] plain: stream=s\n"},
		{"[WARN] careful\n", "[WARN]  careful: stream=s\n"},
		{"[nonsense] x\n", "[DEBUG] [nonsense] x: stream=s\n"},
		{`{"@level":"error","@message":"no luck","@timestamp":"x","n":12345678901234567890,"a":"b"}` + "\n", "[ERROR] no luck: a=b n=12345678901234567890\n"},
		{`{"@message":"no level"}` + "\n", "[INFO]  no level\n"},
		{`{"other":"json"}` + "\n", "[DEBUG] {\"other\":\"json\"}: stream=s\n"},
		{"{broken\n", "[DEBUG] {broken: stream=s\n"},
		{"panic: oh no\n\ngoroutine 1\n", "[ERROR] panic: oh no: stream=s\n[ERROR] goroutine 1: stream=s\n"},
		{"a\xffb\r\n\n", "[DEBUG] a�b: stream=s\n"},
		{"\x1b[2Jgone\x07\n", "[DEBUG] �[2Jgone�: stream=s\n"},
		{`{"@message":"\u001b[31mred"}` + "\n", "[INFO]  �[31mred\n"},
		{"no newline", "[DEBUG] no newline: stream=s\n"},
	} {
		s, out := sink(LogLimits{}, nil)
		s.stream("s", true).readFrom(bufio.NewReaderSize(strings.NewReader(tc.in), maxLogLine))
		require.Equal(t, tc.want, out.String(), "%q", tc.in)
		if !strings.HasSuffix(tc.in, "\n") {
			continue
		}
		s, out = sink(LogLimits{}, nil)
		w := s.stream("s", true)
		for i := range len(tc.in) { // byte by byte
			_, err := w.Write([]byte{tc.in[i]})
			require.NoError(t, err)
		}
		require.Equal(t, tc.want, out.String(), "%q", tc.in)
	}
}

// What a plugin logs as JSON becomes one line, marked with its plugin and
// generation, and cannot manipulate a terminal.
func TestForgedLogLines(t *testing.T) {
	t.Parallel()
	const line = `{"@level":"info","@message":"hello\n2026-01-01T00:00:00Z [ERROR] tasker: the database is gone",` +
		`"plugin":"other","generation":99,"x\n[ERROR] tasker":1,"a b=c generation":2,"list":["\u001b[2J"],"map":{"\u009bk":"\u001b[2Jv"},"honest":1}`
	for _, asJSON := range []bool{false, true} {
		var out bytes.Buffer
		log := hclog.New(&hclog.LoggerOptions{Output: &out, DisableTime: true, JSONFormat: asJSON})
		s := newLogSink(log.With("plugin", "honest", "generation", 7), LogLimits{}, nil)
		s.stream("s", true).readFrom(bufio.NewReaderSize(strings.NewReader(line+"\n"), maxLogLine))
		text := out.String()
		require.Equal(t, 1, strings.Count(text, "\n"), "%q", text)
		require.NotContains(t, text, "\x1b")
		require.NotContains(t, text, "\u009b")
		if !asJSON {
			require.Contains(t, text, ": generation=7 plugin=honest ")
			require.Equal(t, 1, strings.Count(text, " generation="), "%q", text)
			continue
		}
		var told map[string]any
		require.NoError(t, json.Unmarshal(out.Bytes(), &told))
		require.Equal(t, "honest", told["plugin"])
		require.EqualValues(t, 7, told["generation"])
		require.Equal(t, "other", told["own_plugin"])
		require.EqualValues(t, 99, told["own_generation"])
		require.Equal(t, []any{"\ufffd[2J"}, told["list"])
		require.Contains(t, told, "honest")
	}
}

func TestLongLinesAreCut(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100_000)
	s, out := sink(LogLimits{}, nil)
	s.stream("s", true).readFrom(bufio.NewReaderSize(strings.NewReader(long+"\nnext\n"), maxLogLine))
	require.Equal(t, 2, strings.Count(out.String(), "\n"))
	require.Contains(t, out.String(), "next")
	require.Less(t, out.Len(), 2*maxLogLine)

	s, out = sink(LogLimits{}, nil)
	_, err := fmt.Fprintf(s.stream("s", true), "%s%s\nnext\n", long, long)
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(out.String(), "\n"))
	require.Less(t, out.Len(), 2*maxLogLine)
}

func TestLogLimits(t *testing.T) {
	t.Parallel()
	lost := 0
	s, out := sink(LogLimits{LinesPerSecond: 10, BytesPerSecond: 1000}, func(n int) { lost += n })
	w := s.stream("s", true)
	for i := range 1000 {
		_, err := fmt.Fprintf(w, "line %d\n", i)
		require.NoError(t, err)
	}
	logged := strings.Count(out.String(), "\n")
	require.Less(t, logged, 100)
	require.GreaterOrEqual(t, logged+lost, 1000)
	require.True(t, strings.HasSuffix(s.stderrTail(), "line 998\nline 999\n"), "the tail includes dropped lines")
	require.LessOrEqual(t, len(s.stderrTail()), tailBytes)

	s, _ = sink(LogLimits{LinesPerSecond: 1000, BytesPerSecond: 100}, func(n int) { lost = n })
	s.line("s", bytes.Repeat([]byte("y"), 101), false)
	require.Equal(t, 1, lost)
}

func TestRunDir(t *testing.T) {
	t.Parallel()
	parent, err := os.MkdirTemp("/tmp", "rd")
	require.NoError(t, err)
	defer os.RemoveAll(parent)
	d, err := NewRunDir(parent)
	require.NoError(t, err)
	info, err := os.Stat(d.Path())
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())

	// What a killed host left is removed; what a live one uses, or what is new, is
	// not.
	past := time.Now().Add(-time.Hour)
	left := filepath.Join(parent, runDirPrefix+"left")
	require.NoError(t, os.MkdirAll(filepath.Join(left, "plugin-dir1"), 0o700))
	fresh := filepath.Join(parent, runDirPrefix+"fresh")
	require.NoError(t, os.Mkdir(fresh, 0o700))
	later := time.Now().Add(time.Hour) // it stays new, however slow this test is
	require.NoError(t, os.Chtimes(fresh, later, later))
	for _, dir := range []string{left, d.Path()} {
		require.NoError(t, os.Chtimes(dir, past, past))
	}
	other, err := NewRunDir(parent)
	require.NoError(t, err)
	require.NoDirExists(t, left)
	require.DirExists(t, fresh)
	require.DirExists(t, d.Path())
	require.NoError(t, d.Remove())
	require.NoError(t, other.Remove())
	require.NoDirExists(t, d.Path())

	_, err = NewRunDir("/tmp/" + strings.Repeat("long", 20))
	require.ErrorContains(t, err, "too long for the path of a socket")
}

func TestExitInWords(t *testing.T) {
	t.Parallel()
	require.Equal(t, "exit code 3", Exit{Code: 3}.String())
	require.Equal(t, "killed by signal 9, not by the host: out of memory?", Exit{Code: -1, Signal: syscall.SIGKILL}.String())
	require.Equal(t, "ended by signal 9 (killed)", Exit{Code: -1, Signal: syscall.SIGKILL, Asked: true}.String())
	require.Equal(t, "ended by signal 11 (segmentation fault)", Exit{Code: -1, Signal: syscall.SIGSEGV}.String())
}

// Right after a process has ended, it is known how, although its output is still
// being read.
func TestAnEndIsKnownWhileTheOutputIsRead(t *testing.T) {
	t.Parallel()
	l := NewLauncher()
	defer l.Close()
	sink, _ := sink(LogLimits{}, nil)
	r := newRunner(Config{Name: "p", Path: "/bin/sh", Args: []string{"-c", leavesItsOutput}, Log: sink.log, MaxFiles: 64}, l)
	r.dir = t.TempDir()
	require.NoError(t, r.Start(t.Context()))
	<-r.gone
	p := &Process{runner: r}
	require.True(t, p.Ended())
	require.Equal(t, "exit code 7", p.Exit().String())
}

// leavesItsOutput ends when a child in a session of its own holds its stderr open.
const leavesItsOutput = `_=$(setsid sh -c 'echo up; exec sleep 3 >&2' &); exit 7`

func TestLauncherCloses(t *testing.T) {
	t.Parallel()
	l := NewLauncher()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				p, err := l.start("/bin/true", []string{"true"}, &os.ProcAttr{})
				if err != nil {
					if !errors.Is(err, errLauncherClosed) {
						t.Errorf("start: %v", err)
					}
					return
				}
				_, _ = p.Wait()
			}
		})
	}
	l.Close()
	l.Close()
	wg.Wait()
}
