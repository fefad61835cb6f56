package pipeline

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/store"
)

// capacityBed is a capacity for the steps of one plan, whose step n has handler n.
type capacityBed struct {
	*capacity
	plan *store.Plan
	ids  map[string]int32
}

func newCapacityBed() *capacityBed {
	now := time.Now() // it stands still: nothing is measured
	return &capacityBed{
		capacity: newCapacity(1000, func() time.Time { return now }),
		plan:     &store.Plan{HandlerIDs: []int32{0, 1}},
		ids:      map[string]int32{"zero": 0, "one": 1},
	}
}

func (b *capacityBed) serves(services ...pluginhost.Service) { b.serve(services, b.ids) }

// take leases so many steps of a handler.
func (b *capacityBed) take(n int, handler int32) []*attempt {
	g := b.reserve(want{namespace: "lab", take: n})
	attempts := make([]*attempt, n)
	for i := range attempts {
		attempts[i] = &attempt{Lease: store.Lease{StepKey: store.StepKey{Number: handler}}, plan: b.plan}
	}
	b.taken(g, attempts)
	return attempts
}

// room is what a call that wants much is granted.
func (b *capacityBed) room() int {
	g := b.reserve(want{namespace: "lab", take: 1000})
	b.taken(g, nil)
	return g.room
}

// served are the handlers of which such a call may have some.
func (b *capacityBed) served() []string {
	g := b.reserve(want{namespace: "lab", take: 1000})
	b.taken(g, nil)
	return g.names
}

// What runs while its handler goes over from one plugin to another takes nothing from
// the first one's room when it has ended, and gives the other none.
func TestRoomOfPluginsThatHandOverAHandler(t *testing.T) {
	t.Parallel()
	b := newCapacityBed()
	b.serves(pluginhost.Service{Name: "a", Handlers: []string{"zero", "one"}, Window: 2})
	runs := b.take(4, 1)
	require.Zero(t, b.room())
	b.serves(pluginhost.Service{Name: "a", Handlers: []string{"zero"}, Window: 2}, pluginhost.Service{Name: "b", Handlers: []string{"one"}, Window: 2})
	require.Equal(t, 4, b.room(), "b's")
	require.Equal(t, []string{"one"}, b.served())
	b.settled(runs)
	require.Equal(t, 8, b.room())
	require.ElementsMatch(t, []string{"zero", "one"}, b.served())
	b.take(4, 1)
	require.Equal(t, []string{"zero"}, b.served())
	require.Equal(t, 4, b.room())
}

// What was leased before a plugin went away, or came while it was away, counts once
// it is back as it did before.
func TestRoomOfAPluginThatComesBack(t *testing.T) {
	t.Parallel()
	b := newCapacityBed()
	a := pluginhost.Service{Name: "a", Handlers: []string{"zero", "one"}, Window: 2}
	for range 3 {
		b.serves(a)
		before := b.take(2, 0)
		b.serves()
		require.Zero(t, b.room())
		late := b.take(1, 1)
		b.serves(a)
		require.Equal(t, 2, b.room(), "what runs still takes it")
		b.settled(before)
		b.settled(late)
		require.Equal(t, 4, b.room())
	}
}
