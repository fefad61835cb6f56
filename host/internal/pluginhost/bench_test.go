package pluginhost

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/rollout"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
)

// BenchmarkDispatch runs steps through a real plugin process, host and plugin
// on the same cores. An operation is one step; allocations are the host's.
func BenchmarkDispatch(b *testing.B) {
	for _, inFlight := range []int{1, 16, 64, 256} {
		for _, plugin := range []struct{ mode, handler string }{{"sdk", "chaos.echo"}, {"raw", "raw.answer"}} {
			b.Run(fmt.Sprintf("%s/%d", plugin.mode, inFlight), func(b *testing.B) {
				s := spec("chaos", script(b, plugin.mode))
				s.MaxInFlight = inFlight
				h := started(b, nil, s)
				dispatchAll(b, h, plugin.handler, inFlight)
			})
		}
	}
}

// dispatchAll keeps inFlight steps in flight until all have run. Like the host's
// dispatcher, it continues from where outcomes arrive.
func dispatchAll(b *testing.B, h *bench, handler string, inFlight int) {
	b.ReportAllocs()
	b.ResetTimer()
	cpu := cpuTime()
	var wg sync.WaitGroup
	wg.Add(b.N)
	room := make(chan struct{}, 2*inFlight)
	input := []byte(`{"even_number":6,"note":"about two hundred bytes of input, as a step has them: ........................................................................................................................"}`)
	done := func(Outcome) { <-room; wg.Done() }
	for range b.N {
		room <- struct{}{}
		h.Dispatch(Call{Handler: handler, Done: done, Step: &pluginv1.Step{
			TaskUuid: "0199c0de-0000-7000-8000-000000000000", StepUuid: "0199c0de-0000-7000-8000-000000000001",
			Namespace: "bench", TaskName: "linear", TaskVersion: "1.0.0", StepName: "one",
			Attempt: 1, MaxAttempts: 3, LeaseId: "0199c0de-0000-7000-8000-000000000002", IdempotencyKey: "0199c0de-0000-7000-8000-000000000001",
			Context: input, Config: []byte(`{}`), TimeoutMs: 30_000,
		}})
	}
	wg.Wait()
	b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "host-cpu-ns/op")
}

// cpuTime returns the processor time that this process has used, in nanoseconds.
func cpuTime() int64 {
	var ru syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
	return ru.Utime.Nano() + ru.Stime.Nano()
}

// BenchmarkLease takes and gives back a lease on the generation of a handler.
func BenchmarkLease(b *testing.B) {
	r := newRouter()
	g := &generation{plugin: "p", handlers: []string{"a.b", "a.c"}, idle: make(chan struct{}, 1)}
	if err := r.put(g); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		g, _ := r.acquire("a.b", "0199c0de-0000-7000-8000-000000000000")
		g.release(1)
	}
}

// BenchmarkBookkeeping measures the host's work for a step without the wire, in
// batches of 16.
func BenchmarkBookkeeping(b *testing.B) {
	const batch = 16
	ended := 0
	s := &stream{
		metrics: newMetrics().of("p"), record: rollout.NewRecord([]string{"a.b"}), finished: func(n int) { ended += n }, wake: make(chan struct{}, 1),
		calls: calls{window: batch},
	}
	step := &pluginv1.Step{TimeoutMs: 1000, Context: []byte(`{}`)}
	done := func(Outcome) {}
	outcomes := make([]*pluginv1.Outcome, batch)
	for i := range outcomes {
		outcomes[i] = &pluginv1.Outcome{Result: []byte("1"), ExecutionUs: 100}
	}
	var answers []answer
	b.ReportAllocs()
	for n := 0; n < b.N; n += batch {
		for range batch {
			s.dispatch(Call{Handler: "a.b", Step: step, Done: done})
		}
		for i := range s.next().GetSteps() {
			outcomes[i].CallId = s.calls.places[i].id
		}
		answers = s.settle(&pluginv1.WorkResponse{Outcomes: outcomes}, answers[:0])
		s.conclude(answers)
	}
	if ended < b.N {
		b.Fatalf("%d of %d calls ended", ended, b.N)
	}
}

// BenchmarkSwap measures a swap, from the file to serving, and its rollback: of
// an idle plugin, and of one that runs steps all the while, on the same
// processors. own-start-ns is the plugin's part of it, from the execution of the
// new process to its handshake. The time of a step during swaps is shown beside
// that without.
func BenchmarkSwap(b *testing.B) {
	for _, callers := range []int{0, 1, 8} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) { benchmarkSwap(b, callers) })
	}
}

func benchmarkSwap(b *testing.B, callers int) {
	path, err := unruly()
	require.NoError(b, err)
	binary, err := os.ReadFile(path)
	require.NoError(b, err)
	var paths [2]string // as large as plugins usually are
	for i := range paths {
		paths[i] = filepath.Join(b.TempDir(), "plugin")
		require.NoError(b, os.WriteFile(paths[i], append(binary, fmt.Sprintf("version %d", i)...), 0o700))
	}
	s := spec("chaos", paths[0])
	s.Rollout.Trial = -1
	h := started(b, nil, s)
	calm := h.load(b, "chaos.echo", callers)
	if callers > 0 {
		eventually(b, "there is something to compare with", func() bool { return calm.outcomes.Load() > 5000 })
	}
	calm.end()
	l := h.load(b, "chaos.echo", callers)
	var back, own time.Duration
	b.ResetTimer()
	for range b.N {
		require.NoError(b, h.Swap(b.Context(), chaosSlot, Source{Path: paths[1]}, ann, "bench"))
		b.StopTimer()
		own += h.serving(chaosSlot).own
		began := time.Now()
		require.NoError(b, h.Rollback(b.Context(), chaosSlot, ann, "bench"))
		back += time.Since(began)
		require.NoError(b, h.Release(b.Context(), chaosSlot, "", ann, "bench"))
		b.StartTimer()
	}
	b.StopTimer()
	l.end()
	b.ReportMetric(float64(own)/float64(b.N), "own-start-ns/op")
	b.ReportMetric(float64(back)/float64(b.N), "rollback-ns/op")
	if callers > 0 {
		b.ReportMetric(float64(calm.times.Quantile(.99)), "calm-p99-ns")
		b.ReportMetric(float64(l.times.Quantile(.99)), "swaps-p99-ns")
	}
	require.Zero(b, l.bad.Load())
}

// serving returns the generation that serves a slot.
func (b *bench) serving(id SlotID) *generation {
	s, err := b.slot(id)
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.primary
}

// BenchmarkRouteSwitch replaces the generation of a slot with a dozen handlers:
// it builds the table while calls continue, and switches to it.
func BenchmarkRouteSwitch(b *testing.B) {
	r := newRouter()
	var edits [2]edit
	for i := range edits {
		g := &generation{number: uint64(i), plugin: "p", idle: make(chan struct{}, 1)}
		for n := range 12 {
			g.handlers = append(g.handlers, fmt.Sprintf("h.%02d", n))
		}
		edits[i] = edit{slot: "p", to: served{primary: g}}
	}
	b.Run("prepare", func(b *testing.B) {
		b.ReportAllocs()
		for n := 0; b.Loop(); n++ {
			_, err := r.prepare(edits[n%2])
			require.NoError(b, err)
		}
	})
	b.Run("switch", func(b *testing.B) {
		b.ReportAllocs()
		for n := 0; b.Loop(); n++ {
			b.StopTimer()
			ready, err := r.prepare(edits[n%2])
			require.NoError(b, err)
			b.StartTimer()
			if err := r.change(ready, ready.edits...); err != nil {
				b.Fatal(err)
			}
		}
	})
}
