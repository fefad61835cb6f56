package wire

import (
	"math"
	"time"

	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// EncodeObservation returns the message of an observation. Values that do not
// fit become the nearest ones that do.
func EncodeObservation(o scaler.Observation) *pluginv1.Observation {
	m := &pluginv1.Observation{
		Pool: o.Pool, Kind: o.Kind, Namespace: o.Namespace, State: o.State,
		NowUs: unixMicros(o.Now), ChangedAtUs: unixMicros(o.ChangedAt),
		Current: count32(o.Current), Target: count32(o.Target), Min: count32(o.Min), Max: count32(o.Max),
		BudgetLeft: int32(max(-1, min(o.BudgetLeft, math.MaxInt32))),
		Samples:    make([]*pluginv1.Sample, len(o.Samples)),
	}
	for i, s := range o.Samples {
		m.Samples[i] = &pluginv1.Sample{
			AtUs: unixMicros(s.At), SpanUs: micros(s.Span), Size: count32(s.Size),
			Arrivals: count64(s.Arrivals), Completions: count64(s.Completions), Errors: count64(s.Errors),
			QueueDepth: count64(s.QueueDepth), OldestAgeUs: micros(s.OldestAge),
			LatencyP50Us: micros(s.LatencyP50), LatencyP95Us: micros(s.LatencyP95), LatencyP99Us: micros(s.LatencyP99),
			Utilization: s.Utilization,
		}
	}
	return m
}

// DecodeObservation is the reverse of [EncodeObservation].
func DecodeObservation(m *pluginv1.Observation) scaler.Observation {
	o := scaler.Observation{
		Pool: m.GetPool(), Kind: m.GetKind(), Namespace: m.GetNamespace(), State: m.GetState(),
		Now: fromUnixMicros(m.GetNowUs()), ChangedAt: fromUnixMicros(m.GetChangedAtUs()),
		Current: int(m.GetCurrent()), Target: int(m.GetTarget()), Min: int(m.GetMin()), Max: int(m.GetMax()),
		BudgetLeft: int(m.GetBudgetLeft()),
		Samples:    make([]scaler.Sample, len(m.GetSamples())),
	}
	for i, s := range m.GetSamples() {
		o.Samples[i] = scaler.Sample{
			At: fromUnixMicros(s.GetAtUs()), Span: duration(s.GetSpanUs()), Size: int(s.GetSize()),
			Arrivals: fromCount(s.GetArrivals()), Completions: fromCount(s.GetCompletions()), Errors: fromCount(s.GetErrors()),
			QueueDepth: fromCount(s.GetQueueDepth()), OldestAge: duration(s.GetOldestAgeUs()),
			LatencyP50: duration(s.GetLatencyP50Us()), LatencyP95: duration(s.GetLatencyP95Us()), LatencyP99: duration(s.GetLatencyP99Us()),
			Utilization: s.GetUtilization(),
		}
	}
	return o
}

// DecodeDecision returns the decision of a message that has no error.
func DecodeDecision(m *pluginv1.Decision) scaler.Decision {
	return scaler.Decision{Target: int(m.GetTarget()), Reason: m.GetReason(), Confidence: m.GetConfidence()}
}

// A zero time is 0 on the wire.
func unixMicros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromUnixMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

func micros(d time.Duration) uint64 { return uint64(max(0, d.Microseconds())) }

func duration(us uint64) time.Duration {
	return time.Duration(min(us, uint64(math.MaxInt64/int64(time.Microsecond)))) * time.Microsecond
}

func count32(n int) uint32 { return uint32(max(0, min(n, math.MaxInt32))) }

func count64(n int64) uint64 { return uint64(max(0, n)) }

func fromCount(n uint64) int64 { return int64(min(n, math.MaxInt64)) }
