package checks_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/plugins/health/internal/checks"
	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/health"
)

func TestDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for want, o := range map[health.Status]checks.DiskOptions{
		health.Healthy:   {Paths: []string{dir}},
		health.Degraded:  {Paths: []string{dir}, Degraded: 1},
		health.Unhealthy: {Paths: []string{dir}, Degraded: 1, Unhealthy: 1},
		health.Unknown:   {Paths: []string{dir + "/nowhere"}},
	} {
		d := &checks.Disk{}
		require.NoError(t, d.Configure(t.Context(), o))
		got, err := d.Check(t.Context())
		require.NoError(t, err)
		require.Len(t, got, 1)
		require.Equal(t, want, got[0].Status, got[0].Message)
		require.NoError(t, got[0].Verify())
		if want != health.Unknown {
			require.Positive(t, got[0].Data["total_bytes"])
		}
	}
}

func TestDiskRefuses(t *testing.T) {
	t.Parallel()
	for want, o := range map[string]checks.DiskOptions{
		"/paths: want":               {},
		"/paths/0: want an absolute": {Paths: []string{"var"}},
		"/paths/1: is given twice":   {Paths: []string{"/", "/"}},
		"/degraded: want":            {Paths: []string{"/"}, Degraded: 15},
		"/unhealthy: want":           {Paths: []string{"/"}, Degraded: 0.1, Unhealthy: 0.2},
	} {
		require.ErrorContains(t, (&checks.Disk{}).Configure(t.Context(), o), want)
	}
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/teapot":
			w.WriteHeader(http.StatusTeapot)
		case "/moved":
			http.Redirect(w, r, "/", http.StatusFound)
		case "/hangs":
			<-release
		}
	}))
	defer server.Close()
	defer close(release)
	h := &checks.HTTP{}
	require.NoError(t, h.Configure(t.Context(), checks.HTTPOptions{
		Timeout: sdk.Duration(5 * time.Second), Slow: sdk.Duration(time.Minute),
		Targets: []checks.Target{
			{Name: "root", URL: server.URL},
			{Name: "teapot", URL: server.URL + "/teapot"},
			{Name: "wanted", URL: server.URL + "/teapot", Status: 418},
			{Name: "moved", URL: server.URL + "/moved"},
			{Name: "hangs", URL: server.URL + "/hangs"},
			{Name: "nobody", URL: "http://me:secret@127.0.0.1:1"}, // a port that nothing listens on
		},
	}))
	got, err := h.Check(t.Context())
	require.NoError(t, err)
	var lines []string
	for _, c := range got {
		require.NoError(t, c.Verify())
		require.NotContains(t, c.Message, "secret")
		lines = append(lines, c.Name+" "+string(c.Status)+" "+c.Message)
	}
	require.Equal(t, []string{
		"http:root healthy ", "http:teapot unhealthy it answered with status 418", "http:wanted healthy ",
		"http:moved unhealthy it answered with status 302", "http:hangs unhealthy no answer in time",
	}, lines[:5])
	require.Contains(t, lines[5], "http:nobody unhealthy dial tcp")

	require.NoError(t, h.Configure(t.Context(), checks.HTTPOptions{
		Timeout: sdk.Duration(time.Minute), Slow: 1, Targets: []checks.Target{{Name: "root", URL: server.URL}},
	}))
	got, err = h.Check(t.Context())
	require.NoError(t, err)
	require.Equal(t, health.Degraded, got[0].Status)
	require.Contains(t, got[0].Message, "the answer took")
}

func TestHTTPRefuses(t *testing.T) {
	t.Parallel()
	err := (&checks.HTTP{}).Configure(t.Context(), checks.HTTPOptions{
		Targets: []checks.Target{{Name: "", URL: "ftp://x", Status: 7}},
	})
	for _, want := range []string{"/timeout:", "/targets/0/name:", "/targets/0/url:", "/targets/0/status:"} {
		require.ErrorContains(t, err, want)
	}
	require.ErrorContains(t, (&checks.HTTP{}).Configure(t.Context(), checks.HTTPDefaults), "/targets: want")
}
