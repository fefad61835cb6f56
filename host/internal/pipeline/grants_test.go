package pipeline

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Only calls that had begun by the mark are waited for, so the wait ends even on a host
// that is never without a call.
func TestGrants(t *testing.T) {
	t.Parallel()
	var g grants
	require.True(t, g.ended(g.mark()), "there was none")

	first, second := g.begin(), g.begin()
	mark := g.mark()
	third := g.begin()
	require.False(t, g.ended(mark))
	require.True(t, g.ended(0))
	g.end(second)
	require.False(t, g.ended(mark), "an earlier one is in progress")
	require.False(t, g.ended(second), "likewise")
	g.end(first)
	require.True(t, g.ended(mark), "what began later does not count")
	require.False(t, g.ended(g.mark()))
	g.end(first)
	g.end(0)
	require.False(t, g.ended(g.mark()), "only one's own call ends")
	g.end(third)
	require.True(t, g.ended(g.mark()))
	require.Equal(t, third, g.mark())
}

// In whatever order things happen, ended agrees with the calls.
func TestGrantsInAnyOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var g grants
		open := map[ticket]bool{}
		marks := []ticket{g.mark()}
		t.Repeat(map[string]func(*rapid.T){
			"begin": func(t *rapid.T) {
				call := g.begin()
				require.Equal(t, call, g.mark())
				open[call] = true
			},
			"end": func(t *rapid.T) {
				call := ticket(rapid.Uint64Range(0, uint64(g.mark())).Draw(t, "call"))
				g.end(call)
				delete(open, call)
			},
			"mark": func(*rapid.T) { marks = append(marks, g.mark()) },
			"": func(t *rapid.T) {
				for _, mark := range marks {
					ended := true
					for call := range open {
						ended = ended && call > mark
					}
					require.Equal(t, ended, g.ended(mark))
				}
			},
		})
	})
}

// A host may have two leases of one step, one of them void: from a late reply, after the
// step was given to others and back. It knows both.
func TestHeldKnowsWhateverIsHeld(t *testing.T) {
	t.Parallel()
	step := store.StepKey{Task: vocab.TaskID(vocab.UUID{1}), Number: 2}
	lease := func(n byte) store.Held { return store.Held{StepKey: step, Lease: vocab.UUID{n}} }
	h := newHeld()
	known := func(leases ...byte) {
		t.Helper()
		var all []byte
		for n := range byte(5) {
			if h.knows(lease(n)) {
				all = append(all, n)
			}
		}
		require.Equal(t, leases, all)
	}
	attempts := make([]*attempt, 4)
	for n := range attempts {
		attempts[n] = &attempt{Lease: store.Lease{StepKey: step, ID: vocab.UUID{byte(n)}}}
		h.add(attempts[n : n+1])
	}
	h.keep(lease(4))
	known(0, 1, 2, 3, 4)
	require.Equal(t, attempts[3], h.find(step, vocab.UUID{3}))
	require.Nil(t, h.find(step, vocab.UUID{2}), "another has taken its place")

	idle := h.empty()
	h.remove(attempts[1])
	known(0, 2, 3, 4)
	h.drop(lease(4))
	known(0, 2, 3)
	h.remove(attempts[3])
	known(0, 2)
	require.Equal(t, attempts[2], h.find(step, vocab.UUID{2}))
	h.remove(attempts[0])
	known(2)
	select {
	case <-idle:
		t.Fatal("one of them still runs")
	default:
	}
	h.remove(attempts[2])
	known()
	<-idle
}
