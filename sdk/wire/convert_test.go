package wire_test

import (
	"encoding/json"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/sdk/health"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// full fails if a field of a struct is zero, so that a new field cannot be
// forgotten here, and thus on the wire.
func full(t *testing.T, v any) {
	t.Helper()
	s := reflect.ValueOf(v)
	for i := range s.NumField() {
		require.False(t, s.Field(i).IsZero(), "%T.%s is not set", v, s.Type().Field(i).Name)
	}
}

func TestObservationKeepsAll(t *testing.T) {
	t.Parallel()
	sample := scaler.Sample{
		At: noon, Span: time.Second, Size: 1, Arrivals: 2, Completions: 3, Errors: 4, QueueDepth: 5,
		OldestAge: 6 * time.Second, LatencyP50: 7 * time.Millisecond, LatencyP95: 8 * time.Millisecond,
		LatencyP99: 9 * time.Microsecond, Utilization: 0.5,
	}
	full(t, sample)
	o := scaler.Observation{
		Pool: "p", Kind: "k", Namespace: "n", Now: noon.Add(time.Microsecond), State: "normal", Current: 1, Target: 2, Min: 3,
		Max: 4, BudgetLeft: 5, ChangedAt: noon.Add(-time.Hour), Samples: []scaler.Sample{sample, {At: noon, Span: 1}},
	}
	full(t, o)
	o.Samples[1].Span = time.Microsecond
	require.Equal(t, o, wire.DecodeObservation(wire.EncodeObservation(o)))
}

func TestObservationHasItsBounds(t *testing.T) {
	t.Parallel()
	m := wire.EncodeObservation(scaler.Observation{
		Current: -1, Max: math.MaxInt, BudgetLeft: math.MinInt,
		Samples: []scaler.Sample{{Span: -1, QueueDepth: -1, OldestAge: math.MaxInt64}},
	})
	o := wire.DecodeObservation(m)
	require.Zero(t, o.Current)
	require.Equal(t, math.MaxInt32, o.Max)
	require.Equal(t, -1, o.BudgetLeft)
	require.True(t, o.Now.IsZero())
	require.Zero(t, o.Samples[0].QueueDepth)

	m.Samples[0] = &pluginv1.Sample{OldestAgeUs: math.MaxUint64, Arrivals: math.MaxUint64}
	o = wire.DecodeObservation(m)
	require.Positive(t, o.Samples[0].OldestAge)
	require.Equal(t, int64(math.MaxInt64), o.Samples[0].Arrivals)
}

func TestEventKeepsAll(t *testing.T) {
	t.Parallel()
	e := health.Event{
		ID: "1", Kind: health.KindCheck, Severity: health.Warning, Subject: "s", From: "f", To: "t", Time: noon,
		Message: "m", Host: "h", State: "normal", Labels: map[string]string{"a": "b"},
	}
	full(t, e)
	require.Equal(t, e, wire.DecodeEvent(wire.EncodeEvent(e)))
}

func TestCheckKeepsAll(t *testing.T) {
	t.Parallel()
	for _, status := range health.Statuses {
		c := health.Check{Name: "c", Status: status, Message: "m", Data: map[string]any{"n": json.Number("340282366920938463463374607431768211456")}}
		full(t, c)
		m, err := wire.EncodeCheck(c)
		require.NoError(t, err)
		back, err := wire.DecodeCheck(m)
		require.NoError(t, err)
		require.Equal(t, c, back)
	}
}

func TestDecodeCheckRefuses(t *testing.T) {
	t.Parallel()
	const healthy = pluginv1.CheckResult_STATUS_HEALTHY
	for want, m := range map[string]*pluginv1.CheckResult{
		"STATUS_UNSPECIFIED":   {Name: "c"},
		"the status is 99":     {Name: "c", Status: 99},
		"has no name":          {Status: healthy},
		"not a JSON object":    {Name: "c", Status: healthy, Data: []byte("[1]")},
		"the data has 16385":   {Name: "c", Status: healthy, Data: make([]byte, 16<<10+1)},
		"no message says why":  {Name: "c", Status: pluginv1.CheckResult_STATUS_DEGRADED},
		"check \"c\": the mes": {Name: "c", Status: healthy, Message: string(make([]byte, 1025))},
	} {
		_, err := wire.DecodeCheck(m)
		require.ErrorContains(t, err, want)
	}
}
