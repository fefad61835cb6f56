package sdk

import (
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// bounds are the upper bounds of the buckets of step durations, in
// microseconds.
var bounds = [...]int64{100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 60_000_000}

// stats counts what one handler did, at the cost of a few atomic operations.
type stats struct {
	success, retryable, permanent, cancelled atomic.Int64

	panics  atomic.Int64
	bytes   atomic.Int64 // of results
	micros  atomic.Int64 // spent in the handler
	buckets [len(bounds) + 1]atomic.Int64
}

func (s *stats) count(o *pluginv1.Outcome, took time.Duration) {
	f := o.GetFailure()
	switch {
	case f == nil:
		s.success.Add(1)
		s.bytes.Add(int64(len(o.GetResult())))
	case wire.HandsBack(f):
		s.cancelled.Add(1)
	case f.GetRetryable():
		s.retryable.Add(1)
	default:
		s.permanent.Add(1)
	}
	micros := took.Microseconds()
	s.micros.Add(micros)
	i := 0
	for i < len(bounds) && micros > bounds[i] {
		i++
	}
	s.buckets[i].Add(1)
}

// collect writes the counters in the Prometheus text format. The names of
// handlers need no escaping: their alphabet has no quotes.
func (s *steps) collect(w io.Writer) {
	names := slices.Sorted(maps.Keys(s.table))
	family(w, "plugin_steps_in_flight", "gauge", "Steps accepted whose outcome has not been sent.")
	fmt.Fprintf(w, "plugin_steps_in_flight %d\n", s.open.Load())

	family(w, "plugin_steps_total", "counter", "Attempts that ended, by outcome.")
	for _, name := range names {
		st := &s.table[name].stats
		for _, o := range []struct {
			outcome vocab.Outcome
			n       *atomic.Int64
		}{
			{vocab.OutcomeSuccess, &st.success},
			{vocab.OutcomeRetryable, &st.retryable},
			{vocab.OutcomePermanent, &st.permanent},
			{vocab.OutcomeReleased, &st.cancelled},
		} {
			fmt.Fprintf(w, "plugin_steps_total{handler=%q,outcome=%q} %d\n", name, o.outcome, o.n.Load())
		}
	}
	family(w, "plugin_step_panics_total", "counter", "Panics caught in handlers.")
	for _, name := range names {
		fmt.Fprintf(w, "plugin_step_panics_total{handler=%q} %d\n", name, s.table[name].stats.panics.Load())
	}
	family(w, "plugin_step_result_bytes_total", "counter", "Size of the results of successful attempts.")
	for _, name := range names {
		fmt.Fprintf(w, "plugin_step_result_bytes_total{handler=%q} %d\n", name, s.table[name].stats.bytes.Load())
	}
	family(w, "plugin_step_seconds", "histogram", "Time spent in the handler.")
	for _, name := range names {
		s.table[name].stats.histogram(w, name)
	}
}

func (s *stats) histogram(w io.Writer, name string) {
	total := int64(0)
	for i, bound := range bounds {
		total += s.buckets[i].Load()
		fmt.Fprintf(w, "plugin_step_seconds_bucket{handler=%q,le=\"%g\"} %d\n", name, float64(bound)/1e6, total)
	}
	total += s.buckets[len(bounds)].Load()
	fmt.Fprintf(w, "plugin_step_seconds_bucket{handler=%q,le=\"+Inf\"} %d\n", name, total)
	fmt.Fprintf(w, "plugin_step_seconds_sum{handler=%q} %g\n", name, float64(s.micros.Load())/1e6)
	fmt.Fprintf(w, "plugin_step_seconds_count{handler=%q} %d\n", name, total)
}

// collectProcess writes the most telling metrics of a Go process.
func collectProcess(w io.Writer) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	family(w, "plugin_goroutines", "gauge", "Goroutines.")
	fmt.Fprintf(w, "plugin_goroutines %d\n", runtime.NumGoroutine())
	family(w, "plugin_heap_bytes", "gauge", "Memory of live and not yet collected objects.")
	fmt.Fprintf(w, "plugin_heap_bytes %d\n", m.HeapAlloc)
	family(w, "plugin_allocated_bytes_total", "counter", "Memory allocated since the start.")
	fmt.Fprintf(w, "plugin_allocated_bytes_total %d\n", m.TotalAlloc)
}

func family(w io.Writer, name, kind, help string) {
	fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}
