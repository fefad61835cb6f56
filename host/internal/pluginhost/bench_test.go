package pluginhost

import (
	"fmt"
	"sync"
	"syscall"
	"testing"

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

// dispatchAll keeps so many steps in flight until all have run. Like the host's
// dispatcher it goes on from where outcomes come in.
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

// cpuTime is what this process has used of the processors, in nanoseconds.
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
		g, _ := r.acquire("a.b")
		g.release(1)
	}
}

// BenchmarkBookkeeping is what the host does for a step beside the wire, in
// batches of 16.
func BenchmarkBookkeeping(b *testing.B) {
	const batch = 16
	ended := 0
	s := &stream{
		metrics: newMetrics().of("p"), finished: func(n int) { ended += n }, wake: make(chan struct{}, 1),
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
