package reports_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/plugins/health/internal/reports"
	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/health"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func degraded(id string, severity health.Severity) health.Event {
	return health.Event{
		ID: id, Kind: health.KindCheck, Severity: severity, Subject: `disk:/"var"`, From: "healthy", To: "degraded",
		Time: noon, Message: "nearly full", Host: "h1", State: "normal", Labels: map[string]string{"a": "b"},
	}
}

// receiver answers with the given statuses, repeating the last one, and
// remembers the last request.
type receiver struct {
	*httptest.Server
	statuses  []int
	requests  atomic.Int32
	body      []byte
	signature string
	at        string
}

func newReceiver(t *testing.T, statuses ...int) *receiver {
	t.Helper()
	r := &receiver{statuses: statuses}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		n := int(r.requests.Add(1)) - 1
		r.body, _ = io.ReadAll(req.Body)
		r.signature, r.at = req.Header.Get(reports.HeaderSignature), req.Header.Get(reports.HeaderTime)
		w.WriteHeader(r.statuses[min(n, len(r.statuses)-1)])
	}))
	t.Cleanup(r.Close)
	return r
}

func webhook(t *testing.T, r *receiver, change func(*reports.WebhookOptions)) *reports.Webhook {
	t.Helper()
	w := reports.NewWebhook()
	w.Now = func() time.Time { return noon }
	w.Getenv = func(name string) string { return map[string]string{"HOOK_SECRET": "sesame"}[name] }
	o := reports.WebhookDefaults
	o.URL, o.Wait = r.URL, sdk.Duration(time.Millisecond)
	change(&o)
	require.NoError(t, w.Configure(t.Context(), o))
	return w
}

func TestWebhookPostsAndSigns(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, http.StatusAccepted)
	w := webhook(t, r, func(o *reports.WebhookOptions) { o.SecretEnv, o.Severity = "HOOK_SECRET", health.Warning })
	require.NoError(t, w.Report(t.Context(), []health.Event{degraded("1", health.Info), degraded("2", health.Critical), degraded("3", "new")}))
	var got struct{ Events []map[string]any }
	require.NoError(t, json.Unmarshal(r.body, &got))
	require.Len(t, got.Events, 2, "less severe events are left out, those of unknown severity are not")
	require.Equal(t, map[string]any{
		"id": "2", "kind": "check", "severity": "critical", "subject": `disk:/"var"`, "from": "healthy", "to": "degraded",
		"time": "2026-05-01T12:00:00Z", "message": "nearly full", "host": "h1", "state": "normal", "labels": map[string]any{"a": "b"},
	}, got.Events[0])
	require.Equal(t, "1777636800", r.at)
	require.Equal(t, "sha256="+reports.Sign([]byte("sesame"), r.at, r.body), r.signature)
	require.NotEqual(t, "sha256="+reports.Sign([]byte("mellon"), r.at, r.body), r.signature)

	require.NoError(t, w.Report(t.Context(), []health.Event{degraded("4", health.Info)}))
	require.Equal(t, int32(1), r.requests.Load(), "nothing to report, so nothing is posted")
}

func TestWebhookTriesAgain(t *testing.T) {
	t.Parallel()
	unsigned := func(*reports.WebhookOptions) {}
	r := newReceiver(t, 503, 429, 200)
	require.NoError(t, webhook(t, r, unsigned).Report(t.Context(), []health.Event{degraded("1", health.Info)}))
	require.Equal(t, int32(3), r.requests.Load())
	require.Empty(t, r.signature)

	r = newReceiver(t, 500)
	err := webhook(t, r, unsigned).Report(t.Context(), []health.Event{degraded("1", health.Info)})
	require.ErrorContains(t, err, "status 500")
	require.NotErrorIs(t, err, health.ErrRejected)
	require.Equal(t, int32(3), r.requests.Load())

	r = newReceiver(t, 400)
	err = webhook(t, r, unsigned).Report(t.Context(), []health.Event{degraded("1", health.Info)})
	require.ErrorIs(t, err, health.ErrRejected)
	require.Equal(t, int32(1), r.requests.Load(), "what is refused is not retried")

	r = newReceiver(t, 500)
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	patient := webhook(t, r, func(o *reports.WebhookOptions) { o.Wait = sdk.Duration(time.Hour) })
	require.ErrorIs(t, patient.Report(short, []health.Event{degraded("1", health.Info)}), context.DeadlineExceeded)
}

func TestWebhookRefuses(t *testing.T) {
	t.Parallel()
	w := reports.NewWebhook()
	w.Getenv = func(string) string { return "" }
	err := w.Configure(t.Context(), reports.WebhookOptions{URL: "example.com", SecretEnv: "HOOK_SECRET", Severity: "loud", Tries: 99})
	for _, want := range []string{"/url:", "/severity:", "/timeout:", "/tries:", "/secret_env: the variable HOOK_SECRET is not set"} {
		require.ErrorContains(t, err, want)
	}
}

func TestTextfile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tasker.prom")
	f := &reports.Textfile{}
	require.NoError(t, f.Configure(t.Context(), reports.TextfileOptions{Path: path}))
	require.NoError(t, f.Report(t.Context(), []health.Event{degraded("1", health.Warning), degraded("2", health.Info)}))
	require.NoError(t, f.Report(t.Context(), []health.Event{
		degraded("2", health.Info), // again
		{ID: "3", Kind: "eclipse", Severity: "dark"},
	}))
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, `# HELP tasker_health_events_total Events of the host since the reporter started.
# TYPE tasker_health_events_total counter
tasker_health_events_total{kind="check",severity="info"} 1
tasker_health_events_total{kind="check",severity="warning"} 1
tasker_health_events_total{kind="other",severity="other"} 1
# HELP tasker_health_check_status The latest status of a check.
# TYPE tasker_health_check_status gauge
tasker_health_check_status{check="disk:/\"var\"",status="degraded"} 1
`, string(text))
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, left, 1, "no temporary file is left")

	require.NoError(t, os.RemoveAll(filepath.Dir(path)))
	require.ErrorContains(t, f.Report(t.Context(), []health.Event{degraded("4", health.Info)}), "no such file or directory")
	require.ErrorContains(t, f.Configure(t.Context(), reports.TextfileOptions{Path: path}), "/path:")
	require.ErrorContains(t, f.Configure(t.Context(), reports.TextfileOptions{Path: "x.prom"}), "want an absolute path")
}
