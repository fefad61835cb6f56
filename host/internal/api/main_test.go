package api_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/internal/leaks"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) { leaks.Main(m) }

// httpClient speaks HTTP over a unix socket.
func httpClient(t *testing.T, socket string) *http.Client {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: time.Minute}
}

type answer struct {
	status int
	header http.Header
	body   string
	close  bool // the server hangs up afterwards
}

// call sends one request; headers alternates names and values.
func call(t *testing.T, socket, method, path, body string, headers ...string) answer {
	t.Helper()
	return callWith(t, httpClient(t, socket), method, path, body, headers...)
}

func callWith(t *testing.T, c *http.Client, method, path, body string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://tasker"+path, strings.NewReader(body))
	require.NoError(t, err)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Content-Type" {
			req.Header.Del(headers[i])
		}
		req.Header.Add(headers[i], headers[i+1])
	}
	return do(t, c, req)
}

func do(t *testing.T, c *http.Client, req *http.Request) answer {
	t.Helper()
	resp, err := c.Do(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return answer{status: resp.StatusCode, header: resp.Header, body: string(text), close: resp.Close}
}

// field reads a string from a JSON response.
func (a answer) field(t *testing.T, name string) string {
	t.Helper()
	var fields map[string]json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(a.body), &fields), a.body)
	var s string
	require.NoError(t, json.Unmarshal(fields[name], &s), "field %s of %s", name, a.body)
	return s
}

// raw writes bytes to the socket unchanged and reads one response.
func raw(t *testing.T, socket, request string) answer {
	t.Helper()
	c, err := net.Dial("unix", socket)
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
	_, _ = io.WriteString(c, request) // the server need not read to the end
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	text, _ := io.ReadAll(resp.Body) // the server may hang up without having read everything
	return answer{status: resp.StatusCode, header: resp.Header, body: string(text), close: resp.Close}
}

var requestIDs = regexp.MustCompile(`"request_id": "[^"]+"`)

// golden compares an indented JSON response with a file.
func golden(t *testing.T, name, body string) {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, json.Indent(&out, []byte(body), "", "  "), body)
	got := requestIDs.ReplaceAllString(out.String(), `"request_id": "…"`)
	compare(t, filepath.Join("testdata", name+".json"), got)
}

func compare(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "run the test with -update")
	require.Equal(t, string(want), got)
}
