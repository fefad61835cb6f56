package tracing

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/internal/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// traces returns traces to a collector that responds with a status.
func traces(t *testing.T, status *atomic.Int32, log hclog.Logger) (*Traces, *prometheus.Registry) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) }))
	t.Cleanup(server.Close)
	reg := prometheus.NewRegistry()
	tr, err := New(t.Context(), Config{Endpoint: server.URL + "/", SampleRatio: 1}, reg, log)
	require.NoError(t, err)
	return tr, reg
}

func TestCollectorThatFailsCostsSpansAndSaysSoOnce(t *testing.T) {
	t.Parallel()
	var status atomic.Int32
	status.Store(http.StatusInternalServerError)
	var out strings.Builder
	tr, reg := traces(t, &status, hclog.New(&hclog.LoggerOptions{Output: &out}))
	span := func() {
		_, s := tr.Tracer().Start(context.Background(), "x")
		s.End()
		require.NoError(t, tr.provider.ForceFlush(t.Context()))
	}
	span()
	span()
	status.Store(http.StatusOK)
	span()
	require.NoError(t, tr.Stop(t.Context()))
	require.Equal(t, 1, strings.Count(out.String(), "traces cannot be sent"), out.String())
	require.Equal(t, 1, strings.Count(out.String(), "traces are sent again"), out.String())
	families, err := reg.Gather()
	require.NoError(t, err)
	counts := map[string]float64{}
	for _, m := range families[0].GetMetric() {
		counts[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
	}
	require.Equal(t, map[string]float64{"sent": 1, "failed": 2}, counts)
}

func TestRatioDecidesAndCanChange(t *testing.T) {
	t.Parallel()
	var status atomic.Int32
	status.Store(http.StatusOK)
	tr, _ := traces(t, &status, hclog.NewNullLogger())
	sampled := func() (n int) {
		for range 1000 {
			_, s := tr.Tracer().Start(context.Background(), "x")
			if s.SpanContext().IsSampled() {
				n++
			}
			s.End()
		}
		return n
	}
	require.Equal(t, 1000, sampled())
	tr.Sample(0.2)
	require.InDelta(t, 200, sampled(), 100)
	tr.Sample(0)
	require.Zero(t, sampled())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, tr.Stop(ctx))
}
