package pluginhost

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/rollout"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
)

// A few hung calls do not matter while the window is large. If the plugin then wants
// fewer calls, they may take all places, so nothing more is sent, and nothing more
// can hang.
func TestHungCallsInAWindowThatShrinks(t *testing.T) {
	t.Parallel()
	s := &stream{
		calls: calls{window: 64}, most: 64, metrics: newMetrics().of("lab"), record: rollout.NewRecord([]string{"lab.one"}), finished: func(int) {},
		wake: make(chan struct{}, 1), hanging: make(chan struct{}, 1),
	}
	ended, now := 0, time.Now()
	for n := range 5 {
		s.calls.add(Call{Handler: "lab.one", Step: &pluginv1.Step{StepUuid: fmt.Sprint(n), TimeoutMs: 1}, Done: func(Outcome) { ended++ }}, 1)
	}
	require.Len(t, s.calls.batch(now, 0).GetSteps(), 5)
	now = now.Add(time.Second)
	s.expire(now)
	require.Equal(t, 5, ended)
	require.Empty(t, s.hanging)
	s.settle(&pluginv1.WorkResponse{MaxInFlight: 4}, nil)
	s.expire(now)
	require.NotEmpty(t, s.hanging, "the process is to be replaced")
}

// Whatever happens in whatever order, each call ends exactly once, no more are in
// flight than the window allows, and nothing is lost at the end.
func TestEveryCallEndsOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := &callsModel{
			calls: calls{window: rapid.IntRange(1, 6).Draw(t, "window")},
			ended: map[string]int{}, flying: map[uint64]string{}, now: time.Unix(0, 0),
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				name := fmt.Sprint("step", m.added)
				m.added++
				step := &pluginv1.Step{StepUuid: name, TimeoutMs: rapid.Uint32Range(0, 3).Draw(t, "timeout") * 1000}
				m.calls.add(Call{Step: step}, rapid.IntRange(1, maxBatchBytes).Draw(t, "size"))
			},
			"batch": func(*rapid.T) {
				for _, s := range m.calls.batch(m.now, 0).GetSteps() {
					m.flying[s.GetCallId()] = s.GetStepUuid()
				}
			},
			"settle": func(t *rapid.T) {
				id := m.anyID(t)
				name, flies := m.flying[id]
				p, ok := m.calls.settle(id)
				require.Equal(t, flies, ok, "known")
				if ok && !p.hung {
					require.Equal(t, name, p.call.Step.GetStepUuid())
					m.end(p.call)
				}
				delete(m.flying, id)
			},
			"expire": func(t *rapid.T) {
				m.now = m.now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
				for _, p := range m.calls.expire(m.now) {
					m.end(p.call)
				}
			},
			"cancel": func(t *rapid.T) {
				name := fmt.Sprint("step", rapid.IntRange(0, m.added).Draw(t, "step"))
				for _, c := range m.calls.cancel(name, "why", m.now.Add(time.Second)) {
					m.end(c)
				}
			},
			"": func(t *rapid.T) {
				require.LessOrEqual(t, m.calls.taken(), m.calls.window)
				require.Equal(t, len(m.flying), m.calls.taken())
				hung, timed := 0, 0
				for _, p := range m.calls.places {
					if p.hung {
						hung++
					}
					if !p.deadline.IsZero() {
						timed++
					}
				}
				require.Equal(t, hung, m.calls.hung)
				require.Equal(t, timed, m.calls.timed)
			},
		})
		for _, c := range m.calls.abandon() {
			m.end(c)
		}
		require.Len(t, m.ended, m.added, "no call is lost")
		for name, n := range m.ended {
			require.Equal(t, 1, n, name)
		}
	})
}

type callsModel struct {
	calls  calls
	added  int
	ended  map[string]int
	flying map[uint64]string
	now    time.Time
}

func (m *callsModel) end(c Call) { m.ended[c.Step.GetStepUuid()]++ }

// anyID draws the id of a call in flight, or one that does not exist.
func (m *callsModel) anyID(t *rapid.T) uint64 {
	ids := []uint64{0, 1, 1<<64 - 1, 1 << placeBits}
	for id := range m.flying {
		ids = append(ids, id)
	}
	return rapid.SampledFrom(ids).Draw(t, "id")
}

func TestBatchesAreBounded(t *testing.T) {
	t.Parallel()
	c := calls{window: 10_000}
	for range 1000 {
		c.add(Call{Step: &pluginv1.Step{}}, 1000)
	}
	require.Len(t, c.batch(time.Now(), 0).GetSteps(), maxBatchSteps)

	c = calls{window: 10_000}
	for range 5 {
		c.add(Call{Step: &pluginv1.Step{}}, maxBatchBytes/2)
	}
	c.add(Call{Step: &pluginv1.Step{}}, 5*maxBatchBytes) // sent alone
	var sizes []int
	for r := c.batch(time.Now(), 0); r != nil; r = c.batch(time.Now(), 0) {
		sizes = append(sizes, len(r.GetSteps()))
	}
	require.Equal(t, []int{2, 2, 1, 1}, sizes)
	require.Zero(t, c.waiting())
}

// Steps are sent in the order in which they came.
func TestOrderIsKept(t *testing.T) {
	t.Parallel()
	c := calls{window: 100}
	next := uint32(1)
	for i := range uint32(5000) {
		c.add(Call{Step: &pluginv1.Step{Attempt: i + 1}}, 10)
		if i%7 == 0 {
			for _, s := range c.batch(time.Now(), 0).GetSteps() {
				require.Equal(t, next, s.GetAttempt())
				next++
				c.settle(s.GetCallId())
			}
		}
	}
	for r := c.batch(time.Now(), 0); r != nil; r = c.batch(time.Now(), 0) {
		for _, s := range r.GetSteps() {
			require.Equal(t, next, s.GetAttempt())
			next++
			c.settle(s.GetCallId())
		}
	}
	require.Equal(t, uint32(5001), next)
}
