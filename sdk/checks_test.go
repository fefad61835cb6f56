package sdk_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/health"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// disk is a checker with the given results, or a healthy one.
type disk struct{ results []health.Check }

func (d disk) Check(context.Context) ([]health.Check, error) {
	if d.results == nil {
		return []health.Check{{Name: "disk", Status: health.Healthy, Data: map[string]any{"free": 0.5}}}, nil
	}
	return d.results, nil
}

// book is a reporter that records its events.
type book struct {
	events []health.Event
	err    error
}

func (b *book) Report(_ context.Context, events []health.Event) error {
	if b.err == nil {
		b.events = append(b.events, events...)
	}
	return b.err
}

func check(t *testing.T, client *wire.Client, name string) *pluginv1.CheckResponse {
	t.Helper()
	answer, err := client.Health.Check(t.Context(), &pluginv1.CheckRequest{Name: name})
	require.NoError(t, err)
	return answer
}

func TestCheck(t *testing.T) {
	t.Parallel()
	many := make([]health.Check, 101)
	for i := range many {
		many[i] = health.Check{Name: strconv.Itoa(i), Status: health.Healthy}
	}
	client := serve(t, sdk.Health("p", "1.0.0", map[string]health.Service{
		"disk": {Checker: disk{}},
		"mixed": {Checker: disk{[]health.Check{
			{Name: "good", Status: health.Degraded, Message: "nearly full"},
			{Name: "", Status: health.Healthy},
			{Name: "odd", Status: "splendid", Message: "m"},
			{Name: "data", Status: health.Healthy, Data: map[string]any{"x": math.Inf(1)}},
		}}},
		"twice": {Checker: disk{[]health.Check{{Name: "a", Status: health.Healthy}, {Name: "a", Status: health.Healthy}}}},
		"many":  {Checker: disk{many}},
		"panic": {Checker: health.CheckFunc(func(context.Context) ([]health.Check, error) { panic("boom") })},
		"error": {Checker: health.CheckFunc(func(context.Context) ([]health.Check, error) { return nil, errors.New("no such device") })},
		"book":  {Reporter: &book{}},
	}, sdk.Logger(hclog.NewNullLogger())))

	good := check(t, client, "disk").GetResults()
	require.Len(t, good, 1)
	require.Equal(t, pluginv1.CheckResult_STATUS_HEALTHY, good[0].GetStatus())
	require.JSONEq(t, `{"free": 0.5}`, string(good[0].GetData()))

	var mixed []string
	for _, r := range check(t, client, "mixed").GetResults() {
		mixed = append(mixed, fmt.Sprint(r.GetName(), " ", r.GetStatus(), " ", r.GetMessage()))
	}
	require.Equal(t, []string{
		"good STATUS_DEGRADED nearly full",
		"unnamed:2 STATUS_UNKNOWN the result is not usable: the check has no name",
		`odd STATUS_UNKNOWN the result is not usable: the status is "splendid": want healthy, degraded, unhealthy or unknown`,
		"data STATUS_UNKNOWN the result is not usable: the data is not JSON: json: unsupported value: +Inf",
	}, mixed)

	require.Equal(t, `two results are named "a"`, check(t, client, "twice").GetError())
	require.Equal(t, "the check has 101 results: want at most 100", check(t, client, "many").GetError())
	require.Equal(t, "panic: boom", check(t, client, "panic").GetError())
	require.Equal(t, "no such device", check(t, client, "error").GetError())
	for _, name := range []string{"book", "nobody"} {
		_, err := client.Health.Check(t.Context(), &pluginv1.CheckRequest{Name: name})
		require.Equal(t, codes.NotFound, status.Code(err), name)
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	taken, busy := &book{}, &book{err: errors.New("try later")}
	client := serve(t, sdk.Health("p", "1.0.0", map[string]health.Service{
		"book": {Reporter: taken},
		"busy": {Reporter: busy},
		"picky": {Reporter: health.ReportFunc(func(context.Context, []health.Event) error {
			return fmt.Errorf("not my department: %w", health.ErrRejected)
		})},
		"panic": {Reporter: health.ReportFunc(func(context.Context, []health.Event) error { panic("boom") })},
		"disk":  {Checker: disk{}},
	}, sdk.Logger(hclog.NewNullLogger())))
	event := health.Event{ID: "1", Kind: "from the future", Subject: "s", Time: time.UnixMicro(1).UTC()}
	report := func(name string) *pluginv1.ReportResponse {
		t.Helper()
		answer, err := client.Health.Report(t.Context(), &pluginv1.ReportRequest{
			Name: name, Events: []*pluginv1.HealthEvent{wire.EncodeEvent(event)},
		})
		require.NoError(t, err)
		return answer
	}
	require.Empty(t, report("book").GetError())
	require.Equal(t, []health.Event{event}, taken.events)
	require.Equal(t, "try later", report("busy").GetError())
	require.False(t, report("busy").GetRejected())
	require.Equal(t, "not my department: events rejected", report("picky").GetError())
	require.True(t, report("picky").GetRejected())
	require.Equal(t, "panic: boom", report("panic").GetError())
	_, err := client.Health.Report(t.Context(), &pluginv1.ReportRequest{Name: "disk"})
	require.Equal(t, codes.NotFound, status.Code(err))

	metrics, err := client.Plugin.Collect(t.Context(), &pluginv1.CollectRequest{})
	require.NoError(t, err)
	for _, line := range []string{
		`plugin_events_total{service="book",outcome="accepted"} 1`, `plugin_events_total{service="busy",outcome="failed"} 2`,
		`plugin_events_total{service="picky",outcome="rejected"} 2`,
	} {
		require.Contains(t, string(metrics.GetMetrics()), line)
	}
}
