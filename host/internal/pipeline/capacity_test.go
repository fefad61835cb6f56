package pipeline

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/store"
)

// capacityBed is a capacity for the steps of one plan; step n has handler n.
type capacityBed struct {
	*capacity
	plan *store.Plan
	ids  map[string]int32
}

func newCapacityBed() *capacityBed {
	now := time.Now() // time stands still: nothing is measured
	return &capacityBed{
		capacity: newCapacity(1000, func() time.Time { return now }),
		plan:     &store.Plan{HandlerIDs: []int32{0, 1}},
		ids:      map[string]int32{"zero": 0, "one": 1},
	}
}

func (b *capacityBed) serves(services ...pluginhost.Service) { b.serve(services, b.ids) }

// take leases the given number of steps of a handler.
func (b *capacityBed) take(n int, handler int32) []*attempt {
	g := b.reserve(want{namespace: "lab", take: n})
	attempts := make([]*attempt, n)
	for i := range attempts {
		attempts[i] = &attempt{Lease: store.Lease{StepKey: store.StepKey{Number: handler}}, plan: b.plan}
	}
	b.taken(g, attempts)
	return attempts
}

// room returns what a call that wants a lot is granted.
func (b *capacityBed) room() int {
	g := b.reserve(want{namespace: "lab", take: 1000})
	b.taken(g, nil)
	return g.room
}

// served returns the handlers that such a call may lease steps of.
func (b *capacityBed) served() []string {
	g := b.reserve(want{namespace: "lab", take: 1000})
	b.taken(g, nil)
	return g.names
}

// A step that runs while its handler moves from one plugin to another, once it has ended,
// takes no room from the first and gives none to the second.
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

// Leases from before a plugin went away, or that arrived while it was away, count as
// before once it is back.
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
		require.Equal(t, 2, b.room(), "running steps still occupy it")
		b.settled(before)
		b.settled(late)
		require.Equal(t, 4, b.room())
	}
}

// reserved returns the room of a call that wants and ends the given numbers of leases.
func (b *capacityBed) reserved(t *testing.T, room, take, ending int) grant {
	t.Helper()
	g := b.reserve(want{namespace: "lab", take: take, ending: ending})
	require.Equal(t, room, g.room)
	return g
}

// Concurrent calls are granted no more room than there is, and what they do not use is
// available to others.
func TestRoomOfCallsUnderWay(t *testing.T) {
	t.Parallel()
	for what, limit := range map[string]func(b *capacityBed){
		"of the host":      func(b *capacityBed) { b.resize(6) },
		"of the plugin":    func(b *capacityBed) { b.serves(pluginhost.Service{Name: "a", Handlers: []string{"zero"}, Window: 3}) },
		"of the namespace": func(b *capacityBed) { b.setSpace("lab", 3, false) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := newCapacityBed()
			b.plan.Namespace = "lab"
			b.serves(pluginhost.Service{Name: "a", Handlers: []string{"zero"}, Window: 100})
			b.setSpace("lab", 100, false)
			limit(b)
			first := b.reserved(t, 4, 4, 0)
			second := b.reserved(t, 2, 1000, 0)
			b.reserved(t, 0, 1000, 0)
			b.taken(first, nil)
			runs := b.take(4, 0)
			b.reserved(t, 0, 1000, 0)
			b.reserved(t, 3, 1000, 3) // the places of the leases that end
			b.taken(second, nil)
			b.settled(runs)
			b.reserved(t, 3, 1000, 0) // three are still granted
		})
	}
}

// A call that gets less than its namespace has room for reserves no more than it got.
func TestRoomOfANamespaceThatTheHostDoesNotHave(t *testing.T) {
	t.Parallel()
	b := newCapacityBed()
	b.serves(pluginhost.Service{Name: "a", Handlers: []string{"zero"}, Window: 100})
	b.setSpace("lab", 3, false)
	b.resize(2)
	b.reserved(t, 2, 1000, 0)
	b.resize(1000)
	b.reserved(t, 4, 1000, 0)
}

// Whatever makes room, or removes what kept it from being granted, signals it.
func TestWhateverMakesRoomIsSaid(t *testing.T) {
	t.Parallel()
	b := newCapacityBed()
	a := pluginhost.Service{Name: "a", Handlers: []string{"zero"}, Window: 2}
	said := func(what string, change func()) {
		t.Helper()
		select {
		case <-b.freed:
		default:
		}
		change()
		select {
		case <-b.freed:
		default:
			require.Fail(t, "nobody is told", what)
		}
	}
	said("a plugin serves", func() { b.serves(a) })
	said("a namespace may run more", func() { b.setSpace("lab", 8, false) })
	said("the host may hold more", func() { b.resize(100) })
	g := b.reserved(t, 4, 4, 0)
	require.False(t, b.sleep(), "a call in progress may bring some")
	said("a call brought less than it might", func() { b.taken(g, nil) })
	runs := b.take(4, 0)
	require.False(t, b.sleep(), "some run")
	said("some have ended", func() { b.settled(runs) })
	require.True(t, b.sleep())
	b.taken(b.reserved(t, 0, 4, 0), nil)
	said("the host is awake", b.wake)
	b.setSpace("lab", 8, true)
	b.taken(b.reserved(t, 0, 4, 0), nil)
	b.setSpace("lab", 8, false)
	b.close()
	require.False(t, b.sleep())
	b.reserved(t, 0, 4, 0)
}
