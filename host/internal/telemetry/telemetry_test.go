package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

func TestJSONLog(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	root, err := NewLogger(LogOptions{Level: "info", Format: "json", Output: &out})
	require.NoError(t, err)
	log := root.Named("pipeline")
	log.Debug("not shown")
	log.Info("step settled", "task", "t1", "attempt", 2)

	var line map[string]any
	require.NoError(t, json.Unmarshal(out.Bytes(), &line), out.String())
	require.Equal(t, "tasker.pipeline", line["@module"])
	require.Equal(t, "step settled", line["@message"])
	require.Equal(t, "t1", line["task"])
	require.EqualValues(t, 2, line["attempt"])
	at, err := time.Parse(time.RFC3339Nano, line["@timestamp"].(string))
	require.NoError(t, err)
	require.Equal(t, time.UTC, at.Location())
}

func TestConsoleLog(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log, err := NewLogger(LogOptions{Level: "debug", Format: "console", Output: &out})
	require.NoError(t, err)
	log.Named("sweep").Debug("requeued", "steps", 3)
	require.Regexp(t, `^\d{4}-\d\d-\d\dT[0-9:.]+Z \[DEBUG\] tasker\.sweep: requeued: steps=3\n$`, out.String())
}

func TestWrongLogOptions(t *testing.T) {
	t.Parallel()
	_, err := NewLogger(LogOptions{Level: "loud", Format: "json"})
	require.EqualError(t, err, `log level "loud" is not one of trace, debug, info, warn, error`)
	_, err = NewLogger(LogOptions{Level: "info", Format: "xml"})
	require.EqualError(t, err, `log format "xml" is not json or console`)
}

func scrape(registry *prometheus.Registry, log hclog.Logger) string {
	rec := httptest.NewRecorder()
	Handler(registry, log).ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	return rec.Body.String()
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	registry := NewRegistry(Build{Version: "v1.2.3", Revision: "abc", Go: "go1"})
	body := scrape(registry, hclog.NewNullLogger())
	require.Contains(t, body, `tasker_build_info{go="go1",revision="abc",version="v1.2.3"} 1`)
	require.Contains(t, body, "go_goroutines ")
	if runtime.GOOS == "linux" {
		require.Contains(t, body, "process_open_fds ")
	}
	NewRegistry(Build{}) // registries share nothing
}

// broken is a collector that fails.
type broken struct{ desc *prometheus.Desc }

func (b broken) Describe(c chan<- *prometheus.Desc) { c <- b.desc }
func (b broken) Collect(c chan<- prometheus.Metric) {
	c <- prometheus.NewInvalidMetric(b.desc, errors.New("no such file"))
}

func TestABrokenCollectorSpoilsNothingElse(t *testing.T) {
	t.Parallel()
	registry := NewRegistry(Build{Version: "v1"})
	registry.MustRegister(broken{prometheus.NewDesc("tasker_broken", "For this test.", nil, nil)})
	var out bytes.Buffer
	log, err := NewLogger(LogOptions{Level: "info", Format: "console", Output: &out})
	require.NoError(t, err)
	require.Contains(t, scrape(registry, log), "tasker_build_info")
	require.Contains(t, out.String(), "no such file")
}

func TestBuild(t *testing.T) {
	t.Parallel()
	require.Equal(t, runtime.Version(), ThisBuild().Go)
	b := buildOf(&debug.BuildInfo{GoVersion: "go1.26", Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.time", Value: "2026-01-02T03:04:05Z"}, {Key: "vcs.modified", Value: "true"},
	}})
	require.Equal(t, "(devel) abc+changes 2026-01-02T03:04:05Z go1.26", b.String())
	require.Equal(t, "v1", Build{Version: "v1"}.String())
}
