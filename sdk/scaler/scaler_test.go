package scaler_test

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func observed(ages ...time.Duration) scaler.Observation {
	o := scaler.Observation{Now: noon, Target: 4}
	for _, age := range ages {
		o.Samples = append(o.Samples, scaler.Sample{At: noon.Add(-age), Span: time.Second})
	}
	return o
}

func TestWithin(t *testing.T) {
	t.Parallel()
	o := observed(time.Minute, 10*time.Second, time.Second)
	require.Len(t, o.Within(time.Hour), 3)
	require.Equal(t, o.Samples[1:], o.Within(10*time.Second), "the edge belongs to it")
	require.Empty(t, o.Within(time.Millisecond))
	require.Empty(t, observed().Within(time.Hour))
}

func TestLast(t *testing.T) {
	t.Parallel()
	last, ok := observed(time.Minute, time.Second).Last()
	require.True(t, ok)
	require.Equal(t, noon.Add(-time.Second), last.At)
	_, ok = observed().Last()
	require.False(t, ok)
}

func TestRate(t *testing.T) {
	t.Parallel()
	require.InDelta(t, 6.0, scaler.Sample{Span: 500 * time.Millisecond}.Rate(3), 1e-9)
}

func TestHold(t *testing.T) {
	t.Parallel()
	d := scaler.Hold(observed(), "no data")
	require.NoError(t, d.Check())
	require.Equal(t, scaler.Decision{Target: 4, Reason: "no data"}, d)
}

func TestCheckDecision(t *testing.T) {
	t.Parallel()
	for want, d := range map[string]scaler.Decision{
		"the target is -1":       {Target: -1, Reason: "r"},
		"the confidence is NaN":  {Confidence: math.NaN(), Reason: "r"},
		"the confidence is +Inf": {Confidence: math.Inf(1), Reason: "r"},
		"the confidence is 1.5":  {Confidence: 1.5, Reason: "r"},
		"the confidence is -0.1": {Confidence: -0.1, Reason: "r"},
		"there is no reason":     {Confidence: 1},
		"1025 bytes":             {Reason: strings.Repeat("x", 1025)},
		"not valid UTF-8":        {Reason: "\xff"},
	} {
		require.ErrorContains(t, d.Check(), want)
	}
	require.NoError(t, scaler.Decision{Target: 0, Confidence: 1, Reason: strings.Repeat("x", 1024)}.Check())
}

// An algorithm and its observation cost next to nothing in a simulation.
func BenchmarkDecide(b *testing.B) {
	s := scaler.Func(func(_ context.Context, o scaler.Observation) (scaler.Decision, error) {
		last, _ := o.Last()
		return scaler.Decision{Target: int(last.QueueDepth), Reason: "as many as wait", Confidence: 1}, nil
	})
	o := observed(time.Minute, time.Second)
	b.ReportAllocs()
	for b.Loop() {
		if d, err := s.Decide(b.Context(), o); err != nil || d.Check() != nil {
			b.Fatal(d, err)
		}
	}
}
