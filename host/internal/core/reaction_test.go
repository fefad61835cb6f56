package core

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// sleepers run every step for a while, any number at once.
type sleepers struct{ nap atomic.Int64 }

// Services implements [pipeline.Runner].
func (*sleepers) Services() []pluginhost.Service {
	return []pluginhost.Service{{Name: "sleepers", Window: 10_000, Handlers: []string{"sleepers.nap"}}}
}

// Changed implements [pipeline.Runner].
func (*sleepers) Changed() <-chan struct{} { return nil }

// Dispatch implements [pipeline.Runner].
func (s *sleepers) Dispatch(call pluginhost.Call) {
	time.AfterFunc(time.Duration(s.nap.Load()), func() {
		call.Done(pluginhost.Outcome{Kind: vocab.OutcomeSuccess, Result: json.RawMessage("1")})
	})
}

// Cancel implements [pipeline.Runner].
func (*sleepers) Cancel(string, string) {}

// BenchmarkReaction measures how long a pool takes from a jump of its backlog to the size
// that it requires, with the real coordinator, engine and database, and the default
// algorithm and policy. An idle namespace with 4 executors gets 2000 steps of 200 ms at
// once; it may have 64 executors, and needs them.
func BenchmarkReaction(b *testing.B) {
	const least, most, backlog, nap = 4, 64, 2000, 200 * time.Millisecond
	work := &sleepers{}
	host := startHost(b, func(o *Options) { o.InProcess = work }, fmt.Sprintf("[executor_pools.step_execution]\nmin = %d\nmax = %d\n", least, most),
		func(o config.Options) config.Options { return o })
	var reactions []time.Duration
	for n := 0; b.Loop(); n++ {
		namespace := fmt.Sprintf("reaction_%d", n)
		_, _, err := host.api.ApplyTemplate(b.Context(), "nap.yaml", fmt.Appendf(nil, "namespace: %s\nname: nap\nversion: 1.0.0\nsteps:\n  - {name: a, handler: sleepers.nap}\n", namespace))
		require.NoError(b, err)
		submit := func(n int) {
			for _, a := range host.Engine.SubmitEach(b.Context(), slices.Repeat([]pipeline.Submission{{Namespace: namespace, Name: "nap", Version: "1.0.0", Context: json.RawMessage("{}")}}, n)) {
				require.NoError(b, a.Err)
			}
		}
		size := func() int {
			s, err := host.pools.Pool("step_execution." + namespace)
			require.NoError(b, err)
			return s.Size
		}
		submit(1) // the pool exists and is idle
		<-time.After(2 * time.Second)
		require.Equal(b, least, size())
		work.nap.Store(int64(nap))
		began := time.Now()
		submit(backlog)
		for size() < most {
			require.Less(b, time.Since(began), time.Minute)
			<-time.After(time.Millisecond)
		}
		reactions = append(reactions, time.Since(began))
		work.nap.Store(0)
		require.Eventually(b, func() bool { return host.Engine.InFlight() == 0 }, time.Minute, 10*time.Millisecond)
	}
	slices.Sort(reactions)
	b.ReportMetric(float64(reactions[len(reactions)/2].Milliseconds()), "ms-median")
	b.ReportMetric(float64(reactions[len(reactions)-1].Milliseconds()), "ms-worst")
	b.ReportMetric(0, "ns/op")
}
